"""Sphinx configuration. Built by ``make docs`` with warnings as errors."""

from __future__ import annotations

import json
from pathlib import Path

from sphinx.application import Sphinx

import qnb

project = "qnb"
author = "the qnb developers"
copyright = "the qnb developers, Apache-2.0"
version = release = qnb.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = "qnb"
html_show_sourcelink = False

# Signatures show names and defaults; types are words in the docstrings, and words are no links.
autodoc_typehints = "none"
autodoc_preserve_defaults = True
napoleon_google_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True
nitpicky = True
nitpick_ignore_regex = [("py:class", ".*"), ("py:exc", ".*")]
default_role = "code"


def insert_notebook(app: Sphinx, name: str, source: list[str]) -> None:
    """Put the text of the quickstart notebook into its page, so that there is only one."""
    if name == "quickstart":
        path = Path(app.srcdir).parent / "notebooks" / "00-quickstart.ipynb"
        source[0] = source[0].replace("<!-- the notebook -->", as_markdown(path))


def as_markdown(path: Path) -> str:
    """Give a notebook's text and code as Markdown."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```ipython\n{text}\n```")
    return "\n\n".join(parts)


def without_constructor(app: Sphinx, what: str, *_: object) -> tuple[str, None] | None:
    """Leave out the signatures of results: steps make them, not readers."""
    return ("", None) if what == "class" else None


def setup(app: Sphinx) -> None:
    """Register the hooks."""
    app.connect("source-read", insert_notebook)
    app.connect("autodoc-process-signature", without_constructor)
