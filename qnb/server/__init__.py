"""A Jupyter Server extension: files, saved results, running work and defaults of qnb for what runs in the browser.

Needs jupyter_server, which nothing else of qnb does (``pip install 'qnb[lab]'``). Routes and limits: docs/server.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "qnb.server"}]


def _load_jupyter_server_extension(app: ServerApp) -> None:
    from qnb.server.handlers import add_routes

    add_routes(app)
