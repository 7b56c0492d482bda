"""Figures for a chip: tiers, intervals, reasons.

Oracles: the shipped table itself; rules that any latency keeps (more cycles do not take less); the stated limits.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from qnb.latency import CompilerCost, find, measurements, predict, published, targets, transfer
from qnb.latency.measured import coefficients
from qnb.latency.work import OpWork, Work
from tests.latency.inputs import dataset

DATA = dataset("float")
RESNET = DATA.names.index("resnet50")
WORK, COSTS = DATA.works[RESNET], DATA.costs[RESNET]
ELITE = 69


def test_an_estimate_is_near_its_measurement() -> None:
    found = predict(WORK, list(COSTS.values()), ELITE, precision="float")
    measured = next(
        r.ms
        for r in measurements()
        if (r.model, r.precision, r.path, r.soc_model) == ("resnet50", "float", "qnn_dlc", ELITE)
    )
    assert found.tier == "estimated"
    assert found.low_ms
    assert found.ms
    assert found.high_ms
    assert found.low_ms < found.ms < found.high_ms
    assert found.low_ms < measured < found.high_ms


@pytest.mark.parametrize("socs", [(52,), (72,), (52, 72)])
def test_one_compile_is_enough(socs: tuple[int, ...]) -> None:
    found = predict(WORK, [COSTS[soc] for soc in socs], ELITE, precision="float", path="onnx")
    assert found.ms is not None
    assert all({52: "v73", 72: "v81"}[soc] in found.reason for soc in socs)


def test_more_cycles_take_longer() -> None:
    more = [replace(cost, cycles=2 * cost.cycles) for cost in COSTS.values()]
    before, after = (predict(WORK, costs, ELITE, precision="float").ms for costs in (list(COSTS.values()), more))
    assert before
    assert after
    assert before < after < 2 * before


def test_every_fitted_chip_gives_a_figure() -> None:
    columns = coefficients()["precisions"]["float"]["columns"]
    for column in columns:
        path, _, soc = column.partition(":")
        assert predict(WORK, [COSTS[52]], int(soc), precision="float", path=path).ms
    assert {int(column.partition(":")[2]) for column in columns} <= {target.soc_model for target in targets()}


def _larger(factor: int) -> list[CompilerCost]:
    return [replace(COSTS[52], cycles=COSTS[52].cycles * factor)]


UNKNOWN = Work((*WORK.ops, OpWork("w", "made.up.Wonder", "unknown", 0, 0, 1, 1, 0)), WORK.edge)
RECURRENT = Work((*WORK.ops, OpWork("r", "GRU", "recurrent", 1, 1, 1, 1, 1)), WORK.edge)


@pytest.mark.parametrize(
    ("work", "costs", "soc", "precision", "more", "words"),
    [
        (WORK, [COSTS[52]], ELITE, "w4a8", {}, "w4a8"),
        (WORK, [COSTS[52]], 999, "float", {}, "not in the table"),
        (WORK, [COSTS[52]], ELITE, "float", {"path": "tflite"}, "tflite"),
        (WORK, [], ELITE, "float", {}, "no compile"),
        (WORK, [replace(COSTS[52], missing_ops=9)], ELITE, "float", {}, "9 ops"),
        (WORK, [COSTS[52]], ELITE, "float", {"cpu_ops": ["TopK_3"]}, "TopK_3"),
        (WORK, _larger(100_000), ELITE, "float", {}, "cycles"),
        (UNKNOWN, [COSTS[52]], ELITE, "float", {}, "made.up.Wonder"),
        (RECURRENT, [COSTS[52]], ELITE, "float", {}, "recurrent"),
    ],
)
def test_where_there_is_no_figure_the_reason_is_given(work, costs, soc, precision, more, words) -> None:
    found = predict(work, costs, soc, precision=precision, **more)
    assert found.tier == "none"
    assert found.ms is None
    assert words in found.reason


IMAGE = [(1, 3, 224, 224)]


def test_a_published_model_is_found() -> None:
    rows = find("ResNet-18", 11_689_512, IMAGE, "w8a8")
    assert {row.model for row in rows} == {"resnet18"}
    assert {row.precision for row in rows} == {"w8a8"}
    figure = published(next(row for row in rows if row.soc_model == ELITE and row.path == "qnn_dlc"))
    assert figure.tier == "published"
    assert figure.ms == pytest.approx(0.303, abs=0.001)
    assert figure.memory_mb is not None


def test_the_same_graph_is_found_under_another_name() -> None:
    rows = find("my network", 0, [], "float", WORK)
    assert {row.model for row in rows} == {"resnet50"}


@pytest.mark.parametrize(
    ("name", "parameters", "inputs", "precision"),
    [
        ("resnet18", 11_200_000, IMAGE, "float"),  # another head
        ("resnet18", 11_689_512, [(1, 3, 256, 256)], "float"),
        ("resnet18", 11_689_512, IMAGE, "w4a8"),
        ("resnet", 11_689_512, IMAGE, "float"),
        ("whisper_tiny", 8_000_000, [(1, 80, 3000)], "float"),  # several components, no parameters in the table
    ],
)
def test_what_only_resembles_a_published_model_is_not_found(name, parameters, inputs, precision) -> None:
    assert find(name, parameters, inputs, precision) == ()


def test_a_transfer_there_and_back_is_about_where_it_began() -> None:
    there = transfer(2.0, 77, ELITE, precision="float")
    assert there.tier == "transferred"
    assert there.ms
    assert there.low_ms
    assert there.high_ms
    assert there.low_ms < there.ms < there.high_ms
    assert there.ms < 2.0, "v79 is faster than v73"
    back = transfer(there.ms, ELITE, 77, precision="float")
    assert back.ms
    assert abs(math.log(back.ms / 2.0)) < 0.15


@pytest.mark.parametrize(
    ("ms", "source", "precision", "words"),
    [(2.0, 999, "float", "999"), (2.0, 77, "w4a8", "w4a8"), (1e6, 77, "float", "outside")],
)
def test_a_transfer_that_cannot_be_says_why(ms, source, precision, words) -> None:
    found = transfer(ms, source, ELITE, precision=precision)
    assert found.tier == "none"
    assert words in found.reason
