"""Advice: rules that look at a model as a graph, as tables and as the NPU's own graph, and say what is slow or wrong.

A rule is a function with a stable id: see `qnb.advice.rules`. Knows ONNX graphs and plain tables; nothing of steps, jobs
and the runtime: what they found comes in as a `qnb.advice.subject.Subject`.
"""
