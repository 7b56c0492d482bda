"""Models that several steps are tried on; each is exported once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hard import hard_digits
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


@pytest.fixture(scope="session")
def hard_model() -> Any:
    """The digits network that plain 8 bits break."""
    import qnb

    return qnb.export(
        hard_digits().module,
        shapes={"image": (1, 1, 8, 8)},
        input_names=["image"],
        output_names=["logits"],
        name="hard",
    )
