/* `result` is `value` under another shape: the same memory where the layout allows it. */
static void view(builder *b, int32_t value, int32_t result) {
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
        add_place(b, layout, b->region->places[place].argument, b->region->places[place].block, DNNL_MEMORY_NONE);
    b->places[result][1] = NONE;
    dnnl_memory_desc_destroy(layout);
}
