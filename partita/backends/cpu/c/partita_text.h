/* partita_text.h: strings split, normalized, matched and looked up. Each function computes its rows [begin, end). */
#ifndef PARTITA_TEXT_H
#define PARTITA_TEXT_H

#include "partita_kernel.h"
#include "partita_strings.h"

/* ------------------------------------------------------------------ UTF-8 */

/* The character at *place, which moves behind it; a byte that begins none stands for itself, past all characters. */
#define PARTITA_NO_CHARACTER 0x110000

static inline int32_t partita_next_character(partita_string a, int64_t *place) {
    static const int32_t least[] = {0, 0, 0x80, 0x800, 0x10000}; /* character of so many bytes */
    const unsigned char *text = (const unsigned char *)a.data + *place;
    const int ones = __builtin_clz(~((uint32_t)text[0] << 24)), length = ones ? ones : 1;
    int32_t character = text[0] & (0x7f >> ones);
    bool valid = ones != 1 && ones <= 4 && length <= a.bytes - *place;
    for (int index = 1; valid && index < length; ++index) {
        valid = (text[index] & 0xc0) == 0x80;
        character = character << 6 | (text[index] & 0x3f);
    }
    valid = valid && character >= least[length] && character <= 0x10ffff;
    *place += valid ? length : 1;
    return valid ? character : PARTITA_NO_CHARACTER + text[0];
}

/* The last of sorted rows of `columns` numbers whose first is not above a key; -1 where all are. */
static inline int64_t partita_row(int32_t key, const int32_t *rows, int64_t count, int64_t columns) {
    int64_t low = 0, high = count;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (rows[columns * middle] <= key)
            low = middle + 1;
        else
            high = middle;
    }
    return low - 1;
}

/* ------------------------------------------------------------------ split */

/* Whether a separator begins at a place: the delimiter or, where that is empty, white space (of ASCII). */
static inline bool partita_is_cut(partita_string x, int64_t place, partita_string delimiter) {
    if (delimiter.bytes == 0)
        return partita_is_space(x.data[place]);
    return delimiter.bytes <= x.bytes - place && memcmp(x.data + place, delimiter.data, (size_t)delimiter.bytes) == 0;
}

/* As many pieces of each string as there is room for, empty ones where there are no more; and how many there are. White space
 * separates however much it is. At most `most` cuts are made: none when 0, any number when negative. */
static inline void partita_split_strings(PARTITA_ROUTINE, const partita_string *x, partita_string delimiter, int64_t most,
                                         int64_t room, partita_string *pieces, int64_t *counts) {
    const int64_t cut = delimiter.bytes ? delimiter.bytes : 1;
    for (int64_t index = begin; index < end; ++index) {
        const partita_string whole = x[index];
        int64_t count = 0, stop;
        for (int64_t place = 0; place <= whole.bytes; place = stop + cut) {
            while (delimiter.bytes == 0 && place < whole.bytes && partita_is_space(whole.data[place]))
                ++place;
            if (delimiter.bytes == 0 && place == whole.bytes)
                break;
            stop = count == most ? whole.bytes : place;
            while (stop < whole.bytes && !partita_is_cut(whole, stop, delimiter))
                ++stop;
            if (count < room)
                pieces[index * room + count] = (partita_string){whole.data + place, stop - place};
            ++count;
        }
        counts[index] = count;
        for (; count < room; ++count)
            pieces[index * room + count] = (partita_string){"", 0};
    }
}

/* ------------------------------------------------------------------ case */

/* Each string with the characters of sorted rows (character, text that it becomes: 7 bytes at most, then 0) changed. */
static inline void partita_change_case(PARTITA_ROUTINE, const partita_string *x, const int32_t *rows, int64_t count,
                                       partita_string *y) {
    for (int64_t index = begin; index < end; ++index) {
        char *text = x[index].bytes > INT64_MAX / 7 ? NULL : partita_string_make(call, status, 7 * x[index].bytes);
        size_t bytes = 0;
        for (int64_t place = 0, first = 0; text && first < x[index].bytes; first = place) {
            const int32_t character = partita_next_character(x[index], &place);
            const int64_t row = 3 * partita_row(character, rows, count, 3);
            const bool changes = row >= 0 && rows[row] == character;
            const char *from = changes ? (const char *)(rows + row + 1) : x[index].data + first;
            const size_t length = changes ? strlen(from) : (size_t)(place - first);
            memcpy(text + bytes, from, length);
            bytes += length;
        }
        y[index] = (partita_string){text ? text : "", (int64_t)bytes};
    }
}

/* ------------------------------------------------------------------ regular expressions */

enum { PARTITA_MATCH, PARTITA_CLASS, PARTITA_SPLIT, PARTITA_JUMP, PARTITA_ASSERT };

/* The places of a program where a match may be: one is among them where list[index[place]] is it. */
typedef struct partita_places {
    int32_t *list, *index, count;
} partita_places;

static inline void partita_add_place(partita_places *places, int32_t place) {
    const int32_t index = places->index[place];
    if (index < places->count && places->list[index] == place)
        return;
    places->list[places->count] = place;
    places->index[place] = places->count++;
}

static inline bool partita_is_word(int32_t c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
}

/* Whether a condition holds between two characters, of which -1 stands for none: that the text begins or ends (0, 1), that a
 * line does (2, 3), that there is a border of a word or none (4, 5). */
static inline bool partita_holds(int32_t kind, int32_t before, int32_t after) {
    const int32_t beside = kind % 2 ? after : before;
    if (kind >= 4)
        return (partita_is_word(before) != partita_is_word(after)) == (kind == 4);
    return beside < 0 || (kind >= 2 && beside == '\n');
}

/* Whether a character is in one of sorted ranges (first, last). */
static inline bool partita_is_in(int32_t character, const int32_t *ranges, int64_t count) {
    const int64_t row = partita_row(character, ranges, count, 2);
    return row >= 0 && character <= ranges[2 * row + 1];
}

/* Whether the whole string matches: all ways are followed at once, so that time is linear in the text. */
static inline bool partita_matches(partita_string x, const int32_t *program, const int32_t *ranges, partita_places now,
                                   partita_places then) {
    int64_t position = 0;
    int32_t before = -1;
    now.count = 0;
    partita_add_place(&now, 0);
    while (now.count) {
        const int32_t after = position < x.bytes ? partita_next_character(x, &position) : -1;
        then.count = 0;
        for (int32_t index = 0; index < now.count; ++index) {
            const int32_t place = now.list[index], *instruction = program + 3 * (int64_t)place;
            const int32_t operation = instruction[0], first = instruction[1], second = instruction[2];
            if (operation == PARTITA_MATCH && after < 0)
                return true;
            if (operation == PARTITA_CLASS && after >= 0 && partita_is_in(after, ranges + 2 * (int64_t)first, second - first))
                partita_add_place(&then, place + 1);
            if (operation == PARTITA_SPLIT || operation == PARTITA_JUMP)
                partita_add_place(&now, first);
            if (operation == PARTITA_SPLIT)
                partita_add_place(&now, second);
            if (operation == PARTITA_ASSERT && partita_holds(first, before, after))
                partita_add_place(&now, place + 1);
        }
        const partita_places other = now;
        now = then;
        then = other;
        before = after;
    }
    return false;
}

static inline void partita_match_program(PARTITA_ROUTINE, const partita_string *x, const int32_t *program, int64_t count,
                                         const int32_t *ranges, bool *y) {
    const int64_t bytes = 4 * count * (int64_t)sizeof(int32_t);
    char *memory = partita_string_make(call, status, bytes + 4);
    if (!memory)
        return;
    int32_t *places = memset(memory + (4 - (uintptr_t)memory % 4) % 4, 0, (size_t)bytes);
    const partita_places now = {places, places + count, 0}, then = {places + 2 * count, places + 3 * count, 0};
    for (int64_t index = begin; index < end; ++index)
        y[index] = partita_matches(x[index], program, ranges, now, then);
}

#endif
