/* internal.h: what the files of the C runtime share; no part of the interface. */
#ifndef PARTITA_INTERNAL_H
#define PARTITA_INTERNAL_H

#include <pthread.h>
#include <stdarg.h>

#include "partita.h"
#include "partita_sequence.h"

#define PARTITA_MESSAGE_BYTES 1024

/* Memory that is kept between runs, and only grows. */
typedef struct partita_block {
    void *memory;
    int64_t bytes;
} partita_block;

/* The pages of a file that hold the parameter table. */
typedef struct partita_mapping {
    void *pages;
    size_t bytes;
    const char *data; /* the table's first byte */
} partita_mapping;

/* What an instance keeps for one region. */
typedef struct partita_slot {
    int ready;
    void *state;
    void **arguments;
    partita_call call;
    int64_t *spent; /* per kernel, in nanoseconds; NULL until a region that is profiled has run */
    int32_t kernels;
    int64_t since; /* when the last of them was done */
} partita_slot;

/* Where a symbolic dimension got its value, to say so when another input contradicts it. */
typedef struct partita_binder {
    const char *name;
    int32_t axis;
} partita_binder;

typedef struct partita_pool partita_pool;
typedef struct partita_text partita_text; /* blocks of strings' bytes */

struct partita_instance {
    const partita_model *model;
    pthread_mutex_t lock;       /* held by whoever runs or looks up */
    pthread_mutex_t error_lock; /* tasks of one region may fail at the same time */
    partita_mapping mapping;
    const void **constants; /* the table's entries, in order */
    int64_t *extents;
    int64_t *planned; /* the symbols' values that the arena was planned for */
    int is_planned;
    partita_binder *binders; /* per symbol */
    int64_t *offsets;        /* per buffer, in the arena */
    void **pointers;         /* per buffer: where it is now */
    int32_t *order, *placed; /* per buffer: the planner's scratch */
    char *arena;
    int64_t arena_bytes;
    partita_block *heaps;   /* per buffer of storage PARTITA_HEAP */
    partita_sequence *sequences; /* per buffer of storage PARTITA_SEQUENCE */
    partita_block *staging; /* per input of the model or of a region: copies of inputs that cannot be read in place */
    partita_block *results; /* per output: memory where the caller gave none, or gave unaligned memory */
    partita_tensor *tensors; /* an interpreted region's arguments */
    const void **read;       /* per input: where to read it */
    partita_slot *slots;     /* per region */
    int all_ready;
    partita_text *text;        /* what the strings of this run, or of the last one, are made of */
    pthread_mutex_t text_lock; /* tasks of one region may make strings at the same time */
    partita_services services;
    partita_pool *pool;
    partita_engine engine;
    void *engine_user;
    char error[PARTITA_MESSAGE_BYTES];
};

/* Functions that run before it is known whether the machine has what the code was compiled for. */
#if defined(__x86_64__)
#define PARTITA_BASELINE __attribute__((target("arch=x86-64"), noinline))
#else
#define PARTITA_BASELINE
#endif

/* machine.c: an instruction set that the code uses and this machine lacks; NULL where there is none */
const char *partita_lacking(void);

/* runtime.c */
partita_status partita_fail(partita_instance *instance, partita_status status, const char *format, ...)
    PARTITA_FORMAT(3, 4);
void *partita_allocate(int64_t bytes); /* aligned to PARTITA_ALIGNMENT; free() releases it */
/* Gives the block at least `bytes`; what it held is lost when it grows. */
partita_status partita_grow(partita_instance *instance, partita_block *block, int64_t bytes);
partita_status partita_lookup_locked(partita_instance *instance, int32_t region);

/* text.c */
char *partita_text_of(const partita_call *call, int64_t bytes);
void partita_free_text(partita_text *text);

/* shapes.c */
int64_t partita_element_bytes(int32_t data_type); /* 0: no such type, or one without a size */
int64_t partita_resolve(const partita_instance *instance, partita_extent extent);
/* Bytes of a tensor, or -1 where a size is negative or the product overflows. */
int64_t partita_bytes_of(int32_t data_type, int32_t rank, const int64_t *shape);
/* Writes the value's shape as known now. */
void partita_shape_of(const partita_instance *instance, const partita_value *value, int64_t *shape);
/* Checks the tensors against the values, gives the symbolic dimensions their values, derives the others and plans the
 * arena where it has to be planned anew. With `keep`, symbols that no tensor shows keep their value. */
partita_status partita_bind_shapes(partita_instance *instance, const int32_t *values, int32_t count,
                                   const partita_tensor *tensors, int keep);
/* Computes the derived extents anew, after a region has set symbols. */
partita_status partita_derive(partita_instance *instance);
/* Compares a tensor's shape with what its value's shape is now. */
partita_status partita_check_shape(partita_instance *instance, const char *role, const partita_value *value,
                                   const partita_tensor *tensor);

/* sequences.c: 0 without memory */
void partita_sequence_free(partita_sequence *sequence);
int partita_sequence_borrow(partita_sequence *sequence, const partita_tensor *tensor); /* appends what stays where it is */
int partita_sequence_copy_in(partita_sequence *sequence, const partita_tensor *tensor); /* appends a copy */

/* handover.c */
partita_status partita_check_sequence(partita_instance *instance, const partita_value *value,
                                      const partita_tensor *given);
/* Makes an input the value of its buffer: elements stay where they are unless one of the outputs lies there. */
partita_status partita_take_sequence(partita_instance *instance, const partita_value *value,
                                     const partita_tensor *given, const partita_tensor *outputs, int32_t count);
/* Describes the value of an output's buffer, in memory of results[index]. */
partita_status partita_give_sequence(partita_instance *instance, int32_t index, const partita_value *value,
                                     partita_tensor *output);
void partita_drop_sequences(partita_instance *instance, int keep_outputs);

/* planner.c */
partita_status partita_plan(partita_instance *instance);

/* parameters.c: failures are described in message */
partita_status partita_map_parameters(const partita_model *model, const char *path, partita_mapping *mapping,
                                      char *message, size_t message_bytes);
void partita_unmap_parameters(partita_mapping *mapping);

/* profile.c */
void partita_done(const partita_call *call, int32_t kernel);
int64_t partita_nanoseconds(void);

/* threads.c */
int32_t partita_thread_count(int32_t requested);
partita_status partita_start_threads(partita_instance *instance, int32_t threads);
void partita_stop_threads(partita_instance *instance);
void partita_parallel(const partita_call *call, partita_task task, void *argument, int64_t count, int64_t grain,
                      void *workspace, int64_t workspace_bytes);

#endif
