"""``%config QNN``: qnb's defaults as IPython shows and sets them.

The values live in `qnb.defaults` alone; here each is only read and written through. Knows nothing of steps.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from traitlets import TraitError, TraitType
from traitlets.config import Configurable

from qnb.defaults import settings
from qnb.errors import QnbError, UnknownName

if TYPE_CHECKING:
    _Trait = TraitType[Any, Any]
else:
    _Trait = TraitType  # generic only in newer traitlets


class _Live(_Trait):
    """A trait whose value is the setting of the same name, whoever set it."""

    def get(self, obj: Any, cls: Any = None) -> Any:
        return getattr(settings, str(self.name))

    def set(self, obj: Any, value: Any) -> None:
        name = str(self.name)
        try:
            setattr(settings, name, self.checked(name, value))
        except (QnbError, ValueError, TypeError) as error:
            raise TraitError(f"QNN.{name} = {value!r}: {error}") from error

    def default(self, obj: Any = None) -> Any:
        return getattr(settings, str(self.name))

    def default_value_repr(self) -> str:
        return repr(getattr(type(settings)(), str(self.name)))

    @staticmethod
    def checked(name: str, value: Any) -> Any:
        """Check what the settings themselves, which know no table, leave unchecked."""
        if name == "soc":
            from qnb.socs import find

            find(value)
            return str(value)
        if name == "runtime" and value != "default":
            from qnb.runtime.locate import runtimes

            known = [runtime.version for runtime in runtimes()]
            if value not in known:
                raise UnknownName.among("runtime", value, ["default", *known], f"qnb runtime add {value} installs it")
        if name == "ignore":
            from qnb.advice.advise import ignored

            return ",".join(map(str, ignored(value))) or "none"
        if name == "progress" and not isinstance(value, bool):
            raise TypeError("give True or False")
        return value


class QNN(Configurable):
    """Defaults of qnb's steps."""

    soc = _Live(help='SoC that the NPU steps build for: part, name or id, such as "SM8650".').tag(config=True)
    backend = _Live(help='Backend of infer: "htp", "gpu" or "cpu".').tag(config=True)
    runtime = _Live(help='Version of the runtime, or "default" for the installed one.').tag(config=True)
    timeout_s = _Live(help="Seconds after which native work counts as hung; 0 waits for ever.").tag(config=True)
    ignore = _Live(help='Findings that debug leaves out: ids with commas, such as "QNB-P007,QNB-P002:stem*".').tag(
        config=True
    )
    progress = _Live(help="Whether long work shows a progress bar: True or False.").tag(config=True)


def configured(config: Mapping[str, Any]) -> QNN:
    """Make the configurable, with what IPython's configuration file says of it.

    It is not a child of the shell's: IPython keeps there also values that were refused, and would set them again.
    """
    made = QNN()
    for name, value in dict(config.get("QNN", {})).items():
        if name not in made.trait_names(config=True):
            logging.warning("IPython's configuration sets QNN.%s, which there is not", name)
            continue
        try:
            setattr(made, name, value)
        except TraitError as error:
            logging.warning("IPython's configuration: %s", error)
    return made
