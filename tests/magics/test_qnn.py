"""The magics in a real IPython shell, over the real steps.

Oracle: the same call in Python; IPython's own displayhook for what is shown.
"""

import re

import numpy as np
import pytest

import qnb
from qnb.errors import BadConfig, BadInput, QnbError, UnknownName


def test_a_step_gives_what_the_function_gives(notebook, run, classifier):
    notebook.user_ns["path"] = str(classifier)
    again = run("%qnn export {path} --name net")
    model = notebook.user_ns["model"]
    assert (again.name, again.digest) == ("net", model.digest)
    quantized = run("%qnn calibrate model images[:4] --precision w8a16 --no-per-channel --ranges percentile")
    expected = qnb.calibrate(
        model, notebook.user_ns["images"][:4], precision="w8a16", per_channel=False, ranges="percentile"
    )
    assert quantized.digest == expected.digest
    assert quantized.samples == 4


def test_assignment_takes_the_value_and_shows_nothing(notebook, run, capsys):
    run("q = %qnn calibrate model images")
    assert isinstance(notebook.user_ns["q"], qnb.Quantized)
    assert capsys.readouterr().out == ""


def test_a_bare_line_shows_the_result_once(notebook, run, capsys):
    result = run("%qnn calibrate model images -o q")
    shown = capsys.readouterr().out
    assert notebook.user_ns["q"] is result
    assert shown.count(result.title) == 1


def test_a_semicolon_after_out_shows_nothing(notebook, run, capsys):
    assert run("%qnn calibrate model images --out q;") is None
    assert isinstance(notebook.user_ns["q"], qnb.Quantized)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["1st", "a-b", "class", "a b"])
def test_out_wants_a_name(notebook, run, name):
    with pytest.raises(BadInput, match="can't name a variable"):
        run(f'%qnn doctor -o "{name}"')


def test_items_attributes_and_contexts_by_name(notebook, run):
    run("q = %qnn calibrate model images")
    run("contexts = %qnn context q --soc SM8650,SM8550")
    notebook.user_ns["things"] = {"batch": notebook.user_ns["images"]}
    by_part = run('%qnn infer contexts["SM8550"] things["batch"][:2]')
    expected = qnb.infer(notebook.user_ns["contexts"]["SM8550"], notebook.user_ns["images"][:2])
    np.testing.assert_array_equal(by_part.outputs["logits"], expected.outputs["logits"])
    by_name = run('%qnn infer contexts["Snapdragon 8 Gen 2"] images[:2]')
    np.testing.assert_array_equal(by_name.outputs["logits"], expected.outputs["logits"])
    assert run("%qnn calibrate q.parent images").digest == notebook.user_ns["q"].digest


def test_scalars_come_from_variables_in_ipythons_own_way(notebook, run):
    notebook.user_ns["n"] = 3
    assert run("%qnn calibrate model images --samples {n - 1}").samples == 2
    assert run("%qnn calibrate model images --samples $n").samples == 3
    with pytest.raises(BadInput, match="takes a whole number, not 'n'"):
        run("%qnn calibrate model images --samples n")


def test_functions_are_variables_too(notebook, run):
    seen = []
    notebook.user_ns["halve"] = lambda x: seen.append(x.shape) or x / 2
    run("%qnn calibrate model images[:2] --preprocess halve")
    assert seen


def test_variables_of_a_function_are_seen(notebook, run):
    run("def work(local):\n    q = %qnn calibrate model local\n    return q.samples")
    assert run("work(images[:5])") == 5


def test_a_cell_body_is_the_overrides_or_the_configuration(notebook, run):
    flat = run(
        "%%qnn calibrate model images\n"
        "activation_encodings:\n"
        "  image: {bitwidth: 8, min: -4, max: 4.0, scale: 3.1372549e-2, offset: -128}"
    )
    row = flat.frame[flat.frame["tensor"] == "image"].iloc[0]
    assert row["scale"] == pytest.approx(8 / 255, rel=1e-3)
    run("q = %qnn calibrate model images")
    assert run('%%qnn context q --soc SM8550\n{"htp_config": {"vtcm_mb": 4}}').vtcm_mb == 4


@pytest.mark.parametrize(
    ("cell", "kind", "said"),
    [
        ("%%qnn calibrate model images\n{'a': 1,\n", BadConfig, "line "),
        ('%%qnn calibrate model images\n{"a": 1,\n "b" 2}', BadConfig, "line 2, column 6"),
        ("%%qnn doctor\na: 1", BadInput, "doctor takes no cell body"),
        ("%%qnn context model --config settings\na: 1", BadInput, "--config is given, and the cell has a body too"),
        ("%qnn infr model images", UnknownName, "unknown step 'infr'\n  next: did you mean infer"),
        ("%qnn infer modl images", UnknownName, "unknown variable or file 'modl'\n  next: did you mean model"),
        ("%qnn infer model", BadInput, "DATA is missing"),
        ("%qnn infer model images --sok 57", UnknownName, "did you mean --soc"),
        ("%qnn infer model images[", BadInput, "is not closed"),
        ("%qnn infer model images[0:2].nope", BadInput, "AttributeError"),
        ("%qnn infer model make(3)", UnknownName, "do the call in a cell"),
        ("%qnn infer model images --soc SM9999", UnknownName, "unknown SoC"),
        ("%qnn help infr", UnknownName, "did you mean infer"),
    ],
)  # fmt: skip
def test_mistakes_are_our_errors_and_fail_the_cell(notebook, run, cell, kind, said, capsys):
    notebook.user_ns["settings"] = {}
    with pytest.raises(kind, match=re.escape(said)):
        run(cell)
    shown = capsys.readouterr()
    text = shown.out + shown.err
    assert kind.__name__ in text
    assert "Traceback" not in text
    assert "File " not in text
    assert notebook.user_ns["model"].name  # the session goes on


def test_code_on_a_line_is_not_run(notebook, run):
    notebook.user_ns["pop"] = notebook.user_ns["images"].tolist()
    with pytest.raises(QnbError):
        run("%qnn infer model pop.clear()")
    assert notebook.user_ns["pop"]
    with pytest.raises(QnbError):
        run("%qnn infer model images[pop.clear()]")
    assert notebook.user_ns["pop"]


def test_a_path_is_taken_where_no_variable_has_the_name(notebook, run, tmp_path):
    np.save(tmp_path / "batch.npy", notebook.user_ns["images"])
    assert run("%qnn calibrate model batch.npy").samples == 6
    assert run(f'%qnn calibrate model "{tmp_path / "batch.npy"}"').samples == 6
    with pytest.raises(UnknownName, match=r"did you mean batch\.npy"):
        run("%qnn calibrate model bach.npy")


def test_a_path_is_taken_where_the_variable_has_no_such_attribute(notebook, run, tmp_path):
    np.save(tmp_path / "images.npy", notebook.user_ns["images"])
    assert run("%qnn calibrate model images.npy").samples == 6


def test_an_expression_may_be_longer_than_the_name_of_a_file(notebook, run):
    assert run("%qnn calibrate model images" + "[:]" * 100).samples == 6


def test_log_of_the_last_error_and_of_the_last_result(notebook, run):
    with pytest.raises(QnbError):
        run("%qnn infer model images --soc SM9999")
    text = str(run("%qnn log"))
    assert "Traceback" in text
    assert "unknown SoC 'SM9999'" in text
    run("q = %qnn calibrate model images")
    run("c = %qnn context q --rebuild")
    last = str(run("%qnn log"))
    assert "Finalizing Graph Sequence" in last  # a compiler stage, as the native side printed it
    assert str(run("%qnn log c")) == last


def test_log_of_an_error_that_came_without_the_magic(notebook, run):
    run("import qnb")
    with pytest.raises(QnbError):
        run("qnb.infer(model, images, soc='SM9999')")
    assert "unknown SoC 'SM9999'" in str(run("%qnn log"))


def test_save_and_load(notebook, run, tmp_path):
    run("q = %qnn calibrate model images")
    assert run("%qnn save q kept/q") == tmp_path.joinpath("kept/q").relative_to(tmp_path)
    loaded = run("%qnn load kept/q -o again")
    assert loaded.digest == notebook.user_ns["q"].digest
    assert notebook.user_ns["again"] is loaded
    with pytest.raises(BadInput, match="holds a saved result"):
        run("%qnn save q kept/q")
    run("%qnn save q kept/q --force")
    notebook.user_ns["x"] = 1.5
    with pytest.raises(BadInput, match="a float is not a result"):
        run("%qnn save x kept/x")


def test_cache_counts_files_and_cleans(notebook, run, cache_dir):
    frame = run("%qnn cache").frame
    on_disk = sum(p.stat().st_size for p in (cache_dir / "files").rglob("*") if p.is_file())
    row = frame[frame["kind"] == "files"].iloc[0]
    assert row["size_mb"] == pytest.approx(on_disk / (1 << 20), abs=0.01)
    assert row["oldest_days"] < 1
    assert run("%qnn cache --clean").removed == (0, 0)
    shown = run("%qnn cache")._repr_html_()
    assert str(cache_dir) in shown


def test_overview_and_help(run):
    from qnb.steps import STEPS

    text = str(run("%qnn"))
    assert all(f"\n  {step}" in text for step in STEPS)
    assert "SM8650" in text
    for line in ("%qnn calibrate --help", "%qnn help calibrate", "%qnn calibrate model -h"):
        page = run(line)
        assert str(page).startswith("%qnn calibrate MODEL DATA [options]")
        assert "<table" in page._repr_html_()
    assert str(run("%qnn --help")) == str(run("%qnn help")) == text
    assert str(run("%qnn --version")) == f"qnb {qnb.__version__}"


def test_a_choice_and_an_op_by_op_comparison(notebook, run):
    run("q = %qnn calibrate model images")
    choice = run("%qnn select q --constraint power_critical --soc SM8650")
    expected = qnb.select(notebook.user_ns["q"], constraint=["power_critical"], soc="SM8650")
    assert choice.best == expected.best == "htp"
    assert list(choice.frame["score"]) == list(expected.frame["score"])
    with pytest.raises(UnknownName, match="power_critical"):
        run("%qnn select q --constraint power")
    run("before = %qnn profile model --backends htp --runs 1")
    run("after = %qnn profile q --backends htp --runs 1")
    compared = run("%qnn compare before after")
    assert compared.ops["cycles_left"].sum() == pytest.approx(notebook.user_ns["before"].ops["cycles"].sum())
