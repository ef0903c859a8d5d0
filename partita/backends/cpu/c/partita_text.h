/* partita_text.h: strings split, normalized, matched and looked up. Each function computes its rows [begin, end). */
#ifndef PARTITA_TEXT_H
#define PARTITA_TEXT_H

#include "partita_kernel.h"
#include "partita_strings.h"

/* ------------------------------------------------------------------ UTF-8 */

/* The character at *place, which moves behind it; a byte that begins none stands for itself, past all characters. */
#define PARTITA_NO_CHARACTER 0x110000

static inline int32_t partita_next_character(partita_string a, int64_t *place) {
    const unsigned char *text = (const unsigned char *)a.data + *place;
    const int64_t left = a.bytes - *place;
    const int length = text[0] < 0x80 ? 1 : text[0] < 0xc2 ? 0 : text[0] < 0xe0 ? 2 : text[0] < 0xf0 ? 3 : text[0] < 0xf5 ? 4 : 0;
    int32_t character = length == 1 ? text[0] : text[0] & (0xff >> (length + 1));
    int valid = length > 0 && length <= left;
    for (int index = 1; valid && index < length; ++index) {
        valid = (text[index] & 0xc0) == 0x80;
        character = character << 6 | (text[index] & 0x3f);
    }
    static const int32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (!valid || character < least[length] || character > 0x10ffff) {
        *place += 1;
        return PARTITA_NO_CHARACTER + text[0];
    }
    *place += length;
    return character;
}

/* Writes a character, or the byte that stood for itself; gives how many bytes. */
static inline int64_t partita_put_character(char *text, int32_t character) {
    if (character < 0x80 || character >= PARTITA_NO_CHARACTER) {
        text[0] = (char)character;
        return 1;
    }
    const int length = character < 0x800 ? 2 : character < 0x10000 ? 3 : 4;
    for (int index = length - 1; index > 0; --index, character >>= 6)
        text[index] = (char)(0x80 | (character & 0x3f));
    text[0] = (char)((0xf00 >> length) | character);
    return length;
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

static inline int partita_is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* The next piece of a string from *place on; 0 when there is none. Without a delimiter, white space (of ASCII) separates, however
 * much. *most is how many more cuts may be made: none when 0, any number when negative. */
static inline int partita_next_piece(partita_string x, partita_string delimiter, int64_t *place, int64_t *most,
                                     partita_string *piece) {
    int64_t begin = *place, stop;
    if (begin > x.bytes)
        return 0;
    if (delimiter.bytes == 0) {
        while (begin < x.bytes && partita_is_space(x.data[begin]))
            ++begin;
        if (begin == x.bytes)
            return 0;
        for (stop = begin; stop < x.bytes && !partita_is_space(x.data[stop]);)
            ++stop;
        if (*most == 0)
            stop = x.bytes;
        *place = stop == x.bytes ? x.bytes + 1 : stop;
    } else {
        stop = begin;
        while (*most != 0 && x.bytes - stop >= delimiter.bytes &&
               memcmp(x.data + stop, delimiter.data, (size_t)delimiter.bytes) != 0)
            ++stop;
        const int is_last = *most == 0 || x.bytes - stop < delimiter.bytes;
        *place = is_last ? x.bytes + 1 : stop + delimiter.bytes;
        stop = is_last ? x.bytes : stop;
    }
    *most -= *most > 0;
    *piece = (partita_string){x.data + begin, stop - begin};
    return 1;
}

/* As many pieces of each string as there is room for, empty ones where there are no more; and how many there are. */
static inline void partita_split_strings(PARTITA_ROUTINE, const partita_string *x, partita_string delimiter, int64_t most,
                                         int64_t room, partita_string *pieces, int64_t *counts) {
    for (int64_t index = begin; index < end; ++index) {
        partita_string piece;
        int64_t place = 0, left = most, count = 0;
        for (; partita_next_piece(x[index], delimiter, &place, &left, &piece); ++count)
            if (count < room)
                pieces[index * room + count] = piece;
        counts[index] = count;
        for (; count < room; ++count)
            pieces[index * room + count] = (partita_string){"", 0};
    }
}

/* ------------------------------------------------------------------ case */

/* Each string with the characters of rows (character, what it becomes), which are sorted, changed. */
static inline void partita_change_case(PARTITA_ROUTINE, const partita_string *x, const int32_t *rows, int64_t count,
                                       partita_string *y) {
    for (int64_t index = begin; index < end; ++index) {
        /* A character of two bytes or more may become three of as many as four; a shorter one, three of two. */
        char *text = x[index].bytes > INT64_MAX / 6 ? NULL : partita_string_make(call, status, 6 * x[index].bytes);
        int64_t bytes = 0;
        for (int64_t place = 0; text && place < x[index].bytes;) {
            const int32_t character = partita_next_character(x[index], &place);
            const int64_t row = partita_row(character, rows, count, 4);
            if (row < 0 || rows[4 * row] != character)
                bytes += partita_put_character(text + bytes, character);
            else
                for (int column = 1; column < 4 && rows[4 * row + column]; ++column)
                    bytes += partita_put_character(text + bytes, rows[4 * row + column]);
        }
        y[index] = (partita_string){text ? text : "", bytes};
    }
}

/* ------------------------------------------------------------------ regular expressions */

enum { PARTITA_MATCH, PARTITA_CLASS, PARTITA_SPLIT, PARTITA_JUMP, PARTITA_ASSERT };

/* The places of a program where a match may be, each once: `seen` holds the step in which a place was last added. */
typedef struct partita_places {
    int64_t *seen;
    int32_t *list;
    int64_t count;
} partita_places;

static inline void partita_add_place(partita_places *places, int32_t place, int64_t step) {
    if (places->seen[place] != step)
        places->list[places->count++] = place;
    places->seen[place] = step;
}

static inline int partita_is_word(int32_t c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
}

/* Whether a condition holds between two characters; -1 stands for none. */
static inline int partita_holds(int32_t kind, int32_t before, int32_t after) {
    switch (kind) {
    case 0: return before < 0;
    case 1: return after < 0;
    case 2: return before < 0 || before == '\n';
    case 3: return after < 0 || after == '\n';
    case 4: return partita_is_word(before) != partita_is_word(after);
    default: return partita_is_word(before) == partita_is_word(after);
    }
}

/* Whether a character is in one of the sorted ranges (first, last) from `low` to `high`. */
static inline int partita_is_in(int32_t character, const int32_t *ranges, int64_t low, int64_t high) {
    const int64_t row = partita_row(character, ranges + 2 * low, high - low, 2);
    return row >= 0 && character <= ranges[2 * (low + row) + 1];
}

/* Whether the whole string matches: all ways are followed at once, so that time is linear in the text. */
static inline bool partita_matches(partita_string x, const int32_t *program, const int32_t *ranges, partita_places now,
                                   partita_places then) {
    int64_t position = 0;
    int32_t before = -1;
    now.count = 0;
    partita_add_place(&now, 0, 1);
    for (int64_t step = 1; now.count; ++step) {
        const int32_t after = position < x.bytes ? partita_next_character(x, &position) : -1;
        then.count = 0;
        for (int64_t index = 0; index < now.count; ++index) {
            const int32_t place = now.list[index], *instruction = program + 3 * (int64_t)place;
            if (instruction[0] == PARTITA_MATCH && after < 0)
                return true;
            if (instruction[0] == PARTITA_SPLIT || instruction[0] == PARTITA_JUMP)
                partita_add_place(&now, instruction[1], step);
            if (instruction[0] == PARTITA_SPLIT)
                partita_add_place(&now, instruction[2], step);
            if (instruction[0] == PARTITA_ASSERT && partita_holds(instruction[1], before, after))
                partita_add_place(&now, place + 1, step);
            if (instruction[0] == PARTITA_CLASS && after >= 0 && partita_is_in(after, ranges, instruction[1], instruction[2]))
                partita_add_place(&then, place + 1, step + 1);
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
    const int64_t bytes = count * (int64_t)(2 * sizeof(int64_t) + 2 * sizeof(int32_t)) + 8;
    char *memory = partita_string_make(call, status, bytes);
    if (!memory)
        return;
    int64_t *seen = (int64_t *)(memory + (8 - (uintptr_t)memory % 8) % 8);
    int32_t *lists = (int32_t *)(seen + 2 * count);
    for (int64_t index = begin; index < end; ++index) {
        memset(seen, 0, 2 * (size_t)count * sizeof *seen);
        y[index] = partita_matches(x[index], program, ranges, (partita_places){seen, lists, 0},
                                   (partita_places){seen + count, lists + count, 0});
    }
}

#endif
