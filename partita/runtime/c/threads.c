/* threads.c: services->parallel, over one pool of threads for all models of a process.
 *
 * Every artifact has its own copy of this file, and all copies find the same pool through one object that the dynamic
 * linker makes unique in the process. Where a system knows no such objects, each artifact has a pool of its own.
 *
 * Workers spin for a moment after a job, because the next one is usually microseconds away, and then sleep. Whoever
 * comes too late for a job does not join it, so a job never waits for a thread to wake up; after a fork, where the
 * workers are gone, the caller does all the work itself. Instances with one thread have nothing to do with a pool.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

#define SPIN_NANOSECONDS 50000
#define MOST_THREADS 1024

/* The pool's word: how many workers are in the job, how many ever joined it, whether it takes more, and which it is. */
#define ACTIVE UINT64_C(0xffff)
#define JOINED UINT64_C(0x10000)
#define JOINED_MASK UINT64_C(0x7fff)
#define IS_OPEN UINT64_C(0x80000000)
#define NEXT_JOB UINT64_C(0x100000000)

/* The part of a job's indices that one thread begins with. */
typedef struct partita_share {
    _Alignas(64) _Atomic int64_t next; /* the first that nobody has taken */
    int64_t end;
} partita_share;

typedef struct partita_worker {
    partita_pool *pool;
    pthread_t thread;
    int32_t number; /* from 1 on: the caller of a job is 0 */
} partita_worker;

struct partita_pool {
    _Alignas(64) _Atomic uint64_t word;
    _Alignas(64) partita_task task;
    void *argument;
    int64_t grain, count_of_shares;
    _Atomic uint64_t limit; /* how many workers may join the job */
    _Atomic int stopping;
    _Atomic int32_t sleepers;
    atomic_flag busy;
    pthread_mutex_t mutex; /* guards falling asleep and waking up */
    pthread_cond_t wake;
    pid_t process;
    int32_t users, workers; /* guarded by the registry's lock */
    partita_block workspaces[MOST_THREADS]; /* per worker in a job, by the order in which they joined */
    partita_worker worker[MOST_THREADS];
    partita_share shares[MOST_THREADS];
};

/* What the copies of the runtime share. The number in its name is the version of this layout and of the pool's. */
typedef struct partita_registry {
    _Atomic int32_t lock; /* the process that holds it; 0: nobody */
    partita_pool *pool;
} partita_registry;

#if defined(__GLIBC__) && (defined(__x86_64__) || defined(__aarch64__))
__asm__(".pushsection .data.partita_threads_2, \"aw\"\n"
        ".balign 16\n"
        ".globl partita_threads_2\n"
        ".type partita_threads_2, %gnu_unique_object\n"
        ".size partita_threads_2, 16\n"
        "partita_threads_2: .zero 16\n"
        ".popsection\n");
extern partita_registry partita_threads_2 __attribute__((visibility("default")));
_Static_assert(sizeof(partita_registry) == 16, "the size above");
#else
static partita_registry partita_threads_2;
#endif

static void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
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

/* Takes half of what is left of a share, again and again: large pieces cost little, and the last ones, for which threads
 * wait for each other, are small (guided self-scheduling: Polychronopoulos and Kuck, 1987). */
static void take_share(partita_pool *pool, partita_share *share, void *workspace) {
    int64_t begin = atomic_load_explicit(&share->next, memory_order_relaxed);
    while (begin < share->end) {
        const int64_t left = share->end - begin, half = (left + 1) / 2;
        const int64_t wanted = half > pool->grain ? half : pool->grain;
        const int64_t end = begin + (wanted < left ? wanted : left);
        if (atomic_compare_exchange_weak_explicit(&share->next, &begin, end, memory_order_relaxed,
                                                  memory_order_relaxed)) {
            pool->task(pool->argument, begin, end, workspace);
            begin = atomic_load_explicit(&share->next, memory_order_relaxed);
        }
    }
}

/* A thread begins with the same share of every job, because it has in its cache what it made of the same share in the
 * job before; then it helps the others (affinity scheduling: Markatos and LeBlanc, 1994). */
static void take_pieces(partita_pool *pool, int64_t own, void *workspace) {
    const int64_t count = pool->count_of_shares;
    for (int64_t k = 0; k < count; k++)
        take_share(pool, &pool->shares[(own + k) % count], workspace);
}

static void share_out(partita_pool *pool, int64_t count, int64_t shares) {
    const int64_t size = count / shares, larger = count % shares; /* so many have one index more */
    int64_t begin = 0;
    for (int64_t k = 0; k < shares; k++) {
        atomic_store_explicit(&pool->shares[k].next, begin, memory_order_relaxed);
        pool->shares[k].end = begin += size + (k < larger);
    }
    pool->count_of_shares = shares;
}

static int is_new(uint64_t word, uint64_t last) { return (word & IS_OPEN) && word / NEXT_JOB != last; }

/* Waits until there is a job other than `last`, or the end. */
static void await_job(partita_pool *pool, uint64_t last) {
    const int64_t until = partita_nanoseconds() + SPIN_NANOSECONDS;
    do {
        for (int turn = 0; turn < 32; turn++) {
            if (is_new(atomic_load_explicit(&pool->word, memory_order_relaxed), last) || pool->stopping)
                return;
            relax();
        }
    } while (partita_nanoseconds() < until);
    pthread_mutex_lock(&pool->mutex);
    /* Counted before the word is looked at: the caller sets the word before it looks at the count. */
    atomic_fetch_add(&pool->sleepers, 1);
    while (!is_new(atomic_load(&pool->word), last) && !atomic_load(&pool->stopping))
        pthread_cond_wait(&pool->wake, &pool->mutex);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->mutex);
}

/* Joins the job of `word`, unless it is full or over. */
static void join(partita_pool *pool, int32_t number, uint64_t word, uint64_t *last) {
    while (is_new(word, *last)) {
        const uint64_t place = word / JOINED & JOINED_MASK;
        if (place >= atomic_load_explicit(&pool->limit, memory_order_relaxed)) {
            *last = word / NEXT_JOB;
        } else if (atomic_compare_exchange_weak(&pool->word, &word, word + JOINED + 1)) {
            *last = word / NEXT_JOB;
            take_pieces(pool, number, pool->workspaces[place].memory);
            atomic_fetch_sub_explicit(&pool->word, 1, memory_order_release);
        }
    }
}

static void *work(void *argument) {
    const partita_worker *self = argument;
    partita_pool *pool = self->pool;
    uint64_t last = 0;
    while (!pool->stopping) {
        await_job(pool, last);
        join(pool, self->number, atomic_load(&pool->word), &last);
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

/* Gives each worker that may join a workspace; tells how many got one. */
static int64_t reserve_workspaces(partita_pool *pool, int64_t workers, int64_t bytes) {
    for (int64_t place = 0; place < workers && bytes > 0; place++) {
        partita_block *block = &pool->workspaces[place];
        if (block->memory && block->bytes >= bytes)
            continue;
        free(block->memory);
        block->memory = partita_allocate(bytes);
        block->bytes = block->memory ? bytes : 0;
        if (!block->memory)
            return place;
    }
    return workers;
}

static void run_job(partita_pool *pool, int64_t workers, void *workspace) {
    atomic_store_explicit(&pool->limit, (uint64_t)workers, memory_order_relaxed);
    const uint64_t job = (atomic_load_explicit(&pool->word, memory_order_relaxed) / NEXT_JOB + 1) & UINT32_MAX;
    atomic_store(&pool->word, job * NEXT_JOB | IS_OPEN);
    wake_sleepers(pool);
    take_pieces(pool, 0, workspace);
    atomic_fetch_and(&pool->word, ~IS_OPEN);
    for (int turn = 0; atomic_load_explicit(&pool->word, memory_order_acquire) & ACTIVE; turn++) {
        relax();
        if (turn > 1000) /* more threads than cores: the others need ours */
            sched_yield();
    }
}

void partita_parallel(const partita_call *call, partita_task task, void *argument, int64_t count, int64_t grain,
                      void *workspace, int64_t workspace_bytes) {
    partita_pool *pool = call->instance->pool;
    if (count <= 0)
        return;
    if (grain < 1)
        grain = 1;
    /* A task that calls parallel in turn, like a second instance at the same time, finds the pool busy. */
    if (!pool || count / grain < 2 || atomic_flag_test_and_set_explicit(&pool->busy, memory_order_acquire)) {
        task(argument, 0, count, workspace);
        return;
    }
    const int64_t others = count / grain - 1, threads = call->services->threads - 1;
    const int64_t workers = reserve_workspaces(pool, others < threads ? others : threads, workspace_bytes);
    pool->task = task;
    pool->argument = argument;
    pool->grain = grain;
    share_out(pool, count, workers + 1);
    run_job(pool, workers, workspace);
    atomic_flag_clear_explicit(&pool->busy, memory_order_release);
}

/* ------------------------------------------------------------------ life */

/* The lock names its process, so that a child of a fork tells a lock that was held there from one held here. */
static void lock_registry(void) {
    const int32_t own = (int32_t)getpid();
    int32_t holder = 0;
    while (!atomic_compare_exchange_weak_explicit(&partita_threads_2.lock, &holder, own, memory_order_acquire,
                                                  memory_order_relaxed))
        if (holder == own) {
            holder = 0;
            sched_yield();
        }
}

static void unlock_registry(void) { atomic_store_explicit(&partita_threads_2.lock, 0, memory_order_release); }

/* Workers run this library's code for as long as there is a pool: it must not be unmapped, whoever closes it. */
static void stay_mapped(void) {
    Dl_info info;
    if (dladdr((void *)(uintptr_t)&partita_parallel, &info) && info.dli_fname)
        (void)dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

static partita_pool *make_pool(void) {
    partita_pool *pool = partita_allocate((int64_t)sizeof *pool);
    if (!pool)
        return NULL;
    memset(pool, 0, sizeof *pool);
    pool->process = getpid();
    atomic_flag_clear(&pool->busy);
    pthread_mutex_init(&pool->mutex, NULL);
    pthread_cond_init(&pool->wake, NULL);
    return pool;
}

static void add_workers(partita_pool *pool, int32_t workers) {
    /* Signals are the program's threads' matter. */
    sigset_t all, before;
    if (pool->workers >= workers)
        return;
    stay_mapped();
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    while (pool->workers < workers) {
        partita_worker *worker = &pool->worker[pool->workers];
        worker->pool = pool;
        worker->number = pool->workers + 1;
        if (pthread_create(&worker->thread, NULL, work, worker))
            break;
        pool->workers++;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

partita_status partita_start_threads(partita_instance *instance, int32_t threads) {
    if (threads <= 1)
        return PARTITA_OK;
    lock_registry();
    partita_pool *pool = partita_threads_2.pool;
    if (!pool || pool->process != getpid())
        pool = partita_threads_2.pool = make_pool();
    if (pool) {
        pool->users++;
        add_workers(pool, threads - 1);
        instance->pool = pool;
        if (pool->workers < threads - 1)
            instance->services.threads = pool->workers + 1; /* as many as the system would give */
    }
    unlock_registry();
    return pool ? PARTITA_OK
                : partita_fail(instance, PARTITA_ERROR_MEMORY, "no memory for %d threads", (int)threads);
}

static void destroy_pool(partita_pool *pool) {
    pthread_mutex_lock(&pool->mutex);
    atomic_store(&pool->stopping, 1);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
    for (int32_t worker = 0; worker < pool->workers; worker++)
        pthread_join(pool->worker[worker].thread, NULL);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->mutex);
}

void partita_stop_threads(partita_instance *instance) {
    partita_pool *pool = instance->pool;
    if (!pool)
        return;
    instance->pool = NULL;
    lock_registry();
    const int is_last = --pool->users == 0;
    if (is_last && partita_threads_2.pool == pool)
        partita_threads_2.pool = NULL;
    unlock_registry();
    if (!is_last)
        return;
    if (pool->process == getpid()) /* in a child of a fork the workers never were */
        destroy_pool(pool);
    for (int32_t place = 0; place < MOST_THREADS; place++)
        free(pool->workspaces[place].memory);
    free(pool);
}
