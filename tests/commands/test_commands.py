"""The ``qnb`` command.

Oracle: the same call in Python; `json` and `csv` for what they read; the exit codes that shells agree on.
"""

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

import qnb as package
from qnb.commands import main
from qnb.steps import STEPS


def test_overview_and_version(qnb):
    overview = qnb().stdout.decode()
    assert qnb("--help").stdout.decode() == overview
    for step in STEPS:
        assert f"│ {step} " in overview
    assert "--install-completion" in overview
    assert qnb("--version").stdout.decode() == f"qnb {package.__version__}\n"


@pytest.mark.parametrize(
    "words", [[step] for step in STEPS] + [["load"], ["cache"], ["demo"], ["runtime"], ["runtime", "add"]]
)
def test_help_of_each_command(words, capsys):
    assert main([*words, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Usage: qnb {' '.join(words)}")
    if words[0] in STEPS:
        for option in ("--out", "--json", "--csv", "--log", "--force"):
            assert option in out
    assert "executor" not in out.lower()  # what no word can give is not offered
    assert "--preprocess" not in out


def test_help_imports_no_more_than_the_named_step():
    code = (
        "import sys; from qnb.commands import main; main(sys.argv[1:]);"
        "print([m for m in ('pandas', 'matplotlib', 'onnx', 'torch', 'onnxruntime', 'IPython') if m in sys.modules])"
    )
    for words in ([], ["--help"], ["--version"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout.splitlines()[-1] == "[]"


def test_the_workflow_through_saved_folders(qnb, home, environment, monkeypatch):
    exported = qnb("export", "net.onnx", "--out", "model")
    assert b"saved: model" in exported.stderr
    qnb("calibrate", "model", "images.npy", "--precision", "w8a16", "-o", "quantized")
    qnb("context", "quantized", "--soc", "SM8550", "--config", "config.yaml", "-o", "compiled")
    printed = qnb("infer", "compiled", "images.npy", "--labels", "labels.npy", "--json").stdout
    report = json.loads(printed)
    assert report["kind"] == "inference"

    monkeypatch.setenv("QNB_CACHE_DIR", environment["QNB_CACHE_DIR"])
    monkeypatch.setattr(package.settings, "progress", False)
    model = package.export(home / "net.onnx")
    images = np.load(home / "images.npy")
    quantized = package.calibrate(model, images, precision="w8a16")
    assert package.load(home / "quantized").digest == quantized.digest
    context = package.context(quantized, soc="SM8550", config={"htp_config": {"vtcm_mb": 4}})
    assert package.load(home / "compiled").vtcm_mb == context.vtcm_mb == 4
    expected = package.infer(context, images, labels=np.arange(4)).report()
    assert report["tables"] == expected["tables"]

    shown = qnb("load", "quantized").stdout.decode()
    assert shown.rstrip("\n") == str(package.load(home / "quantized")).rstrip("\n")


def test_csv_is_what_csv_readers_read(qnb, home):
    qnb("export", "net.onnx", "--out", "for-csv", "--force")
    raw = qnb("load", "for-csv", "--csv").stdout
    assert raw.count(b"\r\n") == raw.count(b"\n")
    frame = package.load(home / "for-csv").frame
    header, *rows = csv.reader(io.StringIO(raw.decode(), newline=""))
    assert header == list(frame.columns)
    assert rows == [["" if v is None or v != v else str(v) for v in row] for row in frame.astype(object).values]


def test_csv_quotes_what_needs_quotes(capfdbinary):
    from qnb.commands.steps import write_csv

    cells = ["a,b", 'say "x"', "two\nlines", "é", "plain"]
    write_csv(pd.DataFrame({"text": cells, "n": range(5)}))
    raw = capfdbinary.readouterr().out
    assert [row[0] for row in csv.reader(io.StringIO(raw.decode(), newline=""))][1:] == cells


def test_an_existing_folder_is_refused_before_the_work(qnb, home):
    (home / "taken").mkdir(exist_ok=True)
    (home / "taken" / "mine.txt").write_text("mine")
    qnb("export", "net.onnx", "-o", "once", "--force")
    before = (home / "once" / "result.json").read_bytes()
    refused = qnb("export", "net.onnx", "-o", "once", code=1)
    assert refused.stdout == b""
    assert b"--force replaces it" in refused.stderr
    assert (home / "once" / "result.json").read_bytes() == before
    assert b"is not a saved result" in qnb("export", "net.onnx", "-o", "taken", "--force", code=1).stderr
    assert (home / "taken" / "mine.txt").read_text() == "mine"
    qnb("export", "net.onnx", "-o", "once", "--force", "--name", "renamed")
    assert package.load(home / "once").name == "renamed"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["infr"], 2, "UnknownName: unknown command 'infr'\n  next: did you mean infer?"),
        (["runtime", "ad"], 2, "did you mean add?"),
        (["runtime", "add"], 2, "VERSION"),
        (["--halp"], 2, "did you mean --help"),
        (["export"], 2, "SOURCE is missing"),
        (["export", "net.onnx", "more"], 2, "too many arguments: more"),
        (["export", "net.onnx", "--bach", "2"], 2, "did you mean --batch"),
        (["export", "net.onnx", "--batch", "two"], 2, "takes a whole number"),
        (["export", "net.onnx", "--json", "--csv"], 2, "exclude each other"),
        (["calibrate", "net.onnx", "images.npy", "--precision", "w8"], 2, "did you mean w8a8"),
        (["export", "nett.onnx"], 1, "did you mean net.onnx"),
        (["load", "images.npy"], 1, "is not a saved result"),
        (["infer", "net.onnx", "images.npy", "--soc", "SM9999"], 2, "unknown SoC 'SM9999'"),
        (["context", "net.onnx", "--soc=SM8650,SM9999"], 2, "unknown SoC 'SM9999'"),
        (["profile", "net.onnx", "--backends", "npu"], 2, "unknown value of --backends: 'npu'"),
        (["debug", "net.onnx", "--ignore", "QNB-P999:conv*"], 2, "unknown rule 'QNB-P999'"),
        (["debug", "net.onnx", "--profile", "nett"], 1, "unknown file or folder 'nett'"),
        (["runtime", "add", "2.7"], 1, "did you mean 2.7.0"),
    ],
)  # fmt: skip
def test_mistakes(home, monkeypatch, capsys, words, code, said):
    monkeypatch.chdir(home)
    assert main(words) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err
    assert "Traceback" not in shown.err


def test_the_traceback_is_there_for_who_asks(qnb):
    quiet = qnb("infer", "net.onnx", "images.npy", "--soc", "SM9999", code=2).stderr
    assert b"Traceback" not in quiet
    loud = qnb("infer", "net.onnx", "images.npy", "--soc", "SM9999", code=1, QNB_TRACEBACK="1").stderr
    assert b"Traceback" in loud
    assert b"unknown SoC" in loud


def test_the_native_log_goes_to_stderr(qnb):
    qnb("calibrate", "net.onnx", "images.npy", "-o", "logged", "--force")
    done = qnb("context", "logged", "--rebuild", "--log", "--csv")
    assert b"Finalizing Graph Sequence" in done.stderr
    assert b"Finalizing Graph Sequence" not in done.stdout
    assert done.stdout.startswith(b"soc,")


def test_no_bar_where_nobody_watches(qnb):
    assert qnb("calibrate", "net.onnx", "images.npy").stderr == b""


def test_a_reader_that_has_had_enough_is_no_error(home, environment):
    script = f"'{sys.executable}' -m qnb doctor | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=home, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == "0"
    # Here the reader is surely gone before anything is written.
    reading, writing = os.pipe()
    os.close(reading)
    gone = subprocess.run(
        [sys.executable, "-m", "qnb", "cache", "--json"],
        stdout=writing,
        stderr=subprocess.PIPE,
        env=environment,
        timeout=120,
    )
    os.close(writing)
    assert (gone.returncode, gone.stderr) == (0, b"")


@pytest.mark.skipif(os.name != "posix", reason="signals are sent in the POSIX way")
def test_an_interrupt_ends_with_130(home, environment):
    process = subprocess.Popen(
        [sys.executable, "-m", "qnb", "profile", "net.onnx", "--backends", "htp", "--runs", "1000000"],
        cwd=home,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        time.sleep(4)
        assert process.poll() is None, process.communicate()[1].decode()
        process.send_signal(signal.SIGINT)
        start = time.monotonic()
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    assert time.monotonic() - start < 5
    assert process.returncode == 130
    assert b"Traceback" not in errors
    assert b"interrupted" in errors


def test_cache_is_counted_and_cleaned(qnb, environment):
    qnb("calibrate", "net.onnx", "images.npy")
    rows = json.loads(qnb("cache", "--json").stdout)["rows"]
    assert sum(row["entries"] for row in rows) > 0
    cleaned = json.loads(qnb("cache", "--clean", "--older-than", "0", "--json").stdout)
    assert cleaned["removed_entries"] == sum(row["entries"] for row in rows)
    assert environment["QNB_CACHE_DIR"] == cleaned["folder"]


def test_shell_completion_knows_the_steps_and_options():
    from qnb.commands import app

    script = app().generate_completion(shell="bash")
    for word in (*STEPS, "--precision", "w8a16"):
        assert word in script
