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

/* What decides which buffer is placed first. */
typedef struct {
    const partita_buffer *buffers;
    const int64_t *bytes;  /* per buffer, rounded up */
    const int64_t *crowds; /* per buffer: the most bytes alive at a step of its life; NULL: not asked for */
} ranking;

/* The fullest step's buffers first, if that is asked for, of these the longest lived; then by size, largest first; then
 * by index, so that equal sizes give equal plans. */
static int comes_before(const ranking *by, int32_t left, int32_t right) {
    if (by->crowds) {
        if (by->crowds[left] != by->crowds[right])
            return by->crowds[left] > by->crowds[right];
        const int32_t left_life = by->buffers[left].last - by->buffers[left].first;
        const int32_t right_life = by->buffers[right].last - by->buffers[right].first;
        if (left_life != right_life)
            return left_life > right_life;
    }
    return by->bytes[left] != by->bytes[right] ? by->bytes[left] > by->bytes[right] : left < right;
}

/* Sorts order[0 .. count). Heapsort: no memory, no global for a comparison function to read from. */
static void sift(int32_t *order, int32_t root, int32_t count, const ranking *by) {
    for (;;) {
        int32_t child = 2 * root + 1;
        if (child >= count)
            return;
        if (child + 1 < count && comes_before(by, order[child], order[child + 1]))
            child++;
        if (!comes_before(by, order[root], order[child]))
            return;
        const int32_t moved = order[root];
        order[root] = order[child];
        order[child] = moved;
        root = child;
    }
}

static void sort_buffers(int32_t *order, int32_t count, const ranking *by) {
    for (int32_t root = count / 2 - 1; root >= 0; root--)
        sift(order, root, count, by);
    for (int32_t last = count - 1; last > 0; last--) {
        const int32_t moved = order[0];
        order[0] = order[last];
        order[last] = moved;
        sift(order, 0, last, by);
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

/* Places the arena's buffers, order[0 .. count), in the order of their ranks, each as low as it can go. Returns the
 * arena's size. */
static int64_t place(partita_instance *instance, int32_t count, const ranking *by) {
    sort_buffers(instance->order, count, by);
    int64_t arena = 0;
    for (int32_t index = 0; index < count; index++) {
        const int32_t buffer = instance->order[index];
        const int64_t offset = find_gap(instance, buffer, by->bytes[buffer], index, by->bytes);
        int32_t position = index;
        for (; position > 0 && instance->offsets[instance->placed[position - 1]] > offset; position--)
            instance->placed[position] = instance->placed[position - 1];
        instance->placed[position] = buffer;
        instance->offsets[buffer] = offset;
        if (offset + by->bytes[buffer] > arena)
            arena = offset + by->bytes[buffer];
    }
    return arena;
}

/* Lists the arena's buffers in `order` and their sizes in `sizes`. Returns how many there are, -1 on overflow. */
static int32_t list_buffers(partita_instance *instance, int64_t *sizes) {
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
    return count;
}

/* Fills crowds[buffer]; live[step + 1] is scratch, zeroed: lives begin at step -1. */
static void count_crowds(const partita_instance *instance, int32_t count, const int64_t *sizes, int64_t *crowds,
                         int64_t *live) {
    for (int32_t index = 0; index < count; index++) {
        const partita_buffer *buffer = &instance->model->buffers[instance->order[index]];
        for (int32_t step = buffer->first; step <= buffer->last; step++)
            live[step + 1] += sizes[instance->order[index]];
    }
    for (int32_t index = 0; index < count; index++) {
        const partita_buffer *buffer = &instance->model->buffers[instance->order[index]];
        for (int32_t step = buffer->first; step <= buffer->last; step++)
            if (live[step + 1] > crowds[instance->order[index]])
                crowds[instance->order[index]] = live[step + 1];
    }
}

/* Places by both rankings that passes/plan_memory.py tries, and keeps the better. Returns the arena's size, -1 on
 * overflow. `memory`, zeroed, holds two numbers per buffer, then one per step from -1 on. */
static int64_t place_best(partita_instance *instance, int64_t *memory) {
    const partita_model *model = instance->model;
    int64_t *sizes = memory, *crowds = memory + model->buffer_count;
    const int32_t count = list_buffers(instance, sizes);
    if (count < 0)
        return -1;
    count_crowds(instance, count, sizes, crowds, crowds + model->buffer_count);
    const ranking by_size = {model->buffers, sizes, NULL}, by_crowd = {model->buffers, sizes, crowds};
    const int64_t crowded = place(instance, count, &by_crowd);
    const int64_t sized = place(instance, count, &by_size);
    return crowded < sized ? place(instance, count, &by_crowd) : sized;
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
        int64_t steps = 2; /* from -1 to the last */
        for (int32_t buffer = 0; buffer < model->buffer_count; buffer++)
            if (model->buffers[buffer].last + 2 > steps)
                steps = (int64_t)model->buffers[buffer].last + 2;
        const int64_t bytes_needed = (2 * (int64_t)model->buffer_count + steps) * (int64_t)sizeof(int64_t);
        int64_t *memory = partita_allocate(bytes_needed);
        if (!memory)
            return partita_fail(instance, PARTITA_ERROR_MEMORY, "no memory to plan the arena");
        memset(memory, 0, (size_t)bytes_needed);
        bytes = place_best(instance, memory);
        free(memory);
        if (bytes < 0)
            return partita_fail(instance, PARTITA_ERROR_SHAPE,
                                "with these input sizes a buffer is of negative size, or larger than 64 bits can say");
    }
    return set_arena(instance, bytes);
}
