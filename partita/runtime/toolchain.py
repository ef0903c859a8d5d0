"""Finds a C compiler and runs it: argument lists, no shell, no absolute path in what comes out.

The flags keep IEEE semantics: -ffast-math is not among them.
"""

from __future__ import annotations

import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path

from partita.errors import CompilerError
from partita.runtime.cache import Cache, content_key, files_key, user_cache

# -ffp-contract=fast lets a*b+c round once; the rest changes no result.
_FLAGS = (
    "-std=gnu11",
    "-fPIC",
    "-fvisibility=hidden",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fwrapv",  # integers of a model wrap around
    "-fopenmp-simd",  # loops say where sums may be reordered; no OpenMP library is linked
)
_CONTRACT = ("-ffp-contract=fast",)
_LINK_FLAGS = ("-shared", "-Wl,--build-id=none", "-Wl,-z,defs", "-Wl,-z,noexecstack")
_LIBRARIES = ("-lpthread", "-lm", "-ldl")
_TIMEOUT = 1800  # seconds for one file: a compiler that hangs must not hang us
# What else a compiler reads of the environment, and its objects depend on.
_VARIABLES = ("CPATH", "C_INCLUDE_PATH", "LIBRARY_PATH", "COMPILER_PATH", "GCC_EXEC_PREFIX")

# Predefined macros whose instructions the code may use, as Linux names them in /proc/cpuinfo.
_FEATURES = {
    "__SSE4_2__": "sse4_2",
    "__AVX__": "avx",
    "__AVX2__": "avx2",
    "__FMA__": "fma",
    "__F16C__": "f16c",
    "__BMI2__": "bmi2",
    "__AVX512F__": "avx512f",
    "__AVX512BW__": "avx512bw",
    "__AVX512DQ__": "avx512dq",
    "__AVX512VL__": "avx512vl",
    "__AVX512VNNI__": "avx512_vnni",
    "__AVX512BF16__": "avx512_bf16",
    "__AVX512FP16__": "avx512_fp16",
    "__AVXVNNI__": "avx_vnni",
    "__AMX_TILE__": "amx_tile",
    "__AMX_INT8__": "amx_int8",
    "__AMX_BF16__": "amx_bf16",
}


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """How C is compiled.

    Attributes:
        cc: the compiler's command, "" to search for one.
        mcpu: value of -march: "native", "x86-64-v3", ...; "" for the compiler's default.
        optimization: the -O level.
        flags: further flags, one argument each.
        jobs: compilers that run at the same time; 0: as many as there are cores.
        cache: whether to look in the user's cache before compiling, and to keep there what was compiled.
    """

    cc: str = ""
    mcpu: str = "native"
    optimization: str = "-O3"
    flags: tuple[str, ...] = ()
    jobs: int = 0
    cache: bool = True


@dataclass(frozen=True, slots=True)
class Source:
    """One file to compile: its name below the build folder, its text, further include folders, and headers that come
    with it (name below the build folder and text)."""

    name: str
    text: str
    include_directories: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Linking:
    """What the linker needs besides the objects.

    Attributes:
        directories: where libraries lie.
        libraries: their names, as -l takes them.
        optional: libraries that may be missing, with the header that uses them where PARTITA_WITH_<NAME>
            is defined: ("png", "src/partita_images.h"). Both happens where the compiler finds what that takes.
    """

    directories: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    optional: tuple[tuple[str, str], ...] = ()


def find_compiler(cc: str = "") -> tuple[str, ...]:
    """The command of the C compiler: `cc`, else PARTITA_CC, else gcc, clang, cc on the PATH, else ziglang.

    Raises:
        CompilerError: none was found, or not the one asked for.
    """
    wanted = cc or os.environ.get("PARTITA_CC", "")
    if wanted:
        command = tuple(shlex.split(wanted))
        if not command or shutil.which(command[0]) is None:
            raise CompilerError(f"the C compiler {wanted!r} was not found; check the option cc or PARTITA_CC")
        return command
    for name in ("gcc", "clang", "cc"):
        if shutil.which(name):
            return (name,)
    if importlib.util.find_spec("ziglang") is not None:
        return (sys.executable, "-m", "ziglang", "cc")
    raise CompilerError(
        "no C compiler was found: install gcc or clang, or `pip install ziglang`, or name one in PARTITA_CC"
    )


def compile_flags(options: BuildOptions) -> tuple[str, ...]:
    """The flags that every file is compiled with, folders apart."""
    march = (f"-march={options.mcpu}",) if options.mcpu else ()
    return (options.optimization, *_FLAGS, *_CONTRACT, *march, *options.flags)


def link_flags(linking: Linking) -> tuple[str, ...]:
    """The flags after the objects."""
    directories = [flag for path in linking.directories for flag in (f"-L{path}", f"-Wl,-rpath,{path}")]
    return (*_LINK_FLAGS, *directories, *(f"-l{name}" for name in linking.libraries), *_LIBRARIES)


def has_library(name: str) -> str:
    """The flag that says that an optional library is there."""
    return f"-DPARTITA_WITH_{name.upper()}"


@cache
def runtime_sources() -> Mapping[str, str]:
    """The C runtime's files, headers included, by their name below a build folder: "runtime/run.c"."""
    folder = resources.files("partita.runtime.c")
    files = [item for item in folder.iterdir() if item.name.endswith((".c", ".h"))]
    return {f"runtime/{item.name}": item.read_text("utf-8") for item in sorted(files, key=lambda item: item.name)}


def _runtime_headers() -> dict[str, str]:
    return {file: text for file, text in runtime_sources().items() if file.endswith(".h")}


@dataclass(slots=True)
class Toolchain:
    """A compiler and its options. Finding it may fail; using it may fail; nothing is kept but in the user's cache."""

    options: BuildOptions = field(default_factory=BuildOptions)
    command: tuple[str, ...] = ()
    _macros: str = ""

    def __post_init__(self) -> None:
        self.command = self.command or find_compiler(self.options.cc)

    def build_library(self, sources: Sequence[Source], linking: Linking) -> bytes:
        """Compiles the sources and the C runtime, in parallel, and links them.

        Returns:
            The shared library's bytes.

        Raises:
            CompilerError: a compiler or the linker failed.
        """
        if linking.optional:
            found = tuple(name for name, header in linking.optional if self._finds(name, header, sources))
            flags = (*self.options.flags, *map(has_library, found))
            toolchain = Toolchain(replace(self.options, flags=flags), self.command)
            return toolchain.build_library(sources, Linking(linking.directories, (*linking.libraries, *found)))
        runtime = [Source(name, text) for name, text in runtime_sources().items() if name.endswith(".c")]
        everything = [*sources, *runtime]
        cache = user_cache() if self.options.cache else None
        if cache is None:
            return self._link(self._objects(everything, None, []), linking)
        keys = self._keys(everything)
        link_key = content_key("library", *keys, *link_flags(linking), files_key(linking.directories))
        library = cache.get(link_key)
        if library is None:
            library = self._link(self._objects(everything, cache, keys), linking)
            cache.put(link_key, library)
            cache.trim()
        return library

    def _finds(self, library: str, header: str, sources: Sequence[Source]) -> bool:
        """Whether what a header of the sources' does with an optional library compiles and links."""
        source = next(source for source in sources if header in dict(source.headers))
        text = f'#define {has_library(library)[2:]}\n#include "../{header}"\n'
        try:
            probe = self.compile_source(replace(source, text=text))
            self._link([probe], Linking(libraries=(library,)))
        except CompilerError:
            return False
        return True

    def _objects(self, sources: Sequence[Source], cache: Cache | None, keys: Sequence[str]) -> list[bytes]:
        def made(number: int) -> bytes:
            found = cache.get(keys[number]) if cache else None
            if found is None:
                found = self.compile_source(sources[number])
                if cache:
                    cache.put(keys[number], found)
            return found

        # The longest first: the last to start should not be the last to end.
        order = sorted(range(len(sources)), key=lambda number: -len(sources[number].text))
        with ThreadPoolExecutor(max_workers=self.options.jobs or len(os.sched_getaffinity(0))) as pool:
            done = dict(zip(order, pool.map(made, order), strict=True))
        return [done[number] for number in range(len(sources))]

    def _link(self, objects: Sequence[bytes], linking: Linking) -> bytes:
        with tempfile.TemporaryDirectory(prefix="partita-") as name:
            folder = Path(name)
            names = [f"{number}.o" for number in range(len(objects))]
            for object_name, data in zip(names, objects, strict=True):
                (folder / object_name).write_bytes(data)
            command = [*self.command, *self.options.flags, "-o", "model.so", *names, *link_flags(linking)]
            self._run(command, folder, "linking")
            return self._written(folder / "model.so", "linking")

    def compile_source(self, source: Source) -> bytes:
        """Compiles one file to an object: a function of the source, the options and the compiler alone.

        Raises:
            CompilerError: the compiler failed; the message holds its command and output.
        """
        with tempfile.TemporaryDirectory(prefix="partita-") as name:
            folder = Path(name)
            for file, text in {**_runtime_headers(), **dict(source.headers), source.name: source.text}.items():
                (folder / file).parent.mkdir(exist_ok=True)
                (folder / file).write_text(text, "utf-8")
            flags = [*compile_flags(self.options), f"-ffile-prefix-map={folder}=.", "-Iruntime"]
            flags += [f"-I{path}" for path in source.include_directories]
            self._run([*self.command, "-c", source.name, "-o", "unit.o", *flags], folder, f"compiling {source.name}")
            return self._written(folder / "unit.o", f"compiling {source.name}")

    def _written(self, path: Path, doing: str) -> bytes:
        """What the compiler should have written: its word that all went well is not enough."""
        if not path.is_file():
            raise CompilerError(f"{doing} failed: {shlex.join(self.command)} ended well but wrote no {path.name}")
        return path.read_bytes()

    def features(self) -> tuple[str, ...]:
        """Instruction sets that the options let the compiler use, by their names in /proc/cpuinfo."""
        macros = {line.split()[1] for line in self._asked().splitlines() if line.startswith("#define ")}
        return tuple(feature for macro, feature in _FEATURES.items() if macro in macros)

    def _asked(self) -> str:
        """The macros the compiler predefines: its version, and what the options and this machine let it use."""
        if not self._macros:
            with tempfile.TemporaryDirectory(prefix="partita-") as name:
                (Path(name) / "empty.c").write_text("", "utf-8")
                flags = compile_flags(self.options)
                command = [*self.command, *flags, "-dM", "-E", "empty.c"]
                self._macros = self._run(command, Path(name), "asking for macros")
        return self._macros

    def _keys(self, sources: Iterable[Source]) -> list[str]:
        """What each source's object depends on, as the names of entries of the cache."""
        program = Path(shutil.which(self.command[0]) or self.command[0]).resolve()
        status = program.stat()
        identity = content_key(
            *(*self.command, str(program), str(status.st_size), str(status.st_mtime_ns), self._asked()),
            *compile_flags(self.options),
            *(f"{name}={os.environ.get(name)}" for name in _VARIABLES),
        )
        runtime = content_key(*(text for item in _runtime_headers().items() for text in item))
        folders: dict[tuple[str, ...], str] = {}
        keys = []
        for source in sources:
            if source.include_directories not in folders:
                folders[source.include_directories] = content_key(
                    *source.include_directories, files_key(source.include_directories)
                )
            headers = [text for header in source.headers for text in header]
            further = folders[source.include_directories]
            keys.append(content_key("object", identity, runtime, further, source.name, source.text, *headers))
        return keys

    def _run(self, command: Iterable[str], folder: Path, doing: str) -> str:
        arguments = list(command)
        shown = shlex.join(arguments)
        # Messages in one language, and no user's environment in __DATE__: equal input gives equal bytes.
        environment = {**os.environ, "LC_ALL": "C", "SOURCE_DATE_EPOCH": "315532800"}
        try:
            result = subprocess.run(
                arguments, cwd=folder, env=environment, capture_output=True, timeout=_TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise CompilerError(f"{doing} took more than {_TIMEOUT} seconds: {shown}") from error
        except OSError as error:
            raise CompilerError(f"{doing} failed: {shown}: {error}") from error
        if result.returncode != 0:
            code = result.returncode
            how = f"died of signal {-code}" if code < 0 else f"ended with code {code}"
            output = (result.stderr or result.stdout).decode("utf-8", "replace")
            raise CompilerError(f"{doing} failed: the compiler {how}\n  command: {shown}\n{output}")
        return result.stdout.decode("utf-8", "replace")
