/* The second operand may have sizes of 1 where the first has more. */
static void binary(builder *b, dnnl_alg_kind_t kind, int32_t x, int32_t other, int32_t y) {
    const region_value *first = &b->values[x], *second = &b->values[other];
    const bool is_whole = !memcmp(first->shape, second->shape, (size_t)first->rank * sizeof first->shape[0]);
    const int32_t source = latest(b, x);
    const_dnnl_memory_desc_t layout = layout_of(b, source);
    dnnl_primitive_desc_t description = NULL;
    if (!good(b))
        return;
    const int32_t place = is_whole ? in_layout(b, other, layout) : latest(b, other);
    const_dnnl_memory_desc_t other_layout = layout_of(b, place);
    if (good(b))
        check(b, dnnl_binary_primitive_desc_create(&description, b->region->engine, kind, layout, other_layout, layout,
                                                   b->attributes));
    const dnnl_exec_arg_t further = operand(b, DNNL_ARG_SRC_1, place);
    add_unary(b, description, source, y, &further, 1);
}
