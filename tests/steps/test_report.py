"""Report. Oracles: the results that went in, Python's HTML parser, pandas reading the CSV set back, and the file system."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import pytest

import qnb
from qnb.display import card as cards
from qnb.errors import ArtifactError, BadInput
from qnb.steps import _report_parts as parts
from tests import nets
from tests.display.test_card import Page
from tests.steps.oracles import noise

SECTIONS = [
    "Findings", "Model", "Precision", "Choice of a backend", "Placement", "Time", "Latency by SoC", "Performance advice",
    "Accuracy, layer by layer", "Accuracy of the outputs", "Comparison", "Sensitivity", "Mixed precision", "Compilation",
    "Compilation", "This machine", "Not in this card", "Provenance",
]  # fmt: skip


@pytest.fixture(scope="session")
def page(walk: dict[str, Any]) -> Page:
    return Page(walk["report"].files["html"].read_text(encoding="utf-8"))


def test_the_card_says_what_the_times_of_the_ops_add_up_to(walk):
    timing = walk["profile"]
    text = walk["report"].files["html"].read_text(encoding="utf-8")
    total, median = timing.ops["time_ms"].sum(), timing.frame.set_index("backend").loc["htp", "median_ms"]
    assert f"op profiler on, {total:.3g} ms, not to the median latency of the timed runs, {median:.3g} ms" in text


def test_every_result_has_its_section_in_the_order_of_the_workflow(walk, page):
    report = walk["report"]
    made = report.frame[report.frame["state"] == "made"]
    assert list(made["section"]) == SECTIONS
    assert set(report.frame["state"]) == {"made"}
    assert len(page.all("section")) == len(made)
    assert len(page.all("img")) == made["charts"].sum() >= 20
    assert report.title.endswith(f"{len(made)} sections, {len(page.all('img'))} charts")
    assert not [caption for caption in page.texts if re.search(r", chart \d", caption)]  # each chart says what it shows


def test_what_is_missing_is_said_with_the_line_that_makes_it(digits, tmp_path):
    frame = qnb.report(digits.model, file=tmp_path / "card.html", place=False).frame
    missing = frame[frame["state"] == "missing"].set_index("section")["remark"]
    assert "qnb.estimate(build" in missing["latency on other Snapdragons"]


def test_the_page_needs_nothing_beside_it(walk, page):
    text = re.sub(r"base64,[\w+/=]+", "", walk["report"].files["html"].read_text(encoding="utf-8"))
    assert not re.search(r"""(src|href)=["'](?!#|data:image/)""", text)
    assert not re.search(r"https?://", text)


def test_tables_are_those_of_the_results(walk, page):
    titles = [t for t in page.texts if t.strip()]
    assert "backends" in " ".join(titles)
    profile = walk["profile"].frame
    turned = [rows for rows in page.tables if [row[0] for row in rows] == list(profile.columns)]
    (found,) = turned  # three rows of many columns: a line for each column
    shown = {name: cells for name, *cells in found}
    assert shown["backend"] == list(profile["backend"])
    assert [float(c.replace(",", "")) for c in shown["mean_ms"]] == pytest.approx(list(profile["mean_ms"]), rel=0.006)
    assert shown["source"] == [f"{source}†" for source in profile["source"]]
    ops = walk["profile"].ops
    (found,) = [rows for rows in page.tables if rows[0] == list(ops.columns)]
    assert [row[0] for row in found[1:]] == list(ops["op"])


def test_the_csv_set_is_whole_and_reads_back(walk):
    report = walk["report"]
    folder = report.files["index.csv"].parent
    assert folder.name == "report-csv"
    index = pd.read_csv(report.files["index.csv"])
    assert set(index["file"]) | {"index.csv"} == {p.name for p in folder.iterdir()} == set(report.files) - {"html"}
    assert len(index) == report.frame["tables"].sum()
    for row in index.itertuples():
        assert len(pd.read_csv(folder / row.file)) == row.rows
    for name, frame in {
        "time-backends.csv": walk["profile"].frame,
        "time-ops-on-htp.csv": walk["profile"].ops,
        "time-timed-runs.csv": walk["profile"].runs,
        "model-ops.csv": walk["model"].frame,
        "precision-encodings.csv": walk["quantized"].frame,
        "comparison-builds-and-backends.csv": walk["comparison"].frame,
        "compilation-2-contexts.csv": walk["contexts"].frame,
    }.items():
        read = pd.read_csv(folder / name)
        assert list(read.columns) == list(frame.columns)
        for column in frame.columns:
            if frame[column].dtype.kind in "iuf":
                np.testing.assert_array_equal(read[column], frame[column].astype(float))


def test_the_headline_is_what_the_results_say(walk):
    rows = walk["report"].headline.set_index("figure")
    estimated = walk["estimate"].frame.set_index("soc").loc["SM8650"]  # nearer to a device than the simulator
    assert rows.loc["latency", "value"] == estimated["latency_ms"]
    assert rows.loc["latency", "source"] == estimated["source"] == "transferred"
    outputs = walk["check"].outputs
    on_npu = outputs[outputs["source"] != "host"].iloc[0]
    assert rows.loc["accuracy on labels", "value"] == pytest.approx(100 * on_npu["accuracy"])
    assert rows.loc["SQNR against fp32", "value"] == on_npu["sqnr_db"]
    assert rows.loc["size", "value"] == max(c.size_bytes for c in walk["contexts"])
    assert rows.loc["work", "value"] == walk["model"].macs
    # 8 bits, and ReLU inside the convolution: what goes into the second one and what comes out of it.
    assert rows.loc["activations at the peak", "value"] == (16 + 32) * 8 * 8
    assert list(rows.loc[["activations at the peak", "work", "weights"], "source"]) == ["", "", ""]


def test_findings_come_first_and_once(walk, page):
    found = parts.findings_of(walk.values())
    assert len(found) == len(walk["check"].findings)
    heads = [rows[0] for rows in page.tables]
    assert sum(head[:3] == ["step", "id", "severity"] for head in heads) == bool(len(found))
    assert not any(head[:2] == ["id", "severity"] for head in heads)


def test_provenance_names_digests_and_versions(walk, page):
    said = " ".join(page.texts)
    for artifact in (walk["model"], walk["quantized"], *walk["contexts"]):
        assert artifact.digest in said
    assert qnb.__version__ in said
    assert walk["profile"].recipe.versions["qairt"] in said


# --- what is missing, and what is made ------------------------------------------------------------------------------


def test_a_build_alone_has_what_its_graph_tells_and_says_what_makes_the_rest(digits, tmp_path):
    report = qnb.report(digits.quantized, file=tmp_path / "card.html", place=False, tables=False, title="A <title>")
    made = report.frame[report.frame["state"] == "made"]
    assert list(made["section"]) == ["Findings", "Model", "Precision", "Not in this card", "Provenance"]
    assert made["charts"].sum() == 5
    assert list(report.files) == ["html"]
    assert [p.name for p in tmp_path.iterdir()] == ["card.html"]
    page = Page(report.files["html"].read_text(encoding="utf-8"))
    table = next(rows for rows in page.tables if rows[0] == ["missing", "why", "made by"])
    lines = [row[2] for row in table[1:]]
    assert lines[:2] == ["qnb.convert(build)", "qnb.profile(build)"]
    assert len(lines) == len(parts.WANTED) == 6
    assert "A <title>" in " ".join(page.texts)


def test_placement_is_asked_for_and_its_failure_said(digits, tmp_path, monkeypatch):
    report = qnb.report(digits.model, file=tmp_path / "card.html")
    assert "Placement" in list(report.frame["section"])

    def fails(*_: object, **__: object) -> None:
        raise qnb.errors.RuntimeUnavailable("no runtime <here>", hint="install one")

    monkeypatch.setattr("qnb.steps.convert.convert", fails)
    report = qnb.report(digits.model, file=tmp_path / "card.html")
    row = report.frame[report.frame["section"] == "which ops each backend takes"].iloc[0]
    assert (row["state"], row["remark"]) == ("missing", "no runtime <here>: qnb.convert(build)")


def test_run_makes_what_is_missing(digits, tmp_path):
    report = qnb.report(
        digits.quantized, file=tmp_path / "card.html", run=True, data=digits.test[:4], labels=digits.labels[:4]
    )
    assert list(report.frame.loc[report.frame["state"] == "made", "section"]) == [
        "Findings", "Model", "Precision", "Placement", "Time", "Accuracy, layer by layer", "Comparison", "Not in this card",
        "Provenance",
    ]  # fmt: skip
    assert "accuracy on labels" in list(report.headline["figure"])


def test_contexts_and_folders_of_saved_results(walk, tmp_path):
    walk["contexts"].save(tmp_path / "contexts")
    walk["profile"].save(tmp_path / "profile")
    report = qnb.report(
        str(tmp_path / "contexts"), tmp_path / "profile", file=tmp_path / "deep" / "card.html", place=False
    )
    sections = list(report.frame["section"])
    assert sections[:5] == ["Findings", "Model", "Precision", "Time", "Compilation"]
    assert report.files["html"] == tmp_path / "deep" / "card.html"
    one = qnb.report(walk["context"], file=tmp_path / "one.html", place=False, tables=False)
    assert "Compilation" in list(one.frame["section"])
    assert "Hexagon v75" in one.files["html"].read_text(encoding="utf-8")


def test_a_result_of_another_build_is_told(walk, digits, tmp_path):
    other = qnb.export(nets.convolutions(tmp_path / "net.onnx", layers=2, channels=4, size=8), name="other")
    report = qnb.report(other, walk["profile"], file=tmp_path / "card.html", place=False)
    text = report.files["html"].read_text(encoding="utf-8")
    assert f"quantized digits {digits.quantized.digest[:12]}, which is not the build of this card" in text
    assert "latency" not in list(report.headline["figure"])


def test_findings_of_another_build_are_not_this_ones(walk, digits, tmp_path):
    slow = qnb.export(nets.convolutions(tmp_path / "net.onnx", layers=2, channels=33, size=8), name="slow")
    found = qnb.debug(slow, ops=False)
    assert len(found.frame)
    alone = qnb.report(digits.quantized, found, file=tmp_path / "card.html", place=False)
    assert list(alone.frame["section"])[:4] == ["Findings", "Model", "Precision", "Performance advice of slow"]
    assert alone.frame["remark"].iloc[0] == "no result that looks for any is here"
    index = (tmp_path / "card-csv" / "index.csv").read_text(encoding="utf-8")
    assert f"Findings,findings of slow,findings-findings-of-slow.csv,{len(found.frame)}" in index
    own = qnb.report(slow, found, file=tmp_path / "own.html", place=False, tables=False)
    assert own.frame["remark"].iloc[0] != "no result that looks for any is here"
    assert "of slow" not in " ".join(own.frame["section"])


def test_the_roofline_has_the_ceilings_that_are_given(walk, tmp_path):
    ops = walk["profile"].ops
    macs = np.where(ops["op_type"] == "Conv", 1e6, 0.0)
    ops = ops.assign(macs=macs, bytes=1e4, intensity_macs_per_byte=macs / 1e4)
    import dataclasses

    timing = dataclasses.replace(walk["profile"], ops=ops)
    peaks = {"HMX": {"macs_per_cycle": 16384, "source": "published"}}
    report = qnb.report(walk["quantized"], timing, file=tmp_path / "card.html", place=False, peaks=peaks)
    page = Page(report.files["html"].read_text(encoding="utf-8"))
    assert "Achieved rate against arithmetic intensity" in [a["alt"] for a in page.all("img")]
    for wrong in ({"HMX": 3}, {"HMX": {"source": "x"}}, {"HMX": {"macs_per_cycle": 1, "speed": 2}}):
        with pytest.raises(BadInput, match="peaks: 'HMX' has to have"):
            qnb.report(walk["quantized"], file=tmp_path / "card.html", place=False, peaks=wrong)


# --- files --------------------------------------------------------------------------------------------------------


def test_an_earlier_card_is_replaced_and_nothing_else_is(digits, tmp_path):
    first = qnb.report(digits.model, file=tmp_path / "card.html", place=False, title="first")
    second = qnb.report(digits.quantized, file=tmp_path / "card.html", place=False, title="second")
    assert "second" in second.files["html"].read_text(encoding="utf-8")
    assert set(first.files) < set(second.files)
    assert {p.name for p in (tmp_path / "card-csv").iterdir()} == set(second.files) - {"html"}
    assert {p.name for p in tmp_path.iterdir()} == {"card.html", "card-csv"}
    (tmp_path / "thesis.html").write_text("<h1>years of work</h1>")
    with pytest.raises(BadInput, match="is no report card") as caught:
        qnb.report(digits.model, file=tmp_path / "thesis.html", place=False)
    assert caught.value.hint
    assert (tmp_path / "thesis.html").read_text() == "<h1>years of work</h1>"
    (tmp_path / "card-csv" / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="is no CSV set"):
        qnb.report(digits.model, file=tmp_path / "card.html", place=False)
    assert (tmp_path / "card-csv" / "mine.txt").read_text() == "mine"
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(BadInput, match="is no report card"):
        qnb.report(digits.model, file=tmp_path / "folder.html", place=False)


def test_after_an_error_the_earlier_card_stands(digits, tmp_path, monkeypatch):
    qnb.report(digits.model, file=tmp_path / "card.html", place=False)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}

    def full(*_: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cards, "csv_text", full)
    monkeypatch.setattr("qnb.steps.report.csv_text", full)
    with pytest.raises(qnb.errors.StorageError, match="disk is full"):
        qnb.report(digits.model, file=tmp_path / "card.html", place=False)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_bad_arguments(digits, tmp_path):
    with pytest.raises(BadInput, match="is not a result of a step"):
        qnb.report(digits.model, 3, file=tmp_path / "card.html")
    with pytest.raises(BadInput, match="nothing is run"):
        qnb.report(digits.model, file=tmp_path / "card.html", data=digits.test)
    with pytest.raises(ArtifactError):
        qnb.report(digits.model, tmp_path / "none", file=tmp_path / "card.html")
    assert list(tmp_path.iterdir()) == []


def hostile_network(path: Path) -> Path:
    """Names of ops and tensors that are HTML, a formula of a spreadsheet, a format."""
    model = onnx.load(nets.convolutions(path, layers=2, channels=4, size=8))
    names = {"r0": "<img src=x onerror=alert(1)>", "c1": "=cmd|'/c calc'!A1", "w1": "{{ 7*7 }}</script>"}
    for node in model.graph.node:
        node.name = f"</td><script>{node.name}</script>"
        for field in (node.input, node.output):
            field[:] = [names.get(n, n) for n in field]
    for tensor in model.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    onnx.save(model, path)
    return path


def test_names_in_a_model_are_text_in_its_card(tmp_path):
    model = qnb.export(hostile_network(tmp_path / "net.onnx"), simplify=False)
    quantized = qnb.calibrate(model, noise(2, 4, 8, 8))
    report = qnb.report(quantized, qnb.check(quantized, noise(2, 4, 8, 8)), file=tmp_path / "card.html", place=False)
    page = Page(report.files["html"].read_text(encoding="utf-8"))
    assert len(page.all("script")) == 1
    assert all(a["src"].startswith("data:image/") for a in page.all("img"))
    said = " ".join(page.texts)
    assert "<script>conv0</script>" in said
    assert "<img src=x onerror=alert(1)>" in said


@pytest.mark.slow
def test_a_thousand_ops_make_a_whole_card(tmp_path):
    model = qnb.export(nets.convolutions(tmp_path / "net.onnx", layers=500, channels=4, size=8), simplify=False)
    quantized = qnb.calibrate(model, noise(1, 4, 8, 8))
    timing = qnb.profile(quantized, backends=["htp"], runs=1, warmup=0)
    report = qnb.report(quantized, timing, file=tmp_path / "card.html", place=False)
    page = Page(report.files["html"].read_text(encoding="utf-8"))
    assert len(pd.read_csv(report.files["model-memory-over-the-graph.csv"])) == 1000
    assert max(len(rows) for rows in page.tables) <= cards.ROWS + 1
    assert len(page.all("img")) >= 9
    assert report.files["html"].stat().st_size < 8e6
    assert report.recipe.seconds < 60  # alone on two cores it took 5
