"""Two builds op by op: the table of step ``compare``, made of two profiles' ops. Runs nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from qnb.graph.align import Op, Pair, align, wired
from qnb.graph.fused import joined

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["UNATTRIBUTED", "Nodes", "Side", "aligned_ops"]

Nodes = Sequence[Mapping[str, Any]]
"""A graph's ops, as the job ``graph_ops`` lists them."""

UNATTRIBUTED = "(unattributed"
"""How the name of a row begins that stands for time which belongs to no op."""

_MEASURED = ("cycles", "time_ms", "bytes", "macs")
_TIMED = ("cycles", "time_ms")
_NAN = float("nan")


@dataclass(frozen=True)
class Side:
    """One of the two builds.

    Attributes
    ----------
    ops : pandas.DataFrame
        `Profile.ops`.
    precision : str
        What the build computes in; of use where the ops do not say it themselves.
    nodes : sequence of mapping, optional
        Its graph; without it the order of the ops is all that is known of it.
    sqnr_db : mapping of str to float
        SQNR of an op's output, by op, where it was measured.
    """

    ops: pd.DataFrame
    precision: str
    nodes: Nodes | None = None
    sqnr_db: Mapping[str, float] = field(default_factory=dict)


def aligned_ops(left: Side, right: Side) -> pd.DataFrame:
    """Align the ops of two builds, each of them in one row, and set their figures side by side.

    What only one side has counts as nothing on the other. Times and cycles of different sources have no difference.
    """
    import pandas as pd

    ours, theirs = _as_ops(left), _as_ops(right)
    pairs = align(ours, theirs)
    cycles = (_figures(left.ops, "cycles")[: len(ours)], _figures(right.ops, "cycles")[: len(theirs)])
    heads = joined(ours, theirs, pairs, (list(np.nan_to_num(cycles[0])), list(np.nan_to_num(cycles[1]))))
    heads = _fused(heads, pairs, left.ops, right.ops)
    names = [ours[p.left].name if p.left is not None else theirs[p.right or 0].name for p in pairs]
    parts = [names[head] if head != i else "" for i, head in enumerate(heads)]
    left_ops, right_ops = _ordered(left.ops), _ordered(right.ops)
    rest = _rest(left_ops, right_ops, len(ours), len(theirs))
    every = [*pairs, *rest]
    at = ([p.left for p in every], [p.right for p in every])
    types = (_texts(left_ops, "op_type", at[0]), _texts(right_ops, "op_type", at[1]))
    bits = (
        _texts(left_ops, "precision", at[0], left.precision),
        _texts(right_ops, "precision", at[1], right.precision),
    )
    found: dict[str, Any] = {
        "op_left": _texts(left_ops, "op", at[0]),
        "op_right": _texts(right_ops, "op", at[1]),
        "op_type_left": types[0],
        "op_type_right": types[1],
        "state": [],
        "matched_by": [p.by for p in every],
        "part_of": [*parts, *([""] * len(rest))],
        "precision_left": bits[0],
        "precision_right": bits[1],
    }
    sources = (_texts(left_ops, "source", at[0]), _texts(right_ops, "source", at[1]))
    comparable = np.array([not a or not b or a == b for a, b in zip(*sources, strict=True)])
    for name in _MEASURED:
        one, other = (_at(_figures(ops, name), where) for ops, where in zip((left_ops, right_ops), at, strict=True))
        found[f"{name}_left"], found[f"{name}_right"] = one, other
        delta = np.where(_missing(at[1]), 0.0, other) - np.where(_missing(at[0]), 0.0, one)
        found[f"{name}_delta"] = np.where(comparable, delta, _NAN) if name in _TIMED else delta
    for side, end in ((left, "left"), (right, "right")):
        found[f"sqnr_db_{end}"] = [side.sqnr_db.get(op, _NAN) for op in found[f"op_{end}"]]
    with np.errstate(invalid="ignore"):  # exact on both sides: no difference to speak of
        found["sqnr_db_delta"] = np.subtract(found["sqnr_db_right"], found["sqnr_db_left"])
    found["state"] = _states(every, types, bits, found["macs_left"], found["macs_right"])
    found["source"] = [a if a == b or not b else b if not a else f"{a}, {b}" for a, b in zip(*sources, strict=True)]
    return pd.DataFrame(found)


def _fused(heads: Sequence[int], pairs: Sequence[Pair], left: pd.DataFrame, right: pd.DataFrame) -> list[int]:
    """Read an op of one side with the op that it was fused with, where the profile itself names the two together.

    In fp16 the compiler counts a convolution and its Clip under the Clip's name, in integers under the convolution's.
    """
    found = list(heads)
    for side, ops in (("left", _ordered(left)), ("right", _ordered(right))):
        if "onnx_ops" not in ops:
            continue
        names, made_of = ops["op"].astype(str).tolist(), ops["onnx_ops"].fillna("").astype(str).tolist()
        place = {names[at]: i for i, p in enumerate(pairs) if (at := getattr(p, side)) is not None and p.by}
        for i, pair in enumerate(pairs):
            at = getattr(pair, side)
            if at is None or pair.by or found[i] != i:
                continue
            hosts = [place[name] for name in made_of[at].split(", ") if name in place]
            if hosts:
                found[i] = heads[hosts[0]]
    return found


def _ordered(ops: pd.DataFrame) -> pd.DataFrame:
    """Ops in their order, and last what belongs to none."""
    import pandas as pd

    apart = ops["op"].astype(str).str.startswith(UNATTRIBUTED)
    return pd.concat([ops[~apart], ops[apart]], ignore_index=True)


def _as_ops(side: Side) -> list[Op]:
    frame = _ordered(side.ops)
    frame = frame[~frame["op"].astype(str).str.startswith(UNATTRIBUTED)]
    made_of = frame["onnx_ops"].fillna("").astype(str) if "onnx_ops" in frame else [""] * len(frame)
    macs = _figures(frame, "macs")
    if side.nodes is None:  # then the work tells two ops of one type apart
        return [
            Op(name, kind, f"{n:.0f} MACs" if n > 0 else "", tensors=(origin,) if origin else ())
            for name, kind, origin, n in zip(frame["op"], frame["op_type"], made_of, macs, strict=True)
        ]
    nodes = {row["name"]: row for row in side.nodes if row["name"]}
    origin = _origins(list(frame["op"]), list(made_of), nodes)
    ops = []
    for name, kind in zip(frame["op"], frame["op_type"], strict=True):
        node = nodes.get(origin.get(name, ""))
        ops.append(Op(name, kind or (node["op_type"] if node else ""), node["sign"] if node else ""))
    called = {node: name for name, node in origin.items()}
    return wired(ops, [(called.get(row["name"], ""), row["inputs"], row["outputs"]) for row in side.nodes])


def _origins(names: Sequence[str], made_of: Sequence[str], nodes: Mapping[str, Any]) -> dict[str, str]:
    """Find the node that each op is: by its name, by what the profile says, or by a name that the runtime derived from it.

    An op that shares a node with others, such as one step of an LSTM, has none.
    """
    longest = sorted(nodes, key=len, reverse=True)
    found: dict[str, str] = {}
    for name, said in zip(names, made_of, strict=True):
        first = said.partition(", ")[0]
        if name in nodes or first in nodes:
            found[name] = name if name in nodes else first
        else:  # node_softmax_2, of node_softmax
            derived = (n for n in longest if name.startswith(n) and not name[len(n) :][:1].isdigit())
            found[name] = next(derived, "")
    counts = Counter(found.values())
    return {name: node for name, node in found.items() if name == node or (node and counts[node] == 1)}


def _rest(left: pd.DataFrame, right: pd.DataFrame, start_left: int, start_right: int) -> list[Pair]:
    """Pair the rows that belong to no op, by their names."""
    ours = {name: i for i, name in enumerate(left["op"]) if i >= start_left}
    theirs = {name: j for j, name in enumerate(right["op"]) if j >= start_right}
    names = dict.fromkeys([*ours, *theirs])
    return [Pair(ours.get(n), theirs.get(n), "name" if n in ours and n in theirs else "") for n in names]


def _states(
    pairs: Sequence[Pair],
    types: tuple[list[str], list[str]],
    bits: tuple[list[str], list[str]],
    macs_left: np.ndarray,
    macs_right: np.ndarray,
) -> list[str]:
    states = []
    for i, pair in enumerate(pairs):
        if pair.right is None:
            states.append("left only")
        elif pair.left is None:
            states.append("right only")
        else:
            work = np.isfinite([macs_left[i], macs_right[i]]).all() and macs_left[i] != macs_right[i]
            same = types[0][i] == types[1][i] and bits[0][i] == bits[1][i] and not work
            states.append("matched" if same else "changed")
    return states


def _figures(frame: pd.DataFrame, column: str) -> np.ndarray:
    import pandas as pd

    if column not in frame:
        return np.full(len(frame), _NAN)
    return pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64)


def _texts(frame: pd.DataFrame, column: str, at: Sequence[int | None], default: str = "") -> list[str]:
    if column not in frame:
        named = list(frame["op"])
        return [default if k is not None and not str(named[k]).startswith(UNATTRIBUTED) else "" for k in at]
    values = frame[column].fillna("").astype(str).tolist()
    return [values[k] if k is not None else "" for k in at]


def _missing(at: Sequence[int | None]) -> np.ndarray:
    return np.array([k is None for k in at], dtype=bool)


def _at(values: np.ndarray, at: Sequence[int | None]) -> np.ndarray:
    return np.array([values[k] if k is not None else _NAN for k in at], dtype=np.float64)
