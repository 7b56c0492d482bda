"""Runs `qnb.export` on TensorFlow models, for test_tensorflow.py: ``python -m tests.frontends._tensorflow FOLDER``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(sys.argv[1])
FIXTURES = Path(__file__).parents[1] / "fixtures" / "tensorflow"
os.environ |= {"QNB_CACHE_DIR": str(FOLDER / "cache"), "QNB_PROGRESS": "0", "TF_CPP_MIN_LOG_LEVEL": "2"}

import keras  # noqa: E402
import onnxruntime as ort  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras import layers  # noqa: E402

import qnb  # noqa: E402
from qnb.errors import QnbError  # noqa: E402

ANSWERS = {}


def case(name, source, own=None, **options):
    """Export, and run what came out beside `own`, the source called directly."""
    try:
        model = qnb.export(source, **options)
    except QnbError as error:
        ANSWERS[name] = {"error": type(error).__name__, "what": error.what, "hint": error.hint}
        return
    rng = np.random.default_rng(5)
    feeds = {spec.name: rng.standard_normal(spec.shape).astype(spec.dtype) for spec in model.inputs}
    found = ort.InferenceSession(str(model.path)).run(None, feeds)
    expected = [np.asarray(value) for value in tf.nest.flatten(own(feeds))]
    assert len(found) == len(expected)
    ANSWERS[name] = {
        "inputs": {spec.name: list(spec.shape) for spec in model.inputs},
        "outputs": [spec.name for spec in model.outputs],
        "ops": dict(model.ops.items()),
        "notes": list(model.notes),
        "gate_error": float(model.check["max_abs_error"].max()),
        "own_error": max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True)),
    }


def one(model):
    return lambda feeds: model(*feeds.values())


def cnn():
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.DepthwiseConv2D(3, strides=2)(x)))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 1, activation="gelu")(x))
    return keras.Model(image, layers.Dense(10, activation="softmax", name="scores")(x))


def recurrent(kind):
    seq = keras.Input((7, 4), name="seq")
    return keras.Model(seq, layers.Dense(3, name="out")(kind(5)(seq)))


def saved(name, function):
    tf.saved_model.save(module := tf.Module(), str(FOLDER / name), signatures=function)
    del module
    return FOLDER / name


class Mine(layers.Layer):
    def call(self, x):
        return x * 3.0


def main():
    keras.utils.set_random_seed(0)
    net = cnn()
    net.save(FOLDER / "net.keras")
    net.save(FOLDER / "net.h5")
    net.save_weights(FOLDER / "net.weights.h5")
    net.export(FOLDER / "net", verbose=False)
    case("keras file", FOLDER / "net.keras", one(net))
    case("h5 file, batch 2", FOLDER / "net.h5", one(net), batch=2)
    case("saved model", FOLDER / "net", one(net))
    case("live model", net, one(net))
    stack = keras.Sequential([keras.Input((8, 8, 1), name="image"), layers.Conv2D(4, 3), layers.Flatten()])
    case("live sequential", stack, one(stack))
    case("weights only", FOLDER / "net.weights.h5")

    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    spec = tf.TensorSpec((None, 16, 16, 3), tf.float32)
    function = tf.function(lambda image: net(image)).get_concrete_function(spec)
    graph = convert_variables_to_constants_v2(function).graph.as_graph_def()
    (FOLDER / "net.pb").write_bytes(graph.SerializeToString())
    case("frozen graph", FOLDER / "net.pb", one(net))

    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    two = keras.Model({"a": a, "b": b}, {"s": layers.Add()([a, b]), "d": layers.Dense(2)(b)})
    case("two of each", two, lambda feeds: [two(feeds)["d"], two(feeds)["s"]])  # a SavedModel sorts them
    for name, kind in (("lstm file", layers.LSTM), ("gru file", layers.GRU)):
        model = recurrent(kind)
        model.save(FOLDER / f"{name}.keras")
        case(name, FOLDER / f"{name}.keras", one(model))

    x = keras.Input((4,), name="x")
    twice = keras.Model(x, layers.Lambda(lambda value: value * 2, name="twice")(x))
    twice.save(FOLDER / "lambda.keras")
    case("lambda file", FOLDER / "lambda.keras")
    case("lambda file, trusted", FOLDER / "lambda.keras", one(twice), trust=True)
    own = keras.Model(x, Mine(name="mine")(x))
    own.save(FOLDER / "own.keras")
    case("custom layer file", FOLDER / "own.keras")
    case("live custom layer", own, one(own))
    free = keras.Input((None, 3), name="x")
    case("open shape", keras.Model(free, layers.Dense(2)(free)))

    row = [tf.TensorSpec((1, 3), tf.float32, name="x")]
    functions = {
        "py_function": lambda x: {"y": tf.numpy_function(lambda value: value * 2, [x], tf.float32)},
        "noise": lambda x: {"y": x + tf.random.normal((1, 3))},
        "branch": lambda x: {"y": tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2, lambda: x - 1)},
        "unknown op": lambda x: {"y": tf.math.lgamma(tf.abs(x) + 1)},
    }
    for name, body in functions.items():
        case(name, saved(name, tf.function(body, input_signature=row)))
    case("no signature", saved("bare", None))
    case("takes memory", FIXTURES / "grows.pb")
    case("writes when loaded", FIXTURES / "writes_when_loaded")
    (FOLDER / "answers.json").write_text(json.dumps(ANSWERS))


if __name__ == "__main__":
    main()
