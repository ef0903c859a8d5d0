/* planner.c: lays the arena's buffers out, where symbolic sizes left that to run time. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

static int64_t round_up(int64_t bytes) {
    return bytes > INT64_MAX - PARTITA_ALIGNMENT ? -1 : (bytes + PARTITA_ALIGNMENT - 1) / PARTITA_ALIGNMENT * PARTITA_ALIGNMENT;
}

static int lives_with(const partita_buffer *left, const partita_buffer *right) {
    return left->first <= right->last && right->first <= left->last;
}

/* Sorts order[0 .. count) by size, largest first, then by index, so that equal sizes give equal plans. Heapsort: no
 * memory, no global for a comparison function to read sizes from. */
static int comes_before(const int64_t *bytes, int32_t left, int32_t right) {
    return bytes[left] != bytes[right] ? bytes[left] > bytes[right] : left < right;
}

static void sift(int32_t *order, int32_t root, int32_t count, const int64_t *bytes) {
    for (;;) {
        int32_t child = 2 * root + 1;
        if (child >= count)
            return;
        if (child + 1 < count && comes_before(bytes, order[child], order[child + 1]))
            child++;
        if (!comes_before(bytes, order[root], order[child]))
            return;
        const int32_t moved = order[root];
        order[root] = order[child];
        order[child] = moved;
        root = child;
    }
}

static void sort_by_size(int32_t *order, int32_t count, const int64_t *bytes) {
    for (int32_t root = count / 2 - 1; root >= 0; root--)
        sift(order, root, count, bytes);
    for (int32_t last = count - 1; last > 0; last--) {
        const int32_t moved = order[0];
        order[0] = order[last];
        order[last] = moved;
        sift(order, 0, last, bytes);
    }
}

/* The lowest gap between the buffers in placed[0 .. count), which are sorted by offset, that takes this one. */
static int64_t find_gap(const partita_instance *instance, int32_t buffer, int64_t bytes, int32_t count,
                        const int64_t *sizes) {
    const partita_buffer *buffers = instance->model->buffers;
    int64_t end = 0; /* of the buffers passed so far that live at the same time */
    for (int32_t index = 0; index < count; index++) {
        const int32_t other = instance->placed[index];
        if (!lives_with(&buffers[buffer], &buffers[other]))
            continue;
        if (instance->offsets[other] - end >= bytes)
            break;
        if (instance->offsets[other] + sizes[other] > end)
            end = instance->offsets[other] + sizes[other];
    }
    return end;
}

/* Places every arena buffer, the largest first, each as low as it can go. Returns the arena's size, -1 on overflow. */
static int64_t place_by_size(partita_instance *instance, int64_t *sizes) {
    const partita_model *model = instance->model;
    int32_t count = 0;
    int64_t total = 0;
    for (int32_t buffer = 0; buffer < model->buffer_count; buffer++) {
        if (model->buffers[buffer].storage != PARTITA_ARENA)
            continue;
        const int64_t bytes = partita_resolve(instance, model->buffers[buffer].bytes);
        sizes[buffer] = bytes < 0 ? -1 : round_up(bytes);
        /* With the sum in range no offset can overflow. */
        if (sizes[buffer] < 0 || __builtin_add_overflow(total, sizes[buffer], &total))
            return -1;
        instance->order[count++] = buffer;
    }
    sort_by_size(instance->order, count, sizes);
    int64_t arena = 0;
    for (int32_t index = 0; index < count; index++) {
        const int32_t buffer = instance->order[index];
        const int64_t offset = find_gap(instance, buffer, sizes[buffer], index, sizes);
        int32_t position = index;
        for (; position > 0 && instance->offsets[instance->placed[position - 1]] > offset; position--)
            instance->placed[position] = instance->placed[position - 1];
        instance->placed[position] = buffer;
        instance->offsets[buffer] = offset;
        if (offset + sizes[buffer] > arena)
            arena = offset + sizes[buffer];
    }
    return arena;
}

static partita_status set_arena(partita_instance *instance, int64_t bytes) {
    const partita_model *model = instance->model;
    if (!instance->arena || bytes > instance->arena_bytes) {
        free(instance->arena);
        instance->arena_bytes = 0;
        instance->arena = partita_allocate(bytes);
        if (!instance->arena)
            return partita_fail(instance, PARTITA_ERROR_MEMORY, "no memory for an arena of %lld bytes",
                                (long long)bytes);
        instance->arena_bytes = bytes;
    }
    for (int32_t region = 0; region < model->region_count; region++)
        instance->slots[region].call.arena = instance->arena;
    for (int32_t buffer = 0; buffer < model->buffer_count; buffer++)
        if (model->buffers[buffer].storage == PARTITA_ARENA)
            instance->pointers[buffer] = instance->arena + instance->offsets[buffer];
    return PARTITA_OK;
}

partita_status partita_plan(partita_instance *instance) {
    const partita_model *model = instance->model;
    int64_t bytes = model->arena_bytes;
    if (bytes >= 0) {
        for (int32_t buffer = 0; buffer < model->buffer_count; buffer++)
            instance->offsets[buffer] = model->buffers[buffer].offset;
    } else {
        int64_t *sizes = partita_allocate(model->buffer_count * (int64_t)sizeof *sizes);
        if (!sizes)
            return partita_fail(instance, PARTITA_ERROR_MEMORY, "no memory to plan the arena");
        bytes = place_by_size(instance, sizes);
        free(sizes);
        if (bytes < 0)
            return partita_fail(instance, PARTITA_ERROR_SHAPE,
                                "with these input sizes a buffer is of negative size, or larger than 64 bits can say");
    }
    return set_arena(instance, bytes);
}
