"""Quantization: from statistics of a model's tensors to encodings, and from encodings to a QDQ model."""
