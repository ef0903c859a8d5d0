"""The C: that it compiles anywhere, serves programs without Python, and is clean under sanitizers."""

from __future__ import annotations

import platform
import shutil
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import programs
import pytest

import partita
from partita.errors import ExecutionError
from partita.runtime import MetadataModule, load_module
from partita.runtime.toolchain import runtime_sources

X = np.arange(4, dtype=np.float32)
ROOT = Path(__file__).parents[2]
RUNTIME = ROOT / "partita" / "runtime" / "c"
EXAMPLE = ROOT / "examples" / "c" / "main.c"
STRICT = ("-std=gnu11", "-Wall", "-Wextra", "-Werror", "-Wshadow", "-Wpedantic")


@pytest.mark.parametrize("compiler", [("gcc", *STRICT), ("g++", "-x", "c++", "-Wall", "-Wextra", "-Werror")])
def test_the_headers_compile_as_c_and_as_cpp(compiler, tmp_path):
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"{compiler[0]} is not installed")
    (tmp_path / "model.h").write_text(programs.two_affines().header())
    (tmp_path / "main.c").write_text('#include "model.h"\nint main(void) { return model_model() == 0; }\n')
    subprocess.run([*compiler, "-fsyntax-only", f"-I{RUNTIME}", "main.c"], cwd=tmp_path, check=True)


@pytest.mark.parametrize("name", [name for name in runtime_sources() if name.endswith(".c")])
def test_the_runtime_compiles_without_a_warning(name, tmp_path):
    for level in ("-O0", "-O3"):
        command = ["gcc", *STRICT, level, "-c", str(RUNTIME / Path(name).name), "-o", str(tmp_path / "out.o")]
        subprocess.run(command, check=True)


def test_the_described_model_compiles_without_a_warning(tmp_path):
    for module in (programs.two_affines(), programs.dynamic(), programs.data_dependent(), programs.interpreted()):
        (tmp_path / "model.c").write_text(module.source())
        command = ["gcc", *STRICT, "-c", "model.c", "-o", "model.o", f"-I{RUNTIME}"]
        subprocess.run(command, cwd=tmp_path, check=True)


def unpacked(module: MetadataModule, folder: Path) -> Path:
    module.export_library(folder / "model.tar")
    with tarfile.open(folder / "model.tar") as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # Python 3.11.4 and later has it
        archive.extractall(folder)
    return folder / module.program.symbol


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model.so that make built from a model.tar, without Python."""
    folder = unpacked(programs.two_affines(), tmp_path_factory.mktemp("tar"))
    environment = {"PATH": "/usr/bin:/bin"}
    subprocess.run(["make", "-s", "CC=gcc"], cwd=folder, env=environment, check=True)
    return folder


def expected(x):
    table = programs.table("first", "second")
    return programs.affine(programs.affine(x, table), table, "second")


def test_make_builds_the_same_library(made):
    module = programs.two_affines()
    loaded = load_module(made / "model.so")
    np.testing.assert_array_equal(loaded.run({"x": X})["y"], module.run({"x": X})["y"])
    code = module.compile()
    assert (made / "model.so").read_bytes()[: len(code)] == code


LACKING = {"avx512_fp16": "__AVX512FP16__", "avx_vnni": "__AVXVNNI__", "avx512f": "__AVX512F__", "avx2": "__AVX2__"}

OPENS = """
#include <stdio.h>
#include "model.h"

int main(void) {
    partita_instance *instance;
    char message[200];
    const partita_status status = model_open(NULL, &instance, message, sizeof message);
    printf("%d %s", (int)status, message);
    return instance ? 1 : 0;
}
"""


def test_code_that_this_machine_cannot_run_is_refused_by_its_own_open(tmp_path):
    """The compiler is told to say that it uses an instruction set which this machine lacks."""
    flags = Path("/proc/cpuinfo").read_text().split()
    missing = next((macro for flag, macro in LACKING.items() if flag not in flags), None)
    if platform.machine() != "x86_64" or missing is None:
        pytest.skip("this machine has every instruction set that compilers use")
    module = programs.two_affines()
    module.build = replace(module.build, mcpu="", flags=(f"-D{missing}=1",))
    with pytest.raises(ExecutionError, match=r"the code of model uses \w+, which this machine lacks: compile it with"):
        module.run({"x": X})
    (tmp_path / "main.c").write_text(OPENS)
    (tmp_path / "model.h").write_text(module.header())
    module.export_library(tmp_path / "model.so")
    command = ["gcc", *STRICT, f"-I{RUNTIME}", "main.c", "./model.so", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True)
    ended = subprocess.run(["./main"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("10 the code of model uses ")


def test_what_runs_before_the_check_is_compiled_for_any_machine(tmp_path):
    """No instruction of AVX in the functions that refuse, whatever the rest is compiled for."""
    if platform.machine() != "x86_64" or shutil.which("objdump") is None:
        pytest.skip("it takes an x86-64 and objdump")
    for name, function in (("machine", "partita_lacking"), ("machine", "saved_registers"), ("runtime", "partita_open")):
        command = ["gcc", "-std=gnu11", "-O3", "-march=x86-64-v4", "-c", str(RUNTIME / f"{name}.c"), "-o", "out.o"]
        subprocess.run(command, cwd=tmp_path, check=True)
        command = ["objdump", "-d", "--no-show-raw-insn", f"--disassemble={function}", "out.o"]
        text = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
        instructions = [
            line.split()[1] for line in text.splitlines() if line.startswith("  ") and len(line.split()) > 1
        ]
        assert instructions
        assert not [word for word in instructions if word.startswith("v") or word in ("shlx", "sarx", "shrx", "rorx")]


def test_a_c_program_calls_the_model_without_python(made, tmp_path):
    command = ["gcc", *STRICT, f"-I{made}", f"-I{made / 'runtime'}", str(EXAMPLE), str(made / "model.so"), "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True)
    result = subprocess.run([tmp_path / "main", "1", "2", "3", "4"], capture_output=True, text=True, check=True)
    np.testing.assert_allclose(
        [float(line) for line in result.stdout.split()], expected(np.float32([1, 2, 3, 4])), 1e-6
    )


def test_a_c_program_is_told_what_is_wrong_with_the_weights(tmp_path):
    module = programs.two_affines()
    library = module.export_library(tmp_path / "model.so", "beside")
    for name in ("model.h", "partita.h"):
        text = module.header() if name == "model.h" else runtime_sources()["runtime/partita.h"]
        (tmp_path / name).write_text(text)
    subprocess.run(["gcc", str(EXAMPLE), str(library), "-I.", "-o", "main"], cwd=tmp_path, check=True)

    def run():
        return subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=False)

    assert run().returncode == 0
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    other = programs.interpreted().export_library(tmp_path / "other.so", "beside").with_suffix(".safetensors")
    for content, message in (
        (whole[:-1], "or only part of it"),
        (b"", "not a file with a parameter table"),
        (other.read_bytes(), "holds no parameter table for model"),
        (whole.replace(b"first.scale2", b"other.scale2"), "names, types or shapes differ"),
        (None, "No such file"),
    ):
        weights.unlink()
        if content is not None:
            weights.write_bytes(content)
        result = run()
        assert (result.returncode, message in result.stderr) == (1, True), result.stderr
        weights.touch()


def run_linked(module, folder, flags):
    """Compiles folder/main.c, the model and the runtime into one program, and runs it."""
    root = unpacked(module, folder)
    names = [source.name for source in module.sources()] + [name for name in runtime_sources() if name.endswith(".c")]
    sources = [str(root / name) for name in names]
    command = ["gcc", "-g", "-O1", *flags, f"-I{root}", f"-I{root}/runtime", "main.c", *sources, "-o", "main"]
    subprocess.run([*command, "-lm", "-lpthread", "-ldl"], cwd=folder, check=True)
    return subprocess.run([folder / "main"], capture_output=True, text=True, check=False)


SANITIZED = """
#include <stdio.h>
#include <string.h>
#include "partita.h"
#include "SYMBOL.h"

int main(void) {
    float x[6] = {1, -2, 3, 0, 5, -1}, y[64];
    char message[200];
    partita_instance *instance;
    const float table[64] = {1, 2, 3, 4};
    const void *constants[] = {table, table, table, table};
    partita_options options = {.size = sizeof options, .constants = constants, .threads = 3};
    if (SYMBOL_open(&options, &instance, message, sizeof message)) {
        puts(message);
        return 1;
    }
    for (int run = 0; run < 50; run++) {
        const partita_model *model = SYMBOL_model();
        partita_tensor input = {.data = x, .data_type = 1, .rank = model->values[0].rank, .shape = {SHAPE}};
        partita_tensor outputs[2] = {{.data = run % 2 ? NULL : y}, {.data = NULL}};
        outputs[0].data_type = 1;
        outputs[0].rank = model->values[model->outputs[0]].rank;
        memcpy(outputs[0].shape, (int64_t[]){OUTPUT}, sizeof(int64_t[]){OUTPUT});
        if (SYMBOL_run(instance, &input, outputs)) {
            puts(SYMBOL_error(instance));
            return 1;
        }
        input.shape[0] = -1;
        if (SYMBOL_run(instance, &input, outputs) == PARTITA_OK)
            return 2;
        input.shape[0] = 3;
        input.data = NULL;
        if (SYMBOL_run(instance, &input, outputs) == PARTITA_OK)
            return 3;
        if (SYMBOL_lookup(instance, 99) != PARTITA_ERROR_ARGUMENT)
            return 4;
    }
    SYMBOL_close(instance);
    return 0;
}
"""


def sorted_and_grouped():
    """x (6) -> running sums of the largest four and their determinant, and where x is not 0: procedures, which need no
    constants."""
    return partita.compile(
        onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 22]>
            sorted (float[6] x) => (float[4] y, float[1, U] u) <int64[1] k = {4}, int64 a = {0}, int64[2] s = {2, 2}> {
                t, i = TopK (x, k)
                c = CumSum (t, a)
                m = Reshape (c, s)
                d = Det (m)
                y = Add (c, d)
                n = NonZero (x)
                u = Cast <to = 1> (n)
            }"""),
        name="sorted",
    )


CASES = {
    "two_affines": (programs.two_affines, "4", "4"),
    "dynamic": (programs.dynamic, "2, 3", "2, 3"),
    "sieve": (programs.data_dependent, "6", "3"),
    "sorted": (sorted_and_grouped, "6", "4"),
}


@pytest.mark.parametrize("sanitizer", ["address,undefined", "thread"])
@pytest.mark.parametrize("case", CASES)
def test_the_c_is_clean_under_sanitizers(case, sanitizer, tmp_path):
    make, shape, output = CASES[case]
    module = make()
    symbol = module.program.symbol
    text = SANITIZED.replace("SYMBOL", symbol).replace("SHAPE", shape).replace("OUTPUT", output)
    (tmp_path / "main.c").write_text(text)
    flags = [f"-fsanitize={sanitizer}", "-fno-sanitize-recover=all"]
    result = run_linked(module, tmp_path, flags)
    if "unexpected memory mapping" in result.stderr:
        pytest.skip("the thread sanitizer does not know this kernel's memory layout")
    assert result.returncode == 0, result.stdout + result.stderr


FAILING_ALLOCATIONS = """
#include <stdlib.h>
#include "partita.h"
#include "model.h"

/* Every allocation of the runtime comes here; the one numbered `failing` fails. */
static int calls, failing, alive;
void *__real_aligned_alloc(size_t alignment, size_t bytes);
void __real_free(void *memory);

void *__wrap_aligned_alloc(size_t alignment, size_t bytes) {
    if (++calls == failing)
        return NULL;
    alive++;
    return __real_aligned_alloc(alignment, bytes);
}

void __wrap_free(void *memory) {
    alive -= memory != NULL;
    __real_free(memory);
}

int main(void) {
    const float table[64] = {1, 2, 3, 4};
    const void *constants[] = {table, table, table, table};
    float x[4] = {1, 2, 3, 4};
    partita_options options = {.size = sizeof options, .constants = constants, .threads = 2};
    for (failing = 1; failing < 1000; failing++) {
        partita_instance *instance;
        calls = 0;
        partita_status status = model_open(&options, &instance, NULL, 0);
        if ((status != PARTITA_OK) != (instance == NULL))
            return 2;
        if (instance) {
            const partita_tensor input = {.data = x, .data_type = 1, .rank = 1, .shape = {4}};
            partita_tensor output = {.data = NULL};
            status = model_run(instance, &input, &output);
            if (status == PARTITA_ERROR_MEMORY && model_run(instance, &input, &output))
                return 3; /* it does not recover */
            model_close(instance);
        }
        if (alive)
            return 4; /* it leaks */
        if (calls < failing)
            return failing > 20 ? 0 : 5; /* all of them have failed in turn */
        if (status != PARTITA_ERROR_MEMORY)
            return 6; /* nobody was told */
    }
    return 7;
}
"""


def test_any_allocation_may_fail_without_a_leak(tmp_path):
    (tmp_path / "main.c").write_text(FAILING_ALLOCATIONS)
    wrap = ["-Wl,--wrap=aligned_alloc", "-Wl,--wrap=free"]
    result = run_linked(programs.two_affines(), tmp_path, wrap)
    assert result.returncode == 0, result.stdout + result.stderr
