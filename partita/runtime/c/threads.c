/* threads.c: services->parallel. */
#include "internal.h"

int32_t partita_thread_count(int32_t requested) { return requested > 0 ? requested : 1; }

partita_status partita_start_threads(partita_instance *instance, int32_t threads) {
    (void)instance;
    (void)threads;
    return PARTITA_OK;
}

void partita_stop_threads(partita_instance *instance) { (void)instance; }

void partita_parallel(const partita_call *call, partita_task task, void *argument, int64_t count, int64_t grain) {
    (void)call;
    (void)grain;
    if (count > 0)
        task(argument, 0, count);
}
