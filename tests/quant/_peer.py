"""ONNX Runtime's own QNN quantization, as an oracle."""

import tempfile
from pathlib import Path

import onnx
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize
from onnxruntime.quantization.execution_providers.qnn import get_qnn_qdq_config


class _Reader(CalibrationDataReader):
    def __init__(self, samples):
        self.left = iter(samples)

    def get_next(self):
        return next(self.left, None)


def quantized(net, samples, activation_bits, *, per_channel=True):
    """Give the QDQ model that ONNX Runtime makes with min-max ranges and signed weights."""
    kind = {8: QuantType.QUInt8, 16: QuantType.QUInt16}[activation_bits]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in.onnx"), Path(folder, "out.onnx")
        onnx.save(net, source)
        config = get_qnn_qdq_config(
            source, _Reader(samples), per_channel=per_channel, activation_type=kind, weight_type=QuantType.QInt8
        )
        quantize(source, target, config)
        return onnx.load(target)
