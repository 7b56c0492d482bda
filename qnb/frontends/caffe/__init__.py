"""Caffe networks read without Caffe: a prototxt and a caffemodel become an ONNX model.

Needs protobuf, numpy and onnx, and of qnb its errors and what tells files apart. The message classes are built at run
time from a table (`schema`), so there is no generated code, and nothing of a file is executed. Knows nothing of QNN.
"""

from qnb.frontends.caffe.convert import CaffeModel, constant_blobs, to_onnx
from qnb.frontends.caffe.files import pair

__all__ = ["CaffeModel", "constant_blobs", "pair", "to_onnx"]
