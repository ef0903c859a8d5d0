/* partita_size.h: arithmetic on sizes that cannot overflow unseen.
 *
 * The expressions of a model's derived sizes are printed with these. A result that does not fit in 64 bits, or a
 * division by zero, is PARTITA_NO_SIZE, and so is everything computed from it; the runtime refuses it as a size.
 */
#ifndef PARTITA_SIZE_H
#define PARTITA_SIZE_H

#include <stdint.h>

#define PARTITA_NO_SIZE INT64_MIN

static inline int partita_is_size(int64_t left, int64_t right) {
    return left != PARTITA_NO_SIZE && right != PARTITA_NO_SIZE;
}

static inline int64_t partita_add(int64_t left, int64_t right) {
    int64_t result;
    return partita_is_size(left, right) && !__builtin_add_overflow(left, right, &result) ? result : PARTITA_NO_SIZE;
}

static inline int64_t partita_subtract(int64_t left, int64_t right) {
    int64_t result;
    return partita_is_size(left, right) && !__builtin_sub_overflow(left, right, &result) ? result : PARTITA_NO_SIZE;
}

static inline int64_t partita_multiply(int64_t left, int64_t right) {
    int64_t result;
    return partita_is_size(left, right) && !__builtin_mul_overflow(left, right, &result) ? result : PARTITA_NO_SIZE;
}

/* Rounds towards minus infinity. */
static inline int64_t partita_floor_divide(int64_t left, int64_t right) {
    if (!partita_is_size(left, right) || right == 0)
        return PARTITA_NO_SIZE;
    int64_t quotient = left / right; /* cannot overflow: INT64_MIN is PARTITA_NO_SIZE */
    return left % right != 0 && (left < 0) != (right < 0) ? quotient - 1 : quotient;
}

/* Rounds towards plus infinity. */
static inline int64_t partita_ceil_divide(int64_t left, int64_t right) {
    if (!partita_is_size(left, right) || right == 0)
        return PARTITA_NO_SIZE;
    int64_t quotient = left / right;
    return left % right != 0 && (left < 0) == (right < 0) ? quotient + 1 : quotient;
}

/* Has the sign of the divisor, as in Python. */
static inline int64_t partita_modulo(int64_t left, int64_t right) {
    if (!partita_is_size(left, right) || right == 0)
        return PARTITA_NO_SIZE;
    int64_t rest = left % right;
    return rest != 0 && (rest < 0) != (right < 0) ? rest + right : rest;
}

static inline int64_t partita_minimum(int64_t left, int64_t right) {
    if (!partita_is_size(left, right))
        return PARTITA_NO_SIZE;
    return left < right ? left : right;
}

static inline int64_t partita_maximum(int64_t left, int64_t right) {
    if (!partita_is_size(left, right))
        return PARTITA_NO_SIZE;
    return left > right ? left : right;
}

#endif
