/* run.c: one run of the schedule, or of one region. */
#include <stdint.h>
#include <string.h>

#include "internal.h"

static int overlaps(const void *left, int64_t left_bytes, const void *right, int64_t right_bytes) {
    const uintptr_t first = (uintptr_t)left, second = (uintptr_t)right;
    return left && right && first < second + (uint64_t)right_bytes && second < first + (uint64_t)left_bytes;
}

static int64_t bytes_of(const partita_tensor *tensor) {
    return partita_bytes_of(tensor->data_type, tensor->rank, tensor->shape);
}

static int is_aligned(const partita_tensor *tensor) {
    const int64_t bytes = partita_element_bytes(tensor->data_type);
    return (uintptr_t)tensor->data % (uintptr_t)(bytes > 8 ? 8 : bytes) == 0;
}

/* Decides where each input is read: in place, or from a copy where it is misaligned or an output overlaps it. */
static partita_status stage_inputs(partita_instance *instance, const int32_t *values, const partita_tensor *inputs,
                                   int32_t input_count, const partita_tensor *outputs, int32_t output_count) {
    for (int32_t index = 0; index < input_count; index++) {
        const partita_value *value = &instance->model->values[values[index]];
        if (value->kind != PARTITA_KIND_TENSOR) {
            instance->read[index] = &instance->sequences[value->buffer];
            if (partita_take_sequence(instance, value, &inputs[index], outputs, output_count))
                return PARTITA_ERROR_MEMORY;
            continue;
        }
        const int64_t bytes = bytes_of(&inputs[index]);
        int in_place = is_aligned(&inputs[index]);
        for (int32_t output = 0; output < output_count; output++)
            if (outputs[output].data &&
                overlaps(inputs[index].data, bytes, outputs[output].data, bytes_of(&outputs[output])))
                in_place = 0;
        instance->read[index] = inputs[index].data;
        if (in_place && inputs[index].data)
            continue;
        if (partita_grow(instance, &instance->staging[index], bytes))
            return PARTITA_ERROR_MEMORY;
        if (bytes)
            memcpy(instance->staging[index].memory, inputs[index].data, (size_t)bytes);
        instance->read[index] = instance->staging[index].memory;
    }
    return PARTITA_OK;
}

/* Checks the outputs that bring memory of their own. Shapes known only after the run are looked at then. */
static partita_status check_outputs(partita_instance *instance, const int32_t *values, int32_t count,
                                    const partita_tensor *outputs) {
    for (int32_t index = 0; index < count; index++) {
        const partita_value *value = &instance->model->values[values[index]];
        const partita_tensor *output = &outputs[index];
        if (!output->data)
            continue;
        if (value->kind != PARTITA_KIND_TENSOR)
            return partita_fail(instance, PARTITA_ERROR_ARGUMENT,
                                "output '%s' is a sequence or optional: its data must be NULL, it is given memory",
                                value->name);
        if (output->data_type != value->data_type || output->rank != value->rank)
            return partita_fail(instance, PARTITA_ERROR_ARGUMENT,
                                "output '%s': data type %d and rank %d, expected data type %d and rank %d", value->name,
                                (int)output->data_type, (int)output->rank, (int)value->data_type, (int)value->rank);
        const int64_t bytes = bytes_of(output);
        if (bytes < 0)
            return partita_fail(instance, PARTITA_ERROR_SHAPE, "output '%s': its sizes are negative or too large",
                                value->name);
        if (instance->model->buffers[value->buffer].storage != PARTITA_HEAP) {
            const partita_status status = partita_check_shape(instance, "output", value, output);
            if (status)
                return status;
        }
        for (int32_t other = 0; other < index; other++)
            if (overlaps(output->data, bytes, outputs[other].data, bytes_of(&outputs[other])))
                return partita_fail(instance, PARTITA_ERROR_ARGUMENT, "outputs '%s' and '%s' overlap in memory",
                                    instance->model->values[values[other]].name, value->name);
    }
    return PARTITA_OK;
}

/* Memory for an output of known shape: the caller's where there is some that is aligned, else the instance's. */
static partita_status place_output(partita_instance *instance, int32_t index, const partita_value *value,
                                   const partita_tensor *output, void **place) {
    int64_t shape[PARTITA_MAX_RANK];
    if (output->data && is_aligned(output)) {
        *place = output->data;
        return PARTITA_OK;
    }
    partita_shape_of(instance, value, shape);
    const int64_t bytes = partita_bytes_of(value->data_type, value->rank, shape);
    if (bytes < 0)
        return partita_fail(instance, PARTITA_ERROR_SHAPE, "output '%s': its sizes come out negative or too large",
                            value->name);
    const partita_status status = partita_grow(instance, &instance->results[index], bytes);
    *place = instance->results[index].memory;
    return status;
}

/* Hands out an output that was computed at `place`. What is another's memory (an input, a constant, the arena) is
 * copied, so that the caller may write to what it gets. */
static partita_status deliver(partita_instance *instance, int32_t index, const partita_value *value, void *place,
                              partita_tensor *output) {
    int64_t shape[PARTITA_MAX_RANK];
    const int32_t storage = instance->model->buffers[value->buffer].storage;
    if (value->kind != PARTITA_KIND_TENSOR)
        return partita_give_sequence(instance, index, value, output);
    partita_shape_of(instance, value, shape);
    const int64_t bytes = partita_bytes_of(value->data_type, value->rank, shape);
    if (bytes < 0)
        return partita_fail(instance, PARTITA_ERROR_SHAPE, "output '%s': its sizes come out negative or too large",
                            value->name);
    if (output->data) {
        const partita_status status = partita_check_shape(instance, "output", value, output);
        if (status)
            return status;
    } else if (place == instance->results[index].memory || storage == PARTITA_HEAP) {
        output->data = place;
    } else {
        if (partita_grow(instance, &instance->results[index], bytes))
            return PARTITA_ERROR_MEMORY;
        output->data = instance->results[index].memory;
    }
    if (output->data != place && bytes)
        memcpy(output->data, place, (size_t)bytes);
    output->data_type = value->data_type;
    output->rank = value->rank;
    memcpy(output->shape, shape, (size_t)value->rank * sizeof *shape);
    return PARTITA_OK;
}

/* ------------------------------------------------------------------ regions */

/* Symbols that depend on data, as the shape shows them that the engine found. */
static void learn_symbols(partita_instance *instance, const partita_value *value, const partita_tensor *tensor) {
    for (int32_t axis = 0; axis < value->rank; axis++) {
        const int64_t index = -(value->shape[axis] + 1);
        if (index >= 0 && index < instance->model->symbol_count && instance->model->data_dependent[index])
            instance->extents[index] = tensor->shape[axis];
    }
}

/* Takes over the outputs for which the engine brought its own memory. */
static partita_status take_outputs(partita_instance *instance, const partita_region *region, partita_slot *slot) {
    partita_tensor *outputs = instance->tensors + region->input_count;
    const int32_t *values = region->values + region->input_count;
    for (int32_t index = 0; index < region->output_count; index++) {
        const partita_value *value = &instance->model->values[values[index]];
        if (slot->arguments[region->input_count + index])
            continue;
        if (!outputs[index].data || outputs[index].data_type != value->data_type || outputs[index].rank != value->rank)
            return partita_fail(instance, PARTITA_ERROR_ENGINE, "region '%s': the engine gave '%s' no data of its type",
                                region->symbol, value->name);
        learn_symbols(instance, value, &outputs[index]);
    }
    partita_derive(instance);
    for (int32_t index = 0; index < region->output_count; index++) {
        const partita_value *value = &instance->model->values[values[index]];
        if (slot->arguments[region->input_count + index])
            continue;
        const partita_status status = partita_check_shape(instance, "engine's output", value, &outputs[index]);
        if (status)
            return status;
        const int64_t bytes = bytes_of(&outputs[index]);
        void *place = bytes < 0 ? NULL : slot->call.services->reserve(&slot->call, value->buffer, bytes);
        if (!place)
            return PARTITA_ERROR_MEMORY;
        memcpy(place, outputs[index].data, (size_t)bytes);
        slot->arguments[region->input_count + index] = place;
    }
    return PARTITA_OK;
}

static partita_status interpret(partita_instance *instance, int32_t index, partita_slot *slot) {
    const partita_region *region = &instance->model->regions[index];
    const int32_t count = region->input_count + region->output_count;
    if (!instance->engine)
        return partita_fail(instance, PARTITA_ERROR_ENGINE, "region '%s' is interpreted, and no engine was given",
                            region->symbol);
    for (int32_t argument = 0; argument < count; argument++) {
        const partita_value *value = &instance->model->values[region->values[argument]];
        partita_tensor *tensor = &instance->tensors[argument];
        tensor->data = slot->arguments[argument];
        tensor->data_type = value->data_type;
        tensor->rank = value->rank;
        partita_shape_of(instance, value, tensor->shape);
    }
    const int32_t result = instance->engine(instance->engine_user, index, instance->tensors, count);
    if (result)
        return partita_fail(instance, PARTITA_ERROR_ENGINE, "region '%s': the engine failed with code %d",
                            region->symbol, (int)result);
    return take_outputs(instance, region, slot);
}

/* Memory for the outputs whose sizes were unknown when the arena was planned, but are known by now. */
static partita_status reserve_outputs(const partita_instance *instance, const partita_region *region,
                                      partita_slot *slot) {
    for (int32_t argument = region->input_count; argument < region->input_count + region->output_count; argument++) {
        const int32_t buffer = instance->model->values[region->values[argument]].buffer;
        if (instance->model->buffers[buffer].storage != PARTITA_HEAP || slot->arguments[argument])
            continue;
        const int64_t bytes = partita_resolve(instance, instance->model->buffers[buffer].bytes);
        slot->arguments[argument] = slot->call.services->reserve(&slot->call, buffer, bytes);
        if (!slot->arguments[argument])
            return bytes < 0 ? PARTITA_ERROR_SHAPE : PARTITA_ERROR_MEMORY;
    }
    return PARTITA_OK;
}

/* Runs a region whose slot's arguments are filled in; NULL stands for an output of data-dependent size. */
static partita_status run_slot(partita_instance *instance, int32_t index) {
    const partita_region *region = &instance->model->regions[index];
    partita_slot *slot = &instance->slots[index];
    if (!region->run)
        return interpret(instance, index, slot);
    if (!region->sets_extents) {
        const partita_status status = reserve_outputs(instance, region, slot);
        if (status)
            return status;
    }
    partita_status status = region->run(&slot->call);
    if (status) {
        if (!instance->error[0])
            partita_fail(instance, status, "region '%s' failed with status %d", region->symbol, (int)status);
        return status;
    }
    if (!region->sets_extents)
        return PARTITA_OK;
    for (int32_t symbol = 0; symbol < instance->model->symbol_count; symbol++)
        if (instance->extents[symbol] < 0)
            return partita_fail(instance, PARTITA_ERROR_SHAPE, "region '%s' set '%s' to a negative size",
                                region->symbol, instance->model->symbols[symbol]);
    return partita_derive(instance);
}

/* ------------------------------------------------------------------ the whole model */

static partita_status look_all_up(partita_instance *instance) {
    for (int32_t region = 0; region < instance->model->region_count; region++) {
        const partita_status status = partita_lookup_locked(instance, region);
        if (status)
            return status;
    }
    instance->all_ready = 1;
    return PARTITA_OK;
}

/* Whether output `index` of the model is computed in place, in memory of its own. */
static int is_own(const partita_model *model, int32_t index) {
    const partita_buffer *buffer = &model->buffers[model->values[model->outputs[index]].buffer];
    return buffer->storage == PARTITA_ARGUMENT && buffer->index == model->input_count + index;
}

static partita_status prepare(partita_instance *instance, const partita_tensor *inputs, const partita_tensor *outputs) {
    const partita_model *model = instance->model;
    partita_status status = partita_bind_shapes(instance, model->inputs, model->input_count, inputs, 0);
    if (!status)
        status = check_outputs(instance, model->outputs, model->output_count, outputs);
    if (!status && !instance->all_ready)
        status = look_all_up(instance);
    if (!status)
        status = stage_inputs(instance, model->inputs, inputs, model->input_count, outputs, model->output_count);
    if (status)
        return status;
    for (int32_t index = 0; index < model->input_count; index++)
        instance->pointers[model->values[model->inputs[index]].buffer] = (void *)(uintptr_t)instance->read[index];
    for (int32_t index = 0; index < model->output_count && !status; index++) {
        const partita_value *value = &model->values[model->outputs[index]];
        if (is_own(model, index))
            status = place_output(instance, index, value, &outputs[index], &instance->pointers[value->buffer]);
    }
    return status;
}

static partita_status run_locked(partita_instance *instance, const partita_tensor *inputs, partita_tensor *outputs) {
    const partita_model *model = instance->model;
    partita_drop_sequences(instance, 0);
    partita_status status = prepare(instance, inputs, outputs);
    for (int32_t index = 0; index < model->buffer_count && !status; index++)
        if (model->buffers[index].storage == PARTITA_HEAP)
            instance->pointers[index] = NULL; /* until it is reserved in this run */
    for (int32_t index = 0; index < model->region_count && !status; index++) {
        const partita_region *region = &model->regions[index];
        const int32_t count = region->input_count + region->output_count;
        for (int32_t argument = 0; argument < count; argument++)
            instance->slots[index].arguments[argument] =
                instance->pointers[model->values[region->values[argument]].buffer];
        status = run_slot(instance, index);
    }
    partita_drop_sequences(instance, 1);
    for (int32_t index = 0; index < model->output_count && !status; index++) {
        const partita_value *value = &model->values[model->outputs[index]];
        void *place = instance->pointers[value->buffer];
        status = place ? deliver(instance, index, value, place, &outputs[index])
                       : partita_fail(instance, PARTITA_ERROR_STATE, "no region reserved output '%s'", value->name);
    }
    return status;
}

partita_status partita_run(partita_instance *instance, const partita_tensor *inputs, partita_tensor *outputs) {
    pthread_mutex_lock(&instance->lock);
    instance->error[0] = 0;
    partita_text *spent = instance->text; /* inputs may be strings of the last run */
    instance->text = NULL;
    const partita_status status = run_locked(instance, inputs, outputs);
    partita_free_text(spent);
    pthread_mutex_unlock(&instance->lock);
    return status;
}

/* ------------------------------------------------------------------ one region alone */

static partita_status region_locked(partita_instance *instance, int32_t index, partita_tensor *arguments) {
    const partita_model *model = instance->model;
    partita_status status = partita_lookup_locked(instance, index);
    if (status)
        return status;
    const partita_region *region = &model->regions[index];
    const int32_t *outputs = region->values + region->input_count;
    partita_slot *slot = &instance->slots[index];
    partita_tensor *results = arguments + region->input_count;
    status = partita_bind_shapes(instance, region->values, region->input_count, arguments, 1);
    if (!status)
        status = check_outputs(instance, outputs, region->output_count, results);
    if (!status)
        status = stage_inputs(instance, region->values, arguments, region->input_count, results, region->output_count);
    for (int32_t input = 0; input < region->input_count && !status; input++)
        slot->arguments[input] = (void *)(uintptr_t)instance->read[input];
    for (int32_t output = 0; output < region->output_count && !status; output++) {
        const partita_value *value = &model->values[outputs[output]];
        void **place = &slot->arguments[region->input_count + output];
        *place = NULL;
        if (value->kind != PARTITA_KIND_TENSOR)
            *place = &instance->sequences[value->buffer];
        else if (model->buffers[value->buffer].storage != PARTITA_HEAP)
            status = place_output(instance, output, value, &results[output], place);
    }
    if (!status)
        status = run_slot(instance, index);
    for (int32_t output = 0; output < region->output_count && !status; output++) {
        const partita_value *value = &model->values[outputs[output]];
        const int is_heap = model->buffers[value->buffer].storage == PARTITA_HEAP;
        void *place = is_heap ? instance->pointers[value->buffer] : slot->arguments[region->input_count + output];
        status = deliver(instance, output, value, place, &results[output]);
    }
    return status;
}

partita_status partita_run_region(partita_instance *instance, int32_t region, partita_tensor *arguments) {
    pthread_mutex_lock(&instance->lock);
    instance->error[0] = 0;
    partita_text *spent = instance->text; /* inputs may be strings of the last run */
    instance->text = NULL;
    const partita_status status = region_locked(instance, region, arguments);
    partita_free_text(spent);
    pthread_mutex_unlock(&instance->lock);
    return status;
}
