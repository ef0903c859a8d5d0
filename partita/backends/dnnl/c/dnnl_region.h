/* dnnl_region.h: a chain of oneDNN primitives, built once and then run.
 *
 * For one file a region, which defines how much of everything there is before it includes this: the enumerators VALUES,
 * PLACES, BLOCKS, STEPS, OPERANDS and MOST_OPERANDS.
 *
 * Layouts: a primitive is asked for in whatever layout it likes best. A value is copied into that layout before the
 * primitive reads it, unless it has it already: between the primitives of a region values stay in blocked layouts, and
 * only what crosses the region's border is dense. Constants are copied while building, everything else in every run.
 *
 * Memory: values that do not live at the same time share a block; the first block is the primitives' scratchpad. Sizes
 * of blocks are known when all primitives are, so blocks are allocated last.
 *
 * Errors: the first failure is kept in builder.status, and what follows does nothing.
 */
#ifndef DNNL_REGION_H
#define DNNL_REGION_H

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "oneapi/dnnl/dnnl.h"
#include "oneapi/dnnl/dnnl_debug.h"
#include "partita.h"

#if DNNL_VERSION_MAJOR != 3
#error "Partita's dnnl backend is written for oneDNN 3"
#endif

enum { NONE = -1 };

/* What is known of a tensor when compiling. */
typedef struct region_value {
    int32_t rank;
    dnnl_dims_t shape;  /* elements */
    int32_t last;       /* number of the node that reads it last */
    int32_t argument;   /* position in call->arguments where the region hands it out, or NONE */
    int32_t transposed; /* a constant matrix whose rows are stored as columns */
} region_value;

/* A tensor in one layout, and whose memory that is: the caller's, a block, or (both NONE) its own. */
typedef struct region_place {
    dnnl_memory_t memory;
    int32_t argument;
    int32_t block;
} region_place;

typedef struct region_block {
    size_t bytes;
    int32_t last; /* number of the node after which it is free */
    void *data;
} region_block;

typedef struct region_step {
    const char *node;
    dnnl_primitive_t primitive;
    int32_t count;
    dnnl_exec_arg_t *operands;
} region_step;

typedef struct region {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    int32_t place_count, block_count, step_count, operand_count;
    region_place places[PLACES];
    region_block blocks[BLOCKS];
    region_step steps[STEPS];
    dnnl_exec_arg_t operands[OPERANDS];
} region;

typedef struct builder {
    region *made;
    const partita_call *call;
    const region_value *values;
    const char *symbol;
    const char *node; /* being built */
    int32_t now;      /* its number */
    partita_status status;
    dnnl_primitive_attr_t attributes;
    dnnl_post_ops_t post_ops;
    int32_t residual; /* a value that the node adds to its result, or NONE */
    bool overwrites_residual;
    int32_t places[VALUES][2]; /* of each value: as it was made, and its last copy; or NONE */
} builder;

/* ------------------------------------------------------------------ threads */

/* Where oneDNN runs on OpenMP it takes the number of threads from there, per calling thread. */
extern void omp_set_num_threads(int) __attribute__((weak));
extern int omp_get_max_threads(void) __attribute__((weak));

static inline int set_threads(int count) {
    if (!omp_set_num_threads || !omp_get_max_threads)
        return count;
    const int before = omp_get_max_threads();
    omp_set_num_threads(count);
    return before;
}

/* ------------------------------------------------------------------ failures */

static inline bool good(const builder *b) { return b->status == PARTITA_OK; }

static inline bool check(builder *b, dnnl_status_t status) {
    if (good(b) && status != dnnl_success)
        b->status = b->call->services->fail(
            b->call, status == dnnl_out_of_memory ? PARTITA_ERROR_MEMORY : PARTITA_ERROR_BACKEND,
            "region %s: the primitive of node '%s': oneDNN says %s", b->symbol, b->node, dnnl_status2str(status));
    return good(b);
}

/* ------------------------------------------------------------------ layouts */

/* Row-major, or with the last two axes swapped. */
static inline dnnl_memory_desc_t dense(builder *b, int32_t value) {
    const region_value *v = &b->values[value];
    dnnl_dims_t strides;
    dnnl_dim_t stride = 1;
    dnnl_memory_desc_t layout = NULL;
    for (int32_t axis = v->rank - 1; axis >= 0; axis--) {
        strides[axis] = stride;
        stride *= v->shape[axis];
    }
    if (v->transposed) {
        strides[v->rank - 1] = v->shape[v->rank - 2];
        strides[v->rank - 2] = 1;
    }
    if (good(b))
        check(b, dnnl_memory_desc_create_with_strides(&layout, v->rank, v->shape, dnnl_f32, strides));
    return layout;
}

/* To be chosen by the primitive. */
static inline dnnl_memory_desc_t any(builder *b, int32_t value) {
    const region_value *v = &b->values[value];
    dnnl_memory_desc_t layout = NULL;
    if (good(b))
        check(b, dnnl_memory_desc_create_with_tag(&layout, v->rank, v->shape, dnnl_f32, dnnl_format_tag_any));
    return layout;
}

static inline const_dnnl_memory_desc_t layout_of(builder *b, int32_t place) {
    const_dnnl_memory_desc_t layout = NULL;
    if (good(b))
        check(b, dnnl_memory_get_memory_desc(b->made->places[place].memory, &layout));
    return layout;
}

/* ------------------------------------------------------------------ places and blocks */

static inline int32_t add_place(builder *b, const_dnnl_memory_desc_t layout, int32_t argument, int32_t block, void *data) {
    region *r = b->made;
    region_place *place = &r->places[r->place_count];
    if (!good(b) || !check(b, dnnl_memory_create(&place->memory, layout, r->engine, data)))
        return 0;
    place->argument = argument;
    place->block = block;
    return r->place_count++;
}

/* A block that is free from now on: the smallest that is large enough, else the largest, else a new one. */
static inline int32_t take_block(builder *b, size_t bytes, int32_t last) {
    region *r = b->made;
    int32_t chosen = NONE;
    for (int32_t n = 1; n < r->block_count; n++) {
        const size_t held = r->blocks[n].bytes;
        if (r->blocks[n].last >= b->now)
            continue;
        const size_t best = chosen == NONE ? 0 : r->blocks[chosen].bytes;
        if (chosen == NONE || (best < bytes ? held > best : held >= bytes && held < best))
            chosen = n;
    }
    if (chosen == NONE)
        chosen = r->block_count++;
    if (r->blocks[chosen].bytes < bytes)
        r->blocks[chosen].bytes = bytes;
    r->blocks[chosen].last = last;
    return chosen;
}

static inline int32_t latest(const builder *b, int32_t value) {
    return b->places[value][1] != NONE ? b->places[value][1] : b->places[value][0];
}

/* ------------------------------------------------------------------ steps */

/* Makes the primitive of a descriptor, which it takes, and lets every run execute it. */
static inline void add_step(builder *b, dnnl_primitive_desc_t description, const dnnl_exec_arg_t *operands, int32_t count) {
    region *r = b->made;
    region_step *step = &r->steps[r->step_count];
    if (good(b) && check(b, dnnl_primitive_create(&step->primitive, description))) {
        const_dnnl_memory_desc_t scratch = dnnl_primitive_desc_query_md(description, dnnl_query_scratchpad_md, 0);
        const size_t bytes = scratch ? dnnl_memory_desc_get_size(scratch) : 0;
        step->node = b->node;
        step->operands = &r->operands[r->operand_count];
        memcpy(step->operands, operands, (size_t)count * sizeof *operands);
        if (bytes) {
            const int32_t place = add_place(b, scratch, NONE, 0, DNNL_MEMORY_NONE);
            step->operands[count].arg = DNNL_ARG_SCRATCHPAD;
            step->operands[count++].memory = r->places[place].memory;
            if (r->blocks[0].bytes < bytes)
                r->blocks[0].bytes = bytes;
        }
        step->count = count;
        r->operand_count += count;
        r->step_count++;
    }
    dnnl_primitive_desc_destroy(description);
}

static inline dnnl_exec_arg_t operand(const builder *b, int argument, int32_t place) {
    const dnnl_exec_arg_t result = {argument, b->made->places[place].memory};
    return result;
}

static inline void add_copy(builder *b, int32_t from, int32_t to) {
    const dnnl_engine_t engine = b->made->engine;
    const_dnnl_memory_desc_t source = layout_of(b, from), target = layout_of(b, to);
    const dnnl_exec_arg_t operands[2] = {operand(b, DNNL_ARG_FROM, from), operand(b, DNNL_ARG_TO, to)};
    dnnl_primitive_attr_t attributes = NULL;
    dnnl_primitive_desc_t description = NULL;
    if (good(b) && check(b, dnnl_primitive_attr_create(&attributes)) &&
        check(b, dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user)) &&
        check(b, dnnl_reorder_primitive_desc_create(&description, source, engine, target, engine, attributes)))
        add_step(b, description, operands, 2);
    dnnl_primitive_attr_destroy(attributes);
}

/* Copies a constant, now. */
static inline void copy_constant(builder *b, int32_t from, int32_t to) {
    region *r = b->made;
    const_dnnl_memory_desc_t source = layout_of(b, from), target = layout_of(b, to);
    const dnnl_exec_arg_t operands[2] = {operand(b, DNNL_ARG_FROM, from), operand(b, DNNL_ARG_TO, to)};
    dnnl_primitive_desc_t description = NULL;
    dnnl_primitive_t copy = NULL;
    if (good(b) && check(b, dnnl_reorder_primitive_desc_create(&description, source, r->engine, target, r->engine, NULL)) &&
        check(b, dnnl_primitive_create(&copy, description)) &&
        check(b, dnnl_primitive_execute(copy, r->stream, 2, operands)))
        check(b, dnnl_stream_wait(r->stream));
    dnnl_primitive_destroy(copy);
    dnnl_primitive_desc_destroy(description);
}

/* ------------------------------------------------------------------ values */

/* A value's place in a layout: one that it has, or a copy. */
static inline int32_t in_layout(builder *b, int32_t value, const_dnnl_memory_desc_t layout) {
    if (!good(b))
        return 0;
    for (int32_t n = 0; n < 2; n++)
        if (b->places[value][n] != NONE && dnnl_memory_desc_equal(layout_of(b, b->places[value][n]), layout))
            return b->places[value][n];
    const region_place *made = &b->made->places[b->places[value][0]];
    int32_t copy;
    if (made->argument == NONE && made->block == NONE) {
        copy = add_place(b, layout, NONE, NONE, DNNL_MEMORY_ALLOCATE);
        copy_constant(b, b->places[value][0], copy);
    } else {
        const int32_t block = take_block(b, dnnl_memory_desc_get_size(layout), b->values[value].last);
        copy = add_place(b, layout, NONE, block, DNNL_MEMORY_NONE);
        add_copy(b, b->places[value][0], copy);
    }
    b->places[value][1] = copy;
    return copy;
}

/* A dense tensor of the caller's (data is NULL then), or a constant. */
static inline void border(builder *b, int32_t value, int32_t argument, const void *data) {
    dnnl_memory_desc_t layout = dense(b, value);
    b->places[value][0] = add_place(b, layout, argument, NONE, (void *)data);
    dnnl_memory_desc_destroy(layout);
}

/* Where a node puts its result: over its residual, at the caller's, or in a block. */
static inline int32_t produce(builder *b, int32_t value, const_dnnl_memory_desc_t layout) {
    const region_value *v = &b->values[value];
    dnnl_memory_desc_t row_major = dense(b, value);
    int32_t place = NONE;
    if (!good(b))
        return 0;
    if (v->argument != NONE && dnnl_memory_desc_equal(layout, row_major))
        place = add_place(b, layout, v->argument, NONE, DNNL_MEMORY_NONE);
    for (int32_t n = 0; n < 2 && place == NONE && b->residual != NONE && b->overwrites_residual; n++) {
        const int32_t old = b->places[b->residual][n];
        if (old != NONE && b->made->places[old].block != NONE && dnnl_memory_desc_equal(layout_of(b, old), layout)) {
            place = old;
            b->made->blocks[b->made->places[old].block].last = v->last;
        }
    }
    if (place == NONE) {
        const int32_t block = take_block(b, dnnl_memory_desc_get_size(layout), v->last);
        place = add_place(b, layout, NONE, block, DNNL_MEMORY_NONE);
    }
    if (b->residual != NONE && place != b->places[b->residual][0] && place != b->places[b->residual][1])
        add_copy(b, latest(b, b->residual), place);
    b->places[value][0] = place;
    dnnl_memory_desc_destroy(row_major);
    return place;
}

/* Hands a result out, dense, where it does not lie at the caller's already. */
static inline void hand_out(builder *b, int32_t value) {
    const int32_t argument = b->values[value].argument, place = b->places[value][0];
    if (!good(b) || argument == NONE || b->made->places[place].argument == argument)
        return;
    dnnl_memory_desc_t layout = dense(b, value);
    add_copy(b, place, add_place(b, layout, argument, NONE, DNNL_MEMORY_NONE));
    dnnl_memory_desc_destroy(layout);
}

/* ------------------------------------------------------------------ nodes */

static inline void begin(builder *b, const char *node) {
    b->node = node;
    b->now++;
    b->residual = NONE;
    dnnl_primitive_attr_destroy(b->attributes);
    dnnl_post_ops_destroy(b->post_ops);
    b->attributes = NULL;
    b->post_ops = NULL;
    if (good(b) && check(b, dnnl_primitive_attr_create(&b->attributes)) && check(b, dnnl_post_ops_create(&b->post_ops)))
        check(b, dnnl_primitive_attr_set_scratchpad_mode(b->attributes, dnnl_scratchpad_mode_user));
}

/* x -> y with any further operands, whose places are given. */
static inline void add_unary(builder *b, dnnl_primitive_desc_t description, int32_t source, int32_t y,
                      const dnnl_exec_arg_t *further, int32_t count) {
    dnnl_exec_arg_t operands[8] = {operand(b, DNNL_ARG_SRC, source)};
    if (!good(b)) {
        dnnl_primitive_desc_destroy(description);
        return;
    }
    operands[1] = operand(b, DNNL_ARG_DST, produce(b, y, dnnl_primitive_desc_query_md(description, dnnl_query_dst_md, 0)));
    for (int32_t n = 0; n < count; n++)
        operands[2 + n] = further[n];
    add_step(b, description, operands, 2 + count);
    hand_out(b, y);
}

/* ------------------------------------------------------------------ the region as a whole */

static inline void open_region(builder *b) {
    region *r = b->made;
    b->node = b->symbol;
    r->block_count = 1; /* the scratchpad */
    for (int32_t value = 0; value < VALUES; value++)
        b->places[value][0] = b->places[value][1] = NONE;
    if (check(b, dnnl_engine_create(&r->engine, dnnl_cpu, 0)))
        check(b, dnnl_stream_create(&r->stream, r->engine, dnnl_stream_default_flags));
}

static inline void free_region(region *r) {
    for (int32_t n = 0; n < r->step_count; n++)
        dnnl_primitive_destroy(r->steps[n].primitive);
    for (int32_t n = 0; n < r->place_count; n++)
        dnnl_memory_destroy(r->places[n].memory);
    for (int32_t n = 0; n < r->block_count; n++)
        free(r->blocks[n].data);
    dnnl_stream_destroy(r->stream);
    dnnl_engine_destroy(r->engine);
}

/* Allocates the blocks, now that all are known, and gives everything back where building failed. */
static inline partita_status close_region(builder *b) {
    region *r = b->made;
    for (int32_t n = 0; n < r->block_count && good(b); n++) {
        const size_t bytes = (r->blocks[n].bytes + PARTITA_ALIGNMENT - 1) / PARTITA_ALIGNMENT * PARTITA_ALIGNMENT;
        if (bytes && !(r->blocks[n].data = aligned_alloc(PARTITA_ALIGNMENT, bytes)))
            b->status = b->call->services->fail(b->call, PARTITA_ERROR_MEMORY,
                                                "region %s: no memory for %zu bytes between its primitives", b->symbol,
                                                bytes);
    }
    for (int32_t n = 0; n < r->place_count && good(b); n++)
        if (r->places[n].block != NONE)
            check(b, dnnl_memory_set_data_handle(r->places[n].memory, r->blocks[r->places[n].block].data));
    dnnl_primitive_attr_destroy(b->attributes);
    dnnl_post_ops_destroy(b->post_ops);
    if (!good(b))
        free_region(r);
    return b->status;
}

static inline partita_status run_region(const partita_call *call, const region *r, const char *symbol) {
    const int before = set_threads(call->services->threads);
    const char *node = symbol;
    dnnl_status_t status = dnnl_success;
    for (int32_t n = 0; n < r->place_count && status == dnnl_success; n++)
        if (r->places[n].argument != NONE)
            status = dnnl_memory_set_data_handle(r->places[n].memory, call->arguments[r->places[n].argument]);
    for (int32_t n = 0; n < r->step_count && status == dnnl_success; n++) {
        node = r->steps[n].node;
        status = dnnl_primitive_execute(r->steps[n].primitive, r->stream, r->steps[n].count, r->steps[n].operands);
    }
    if (status == dnnl_success)
        status = dnnl_stream_wait(r->stream);
    set_threads(before);
    if (status == dnnl_success)
        return PARTITA_OK;
    return call->services->fail(call, PARTITA_ERROR_BACKEND, "region %s: the primitive of node '%s': oneDNN says %s",
                                symbol, node, dnnl_status2str(status));
}

#endif
