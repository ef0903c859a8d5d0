static void matmul(builder *b, int32_t x, int32_t w, int32_t bias, int32_t y) {
    dnnl_memory_desc_t source = any(b, x), weights = any(b, w), offset = bias == NONE ? NULL : dense(b, bias);
    dnnl_memory_desc_t result = any(b, y);
    dnnl_primitive_desc_t description = NULL;
    if (good(b))
        check(b, dnnl_matmul_primitive_desc_create(&description, b->region->engine, source, weights, offset, result,
                                                   b->attributes));
    add_weighted(b, description, x, w, bias, y);
    dnnl_memory_desc_destroy(source);
    dnnl_memory_desc_destroy(weights);
    dnnl_memory_desc_destroy(offset);
    dnnl_memory_desc_destroy(result);
}
