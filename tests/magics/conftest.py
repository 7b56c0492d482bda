"""A real IPython shell with the extension, and a small model in its notebook."""

import sys

import numpy as np
import onnx
import pytest
from IPython.core.interactiveshell import InteractiveShell
from onnx import TensorProto, helper, numpy_helper

import qnb


def write_classifier(path, seed=0):
    """Write an ONNX file: 1x3x8x8 -> conv, ReLU, average pool, fully connected -> 1x4."""
    rng = np.random.default_rng(seed)
    weights = {
        "w1": rng.standard_normal((8, 3, 3, 3)).astype("float32") / 5,
        "b1": rng.standard_normal(8).astype("float32") / 5,
        "w2": rng.standard_normal((8, 4)).astype("float32"),
        "b2": rng.standard_normal(4).astype("float32"),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w1", "b1"], ["c"], name="conv", pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["c"], ["r"], name="relu"),
            helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
            helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
            helper.make_node("Gemm", ["f", "w2", "b2"], ["logits"], name="fc"),
        ],
        "classifier",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache_dir, monkeypatch):
    """Not the user's cache, and no bars."""
    from qnb.defaults import settings

    monkeypatch.setenv("QNB_CACHE_DIR", str(cache_dir))
    monkeypatch.setattr(settings, "progress", False)


@pytest.fixture(scope="session")
def classifier(tmp_path_factory):
    return write_classifier(tmp_path_factory.mktemp("model") / "classifier.onnx")


@pytest.fixture(scope="session")
def shell():
    InteractiveShell.clear_instance()
    main = sys.modules["__main__"]
    shell = InteractiveShell.instance()
    sys.modules["__main__"] = main  # which it takes; processes of a pool that later tests start look there
    shell.history_manager.enabled = False
    yield shell
    shell.history_manager.end_session()
    InteractiveShell.clear_instance()


@pytest.fixture
def ip(shell, tmp_path, monkeypatch):
    """The shell, with the extension, an empty namespace and an empty working folder."""
    monkeypatch.chdir(tmp_path)
    shell.reset(new_session=False)
    shell.run_line_magic("load_ext", "qnb")
    yield shell
    shell.run_line_magic("unload_ext", "qnb")
    shell.reset(new_session=False)


@pytest.fixture
def run(ip):
    """Run a cell; give its value, or raise its error."""

    def run(cell):
        outcome = ip.run_cell(cell)
        outcome.raise_error()
        return outcome.result

    return run


@pytest.fixture(scope="session")
def model(cache_dir, classifier):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QNB_CACHE_DIR", str(cache_dir))
        return qnb.export(classifier)


@pytest.fixture
def notebook(ip, model):
    """A notebook with a model and images."""
    ip.user_ns["model"] = model
    ip.user_ns["images"] = np.random.default_rng(1).standard_normal((6, 3, 8, 8)).astype("float32")
    return ip
