"""What loading costs, and that it can be undone. Oracle: a fresh interpreter's `sys.modules` and clock."""

import subprocess
import sys

from qnb.magics import load_ipython_extension, unload_ipython_extension

HEAVY = ("pandas", "matplotlib", "onnx", "onnxruntime", "torch", "cyclopts")


def fresh(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120).stdout


def test_import_qnb_brings_nothing_heavy_and_is_quick():
    code = (
        "import sys, time; start = time.perf_counter(); import qnb; print(time.perf_counter() - start);"
        f"print([m for m in {(*HEAVY, 'numpy', 'IPython')} if m in sys.modules])"
    )
    seconds, found = min((fresh(code).splitlines() for _ in range(3)), key=lambda lines: float(lines[0]))
    assert found == "[]"
    assert float(seconds) < 0.15


def test_load_ext_brings_nothing_heavy_and_is_quick():
    code = (
        "import sys, time\n"
        "from IPython.core.interactiveshell import InteractiveShell\n"
        "ip = InteractiveShell.instance()\n"
        "before = set(sys.modules)\n"
        "start = time.perf_counter(); ip.run_line_magic('load_ext', 'qnb'); print(time.perf_counter() - start)\n"
        f"print([m for m in {HEAVY} if m in sys.modules and m not in before])"
    )
    seconds, found = min((fresh(code).splitlines()[-2:] for _ in range(3)), key=lambda lines: float(lines[0]))
    assert found == "[]"
    assert float(seconds) < 0.3


def state(shell):
    return (
        len(shell.configurables),
        len(shell.Completer.custom_matchers),
        len(shell.events.callbacks["post_run_cell"]),
        "qnn" in shell.magics_manager.magics["line"],
        "qnn" in shell.magics_manager.magics["cell"],
    )


def test_load_reload_and_unload(shell):
    before = state(shell)
    assert before[3:] == (False, False)
    shell.run_line_magic("load_ext", "qnb")
    loaded = state(shell)
    assert loaded[3:] == (True, True)
    shell.run_line_magic("reload_ext", "qnb")
    load_ipython_extension(shell)
    assert state(shell) == loaded
    shell.run_line_magic("unload_ext", "qnb")
    assert state(shell) == before
    unload_ipython_extension(shell)
    assert state(shell) == before
