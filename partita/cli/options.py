"""Options that several subcommands have, and the modules they stand for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, TypeAlias

import partita
from partita.cli.text import progress
from partita.runtime import PROFILE_FLAG, BuildOptions, LoadedModule, MetadataModule

Commands: TypeAlias = "argparse._SubParsersAction[Any]"
Shape = tuple[int | str | None, ...]


def add_command(
    commands: Commands, name: str, summary: str, description: str, examples: str
) -> argparse.ArgumentParser:
    """A subcommand's parser: a summary for the list of commands, a description and examples for its own help."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"examples:\n{examples}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def add_compile_options(parser: argparse.ArgumentParser) -> None:
    """What the compiler wants to know; for a compiled model none of it is used."""
    group = parser.add_argument_group("how to compile")
    group.add_argument(
        "-t",
        "--target",
        action="append",
        default=[],
        metavar="BACKEND",
        help="an accelerator; repeat it for several, by priority. The host takes what they refuse. "
        "`partita backends` lists them",
    )
    add_shape_option(group)
    group.add_argument("--cc", default="", help="the C compiler's command")
    group.add_argument(
        "--mcpu",
        default=BuildOptions().mcpu,
        help="the processor to compile for, as in -march= (default: %(default)s, this machine's); "
        "x86-64-v3 for most others",
    )
    group.add_argument(
        "--fast-math",
        action="append",
        default=[],
        metavar="ALGORITHM",
        help="a faster algorithm with larger errors; repeat it for several: strassen, for large matrix products",
    )
    group.add_argument("--no-cache", action="store_true", help="compile everything anew, and keep nothing of it")


def add_shape_option(parser: Any) -> None:
    parser.add_argument(
        "-s",
        "--shape",
        action="append",
        default=[],
        type=shape,
        metavar="NAME=SIZES",
        help="the shape of an input: x=1,3,224,224; a word in place of a size is a symbolic dimension (x=N,128), "
        "? leaves a size as it is. Repeat it for several inputs",
    )


def add_json_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text")


def shape(text: str) -> tuple[str, Shape]:
    """Reads NAME=SIZES."""
    name, equals, sizes = text.rpartition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=SIZES, such as x=1,3,224,224")
    dimensions: list[int | str | None] = []
    for word in (part.strip() for part in sizes.split(",") if sizes.strip()):
        if word.lstrip("+-").isdecimal():
            dimensions.append(int(word))
        elif word == "?":
            dimensions.append(None)
        elif word.isidentifier():
            dimensions.append(word)
        else:
            raise argparse.ArgumentTypeError(f"{word!r} in {text!r} is neither a size nor a name nor ?")
    return name, tuple(dimensions)


def positive(text: str) -> int:
    """Reads a number of at least one."""
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return number


def is_artifact(path: Path) -> bool:
    """Whether a file is a compiled model rather than an ONNX model."""
    if path.suffix in (".so", ".tar"):
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) == b"\x7fELF"
    except OSError:
        return False  # whoever reads it as a model says what is wrong


def compiled(options: argparse.Namespace, path: Path) -> MetadataModule:
    """The model of a file, compiled as the options say; the C compiler has not run yet."""
    with progress(f"compiling {path.name}"):
        return partita.compile(
            path,
            options.target,
            dict(options.shape),
            name=getattr(options, "name", None),
            build=build_options(options),
            fast_math=options.fast_math,
            dump=getattr(options, "dump_dir", None),
        )


def build_options(options: argparse.Namespace) -> BuildOptions:
    flags = (PROFILE_FLAG,) if getattr(options, "profile", False) else ()
    return BuildOptions(cc=options.cc, mcpu=options.mcpu, cache=not options.no_cache, flags=flags)


def build(module: MetadataModule) -> None:
    """Runs the C compiler."""
    with progress(f"running the C compiler on {module.program.symbol}"):
        module.compile()


def loaded(path: Path, threads: int | None = None) -> LoadedModule:
    """A compiled model."""
    with progress(f"loading {path.name}"):
        return partita.load_module(path, threads)


def runnable(options: argparse.Namespace, path: Path) -> MetadataModule | LoadedModule:
    """A compiled model loaded, or an ONNX model compiled, ready to run on `options.threads`."""
    if is_artifact(path):
        return loaded(path, options.threads)
    module = compiled(options, path)
    module.threads = options.threads
    build(module)
    return module
