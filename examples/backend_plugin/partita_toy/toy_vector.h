/* Stands for an accelerator's library: three operations on vectors of floats. */
#ifndef TOY_VECTOR_H
#define TOY_VECTOR_H

#include <stdint.h>

static inline void toy_add(const float *a, const float *b, float *result, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        result[i] = a[i] + b[i];
}

static inline void toy_mul(const float *a, const float *b, float *result, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        result[i] = a[i] * b[i];
}

static inline void toy_add_relu(const float *a, const float *b, float *result, int64_t count) {
    for (int64_t i = 0; i < count; i++) {
        const float sum = a[i] + b[i];
        result[i] = sum > 0 ? sum : 0;
    }
}

#endif
