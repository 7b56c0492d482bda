"""The command as a user has it: a process of its own, in an empty folder."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests.magics.conftest import write_classifier


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    """A folder with a model, images and their cache."""
    home = tmp_path_factory.mktemp("home")
    write_classifier(home / "net.onnx")
    np.save(home / "images.npy", np.random.default_rng(1).standard_normal((4, 3, 8, 8)).astype("float32"))
    np.save(home / "labels.npy", np.array([0, 1, 2, 3]))
    (home / "config.yaml").write_text("htp_config:\n  vtcm_mb: 4\n")
    return home


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    return os.environ | {"QNB_CACHE_DIR": str(tmp_path_factory.mktemp("cache")), "COLUMNS": "100", "NO_COLOR": "1"}


@pytest.fixture
def qnb(home, environment):
    """Run ``python -m qnb``; give the finished process, its output as bytes."""

    def qnb(*words, code=0, **more):
        done = subprocess.run(
            [sys.executable, "-m", "qnb", *words], cwd=home, env=environment | more, capture_output=True, timeout=120
        )
        assert done.returncode == code, done.stderr.decode()
        return done

    return qnb
