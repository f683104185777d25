"""Four waves apart from each other: an ellipsoid, a box, a cylinder and a diamond; two of them are one instance."""

import dataclasses

import numpy as np
import pytest

from wsm_jax.core.exchange.conversion import Options
from wsm_jax.snapshot.waves import empty


@pytest.fixture
def scene():
    rotation = np.float32([[1, 0, 0, 0], [0.9, 0.1, 0.3, 0.2], [0.7, 0.5, -0.3, 0.2], [0.3, 0.8, 0.1, 0.1]])
    return dataclasses.replace(
        empty(4),
        presence=np.ones(4, np.float32),
        centre=np.float32([[0, 0, 0.5], [1.6, 0, 0.5], [0, 1.8, 0.6], [1.7, 1.7, 0.5]]),
        scale=np.float32([[0.5, 0.4, 0.3], [0.4, 0.5, 0.3], [0.3, 0.3, 0.6], [0.4, 0.4, 0.4]]),
        rotation=rotation / np.linalg.norm(rotation, axis=1, keepdims=True),
        exponents=np.float32([[1, 1], [0.2, 0.2], [0.2, 1], [1.6, 1.2]]),
        colour=np.float32([[0.8, 0.1, 0.1], [0.1, 0.7, 0.2], [0.1, 0.3, 0.9], [0.9, 0.8, 0.1]]),
        material=np.float32([[0.3, 0], [0.5, 1], [0.7, 0], [1, 0]]),
        instance=np.int32([1, 2, 2, 0]),
        semantic=np.int32([3, 4, 5, 7]),
    )


@pytest.fixture
def options():
    """A maker of options of conversion."""
    return given_options


def given_options(**changes):
    given = {"samples": 3000, "resolution": 32, "detail": 8, "max_waves": 64, "splats": "moments", "seed": 0}
    return Options(**(given | changes))
