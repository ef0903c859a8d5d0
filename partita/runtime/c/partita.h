/* partita.h: the C interface of a compiled model, version 1.
 *
 * Two readers meet here. A program that runs a model calls the functions at the end, or the
 * same functions under the model's own prefix (`<symbol>_open`, `<symbol>_run`, ...), which every
 * artifact exports. A backend that prints C writes region functions against `partita_call`.
 *
 * Sizes are in elements unless a name says `bytes`. Data is dense and row-major. The arena and every buffer in it,
 * states, and the table of an artifact are aligned to PARTITA_ALIGNMENT bytes; a caller's tensors, and constants given
 * in memory, to their element size at least, so that nothing has to be copied. Sub-byte element types take one byte
 * an element. Every function that can fail returns a partita_status; `partita_error` tells the last failure of an
 * instance in words.
 */
#ifndef PARTITA_H
#define PARTITA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PARTITA_ABI_VERSION 1
#define PARTITA_ALIGNMENT 64 /* bytes */
#define PARTITA_MAX_RANK 16

#if defined(__GNUC__)
#define PARTITA_FORMAT(text, first) __attribute__((format(printf, text, first)))
#else
#define PARTITA_FORMAT(text, first)
#endif

typedef enum partita_status {
    PARTITA_OK = 0,
    PARTITA_ERROR_ARGUMENT = 1,   /* a wrong count, name, data type, rank or pointer */
    PARTITA_ERROR_SHAPE = 2,      /* sizes that contradict the model or one another */
    PARTITA_ERROR_MEMORY = 3,     /* an allocation failed */
    PARTITA_ERROR_PARAMETERS = 4, /* the parameter table is missing, truncated or another model's */
    PARTITA_ERROR_ENGINE = 5,     /* an interpreted region without an engine, or an engine that failed */
    PARTITA_ERROR_INDEX = 6,      /* an index in the data points outside its tensor */
    PARTITA_ERROR_VALUE = 7,      /* another value in the data that the operator does not allow */
    PARTITA_ERROR_BACKEND = 8,    /* a region's library refused or failed */
    PARTITA_ERROR_STATE = 9,      /* called at the wrong time: used after close, for one */
    PARTITA_ERROR_MACHINE = 10    /* the code was compiled for instructions that this machine lacks */
} partita_status;

/* What stands in the place of an element type where a value is no tensor. */
#define PARTITA_TYPE_SEQUENCE (-1) /* `data` is an array of shape[0] tensors, the elements; `rank` is 1 */
#define PARTITA_TYPE_ABSENT (-2)   /* an optional value that there is not; `data` is NULL */

/* A tensor of the caller's. `data_type` is an ONNX TensorProto.DataType. Sequences and optional values are passed as
 * tensors too; an optional value that is there, as what it holds. */
typedef struct partita_tensor {
    void *data;
    int32_t data_type;
    int32_t rank;
    int64_t shape[PARTITA_MAX_RANK]; /* elements */
} partita_tensor;

/* An element of a tensor of strings (TensorProto.STRING): UTF-8, not terminated; `data` is never NULL. What an output's
 * strings point to is the instance's, valid until its next run; or an input's strings, or the table, where the model
 * hands these through. */
typedef struct partita_string {
    const char *data;
    int64_t bytes;
} partita_string;

typedef struct partita_instance partita_instance;
typedef struct partita_call partita_call;
typedef struct partita_sequence partita_sequence; /* partita_sequence.h */

/* ------------------------------------------------------------------ what a region function sees */

/* `workspace` is scratch memory that no other piece running at the same time has. */
typedef void (*partita_task)(void *argument, int64_t begin, int64_t end, void *workspace);

typedef struct partita_services {
    /* Runs the task over [0, count) in pieces of at least `grain`, on the instance's threads, and returns when all
     * pieces have run. The calling thread's pieces get `workspace`, of `workspace_bytes` (0: none); the other
     * threads have memory of that size, aligned to PARTITA_ALIGNMENT, of their own. Cuts depend on `count`, `grain` and
     * the number of threads only; a task that calls this again runs alone. */
    void (*parallel)(const partita_call *call, partita_task task, void *argument, int64_t count, int64_t grain,
                     void *workspace, int64_t workspace_bytes);
    /* Records a formatted message as the instance's error and returns `status`, to be returned in turn. */
    partita_status (*fail)(const partita_call *call, partita_status status, const char *format, ...)
        PARTITA_FORMAT(3, 4);
    /* Memory for a buffer whose size is known only now (storage PARTITA_HEAP); kept and grown over runs. A region
     * with sets_extents reserves its own outputs; for other regions the executor has done it before they run.
     * Not to be called from a task. NULL when there is none, with the error recorded. */
    void *(*reserve)(const partita_call *call, int32_t buffer, int64_t bytes);
    /* The same, but what the buffer held since it was last reserved or extended in this run stays there: `bytes` is the
     * new size, and memory grows in proportion. The first call in a run gives a buffer without content. */
    void *(*extend)(const partita_call *call, int32_t buffer, int64_t bytes);
    /* Memory for a string's bytes, not aligned, valid until the end of the instance's next run. Tasks may call it. NULL
     * when there is none, with the error recorded. */
    char *(*text)(const partita_call *call, int64_t bytes);
    int32_t threads; /* how many `parallel` may use, this one included */
    /* Where a region is profiled: kernel 0, 1, ... is done, after what was done last; -1: the region starts. */
    void (*done)(const partita_call *call, int32_t kernel);
} partita_services;

struct partita_call {
    const void *state;           /* what <symbol>_init filled in */
    void *const *arguments;      /* data of the region's inputs, then of its outputs; may be the caller's */
    char *arena;                 /* base of the one arena; a region's temporaries lie in it */
    const int64_t *offsets;      /* of every buffer in the arena, in bytes; read when shapes are symbolic */
    int64_t *extents;            /* values of the symbolic dimensions, then of what is derived from them */
    const partita_services *services;
    partita_instance *instance;
    partita_sequence *sequences; /* per buffer: sequences and optional values, where its storage says so */
};

typedef partita_status (*partita_region_run)(const partita_call *call);
/* Fills `state` (state_bytes, zeroed, aligned) from the region's constants, in the order it named them; they stay
 * where they are as long as the instance lives. Only services->fail may be used of the call. A failing init gives
 * back what it took (free is not called); the next lookup tries again on zeroed state. */
typedef partita_status (*partita_region_init)(const partita_call *call, void *state, const void *const *constants);
typedef void (*partita_region_free)(void *state);

/* ------------------------------------------------------------------ what a compiled model says of itself */

typedef enum partita_storage {
    PARTITA_ARENA = 0,    /* at an offset of the arena */
    PARTITA_ARGUMENT = 1, /* the caller's memory: a model input or output */
    PARTITA_CONSTANT = 2, /* an entry of the parameter table */
    PARTITA_HEAP = 3,     /* reserved at run time: its size depends on data */
    PARTITA_SEQUENCE = 4  /* a sequence or an optional value, of the instance's */
} partita_storage;

/* A size: >= 0 is the size itself, < 0 stands for extents[-size - 1]. */
typedef int64_t partita_extent;

/* Memory that lives from schedule step `first` to step `last`, both included. */
typedef struct partita_buffer {
    int32_t storage; /* partita_storage */
    int32_t first, last;
    int32_t index;        /* ARGUMENT: of the input, or input_count + of the output; CONSTANT: of it; else -1 */
    partita_extent bytes;
    int64_t offset; /* in the arena, in bytes; -1: planned at run time */
} partita_buffer;

/* What a value is. Of sequences and optional values, data_type is the elements', and there is no shape. */
typedef enum partita_kind {
    PARTITA_KIND_TENSOR = 0,
    PARTITA_KIND_SEQUENCE = 1,
    PARTITA_KIND_OPTIONAL_TENSOR = 2,
    PARTITA_KIND_OPTIONAL_SEQUENCE = 3
} partita_kind;

/* A value that the executor knows: a model input or output, or one passed between regions. */
typedef struct partita_value {
    const char *name;
    int32_t data_type;
    int32_t rank;
    const partita_extent *shape;
    int32_t buffer; /* index into buffers */
    int32_t kind;   /* partita_kind */
} partita_value;

typedef struct partita_constant {
    const char *name;
    int32_t data_type;
    int32_t rank;
    const int64_t *shape;
    int64_t offset; /* bytes from the start of the table's data */
    int64_t bytes;
} partita_constant;

typedef struct partita_region {
    const char *symbol;
    const char *backend;
    partita_region_run run; /* NULL: interpreted, by the instance's engine */
    partita_region_init init;
    partita_region_free free; /* may be NULL */
    const int64_t *state_bytes; /* a constant of the region's own file, as is its state; NULL: no init */
    int32_t constant_count;
    const int32_t *constants; /* indices into the model's constants, in the order init wants them */
    int32_t input_count, output_count;
    const int32_t *values; /* indices into the model's values: inputs, then outputs */
    int32_t sets_extents;  /* nonzero: the region writes symbolic dimensions that depend on data */
} partita_region;

typedef struct partita_model {
    uint32_t abi_version;
    const char *symbol;
    int32_t value_count;
    const partita_value *values;
    int32_t input_count, output_count;
    const int32_t *inputs, *outputs; /* indices into values */
    int32_t buffer_count;
    const partita_buffer *buffers;
    int32_t constant_count;
    const partita_constant *constants;
    int64_t constant_bytes; /* of the whole table */
    uint64_t table_digest;  /* FNV-1a of the table file's header: names, types, shapes and offsets, not values */
    int32_t region_count;
    const partita_region *regions; /* in the order they run */
    int32_t symbol_count, extent_count;
    const char *const *symbols; /* names of the symbolic dimensions: extents[0 .. symbol_count) */
    const int32_t *data_dependent; /* per symbol: 1 if a region sets it, 0 if an input's shape does */
    void (*derive)(int64_t *extents); /* extents[symbol_count ..) from the symbols; NULL when there are none */
    int64_t arena_bytes;              /* -1: known once the symbolic dimensions are */
} partita_model;

/* ------------------------------------------------------------------ what a program calls */

/* Runs an interpreted region: reads arguments[0 .. input_count), fills the rest. 0 on success. Where an
 * output's data is NULL the engine sets data (its own memory, valid until its next call) and shape. */
typedef int32_t (*partita_engine)(void *user, int32_t region, partita_tensor *arguments, int32_t count);

typedef struct partita_options {
    size_t size;                  /* sizeof(partita_options) */
    const char *parameters;       /* an artifact or a .safetensors file; NULL: the artifact the code is in */
    const void *const *constants; /* the table's entries in memory, in order; NULL: from the file */
    int32_t threads;              /* 0: PARTITA_NUM_THREADS, else the cores this process may use */
    partita_engine engine;        /* NULL: none */
    void *engine_user;
} partita_options;

/* Makes an instance: maps the table, checks it against the model, allocates the arena. Regions are initialized
 * at their first lookup. `options` may be NULL. Instances share nothing that changes; one instance serves one
 * thread at a time (a second caller waits). Interpreted regions run in the caller's engine. On failure *instance is NULL, and `message` (may be NULL) holds the reason. */
partita_status partita_open(const partita_model *model, const partita_options *options, partita_instance **instance,
                            char *message, size_t message_bytes);
void partita_close(partita_instance *instance);

/* Runs the model. `inputs` and `outputs` are in the model's order. An output whose data is NULL is given memory of the
 * instance's, valid until the next run; else data must hold the output, and its shape must agree.
 * Inputs are read in place where aligned to their element size, and copied where they are not, or where they overlap
 * an output. Outputs that overlap one another are refused. Sequences and optional values that are outputs are always
 * given memory: their data must be NULL, and what they hold is not to be written to. Elements that the model hands through
 * from an input may lie in the input's memory. */
partita_status partita_run(partita_instance *instance, const partita_tensor *inputs, partita_tensor *outputs);

/* Initializes region `region` now, if it was not: what `run` does at first use. */
partita_status partita_lookup(partita_instance *instance, int32_t region);
/* Runs one region alone, on the caller's tensors: inputs, then outputs as in partita_run. Symbolic dimensions that
 * its inputs do not show keep their values of the last run. */
partita_status partita_run_region(partita_instance *instance, int32_t region, partita_tensor *arguments);

/* What each kernel of a region took since the last call of this, in nanoseconds, where the model was compiled with
 * -DPARTITA_PROFILE; zeros where not. `count` is of kernels, which the artifact's manifest lists. */
partita_status partita_profile(partita_instance *instance, int32_t region, int64_t *nanoseconds, int32_t count);

/* The last failure of this instance, as a sentence; "" when the last call succeeded. */
const char *partita_error(const partita_instance *instance);
/* Bytes of the arena as allocated now. */
int64_t partita_arena_bytes(const partita_instance *instance);
/* How many threads it runs on, the calling one included. */
int32_t partita_threads(const partita_instance *instance);

#ifdef __cplusplus
}
#endif
#endif
