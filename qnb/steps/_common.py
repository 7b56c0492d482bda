"""What several steps need: finding the build that an argument means, and timing a step into its recipe."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qnb import keyvalues
from qnb.artifacts import Build, Context, Contexts, Model, Quantized
from qnb.errors import BadConfig, BadInput
from qnb.provenance import Recipe, versions
from qnb.results import load
from qnb.values import TensorSpec


class StepTimer:
    """Counts the seconds of a step and writes its recipe."""

    def __init__(self, step: str) -> None:
        self._step = step
        self._start = time.perf_counter()

    def recipe(self, qairt: str | None = None, **arguments: Any) -> Recipe:
        """Give the recipe as of now; arguments that are artifacts are named by digest."""
        made_with = versions() | ({"qairt": qairt} if qairt else {})
        plain = {name: _plain(value) for name, value in arguments.items() if value is not None}
        return Recipe(self._step, plain, made_with, time.perf_counter() - self._start)


def _plain(value: Any) -> Any:
    if isinstance(value, Model | Quantized | Context):
        return f"{value.kind} {value.name} {value.digest[:12]}"
    if isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return f"{type(value).__module__}.{type(value).__qualname__}"


def as_build(value: object) -> Build:
    """Find the build that an argument means: an artifact, the folder of a saved one, or an ONNX file.

    Raises
    ------
    BadInput
        If it is none of these.
    """
    if isinstance(value, Contexts):
        if len(value) != 1:
            socs = ", ".join(c.soc.part for c in value)
            raise BadInput(
                f"{len(value)} contexts ({socs}), but one is wanted",
                hint=f'choose one: contexts["{value[0].soc.part}"]',
            )
        return value.contexts[0]
    if isinstance(value, Model | Quantized | Context):
        return value
    if isinstance(value, str | Path):
        path = Path(value).expanduser()
        if path.is_dir() and (path / "result.json").exists():
            return as_build(load(path))
        from qnb.steps.export import export

        return export(path)
    from qnb.steps.export import export

    if type(value).__module__.partition(".")[0] == "onnx":
        return export(value)
    hint = "export it first: qnb.export(module, shapes={'input': (1, 3, 224, 224)})"
    raise BadInput(f"a {type(value).__module__}.{type(value).__qualname__} is not a model of qnb", hint=hint)


def as_model(value: object) -> Model:
    """Find the float model that an argument means.

    Raises
    ------
    BadInput
        If it is not one, for instance quantized already.
    """
    build = as_build(value)
    if isinstance(build, Model):
        return build
    raise BadInput(f"{build.name} is a {build.kind}, but a float model is wanted", hint="its float model: .float_model")


def as_measured(value: object) -> Model:
    """Find the float model whose tensors are to be quantized: of a `Quantized` the one with its tensors' scales.

    Raises
    ------
    BadInput
        If it is no model.
    """
    build = as_build(value)
    if isinstance(build, Quantized):
        if "float" not in build.files:
            return build.parent
        from qnb.steps.export import export

        model = export(build.files["float"], simplify=False, name=build.name)
        assert isinstance(model, Model)
        return model
    return as_model(build)


def random_inputs(specs: Sequence[TensorSpec], seed: int = 0) -> dict[str, np.ndarray]:
    """Make inputs for a model from a seed: standard normal floats, small integers that are valid indices."""
    rng = np.random.default_rng(seed)
    made = {}
    for spec in specs:
        dtype = np.dtype(spec.dtype)
        if dtype.kind == "f":
            made[spec.name] = rng.standard_normal(spec.shape).astype(dtype)
        else:
            made[spec.name] = rng.integers(0, 2, spec.shape).astype(dtype)
    return made


def read_config(config: object, what: str) -> dict[str, Any]:
    """Read a mapping, or a JSON or YAML file, as plain values.

    Raises
    ------
    BadConfig
        If it can't be read or is not a mapping.
    """
    if config is None:
        return {}
    if isinstance(config, str | Path):
        try:
            text = Path(config).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            hint = "give a mapping, or a JSON or YAML file"
            raise BadConfig(f"could not read the {what} {config}: {error}", hint=hint) from error
        return keyvalues.read(text, f"the {what} {config}")
    if not isinstance(config, Mapping):
        raise BadConfig(f"the {what} is not a mapping but {type(config).__name__}", hint="write keys and values")
    return {str(k): v for k, v in config.items()}
