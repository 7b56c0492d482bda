"""Reads pairs of files in one process of its own, with 3 GiB of memory at most, and says what came of each."""

import json
import resource
import sys
import time


def _main() -> None:
    from qnb.errors import QnbError
    from qnb.frontends.caffe import to_onnx

    to_onnx(*json.loads(sys.stdin.readline()))  # once, so that everything is imported
    resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
    for line in sys.stdin:
        started = time.perf_counter()
        answer = {"error": "", "what": "", "hint": ""}
        try:
            to_onnx(*json.loads(line))
        except QnbError as error:
            answer = {"error": type(error).__name__, "what": error.what, "hint": error.hint}
        print(json.dumps(answer | {"seconds": time.perf_counter() - started}), flush=True)


if __name__ == "__main__":
    _main()
