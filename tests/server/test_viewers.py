"""What the viewers say of files, and that no file, however damaged, does harm to the server.

Oracles: onnx's own parser, the files that Qualcomm's compiler and converter wrote, the results' own frames; and the server,
which has to be alive after each.
"""

from __future__ import annotations

import json
import math
import pickle
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qnb.quant import encoding_files
from qnb.results import Result
from tests.conftest import Digits
from tests.server.conftest import TIMEOUT_S, Server


@pytest.fixture(scope="module")
def samples(session_folder: Path, walk: dict[str, Any]) -> dict[str, Path]:
    """A good file of each kind, as the steps wrote them; and a saved result."""
    folder = session_folder / "viewed"
    folder.mkdir()
    conversion, context = walk["conversion"], walk["context"]
    found = {
        "model.onnx": walk["model"].path,
        "context_ctx.onnx": context.files["model"],
        "context_qnn.bin": context.binary,
        "graph.dlc": conversion.dlc[0],
        "graph.json": conversion.files["graph.json"],
        "model.encodings.json": walk["quantized"].files["encodings"],
    }
    for name, path in found.items():
        shutil.copyfile(path, folder / name)
    walk["profile"].save(folder / "result")
    return {name: folder / name for name in (*found, "result")}


def put(source: Path, folder: Path, name: str = "") -> str:
    """Copy a file under the server's root; give its path there."""
    target = folder / (name or source.name)
    if source.is_dir():
        shutil.copytree(source, target)
    else:
        shutil.copyfile(source, target)
    return f"{folder.name}/{target.name}"


def seen(server: Server, path: str) -> dict[str, Any]:
    reply = server.view(path)
    assert reply.status == 200, reply.body
    document: dict[str, Any] = reply.body
    assert document["format"] == 2
    return document


def table(document: dict[str, Any], title: str) -> dict[str, list[Any]]:
    found = next(t for t in document["tables"] if t["title"] == title)
    return {name: [row[i] for row in found["rows"]] for i, name in enumerate(found["columns"])}


# --- what they say ------------------------------------------------------------------------------------------------


def test_an_onnx_file_is_what_onnx_says(server: Server, folder: Path, samples: dict[str, Path], digits: Digits) -> None:
    document = seen(server, put(samples["model.onnx"], folder))
    graph = onnx.load(str(samples["model.onnx"])).graph
    assert table(document, "ops")["op"] == [node.name for node in graph.node]
    assert table(document, "initializers")["tensor"] == [tensor.name for tensor in graph.initializer]
    assert table(document, "inputs and outputs")["name"] == ["image", "logits"]
    facts = dict(document["facts"])
    assert facts["parameters"] == sum(
        numpy_helper.to_array(t).size for t in graph.initializer if t.data_type == TensorProto.FLOAT and t.dims
    )
    assert (facts["bytes"], facts["sha256"]) == (samples["model.onnx"].stat().st_size, digits.model.digest)
    names = [node["name"] for node in document["graph"]["nodes"]]
    made = {tensor: node.name for node in graph.node for tensor in node.output}
    wanted = {(made[t], node.name, t) for node in graph.node for t in node.input if t in made}
    wanted |= {("image", graph.node[0].name, "image"), (graph.node[-1].name, "logits", "logits")}
    assert {(names[a], names[b], tensor) for a, b, tensor, _ in document["graph"]["edges"]} == wanted


def test_an_onnx_file_that_is_no_result_of_ours(server: Server, folder: Path) -> None:
    """Open dimensions, ops without names, external weights, a subgraph, a type that does not exist."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["y"], ["z"])], "then", [], [helper.make_tensor_value_info("z", 1, None)]
    )
    weight = helper.make_tensor("w", TensorProto.FLOAT, [3], [1, 2, 3])
    far = helper.make_tensor("far", TensorProto.FLOAT, [1], [1])
    far.data_location = TensorProto.EXTERNAL
    far.external_data.add(key="location", value="../../../../etc/passwd")
    nodes = [
        helper.make_node("Add", ["x", "w"], ["y"]),
        helper.make_node("If", ["c"], ["o"], then_branch=body, else_branch=body),
        helper.make_node("Mul", ["y", "far"], ["p"], domain="some.where"),
    ]
    inputs = [helper.make_tensor_value_info("x", 1, ["batch", None]), helper.make_tensor_value_info("c", 9, [])]
    graph = helper.make_graph(nodes, "<b>g</b>", inputs, [helper.make_tensor_value_info("p", 1, ["batch", 3])])
    graph.initializer.extend([weight, far])
    model = helper.make_model(graph, producer_name="<script>", ir_version=10)
    onnx.save(model, folder / "foreign.onnx")
    document = seen(server, f"{folder.name}/foreign.onnx")
    assert table(document, "inputs and outputs")["shape"] == ["batch×?", "", "batch×3"]
    assert table(document, "ops")["op_type"] == ["Add", "If", "some.where.Mul"]
    assert table(document, "initializers")["stored_in"] == ["this file", "another file"]
    assert "root:" not in json.dumps(document)
    assert document["title"].startswith("<b>g</b>")
    assert len([n for n in document["graph"]["nodes"] if n["type"] not in ("Input", "Output")]) == 3


def test_context_binaries(server: Server, folder: Path, samples: dict[str, Path], walk: dict[str, Any]) -> None:
    alone = seen(server, put(samples["context_qnn.bin"], folder, "alone.bin"))
    facts = dict(alone["facts"])
    assert (facts["bytes"], facts["sha256"]) == (walk["context"].size_bytes, walk["context"].digest)
    assert any("Qualcomm's own" in note for note in alone["notes"])
    assert "graph" not in alone
    put(samples["context_qnn.bin"], folder)
    wrapper = seen(server, put(samples["context_ctx.onnx"], folder))
    assert dict(wrapper["facts"])["QAIRT"].startswith("v2.47")
    beside = seen(server, f"{folder.name}/context_qnn.bin")
    assert dict(beside["facts"])["ONNX wrapper"] == "context_ctx.onnx"
    assert table(beside, "inputs and outputs")["name"] == ["image", "logits"]
    walk["context"].save(folder / "saved")
    binary = f"{folder.name}/saved/files/{walk['context'].binary.name}"
    ours = seen(server, binary)
    assert (ours["kind"], dict(ours["facts"])["soc"]) == ("context", str(walk["context"].soc))
    assert ours["graph"]["nodes"][0]["backend"] == "htp"
    (server.root / binary).write_bytes(b"something else")
    assert seen(server, f"{folder.name}/alone.bin")["title"] == "alone.bin"
    assert server.view(binary).status == 422


def test_a_dlc_and_the_graph_that_convert_wrote_beside(server: Server, folder: Path, samples: dict[str, Path]) -> None:
    with zipfile.ZipFile(samples["graph.dlc"]) as archive:
        members = {info.filename: info.file_size for info in archive.infolist()}
    alone = seen(server, put(samples["graph.dlc"], folder, "alone.dlc"))
    found = table(alone, "members")
    assert dict(zip(found["member"], found["bytes"], strict=True)) == members
    assert "2.47" in json.dumps(alone["facts"])
    assert "graph" not in alone
    put(samples["graph.json"], folder)
    nodes = json.loads(samples["graph.json"].read_text())["graph"]["nodes"]
    for name in (put(samples["graph.dlc"], folder), f"{folder.name}/graph.json"):
        document = seen(server, name)
        assert dict(zip(*list(table(document, "QNN ops").values())[:2], strict=True)) == {
            op: node["type"] for op, node in nodes.items()
        }
        drawn = {n["name"]: n["type"] for n in document["graph"]["nodes"] if n["type"] not in ("Input", "Output")}
        assert drawn == {op: node["type"] for op, node in nodes.items()}
        assert any(kind and kind.endswith("ufixed8") for *_, kind in document["graph"]["edges"])


@pytest.mark.parametrize("layout", encoding_files.FORMATS)
def test_encodings_of_every_version(server: Server, folder: Path, walk: dict[str, Any], layout: Any) -> None:
    frame = walk["quantized"].frame
    activations = frame[frame["kind"] == "activation"].set_index("tensor")
    names = list(activations.index)
    if layout == "2.0.0":
        entries = [
            {"name": n, "output_dtype": "uint8", "y_scale": float(r["scale"]), "y_zero_point": int(r["zero_point"])}
            for n, r in activations.iterrows()
        ]
        content: dict[str, Any] = {"version": layout, "encodings": entries}
    else:
        grids = {
            n: {"bitwidth": 8, "min": r["min"], "max": r["max"], "scale": r["scale"], "offset": -int(r["zero_point"])}
            for n, r in activations.iterrows()
        }
        body: Any = grids
        if layout == "0.6.1":
            body = {n: [{**g, "dtype": "int", "is_symmetric": "False"}] for n, g in grids.items()}
        if layout == "1.0.0":
            body = [
                {
                    "name": n, "enc_type": "PER_TENSOR", "dtype": "INT", "bw": 8, "is_sym": False, "scale": [g["scale"]],
                    "offset": [g["offset"]],
                }
                for n, g in grids.items()
            ]  # fmt: skip
        content = {"activation_encodings": body, "param_encodings": [] if layout == "1.0.0" else {}}
        content |= {} if layout == "flat" else {"version": layout}
    (folder / f"{layout}.json").write_text(json.dumps(content))
    found = table(seen(server, f"{folder.name}/{layout}.json"), "encodings")
    assert found["tensor"] == names
    assert set(found["bits"]) == {8}
    np.testing.assert_allclose(found["scale"], activations["scale"], rtol=1e-6)
    np.testing.assert_allclose(found["offset"], -activations["zero_point"].astype(int))
    np.testing.assert_allclose(found["max"], activations["max"], rtol=1e-5)
    np.testing.assert_allclose(found["min"], activations["min"], rtol=1e-5, atol=1e-7)


def test_per_channel_encodings_have_their_span(
    server: Server, folder: Path, samples: dict[str, Path], walk: dict[str, Any]
) -> None:
    found = table(seen(server, put(samples["model.encodings.json"], folder)), "encodings")
    channels = dict(zip(found["tensor"], found["channels"], strict=True))
    assert channels == dict(zip(walk["quantized"].frame["tensor"], walk["quantized"].frame["channels"], strict=True))
    spans = [s for s, c in zip(found["scale"], found["channels"], strict=True) if c > 1]
    assert spans
    assert all(isinstance(s, str) and " … " in s for s in spans)


@pytest.mark.slow
def test_every_saved_result_is_shown_as_its_own_report(server: Server, folder: Path, walk: dict[str, Result]) -> None:
    for kind, result in walk.items():
        result.save(folder / kind)
        expected = result.report()
        for path in (kind, f"{kind}/result.json"):
            document = seen(server, f"{folder.name}/{path}")
            assert json.loads(json.dumps(expected)) == document, kind


# --- what they withstand ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["model.onnx", "context_ctx.onnx", "context_qnn.bin", "graph.dlc", "graph.json", "model.encodings.json"]
)
def test_cut_and_damaged_files_are_an_error_or_a_view_and_the_server_lives(
    server: Server, folder: Path, samples: dict[str, Path], name: str
) -> None:
    whole = samples[name].read_bytes()
    rng = np.random.default_rng(0)
    damaged = [
        whole[:cut] for cut in sorted({0, 1, 7, 100, len(whole) - 1, *(len(whole) * k // 9 for k in range(1, 9))})
    ]
    for _ in range(8):
        noisy = np.frombuffer(whole, np.uint8).copy()
        noisy[rng.integers(0, len(noisy), 1 + len(noisy) // 200)] = rng.integers(0, 256)
        damaged.append(noisy.tobytes())
    damaged += [b"\0" * 4096, rng.bytes(4096), pickle.dumps(print), b"[" * 100_000, b'{"a":' * 50_000]
    for number, content in enumerate(damaged):
        (folder / f"{number}-{name}").write_bytes(content)
        reply = server.view(f"{folder.name}/{number}-{name}")
        assert reply.status in (200, 422), (number, reply.body)
        if reply.status == 422:
            assert reply.body["message"], number
            assert reply.body["hint"], number
            assert "should not happen" not in json.dumps(reply.body), (number, reply.body)
    cut = [server.view(f"{folder.name}/{n}-{name}").status for n in range(4)]
    assert name == "context_qnn.bin" or set(cut) == {422}, "nothing is made of a few bytes"
    assert server.alive


def test_damaged_results_are_errors_and_nothing_in_them_is_run(
    server: Server, folder: Path, samples: dict[str, Path]
) -> None:
    put(samples["result"], folder)
    result = folder / "result"
    good = (result / "result.json").read_text()
    flag = folder / "was-run"

    class Evil:
        def __reduce__(self) -> Any:
            return Path.touch, (flag,)

    wrong = [
        good[: len(good) // 2], "{}", "null", good.replace('"kind": "profile"', '"kind": "os:system"'),
        good.replace("frame.json", "../../../secret.json"), good.replace("frame.json", "/etc/passwd"),
        good.replace('"$frame"', '"$pickle"'), "[" * 100_000,
    ]  # fmt: skip
    for content in wrong:
        (result / "result.json").write_text(content)
        reply = server.view(f"{folder.name}/result")
        assert (reply.status, bool(reply.body["message"])) == (422, True), content[:80]
    content = json.loads(good)
    content["fields"]["ops"] = {"$array": "evil.npy"}
    np.save(result / "evil.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    (result / "result.json").write_text(json.dumps(content))
    assert server.view(f"{folder.name}/result").status == 422
    assert not flag.exists()
    assert server.alive


@pytest.mark.slow
def test_a_parser_that_needs_too_much_time_or_memory_is_ended(server: Server, folder: Path) -> None:
    """An ONNX file with a hundred thousand tiny ops is quick; JSON that swells is not let grow; neither blocks others."""
    nodes = [helper.make_node("Relu", [f"t{n}"], [f"t{n + 1}"], name=f"op{n}") for n in range(100_000)]
    graph = helper.make_graph(
        nodes, "long", [helper.make_tensor_value_info("t0", 1, [1])], [helper.make_tensor_value_info("t100000", 1, [1])]
    )
    onnx.save(helper.make_model(graph, ir_version=10), folder / "long.onnx")
    (folder / "swelling.json").write_bytes(b"[" + b"[]," * 20_000_000 + b"[]]")
    start = time.monotonic()
    long = server.view(f"{folder.name}/long.onnx")
    assert long.status == 200
    assert len(long.body["graph"]["nodes"]) == 5000
    assert len(table(long.body, "ops")["op"]) == 10_000
    assert any("first 5,000 of" in note for note in long.body["notes"])
    assert any("first 10,000 of 100,000" in note for note in long.body["notes"])
    assert server.view(f"{folder.name}/swelling.json").status == 422
    assert time.monotonic() - start < 4 * TIMEOUT_S
    assert server.alive


def test_figures_that_json_has_no_words_for(server: Server, folder: Path) -> None:
    model = helper.make_model(
        helper.make_graph(
            [
                helper.make_node("LeakyRelu", ["x"], ["y"], alpha=math.nan),
                helper.make_node("Elu", ["y"], ["z"], alpha=math.inf),
            ],
            "g",
            [helper.make_tensor_value_info("x", 1, [1])],
            [helper.make_tensor_value_info("z", 1, [1])],
        ),
        ir_version=10,
    )
    onnx.save(model, folder / "nan.onnx")
    nodes = seen(server, f"{folder.name}/nan.onnx")["graph"]["nodes"]
    assert [node["facts"]["alpha"] for node in nodes[:2]] == [None, "inf"]
