"""Runs `normalise` on many files in one process of its own, without torch, as a worker does: native code may crash."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

Answer = dict[str, Any]


def normalise(jobs: list[dict[str, Any]], timeout: float = 120) -> list[Answer]:
    """Give for each job (path_in, path_out and options) the result, or ``{error, what, hint}``, and ``seconds``."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.graph._worker"],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    answers = [json.loads(line[7:]) for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    if done.returncode or len(answers) != len(jobs):
        failed = jobs[len(answers)] if len(answers) < len(jobs) else "after the last job"
        raise AssertionError(f"the process ended with {done.returncode} at {failed}: {done.stderr[-3000:]}")
    return answers


def _main() -> None:
    sys.modules["torch"] = None  # type: ignore[assignment]
    from qnb.errors import QnbError
    from qnb.graph.normalise import normalise

    for job in json.load(sys.stdin):
        if job.pop("without_onnxsim", False):
            sys.modules["onnxsim"] = None  # type: ignore[assignment]
        started = time.perf_counter()
        try:
            answer = normalise(**({"shapes": None} | job))
        except QnbError as error:
            answer = {"error": type(error).__name__, "what": error.what, "hint": error.hint}
        answer["seconds"] = time.perf_counter() - started
        print("\nANSWER " + json.dumps(answer), flush=True)  # native code may leave a line open


if __name__ == "__main__":
    _main()
