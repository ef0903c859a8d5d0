/* shapes.c: sizes: of elements, of symbolic dimensions, of what the caller passes. */
#include <string.h>

#include "internal.h"
#include "partita_size.h"

int64_t partita_element_bytes(int32_t data_type) {
    /* By TensorProto.DataType; types below a byte take one. 8 is STRING: a partita_string. */
    static const int8_t sizes[] = {0, 4, 1, 1, 2, 2, 4, 8, sizeof(partita_string), 1, 2, 8, 4, 8, 8, 16, 2, 1, 1,
                                   1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    return data_type > 0 && data_type < (int32_t)sizeof sizes ? sizes[data_type] : 0;
}

int64_t partita_resolve(const partita_instance *instance, partita_extent extent) {
    return extent >= 0 ? extent : instance->extents[-(extent + 1)];
}

int64_t partita_bytes_of(int32_t data_type, int32_t rank, const int64_t *shape) {
    int64_t bytes = partita_element_bytes(data_type);
    int empty = 0;
    for (int32_t axis = 0; axis < rank; axis++) {
        if (shape[axis] < 0)
            return -1;
        /* An empty tensor has no bytes, however large its other sizes. */
        if (shape[axis] == 0)
            empty = 1;
    }
    for (int32_t axis = 0; axis < rank && !empty; axis++)
        if (__builtin_mul_overflow(bytes, shape[axis], &bytes))
            return -1;
    return empty ? 0 : bytes;
}

void partita_shape_of(const partita_instance *instance, const partita_value *value, int64_t *shape) {
    for (int32_t axis = 0; axis < value->rank; axis++)
        shape[axis] = partita_resolve(instance, value->shape[axis]);
}

/* The name of a size, for messages: the symbol's, or "" where it is derived or fixed. */
static const char *name_of(const partita_model *model, partita_extent extent) {
    return extent < 0 && -(extent + 1) < model->symbol_count ? model->symbols[-(extent + 1)] : "";
}

partita_status partita_check_shape(partita_instance *instance, const char *role, const partita_value *value,
                                   const partita_tensor *tensor) {
    for (int32_t axis = 0; axis < value->rank; axis++) {
        const int64_t expected = partita_resolve(instance, value->shape[axis]);
        if (tensor->shape[axis] == expected)
            continue;
        const char *name = name_of(instance->model, value->shape[axis]);
        return partita_fail(instance, PARTITA_ERROR_SHAPE, "%s '%s': axis %d%s%s%s has size %lld, expected %lld", role,
                            value->name, (int)axis, *name ? " (" : "", name, *name ? ")" : "",
                            (long long)tensor->shape[axis], (long long)expected);
    }
    return PARTITA_OK;
}

static partita_status check_type(partita_instance *instance, const partita_value *value, const partita_tensor *tensor) {
    if (value->kind != PARTITA_KIND_TENSOR)
        return partita_check_sequence(instance, value, tensor);
    if (tensor->data_type != value->data_type)
        return partita_fail(instance, PARTITA_ERROR_ARGUMENT, "input '%s': data type %d, expected %d", value->name,
                            (int)tensor->data_type, (int)value->data_type);
    if (tensor->rank != value->rank)
        return partita_fail(instance, PARTITA_ERROR_ARGUMENT, "input '%s': rank %d, expected %d", value->name,
                            (int)tensor->rank, (int)value->rank);
    const int64_t bytes = partita_bytes_of(tensor->data_type, tensor->rank, tensor->shape);
    if (bytes < 0)
        return partita_fail(instance, PARTITA_ERROR_SHAPE, "input '%s': its sizes are negative or too large",
                            value->name);
    if (bytes > 0 && !tensor->data)
        return partita_fail(instance, PARTITA_ERROR_ARGUMENT, "input '%s': its data is NULL", value->name);
    return PARTITA_OK;
}

/* Gives symbols their values from one tensor. */
static partita_status bind_symbols(partita_instance *instance, const partita_value *value,
                                   const partita_tensor *tensor) {
    const partita_model *model = instance->model;
    for (int32_t axis = 0; axis < value->rank; axis++) {
        const int64_t index = -(value->shape[axis] + 1);
        if (index < 0 || index >= model->symbol_count)
            continue;
        partita_binder *binder = &instance->binders[index];
        const int64_t size = tensor->shape[axis];
        if (!binder->name) {
            *binder = (partita_binder){value->name, axis};
            instance->extents[index] = size;
        } else if (instance->extents[index] != size) {
            return partita_fail(instance, PARTITA_ERROR_SHAPE,
                                "input '%s': axis %d has size %lld, but '%s' is %lld by axis %d of input '%s'",
                                value->name, (int)axis, (long long)size, model->symbols[index],
                                (long long)instance->extents[index], (int)binder->axis, binder->name);
        }
    }
    return PARTITA_OK;
}

partita_status partita_derive(partita_instance *instance) {
    const partita_model *model = instance->model;
    if (model->derive)
        model->derive(instance->extents);
    return PARTITA_OK;
}

/* Starts the symbols' values afresh. */
static void forget_symbols(partita_instance *instance, int keep) {
    const partita_model *model = instance->model;
    for (int32_t index = 0; index < model->symbol_count; index++) {
        instance->binders[index] = (partita_binder){NULL, 0};
        if (!keep || !instance->is_planned) /* a region will set what depends on data; until then it counts as empty */
            instance->extents[index] = model->data_dependent[index] ? 0 : PARTITA_NO_SIZE;
    }
}

static partita_status plan_anew(partita_instance *instance) {
    const partita_model *model = instance->model;
    const size_t bytes = (size_t)model->symbol_count * sizeof *instance->extents;
    if (instance->is_planned && memcmp(instance->planned, instance->extents, bytes) == 0)
        return PARTITA_OK;
    instance->is_planned = 0;
    const partita_status status = partita_plan(instance);
    if (status)
        return status;
    memcpy(instance->planned, instance->extents, bytes);
    instance->is_planned = 1;
    return PARTITA_OK;
}

partita_status partita_bind_shapes(partita_instance *instance, const int32_t *values, int32_t count,
                                   const partita_tensor *tensors, int keep) {
    const partita_model *model = instance->model;
    partita_status status = PARTITA_OK;
    for (int32_t index = 0; index < count && !status; index++)
        status = check_type(instance, &model->values[values[index]], &tensors[index]);
    if (model->symbol_count) {
        forget_symbols(instance, keep);
        for (int32_t index = 0; index < count && !status; index++)
            status = bind_symbols(instance, &model->values[values[index]], &tensors[index]);
        for (int32_t index = 0; index < model->symbol_count && !status; index++)
            if (instance->extents[index] < 0)
                status = partita_fail(instance, PARTITA_ERROR_SHAPE, "no input shows the size of '%s'",
                                      model->symbols[index]);
        if (!status)
            status = partita_derive(instance);
    }
    for (int32_t index = 0; index < count && !status; index++)
        status = partita_check_shape(instance, "input", &model->values[values[index]], &tensors[index]);
    if (!status && model->symbol_count)
        status = plan_anew(instance);
    return status;
}
