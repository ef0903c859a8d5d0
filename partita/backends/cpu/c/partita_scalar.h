/* partita_scalar.h: scalar functions of generated kernels.
 *
 * Each is defined for every operand: what C leaves open (division by zero, shifts by the width, casts out of range) is
 * settled here, once. Floating types narrower than float are computed in float: `_to_float` widens a stored element,
 * `_round` holds a result to what the type can represent, `_from_float` stores a value that was rounded.
 */
#ifndef PARTITA_SCALAR_H
#define PARTITA_SCALAR_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

/* Clang's parts of an OpenMP maximum begin at the lowest finite number: where nothing was beyond the limit that the loop
 * began at, the result is that limit. */
#ifdef __clang__
#define PARTITA_BEYOND(test) ((test) << 1)
#define PARTITA_IS_NONE_BEYOND(seen) (!((seen) & 2))
#else
#define PARTITA_BEYOND(test) 0
#define PARTITA_IS_NONE_BEYOND(seen) 0
#endif

/* ------------------------------------------------------------------ integers */

/* x / 0 is 0, and so is x mod 0. INT_MIN / -1 wraps around to INT_MIN. `div` rounds toward zero, `floordiv` toward minus
 * infinity; `mod` has the sign of the divisor, `fmod` that of the dividend. Shifts by the width or more
 * leave the sign alone. */
#define PARTITA_IS_NEGATIVE(number) ((number) < 1 && (number) != 0) /* compilers warn of unsigned numbers < 0 */

#define PARTITA_INTEGER(name, type)                                                                               \
    static inline type partita_max_##name(type a, type b) { return a > b ? a : b; }                               \
    static inline type partita_min_##name(type a, type b) { return a < b ? a : b; }                               \
    static inline type partita_abs_##name(type a) { return PARTITA_IS_NEGATIVE(a) ? (type)(0 - (uint64_t)a) : a; }\
    static inline type partita_sign_##name(type a) { return (type)((a > 0) - PARTITA_IS_NEGATIVE(a)); }           \
    static inline type partita_div_##name(type a, type b) {                                                       \
        return b == 0 ? 0 : PARTITA_IS_NEGATIVE(b) && b == (type)-1 ? (type)(0 - (uint64_t)a) : (type)(a / b);    \
    }                                                                                                             \
    static inline type partita_fmod_##name(type a, type b) {                                                      \
        return b == 0 || (PARTITA_IS_NEGATIVE(b) && b == (type)-1) ? 0 : (type)(a % b);                           \
    }                                                                                                             \
    static inline type partita_mod_##name(type a, type b) {                                                       \
        type rest = partita_fmod_##name(a, b);                                                                    \
        return rest != 0 && PARTITA_IS_NEGATIVE(rest) != PARTITA_IS_NEGATIVE(b) ? (type)(rest + b) : rest;        \
    }                                                                                                             \
    static inline type partita_floordiv_##name(type a, type b) {                                                  \
        type is_above = partita_fmod_##name(a, b) != 0 && PARTITA_IS_NEGATIVE(a) != PARTITA_IS_NEGATIVE(b);       \
        return (type)(partita_div_##name(a, b) - is_above);                                                       \
    }                                                                                                             \
    static inline type partita_shift_left_##name(type a, type b) {                                                \
        return (uint64_t)b >= 8 * sizeof(type) ? 0 : (type)((uint64_t)a << b);                                    \
    }                                                                                                             \
    static inline type partita_shift_right_##name(type a, type b) {                                               \
        return (uint64_t)b >= 8 * sizeof(type) ? (type)(PARTITA_IS_NEGATIVE(a) ? -1 : 0) : (type)(a >> b);        \
    }                                                                                                             \
    static inline type partita_ipow_##name(type base, type exponent) {                                            \
        type result = !PARTITA_IS_NEGATIVE(exponent) || base == 1;                                                \
        for (; exponent > 0; exponent = (type)(exponent >> 1)) {                                                  \
            if (exponent & 1)                                                                                     \
                result = (type)(result * base);                                                                   \
            base = (type)(base * base);                                                                           \
        }                                                                                                         \
        return result;                                                                                            \
    }

PARTITA_INTEGER(int8, int8_t)
PARTITA_INTEGER(int16, int16_t)
PARTITA_INTEGER(int32, int32_t)
PARTITA_INTEGER(int64, int64_t)
PARTITA_INTEGER(uint8, uint8_t)
PARTITA_INTEGER(uint16, uint16_t)
PARTITA_INTEGER(uint32, uint32_t)
PARTITA_INTEGER(uint64, uint64_t)
PARTITA_INTEGER(bool, uint8_t)

/* Sub-byte integers live in a byte; results keep their low bits. */
static inline int8_t partita_int4_wrap(int64_t a) { return (int8_t)((int8_t)((uint64_t)a << 4) >> 4); }
static inline uint8_t partita_uint4_wrap(int64_t a) { return (uint8_t)(a & 15); }
static inline int8_t partita_int2_wrap(int64_t a) { return (int8_t)((int8_t)((uint64_t)a << 6) >> 6); }
static inline uint8_t partita_uint2_wrap(int64_t a) { return (uint8_t)(a & 3); }

/* An index from data: negative ones count from the end. One outside [-size, size) sets *bad and gives 0. */
static inline int64_t partita_index(int64_t index, int64_t size, int *bad) {
    int64_t place = index < 0 ? index + size : index;
    int outside = place < 0 || place >= size;
    *bad |= outside;
    return outside ? 0 : place;
}

/* ------------------------------------------------------------------ floating point */

/* NaN in either operand gives NaN. */
#define PARTITA_FLOAT(type, suffix)                                                                               \
    static inline type partita_max_##type(type a, type b) { return a > b || a != a ? a : b; }                     \
    static inline type partita_min_##type(type a, type b) { return a < b || a != a ? a : b; }                     \
    static inline type partita_abs_##type(type a) { return fabs##suffix(a); }                                     \
    static inline type partita_sign_##type(type a) { return a != a ? a : (type)((a > 0) - (a < 0)); }             \
    static inline type partita_mod_##type(type a, type b) {                                                       \
        type rest = fmod##suffix(a, b);                                                                           \
        if (rest == 0) return copysign##suffix(rest, b);                                                          \
        return (rest < 0) != (b < 0) ? rest + b : rest;                                                           \
    }                                                                                                             \
    static inline type partita_floordiv_##type(type a, type b) { return floor##suffix(a / b); }

PARTITA_FLOAT(float, f)
PARTITA_FLOAT(double, )

typedef union partita_float_bits {
    float value;
    uint32_t bits;
} partita_float_bits;

static inline uint32_t partita_bits(float value) { return ((partita_float_bits){.value = value}).bits; }
static inline float partita_from_bits(uint32_t bits) { return ((partita_float_bits){.bits = bits}).value; }

/* exp, tanh and erf without branches or library calls, so that loops over them vectorize. Polynomials are Chebyshev fits;
 * the largest error over all floats is 2 units in the last place (tests/backends/cpu/test_scalar_functions.py). */

/* exp(x) is the result times 2^exponent, for x within a few hundred. */
static inline float partita_exp_parts(float x, int32_t *exponent) {
    const float shifted = x * 0x1.715476p+0f + 0x1.8p+23f; /* the low bits hold round(x / ln 2) */
    const float n = shifted - 0x1.8p+23f;
    const float r = (x - n * 0x1.63p-1f) + n * 0x1.bd0106p-13f; /* x - n ln 2, in two steps */
    const float p = (((0x1.6d4364p-10f * r + 0x1.120ba6p-7f) * r + 0x1.5554e8p-5f) * r + 0x1.5554dcp-3f) * r + 0.5f;
    *exponent = (int32_t)partita_bits(shifted) - 0x4b400000;
    return 1.0f + (r + r * r * p);
}

static inline float partita_exp_float(float x) {
    int32_t exponent;
    const float p = partita_exp_parts(x < -104.0f ? -104.0f : x > 89.0f ? 89.0f : x, &exponent);
    /* 2^n as a product of two powers: neither overflows, and denormals are rounded once */
    const int32_t half = exponent >> 1;
    const uint32_t first = (uint32_t)(half + 127) << 23, second = (uint32_t)(exponent - half + 127) << 23;
    return p * partita_from_bits(first) * partita_from_bits(second);
}

/* Where the result is a normal number. */
static inline float partita_exp_near(float x) {
    int32_t exponent;
    const float p = partita_exp_parts(x, &exponent);
    return p * partita_from_bits((uint32_t)(exponent + 127) << 23);
}

static inline float partita_tanh_float(float x) {
    const float u = x * x, large = fabsf(x) > 10.0f ? 10.0f : fabsf(x);
    const float p = (((-0.00593298f * u + 0.02088132f) * u - 0.05382585f) * u + 0.13332602f) * u - 0.33333327f;
    const float far = 1.0f - 2.0f / (partita_exp_near(2.0f * large) + 1.0f);
    return copysignf(large < 0.65f ? large + large * (u * p) : far, x);
}

static inline float partita_erf_float(float x) {
    const float u = x * x, large = fabsf(x) > 4.0f ? 4.0f : fabsf(x);
    const float p = (((((8.53412061e-05f * u - 8.18078088e-04f) * u + 5.20433158e-03f) * u - 2.68607090e-02f) * u
                      + 1.12837189e-01f) * u - 3.76126353e-01f) * u + 1.28379167e-01f;
    /* log(erfc(|x|)) on [0.9, 4] */
    const float q = (((((((1.61024041e-06f * large - 4.55127728e-05f) * large + 5.92092757e-04f) * large
                        - 4.73695062e-03f) * large + 2.63551208e-02f) * large - 1.09960799e-01f) * large
                      - 6.31956241e-01f) * large - 1.13015510e+00f) * large + 3.00268820e-04f;
    const float far = 1.0f - partita_exp_near(q);
    return copysignf(large < 0.9f ? large + large * p : far, x);
}

/* exp of what is not above 0; 0 instead of a denormal number. */
static inline float partita_exp_below_float(float x) {
    const float result = partita_exp_near(x);
    return x < -87.33f ? 0.0f : result;
}

static inline double partita_exp_below_double(double x) { return exp(x); }

/* The share of the normal distribution below x, (1 + erf(x / sqrt 2)) / 2: of -|x| it is 2^(q - 1) with a polynomial q,
 * within 1e-7 of the true value. */
static inline float partita_normal_cdf_float(float x) {
    const float z = fabsf(x);
    const float far = (((((((-0x1.7c7ee0p-19f * z + 0x1.4a52f6p-15f) * z - 0x1.8672c4p-13f) * z - 0x1.1f2d22p-13f) * z
                          + 0x1.cee886p-8f) * z - 0x1.ae0c78p-5f) * z - 0x1.d63aacp-2f) * z - 0x1.26aed4p+0f) * z;
    const float q = far < -126.0f ? -126.0f : far;
    const float shifted = q + 0x1.8p+23f; /* the low bits hold round(q) */
    const float r = q - (shifted - 0x1.8p+23f);
    const float p = ((((0.0013264664f * r + 0.009671512f) * r + 0.05550734f) * r + 0.24022242f) * r + 0.693147f) * r + 1.0f;
    const float below = p * partita_from_bits((partita_bits(shifted) + 126u) << 23);
    return x < 0.0f ? below : 1.0f - below;
}

static inline double partita_normal_cdf_double(double x) { return 0.5 * erfc(x * -0.70710678118654752440); }

/* Casts to integers truncate. NaN gives 0; what is too large saturates. (Casts to narrower types wrap around from these,
 * as x86 and NumPy do for values that fit in 32 bits.) */
#define PARTITA_FLOAT_TO_INTEGER(from)                                                                            \
    static inline int64_t partita_int64_from_##from(from a) {                                                     \
        return a != a ? 0 : a >= (from)0x1p63 ? INT64_MAX : a < (from)-0x1p63 ? INT64_MIN : (int64_t)a;           \
    }                                                                                                             \
    static inline uint64_t partita_uint64_from_##from(from a) {                                                   \
        return a != a ? 0 : a >= (from)0x1p64 ? UINT64_MAX : a >= 0 ? (uint64_t)a : (uint64_t)partita_int64_from_##from(a); \
    }                                                                                                             \
    static inline int32_t partita_int32_from_##from(from a) {                                                     \
        return a != a ? 0 : a >= (from)0x1p31 ? INT32_MAX : a < (from)-0x1p31 ? INT32_MIN : (int32_t)a;           \
    }

PARTITA_FLOAT_TO_INTEGER(float)
PARTITA_FLOAT_TO_INTEGER(double)

/* ------------------------------------------------------------------ floats of 16, 8 and 4 bits */

typedef uint16_t partita_float16, partita_bfloat16;
typedef uint8_t partita_float8e4m3fn, partita_float8e4m3fnuz, partita_float8e5m2, partita_float8e5m2fnuz;
typedef uint8_t partita_float8e8m0, partita_float4e2m1;

static inline float partita_bfloat16_to_float(partita_bfloat16 stored) { return partita_from_bits((uint32_t)stored << 16); }

/* Rounds to nearest, ties to even; NaN stays NaN. */
static inline partita_bfloat16 partita_bfloat16_from_float(float value) {
    uint32_t bits = partita_bits(value);
    uint32_t rounded = bits + 0x7fff + ((bits >> 16) & 1);
    return (partita_bfloat16)((value != value ? bits | 0x400000 : rounded) >> 16);
}
static inline float partita_bfloat16_round(float value) {
    return partita_bfloat16_to_float(partita_bfloat16_from_float(value));
}

/* 2^exponent, for any exponent of a float. */
static inline float partita_power_of_two(int exponent) {
    return exponent < -126 ? partita_from_bits(1u << (exponent + 149)) : partita_from_bits((uint32_t)(exponent + 127) << 23);
}

/* The bits, its sign apart, of the nearest number of a format with so many bits of mantissa, whose smallest normal number
 * has the exponent `lowest`; ties to even. What is too large has more bits than the format. */
static inline uint32_t partita_small_bits(float magnitude, int mantissa, int lowest) {
    const int shift = 23 - mantissa;
    const uint32_t bits = partita_bits(magnitude), half = (1u << (shift - 1)) - 1 + (bits >> shift & 1);
    const float one = partita_power_of_two(lowest + shift); /* to which a subnormal is added: its digits come last, rounded */
    if (magnitude < partita_power_of_two(lowest))
        return partita_bits(magnitude + one) - partita_bits(one);
    return (bits - ((uint32_t)(lowest + 126) << 23) + half) >> shift;
}

static inline float partita_small_to_float(uint32_t bits, int mantissa, int lowest) {
    return bits >> mantissa ? partita_from_bits((bits << (23 - mantissa)) + ((uint32_t)(lowest + 126) << 23))
                            : (float)bits * partita_power_of_two(lowest - mantissa);
}

/* Formats with a sign, by its bit and those of the largest number, after which what is too large comes unless it saturates,
 * and of NaN. Where NaN is what would be -0, zero has no sign. */
#define PARTITA_NARROW_FLOAT(name, sign, mantissa, lowest, largest, nan)                                          \
    static inline partita_##name partita_##name##_from_float(float value) {                                       \
        const uint32_t bits = partita_small_bits(fabsf(value), mantissa, lowest);                                 \
        const uint32_t magnitude = value != value ? nan : bits > largest ? largest + 1 : bits;                    \
        return (partita_##name)(nan == sign && !magnitude ? 0 : (partita_bits(value) >> 31) * sign | magnitude);  \
    }                                                                                                             \
    static inline float partita_##name##_to_float(partita_##name stored) {                                        \
        const uint32_t magnitude = nan == sign && stored == nan ? 2 * sign - 1 : stored & (sign - 1);             \
        const float value = partita_small_to_float(magnitude, mantissa, lowest);                                  \
        const uint32_t bits = magnitude > largest ? 0x7f800000 | magnitude << (23 - mantissa) : partita_bits(value);\
        return partita_from_bits((stored * (0x80000000 / sign) & 0x80000000) | bits);                             \
    }                                                                                                             \
    static inline float partita_##name##_round(float value) {                                                     \
        return partita_##name##_to_float(partita_##name##_from_float(value));                                     \
    }                                                                                                             \
    static inline float partita_##name##_round_saturated(float value) {                                           \
        const float most = partita_small_to_float(largest, mantissa, lowest);                                     \
        return partita_##name##_round(value > most ? most : value < -most ? -most : value);                       \
    }

PARTITA_NARROW_FLOAT(float16, 0x8000, 10, -14, 0x7bff, 0x7e00)
PARTITA_NARROW_FLOAT(float8e4m3fn, 0x80, 3, -6, 0x7e, 0x7f)
PARTITA_NARROW_FLOAT(float8e4m3fnuz, 0x80, 3, -7, 0x7f, 0x80)
PARTITA_NARROW_FLOAT(float8e5m2, 0x80, 2, -14, 0x7b, 0x7d)
PARTITA_NARROW_FLOAT(float8e5m2fnuz, 0x80, 2, -15, 0x7f, 0x80)

/* There are neither infinities nor NaN: what is too large saturates, NaN gives -0. */
static inline partita_float4e2m1 partita_float4e2m1_from_float(float value) {
    const uint32_t bits = partita_small_bits(fabsf(value), 1, 0);
    return (partita_float4e2m1)(value != value ? 8 : partita_bits(value) >> 31 << 3 | (bits > 7 ? 7 : bits));
}
static inline float partita_float4e2m1_to_float(partita_float4e2m1 stored) {
    return copysignf(partita_small_to_float(stored & 7, 1, 0), stored & 8 ? -1.0f : 1.0f);
}
static inline float partita_float4e2m1_round(float value) {
    return partita_float4e2m1_to_float(partita_float4e2m1_from_float(value));
}

/* Powers of two, the least 2^-127; there is no sign. Casts round up, or as they are told before. */
static inline float partita_float8e8m0_to_float(partita_float8e8m0 stored) {
    return stored == 0xff ? NAN : partita_power_of_two((int)stored - 127);
}
static inline partita_float8e8m0 partita_float8e8m0_from_float(float value) {
    return value != value ? 0xff : (partita_float8e8m0)(partita_bits(value) >> 23);
}
/* A positive number as a power of two: `carry`, of the 2^23 steps to the next one, decides which. */
static inline float partita_to_power_of_two(float value, uint32_t carry) {
    const float least = value < 0x1p-127f ? 0x1p-127f : value;
    const int doubled = value < 1; /* what may be subnormal */
    const int exponent = (int)((partita_bits(doubled ? 2 * least : least) + carry) >> 23) - 127 - doubled;
    return value > 0 ? partita_power_of_two(exponent) : value;
}
static inline float partita_power_of_two_down_float(float value) { return partita_to_power_of_two(value, 0); }
static inline float partita_power_of_two_up_float(float value) { return partita_to_power_of_two(value, 0x7fffff); }
static inline float partita_power_of_two_nearest_float(float value) { return partita_to_power_of_two(value, 0x400000); }
static inline float partita_float8e8m0_round(float value) {
    const float up = partita_power_of_two_up_float(value);
    return value <= 0 || up > 0x1p127f ? NAN : up;
}
static inline float partita_float8e8m0_round_saturated(float value) {
    const float up = partita_power_of_two_up_float(value);
    return up < 0x1p-127f ? 0x1p-127f : up > 0x1p127f ? 0x1p127f : up;
}

#endif
