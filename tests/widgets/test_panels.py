"""Workbench, dashboard and report card without a browser.

Oracles: the steps themselves, called with the line that the widget shows; processes and threads of this machine; the real
compiler and simulator.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from ipywidgets import Widget

from qnb.errors import BadInput, UnknownName
from qnb.faces import face as faces
from qnb.faces.binding import parse
from qnb.magics import words
from qnb.runtime import client
from qnb.widgets import BackendDashboard, ReportCard, Workbench
from tests import nets
from tests.processes import wait_until


@pytest.fixture(autouse=True)
def nothing_is_left():
    before = {t for t in threading.enumerate() if t.name.startswith("qnb-task-")}
    yield
    Widget.close_all()
    after = {t for t in threading.enumerate() if t.name.startswith("qnb-task-")}
    assert {t for t in after - before if t.is_alive()} == set()
    assert not any(worker.busy for worker in client.workers())


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 1, 4, 8, 8)).astype(np.float32)


def press(panel, **message):
    """Do as the view does."""
    panel._handle_custom_msg(message, [])


def same(line: str, namespace: dict) -> object:
    """Do what a line says, as the magic would."""
    step, *tokens = words.texts(line.partition("%qnn ")[2])
    args, kwargs = parse(faces.face(step), tokens, lambda p, word: namespace.get(word, word), usage="")
    return faces.face(step).function(*args, **kwargs)


def test_the_whole_workflow(here, images):
    namespace: dict = {"images": images}
    path = nets.convolutions(here / "net.onnx", layers=2, channels=4, size=8)
    bench = Workbench(path, images, namespace=namespace)
    assert bench.line("calibrate") == "quantized = %qnn calibrate model images"
    bench.set("profile", runs="3")
    press(bench, do="set", card="estimate", name="soc", value=["SM8650", "SM8550"])
    assert bench.line("context") == "compiled = %qnn context quantized --soc SM8650,SM8550"
    press(bench, do="run")
    assert bench.wait(120)
    assert {name: state["state"] for name, state in bench.states.items()} == dict.fromkeys(bench.states, "done")
    assert list(namespace) == ["images", "model", "quantized", "estimated", "compiled", "inferred", "timing", "card"]
    assert [c.soc.part for c in namespace["compiled"]] == ["SM8650", "SM8550"]
    assert bench.line("report").startswith("card = %qnn report quantized estimated compiled inferred timing")
    again = same(bench.line("infer"), namespace)
    assert again.frame.equals(namespace["inferred"].frame)
    assert bench.results["infer"]["tables"][0]["rows"][0][0] == "y"
    assert bench.pictures["profile"]["png"].startswith(b"\x89PNG")
    press(bench, do="choose", card="profile", chart=1)
    assert "slowest" in bench.pictures["profile"]["alt"]
    assert (here / "report.html").exists()


def test_names_are_the_users(here, digits):
    namespace = {"mine": digits.model, "digits_images": digits.train[:20], "quantized": "taken"}
    bench = Workbench(digits.model, digits.train[:20], namespace=namespace)
    assert bench.state("export").state == "done"
    assert bench.line("calibrate") == "quantized = %qnn calibrate mine data"  # another array of the same values
    bench.set("calibrate", target="q8", precision="w8a16", data="digits_images")
    assert bench.line("calibrate") == "q8 = %qnn calibrate mine digits_images --precision w8a16"
    assert bench.line("context").startswith("compiled = %qnn context q8 ")
    bench.run("calibrate")
    bench.wait()
    assert namespace["q8"].precision == "w8a16"
    assert namespace["quantized"] == "taken"
    bench.set("calibrate", target="other")
    assert namespace["other"] is namespace["q8"]


def test_an_error_shows_in_its_card(here, images):
    bench = Workbench(None, images, namespace={})
    press(bench, do="run", card="calibrate")
    bench.wait()
    state = bench.state("calibrate")
    assert state.state == "failed"
    assert state.error is not None
    assert state.error["kind"] == "UnknownName"
    assert "'model'" in state.error["what"]
    press(bench, do="set", card="calibrate", name="target", value="no name")
    assert "can't name a variable" in bench.problem["what"]
    press(bench, do="run", card="calibrat")
    assert "did you mean calibrate" in bench.problem["hint"]
    press(bench, do="nonsense")
    assert "nonsense" in bench.problem["what"]


def test_an_error_that_is_none_of_ours_is_not_lost(here, monkeypatch):
    bench = Workbench(namespace={})
    monkeypatch.setattr(bench._cards["export"], "run", lambda namespace: 1 / 0)
    bench.run("export")
    bench.wait()
    state = bench.state("export")
    assert state.error is not None
    assert state.error["kind"] == "ZeroDivisionError"
    assert "Traceback" in bench.results["export"]["log"]


def test_all_cards_stop_where_one_failed(here, images):
    bench = Workbench("nowhere.onnx", images, namespace={})
    bench.run()
    bench.wait()
    states = [state["state"] for state in bench.states.values()]
    assert states == ["failed", *["idle"] * (len(states) - 1)]


def test_a_compile_is_cancelled_and_what_came_before_is_kept(here, slow, cache_folder):
    namespace: dict = {}
    bench = Workbench(slow, namespace=namespace)
    bench.set("context", build="model")
    bench.run("context")
    wait_until(lambda: bench.state("context").state == "running" and bench.state("context").text, 60, "it compiles")
    with pytest.raises(BadInput, match="running"):
        bench.run("export")
    time.sleep(0.3)
    start = time.monotonic()
    press(bench, do="cancel")
    assert bench.wait(10)
    assert time.monotonic() - start < 6
    assert bench.state("context").state == "cancelled"
    assert namespace == {"model": slow}
    assert not any(worker.busy for worker in client.workers())
    assert bench.state("export").state == "done"


def test_closing_ends_the_thread(here, slow, cache_folder):
    bench = Workbench(slow, namespace={})
    bench.set("context", build="model")
    bench.run("context")
    wait_until(lambda: bench.state("context").state == "running", 30, "it runs")
    bench.close()
    assert not any(t.name == "qnb-task-context" and t.is_alive() for t in threading.enumerate())
    with pytest.raises(BadInput, match="closed"):
        bench.run("context")


def test_the_dashboard_shows_the_tables_figures_with_their_sources(digits, here):
    namespace: dict = {"labels": digits.labels[:8]}
    board = BackendDashboard(
        digits.model, digits.quantized, digits.test[:8], labels=namespace["labels"], socs=["SM8550"],
        namespace=namespace,
    )  # fmt: skip
    board.set("compare", runs="3")
    board.run()
    assert board.wait(120)
    assert [state["state"] for state in board.states.values()] == ["done"] * 3
    frame = namespace["comparison"].frame
    (row,) = frame[(frame["backend"] == "htp") & (frame["precision"] == "w8a8")].itertuples()
    (tile,) = [t for t in board.tiles if t["group"] == "htp" and t["name"] == "w8a8 SQNR"]
    assert float(tile["value"]) == pytest.approx(row.sqnr_db, abs=0.05)
    assert tile["source"] == "simulator†"
    assert {t["group"] for t in board.tiles} == {"htp", "gpu", "cpu", "Snapdragons, htp"}
    assert all(t["source"] for t in board.tiles)
    assert (
        board.line("compare")
        == "comparison = %qnn compare model quantized --data data --labels labels --soc SM8550 --runs 3"
    )


def test_a_card_of_two_results_keeps_to_one_caption(walk):
    card = ReportCard(walk["check"], walk["profile"])
    captions = [r["charts"] for r in card.results.values()]
    assert captions[0] != captions[1]
    both = ReportCard(walk["profile"], walk["profile"])
    press(both, do="choose", card="left", chart=2)
    assert both.pictures["left"]["alt"] == both.pictures["right"]["alt"] != card.pictures["right"]["alt"]
    with pytest.raises(BadInput, match="no chart 99"):
        both.choose("left", 99)
    with pytest.raises(UnknownName):
        both.choose("middle", 0)


def test_every_kind_of_result_has_a_card(walk):
    for kind, result in walk.items():
        card = ReportCard(result)
        assert card.results["left"]["tables"], kind
        assert card.pictures["left"]["png"] or not len(result.frame) or card.pictures["left"]["problem"], kind


def test_a_saved_result_opens(walk, tmp_path):
    walk["profile"].save(tmp_path / "timing")
    assert ReportCard(tmp_path / "timing").results["left"]["title"] == walk["profile"].title
    with pytest.raises(BadInput, match="not a result"):
        ReportCard(7)  # type: ignore[arg-type]


def test_public_names():
    import qnb.widgets

    assert set(qnb.widgets.__all__) == {"BackendDashboard", "CalibrationExplorer", "ReportCard", "Workbench"}
    assert qnb.__version__
