"""The routes of the server extension: what they take and give; the work is done elsewhere, off the event loop."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tornado.web
from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from traitlets import Float, Integer
from traitlets.config import LoggingConfigurable

from qnb import running
from qnb.defaults import set_target, settings
from qnb.errors import ArtifactError, BadInput, QnbError, StorageError, UnknownName
from qnb.server import files, workspace

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

    from qnb.faces.face import Parameter


class QnbServer(LoggingConfigurable):
    """Limits of qnb's routes: ``c.QnbServer.max_file_mb = 1000`` in jupyter_server_config.py."""

    max_file_mb = Integer(512, min=1, help="Largest file, or saved result, that is read, in MB.").tag(config=True)
    timeout_s = Float(10.0, min=0.1, help="Seconds after which reading a file is given up.").tag(config=True)
    workspace_depth = Integer(6, min=1, help="How many folders deep the workspace is searched.").tag(config=True)
    workspace_entries = Integer(1000, min=1, help="How many entries of the workspace are listed.").tag(config=True)
    workspace_s = Float(5.0, min=0.1, help="Seconds after which searching the workspace ends.").tag(config=True)


@dataclasses.dataclass
class _Shared:
    """What the handlers of one server have in common."""

    limits: QnbServer
    views: files.Views
    quick: ThreadPoolExecutor
    reading: ThreadPoolExecutor
    doctoring: asyncio.Lock


_READERS = 2
"""Files that are read at once, each in a worker of its own."""

_STATUS: tuple[tuple[type[QnbError], int], ...] = (
    (files.NotThere, 404), (files.Forbidden, 403), (files.TooLarge, 413), (ArtifactError, 422), (BadInput, 422),
    (StorageError, 422),
)  # fmt: skip


class _Handler(APIHandler):
    auth_resource = "qnb"

    def initialize(self, shared: _Shared) -> None:
        self.shared = shared

    async def off_the_loop(self, function: Callable[..., Any], *args: Any, reading: bool = False) -> Any:
        """Run what blocks in a thread; those that read files are others, so that jobs can be stopped meanwhile."""
        threads = self.shared.reading if reading else self.shared.quick
        return await asyncio.get_running_loop().run_in_executor(threads, functools.partial(function, *args))

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Answer with what happened and what to do next."""
        error = kwargs.get("exc_info", (None, None))[1]
        message, hint = "", ""
        if isinstance(error, QnbError):
            message, hint = error.what, error.hint
            status_code = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        elif isinstance(error, tornado.web.HTTPError):
            message = error.log_message or ""
        self.set_status(status_code)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"message": message or self._reason, "hint": hint}))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log what is not foreseen with its traceback, and the rest in a line."""
        if isinstance(value, QnbError):
            self.log.info("qnb: %s", value.what.splitlines()[0])
        else:
            super().log_exception(typ, value, tb)

    @property
    def root(self) -> Path:
        """The root of the server's files."""
        root = getattr(self.contents_manager, "root_dir", None)
        if not root:
            raise files.NotThere(
                "the server's files are in no folder of this machine", hint="use the default contents manager"
            )
        return Path(root)

    @property
    def hidden(self) -> bool:
        """Whether hidden files may be read."""
        return bool(getattr(self.contents_manager, "allow_hidden", False))


class ViewHandler(_Handler):
    """``GET qnb/view?path=…``: the view document of a file or of a saved result."""

    @tornado.web.authenticated
    @authorized
    async def get(self) -> None:
        relative = self.get_query_argument("path", "", strip=False)
        if not relative:
            raise tornado.web.HTTPError(400, "no path is given: qnb/view?path=…, relative to the server's root")

        def read() -> bytes:
            return self.shared.views.get(files.resolve(self.root, relative, hidden=self.hidden))

        content = await self.off_the_loop(read, reading=True)
        self.set_header("Content-Type", "application/json")
        self.finish(content)


class DoctorHandler(_Handler):
    """``GET qnb/doctor``: the view document of `qnb.doctor`."""

    @tornado.web.authenticated
    @authorized
    async def get(self) -> None:
        def examine() -> dict[str, Any]:
            from qnb.steps.doctor import doctor

            return doctor().report()

        async with self.shared.doctoring:  # it starts every backend
            self.finish(json.dumps(await self.off_the_loop(examine)))


class SocsHandler(_Handler):
    """``GET qnb/socs``: the SoCs that can be built for, and the target."""

    @tornado.web.authenticated
    @authorized
    async def get(self) -> None:
        from qnb.socs import table

        socs = [
            {"part": soc.part, "name": soc.name, "hexagon_arch": soc.arch, "fp16": soc.fp16}
            for soc in table()
            if soc.usable
        ]
        self.finish(json.dumps({"target": settings.soc, "socs": socs}))


class TargetHandler(_Handler):
    """``PUT qnb/target``: choose the SoC that notebooks build for where they name none."""

    @tornado.web.authenticated
    @authorized
    async def put(self) -> None:
        body = self.get_json_body()
        soc = body.get("soc") if isinstance(body, dict) else None
        if not isinstance(soc, str):
            raise tornado.web.HTTPError(400, 'give {"soc": "SM8650"}')
        self.finish(json.dumps({"target": await self.off_the_loop(set_target, soc)}))


class WorkspaceHandler(_Handler):
    """``GET qnb/workspace``: models and saved results under the root."""

    @tornado.web.authenticated
    @authorized
    async def get(self) -> None:
        limits = self.shared.limits
        found = await self.off_the_loop(
            lambda: workspace.search(
                self.root,
                hidden=self.hidden,
                depth=limits.workspace_depth,
                most=limits.workspace_entries,
                seconds=limits.workspace_s,
            )
        )
        self.finish(json.dumps(found))


class JobsHandler(_Handler):
    """``GET qnb/jobs``: what runs on this machine for this user; ``DELETE qnb/jobs/<id>`` asks it to stop."""

    @tornado.web.authenticated
    @authorized
    async def get(self) -> None:
        self.finish(json.dumps({"jobs": await self.off_the_loop(running.listed)}))


class JobHandler(_Handler):
    """``DELETE qnb/jobs/<id>``: ask one to stop."""

    @tornado.web.authenticated
    @authorized
    async def delete(self, name: str) -> None:
        try:
            await self.off_the_loop(running.stop, name)
        except UnknownName as error:
            raise files.NotThere(error.what, hint=error.hint) from error
        self.set_status(204)
        self.finish()


class StepsHandler(_Handler):
    """``GET qnb/steps``: the steps with their options, for a palette, for completion and for new cells."""

    @tornado.web.authenticated
    @authorized
    async def get(self) -> None:
        self.finish(json.dumps({"steps": await self.off_the_loop(_steps)}))


@functools.cache
def _steps() -> list[dict[str, Any]]:
    from qnb.faces import face as faces
    from qnb.faces import pages

    return [
        {
            "name": face.name,
            "summary": pages.plain(face.summary),
            "line": pages.usage(face, "magic").removesuffix(" [options]"),
            "options": [
                {
                    "name": parameter.option if parameter.place == "option" else parameter.metavar,
                    "help": pages.plain(parameter.help),
                    "kind": _kind(parameter),
                    "choices": list(parameter.choices),
                    "default": parameter.default_text,
                }
                for parameter in face.parameters
                if not parameter.needs_python
            ],
        }
        for face in map(faces.face, faces.names())
    ]


def _kind(parameter: Parameter) -> str:
    """What stands for its value: a kind of object such as ``model``, ``flag``, or a word such as ``SOC``."""
    if parameter.marker is not None:
        return parameter.marker.kind
    return "flag" if parameter.hint is bool else parameter.metavar


def add_routes(app: ServerApp) -> None:
    """Add the routes to a server."""
    limits = QnbServer(parent=app)
    quick = ThreadPoolExecutor(4, thread_name_prefix="qnb-server")
    reading = ThreadPoolExecutor(_READERS, thread_name_prefix="qnb-reading")
    shared = {"shared": _Shared(limits, files.Views(limits), quick, reading, asyncio.Lock())}
    routes: dict[str, type[_Handler]] = {
        "view": ViewHandler, "doctor": DoctorHandler, "socs": SocsHandler, "target": TargetHandler,
        "workspace": WorkspaceHandler, "jobs": JobsHandler, "jobs/([^/]+)": JobHandler, "steps": StepsHandler,
    }  # fmt: skip
    base = app.web_app.settings["base_url"]
    app.web_app.add_handlers(  # type: ignore[no-untyped-call]
        ".*$", [(url_path_join(base, "qnb", path), handler, shared) for path, handler in routes.items()]
    )
