"""The chart of the step debug. Oracle: the table that it is drawn from, and matplotlib's own objects."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from qnb.display.debug_charts import bottlenecks
from qnb.errors import BadInput


def layers(count: int, *, timed: bool = True) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "op": [f"backbone/stage_{i // 20}/block_{i}/conv" for i in range(count)],
            "op_type": "Conv",
            "htp": "yes",
            "cycles": 10 ** rng.uniform(2, 6, count) if timed else np.nan,
            "macs": rng.integers(1, 10**8, count),
            "slowest": 0,
            "findings": ["QNB-P001, QNB-P004, QNB-G004" if i % 3 == 0 else "" for i in range(count)],
            "source": "simulator" if timed else "host",
        }
    )
    frame.loc[count - 1, ["htp", "cycles"]] = "no", np.nan
    if timed:
        for rank, index in enumerate(frame["cycles"].nlargest(5).index, 1):
            frame.loc[index, "slowest"] = rank
    return frame


def found(*severities: str) -> pd.DataFrame:
    return pd.DataFrame({"id": "QNB-P001", "severity": list(severities), "op": ""})


@pytest.mark.parametrize("count", [2, 10, 1000])
def test_bars_are_the_slowest_ops(count):
    frame = layers(count)
    ax = bottlenecks(frame, found("warning", "error", "warning")).axes[0]
    widths = [bar.get_width() for bar in ax.patches]
    assert widths == pytest.approx(sorted(frame["cycles"].dropna(), reverse=True)[:15])
    colours = [bar.get_facecolor() for bar in ax.patches]
    assert len(set(colours[:5])) == 1
    assert all(c != colours[0] for c in colours[5:])
    labels = [t.get_text() for t in ax.get_yticklabels()]
    assert len(labels) == min(count - 1, 15) + (count > 16) + 1
    written = " ".join(t.get_text() for t in ax.texts)
    assert "off the NPU" in written
    assert f"{100 * widths[0] / frame['cycles'].sum():.1f} %" in written
    if count > 16:
        assert f"the other {count - 16:,} ops" in labels


def test_what_was_found_is_said():
    figure = bottlenecks(layers(10), found("warning", "error", "warning"))
    assert figure.get_suptitle() == "Bottlenecks: 1 error, 2 warnings"
    assert bottlenecks(layers(10), found()).get_suptitle() == "Bottlenecks: nothing found"


def test_without_times_macs_are_drawn():
    frame = layers(10, timed=False)
    figure = bottlenecks(frame, found())
    widths = [bar.get_width() for bar in figure.axes[0].patches]
    assert widths == pytest.approx(sorted(frame["macs"][:-1], reverse=True))
    assert "nothing was timed" in figure.get_supxlabel()


def test_nothing_to_draw():
    with pytest.raises(BadInput, match="no rows"):
        bottlenecks(layers(2).iloc[:0], found())
    with pytest.raises(BadInput, match="needs the columns"):
        bottlenecks(pd.DataFrame({"op": ["a"]}), found())
    nothing = layers(2, timed=False).iloc[:1].assign(macs=0)
    with pytest.raises(BadInput, match="no op has cycles"):
        bottlenecks(nothing, found())
