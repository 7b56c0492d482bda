"""What stays of a widget in a saved notebook: a table as HTML and a picture, which the live view covers while it is there.

A widget that is opened without its kernel is blank, or an error. So the view is the third of three outputs; a style sheet
hides the first two while the third is alive, and the third once it is not. No script, so that it works where none may run.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from qnb.display.style import PAPER

if TYPE_CHECKING:
    from IPython.display import DisplayHandle
    from matplotlib.figure import Figure

__all__ = ["DPI", "Saved", "Shown", "joined", "size_of"]

DPI = 110
_VIEW = "application/vnd.jupyter.widget-view+json"
_CHILD = ".jp-OutputArea-child"
_STATIC = f"{_CHILD}:has(.qnb-static)"
_STYLE = (
    f"{_STATIC}:has(+{_CHILD}+{_CHILD} .qnb-live){{display:none}}"
    f"{_STATIC}+{_CHILD}:has(+{_CHILD} .qnb-live){{display:none}}"
    # what stands in the place of a view whose kernel is gone is an error
    f"{_STATIC}+{_CHILD}+{_CHILD}:not(:has(.qnb-live)){{display:none}}"
    ".qnb-static code{white-space:pre-wrap}"
)


class Shown:
    """A title, a part for each thing that is known, and their pictures: what a widget is when it is not alive.

    Attributes
    ----------
    title : str
    parts : list of str
        HTML fragments, all text in them escaped.
    pictures : list of bytes
        PNG.
    alt : str
        What the pictures show.
    """

    def __init__(self, title: str) -> None:
        self.title = title
        self.parts: list[str] = []
        self.pictures: list[bytes] = []
        self.alt: list[str] = []

    def text(self, text: str, tag: str = "div") -> None:
        """Add a line."""
        self.parts.append(f"<{tag}>{escape(text)}</{tag}>")

    def picture(self, png: bytes, alt: str) -> None:
        """Add a picture."""
        self.pictures.append(png)
        self.alt.append(alt)

    @property
    def html(self) -> str:
        """The first output."""
        head = f"<h3>{escape(self.title)}</h3>"
        return f'<div class="qnb-static"><style>{_STYLE}</style>{head}{"".join(self.parts)}</div>'


class Saved:
    """The outputs of a widget in the notebooks where it was shown."""

    def __init__(self) -> None:
        self._handles: list[tuple[DisplayHandle, DisplayHandle]] = []

    def show(self, shown: Shown, model_id: str, text: str) -> None:
        """Show what stays, and the live view below it."""
        from IPython.display import DisplayHandle, display

        pair = DisplayHandle(), DisplayHandle()  # type: ignore[no-untyped-call]
        self._handles.append(pair)
        for handle, (data, metadata) in zip(pair, _bundles(shown), strict=True):
            handle.display(data, raw=True, metadata=metadata)  # type: ignore[no-untyped-call]
        view = {_VIEW: {"version_major": 2, "version_minor": 0, "model_id": model_id}, "text/plain": text}
        display(view, raw=True)  # type: ignore[no-untyped-call]

    def update(self, shown: Shown) -> None:
        """Bring what stays up to date."""
        if not self._handles:
            return
        bundles = _bundles(shown)
        for pair in self._handles:
            for handle, (data, metadata) in zip(pair, bundles, strict=True):
                handle.update(data, raw=True, metadata=metadata)  # type: ignore[no-untyped-call]

    @property
    def wanted(self) -> bool:
        """Whether it is shown anywhere."""
        return bool(self._handles)

    def close(self) -> None:
        """Forget the outputs; what they show stays."""
        self._handles.clear()


def _bundles(shown: Shown) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    alt = "; ".join(shown.alt)
    html = {"text/html": shown.html, "text/plain": shown.title}
    if not shown.pictures:
        return [(html, {}), ({"text/plain": ""}, {})]
    picture = {"image/png": joined(shown.pictures), "text/plain": alt}
    return [(html, {}), (picture, {"image/png": {"alt": alt}})]


def joined(pictures: Sequence[bytes]) -> bytes:
    """Put PNGs below each other."""
    if len(pictures) == 1:
        return pictures[0]
    from PIL import Image

    images = [Image.open(io.BytesIO(png)).convert("RGB") for png in pictures]
    whole = Image.new("RGB", (max(i.width for i in images), sum(i.height for i in images)), PAPER)
    at = 0
    for image in images:
        whole.paste(image, (0, at))
        at += image.height
    buffer = io.BytesIO()
    whole.save(buffer, format="png", optimize=True)
    return buffer.getvalue()


def size_of(figure: Figure) -> tuple[int, int]:
    """Width and height of a figure in CSS pixels."""
    width, height = figure.get_size_inches()
    return round(float(width) * 96), round(float(height) * 96)
