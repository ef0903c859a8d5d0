/* profile.c: what each kernel of a region took, where the region was compiled to tell (PARTITA_PROFILE). */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "internal.h"

int64_t partita_nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static partita_slot *slot_of(const partita_call *call) {
    partita_instance *instance = call->instance;
    for (int32_t region = 0; region < instance->model->region_count; region++)
        if (call == &instance->slots[region].call)
            return &instance->slots[region];
    return NULL;
}

static int has_room(partita_slot *slot, int32_t kernel) {
    if (kernel < slot->kernels)
        return 1;
    const int32_t kernels = kernel + 64;
    int64_t *spent = partita_allocate(kernels * (int64_t)sizeof *spent);
    if (!spent)
        return 0;
    memset(spent, 0, (size_t)kernels * sizeof *spent);
    if (slot->spent)
        memcpy(spent, slot->spent, (size_t)slot->kernels * sizeof *spent);
    free(slot->spent);
    slot->spent = spent;
    slot->kernels = kernels;
    return 1;
}

void partita_done(const partita_call *call, int32_t kernel) {
    partita_slot *slot = slot_of(call);
    if (!slot)
        return;
    if (kernel >= 0 && has_room(slot, kernel))
        slot->spent[kernel] += partita_nanoseconds() - slot->since;
    slot->since = partita_nanoseconds();
}

partita_status partita_profile(partita_instance *instance, int32_t region, int64_t *nanoseconds, int32_t count) {
    if (region < 0 || region >= instance->model->region_count || count < 0)
        return PARTITA_ERROR_ARGUMENT;
    pthread_mutex_lock(&instance->lock);
    partita_slot *slot = &instance->slots[region];
    for (int32_t kernel = 0; kernel < count; kernel++) {
        nanoseconds[kernel] = kernel < slot->kernels ? slot->spent[kernel] : 0;
        if (kernel < slot->kernels)
            slot->spent[kernel] = 0;
    }
    pthread_mutex_unlock(&instance->lock);
    return PARTITA_OK;
}
