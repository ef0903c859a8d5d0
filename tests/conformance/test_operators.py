"""docs/operators.md is what the compiler does now: every row is tried again."""

import onnx
import operators
import pytest


@pytest.fixture(scope="module")
def rows():
    return [operators.row(history) for history in operators.schemas().values()]


@pytest.mark.filterwarnings("ignore")
def test_the_page_is_true(rows):
    assert operators.PAGE.read_text() == operators.page(rows), f"stale: {operators.COMMAND}"


REASONS = (
    "not one that Partita knows",
    "no C type",
    "which strings have not",
    "no kernel",
    "cannot be read",
)


def test_what_is_refused_says_why(rows):
    for row in rows:
        for what, reason in {**row.refused_versions, **row.refused_types}.items():
            assert any(text in reason for text in REASONS), f"{row.schema.name} {what}: {reason}"


def test_a_type_that_no_operator_has_is_refused():
    """What the page calls supported is not just all that is asked for."""
    model = operators.sample(operators.schemas()["", "Det"][0])
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT32
    assert "may not be of type tensor(int32)" in operators.refusal(model)
