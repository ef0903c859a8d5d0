/* handover.c: sequences and optional values between a caller and an instance. */
#include <string.h>

#include "internal.h"

static int may_be_absent(const partita_value *value) {
    return value->kind == PARTITA_KIND_OPTIONAL_TENSOR || value->kind == PARTITA_KIND_OPTIONAL_SEQUENCE;
}

static partita_status check_element(partita_instance *instance, const partita_value *value,
                                    const partita_tensor *tensor, int64_t index) {
    if (tensor->data_type != value->data_type || tensor->rank < 0 || tensor->rank > PARTITA_MAX_RANK)
        return partita_fail(instance, PARTITA_ERROR_ARGUMENT,
                            "input '%s': element %lld has data type %d and rank %d, expected data type %d", value->name,
                            (long long)index, (int)tensor->data_type, (int)tensor->rank, (int)value->data_type);
    const int64_t bytes = partita_bytes_of(tensor->data_type, tensor->rank, tensor->shape);
    if (bytes < 0)
        return partita_fail(instance, PARTITA_ERROR_SHAPE, "input '%s': the sizes of element %lld are negative or too large",
                            value->name, (long long)index);
    if (bytes > 0 && !tensor->data)
        return partita_fail(instance, PARTITA_ERROR_ARGUMENT, "input '%s': the data of element %lld is NULL",
                            value->name, (long long)index);
    return PARTITA_OK;
}

partita_status partita_check_sequence(partita_instance *instance, const partita_value *value,
                                      const partita_tensor *given) {
    if (given->data_type == PARTITA_TYPE_ABSENT && may_be_absent(value))
        return PARTITA_OK;
    if (value->kind == PARTITA_KIND_OPTIONAL_TENSOR)
        return check_element(instance, value, given, 0);
    if (given->data_type != PARTITA_TYPE_SEQUENCE || given->shape[0] < 0 || (given->shape[0] > 0 && !given->data))
        return partita_fail(instance, PARTITA_ERROR_ARGUMENT, "input '%s': data type %d, expected a sequence",
                            value->name, (int)given->data_type);
    const partita_tensor *elements = given->data;
    partita_status status = PARTITA_OK;
    for (int64_t index = 0; index < given->shape[0] && !status; index++)
        status = check_element(instance, value, &elements[index], index);
    return status;
}

/* Whether an element may be read where it lies: it is aligned, and no output is written there. */
static int may_stay(const partita_tensor *tensor, const partita_tensor *outputs, int32_t count) {
    const int64_t size = partita_element_bytes(tensor->data_type);
    const int64_t bytes = partita_bytes_of(tensor->data_type, tensor->rank, tensor->shape);
    if (!tensor->data || (uintptr_t)tensor->data % (uintptr_t)(size > 8 ? 8 : size))
        return 0;
    for (int32_t index = 0; index < count; index++) {
        const partita_tensor *output = &outputs[index];
        if (!output->data)
            continue;
        const uintptr_t first = (uintptr_t)tensor->data, second = (uintptr_t)output->data;
        const int64_t written = partita_bytes_of(output->data_type, output->rank, output->shape);
        if (first < second + (uint64_t)written && second < first + (uint64_t)bytes)
            return 0;
    }
    return 1;
}

partita_status partita_take_sequence(partita_instance *instance, const partita_value *value,
                                     const partita_tensor *given, const partita_tensor *outputs, int32_t count) {
    partita_sequence *sequence = &instance->sequences[value->buffer];
    partita_sequence_clear(sequence, given->data_type == PARTITA_TYPE_ABSENT);
    if (sequence->is_absent)
        return PARTITA_OK;
    const int is_one = value->kind == PARTITA_KIND_OPTIONAL_TENSOR;
    const partita_tensor *elements = is_one ? given : given->data;
    const int64_t length = is_one ? 1 : given->shape[0];
    for (int64_t index = 0; index < length; index++) {
        const int done = may_stay(&elements[index], outputs, count) ? partita_sequence_borrow(sequence, &elements[index])
                                                                    : partita_sequence_copy_in(sequence, &elements[index]);
        if (!done)
            return partita_fail(instance, PARTITA_ERROR_MEMORY, "input '%s': no memory for its elements", value->name);
    }
    return PARTITA_OK;
}

partita_status partita_give_sequence(partita_instance *instance, int32_t index, const partita_value *value,
                                     partita_tensor *output) {
    const partita_sequence *sequence = &instance->sequences[value->buffer];
    *output = (partita_tensor){.data_type = PARTITA_TYPE_ABSENT};
    if (sequence->is_absent)
        return may_be_absent(value) ? PARTITA_OK
                                    : partita_fail(instance, PARTITA_ERROR_VALUE, "output '%s' is absent", value->name);
    if (value->kind == PARTITA_KIND_OPTIONAL_TENSOR) {
        *output = sequence->elements[0].tensor;
        return PARTITA_OK;
    }
    if (partita_grow(instance, &instance->results[index], sequence->count * (int64_t)sizeof *output))
        return PARTITA_ERROR_MEMORY;
    partita_tensor *elements = instance->results[index].memory;
    for (int64_t place = 0; place < sequence->count; place++)
        elements[place] = sequence->elements[place].tensor;
    *output = (partita_tensor){.data = elements, .data_type = PARTITA_TYPE_SEQUENCE, .rank = 1};
    output->shape[0] = sequence->count;
    return PARTITA_OK;
}

static int is_output(const partita_model *model, int32_t buffer) {
    for (int32_t index = 0; index < model->output_count; index++)
        if (model->values[model->outputs[index]].buffer == buffer)
            return 1;
    return 0;
}

void partita_drop_sequences(partita_instance *instance, int keep_outputs) {
    const partita_model *model = instance->model;
    for (int32_t buffer = 0; buffer < model->buffer_count; buffer++)
        if (model->buffers[buffer].storage == PARTITA_SEQUENCE && !(keep_outputs && is_output(model, buffer)))
            partita_sequence_clear(&instance->sequences[buffer], 0);
}
