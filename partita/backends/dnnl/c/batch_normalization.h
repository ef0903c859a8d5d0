static void batch_normalization(builder *b, int32_t x, int32_t scale, int32_t shift, int32_t mean, int32_t variance,
                                int32_t y, float epsilon) {
    const unsigned flags = dnnl_use_global_stats | dnnl_use_scale | dnnl_use_shift;
    const int32_t source = latest(b, x);
    const_dnnl_memory_desc_t layout = layout_of(b, source);
    dnnl_primitive_desc_t description = NULL;
    if (!good(b))
        return;
    check(b, dnnl_batch_normalization_forward_primitive_desc_create(&description, b->region->engine,
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
