"""What a `model.tar` needs besides sources: a Makefile that builds the artifact with cc, make, cat and truncate."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace

from partita.errors import ParameterError
from partita.runtime.artifact import PAGE
from partita.runtime.toolchain import (
    BuildOptions,
    Linking,
    Source,
    compile_flags,
    has_library,
    link_flags,
    runtime_sources,
)


def makefile(symbol: str, sources: Sequence[Source], linking: Linking, build: BuildOptions) -> str:
    """The Makefile: `make` builds model.so, `make MCPU=x86-64-v3` for another machine."""
    runtime = [Source(name, "") for name in runtime_sources() if name.endswith(".c")]
    headers = " ".join(name for name in runtime_sources() if name.endswith(".h"))
    everything = [*sources, *runtime]
    objects = [f"{number}.o" for number in range(len(everything))]
    march = "-march=$(MCPU)" if build.mcpu else ""
    lines = [
        f"# Builds {symbol} with cc, make, cat and truncate.",
        f"MCPU = {_quoted(build.mcpu)}",
        f"CFLAGS = {_joined(compile_flags(replace(build, mcpu='')))} {march}".rstrip(),
        f"LDFLAGS = {_joined(link_flags(linking))}",
        *_optional(linking),
        f"OBJECTS = {' '.join(objects)}",
        "",
        "model.so: code.so payload.zip",
        "\tcat code.so payload.zip > model.so.tmp",
        "\tmv model.so.tmp model.so",
        "",
        "code.so: $(OBJECTS)",
        "\t$(CC) $(CFLAGS) -o code.so $(OBJECTS) $(LDFLAGS)",
        f"\ttruncate -s %{PAGE} code.so",
        "",
        "clean:",
        "\trm -f model.so model.so.tmp code.so probe.so $(OBJECTS)",
        "",
        ".PHONY: clean",
    ]
    for name, source in zip(objects, everything, strict=True):
        folders = _joined([f"-I{path}" for path in source.include_directories])
        lines += [
            "",
            " ".join([f"{name}: {source.name}", *(header for header, _ in source.headers), headers]),
            f"\t$(CC) -c {source.name} -o {name} $(CFLAGS) -Iruntime {folders}".rstrip(),
        ]
    return "\n".join(lines) + "\n"


def _optional(linking: Linking) -> list[str]:
    """Adds the optional libraries that the compiler finds."""
    lines = []
    for name, header in linking.optional:
        probe = f"$(CC) $(CFLAGS) -shared -Iruntime {has_library(name)} -x c {header} -x none -l{name} -o probe.so"
        lines += [
            f"has_{name} := $(shell {probe} 2> /dev/null && echo yes)",
            f"CFLAGS += $(if $(has_{name}),{has_library(name)})",
            f"LDFLAGS += $(if $(has_{name}),-l{name})",
        ]
    return lines


def readme(symbol: str) -> str:
    """A short text on how to build and call the model."""
    return f"""{symbol}: a model compiled by Partita, as source

Build:    make                     for the machine you build on
          make MCPU=x86-64-v3      for others
It takes a C compiler, make, cat and truncate, and makes model.so: code, and the weights behind it.

Call it from C, C++ or Rust: {symbol}.h has the entry points, runtime/partita.h describes them.
Call it from Python: partita.load_module("model.so").run(inputs)

payload.zip holds the weights (parameters.safetensors), the manifest, and the program that computes the
weights' table from the original parameters (bind.onnx).
"""


def _joined(arguments: Sequence[str]) -> str:
    return " ".join(map(_quoted, arguments))


def _quoted(argument: str) -> str:
    """An argument as a recipe's shell and make itself read it."""
    if "\n" in argument:
        raise ParameterError(f"{argument!r} cannot stand in a Makefile")
    return shlex.quote(argument).replace("$", "$$").replace("#", "\\#") if argument else ""
