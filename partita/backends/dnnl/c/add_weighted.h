/* The steps of a convolution or matrix product whose descriptor chose the layouts. */
static void add_weighted(builder *b, dnnl_primitive_desc_t description, int32_t x, int32_t w, int32_t bias, int32_t y) {
    if (!good(b))
        return; /* without a descriptor */
    const int32_t source = in_layout(b, x, dnnl_primitive_desc_query_md(description, dnnl_query_src_md, 0));
    const int32_t weights = in_layout(b, w, dnnl_primitive_desc_query_md(description, dnnl_query_weights_md, 0));
    dnnl_exec_arg_t further[2] = {operand(b, DNNL_ARG_WEIGHTS, weights)};
    if (bias != NONE)
        further[1] = operand(b, DNNL_ARG_BIAS, b->places[bias][0]);
    add_unary(b, description, source, y, further, bias == NONE ? 1 : 2);
}
