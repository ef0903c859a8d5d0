/* machine.c: whether this machine has the instructions that the compiler was let use. */
#include "internal.h"

#if defined(__x86_64__)

#include <cpuid.h>

enum { EAX, EBX, ECX, EDX };
enum { PLAIN, YMM = 0x06, ZMM = 0xe6 }; /* registers that the system must save: bits of the register XCR0 */

/* One instruction set, and where CPUID tells of it (Intel's Software Developer's Manual, volume 2, CPUID). */
typedef struct partita_feature {
    const char *name;
    unsigned leaf, subleaf, reg, bit, saved;
} partita_feature;

/* What the predefined macros of this compilation say: the model's code is compiled with the same options. */
static const partita_feature needed[] = {
#ifdef __SSE4_2__
    {"sse4.2", 1, 0, ECX, 20, PLAIN},
#endif
#ifdef __AVX__
    {"avx", 1, 0, ECX, 28, YMM},
#endif
#ifdef __F16C__
    {"f16c", 1, 0, ECX, 29, YMM},
#endif
#ifdef __FMA__
    {"fma", 1, 0, ECX, 12, YMM},
#endif
#ifdef __AVX2__
    {"avx2", 7, 0, EBX, 5, YMM},
#endif
#ifdef __BMI2__
    {"bmi2", 7, 0, EBX, 8, PLAIN},
#endif
#ifdef __AVX512F__
    {"avx512f", 7, 0, EBX, 16, ZMM},
#endif
#ifdef __AVX512DQ__
    {"avx512dq", 7, 0, EBX, 17, ZMM},
#endif
#ifdef __AVX512BW__
    {"avx512bw", 7, 0, EBX, 30, ZMM},
#endif
#ifdef __AVX512VL__
    {"avx512vl", 7, 0, EBX, 31, ZMM},
#endif
#ifdef __AVX512VNNI__
    {"avx512vnni", 7, 0, ECX, 11, ZMM},
#endif
#ifdef __AVX512FP16__
    {"avx512fp16", 7, 0, EDX, 23, ZMM},
#endif
#ifdef __AVXVNNI__
    {"avxvnni", 7, 1, EAX, 4, YMM},
#endif
#ifdef __AVX512BF16__
    {"avx512bf16", 7, 1, EAX, 5, ZMM},
#endif
    {NULL, 0, 0, 0, 0, 0},
};

/* The registers that the operating system saves, as bits of XCR0; 0 where it does not tell. */
PARTITA_BASELINE static unsigned saved_registers(void) {
    unsigned regs[4] = {0}, low, high;
    if (!__get_cpuid(1, &regs[EAX], &regs[EBX], &regs[ECX], &regs[EDX]) || !(regs[ECX] >> 27 & 1))
        return 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    (void)high;
    return low;
}

PARTITA_BASELINE const char *partita_lacking(void) {
    const unsigned saved = saved_registers();
    for (const partita_feature *feature = needed; feature->name; feature++) {
        unsigned regs[4] = {0};
        __get_cpuid_count(feature->leaf, feature->subleaf, &regs[EAX], &regs[EBX], &regs[ECX], &regs[EDX]);
        if (!(regs[feature->reg] >> feature->bit & 1) || (saved & feature->saved) != feature->saved)
            return feature->name;
    }
    return NULL;
}

#else

const char *partita_lacking(void) {
    return NULL; /* the loader refuses code of another architecture; further instruction sets are not asked for here */
}

#endif
