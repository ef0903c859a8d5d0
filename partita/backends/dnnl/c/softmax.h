static void softmax(builder *b, dnnl_alg_kind_t kind, int32_t x, int32_t y, int axis) {
    const int32_t source = latest(b, x);
    const_dnnl_memory_desc_t layout = layout_of(b, source);
    dnnl_primitive_desc_t description = NULL;
    if (good(b))
        check(b, dnnl_softmax_forward_primitive_desc_create(&description, b->region->engine, dnnl_forward_inference,
                                                            kind, layout, layout, axis, b->attributes));
    add_unary(b, description, source, y, NULL, 0);
}
