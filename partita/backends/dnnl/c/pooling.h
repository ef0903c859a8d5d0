static void pooling(builder *b, dnnl_alg_kind_t kind, int32_t x, int32_t y, const dnnl_dim_t *strides,
                    const dnnl_dim_t *kernel, const dnnl_dim_t *dilates, const dnnl_dim_t *before,
                    const dnnl_dim_t *after) {
    const int32_t source = latest(b, x);
    const_dnnl_memory_desc_t layout = layout_of(b, source);
    dnnl_memory_desc_t result = any(b, y);
    dnnl_primitive_desc_t description = NULL;
    if (good(b))
        check(b, dnnl_pooling_forward_primitive_desc_create(&description, b->region->engine, dnnl_forward_inference,
                                                            kind, layout, result, strides, kernel, dilates, before,
                                                            after, b->attributes));
    add_unary(b, description, source, y, NULL, 0);
    dnnl_memory_desc_destroy(result);
}
