/* partita_random.h: random numbers, as NumPy's RandomState draws them: MT19937 (Matsumoto and Nishimura, 1998), 53 bits a
 * number, normal numbers by the polar method. Without a seed the whole state is the system's entropy. */
#ifndef PARTITA_RANDOM_H
#define PARTITA_RANDOM_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

#include "partita_kernel.h"

#define PARTITA_WORDS 624

typedef struct partita_generator {
    uint32_t words[PARTITA_WORDS];
    int place; /* of the next word */
} partita_generator;

/* Whether there is a generator; a negative number is no seed. */
static inline bool partita_seed(const partita_call *call, int32_t *status, int64_t number, partita_generator *generator) {
    uint32_t *words = generator->words, seed = (uint32_t)number;
    generator->place = 0;
    for (uint32_t word = 0; number >= 0 && word < PARTITA_WORDS; ++word) {
        words[word] = seed;
        seed = 1812433253u * (seed ^ seed >> 30) + word + 1;
    }
    int failed = 0;
    for (int word = 0; number < 0 && word < PARTITA_WORDS; word += 52) /* a divisor of all, and no more than one call gives */
        failed |= getentropy(words + word, 52 * sizeof *words);
    if (failed)
        *status = call->services->fail(call, PARTITA_ERROR_BACKEND, "the system gives no entropy for random numbers");
    return !failed;
}

static inline uint32_t partita_word(partita_generator *generator) {
    uint32_t *words = generator->words;
    const int place = generator->place, next = (place + 1) % PARTITA_WORDS;
    const uint32_t both = (words[place] & 0x80000000u) | (words[next] & 0x7fffffffu);
    uint32_t word = words[(place + 397) % PARTITA_WORDS] ^ both >> 1 ^ (both & 1 ? 0x9908b0dfu : 0);
    words[place] = word;
    generator->place = next;
    word ^= word >> 11;
    word ^= word << 7 & 0x9d2c5680u;
    word ^= word << 15 & 0xefc60000u;
    return word ^ word >> 18;
}

/* A number in [0, 1), of 53 bits. */
static inline double partita_uniform(partita_generator *generator) {
    const uint32_t high = partita_word(generator) >> 5, low = partita_word(generator) >> 6;
    return (high * 67108864.0 + low) / 9007199254740992.0;
}

static inline void partita_draw_uniform(PARTITA_ROUTINE, int64_t seed, int64_t count, double *y) {
    partita_generator generator;
    const bool draws = partita_seed(call, status, seed, &generator);
    for (int64_t index = 0; draws && index < count; ++index)
        y[index] = partita_uniform(&generator);
}

static inline void partita_draw_normal(PARTITA_ROUTINE, int64_t seed, int64_t count, double *y) {
    partita_generator generator;
    const bool draws = partita_seed(call, status, seed, &generator);
    for (int64_t index = 0; draws && index < count; index += 2) {
        double first, second, square;
        do { /* a point of the unit disc */
            first = 2.0 * partita_uniform(&generator) - 1.0;
            second = 2.0 * partita_uniform(&generator) - 1.0;
            square = first * first + second * second;
        } while (square >= 1.0 || square == 0.0);
        const double factor = sqrt(-2.0 * log(square) / square);
        y[index] = factor * second;
        if (index + 1 < count)
            y[index + 1] = factor * first;
    }
}

#endif
