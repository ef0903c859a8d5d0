static void then_eltwise(builder *b, dnnl_alg_kind_t kind, float alpha, float beta) {
    if (good(b) && check(b, dnnl_post_ops_append_eltwise(b->post_ops, kind, alpha, beta)))
        check(b, dnnl_primitive_attr_set_post_ops(b->attributes, b->post_ops));
}
