"""The routes of the server extension, asked over HTTP.

Oracles: jupyter_server's authentication and its root, the file system, the results' own frames, the process table.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import qnb
from qnb.faces import face
from tests.conftest import Digits
from tests.processes import output_of, python, wait_until, workers_under
from tests.server.conftest import MAX_MB, Server

ROUTES = [
    ("GET", "qnb/view?path=x"), ("GET", "qnb/doctor"), ("GET", "qnb/socs"), ("PUT", "qnb/target"), ("GET", "qnb/workspace"),
    ("GET", "qnb/jobs"), ("DELETE", "qnb/jobs/x"), ("GET", "qnb/steps"),
]  # fmt: skip
HOSTILE = [
    "<script>alert(1)<script>.json", "\"quotes' & <b>.json", "new\nline\ttab.json", "\u202eгнp.json", "%2e%2e.json",
    "ünï 日本.json",
]  # fmt: skip
ENCODINGS = {"activation_encodings": {}, "param_encodings": {}}


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("token", ["", "wrong"])
def test_who_is_not_known_is_refused(server: Server, method: str, path: str, token: str) -> None:
    reply = server.ask(method, path, {"soc": "SM8550"} if method == "PUT" else None, token=token)
    assert reply.status == 403
    assert "SM8" not in json.dumps(reply.body)
    assert not (server.state / "target.json").exists()


# --- paths --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["../secret.json", "/etc/passwd", "a/../../secret.json", "..", "../root-2/x.json", "..%2fsecret.json"]
)
def test_paths_out_of_the_root_are_refused(server: Server, path: str) -> None:
    (server.root.parent / "secret.json").write_text(json.dumps(ENCODINGS))
    sibling = server.root.parent / "root-2"
    sibling.mkdir(exist_ok=True)
    (sibling / "x.json").write_text(json.dumps(ENCODINGS))
    reply = server.view(path)
    assert reply.status in (403, 404)
    assert reply.body["message"]
    assert "tables" not in reply.body


def test_links_out_of_the_root_are_refused_and_those_within_are_followed(server: Server, folder: Path) -> None:
    (server.root.parent / "outside").mkdir(exist_ok=True)
    for where in (folder, server.root.parent / "outside"):
        (where / "e.json").write_text(json.dumps(ENCODINGS))
    (folder / "out.json").symlink_to(server.root.parent / "outside" / "e.json")
    (folder / "out").symlink_to(server.root.parent / "outside")
    (folder / "in.json").symlink_to(folder / "e.json")
    (folder / "loop.json").symlink_to(folder / "loop.json")
    (folder / ".hidden.json").write_text(json.dumps(ENCODINGS))
    (folder / "to-hidden.json").symlink_to(folder / ".hidden.json")
    expected = {
        "out.json": 403, "out/e.json": 403, "in.json": 200, "loop.json": 404, ".hidden.json": 404, "to-hidden.json": 404,
        "missing.json": 404, "e.json": 200,
    }  # fmt: skip
    assert {name: server.view(f"{folder.name}/{name}").status for name in expected} == expected


def test_what_is_no_file_to_view_is_an_error_in_words(server: Server, folder: Path) -> None:
    (folder / "text.txt").write_text("hello")
    (folder / "empty").mkdir()
    os.mkfifo(folder / "pipe.onnx")
    assert server.ask("GET", "qnb/view").status == 400
    for name in ("text.txt", "empty", "pipe.onnx", ""):
        reply = server.view(f"{folder.name}/{name}")
        assert (reply.status, sorted(reply.body)) == (422, ["hint", "message"])
        assert reply.body["hint"]


@pytest.mark.parametrize("suffix", [".onnx", ".bin", ".dlc", ".json"])
def test_a_file_that_is_too_large_is_not_read(server: Server, folder: Path, suffix: str) -> None:
    path = folder / f"large{suffix}"
    with path.open("wb") as file:
        file.truncate(1_000_000_000)  # sparse: it takes no room
    start = time.monotonic()
    reply = server.view(f"{folder.name}/{path.name}")
    assert time.monotonic() - start < 5  # reading it takes longer
    assert reply.status == 413
    assert f"{MAX_MB} MB" in reply.body["message"]
    path.unlink()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_come_back_as_they_are(server: Server, folder: Path, name: str) -> None:
    entry = {"bitwidth": 8, "min": 0.0, "max": 1.0, "scale": 1 / 255, "offset": 0}
    (folder / name).write_text(json.dumps({"activation_encodings": {name: entry}, "param_encodings": {}}))
    reply = server.view(f"{folder.name}/{name}")
    assert reply.status == 200
    assert reply.type.startswith("application/json")
    assert reply.body["tables"][0]["rows"][0][0] == name
    assert ["file", name] in reply.body["facts"]


# --- the rest -----------------------------------------------------------------------------------------------------


def test_the_view_is_read_again_when_the_file_changes_and_only_then(server: Server, folder: Path) -> None:
    path = folder / "e.json"
    seen = []
    for names in (["a"], ["a"], ["a", "b"]):
        content = {
            "activation_encodings": {n: {"bitwidth": 8, "min": 0, "max": 1} for n in names},
            "param_encodings": {},
        }
        if not path.exists() or path.read_text() != json.dumps(content):
            path.write_text(json.dumps(content))
        start = time.monotonic()
        seen.append((len(server.view(f"{folder.name}/e.json").body["tables"][0]["rows"]), time.monotonic() - start))
    assert [count for count, _ in seen] == [1, 1, 2]
    assert seen[1][1] < min(seen[0][1], 0.1), "no process was started for it"


def test_doctor_is_what_the_step_answers(server: Server) -> None:
    document = server.ask("GET", "qnb/doctor").body
    assert document["kind"] == "doctor"
    found = {(row[0], row[1]): row[2] for row in document["tables"][0]["rows"]}
    assert found["runtime", "2.3.0"] == "ok"
    assert found["backend", "htp (2.3.0)"] == "ok"


def test_socs_are_those_that_can_be_built_for(server: Server) -> None:
    body = server.ask("GET", "qnb/socs").body
    parts = {soc["part"]: soc for soc in body["socs"]}
    assert body["target"] == "SM8650"
    assert (parts["SM8650"]["hexagon_arch"], parts["SM8650"]["fp16"]) == ("v75", True)
    assert all(qnb.socs.find(part).usable for part in parts)


def test_the_target_is_followed_by_new_and_running_pythons(server: Server, tmp_path: Path) -> None:
    show = "import qnb; print(qnb.settings.soc)"
    state = {"QNB_STATE_DIR": str(server.state)}
    follow = """
    import sys, qnb, time
    print(qnb.settings.soc, flush=True)
    while qnb.settings.soc == "SM8650": time.sleep(0.01)
    print(qnb.settings.soc)
    qnb.settings.soc = "SM8750"
    print(qnb.settings.soc)
    """
    with python(follow, cache=tmp_path, **state) as running:
        assert running.stdout is not None
        assert running.stdout.readline().strip() == "SM8650"
        assert server.ask("PUT", "qnb/target", {"soc": "snapdragon 8 gen 2"}).body == {"target": "SM8550"}
        assert running.communicate(timeout=20)[0].split() == ["SM8550", "SM8750"]
    assert server.ask("GET", "qnb/socs").body["target"] == "SM8550"
    assert output_of(show, cache=tmp_path, **state).strip() == "SM8550"
    assert output_of(show, cache=tmp_path, **state, QNB_SOC="SM8450").strip() == "SM8450"
    for wrong, status in {"SM9999": 422, "": 422}.items():
        reply = server.ask("PUT", "qnb/target", {"soc": wrong})
        assert (reply.status, bool(reply.body["message"])) == (status, True)
    assert server.ask("PUT", "qnb/target", {"soc": 3}).status == 400
    assert server.ask("PUT", "qnb/target", ["SM8550"]).status == 400
    assert output_of(show, cache=tmp_path, **state).strip() == "SM8550"
    (server.state / "target.json").unlink()


@pytest.mark.parametrize(
    "content", ["", "{", '{"soc": 3}', '{"soc": "SM9999"}', "[" * 4000, '{"soc": "QCS610"}', "\0\xff"]
)
def test_a_target_file_that_can_not_be_used_is_passed_over_and_doctor_says_why(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qnb.defaults import target
    from qnb.steps.doctor import _target

    monkeypatch.setenv("QNB_STATE_DIR", str(tmp_path))
    (tmp_path / "target.json").write_bytes(content.encode("latin-1"))
    assert qnb.settings.soc == "SM8650"
    assert target()[0] == ""
    component, name, state, _, detail, remedy = _target()
    assert (component, name, state) == ("target", "SM8650", "failed")
    assert "target.json" in detail
    assert remedy


def test_the_workspace_lists_results_with_their_lineage_and_files(server: Server, folder: Path, digits: Digits) -> None:
    context = digits.contexts["SM8650"]
    digits.model.save(folder / "model")
    digits.quantized.save(folder / "deep" / "quantized")
    context.save(folder / "context")
    estimate = qnb.infer(digits.quantized, digits.test[:2])
    estimate.save(folder / "inference")
    (folder / "plain.onnx").write_bytes(digits.model.path.read_bytes())
    (folder / "data.bin").write_bytes(b"no context binary: an ONNX file lies beside, though")
    (folder / "not").mkdir()
    (folder / "not" / "result.json").write_text('{"kind": "model"}')
    (folder / "not" / "alone.bin").write_bytes(b"x")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "x.onnx").write_bytes(b"")
    body = server.ask("GET", "qnb/workspace").body
    assert body["root"] == str(server.root)
    assert not body["cut"]
    entries = {
        e["path"].removeprefix(f"{folder.name}/"): e for e in body["entries"] if e["path"].startswith(folder.name)
    }
    assert set(entries) == {"model", "deep/quantized", "context", "inference", "plain.onnx", "data.bin"}
    assert entries["context"]["soc"] == "SM8650"
    assert entries["context"]["digest"] == context.digest
    assert entries["context"]["parents"] == [digits.quantized.digest]
    assert entries["deep/quantized"]["parents"] == [digits.model.digest]
    assert "300 samples" in entries["deep/quantized"]["calibration"]
    assert entries["inference"]["parents"] == [digits.quantized.digest[:12]]
    assert entries["model"]["title"] == digits.model.title
    assert entries["plain.onnx"]["bytes"] == digits.model.path.stat().st_size


def test_the_workspace_is_searched_within_bounds(tmp_path: Path) -> None:
    from qnb.server.workspace import search

    deep = tmp_path
    for number in range(12):
        deep = deep / f"d{number}"
        deep.mkdir()
        (deep / f"{number}.onnx").write_bytes(b"")
    (tmp_path / "round").symlink_to(tmp_path)
    found = search(tmp_path, hidden=False, depth=6, most=100, seconds=10)
    assert [e["title"] for e in found["entries"]] == [f"{n}.onnx" for n in range(6)]
    assert found["cut"]
    assert search(tmp_path, hidden=False, depth=50, most=3, seconds=10)["cut"]
    assert search(tmp_path, hidden=False, depth=50, most=100, seconds=0)["cut"]
    assert not search(tmp_path, hidden=False, depth=50, most=100, seconds=10)["cut"]


COMPILE = """
import sys, qnb
from qnb.errors import Interrupted
model = qnb.load(sys.argv[1])
try:
    qnb.context(model, soc=["SM8650", "SM8550", "SM8450"], rebuild=True)
except Interrupted as error:
    print("stopped:", error.what)
"""


def test_a_compile_in_another_process_is_listed_and_stopped(
    server: Server, saved: Path, session_folder: Path, tmp_path: Path
) -> None:
    with python(COMPILE, saved / "slow", cache=tmp_path / "cache", QNB_STATE_DIR=str(server.state)) as process:
        try:
            jobs: list[dict[str, Any]] = []

            def compiles() -> bool:
                jobs[:] = server.ask("GET", "qnb/jobs").body["jobs"]
                return bool(jobs) and bool(workers_under(tmp_path / "cache"))

            wait_until(compiles, 60, "a job that compiles")
            (job,) = jobs
            assert job["pid"] == process.pid
            assert "3 SoCs" in job["title"]
            assert (job["total"], job["cancelled"]) == (3, False)
            time.sleep(0.3)
            start = time.monotonic()
            assert server.ask("DELETE", f"qnb/jobs/{job['id']}").status == 204
            wait_until(lambda: not server.ask("GET", "qnb/jobs").body["jobs"], 5, "the end of the job")
            assert time.monotonic() - start < 5
            out, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    assert "stopped:" in out
    assert not workers_under(tmp_path / "cache")


@pytest.mark.parametrize("name", ["nothing", "..%2f..%2fx", "%00", "<script>"])
def test_a_job_that_is_not_there_is_not_found(server: Server, name: str) -> None:
    reply = server.ask("DELETE", f"qnb/jobs/{name}")
    assert reply.status == 404
    assert server.alive


def test_steps_are_those_of_the_faces(server: Server) -> None:
    steps = {step["name"]: step for step in server.ask("GET", "qnb/steps").body["steps"]}
    assert tuple(steps) == face.names()
    context = steps["context"]
    assert context["line"].startswith("%qnn context")
    options = {option["name"]: option for option in context["options"]}
    assert options["--soc"]["kind"].startswith("SOC")
    assert "--executor" not in options, "no word stands for an object"
    assert options["--fp32"] | {"help": ""} == {
        "name": "--fp32",
        "help": "",
        "kind": "flag",
        "choices": [],
        "default": "off",
    }
    assert all(option["help"] for step in steps.values() for option in step["options"])
    assert steps["profile"]["options"][0]["kind"] == "model"


def test_no_process_of_a_viewer_is_left(server: Server) -> None:
    server_process = psutil.Process(server.process.pid)
    assert [p.pid for p in server_process.children(recursive=True) if "qnb.server.parsing" in p.cmdline()] == []
