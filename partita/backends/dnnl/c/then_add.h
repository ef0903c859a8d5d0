static void then_add(builder *b, int32_t residual, bool may_overwrite) {
    b->residual = residual;
    b->overwrites_residual = may_overwrite;
    if (good(b) && check(b, dnnl_post_ops_append_sum(b->post_ops, 1.0f, 0, dnnl_data_type_undef)))
        check(b, dnnl_primitive_attr_set_post_ops(b->attributes, b->post_ops));
}
