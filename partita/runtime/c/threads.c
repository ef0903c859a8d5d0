/* threads.c: services->parallel, over a pool of threads per instance.
 *
 * Workers spin for a moment after a job, because the next one is usually microseconds away, and then sleep. Whoever
 * comes too late for a job does not join it, so a job never waits for a thread to wake up; after a fork, where the
 * workers are gone, the caller does all the work itself. With one thread there is no pool.
 */
#define _GNU_SOURCE
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

#define SPIN_NANOSECONDS 50000
#define PIECES_PER_THREAD 4 /* more balance better, fewer cost less */
#define MOST_THREADS 1024

/* The pool's word: how many workers are in the job, whether it takes more, and which job it is. */
#define ACTIVE UINT64_C(0xffff)
#define IS_OPEN UINT64_C(0x10000)
#define NEXT_JOB UINT64_C(0x20000)

struct partita_pool {
    _Alignas(64) _Atomic uint64_t word;
    _Alignas(64) _Atomic int64_t next; /* of the job's indices, the first that nobody has taken */
    _Alignas(64) partita_task task;
    void *argument;
    int64_t count, piece;
    _Atomic int stopping;
    _Atomic int32_t sleepers;
    atomic_flag busy;
    pthread_mutex_t mutex; /* guards falling asleep and waking up */
    pthread_cond_t wake;
    pid_t process;
    int32_t workers;
    pthread_t threads[];
};

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

/* ------------------------------------------------------------------ how many */

/* Cores that the control group's quota allows, rounded up; 0: no quota. */
static int32_t quota(void) {
    long long share = 0, period = 0;
    FILE *file = fopen("/sys/fs/cgroup/cpu.max", "re");
    if (!file)
        return 0;
    const int read = fscanf(file, "%lld %lld", &share, &period);
    fclose(file);
    return read == 2 && share > 0 && period > 0 ? (int32_t)((share + period - 1) / period) : 0;
}

int32_t partita_thread_count(int32_t requested) {
    const char *variable = getenv("PARTITA_NUM_THREADS");
    if (requested <= 0 && variable)
        requested = atoi(variable);
    if (requested <= 0) {
        cpu_set_t cores;
        const int32_t limit = quota();
        requested = sched_getaffinity(0, sizeof cores, &cores) ? 1 : CPU_COUNT(&cores);
        if (limit && limit < requested)
            requested = limit;
    }
    return requested > MOST_THREADS ? MOST_THREADS : requested;
}

/* ------------------------------------------------------------------ jobs */

static void take_pieces(partita_pool *pool) {
    for (;;) {
        const int64_t begin = atomic_fetch_add_explicit(&pool->next, pool->piece, memory_order_relaxed);
        if (begin >= pool->count)
            return;
        const int64_t left = pool->count - begin;
        pool->task(pool->argument, begin, begin + (left < pool->piece ? left : pool->piece));
    }
}

static int is_new(uint64_t word, uint64_t last) { return (word & IS_OPEN) && word / NEXT_JOB != last; }

/* Waits until there is a job other than `last`, or the end. */
static void await_job(partita_pool *pool, uint64_t last) {
    const int64_t until = nanoseconds() + SPIN_NANOSECONDS;
    do {
        for (int turn = 0; turn < 32; turn++) {
            if (is_new(atomic_load_explicit(&pool->word, memory_order_relaxed), last) || pool->stopping)
                return;
            relax();
        }
    } while (nanoseconds() < until);
    pthread_mutex_lock(&pool->mutex);
    /* Counted before the word is looked at: the caller sets the word before it looks at the count. */
    atomic_fetch_add(&pool->sleepers, 1);
    while (!is_new(atomic_load(&pool->word), last) && !atomic_load(&pool->stopping))
        pthread_cond_wait(&pool->wake, &pool->mutex);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->mutex);
}

static void *work(void *argument) {
    partita_pool *pool = argument;
    uint64_t last = 0;
    while (!pool->stopping) {
        await_job(pool, last);
        uint64_t word = atomic_load(&pool->word);
        while (is_new(word, last))
            if (atomic_compare_exchange_weak(&pool->word, &word, word + 1)) {
                last = word / NEXT_JOB;
                take_pieces(pool);
                atomic_fetch_sub_explicit(&pool->word, 1, memory_order_release);
                break;
            }
    }
    return NULL;
}

static void wake_sleepers(partita_pool *pool) {
    if (atomic_load(&pool->sleepers) == 0)
        return;
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
}

static void run_job(partita_pool *pool, partita_task task, void *argument, int64_t count, int64_t piece) {
    pool->task = task;
    pool->argument = argument;
    pool->count = count;
    pool->piece = piece;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    const uint64_t job = atomic_load_explicit(&pool->word, memory_order_relaxed) / NEXT_JOB + 1;
    atomic_store(&pool->word, job * NEXT_JOB | IS_OPEN);
    wake_sleepers(pool);
    take_pieces(pool);
    atomic_fetch_and(&pool->word, ~IS_OPEN);
    for (int turn = 0; atomic_load_explicit(&pool->word, memory_order_acquire) & ACTIVE; turn++) {
        relax();
        if (turn > 1000) /* more threads than cores: the others need ours */
            sched_yield();
    }
}

void partita_parallel(const partita_call *call, partita_task task, void *argument, int64_t count, int64_t grain) {
    partita_pool *pool = call->instance->pool;
    if (count <= 0)
        return;
    if (grain < 1)
        grain = 1;
    /* A task that calls parallel in turn finds the pool busy, and runs its part alone. */
    if (!pool || count <= grain || atomic_flag_test_and_set_explicit(&pool->busy, memory_order_acquire)) {
        task(argument, 0, count);
        return;
    }
    const int64_t pieces = (int64_t)call->services->threads * PIECES_PER_THREAD;
    const int64_t even = count / pieces + (count % pieces != 0);
    run_job(pool, task, argument, count, even > grain ? even : grain);
    atomic_flag_clear_explicit(&pool->busy, memory_order_release);
}

/* ------------------------------------------------------------------ life */

partita_status partita_start_threads(partita_instance *instance, int32_t threads) {
    if (threads <= 1)
        return PARTITA_OK;
    const int32_t workers = threads - 1;
    partita_pool *pool = partita_allocate((int64_t)sizeof *pool + workers * (int64_t)sizeof *pool->threads);
    if (!pool)
        return partita_fail(instance, PARTITA_ERROR_MEMORY, "no memory for %d threads", (int)threads);
    *pool = (partita_pool){.process = getpid(), .busy = ATOMIC_FLAG_INIT};
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    /* Signals are the program's threads' matter. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool->workers < workers && !pthread_create(&pool->threads[pool->workers], NULL, work, pool))
        pool->workers++;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    instance->pool = pool;
    instance->services.threads = pool->workers + 1; /* as many as the system would give */
    return PARTITA_OK;
}

void partita_stop_threads(partita_instance *instance) {
    partita_pool *pool = instance->pool;
    if (!pool)
        return;
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->stopping, 1);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    /* In a child process the workers never were. */
    for (int32_t worker = 0; worker < pool->workers && pool->process == getpid(); worker++)
        pthread_join(pool->threads[worker], NULL);
    if (pool->process == getpid()) {
        pthread_cond_destroy(&pool->wake);
        pthread_mutex_destroy(&pool->mutex);
    }
    free(pool);
    instance->pool = NULL;
}
