"""``%qnn``: the steps in a notebook.

Turns words and notebook variables into a step's arguments, binds and shows its result, and completes. Knows no step by
name, and must hold no logic of any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

_HELD = "_qnb_extension"


def load_ipython_extension(ip: InteractiveShell) -> None:
    """Register ``%qnn`` and ``%%qnn``, their completion, and ``%config QNN``."""
    from qnb.magics.completion import Completion
    from qnb.magics.qnn import QnnMagics
    from qnb.magics.settings import configured

    first = not hasattr(ip, _HELD)
    unload_ipython_extension(ip)
    magics = QnnMagics(ip)
    ip.register_magics(magics)
    config = configured(ip.config if first else {})
    ip.configurables.append(config)  # type: ignore[arg-type] # its annotation is narrower than its use
    completion = Completion(ip)
    ip.Completer.custom_matchers.append(completion.matcher)
    ip.events.register("post_run_cell", magics.remember_cell)
    setattr(ip, _HELD, (magics, config, completion.matcher))


def unload_ipython_extension(ip: InteractiveShell) -> None:
    """Take away what was registered."""
    held: tuple[Any, ...] | None = getattr(ip, _HELD, None)
    if held is None:
        return
    magics, config, matcher = held
    setattr(ip, _HELD, None)
    ip.events.unregister("post_run_cell", magics.remember_cell)
    ip.Completer.custom_matchers.remove(matcher)
    ip.configurables.remove(config)
    ip.configurables.remove(magics)
    for kind in ("line", "cell"):
        ip.magics_manager.magics[kind].pop("qnn", None)
