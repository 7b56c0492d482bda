"""One function for each layer type: it reads the layer's parameters, and adds ONNX ops of the same meaning.

Sizes follow Caffe's own formulas, not those of ONNX's shape inference.
"""

from qnb.frontends.caffe.layers import activations, convolutions, detection, elementwise, normalising, pooling, shaping
from qnb.frontends.caffe.layers.registry import READERS, Reader

__all__ = ["READERS", "Reader"]

# imported for the functions that they register
_ = (activations, convolutions, detection, elementwise, normalising, pooling, shaping)
