/* partita_strings.h: what kernels do with strings.
 *
 * A string that is made lies in the call's memory (services->text). Where there is none, or an operand does not allow what
 * is asked, *status is set, from any thread, and the result is empty.
 */
#ifndef PARTITA_STRINGS_H
#define PARTITA_STRINGS_H

#include <errno.h>
#include <locale.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "partita.h"

#define PARTITA_NUMBER_BYTES 64 /* more than any number takes */

static inline void partita_string_fail(int32_t *status, int32_t failed) {
    __atomic_store_n(status, failed, __ATOMIC_RELAXED);
}

static inline bool partita_string_equal(partita_string a, partita_string b) {
    return a.bytes == b.bytes && memcmp(a.data, b.data, (size_t)a.bytes) == 0;
}

/* The order of bytes, which is that of characters: below 0, 0 or above. */
static inline int partita_string_order(partita_string a, partita_string b) {
    const int order = memcmp(a.data, b.data, (size_t)(a.bytes < b.bytes ? a.bytes : b.bytes));
    return order ? order : (a.bytes > b.bytes) - (a.bytes < b.bytes);
}

/* Strings as a table holds them: where each ends, then the text. */
static inline const partita_string *partita_unpack(const void *packed, partita_string *strings, int64_t count) {
    const char *text = (const char *)packed + count * (int64_t)sizeof(int64_t);
    int64_t begin = 0, end;
    for (int64_t index = 0; index < count; ++index, begin = end) {
        memcpy(&end, (const char *)packed + index * (int64_t)sizeof end, sizeof end);
        strings[index] = (partita_string){text + begin, end - begin};
    }
    return strings;
}

static inline char *partita_string_make(const partita_call *call, int32_t *status, int64_t bytes) {
    char *data = call->services->text(call, bytes);
    if (!data)
        partita_string_fail(status, PARTITA_ERROR_MEMORY);
    return data;
}

static inline partita_string partita_string_copy(const partita_call *call, int32_t *status, const char *text, int64_t bytes) {
    char *data = partita_string_make(call, status, bytes);
    if (!data)
        return (partita_string){"", 0};
    memcpy(data, text, (size_t)bytes);
    return (partita_string){data, bytes};
}

static inline partita_string partita_string_concat(const partita_call *call, int32_t *status, partita_string a,
                                                   partita_string b) {
    char *data = b.bytes > INT64_MAX - a.bytes ? NULL : partita_string_make(call, status, a.bytes + b.bytes);
    if (!data)
        return (partita_string){"", 0};
    memcpy(data, a.data, (size_t)a.bytes);
    memcpy(data + a.bytes, b.data, (size_t)b.bytes);
    return (partita_string){data, a.bytes + b.bytes};
}

/* ------------------------------------------------------------------ numbers */

/* The text between white space, as a C string with a point where the process's locale wants it, into `text` of
 * PARTITA_NUMBER_BYTES; NULL where it is no number by its length or letters. `allowed` lists what it may be made of. */
static inline const char *partita_string_number(partita_string a, char *text, const char *allowed) {
    const char *begin = a.data, *end = a.data + a.bytes;
    while (begin < end && strchr(" \t\r\n\v\f", *begin) && *begin)
        ++begin;
    while (end > begin && strchr(" \t\r\n\v\f", end[-1]) && end[-1])
        --end;
    if (begin == end || end - begin >= PARTITA_NUMBER_BYTES)
        return NULL;
    const char point = localeconv()->decimal_point[0];
    for (int64_t index = 0; index < end - begin; ++index) {
        if (!begin[index] || !strchr(allowed, begin[index]))
            return NULL;
        text[index] = begin[index] == '.' ? point : begin[index];
    }
    text[end - begin] = 0;
    return text;
}

static inline void partita_string_refuse(const partita_call *call, int32_t *status, partita_string a) {
    const int shown = a.bytes > 40 ? 40 : (int)a.bytes;
    partita_string_fail(status, call->services->fail(call, PARTITA_ERROR_VALUE, "the string '%.*s' is no number of the type "
                                                     "that it is cast to", shown, a.data));
}

static inline double partita_string_to_float64(const partita_call *call, int32_t *status, partita_string a) {
    char text[PARTITA_NUMBER_BYTES], *end = NULL;
    const char *number = partita_string_number(a, text, "+-.0123456789eEinfINFtyTYaA");
    const double value = number ? strtod(number, &end) : 0;
    if (!number || *end)
        partita_string_refuse(call, status, a);
    return value;
}

#define PARTITA_STRING_TO_INTEGER(name, type, parse)                                                              \
    static inline type partita_string_to_##name(const partita_call *call, int32_t *status, partita_string a) {    \
        char text[PARTITA_NUMBER_BYTES], *end = NULL;                                                             \
        const char *number = partita_string_number(a, text, "+-0123456789");                                      \
        errno = 0;                                                                                                \
        const type value = number ? (type)parse(number, &end, 10) : 0;                                            \
        if (!number || *end || errno)                                                                             \
            partita_string_refuse(call, status, a);                                                               \
        return value;                                                                                             \
    }

PARTITA_STRING_TO_INTEGER(int64, int64_t, strtoll)
PARTITA_STRING_TO_INTEGER(uint64, uint64_t, strtoull)

/* The shortest decimal that reads as the same number. */
static inline partita_string partita_string_shortest(const partita_call *call, int32_t *status, double value, int is_float) {
    char text[PARTITA_NUMBER_BYTES];
    int bytes = 0;
    if (value != value || isinf(value)) {
        const char *name = value != value ? "NaN" : value > 0 ? "INF" : "-INF";
        return partita_string_copy(call, status, name, (int64_t)strlen(name));
    }
    for (int digits = 1; digits <= 17; ++digits) {
        bytes = snprintf(text, sizeof text, "%.*g", digits, value);
        if (is_float ? strtof(text, NULL) == (float)value : strtod(text, NULL) == value)
            break;
    }
    char *point = strchr(text, localeconv()->decimal_point[0]);
    if (point)
        *point = '.';
    return partita_string_copy(call, status, text, bytes);
}

static inline partita_string partita_string_from_float32(const partita_call *call, int32_t *status, float value) {
    return partita_string_shortest(call, status, value, 1);
}

static inline partita_string partita_string_from_float64(const partita_call *call, int32_t *status, double value) {
    return partita_string_shortest(call, status, value, 0);
}

static inline partita_string partita_string_from_int64(const partita_call *call, int32_t *status, int64_t value) {
    char text[PARTITA_NUMBER_BYTES];
    return partita_string_copy(call, status, text, snprintf(text, sizeof text, "%lld", (long long)value));
}

static inline partita_string partita_string_from_uint64(const partita_call *call, int32_t *status, uint64_t value) {
    char text[PARTITA_NUMBER_BYTES];
    return partita_string_copy(call, status, text, snprintf(text, sizeof text, "%llu", (unsigned long long)value));
}

static inline partita_string partita_string_from_bool(const partita_call *call, int32_t *status, bool value) {
    return partita_string_copy(call, status, value ? "True" : "False", value ? 4 : 5);
}

#endif
