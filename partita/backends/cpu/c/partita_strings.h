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
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "partita.h"

#define PARTITA_NUMBER_BYTES 64 /* more than any number takes */

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
        __atomic_store_n(status, PARTITA_ERROR_MEMORY, __ATOMIC_RELAXED);
    return data;
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

static inline bool partita_is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* The text between white space, as a C string with a point where the process's locale wants it, into `text` of
 * PARTITA_NUMBER_BYTES; NULL where it is no number by its length or letters. `allowed` lists what it may be made of. */
static inline const char *partita_string_number(partita_string a, char *text, const char *allowed) {
    for (; a.bytes > 0 && partita_is_space(a.data[0]); ++a.data)
        --a.bytes;
    while (a.bytes > 0 && partita_is_space(a.data[a.bytes - 1]))
        --a.bytes;
    const size_t bytes = a.bytes < PARTITA_NUMBER_BYTES ? (size_t)a.bytes : 0;
    memcpy(text, a.data, bytes);
    text[bytes] = 0;
    const bool is_number = bytes && strspn(text, allowed) == bytes;
    char *point = strchr(text, '.');
    if (point)
        *point = localeconv()->decimal_point[0];
    return is_number ? text : NULL;
}

#define PARTITA_STRING_TO(name, type, allowed, parsed, is_outside)                                                \
    static inline type partita_string_to_##name(const partita_call *call, int32_t *status, partita_string a) {    \
        char text[PARTITA_NUMBER_BYTES], *end = NULL;                                                             \
        const char *number = partita_string_number(a, text, allowed);                                             \
        errno = 0;                                                                                                \
        const type value = number ? (type)parsed : 0;                                                             \
        if (!number || *end || is_outside)                                                                        \
            __atomic_store_n(status, call->services->fail(call, PARTITA_ERROR_VALUE,                              \
                "the string '%.*s' is no number of the type that it is cast to",                                  \
                a.bytes > 40 ? 40 : (int)a.bytes, a.data), __ATOMIC_RELAXED);                                     \
        return value;                                                                                             \
    }

PARTITA_STRING_TO(float64, double, "+-.0123456789eEinfINFtyTYaA", strtod(number, &end), 0)
PARTITA_STRING_TO(int64, int64_t, "+-0123456789", strtoll(number, &end, 10), errno)
PARTITA_STRING_TO(uint64, uint64_t, "+-0123456789", strtoull(number, &end, 10), errno)

/* Less than PARTITA_NUMBER_BYTES of text. */
static inline __attribute__((format(printf, 3, 4))) partita_string partita_string_print(const partita_call *call, int32_t *status,
                                                                                        const char *format, ...) {
    char text[PARTITA_NUMBER_BYTES];
    va_list arguments;
    va_start(arguments, format);
    const int bytes = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return partita_string_concat(call, status, (partita_string){text, bytes}, (partita_string){"", 0});
}

/* The shortest decimal that reads as the same number. */
static inline partita_string partita_string_shortest(const partita_call *call, int32_t *status, double value, int is_float) {
    char text[PARTITA_NUMBER_BYTES];
    if (value != value || isinf(value))
        return partita_string_print(call, status, "%s", value != value ? "NaN" : value > 0 ? "INF" : "-INF");
    double read;
    int digits = 0;
    do {
        snprintf(text, sizeof text, "%.*g", ++digits, value);
        read = is_float ? strtof(text, NULL) : strtod(text, NULL);
    } while (read != value && digits < 17);
    char *point = strchr(text, localeconv()->decimal_point[0]);
    if (point)
        *point = '.';
    return partita_string_print(call, status, "%s", text);
}

#endif
