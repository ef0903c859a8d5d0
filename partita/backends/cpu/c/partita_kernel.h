/* partita_kernel.h: how a region's function calls its kernels.
 *
 * A phase of a kernel is a task: it computes steps [begin, end) of some number of steps, in any order and cut anywhere, on
 * any thread. `argument` points to the kernel's pointers: its inputs, its outputs, and what else it asks for.
 */
#ifndef PARTITA_KERNEL_H
#define PARTITA_KERNEL_H

#include "partita.h"

/* Few phases want a workspace, some run once, and compilers are asked to warn of parameters that nobody reads. */
#define PARTITA_UNUSED __attribute__((unused))
#define PARTITA_PHASE(name) \
    void name(void *argument, int64_t begin PARTITA_UNUSED, int64_t end PARTITA_UNUSED, void *workspace PARTITA_UNUSED)

/* What a routine is given first: its call, where a failure goes, and the rows that it computes. */
#define PARTITA_ROUTINE \
    const partita_call *call PARTITA_UNUSED, int32_t *status PARTITA_UNUSED, int64_t begin PARTITA_UNUSED, int64_t end PARTITA_UNUSED

/* Runs all steps of a phase, on all threads where there are pieces of `grain` steps to share. */
static inline void partita_run_phase(const partita_call *call, partita_task phase, const void *const *pointers,
                                     int64_t steps, int64_t grain, void *workspace, int64_t workspace_bytes) {
    void *argument = (void *)(uintptr_t)pointers;
    if (call->services->threads == 1 || steps <= grain)
        phase(argument, 0, steps, workspace);
    else
        call->services->parallel(call, phase, argument, steps, grain, workspace, workspace_bytes);
}

/* Compiled with PARTITA_PROFILE, a region tells when it starts (-1) and when each of its kernels is done. */
#ifdef PARTITA_PROFILE
#define PARTITA_DONE(kernel) call->services->done(call, kernel)
#else
#define PARTITA_DONE(kernel) (void)0
#endif

#endif
