"""A small model with a symbolic batch, and what it was compiled to."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
from cli_model import TEXT, weights
from onnx import numpy_helper

import partita
from partita.cli import main


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = onnx.parser.parse_model(TEXT)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights().items())
    path = tmp_path_factory.mktemp("models") / "small.onnx"
    onnx.save(model, path)
    return path


@pytest.fixture(scope="session")
def artifact(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return partita.compile(model_file).export_library(tmp_path_factory.mktemp("artifacts") / "small.so")


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str


Command = Callable[..., Ended]


@pytest.fixture
def partita_command(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command in this process."""

    def run(*arguments: object) -> Ended:
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return Ended(code, out, err)

    return run
