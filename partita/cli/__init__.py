"""The command `partita`, thin over the API: here parsing, errors and exit codes, and one file a subcommand.

That file has `add(commands)`, which declares its options, and `execute(options)`, which returns the exit code.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NoReturn

from partita import __version__
from partita.cli import backends, bind, compile, explain, inspect, profile, run, verify
from partita.cli.text import printable
from partita.errors import (
    ArtifactError,
    BackendError,
    CompilerError,
    ExecutionError,
    InputError,
    ModelError,
    ParameterError,
    PartitaError,
    ShapeError,
    UnsupportedOperatorError,
)

_COMMANDS = (compile, run, verify, inspect, explain, profile, backends, bind)


class ExitCode(IntEnum):
    """What the command ends with."""

    OK = 0
    DIFFERENT = 1  # verify: an error above the tolerance
    USAGE = 2  # argparse's own
    MODEL = 3
    C_COMPILER = 4
    ARTIFACT = 5
    RUN = 6
    INTERNAL = 70
    INTERRUPTED = 130


_CODES: dict[type[BaseException], ExitCode] = {
    InputError: ExitCode.USAGE,
    ParameterError: ExitCode.USAGE,
    OSError: ExitCode.USAGE,
    ModelError: ExitCode.MODEL,
    ShapeError: ExitCode.MODEL,
    UnsupportedOperatorError: ExitCode.MODEL,
    BackendError: ExitCode.MODEL,
    CompilerError: ExitCode.C_COMPILER,
    ArtifactError: ExitCode.ARTIFACT,
    ExecutionError: ExitCode.RUN,
    KeyboardInterrupt: ExitCode.INTERRUPTED,
}

_EPILOG = """\
a first run:
  partita compile model.onnx -o model.so           one file: code, weights, schedule
  partita run model.so                             on seeded random inputs
  partita verify model.onnx model.so               against ONNX Runtime or the reference
  partita inspect model.so                         what is in it
  partita explain model.onnx --target dnnl         who runs which node, and why

exit codes:
  0  it worked
  1  verify: an output differs by more than the tolerance
  2  wrong options, inputs or files
  3  the model cannot be read, or cannot be compiled for these targets
  4  no C compiler was found, or it failed
  5  the compiled model cannot be loaded or written
  6  a run failed
  70 a fault in Partita itself
  130 interrupted

environment:
  PARTITA_CC           the C compiler, if not gcc, clang, cc or ziglang, in this order
  PARTITA_NUM_THREADS  threads to run on, if not all cores
  PARTITA_CACHE_DIR    where compiled objects are kept, if not in the user's cache folder
  PARTITA_DEBUG=1      show Python's traceback behind an error
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    try:
        options = _parser().parse_args(arguments)
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            code = int(options.execute(options))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("PARTITA_DEBUG"):
            raise
        code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), ExitCode.INTERNAL)
        print(f"partita: {_sentence(error)}", file=sys.stderr)
        return code


def _sentence(error: BaseException) -> str:
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, PartitaError):
        return printable(f"error: {error}")
    if isinstance(error, OSError):
        return printable(f"error: {error.filename or 'input or output'}: {error.strerror or error}")
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return printable(f"internal error: {what}; PARTITA_DEBUG=1 shows where, please report it with the model")


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"partita: {printable(f'warning: {message}')}", file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """Points at --help instead of repeating the usage, so that the mistake stays in sight."""

    def error(self, message: str) -> NoReturn:
        self.exit(ExitCode.USAGE, f"partita: error: {message} (see `{self.prog} --help`)\n")


def _parser() -> argparse.ArgumentParser:
    parser: Any = _Parser(
        prog="partita",
        description="Compiles an ONNX model into one deployable module: C code, and the weights beside it.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"partita {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(commands)
    return parser  # type: ignore[no-any-return]
