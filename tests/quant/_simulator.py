"""Runs models on the Hexagon simulator of the installed QNN runtime, in a process of its own, since native code may crash.

With falling back to the CPU forbidden, a session that comes up has every node on the NPU.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx

OPTIONS = {"offload_graph_io_quantization": "0"}


def run(
    model: onnx.ModelProto, samples: list[dict[str, np.ndarray]], *, soc_model: int = 57, timeout: float = 300
) -> list[dict[str, np.ndarray]]:
    """Give the outputs for each of `samples`; raise RuntimeError with the native message where a node is refused.

    `soc_model` 30 is Hexagon v68, 43 v73, 57 v75, 69 v79, 87 v81.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        onnx.save(model, path / "model.onnx")
        for index, sample in enumerate(samples):
            np.savez(path / f"in{index}.npz", **sample)
        done = subprocess.run(
            [sys.executable, __file__, folder, str(soc_model)],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=folder,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"exit {done.returncode}: {done.stderr[-2000:]}")
        results = []
        for index in range(len(samples)):
            with np.load(path / f"out{index}.npz") as arrays:
                results.append(dict(arrays))
        return results


def _main(folder: Path, soc_model: str) -> None:
    import onnxruntime as ort
    import onnxruntime_qnn as qnn

    ort.register_execution_provider_library("QNNExecutionProvider", qnn.get_library_path())
    devices = [d for d in ort.get_ep_devices() if d.ep_name == "QNNExecutionProvider"][:1]
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    library = "QnnHtp.dll" if sys.platform == "win32" else "libQnnHtp.so"
    options.add_provider_for_devices(
        devices, {**OPTIONS, "soc_model": soc_model, "backend_path": str(Path(qnn.__file__).parent / library)}
    )
    session = ort.InferenceSession(str(folder / "model.onnx"), options)
    assigned = {graph.ep_name for graph in session.get_provider_graph_assignment_info()}
    if assigned != {"QNNExecutionProvider"}:
        raise SystemExit(f"nodes on {assigned}")
    names = [output.name for output in session.get_outputs()]
    for index in range(len(list(folder.glob("in*.npz")))):
        with np.load(folder / f"in{index}.npz") as arrays:
            outputs = session.run(None, dict(arrays))
        np.savez(folder / f"out{index}.npz", **dict(zip(names, outputs, strict=True)))


if __name__ == "__main__":
    _main(Path(sys.argv[1]), sys.argv[2])
