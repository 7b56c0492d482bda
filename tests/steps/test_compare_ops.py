"""Two builds op by op. Oracles: the profiles' own columns, the step check on the same samples, and the graphs' op names."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import qnb
from qnb.errors import BadInput, UnknownName
from qnb.steps._common import random_inputs
from tests.models import BUILDERS, INPUTS

FIGURES = ("cycles", "time_ms")


@pytest.fixture(scope="module")
def profiles(digits):
    return [qnb.profile(b, backends=["htp"], runs=1, warmup=0) for b in (digits.model, digits.quantized)]


@pytest.fixture(scope="module")
def compared(digits):
    return qnb.compare(
        digits.model, digits.quantized, data=digits.test[:8], backends=["htp"], runs=1, warmup=0, ops=True
    )


def own(ops: pd.DataFrame, end: str) -> pd.DataFrame:
    """Rows of one side that stand for an op."""
    names = ops[f"op_{end}"]
    return ops[(names != "") & ~names.str.startswith("(")]


def test_two_profiles_are_compared_without_running_anything(profiles):
    result = qnb.compare(*profiles)
    assert list(result.frame["build"]) == ["digits fp16 SM8650", "digits w8a8 SM8650"]
    assert list(result.frame["median_ms"]) == [p.frame["median_ms"][0] for p in profiles]
    assert list(result.runs["latency_ms"]) == [x for p in profiles for x in p.runs["latency_ms"]]
    for end, profile in zip(("left", "right"), profiles, strict=True):
        names = result.ops[f"op_{end}"]
        assert sorted(names[names != ""]) == sorted(profile.ops["op"])
        for figure in FIGURES:
            expected = profile.ops[figure].sum()
            assert result.ops[f"{figure}_{end}"].sum() == pytest.approx(expected)
    for figure in FIGURES:
        difference = profiles[1].ops[figure].sum() - profiles[0].ops[figure].sum()
        assert result.ops[f"{figure}_delta"].sum() == pytest.approx(difference)
    swapped = qnb.compare(*profiles[::-1]).ops
    assert swapped["cycles_delta"].sum() == pytest.approx(-result.ops["cycles_delta"].sum())


def test_layers_are_found_again_in_the_quantized_build(digits, compared):
    ops = compared.ops
    assert compared.names == ("digits fp32", "digits w8a8")
    work = digits.model.frame[digits.model.frame["op_type"].isin(["Conv", "Gemm"])]
    rows = ops.set_index("op_left").loc[list(work["op"])]
    assert list(rows["op_right"]) == list(work["op"])
    assert set(rows["state"]) == {"changed"}  # of precision
    assert set(rows["precision_left"]) == {"fp16"}
    assert set(rows["precision_right"]) == {"w8a8"}
    assert set(ops.loc[ops["op_type_right"] == "QuantizeLinear", "state"]) == {"right only"}
    alone = ops[(ops["state"] == "left only") & ops["op_type_left"].isin(["Relu"])]
    assert set(alone["part_of"]) <= set(work["op"])
    assert set(ops["source"]) == {"simulator"}
    assert len(own(ops, "left")) == own(ops, "left")["op_left"].nunique()


def test_work_that_is_counted_under_another_name_is_read_with_its_op():
    """Convolution and Clip: in fp16 the compiler counts them under the Clip's name, in integers under the convolution's."""
    model = qnb.export(BUILDERS["inverted_residuals"](), shapes=INPUTS["inverted_residuals"], name="residuals")
    build = qnb.calibrate(model, [random_inputs(model.inputs, i) for i in range(2)])
    timed = [qnb.profile(b, backends=["htp"], runs=1, warmup=0) for b in (model, build)]
    assert list(timed[0].ops["op"]) != list(timed[1].ops["op"])
    for one, other in (timed, timed[::-1]):
        ops = qnb.compare(one, other).ops
        ops = ops[~ops["op_left"].str.startswith("(")]
        head = ops["part_of"].where(ops["part_of"] != "", ops["op_left"].where(ops["op_left"] != "", ops["op_right"]))
        work = ops.groupby(head)[["macs_left", "macs_right"]].sum()
        assert work["macs_left"].tolist() == work["macs_right"].tolist()
        assert work["macs_left"].sum() == model.macs


def test_accuracy_by_op_is_that_of_check(digits, compared):
    layers = qnb.check(digits.quantized, digits.test[:8]).frame
    layers = layers[layers["source"] == "simulator"].set_index("layer")["accumulated_sqnr_db"]
    found = compared.ops[compared.ops["op_right"] != ""].set_index("op_right")["sqnr_db_right"].dropna()
    assert len(found) >= 4
    for op, value in found.items():
        assert value == pytest.approx(layers[op])
    assert compared.ops["sqnr_db_left"].isna().all()
    assert any("accuracy by op is measured for quantized builds" in note for note in compared.notes)


def test_eight_bits_against_sixteen_says_by_how_many_db_each_layer_changed(digits):
    wide = qnb.calibrate(digits.model, digits.train[:50], precision="w8a16")
    result = qnb.compare(digits.quantized, wide, data=digits.test[:8], backends=["htp"], runs=1, warmup=0, ops=True)
    both = result.ops.dropna(subset="sqnr_db_delta")
    assert len(both) >= 4
    np.testing.assert_allclose(both["sqnr_db_delta"], both["sqnr_db_right"] - both["sqnr_db_left"])
    assert (both["sqnr_db_delta"] > 0).all()
    assert set(both["state"]) == {"changed"}


def test_a_build_against_itself_on_another_soc(digits):
    result = qnb.compare(*digits.contexts.values(), runs=1, warmup=0, ops=True)
    assert result.names == ("digits w8a8 SM8650", "digits w8a8 SM8350")
    layers = result.ops[result.ops["op_type_left"].isin(["Conv", "Gemm"])]
    assert list(layers["op_left"]) == list(layers["op_right"])
    assert set(layers["state"]) == {"matched"}
    assert result.ops["sqnr_db_left"].isna().all()  # no data, no accuracy


def test_times_of_different_sources_have_no_difference(profiles):
    measured = replace(profiles[1], ops=profiles[1].ops.assign(source="device"))
    ops = qnb.compare(profiles[0], measured).ops
    both = ops[(ops["op_left"] != "") & (ops["op_right"] != "")]
    assert both["time_ms_delta"].isna().all()
    assert set(both["source"]) == {"simulator, device"}
    assert both["time_ms_left"].notna().any()


def test_columns_that_a_profile_has_are_taken_over(profiles):
    more = [
        replace(p, ops=p.ops.assign(macs=7.0 * (i + 1), bytes=100.0, precision=name, onnx_ops=p.ops["op"]))
        for i, (p, name) in enumerate(zip(profiles, ("fp16", "w8a8"), strict=True))
    ]
    ops = qnb.compare(*more).ops
    both = ops[(ops["op_left"] != "") & (ops["op_right"] != "")]
    assert set(both["macs_delta"]) == {7.0}
    assert set(both["bytes_delta"]) == {0.0}
    assert set(both["state"]) == {"changed"}
    assert ops["bytes_left"].sum() == 100 * len(profiles[0].ops)
    figure = qnb.compare(*more).plot_ops(by="macs")
    assert "MACs" in figure.axes[0].get_xlabel()


def test_saved_and_opened_again(compared, profiles, tmp_path):
    compared.save(tmp_path / "saved")
    again = qnb.load(tmp_path / "saved")
    pd.testing.assert_frame_equal(again.ops, compared.ops)
    assert again.names == compared.names
    assert len(again.figures()) == len(again.tables()) == 2
    for i, profile in enumerate(profiles):
        profile.save(tmp_path / f"profile{i}")
    by_path = qnb.compare(str(tmp_path / "profile0"), tmp_path / "profile1")
    pd.testing.assert_frame_equal(by_path.ops, qnb.compare(*profiles).ops)


def test_without_ops_it_is_as_it_was(walk):
    assert len(walk["comparison"].ops) == 0
    assert len(walk["comparison"].tables()) == len(walk["comparison"].figures()) == 1
    with pytest.raises(BadInput, match="ops were not compared"):
        walk["comparison"].plot_ops()


def test_an_op_by_op_comparison_takes_two_builds_on_htp(digits, profiles):
    with pytest.raises(BadInput, match="1 build to compare op by op"):
        qnb.compare(digits.model, ops=True)
    with pytest.raises(BadInput, match="htp"):
        qnb.compare(digits.model, digits.quantized, ops=True, backends=["cpu"])
    with pytest.raises(BadInput, match="1 profile among 2"):
        qnb.compare(profiles[0], digits.quantized)
    with pytest.raises(BadInput, match="3 profiles among 3"):
        qnb.compare(*profiles, profiles[0])
    with pytest.raises(UnknownName, match="time_ms"):
        qnb.compare(*profiles).plot_ops(by="time")


def test_a_build_that_the_npu_does_not_take_leaves_the_ops_empty_and_says_so(digits):
    result = qnb.compare(digits.model, digits.quantized, soc="SM7325", backends=["htp"], runs=1, warmup=0, ops=True)
    assert len(result.ops) == 0
    assert any("ops are not compared" in note for note in result.notes)


def test_a_profile_without_ops_is_said(digits, profiles):
    bare = qnb.profile(digits.quantized, backends=["htp"], runs=1, warmup=0, ops=False)
    result = qnb.compare(profiles[0], bare)
    assert len(result.ops) == 0
    assert any("ops are not compared" in note for note in result.notes)
    assert len(result.frame) == 2
