static void concat(builder *b, const int32_t *parts, int32_t count, int32_t y, int axis) {
    const_dnnl_memory_desc_t layouts[MOST_OPERANDS];
    dnnl_exec_arg_t operands[MOST_OPERANDS + 1];
    dnnl_memory_desc_t result = any(b, y);
    dnnl_primitive_desc_t description = NULL;
    for (int32_t n = 0; n < count && good(b); n++) {
        layouts[n] = layout_of(b, latest(b, parts[n]));
        operands[n] = operand(b, DNNL_ARG_MULTIPLE_SRC + n, latest(b, parts[n]));
    }
    if (good(b) && check(b, dnnl_concat_primitive_desc_create(&description, b->region->engine, result, count, axis,
                                                              layouts, b->attributes))) {
        const_dnnl_memory_desc_t chosen = dnnl_primitive_desc_query_md(description, dnnl_query_dst_md, 0);
        operands[count] = operand(b, DNNL_ARG_DST, produce(b, y, chosen));
        add_step(b, description, operands, count + 1);
        hand_out(b, y);
    }
    dnnl_memory_desc_destroy(result);
}
