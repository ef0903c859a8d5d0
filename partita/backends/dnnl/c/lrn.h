static void lrn(builder *b, int32_t x, int32_t y, dnnl_dim_t size, float alpha, float beta, float bias) {
    const int32_t source = latest(b, x);
    const_dnnl_memory_desc_t layout = layout_of(b, source);
    dnnl_primitive_desc_t description = NULL;
    if (good(b))
        check(b, dnnl_lrn_forward_primitive_desc_create(&description, b->region->engine, dnnl_forward_inference,
                                                        dnnl_lrn_across_channels, layout, layout, size, alpha, beta,
                                                        bias, b->attributes));
    add_unary(b, description, source, y, NULL, 0);
}
