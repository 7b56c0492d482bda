"""The front-end of models that another tool has quantized: tells them from float models by the ops that the file names.

Reads no graph: taking it apart is native work, done in a worker.
"""

from __future__ import annotations

from pathlib import Path

from qnb.graph.scanning import op_types

__all__ = ["may_be_quantized"]

_WORDS = (
    "QuantizeLinear",
    "DequantizeLinear",
    "QLinear",
    "Integer",
    "MatMulNBits",
    "MatMulBnb4",
    "QGemm",
    "QAttention",
)


def may_be_quantized(path: Path) -> bool:
    """Say whether an ONNX file has nodes that quantize, dequantize or compute in integers.

    Raises
    ------
    StorageError
        If the file can't be read.
    """
    return any(word in op for op in op_types(path) for word in _WORDS)
