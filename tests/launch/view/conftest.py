"""A core over three ticks, in a file and in a dataset."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import wsv
from wsm_jax.snapshot import CHANNELS, WSV, Waves, look_at
from wsm_jax.snapshot import waves as core_json

RED, BLUE = (217, 26, 26), (26, 60, 217)
"""Colours of the ball and of the box, bytes."""


@pytest.fixture
def core() -> Waves:
    """A floor, a red ball and a blue box, over three ticks; the ball rises, and one slot is empty."""
    waves = core_json.empty(4)
    waves = dataclasses.replace(
        waves,
        presence=np.float32([1, 1, 1, 0]),
        centre=np.float32([[0, 0, -0.1], [-0.6, 0, 0.5], [0.7, 0.2, 0.4], [0, 0, 0]]),
        scale=np.float32([[3, 3, 0.1], [0.5, 0.5, 0.5], [0.4, 0.4, 0.4], [0.5, 0.5, 0.5]]),
        exponents=np.float32([[0.1, 0.1], [1, 1], [0.1, 0.1], [1, 1]]),
        colour=np.float32([[0.5, 0.5, 0.5], np.divide(RED, 255), np.divide(BLUE, 255), [0.5, 0.5, 0.5]]),
        semantic=np.int32([1, 3, 4, 0]),
    )
    ball = np.float32([[0, 0, 0], [0, 0, 0.1], [0, 0, 0], [0, 0, 0]])
    return core_json.stack([waves, *(waves.replace(centre=waves.centre + k * ball) for k in (1, 2))])


@pytest.fixture
def path(core, tmp_path) -> Path:
    core_json.save(core, tmp_path / "core.json")
    return tmp_path / "core.json"


@pytest.fixture
def dataset(core, tmp_path) -> Path:
    """Two clips of two frames with the core, a camera and rgb."""
    layout = wsv.Layout(2, 2, 6, 8, 8, 3, core.count, ("rgb",), "array", 1, 2, True, True)
    writer = wsv.create(tmp_path / "set", layout, name="set", sources=[{"name": "x", "licence": "CC0-1.0"}], build={"seed": 0})
    camera = look_at(np.float32([[0, -4, 2], [1, -4, 2]]), np.zeros((2, 3), np.float32))
    for clip in range(2):
        rgb = np.full((2, 6, 8, CHANNELS["rgb"].components), 0.2 * (clip + 1), np.float32)
        writer.write(clip, [WSV({"rgb": rgb}, np.arange(2) / 8, camera, core, np.arange(3) / 8, (f"clip {clip}",), ())])
    writer.finish()
    return tmp_path / "set"
