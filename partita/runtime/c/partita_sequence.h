/* partita_sequence.h: sequences and optional values at run time, as regions see them.
 *
 * The value of a buffer of storage PARTITA_SEQUENCE is call->sequences[buffer]. Elements never change once they are in a
 * sequence, so that sequences share them: making one from another copies no data. An optional tensor is a sequence of
 * one element, or absent. `node` is the name of the node that asks, for messages. Not to be called from a task.
 */
#ifndef PARTITA_SEQUENCE_H
#define PARTITA_SEQUENCE_H

#include "partita.h"

/* Ends a region where a call of these failed. */
#define PARTITA_TRY(call)                   \
    do {                                    \
        const partita_status tried = (call); \
        if (tried)                          \
            return tried;                   \
    } while (0)

/* Where an element's data lies: in memory counted by its users, or in the caller's (NULL). */
typedef struct partita_owner partita_owner;

typedef struct partita_element {
    partita_tensor tensor;
    partita_owner *owner;
} partita_element;

struct partita_sequence {
    int32_t is_absent; /* an optional value that there is not */
    int64_t count, capacity;
    partita_element *elements;
};

/* Makes it empty, or absent; gives back what only it used. */
void partita_sequence_clear(partita_sequence *sequence, int is_absent);

/* Makes `target` what `source` is, with the same elements. */
partita_status partita_sequence_assign(const partita_call *call, partita_sequence *target,
                                       const partita_sequence *source);

/* The same for what an optional value holds, which must be there. */
partita_status partita_sequence_unwrap(const partita_call *call, const char *node, partita_sequence *target,
                                       const partita_sequence *source);

/* Inserts a copy of a tensor before `position`, which may be the count, or negative: from the end. */
partita_status partita_sequence_insert(const partita_call *call, const char *node, partita_sequence *sequence,
                                       int64_t position, const void *data, int32_t data_type, int32_t rank,
                                       const int64_t *shape);

/* Takes out the element at `position`, which may be negative: from the end. */
partita_status partita_sequence_erase(const partita_call *call, const char *node, partita_sequence *sequence,
                                      int64_t position);

/* Finds the element at `position`, which may be negative; its shape must be `shape`, where that is not negative. */
partita_status partita_sequence_at(const partita_call *call, const char *node, const partita_sequence *sequence,
                                   int64_t position, int32_t rank, const int64_t *shape, const partita_tensor **found);

/* Cuts a tensor along `axis` into the elements of `sequence`. `parts` are int32 or int64: `part_count` sizes; or the one
 * size of all but the last (part_count -1); or NULL for slices of one, without the axis if not `keeps_axis`. */
partita_status partita_sequence_split(const partita_call *call, const char *node, partita_sequence *sequence,
                                      const partita_tensor *whole, int32_t axis, const void *parts, int32_t part_type,
                                      int64_t part_count, int keeps_axis);

/* The shape of the elements one after another along `axis`, a new one if `is_new`. Elements are of rank `rank`. */
partita_status partita_sequence_joined(const partita_call *call, const char *node, const partita_sequence *sequence,
                                       int32_t rank, int32_t axis, int is_new, int64_t *shape);

/* Writes them to `data`, after partita_sequence_joined allowed it: a new axis is as one more of size 1 in each. */
void partita_sequence_join(const partita_sequence *sequence, int32_t axis, void *data);

#endif
