/* partita_turn.h: squares of elements of four bytes, rows for columns.
 *
 * partita_turn_N: to[c * N + r] = from[r * stride + c], for the `rows` and `columns`, N at most, that there are.
 * A whole square is N vectors; a stage exchanges one bit of the row's number with that bit of the column's.
 */
#ifndef PARTITA_TURN_H
#define PARTITA_TURN_H

#include <stdint.h>

typedef uint32_t partita_turned __attribute__((may_alias));
typedef uint32_t partita_turned_4 __attribute__((vector_size(16), aligned(4), may_alias));
typedef uint32_t partita_turned_8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef uint32_t partita_turned_16 __attribute__((vector_size(64), aligned(4), may_alias));

#ifdef __clang__
#define PARTITA_SHUFFLE(n, a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PARTITA_SHUFFLE(n, a, b, ...) __builtin_shuffle(a, b, (partita_turned_##n){__VA_ARGS__})
#endif

/* Which of the elements of two rows, whose numbers differ in `bit`, come to each place of the first and of the second. */
#define PARTITA_FIRST(n, bit, place) ((place) & (bit) ? (n) + (place) - (bit) : (place))
#define PARTITA_SECOND(n, bit, place) ((place) & (bit) ? (n) + (place) : (place) + (bit))
#define PARTITA_PLACES_4(of, n, bit, p) of(n, bit, p), of(n, bit, p + 1), of(n, bit, p + 2), of(n, bit, p + 3)
#define PARTITA_PLACES_8(of, n, bit, p) PARTITA_PLACES_4(of, n, bit, p), PARTITA_PLACES_4(of, n, bit, p + 4)
#define PARTITA_PLACES_16(of, n, bit, p) PARTITA_PLACES_8(of, n, bit, p), PARTITA_PLACES_8(of, n, bit, p + 8)

#define PARTITA_EXCHANGE(n, bit)                                                                          \
    _Pragma("GCC unroll 16") for (int row = 0; row < n; ++row) {                                          \
        if (!(row & (bit))) {                                                                             \
            const partita_turned_##n a = lines[row], b = lines[row + (bit)];                              \
            lines[row] = PARTITA_SHUFFLE(n, a, b, PARTITA_PLACES_##n(PARTITA_FIRST, n, bit, 0));          \
            lines[row + (bit)] = PARTITA_SHUFFLE(n, a, b, PARTITA_PLACES_##n(PARTITA_SECOND, n, bit, 0)); \
        }                                                                                                 \
    }

#define PARTITA_TURN(n, stages)                                                                                   \
    static inline void partita_turn_##n(const void *from, int64_t stride, int64_t rows, int64_t columns, void *to) { \
        const partita_turned *source = from;                                                                      \
        partita_turned *target = to;                                                                              \
        if (rows < n || columns < n) {                                                                            \
            for (int64_t row = 0; row < rows; ++row)                                                              \
                for (int64_t column = 0; column < columns; ++column)                                              \
                    target[column * n + row] = source[row * stride + column];                                     \
            return;                                                                                               \
        }                                                                                                         \
        partita_turned_##n lines[n];                                                                              \
        _Pragma("GCC unroll 16") for (int row = 0; row < n; ++row)                                                \
            lines[row] = *(const partita_turned_##n *)(source + row * stride);                                    \
        stages                                                                                                    \
        _Pragma("GCC unroll 16") for (int row = 0; row < n; ++row)                                                \
            *(partita_turned_##n *)(target + row * n) = lines[row];                                               \
    }

PARTITA_TURN(4, PARTITA_EXCHANGE(4, 2) PARTITA_EXCHANGE(4, 1))
PARTITA_TURN(8, PARTITA_EXCHANGE(8, 4) PARTITA_EXCHANGE(8, 2) PARTITA_EXCHANGE(8, 1))
PARTITA_TURN(16, PARTITA_EXCHANGE(16, 8) PARTITA_EXCHANGE(16, 4) PARTITA_EXCHANGE(16, 2) PARTITA_EXCHANGE(16, 1))

#endif
