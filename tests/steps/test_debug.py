"""Debug. Oracles: what the compiler answers when `convert` and `context` ask it, and the profile's own table."""

from __future__ import annotations

import shlex

import numpy as np
import pytest

import qnb
from qnb.defaults import settings
from qnb.errors import BadInput, CheckFailed, UnknownName
from qnb.faces import binding, pages
from qnb.faces import face as faces
from tests.advice.graphs import Graph
from tests.advice.test_rules import FIRES, MORE, found, island, one_conv, opened, row
from tests.steps.oracles import noise

COLUMNS = [
    "id", "severity", "op", "op_type", "what", "evidence", "remedy", "gain_percent", "gain_of", "line", "source",
]  # fmt: skip
LAYERS = [
    "op", "op_type", "htp", "cycles", "time_ms", "percent", "macs", "weight_bytes", "slowest", "findings", "source",
]  # fmt: skip


def net() -> Graph:
    """Something for several rules: dilation, an op that the NPU refuses, a large kernel."""
    g = Graph(1, 16, 12, 12)
    g.conv(16, 32, dilation=2)
    g.op("Relu")
    g.op("Celu")
    g.conv(32, 32, 7)
    g.op("Relu")
    return g


@pytest.fixture(scope="module")
def quantized():
    return net().quantized()


@pytest.fixture(scope="module")
def result(quantized):
    return qnb.debug(quantized)


def test_tables(result):
    assert list(result.frame.columns) == COLUMNS
    assert list(result.layers.columns) == LAYERS
    assert list(result.tables().values())[1] is result.layers
    order = ["error", "warning", "info"]
    assert sorted(result.frame["severity"], key=order.index) == list(result.frame["severity"])


def test_refused_ops_are_those_that_convert_shows(quantized, result):
    placed = qnb.convert(quantized).frame
    refused = set(placed.loc[placed["htp"] == "no", "op"])
    assert refused
    assert set(result.frame.loc[result.frame["id"] == "QNB-G001", "op"]) == refused
    layers = result.layers
    assert set(layers.loc[layers["htp"] == "no", "op"]) == refused
    assert any("ops on the NPU alone" in note for note in result.notes)


def test_the_five_slowest_are_those_of_the_profile(digits, walk):
    profile = walk["profile"]
    made = qnb.debug(digits.quantized, profile=profile)
    own = profile.ops[~profile.ops["op"].str.startswith("(")].nlargest(5, "cycles")
    marked = made.layers[made.layers["slowest"] > 0].sort_values("slowest")
    assert list(marked["op"]) == list(own["op"])
    assert list(marked["slowest"]) == [1, 2, 3, 4, 5]
    assert list(marked["cycles"]) == list(own["cycles"])
    macs = dict(zip(digits.model.frame["op"], digits.model.frame["macs"], strict=True))
    for layer in made.layers[made.layers["op"].isin(macs)].itertuples():
        assert layer.macs >= macs[layer.op]
    assert own["op"].iloc[0] in made.title


def test_of_a_profile_alone_the_layers_are_shown(walk):
    made = qnb.debug(walk["profile"])
    assert (made.layers["slowest"] > 0).sum() == 5
    assert made.name == walk["profile"].name
    assert made.plot() is not None


def test_of_a_context_what_was_compiled_is_looked_at(digits):
    made = qnb.debug(digits.contexts["SM8350"], ops=False)
    assert made.recipe.arguments["soc"] == "SM8350"
    assert made.precision == "w8a8"
    with pytest.raises(BadInput, match="compiled for SM8350"):
        qnb.debug(digits.contexts["SM8350"], soc="SM8650")


def test_of_a_file_its_own_shapes_are_looked_at(tmp_path):
    made = qnb.debug(opened(tmp_path, batch="N"), ops=False)
    line = made.frame.loc[made.frame["id"] == "QNB-G002", "line"].iloc[0]
    assert line == "%qnn export net.onnx --shapes x=1x16x8x8"


def test_a_soc_that_takes_no_fp16():
    made = qnb.debug(one_conv(16, 16).export(), soc="SM8635", ops=False)
    first = made.frame.iloc[0]
    assert (first["id"], first["op"], first["line"]) == ("QNB-G001", "", "%qnn calibrate model data")
    assert any("takes no fp16" in note for note in made.notes)


def test_a_graph_that_does_not_compile_is_a_finding_not_an_error():
    made = qnb.debug(row(1 << 19), vtcm_mb=1)
    worst = made.frame[made.frame["id"] == "QNB-P006"].iloc[0]
    assert worst["severity"] == "error"
    assert "1 MiB" in worst["evidence"]
    assert "1002" in worst["evidence"]
    assert any("could not finish" in note for note in made.notes)


def test_a_check_shows_which_activations_are_rounded_coarsely():
    data = noise(8, 16, 14, 14)
    far_off = np.concatenate([data, 100 * data[:1]])  # one sample stretches all grids
    coarse = qnb.calibrate(one_conv(16, 16).export(), far_off)
    check = qnb.check(coarse, data)
    bad = check.tensors[(check.tensors["kind"] == "activation") & (check.tensors["sqnr_db"] < 30)]
    assert len(bad)
    with_check = qnb.debug(coarse, check=check, ops=False).frame.query("id == 'QNB-A001'")
    assert {what.split()[0] for what in with_check["what"]} == set(bad["tensor"])
    assert "QNB-A001" not in set(qnb.debug(coarse, ops=False).frame["id"])
    assert f"{bad['sqnr_db'].min():.1f} dB" in " ".join(with_check["evidence"])


# --- suppressing ---------------------------------------------------------------------------------------------------


def test_suppressed_by_id_and_by_op(quantized, result):
    ids = set(result.frame["id"])
    assert {"QNB-G001", "QNB-P003", "QNB-P002"} <= ids
    without = qnb.debug(quantized, ops=False, ignore=["QNB-P003", "QNB-P002:conv*", "QNB-G001:other*"])
    assert ids - set(without.frame["id"]) == {"QNB-P003", "QNB-P002"}
    assert without.suppressed == 2
    assert any("2 findings suppressed by QNB-P003, QNB-P002:conv*" in note for note in without.notes)


def test_suppressed_for_good(quantized, monkeypatch):
    monkeypatch.setattr(settings, "ignore", settings.ignore)
    settings.ignore = ["QNB-P003", "QNB-G001"]
    assert settings.ignore == "QNB-P003,QNB-G001"
    assert not {"QNB-P003", "QNB-G001"} & set(qnb.debug(quantized, ops=False).frame["id"])


@pytest.mark.parametrize("word", ["QNB-P03", "P003", "QNB-P0003:conv*"])
def test_a_rule_that_there_is_not(quantized, word):
    with pytest.raises(UnknownName, match="QNB-P003"):
        qnb.debug(quantized, ignore=[word])


# --- as a gate -----------------------------------------------------------------------------------------------------


def test_a_gate(quantized):
    failed = qnb.debug(quantized, ops=False, fail_on="warning")
    assert not failed.passed
    assert failed.title.startswith("FAIL")
    with pytest.raises(CheckFailed, match="QNB-G001") as caught:
        failed.require()
    assert "Elu" in caught.value.hint
    fine = qnb.debug(quantized, ops=False, fail_on="error", ignore=["QNB-G001"])
    assert fine.passed
    assert fine.title.startswith("PASS")
    fine.require()
    qnb.debug(quantized, ops=False).require()  # nothing was asked


def test_bad_arguments(quantized, walk):
    with pytest.raises(UnknownName, match="did you mean warning"):
        qnb.debug(quantized, fail_on="warnings")
    with pytest.raises(BadInput, match="profile is a Check"):
        qnb.debug(quantized, profile=walk["check"])
    with pytest.raises(BadInput, match="check is a Profile"):
        qnb.debug(quantized, check=walk["profile"])
    with pytest.raises(BadInput, match="the profile is of digits, not of net"):
        qnb.debug(quantized, profile=walk["profile"])


# --- kept and shown ------------------------------------------------------------------------------------------------


def test_saved_and_opened_again(result, tmp_path):
    again = qnb.load(result.save(tmp_path / "debug"))
    assert again.frame.equals(result.frame)
    assert again.layers.equals(result.layers)
    assert str(again) == str(result)


def test_charts(result, quantized):
    for made in (result, qnb.debug(quantized, ops=False), qnb.debug(island(("x",)), ops=False)):
        assert made.plot().axes


def test_lines_are_lines_that_the_magic_takes(tmp_path):
    lines = set()
    for case in (*FIRES.values(), *(case for _, case in MORE)):
        lines |= set(found(case, tmp_path).frame["line"])
    assert len(lines) >= 6
    for line in lines:
        magic, step, *words = shlex.split(line)
        assert magic == "%qnn"
        face = faces.face(step)
        binding.parse(face, words, lambda parameter, word: word, usage=pages.usage(face, "magic"))


def test_figures_are_finite_or_missing(result):
    gains = result.frame["gain_percent"].to_numpy()
    assert ((gains >= 0) & (gains <= 100) | np.isnan(gains)).all()
