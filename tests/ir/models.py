"""Small models as text, for tests of the IR."""

import onnx

from partita.ir.schema import NEWEST_OPSET


def model(text: str, *, opset: int = NEWEST_OPSET, ir_version: int = 10, imports: str = "") -> onnx.ModelProto:
    """The model of a graph in ONNX's text form."""
    return onnx.parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["" : {opset}{imports}]>\n{text}')


def data(text: str, **header: object) -> bytes:
    return model(text, **header).SerializeToString()
