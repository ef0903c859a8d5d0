/* runtime.c: the life of an instance: open, lookup, close, and the services that regions call. */
#include "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *partita_allocate(int64_t bytes) {
    const size_t step = PARTITA_ALIGNMENT;
    if (bytes < 0 || (uint64_t)bytes > SIZE_MAX - step)
        return NULL;
    /* Whole lines, and never none: a pointer to an empty tensor is a pointer still. */
    return aligned_alloc(step, ((size_t)bytes + (bytes == 0) + step - 1) / step * step);
}

static void *allocate_array(int64_t count, size_t size) {
    const int64_t bytes = count * (int64_t)size;
    void *memory = partita_allocate(bytes);
    if (memory)
        memset(memory, 0, (size_t)bytes);
    return memory;
}

partita_status partita_fail(partita_instance *instance, partita_status status, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    pthread_mutex_lock(&instance->error_lock);
    vsnprintf(instance->error, sizeof instance->error, format, arguments);
    pthread_mutex_unlock(&instance->error_lock);
    va_end(arguments);
    return status;
}

partita_status partita_grow(partita_instance *instance, partita_block *block, int64_t bytes) {
    if (block->memory && block->bytes >= bytes)
        return PARTITA_OK;
    free(block->memory);
    block->bytes = 0;
    block->memory = partita_allocate(bytes);
    if (!block->memory)
        return partita_fail(instance, PARTITA_ERROR_MEMORY, "no memory for a tensor of %lld bytes", (long long)bytes);
    block->bytes = bytes;
    return PARTITA_OK;
}

/* ------------------------------------------------------------------ services */

static partita_status service_fail(const partita_call *call, partita_status status, const char *format, ...) {
    char text[PARTITA_MESSAGE_BYTES];
    const partita_instance *instance = call->instance;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    const char *symbol = "?";
    for (int32_t region = 0; region < instance->model->region_count; region++)
        if (call == &instance->slots[region].call)
            symbol = instance->model->regions[region].symbol;
    return partita_fail(call->instance, status, "region '%s': %s", symbol, text);
}

static int is_reservable(partita_instance *instance, int32_t buffer, int64_t bytes) {
    const partita_model *model = instance->model;
    if (buffer >= 0 && buffer < model->buffer_count && model->buffers[buffer].storage == PARTITA_HEAP && bytes >= 0)
        return 1;
    partita_fail(instance, PARTITA_ERROR_SHAPE, "buffer %d cannot be given %lld bytes", (int)buffer, (long long)bytes);
    return 0;
}

static void *service_reserve(const partita_call *call, int32_t buffer, int64_t bytes) {
    partita_instance *instance = call->instance;
    if (!is_reservable(instance, buffer, bytes))
        return NULL;
    if (partita_grow(instance, &instance->heaps[buffer], bytes))
        return NULL;
    return instance->pointers[buffer] = instance->heaps[buffer].memory;
}

static void *service_extend(const partita_call *call, int32_t buffer, int64_t bytes) {
    partita_instance *instance = call->instance;
    if (!is_reservable(instance, buffer, bytes))
        return NULL;
    partita_block *block = &instance->heaps[buffer];
    if (!block->memory || block->bytes < bytes) {
        partita_block wider = {NULL, 0};
        if (partita_grow(instance, &wider, bytes / 2 < INT64_MAX - bytes ? bytes + bytes / 2 : bytes))
            return NULL;
        if (block->memory)
            memcpy(wider.memory, block->memory, (size_t)block->bytes);
        free(block->memory);
        *block = wider;
    }
    return instance->pointers[buffer] = block->memory;
}

/* ------------------------------------------------------------------ open and close */

static int32_t most_inputs(const partita_model *model) {
    int32_t most = model->input_count;
    for (int32_t region = 0; region < model->region_count; region++)
        if (model->regions[region].input_count > most)
            most = model->regions[region].input_count;
    return most;
}

static int32_t most_outputs(const partita_model *model) {
    int32_t most = model->output_count;
    for (int32_t region = 0; region < model->region_count; region++)
        if (model->regions[region].output_count > most)
            most = model->regions[region].output_count;
    return most;
}

static int allocate_slots(partita_instance *instance) {
    const partita_model *model = instance->model;
    for (int32_t region = 0; region < model->region_count; region++) {
        partita_slot *slot = &instance->slots[region];
        slot->arguments =
            allocate_array(model->regions[region].input_count + model->regions[region].output_count, sizeof(void *));
        if (!slot->arguments)
            return 0;
        slot->call = (partita_call){.arguments = slot->arguments,
                                    .offsets = instance->offsets,
                                    .extents = instance->extents,
                                    .services = &instance->services,
                                    .instance = instance,
                                    .sequences = instance->sequences};
    }
    return 1;
}

static int allocate_arrays(partita_instance *instance) {
    const partita_model *model = instance->model;
    const int32_t inputs = most_inputs(model), outputs = most_outputs(model);
#define ARRAY(field, count) ((instance->field = allocate_array(count, sizeof *instance->field)) != NULL)
    return ARRAY(constants, model->constant_count) && ARRAY(extents, model->extent_count) &&
           ARRAY(planned, model->symbol_count) && ARRAY(binders, model->symbol_count) &&
           ARRAY(offsets, model->buffer_count) && ARRAY(pointers, model->buffer_count) &&
           ARRAY(order, model->buffer_count) && ARRAY(placed, model->buffer_count) &&
           ARRAY(heaps, model->buffer_count) &&
           ARRAY(sequences, model->buffer_count) && ARRAY(staging, inputs) && ARRAY(read, inputs) &&
           ARRAY(results, outputs) && ARRAY(tensors, inputs + outputs) && ARRAY(slots, model->region_count) &&
           allocate_slots(instance);
#undef ARRAY
}

static void free_blocks(partita_block *blocks, int32_t count) {
    for (int32_t index = 0; blocks && index < count; index++)
        free(blocks[index].memory);
    free(blocks);
}

static void destroy(partita_instance *instance) {
    const partita_model *model = instance->model;
    partita_stop_threads(instance);
    for (int32_t region = 0; instance->slots && region < model->region_count; region++) {
        partita_slot *slot = &instance->slots[region];
        if (slot->ready && slot->state && model->regions[region].free)
            model->regions[region].free(slot->state);
        free(slot->state);
        free(slot->arguments);
        free(slot->spent);
    }
    free(instance->slots);
    free_blocks(instance->heaps, model->buffer_count);
    for (int32_t buffer = 0; instance->sequences && buffer < model->buffer_count; buffer++)
        partita_sequence_free(&instance->sequences[buffer]);
    free(instance->sequences);
    free_blocks(instance->staging, most_inputs(model));
    free_blocks(instance->results, most_outputs(model));
    free(instance->constants);
    free(instance->extents);
    free(instance->planned);
    free(instance->binders);
    free(instance->offsets);
    free(instance->pointers);
    free(instance->order);
    free(instance->placed);
    free(instance->read);
    free(instance->tensors);
    free(instance->arena);
    partita_unmap_parameters(&instance->mapping);
    pthread_mutex_destroy(&instance->lock);
    pthread_mutex_destroy(&instance->error_lock);
    partita_free_text(instance->text);
    pthread_mutex_destroy(&instance->text_lock);
    free(instance);
}

static partita_status find_constants(partita_instance *instance, const partita_options *options) {
    const partita_model *model = instance->model;
    if (model->constant_count == 0)
        return PARTITA_OK;
    if (options->constants) {
        memcpy(instance->constants, options->constants, (size_t)model->constant_count * sizeof(void *));
    } else {
        const partita_status status = partita_map_parameters(model, options->parameters, &instance->mapping,
                                                             instance->error, sizeof instance->error);
        if (status)
            return status;
        for (int32_t index = 0; index < model->constant_count; index++)
            instance->constants[index] = instance->mapping.data + model->constants[index].offset;
    }
    /* Pointers are shared with argument lists, which are not const; nothing writes through these. */
    for (int32_t buffer = 0; buffer < model->buffer_count; buffer++)
        if (model->buffers[buffer].storage == PARTITA_CONSTANT)
            instance->pointers[buffer] = (void *)(uintptr_t)instance->constants[model->buffers[buffer].index];
    return PARTITA_OK;
}

static partita_status set_up(partita_instance *instance, const partita_options *options) {
    const partita_model *model = instance->model;
    if (!allocate_arrays(instance))
        return partita_fail(instance, PARTITA_ERROR_MEMORY, "no memory for an instance of %s", model->symbol);
    for (int32_t buffer = 0; buffer < model->buffer_count; buffer++)
        if (model->buffers[buffer].storage == PARTITA_SEQUENCE)
            instance->pointers[buffer] = &instance->sequences[buffer];
    instance->engine = options->engine;
    instance->engine_user = options->engine_user;
    const int32_t threads = partita_thread_count(options->threads);
    instance->services = (partita_services){
        .parallel = partita_parallel, .fail = service_fail, .reserve = service_reserve, .extend = service_extend,
        .text = partita_text_of, .threads = threads, .done = partita_done};
    partita_status status = find_constants(instance, options);
    if (!status && model->symbol_count == 0) {
        status = partita_derive(instance);
        if (!status)
            status = partita_plan(instance);
    }
    return status ? status : partita_start_threads(instance, threads);
}

static __attribute__((noinline)) partita_status open_instance(const partita_model *model,
                                                              const partita_options *options,
                                                              partita_instance **instance, char *message,
                                                              size_t message_bytes) {
    partita_options known = {.size = sizeof known};
    *instance = NULL;
    if (message && message_bytes)
        message[0] = 0;
    if (options) /* an older caller's struct may be shorter than ours, and a newer one's longer */
        memcpy(&known, options, options->size < sizeof known ? options->size : sizeof known);
    if (model->abi_version != PARTITA_ABI_VERSION) {
        if (message && message_bytes)
            snprintf(message, message_bytes, "the model was compiled for version %u of the interface, and this is version %d",
                     (unsigned)model->abi_version, PARTITA_ABI_VERSION);
        return PARTITA_ERROR_ARGUMENT;
    }
    partita_instance *made = allocate_array(1, sizeof *made);
    if (!made) {
        if (message && message_bytes)
            snprintf(message, message_bytes, "no memory for an instance of %s", model->symbol);
        return PARTITA_ERROR_MEMORY;
    }
    made->model = model;
    pthread_mutex_init(&made->lock, NULL);
    pthread_mutex_init(&made->error_lock, NULL);
    pthread_mutex_init(&made->text_lock, NULL);
    const partita_status status = set_up(made, &known);
    if (status) {
        if (message && message_bytes)
            snprintf(message, message_bytes, "%s", made->error);
        destroy(made);
        return status;
    }
    *instance = made;
    return PARTITA_OK;
}

PARTITA_BASELINE partita_status partita_open(const partita_model *model, const partita_options *options,
                                             partita_instance **instance, char *message, size_t message_bytes) {
    const char *lacking = partita_lacking();
    if (!lacking)
        return open_instance(model, options, instance, message, message_bytes);
    *instance = NULL;
    if (message && message_bytes)
        snprintf(message, message_bytes,
                 "the code of %s uses %s, which this machine lacks: compile it with another mcpu, such as x86-64-v3",
                 model->symbol, lacking);
    return PARTITA_ERROR_MACHINE;
}

void partita_close(partita_instance *instance) {
    if (instance)
        destroy(instance);
}

/* ------------------------------------------------------------------ lookup */

static partita_status initialize(partita_instance *instance, int32_t region) {
    const partita_region *description = &instance->model->regions[region];
    partita_slot *slot = &instance->slots[region];
    if (description->init) {
        const void **constants = allocate_array(description->constant_count, sizeof *constants);
        void *state = allocate_array(*description->state_bytes, 1);
        partita_status status;
        if (!constants || !state) {
            status = partita_fail(instance, PARTITA_ERROR_MEMORY, "no memory for the state of region '%s'",
                                  description->symbol);
        } else {
            for (int32_t index = 0; index < description->constant_count; index++)
                constants[index] = instance->constants[description->constants[index]];
            instance->error[0] = 0;
            status = description->init(&slot->call, state, constants);
            if (status && !instance->error[0])
                partita_fail(instance, status, "region '%s' could not be initialized", description->symbol);
        }
        free(constants);
        if (status) {
            free(state);
            return status;
        }
        slot->state = state;
        slot->call.state = state;
    }
    slot->ready = 1;
    return PARTITA_OK;
}

partita_status partita_lookup_locked(partita_instance *instance, int32_t region) {
    if (region < 0 || region >= instance->model->region_count)
        return partita_fail(instance, PARTITA_ERROR_ARGUMENT, "there is no region %d: the model has %d", (int)region,
                            (int)instance->model->region_count);
    return instance->slots[region].ready ? PARTITA_OK : initialize(instance, region);
}

partita_status partita_lookup(partita_instance *instance, int32_t region) {
    pthread_mutex_lock(&instance->lock);
    instance->error[0] = 0;
    const partita_status status = partita_lookup_locked(instance, region);
    pthread_mutex_unlock(&instance->lock);
    return status;
}

const char *partita_error(const partita_instance *instance) { return instance->error; }

int64_t partita_arena_bytes(const partita_instance *instance) { return instance->arena_bytes; }

int32_t partita_threads(const partita_instance *instance) { return instance->services.threads; }
