"""Models that several steps are tried on; each is exported once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.steps.oracles import exported, noise


@pytest.fixture(scope="session")
def two() -> Any:
    """Module and model with two inputs (image, context) and two outputs (logits, features)."""
    return exported("two_in_two_out")


@pytest.fixture(scope="session")
def two_data() -> Any:
    return {"image": noise(12, 3, 16, 16), "context": noise(12, 6, seed=1)}


@pytest.fixture(scope="session")
def two_quantized(two: Any, two_data: Any) -> Any:
    import qnb

    return qnb.calibrate(two[1], two_data)


@pytest.fixture(scope="session")
def lstm() -> Any:
    return exported("lstm")


@pytest.fixture(scope="session")
def vit() -> Any:
    return exported("vit_block")
