"""Sequences and optional values as a C program passes them; clean under sanitizers, and when memory runs out."""

import subprocess
import tarfile

import onnx
import pytest

import partita
from partita.runtime.toolchain import runtime_sources

TEXT = """<ir_version: 10, opset_import: ["" : 22]>
grow (seq(float[N, 2]) s, optional(float[K, 2]) o, int64 n, int64 place)
        => (seq(float[M, 2]) t, optional(seq(float[L, 2])) u, float[P, 2] joined) {
    go = Constant <value = bool {1}> ()
    there = OptionalHasElement (o)
    start = If (there) <
        then_branch = a () => (seq(float[A, 2]) p) { e = OptionalGetElement (o) p = SequenceInsert (s, e) },
        else_branch = b () => (seq(float[B, 2]) q) { q = Identity (s) }>
    t = Loop (n, go, start) <body = c (int64 i, bool on, seq(float[C, 2]) old) => (bool again, seq(float[D, 2]) new) {
        again = Identity (on)
        e = SequenceAt (old, i)
        d = Concat <axis = 0> (e, e)
        new = SequenceInsert (old, d)
    }>
    r = SequenceErase (t, place)
    u = Optional (r)
    joined = ConcatFromSequence <axis = 0> (t)
}"""

COMMON = """
#include <stdio.h>
#include <stdlib.h>
#include "partita.h"
#include "grow.h"
#include "table.h" /* of constants, in memory */

static const partita_options options = {.size = sizeof options, .constants = constants, .threads = 2};

#define CHECK(condition) \\
    do { \\
        if (!(condition)) { \\
            printf("%s: line %d: %s: %s\\n", #condition, __LINE__, "", instance ? grow_error(instance) : ""); \\
            exit(1); \\
        } \\
    } while (0)

static float first[2] = {1, 2}, second[6] = {3, 4, 5, 6, 7, 8}, third[2] = {9, 10};
static partita_tensor elements[2] = {{.data = first, .data_type = 1, .rank = 2, .shape = {1, 2}},
                                     {.data = second, .data_type = 1, .rank = 2, .shape = {3, 2}}};
static int64_t trips, place;
static partita_tensor inputs[4] = {{.data = elements, .data_type = PARTITA_TYPE_SEQUENCE, .rank = 1, .shape = {2}},
                                   {.data_type = PARTITA_TYPE_ABSENT},
                                   {.data = &trips, .data_type = 7},
                                   {.data = &place, .data_type = 7}};
static partita_tensor outputs[3];

static partita_status run(partita_instance *instance, int64_t n, int64_t erased) {
    trips = n;
    place = erased;
    for (int index = 0; index < 3; index++)
        outputs[index].data = NULL;
    return grow_run(instance, inputs, outputs);
}

static void check_outputs(partita_instance *instance, int64_t n, int extra) {
    CHECK(outputs[0].data_type == PARTITA_TYPE_SEQUENCE && outputs[0].shape[0] == 2 + extra + n);
    CHECK(outputs[1].data_type == PARTITA_TYPE_SEQUENCE && outputs[1].shape[0] == 1 + extra + n);
    const partita_tensor *found = outputs[0].data;
    int64_t rows = 0;
    for (int64_t index = 0; index < outputs[0].shape[0]; index++)
        rows += found[index].shape[0];
    CHECK(outputs[2].rank == 2 && outputs[2].shape[0] == rows && outputs[2].shape[1] == 2);
    CHECK(((const float *)found[1].data)[5] == 8 && ((const float *)outputs[2].data)[0] == 1);
}
"""

RUNS = (
    COMMON
    + """
int main(void) {
    partita_instance *instance = NULL;
    CHECK(grow_open(&options, &instance, NULL, 0) == PARTITA_OK);
    for (int64_t n = 0; n < 20; n++) {
        inputs[1] = (partita_tensor){.data_type = PARTITA_TYPE_ABSENT};
        CHECK(run(instance, n % 3, 0) == PARTITA_OK);
        check_outputs(instance, n % 3, 0);
        inputs[1] = (partita_tensor){.data = third, .data_type = 1, .rank = 2, .shape = {1, 2}};
        CHECK(run(instance, n, -1) == PARTITA_OK);
        check_outputs(instance, n, 1);
        CHECK(run(instance, n, n + 3) == PARTITA_ERROR_INDEX);
    }
    elements[1].shape[1] = 3; /* none of its elements is read beyond its end */
    elements[1].shape[0] = 2;
    CHECK(run(instance, 2, 0) == PARTITA_ERROR_SHAPE);
    elements[1].data_type = 7;
    CHECK(run(instance, 0, 0) == PARTITA_ERROR_ARGUMENT);
    elements[1] = (partita_tensor){.data = NULL, .data_type = 1, .rank = 2, .shape = {3, 2}};
    CHECK(run(instance, 0, 0) == PARTITA_ERROR_ARGUMENT);
    elements[1].shape[0] = -3;
    CHECK(run(instance, 0, 0) == PARTITA_ERROR_SHAPE);
    inputs[0].data_type = 1;
    CHECK(run(instance, 0, 0) == PARTITA_ERROR_ARGUMENT);
    inputs[0] = (partita_tensor){.data = NULL, .data_type = PARTITA_TYPE_SEQUENCE, .rank = 1, .shape = {0}};
    CHECK(run(instance, 0, 0) == PARTITA_OK && outputs[0].shape[0] == 1 && outputs[1].shape[0] == 0);
    outputs[0].data = first;
    CHECK(grow_run(instance, inputs, outputs) == PARTITA_ERROR_ARGUMENT);
    grow_close(instance);
    return 0;
}
"""
)

FAILING_ALLOCATIONS = (
    COMMON
    + """
/* Every allocation of the runtime comes here; the one numbered `failing` fails. */
static int calls, failing, alive;
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void *__real_realloc(void *memory, size_t bytes);
void __real_free(void *memory);

void *__wrap_aligned_alloc(size_t alignment, size_t bytes) {
    if (++calls == failing)
        return NULL;
    alive++;
    return __real_aligned_alloc(alignment, bytes);
}

void *__wrap_realloc(void *memory, size_t bytes) {
    if (++calls == failing)
        return NULL;
    alive += memory == NULL;
    return __real_realloc(memory, bytes);
}

void __wrap_free(void *memory) {
    alive -= memory != NULL;
    __real_free(memory);
}

int main(void) {
    inputs[1] = (partita_tensor){.data = third, .data_type = 1, .rank = 2, .shape = {1, 2}};
    for (failing = 1; failing < 1000; failing++) {
        partita_instance *instance = NULL;
        calls = 0;
        partita_status status = grow_open(&options, &instance, NULL, 0);
        if (instance) {
            status = run(instance, 3, 0);
            CHECK(status == PARTITA_OK || run(instance, 3, 0) == PARTITA_OK);
            check_outputs(instance, 3, 1);
            grow_close(instance);
        }
        instance = NULL;
        CHECK(alive == 0);
        if (calls < failing)
            return failing > 20 ? 0 : 5;
        CHECK(status == PARTITA_ERROR_MEMORY);
    }
    return 7;
}
"""
)


def table(module):
    """The parameter table as C."""
    rows = [
        f"static const _Alignas(64) unsigned char entry_{place}[] = {{{', '.join(map(str, array.tobytes()))}}};"
        for place, array in enumerate(module.params.values())
    ]
    names = ", ".join(f"entry_{place}" for place in range(len(rows)))
    return "\n".join([*rows, f"static const void *const constants[] = {{{names}}};", ""])


WRAPPED = ["-Wl,--wrap=aligned_alloc", "-Wl,--wrap=realloc", "-Wl,--wrap=free"]


@pytest.mark.parametrize(
    ("main", "flags"),
    [(RUNS, ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]), (FAILING_ALLOCATIONS, WRAPPED)],
    ids=["sanitized", "without memory"],
)
def test_a_c_program_passes_sequences(main, flags, tmp_path):
    module = partita.compile(onnx.parser.parse_model(TEXT), name="grow")
    module.export_library(tmp_path / "grow.tar")
    with tarfile.open(tmp_path / "grow.tar") as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and later has it
        archive.extractall(tmp_path)
    root = tmp_path / "grow"
    (root / "main.c").write_text(main)
    (root / "table.h").write_text(table(module))
    names = [source.name for source in module.sources()] + [name for name in runtime_sources() if name.endswith(".c")]
    command = ["gcc", "-g", "-O1", *flags, "-I.", "-Iruntime", "-Isrc", "main.c", *names, "-o", "main"]
    subprocess.run([*command, "-lm", "-lpthread", "-ldl"], cwd=root, check=True)
    ended = subprocess.run([root / "main"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
