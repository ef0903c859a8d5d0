/* machine.c: whether this machine has the instructions that the compiler was let use. */
#include "internal.h"

#if defined(__x86_64__)

/* What the predefined macros of this compilation say: the model's code is compiled with the same options. Compilers know
 * the later names since the versions below. */
#if (defined(__clang__) && __clang_major__ < 19) || (!defined(__clang__) && __GNUC__ < 12)
#define PARTITA_KNOWS_LATER_NAMES 0
#else
#define PARTITA_KNOWS_LATER_NAMES 1
#endif

PARTITA_BASELINE const char *partita_lacking(void) {
    __builtin_cpu_init();
#define NEEDS(name)                    \
    if (!__builtin_cpu_supports(name)) \
        return name;
#ifdef __SSE4_2__
    NEEDS("sse4.2")
#endif
#ifdef __AVX__
    NEEDS("avx")
#endif
#ifdef __AVX2__
    NEEDS("avx2")
#endif
#ifdef __FMA__
    NEEDS("fma")
#endif
#ifdef __BMI2__
    NEEDS("bmi2")
#endif
#ifdef __AVX512F__
    NEEDS("avx512f")
#endif
#ifdef __AVX512BW__
    NEEDS("avx512bw")
#endif
#ifdef __AVX512DQ__
    NEEDS("avx512dq")
#endif
#ifdef __AVX512VL__
    NEEDS("avx512vl")
#endif
#ifdef __AVX512VNNI__
    NEEDS("avx512vnni")
#endif
#ifdef __AVX512BF16__
    NEEDS("avx512bf16")
#endif
#if PARTITA_KNOWS_LATER_NAMES
#ifdef __F16C__
    NEEDS("f16c")
#endif
#ifdef __AVX512FP16__
    NEEDS("avx512fp16")
#endif
#ifdef __AVXVNNI__
    NEEDS("avxvnni")
#endif
#endif
    return NULL;
}

#else

const char *partita_lacking(void) {
    return NULL; /* the loader refuses code of another architecture; further instruction sets are not asked for here */
}

#endif
