/* dnnl_primitives.h: oneDNN's primitives as steps of a region. Operands and results are numbers of the region's values.
 *
 * A primitive that works best in one layout (convolution, matmul) chooses it; the others take what they are given.
 */
#ifndef DNNL_PRIMITIVES_H
#define DNNL_PRIMITIVES_H

#include "dnnl_region.h"

/* `result` is `value` under another shape: the same memory where the layout allows it. */
static inline void view(builder *b, int32_t value, int32_t result) {
    const region_value *v = &b->values[result];
    dnnl_memory_desc_t layout = NULL;
    int32_t place = latest(b, value);
    if (!good(b))
        return;
    if (dnnl_memory_desc_reshape(&layout, layout_of(b, place), v->rank, v->shape) != dnnl_success) {
        dnnl_memory_desc_t row_major = dense(b, value);
        place = in_layout(b, value, row_major);
        dnnl_memory_desc_destroy(row_major);
        layout = dense(b, result);
    }
    b->places[result][0] =
        add_place(b, layout, b->made->places[place].argument, b->made->places[place].block, DNNL_MEMORY_NONE);
    b->places[result][1] = NONE;
    dnnl_memory_desc_destroy(layout);
}

static inline void then_eltwise(builder *b, dnnl_alg_kind_t kind, float alpha, float beta) {
    if (good(b) && check(b, dnnl_post_ops_append_eltwise(b->post_ops, kind, alpha, beta)))
        check(b, dnnl_primitive_attr_set_post_ops(b->attributes, b->post_ops));
}

static inline void then_add(builder *b, int32_t residual, bool may_overwrite) {
    b->residual = residual;
    b->overwrites_residual = may_overwrite;
    if (good(b) && check(b, dnnl_post_ops_append_sum(b->post_ops, 1.0f, 0, dnnl_data_type_undef)))
        check(b, dnnl_primitive_attr_set_post_ops(b->attributes, b->post_ops));
}

/* The steps of a convolution or matrix product whose descriptor chose the layouts. */
static inline void add_weighted(builder *b, dnnl_primitive_desc_t description, int32_t x, int32_t w, int32_t bias, int32_t y) {
    if (!good(b))
        return; /* without a descriptor */
    const int32_t source = in_layout(b, x, dnnl_primitive_desc_query_md(description, dnnl_query_src_md, 0));
    const int32_t weights = in_layout(b, w, dnnl_primitive_desc_query_md(description, dnnl_query_weights_md, 0));
    dnnl_exec_arg_t further[2] = {operand(b, DNNL_ARG_WEIGHTS, weights)};
    if (bias != NONE)
        further[1] = operand(b, DNNL_ARG_BIAS, b->places[bias][0]);
    add_unary(b, description, source, y, further, bias == NONE ? 1 : 2);
}

static inline void convolution(builder *b, int32_t x, int32_t w, int32_t bias, int32_t y, const dnnl_dim_t *strides,
                        const dnnl_dim_t *dilates, const dnnl_dim_t *before, const dnnl_dim_t *after) {
    dnnl_memory_desc_t source = any(b, x), weights = any(b, w), offset = bias == NONE ? NULL : dense(b, bias);
    dnnl_memory_desc_t result = any(b, y);
    dnnl_primitive_desc_t description = NULL;
    if (good(b))
        check(b, dnnl_convolution_forward_primitive_desc_create(
                     &description, b->made->engine, dnnl_forward_inference, dnnl_convolution_direct, source, weights,
                     offset, result, strides, dilates, before, after, b->attributes));
    add_weighted(b, description, x, w, bias, y);
    dnnl_memory_desc_destroy(source);
    dnnl_memory_desc_destroy(weights);
    dnnl_memory_desc_destroy(offset);
    dnnl_memory_desc_destroy(result);
}

static inline void matmul(builder *b, int32_t x, int32_t w, int32_t bias, int32_t y) {
    dnnl_memory_desc_t source = any(b, x), weights = any(b, w), offset = bias == NONE ? NULL : dense(b, bias);
    dnnl_memory_desc_t result = any(b, y);
    dnnl_primitive_desc_t description = NULL;
    if (good(b))
        check(b, dnnl_matmul_primitive_desc_create(&description, b->made->engine, source, weights, offset, result,
                                                   b->attributes));
    add_weighted(b, description, x, w, bias, y);
    dnnl_memory_desc_destroy(source);
    dnnl_memory_desc_destroy(weights);
    dnnl_memory_desc_destroy(offset);
    dnnl_memory_desc_destroy(result);
}

static inline void pooling(builder *b, dnnl_alg_kind_t kind, int32_t x, int32_t y, const dnnl_dim_t *strides,
                    const dnnl_dim_t *kernel, const dnnl_dim_t *dilates, const dnnl_dim_t *before,
                    const dnnl_dim_t *after) {
    const int32_t source = latest(b, x);
    const_dnnl_memory_desc_t layout = layout_of(b, source);
    dnnl_memory_desc_t result = any(b, y);
    dnnl_primitive_desc_t description = NULL;
    if (good(b))
        check(b, dnnl_pooling_forward_primitive_desc_create(&description, b->made->engine, dnnl_forward_inference,
                                                            kind, layout, result, strides, kernel, dilates, before,
                                                            after, b->attributes));
    add_unary(b, description, source, y, NULL, 0);
    dnnl_memory_desc_destroy(result);
}

static inline void eltwise(builder *b, dnnl_alg_kind_t kind, int32_t x, int32_t y, float alpha, float beta) {
    const int32_t source = latest(b, x);
    const_dnnl_memory_desc_t layout = layout_of(b, source);
    dnnl_primitive_desc_t description = NULL;
    if (good(b))
        check(b, dnnl_eltwise_forward_primitive_desc_create(&description, b->made->engine, dnnl_forward_inference,
                                                            kind, layout, layout, alpha, beta, b->attributes));
    add_unary(b, description, source, y, NULL, 0);
}

/* The second operand may have sizes of 1 where the first has more; it is read in a layout like the first's. */
static inline void binary(builder *b, dnnl_alg_kind_t kind, int32_t x, int32_t other, int32_t y) {
    const int32_t source = latest(b, x);
    const_dnnl_memory_desc_t layout = layout_of(b, source);
    dnnl_memory_desc_t other_layout = any(b, other);
    dnnl_primitive_desc_t description = NULL;
    if (good(b) && check(b, dnnl_binary_primitive_desc_create(&description, b->made->engine, kind, layout,
                                                              other_layout, layout, b->attributes))) {
        const int32_t place = in_layout(b, other, dnnl_primitive_desc_query_md(description, dnnl_query_src_md, 1));
        const dnnl_exec_arg_t further = operand(b, DNNL_ARG_SRC_1, place);
        add_unary(b, description, source, y, &further, 1);
    }
    dnnl_memory_desc_destroy(other_layout);
}

static inline void softmax(builder *b, dnnl_alg_kind_t kind, int32_t x, int32_t y, int axis) {
    const int32_t source = latest(b, x);
    const_dnnl_memory_desc_t layout = layout_of(b, source);
    dnnl_primitive_desc_t description = NULL;
    if (good(b))
        check(b, dnnl_softmax_forward_primitive_desc_create(&description, b->made->engine, dnnl_forward_inference,
                                                            kind, layout, layout, axis, b->attributes));
    add_unary(b, description, source, y, NULL, 0);
}

static inline void lrn(builder *b, int32_t x, int32_t y, dnnl_dim_t size, float alpha, float beta, float bias) {
    const int32_t source = latest(b, x);
    const_dnnl_memory_desc_t layout = layout_of(b, source);
    dnnl_primitive_desc_t description = NULL;
    if (good(b))
        check(b, dnnl_lrn_forward_primitive_desc_create(&description, b->made->engine, dnnl_forward_inference,
                                                        dnnl_lrn_across_channels, layout, layout, size, alpha, beta,
                                                        bias, b->attributes));
    add_unary(b, description, source, y, NULL, 0);
}

static inline void batch_normalization(builder *b, int32_t x, int32_t scale, int32_t shift, int32_t mean, int32_t variance,
                                int32_t y, float epsilon) {
    const unsigned flags = dnnl_use_global_stats | dnnl_use_scale | dnnl_use_shift;
    const int32_t source = latest(b, x);
    const_dnnl_memory_desc_t layout = layout_of(b, source);
    dnnl_primitive_desc_t description = NULL;
    if (!good(b))
        return;
    check(b, dnnl_batch_normalization_forward_primitive_desc_create(&description, b->made->engine,
                                                                    dnnl_forward_inference, layout, layout, epsilon,
                                                                    flags, b->attributes));
    const dnnl_exec_arg_t further[4] = {
        operand(b, DNNL_ARG_SCALE, b->places[scale][0]),
        operand(b, DNNL_ARG_SHIFT, b->places[shift][0]),
        operand(b, DNNL_ARG_MEAN, b->places[mean][0]),
        operand(b, DNNL_ARG_VARIANCE, b->places[variance][0]),
    };
    add_unary(b, description, source, y, further, 4);
}

static inline void concat(builder *b, const int32_t *parts, int32_t count, int32_t y, int axis) {
    const_dnnl_memory_desc_t layouts[MOST_OPERANDS];
    dnnl_exec_arg_t operands[MOST_OPERANDS + 1];
    dnnl_memory_desc_t result = any(b, y);
    dnnl_primitive_desc_t description = NULL;
    for (int32_t n = 0; n < count && good(b); n++) {
        layouts[n] = layout_of(b, latest(b, parts[n]));
        operands[n] = operand(b, DNNL_ARG_MULTIPLE_SRC + n, latest(b, parts[n]));
    }
    if (good(b) && check(b, dnnl_concat_primitive_desc_create(&description, b->made->engine, result, count, axis,
                                                              layouts, b->attributes))) {
        const_dnnl_memory_desc_t chosen = dnnl_primitive_desc_query_md(description, dnnl_query_dst_md, 0);
        operands[count] = operand(b, DNNL_ARG_DST, produce(b, y, chosen));
        add_step(b, description, operands, count + 1);
        hand_out(b, y);
    }
    dnnl_memory_desc_destroy(result);
}

#endif
