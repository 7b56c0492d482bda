"""Facts about ONNX graphs, and the making of the one form that the rest of qnb works on.

Knows nothing of quantization, QNN, steps or notebooks.
"""
