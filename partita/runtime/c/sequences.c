/* sequences.c: sequences and optional values: lists of tensors that share their elements. */
#include "partita_sequence.h"

#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* Before the data of an element, in the same memory. One thread at a time works on an instance: no atomics. */
struct partita_owner {
    int64_t users;
};

static partita_status out_of_memory(const partita_call *call, const char *node) {
    return call->services->fail(call, PARTITA_ERROR_MEMORY, "%s: no memory for the elements of a sequence", node);
}

static void release(partita_element *element) {
    if (element->owner && --element->owner->users == 0)
        free(element->owner);
}

void partita_sequence_clear(partita_sequence *sequence, int is_absent) {
    for (int64_t index = 0; index < sequence->count; index++)
        release(&sequence->elements[index]);
    sequence->count = 0;
    sequence->is_absent = is_absent;
}

void partita_sequence_free(partita_sequence *sequence) {
    partita_sequence_clear(sequence, 0);
    free(sequence->elements);
    sequence->elements = NULL;
    sequence->capacity = 0;
}

/* Room for `count` elements. */
static int grow(partita_sequence *sequence, int64_t count) {
    if (count <= sequence->capacity)
        return 1;
    const int64_t capacity = count + count / 2;
    partita_element *wider = realloc(sequence->elements, (size_t)capacity * sizeof *wider);
    if (!wider)
        return 0;
    sequence->elements = wider;
    sequence->capacity = capacity;
    return 1;
}

partita_status partita_sequence_assign(const partita_call *call, partita_sequence *target,
                                       const partita_sequence *source) {
    if (target == source)
        return PARTITA_OK;
    partita_sequence_clear(target, source->is_absent);
    if (!grow(target, source->count))
        return out_of_memory(call, "a copy");
    for (int64_t index = 0; index < source->count; index++) {
        target->elements[index] = source->elements[index];
        if (target->elements[index].owner)
            target->elements[index].owner->users++;
    }
    target->count = source->count;
    return PARTITA_OK;
}

partita_status partita_sequence_unwrap(const partita_call *call, const char *node, partita_sequence *target,
                                       const partita_sequence *source) {
    if (source->is_absent)
        return call->services->fail(call, PARTITA_ERROR_VALUE, "%s: the optional value is absent", node);
    return partita_sequence_assign(call, target, source);
}

/* An element with memory of its own; its data is still to be written. NULL without memory. */
static partita_owner *make_element(int32_t data_type, int32_t rank, const int64_t *shape, partita_tensor *tensor) {
    const int64_t bytes = partita_bytes_of(data_type, rank, shape);
    if (bytes < 0 || bytes > INT64_MAX - 2 * PARTITA_ALIGNMENT)
        return NULL;
    partita_owner *owner = partita_allocate(bytes + PARTITA_ALIGNMENT);
    if (!owner)
        return NULL;
    owner->users = 1;
    *tensor = (partita_tensor){.data = (char *)owner + PARTITA_ALIGNMENT, .data_type = data_type, .rank = rank};
    if (rank)
        memcpy(tensor->shape, shape, (size_t)rank * sizeof *shape);
    return owner;
}

/* Puts an element in, and hands its memory over; without room for it, gives that back. */
static int put(partita_sequence *sequence, int64_t position, const partita_tensor *tensor, partita_owner *owner) {
    partita_element element = {*tensor, owner};
    if (!grow(sequence, sequence->count + 1)) {
        release(&element);
        return 0;
    }
    partita_element *place = sequence->elements + position;
    memmove(place + 1, place, (size_t)(sequence->count - position) * sizeof *place);
    *place = element;
    sequence->count++;
    return 1;
}

int partita_sequence_borrow(partita_sequence *sequence, const partita_tensor *tensor) {
    return put(sequence, sequence->count, tensor, NULL);
}

int partita_sequence_copy_in(partita_sequence *sequence, const partita_tensor *tensor) {
    partita_tensor copy;
    partita_owner *owner = make_element(tensor->data_type, tensor->rank, tensor->shape, &copy);
    if (!owner)
        return 0;
    const int64_t bytes = partita_bytes_of(tensor->data_type, tensor->rank, tensor->shape);
    if (bytes)
        memcpy(copy.data, tensor->data, (size_t)bytes);
    return put(sequence, sequence->count, &copy, owner);
}

/* A position counted from the front, at most `last`; -1 where it is outside. */
static int64_t from_front(int64_t position, int64_t count, int64_t last) {
    const int64_t place = position < 0 ? position + count : position;
    return place < 0 || place > last ? -1 : place;
}

static partita_status outside(const partita_call *call, const char *node, int64_t position, int64_t count) {
    return call->services->fail(call, PARTITA_ERROR_INDEX, "%s: position %lld is outside a sequence of %lld", node,
                                (long long)position, (long long)count);
}

partita_status partita_sequence_insert(const partita_call *call, const char *node, partita_sequence *sequence,
                                       int64_t position, const void *data, int32_t data_type, int32_t rank,
                                       const int64_t *shape) {
    const int64_t place = from_front(position, sequence->count, sequence->count);
    if (place < 0)
        return outside(call, node, position, sequence->count);
    partita_tensor tensor;
    partita_owner *owner = make_element(data_type, rank, shape, &tensor);
    if (!owner)
        return out_of_memory(call, node);
    const int64_t bytes = partita_bytes_of(data_type, rank, shape);
    if (bytes)
        memcpy(tensor.data, data, (size_t)bytes);
    return put(sequence, place, &tensor, owner) ? PARTITA_OK : out_of_memory(call, node);
}

partita_status partita_sequence_erase(const partita_call *call, const char *node, partita_sequence *sequence,
                                      int64_t position) {
    const int64_t place = from_front(position, sequence->count, sequence->count - 1);
    if (place < 0)
        return outside(call, node, position, sequence->count);
    release(&sequence->elements[place]);
    sequence->count--;
    memmove(sequence->elements + place, sequence->elements + place + 1,
            (size_t)(sequence->count - place) * sizeof *sequence->elements);
    return PARTITA_OK;
}

partita_status partita_sequence_at(const partita_call *call, const char *node, const partita_sequence *sequence,
                                   int64_t position, int32_t rank, const int64_t *shape,
                                   const partita_tensor **found) {
    if (sequence->is_absent)
        return call->services->fail(call, PARTITA_ERROR_VALUE, "%s: the optional value is absent", node);
    const int64_t place = from_front(position, sequence->count, sequence->count - 1);
    if (place < 0)
        return outside(call, node, position, sequence->count);
    const partita_tensor *tensor = &sequence->elements[place].tensor;
    if (tensor->rank != rank)
        return call->services->fail(call, PARTITA_ERROR_SHAPE, "%s: element %lld is of rank %d, expected %d", node,
                                    (long long)place, (int)tensor->rank, (int)rank);
    for (int32_t axis = 0; axis < rank; axis++)
        if (shape[axis] >= 0 && tensor->shape[axis] != shape[axis])
            return call->services->fail(call, PARTITA_ERROR_SHAPE,
                                        "%s: axis %d of element %lld has size %lld, expected %lld", node, (int)axis,
                                        (long long)place, (long long)tensor->shape[axis], (long long)shape[axis]);
    *found = tensor;
    return PARTITA_OK;
}

/* ------------------------------------------------------------------ cutting and joining */

/* A tensor around one axis: `rows` before it, `bytes` of an element of it with all that is behind. */
typedef struct {
    int64_t rows, bytes;
} strides;

static strides around(const partita_tensor *tensor, int32_t axis) {
    strides result = {1, partita_element_bytes(tensor->data_type)};
    for (int32_t before = 0; before < axis; before++)
        result.rows *= tensor->shape[before];
    for (int32_t behind = axis + 1; behind < tensor->rank; behind++)
        result.bytes *= tensor->shape[behind];
    return result;
}

/* Appends the slice [start, start + size) of an axis. */
static int append_slice(partita_sequence *sequence, const partita_tensor *whole, int32_t axis, int64_t start,
                        int64_t size, int keeps_axis) {
    int64_t shape[PARTITA_MAX_RANK];
    int32_t rank = 0;
    for (int32_t place = 0; place < whole->rank; place++)
        if (place != axis || keeps_axis)
            shape[rank++] = place == axis ? size : whole->shape[place];
    partita_tensor part;
    partita_owner *owner = make_element(whole->data_type, rank, shape, &part);
    if (!owner)
        return 0;
    const strides step = around(whole, axis);
    const size_t bytes = (size_t)(size * step.bytes);
    for (int64_t row = 0; row < step.rows && bytes; row++)
        memcpy((char *)part.data + (size_t)row * bytes,
               (const char *)whole->data + (row * whole->shape[axis] + start) * step.bytes, bytes);
    return put(sequence, sequence->count, &part, owner);
}

static int64_t part_size(const void *parts, int32_t type, int64_t index) {
    return type == 6 /* INT32 */ ? ((const int32_t *)parts)[index] : ((const int64_t *)parts)[index];
}

partita_status partita_sequence_split(const partita_call *call, const char *node, partita_sequence *sequence,
                                      const partita_tensor *whole, int32_t axis, const void *parts, int32_t part_type,
                                      int64_t part_count, int keeps_axis) {
    const int64_t length = whole->shape[axis];
    const int is_even = !parts || part_count < 0;
    partita_sequence_clear(sequence, 0);
    int64_t start = 0;
    for (int64_t index = 0; is_even ? start < length : index < part_count; index++) {
        int64_t size = parts ? part_size(parts, part_type, is_even ? 0 : index) : 1;
        if (size < 0 || (is_even && size == 0) || (!is_even && size > length - start))
            return call->services->fail(call, PARTITA_ERROR_VALUE, "%s: an axis of %lld has no part of %lld at %lld",
                                        node, (long long)length, (long long)size, (long long)start);
        if (size > length - start)
            size = length - start;
        if (!append_slice(sequence, whole, axis, start, size, keeps_axis || parts))
            return out_of_memory(call, node);
        start += size;
    }
    if (start != length)
        return call->services->fail(call, PARTITA_ERROR_VALUE, "%s: the parts make %lld of an axis of %lld", node,
                                    (long long)start, (long long)length);
    return PARTITA_OK;
}

partita_status partita_sequence_joined(const partita_call *call, const char *node, const partita_sequence *sequence,
                                       int32_t rank, int32_t axis, int is_new, int64_t *shape) {
    if (sequence->count == 0)
        return call->services->fail(call, PARTITA_ERROR_VALUE, "%s: there is nothing in the sequence to join", node);
    const partita_tensor *first = &sequence->elements[0].tensor;
    int64_t along = 0;
    for (int64_t index = 0; index < sequence->count; index++) {
        const partita_tensor *tensor = &sequence->elements[index].tensor;
        int fits = tensor->rank == rank;
        for (int32_t other = 0; other < rank && fits; other++)
            fits = (other == axis && !is_new) || tensor->shape[other] == first->shape[other];
        if (!fits)
            return call->services->fail(call, PARTITA_ERROR_SHAPE,
                                        "%s: element %lld does not have the shape of the first", node,
                                        (long long)index);
        if (__builtin_add_overflow(along, is_new ? 1 : tensor->shape[axis], &along))
            return call->services->fail(call, PARTITA_ERROR_SHAPE, "%s: the sizes add up to too much", node);
    }
    for (int32_t place = 0; place < rank + is_new; place++)
        shape[place] = place == axis ? along : first->shape[place - (is_new && place > axis)];
    return PARTITA_OK;
}

void partita_sequence_join(const partita_sequence *sequence, int32_t axis, void *data) {
    const partita_tensor *first = &sequence->elements[0].tensor;
    int64_t rows = 1;
    for (int32_t before = 0; before < axis; before++)
        rows *= first->shape[before];
    char *place = data;
    for (int64_t row = 0; row < rows; row++)
        for (int64_t index = 0; index < sequence->count; index++) {
            const partita_tensor *tensor = &sequence->elements[index].tensor;
            const int64_t line = partita_bytes_of(tensor->data_type, tensor->rank - axis, tensor->shape + axis);
            if (line)
                memcpy(place, (const char *)tensor->data + row * line, (size_t)line);
            place += line;
        }
}
