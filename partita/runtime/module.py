"""The module tree: what each region is (C source, or a graph for an engine), and the module that owns the weights."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from partita.errors import ParameterError
from partita.runtime.archive import makefile, readme
from partita.runtime.artifact import BIND
from partita.runtime.bind import check_baked, evaluate_bind_program
from partita.runtime.data_types import data_type_of, type_name
from partita.runtime.engines import EngineFactory
from partita.runtime.export import Content, Placement, write_library, write_tar
from partita.runtime.instance import Instance
from partita.runtime.library import Library
from partita.runtime.model_source import print_header, print_model
from partita.runtime.profile import KernelNote
from partita.runtime.program import Program, check_program
from partita.runtime.runnable import RunnableModule
from partita.runtime.table import Array, Layout, lay_out_arrays
from partita.runtime.toolchain import BuildOptions, Linking, Source, Toolchain, compile_flags, runtime_sources

_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Unit:
    """One C translation unit: a file name without folder and suffix, and its text."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Function:
    """A region's function.

    Attributes:
        constants: table entries in the order `<symbol>_init` wants them; () for none.
        has_state: it wants an init although it may have no constants.
        has_free: it defines `<symbol>_free`.
    """

    symbol: str
    constants: tuple[str, ...] = ()
    has_state: bool = False
    has_free: bool = False


@dataclass(frozen=True, slots=True)
class CSourceModule:
    """Regions as C source, with what compiling and linking it takes. `headers` lie beside the units.

    Of `optional_libraries`, those that the C compiler finds are linked; macros tell the code which (see `Linking`).
    `kernels` says, by the symbol of a region, what it calls in which order; for profiles.
    """

    backend: str
    units: tuple[Unit, ...]
    functions: tuple[Function, ...]
    headers: tuple[Unit, ...] = ()
    include_directories: tuple[str, ...] = ()
    library_directories: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    optional_libraries: tuple[tuple[str, str], ...] = ()
    kernels: Mapping[str, tuple[KernelNote, ...]] = field(default_factory=dict)
    type_key: str = "c"


@dataclass(frozen=True, slots=True)
class InterpretedModule:
    """A region as a graph that an engine runs.

    Attributes:
        inputs, outputs: names in the model's graph; its inputs are the region's, then the constants.
        model: bytes of an ONNX ModelProto.
        engine: a name in `engines.ENGINES`, or one given to load_module.
    """

    backend: str
    symbol: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: tuple[str, ...]
    model: bytes = field(repr=False)
    engine: str = "reference"
    type_key: str = "interpreted"

    @property
    def functions(self) -> tuple[Function, ...]:
        """Its one function."""
        return (Function(self.symbol, self.constants),)


RegionModule = CSourceModule | InterpretedModule


@dataclass(slots=True)
class _Code:
    """What modules that differ in their weights alone share: the compiled code, made when it is first wanted."""

    data: bytes | None = None
    library: Library | None = None
    features: tuple[str, ...] = ()


class MetadataModule(RunnableModule):
    """The root of the module tree: the schedule, every weight once, and a module per region.

    It runs in this process too: compiled at first use, on the weights where they lie, of which nothing is copied.

    Attributes:
        imported_modules: the host's module first, then one per region.
        bind_program: bytes of an ONNX model from the original parameters to the table's entries.
        extras: what else the manifest says, as JSON.
        build: how C is compiled.
    """

    def __init__(
        self,
        program: Program,
        imported_modules: Sequence[RegionModule],
        params: Mapping[str, Array],
        *,
        bind_program: bytes = b"",
        extras: Mapping[str, Any] | None = None,
        build: BuildOptions | None = None,
        threads: int | None = None,
        engines: Mapping[str, EngineFactory] | None = None,
    ) -> None:
        """Checks that the tree is complete.

        Raises:
            ParameterError: the table lacks a constant, a symbol is defined twice or not at all; all of them.
        """
        super().__init__(program, threads, engines or {})
        self.imported_modules = tuple(imported_modules)
        self.bind_program = bind_program
        self.extras = dict(extras or {})
        self.build = build or BuildOptions()
        self._params: Mapping[str, Array] = MappingProxyType(dict(params))
        self._code = _Code()
        check_program(program, self._params)
        _check_modules(program, self.imported_modules)
        self._layout = lay_out_arrays(self._params)

    @property
    def params(self) -> Mapping[str, Array]:
        return self._params

    @property
    def layout(self) -> Layout:
        """Where every entry of the table lies in its file."""
        return self._layout

    def interpreted(self, symbol: str) -> tuple[str, bytes]:
        for module in self.imported_modules:
            if isinstance(module, InterpretedModule) and module.symbol == symbol:
                return module.engine, module.model
        raise KeyError(symbol)

    def open_instance(self, threads: int | None = None) -> Instance:
        return Instance(
            self._load(),
            self.program,
            constants=list(map(in_place, self._params.values())),
            threads=threads,
            interpreter=self._interpreter(),
        )

    @property
    def kernels(self) -> Mapping[str, tuple[KernelNote, ...]]:
        modules = [module for module in self.imported_modules if isinstance(module, CSourceModule)]
        return {symbol: notes for module in modules for symbol, notes in module.kernels.items()}

    @property
    def flags(self) -> tuple[str, ...]:
        return compile_flags(self.build)

    def bind(self, parameters: Mapping[str, Array]) -> MetadataModule:
        if not self.bind_program:
            raise ParameterError(f"{self.program.symbol} has no bind program")
        table = bind_table(self.program, self.bind_program, self._params, parameters)
        bound = MetadataModule(
            self.program,
            self.imported_modules,
            table,
            bind_program=self.bind_program,
            extras=self.extras,
            build=self.build,
            threads=self.threads,
            engines=self._engines,
        )
        bound._code = self._code
        return bound

    # ------------------------------------------------------------------ source and code

    def source(self, symbol: str | None = None) -> str:
        """The C of the module that defines a region's symbol; without one, of the schedule.

        Raises:
            KeyError: no C module defines this symbol.
        """
        if symbol is None:
            return print_model(self.program, self._layout)
        for module in self.imported_modules:
            if isinstance(module, CSourceModule) and any(f.symbol == symbol for f in module.functions):
                return "\n".join(unit.text for unit in module.units)
        raise KeyError(f"no C source defines {symbol!r}")

    def header(self) -> str:
        """`<symbol>.h`, for C callers; it includes partita.h."""
        return print_header(self.program.symbol)

    def sources(self) -> tuple[Source, ...]:
        """Every C file but the runtime's."""
        units = [
            Source(f"src/{unit.name}.c", unit.text, module.include_directories, _headers(module))
            for module in self.imported_modules
            if isinstance(module, CSourceModule)
            for unit in module.units
        ]
        return (Source("model.c", self.source()), *units)

    def compile(self) -> bytes:
        """The shared library, without its payload; compiled once.

        Raises:
            CompilerError: there is no compiler, or it failed.
        """
        if self._code.data is None:
            toolchain = Toolchain(self.build)
            self._code.features = toolchain.features()
            self._code.data = toolchain.build_library(self.sources(), self._linking())
        return self._code.data

    def _linking(self) -> Linking:
        modules = [module for module in self.imported_modules if isinstance(module, CSourceModule)]
        directories = dict.fromkeys(path for module in modules for path in module.library_directories)
        libraries = dict.fromkeys(name for module in modules for name in module.libraries)
        optional = dict.fromkeys(pair for module in modules for pair in module.optional_libraries)
        return Linking(tuple(directories), tuple(libraries), tuple(optional))

    def _load(self) -> Library:
        if self._code.library is None:
            with tempfile.TemporaryDirectory(prefix="partita-") as folder:
                path = Path(folder) / f"{self.program.symbol}.so"
                path.write_bytes(self.compile())
                self._code.library = Library(path, self.program.symbol)
        return self._code.library

    # ------------------------------------------------------------------ export

    def export_library(self, path: str | Path, parameters: Placement = "auto") -> Path:
        """Writes the artifact: `model.so`, or with the suffix .tar the same as source.

        Args:
            parameters: "inside", "beside" (as `model.safetensors`), or "auto": beside from two gigabytes.

        Returns:
            The path written.

        Raises:
            CompilerError: there is no compiler, or it failed.
            ArtifactError: the file cannot be written; what was there stays.
        """
        path = Path(path)
        if path.suffix == ".tar":
            write_tar(path, self.program.symbol, self._texts(), self._content())
        else:
            code = self.compile()
            write_library(path, code, self._content(), parameters)
        return path

    def _texts(self) -> dict[str, str]:
        sources = self.sources()
        return {
            **{source.name: source.text for source in sources},
            **{name: text for source in sources for name, text in source.headers},
            **runtime_sources(),
            f"{self.program.symbol}.h": self.header(),
            "Makefile": makefile(self.program.symbol, sources, self._linking(), self.build),
            "README.txt": readme(self.program.symbol),
        }

    def _content(self) -> Content:
        files = {
            "include/partita.h": runtime_sources()["runtime/partita.h"].encode(),
            f"include/{self.program.symbol}.h": self.header().encode(),
            BIND: self.bind_program,
        }
        for module in self.imported_modules:
            if isinstance(module, InterpretedModule):
                files[_file_of(module)] = module.model
        manifest = {
            "extras": self.extras,
            "features": list(self._code.features),
            "flags": list(compile_flags(self.build)),
            "modules": [_described(module) for module in self.imported_modules],
            "program": self.program.to_json(),
        }
        return Content(manifest, files, self._layout, self._params)


def table_of(program: Program, bind_program: bytes, parameters: Mapping[str, Array]) -> dict[str, Array]:
    """The table that a bind program computes.

    Raises:
        ParameterError: parameters do not fit, or are others where the compiler looked at them.
    """
    check_baked(program.baked, parameters)
    return evaluate_bind_program(bind_program, parameters)


def bind_table(
    program: Program, bind_program: bytes, table: Mapping[str, Array], parameters: Mapping[str, Array]
) -> dict[str, Array]:
    """Computes a table for code that exists.

    Args:
        table: the table the code was compiled for; types and shapes must stay.

    Raises:
        ParameterError: parameters do not fit, or change what the compiler looked at.
    """
    computed = table_of(program, bind_program, parameters)
    problems = []
    for name, array in table.items():
        if name not in computed:
            problems.append(f"{name!r} is not computed by the bind program")
            continue
        new = computed[name]
        if data_type_of(new.dtype) != data_type_of(array.dtype) or new.shape != array.shape:
            expected = f"{type_name(data_type_of(array.dtype))}{list(array.shape)}"
            problems.append(f"{name!r} comes out as {new.dtype}{list(new.shape)}, expected {expected}")
    if problems:
        raise ParameterError("the table does not fit the code:\n  " + "\n  ".join(problems))
    return {name: computed[name] for name in table}


def in_place(array: Array) -> Array:
    """The array as C reads it; a copy only where it is not dense, aligned to its elements, or of this byte order."""
    native = array.dtype.newbyteorder("<")
    if array.flags.c_contiguous and array.flags.aligned and native == array.dtype:
        return array
    return array.astype(native, order="C", copy=True)


def _headers(module: CSourceModule) -> tuple[tuple[str, str], ...]:
    return tuple((f"src/{header.name}.h", header.text) for header in module.headers)


def _file_of(module: InterpretedModule) -> str:
    return f"regions/{module.symbol}.onnx"


def _described(module: RegionModule) -> dict[str, Any]:
    functions = [asdict(item) for item in module.functions]
    common = {"type_key": module.type_key, "backend": module.backend, "functions": functions}
    if isinstance(module, InterpretedModule):
        names = {"inputs": list(module.inputs), "outputs": list(module.outputs)}
        return {**common, **names, "engine": module.engine, "file": _file_of(module)}
    return {**common, "kernels": {symbol: [asdict(n) for n in notes] for symbol, notes in module.kernels.items()}}


def _check_modules(program: Program, modules: Sequence[RegionModule]) -> None:
    problems = []
    defined: dict[str, tuple[RegionModule, Function]] = {}
    for module in modules:
        for function in module.functions:
            if function.symbol in defined:
                owner = defined[function.symbol][0].backend
                problems.append(f"symbol {function.symbol!r} is defined by {owner!r} and again by {module.backend!r}")
            defined[function.symbol] = (module, function)
    for region in program.regions:
        if region.symbol not in defined:
            problems.append(f"no module defines region {region.symbol!r}")
            continue
        owner_module, function = defined[region.symbol]
        if function.constants != region.constants:
            problems.append(f"region {region.symbol!r} and its module want different constants")
        if (function.has_state, function.has_free) != (region.has_state, region.has_free):
            problems.append(f"region {region.symbol!r} and its module disagree about its init or its free")
        if region.interpreted != isinstance(owner_module, InterpretedModule):
            problems.append(f"region {region.symbol!r} is interpreted in the schedule or in its module, not in both")
    names = [unit.name for module in modules if isinstance(module, CSourceModule) for unit in module.units]
    problems += [f"file name {name!r} is used twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    problems += [f"file name {name!r} is not a plain one" for name in names if not _FILE_NAME.fullmatch(name)]
    if problems:
        raise ParameterError(f"the modules of {program.symbol!r} do not fit together:\n  " + "\n  ".join(problems))
