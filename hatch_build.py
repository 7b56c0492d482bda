"""Builds the JupyterLab extension into the wheel.

A checkout builds it anew, so that a wheel never carries stale scripts; an sdist carries what was built, so that a wheel
made from it needs no node. An editable install takes what is there (`make extension` builds it) and does without.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SHARED = "share/jupyter/labextensions/qnb"


class LabExtensionHook(BuildHookInterface):
    """Hatchling's hook for wheels and sdists."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build the extension where there are its sources, and say where its files go."""
        root = Path(self.root)
        built = root / "qnb" / "labextension"
        if version != "editable" and not (root / "PKG-INFO").exists():
            build(root / "extension", built)
        if self.target_name == "wheel" and built.is_dir():
            build_data["shared_data"] |= {
                str(built): SHARED,
                str(root / "extension" / "install.json"): f"{SHARED}/install.json",
            }


def build(source: Path, built: Path) -> None:
    """Make the extension from its locked dependencies, in the place of what was built before."""
    npm = shutil.which("npm")
    if npm is None:
        sys.exit(
            "There is no npm here. Building qnb's wheel needs Node.js 20 or later with npm; installing it does not."
        )
    shutil.rmtree(built, ignore_errors=True)
    # `jupyter-builder` stands beside the Python of the build's own environment.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    for command in (["ci", "--no-audit", "--no-fund", "--silent"], ["run", "--silent", "build:prod"]):
        subprocess.run([npm, *command], cwd=source, check=True, env={**os.environ, "PATH": path})
