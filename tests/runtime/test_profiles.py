"""The runtime's profile files: read whole, or refused in words.

Oracle: files that both runtimes wrote on a real machine (`tests/fixtures/make_profiles.py`), their raw text searched here
by other means, and arithmetic on the totals that the runtime itself writes. For the live files, this session's runtime.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnb.errors import ArtifactError, QnbError
from qnb.runtime import client
from qnb.runtime.locate import find_runtime
from qnb.runtime.options import BackendOptions, session_spec
from qnb.runtime.profiles import HEADER, CompilerEstimate, ProfileEvent, RuntimeProfile, read_profile
from tests.conftest import Digits
from tests.fixtures.make_profiles import FOLDER, KINDS, ODD_NAMES, VERSIONS

FILES = [f"{version}-{kind}.csv" for version in VERSIONS for kind in KINDS]
ROW = re.compile(r"^\d+,[A-Z]+,-?\d+,[A-Z]+,[A-Z]+,(?:ROOT|SUB-EVENT),", re.MULTILINE)


def read(name: str) -> RuntimeProfile:
    return read_profile(FOLDER / name)


def raw(name: str) -> str:
    return (FOLDER / name).read_bytes().decode()


def values(name: str, identifier: str) -> list[int]:
    """Figures of all rows of an identifier, found in the raw text."""
    return [int(v) for v in re.findall(rf"^\d+,\w+,(\d+),.*,{re.escape(identifier)}$", raw(name), re.MULTILINE)]


def as_text(profile: RuntimeProfile) -> str:
    return "\n".join([HEADER, *(",".join(e.cells) for e in profile.events), ""])


def test_there_is_a_file_of_each_kind_from_each_runtime() -> None:
    assert sorted(p.name for p in FOLDER.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_lost(name: str) -> None:
    profile = read(name)
    assert as_text(profile) == raw(name)
    assert len(profile.events) == len(ROW.findall(raw(name)))
    assert all(e.whole and e.value is not None for e in profile.events)
    assert profile.notes == ()
    assert profile.unknown == ()
    lines = raw(name).split("\n")
    assert all(",".join(e.cells).startswith(lines[e.line - 1]) for e in profile.events)


@pytest.mark.parametrize("name", [f for f in FILES if "estimate" not in f and "none" not in f])
def test_executions_are_those_that_the_runtime_totals(name: str) -> None:
    found = read(name).executions()
    assert [e.qnn_us for e in found] == values(name, "QNN (execute) time")
    assert [e.accelerator_us for e in found] == values(name, "Accelerator (execute) time")
    if "basic" in name:
        assert {(e.cycles, e.ops) for e in found} == {(0, ())}
        return
    assert [e.cycles for e in found] == values(name, "Accelerator (execute) time (cycles)")
    for one in found:
        assert sum(cycles for _, cycles in one.ops) == one.cycles


@pytest.mark.parametrize("version", VERSIONS)
def test_ops_have_the_names_of_the_model_whatever_is_in_them(version: str) -> None:
    (run,) = read(f"{version}-names.csv").executions()
    assert [name for name, _ in run.ops] == ["Input", *ODD_NAMES, "Output"]


@pytest.mark.parametrize("version", VERSIONS)
def test_an_op_without_a_name_is_known_by_its_number(version: str) -> None:
    name = f"{version}-run.csv"
    nameless = re.findall(r"SUB-EVENT,(OpId_\d+) \(cycles\)$", raw(name), re.MULTILINE)
    assert len(nameless) == 8  # two before each of the block's two layer normalizations, in each run
    assert [op for run in read(name).executions() for op, _ in run.ops if op.startswith("OpId_")] == nameless


@pytest.mark.parametrize("version", VERSIONS)
def test_graphs_are_counted_once_though_the_runtime_repeats_them(version: str) -> None:
    """After the second graph it writes the rows of the first again."""
    for kind in ("graphs", "estimate", "none"):
        name = f"{version}-{kind}.csv"
        first, again, second = values(name, "QNN (finalize) time")
        assert first == again
        profile = read(name)
        assert [block[0].value for block in profile.compilations()] == [first, second]
        stages = profile.stages()
        assert len(stages) == 8
        for stage, ms in stages.items():
            of_first, _, of_second = values(name, stage)
            assert ms == pytest.approx((of_first + of_second) / 1000)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_estimate_is_the_sum_over_the_graphs(version: str) -> None:
    name = f"{version}-estimate.csv"

    def total(identifier: str) -> int:
        first, again, second = values(name, identifier)
        assert first == again
        return first + second

    found = read(name).estimate()
    missing = re.findall(r"SUB-EVENT,(\w+) : OpId_\d+$", raw(name), re.MULTILINE)
    assert found == CompilerEstimate(
        cycles=total("Simulated (Accelerator exec cycles)"),
        lower=total("Simulated (Accelerator exec cycles (lower estimate))"),
        upper=total("Simulated (Accelerator exec cycles (upper estimate))"),
        input_fill_bytes=total("Input Fill"),
        fill_bytes=total("Intermediate Fill"),
        spill_bytes=total("Intermediate Spill"),
        output_spill_bytes=total("Output Spill"),
        missing_ops=total("Missing Ops (Number of Ops with no Costs associated)"),
        missing_names=tuple(missing),
        graphs=2,
        time_us=total("Simulated (Accelerator exec time us)") if version == "2.7.0" else None,
    )
    assert 0 < found.lower < found.cycles < found.upper
    assert found.missing_ops == len(missing)


@pytest.mark.parametrize("name", [f for f in FILES if "estimate" not in f])
def test_where_the_compiler_estimates_nothing_there_is_no_estimate(name: str) -> None:
    assert read(name).estimate() is None


def test_an_estimate_with_a_row_missing_is_refused(tmp_path: Path) -> None:
    lines = raw("2.7.0-estimate.csv").splitlines(keepends=True)
    path = tmp_path / "profile.csv"
    path.write_text("".join(line for line in lines if ",Input Fill" not in line))
    with pytest.raises(ArtifactError, match=r"profile\.csv, line \d+: .* lacks Input Fill") as caught:
        read_profile(path).estimate()
    assert caught.value.hint


# --- damage --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_anywhere_keeps_its_whole_rows_or_is_refused(name: str, tmp_path: Path) -> None:
    content = (FOLDER / name).read_bytes()
    whole = read(name)
    path = tmp_path / "cut.csv"
    header = len(HEADER) + 1
    # Every byte of the header, the first rows and the last; between them every eleventh, and so every place in a row.
    cuts = {*range(header + 150), *range(header, len(content), 11), *range(len(content) - 150, len(content))}
    for cut in sorted(cuts):
        path.write_bytes(content[:cut])
        if cut < header:
            with pytest.raises(ArtifactError, match=r"cut\.csv, line 1: the profile is (empty|cut off)"):
                read_profile(path)
            continue
        profile = read_profile(path)
        ends_whole = content[cut - 1 : cut] == b"\n"
        assert [e for e in profile.events if e.cut] == ([] if ends_whole else [profile.events[-1]])
        complete = [e for e in profile.events if e.whole and e not in profile.unknown]
        # Unknown is at most a row whose name, which holds a line end, is cut off there.
        assert profile.unknown in ((), profile.events[-1:], profile.events[-2:-1])
        assert complete == [e for e in whole.events if e in complete]
        assert len(profile.executions()) <= len(whole.executions())
        assert profile.executions() == whole.executions()[: len(profile.executions())]
        if not ends_whole:
            assert "cut off" in " ".join(profile.notes)
        try:
            profile.estimate()
        except QnbError as error:
            assert error.hint
        profile.stages()


def test_a_run_that_is_not_complete_is_said_to_be(tmp_path: Path) -> None:
    text = raw("2.3.0-run.csv")
    end = text.rindex("0,EXECUTE")
    path = tmp_path / "profile.csv"
    path.write_text(text[:end])
    profile = read_profile(path)
    assert len(profile.executions()) == len(read("2.3.0-run.csv").executions()) - 1
    begun = text[: text.rindex("Number of HVX")].count("\n") + 1
    assert profile.notes == (f"profile.csv: the last inference (from line {begun}) is not complete",)


def test_a_figure_that_is_cut_off_is_not_taken_for_a_figure(tmp_path: Path) -> None:
    """``35096`` cut to ``350`` is a number too."""
    text = raw("2.3.0-names.csv")
    at = text.index("Accelerator (execute) time (cycles)") + len("Accelerator (execute) time (cycles)")
    path = tmp_path / "profile.csv"
    path.write_text(text[:at])
    last = read_profile(path).events[-1]
    assert last.cut
    assert last.value is None
    assert last.cells[2].isdigit()


def test_rows_that_nobody_knows_are_kept_and_said(tmp_path: Path) -> None:
    text = raw("2.3.0-run.csv")
    rows = [
        "0,BACKEND,12,DEGREES,BACKEND,ROOT,Temperature",
        "no row at all",
        "",
        "0,NODE,x,CYCLES,B,SUB-EVENT,op:OpId_1 (cycles)",
    ]
    lines = text.split("\n")
    changed = [*lines[:9], *rows, *lines[9:]]
    path = tmp_path / "profile.csv"
    path.write_text("\n".join(changed))
    profile = read_profile(path)
    assert as_text(profile) == "\n".join(changed)
    assert [",".join(e.cells) for e in profile.unknown] == rows
    assert [e.line for e in profile.unknown] == [10, 11, 12, 13]
    assert profile.notes == ("profile.csv: 4 rows are of no kind that qnb knows (lines 10, 11, 12, 13)",)
    assert profile.executions() == read("2.3.0-run.csv").executions()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "line 1: the profile is empty"),
        (b"Msg Time", "line 1: the profile is cut off in its header"),
        (b"op,time_ms\nconv,3\n", "line 1: this is no profile of the QNN runtime: it begins with 'op,time_ms'"),
        (b"\x00\xff\xfe\n", "line 1: this is no profile"),
        (HEADER.replace("Time,", "Duration,").encode() + b"\n", "line 1: this is no profile"),
    ],
)
def test_what_is_no_profile_is_refused(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "foreign.csv"
    path.write_bytes(content)
    with pytest.raises(ArtifactError) as caught:
        read_profile(path)
    assert f"{path}, {said}" in caught.value.what
    assert caught.value.hint


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"could not read the profile .*none\.csv: No such file") as caught:
        read_profile(tmp_path / "none.csv")
    assert caught.value.hint


def test_a_header_alone_says_that_nothing_was_recorded(tmp_path: Path) -> None:
    path = tmp_path / "profile.csv"
    path.write_text(HEADER + "\n")
    profile = read_profile(path)
    assert profile.events == ()
    assert profile.notes == ("profile.csv: the runtime recorded no event",)
    assert profile.executions() == []
    assert profile.estimate() is None


def test_lines_end_as_windows_ends_them(tmp_path: Path) -> None:
    path = tmp_path / "profile.csv"
    path.write_bytes(raw("2.3.0-names.csv").replace("\n", "\r\n").encode())
    assert read_profile(path).executions() == read("2.3.0-names.csv").executions()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_whatever_is_in_the_file_it_is_read_or_refused(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(raw(data.draw(st.sampled_from(FILES))).encode())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "profile.csv"
    path.write_bytes(content)
    try:
        profile = read_profile(path)
        profile.estimate()
        assert all(isinstance(note, str) for note in profile.notes)
        profile.executions()
    except QnbError as error:
        assert str(path.name) in error.what
        assert error.hint


def test_an_event_has_the_cells_that_it_has() -> None:
    short = ProfileEvent(3, ("0", "NODE"))
    assert (short.message, short.value, short.identifier, short.whole, short.op) == ("NODE", None, "", False, None)


# --- live ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def live(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A profile that the runtime has just written, of three inferences."""
    path = tmp_path_factory.mktemp("profile") / "profile.csv"
    context = digits.contexts["SM8650"]
    extra = {"profiling_level": "detailed", "profiling_file_path": str(path)}
    spec = session_spec(str(context.path), "htp", find_runtime(), BackendOptions(soc=context.soc), extra=extra)
    client.call("profile_ops", {"spec": spec.plain(), "csv": str(path), "runs": 3}, {"image": digits.test[:1]})
    return path, 3


def test_a_profile_has_one_block_for_each_inference(live: tuple[Path, int]) -> None:
    path, runs = live
    profile = read_profile(path)
    assert as_text(profile) == path.read_text()
    assert profile.unknown == ()
    assert len(profile.executions()) == runs


def test_ops_take_no_more_than_the_graph(live: tuple[Path, int], digits: Digits) -> None:
    from qnb.runtime.logs import original_name

    for execution in read_profile(live[0]).executions():
        assert 0 < sum(value for _, value in execution.ops) <= execution.cycles * 1.01
        assert 0 < execution.accelerator_us <= execution.qnn_us
        names = {original_name(name) for name, _ in execution.ops}
        assert set(digits.model.frame.loc[digits.model.frame["op_type"] == "Conv", "op"]) <= names
