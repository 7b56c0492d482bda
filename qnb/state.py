"""Where qnb keeps the little that it knows of its user from one process to the next.

Knows nothing of what is kept there.
"""

from __future__ import annotations

import os
from pathlib import Path


def root() -> Path:
    """The folder: ``QNB_STATE_DIR``, or the user's state folder of this platform."""
    override = os.environ.get("QNB_STATE_DIR")
    if override:
        return Path(override)
    import platformdirs

    return Path(platformdirs.user_state_dir("qnb", appauthor=False))
