static void convolution(builder *b, int32_t x, int32_t w, int32_t bias, int32_t y, const dnnl_dim_t *strides,
                        const dnnl_dim_t *dilates, const dnnl_dim_t *before, const dnnl_dim_t *after) {
    dnnl_memory_desc_t source = any(b, x), weights = any(b, w), offset = bias == NONE ? NULL : dense(b, bias);
    dnnl_memory_desc_t result = any(b, y);
    dnnl_primitive_desc_t description = NULL;
    if (good(b))
        check(b, dnnl_convolution_forward_primitive_desc_create(
                     &description, b->region->engine, dnnl_forward_inference, dnnl_convolution_direct, source, weights,
                     offset, result, strides, dilates, before, after, b->attributes));
    add_weighted(b, description, x, w, bias, y);
    dnnl_memory_desc_destroy(source);
    dnnl_memory_desc_destroy(weights);
    dnnl_memory_desc_destroy(offset);
    dnnl_memory_desc_destroy(result);
}
