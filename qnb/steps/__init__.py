"""One module a step; each is a plain function that answers with a frozen result.

The magic, the command, their help and the docs are made from these functions' signatures and docstrings, so no logic
lives anywhere else.
"""

from __future__ import annotations

STEPS: dict[str, str] = {
    "doctor": "qnb.steps.doctor:doctor",
    "export": "qnb.steps.export:export",
    "convert": "qnb.steps.convert:convert",
    "calibrate": "qnb.steps.calibrate:calibrate",
    "check": "qnb.steps.check:check",
    "sensitivity": "qnb.steps.sensitivity:sensitivity",
    "search": "qnb.steps.search:search",
    "context": "qnb.steps.context:context",
    "infer": "qnb.steps.infer:infer",
    "profile": "qnb.steps.profile:profile",
    "estimate": "qnb.steps.estimate:estimate",
    "compare": "qnb.steps.compare:compare",
    "select": "qnb.steps.select:select",
    "debug": "qnb.steps.debug:debug",
    "report": "qnb.steps.report:report",
}
"""Step name to ``module:function``, in the order of the workflow."""

SUMMARIES: dict[str, str] = {
    "doctor": "See which runtimes, backends and tools this machine has, and what to do about the rest.",
    "export": "Bring a PyTorch, TensorFlow, Keras, TFLite, Caffe or ONNX model into a checked model with fixed shapes.",
    "convert": "Turn a model into a QNN graph (DLC and JSON), and see which ops each backend takes.",
    "calibrate": "Quantize a model with ranges gathered over calibration data.",
    "check": "See where a quantized model loses accuracy: layer by layer, tensor by tensor; and whether it is good enough.",
    "sensitivity": "See which layers, or tensors, lose the accuracy when they are quantized.",
    "search": "Find the cheapest mix of precisions that holds an accuracy, or the most accurate one within a budget.",
    "context": "Compile a model ahead of time for the NPU of one or several Snapdragons.",
    "infer": "Run samples on a backend, and see how well the outputs agree with fp32.",
    "profile": "Time a model on each backend, and each of its ops on the NPU.",
    "estimate": "Estimate how long a build takes on each Snapdragon, without one at hand.",
    "compare": "Set backends, or builds, side by side: latency, accuracy, size.",
    "select": "Choose the backend for a model: from what each one takes of it, its accuracy, latency, memory and power.",
    "debug": "Find out why a model is slow, or does not run on the NPU, and what to do about it.",
    "report": "Write all that is known of a build as one HTML page with charts, and as CSV files.",
}
"""First line of each step's docstring, at hand without importing the step; a test keeps the two equal."""
