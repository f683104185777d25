"""A recording whose parts do not fit together is refused, by name."""

import dataclasses

import numpy as np
import pytest

from data_pipelines.recording.recording import Recording, Signal
from wsm_jax.snapshot import orbit

GOOD = Recording("r", "video", np.arange(3.0), 3.0, np.full((3, 2), 8), ("rgb",), lambda _: iter(()), (), orbit(3))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"time": np.array([0.0, 2.0, 1.0])}, "r: times of frames do not increase"),
        ({"time": np.array([0.0, 1.0, np.nan])}, "r: times of frames do not increase"),
        ({"size": np.zeros((3, 2), int)}, "r: 3 frames of sizes"),
        ({"camera": orbit(2)}, r"r: \(2, 3\) cameras for 3 frames"),
        ({"camera": dataclasses.replace(orbit(3), focal=np.full(3, np.inf, np.float32))}, "r: a camera is not finite"),
        ({"signals": {"a": Signal(np.arange(2.0), np.ones((3, 1), np.float32))}}, "r: signal 'a' of shape"),
        ({"signals": {"a": Signal(np.zeros(2), np.ones((2, 1), np.float32))}}, "r: times of signal 'a' do not increase"),
        ({"text": ("x",), "spans": ((1.0, 0.5),)}, "r"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(GOOD, **changes)


def test_an_unknown_channel_is_refused():
    with pytest.raises((KeyError, ValueError), match="colour"):
        dataclasses.replace(GOOD, channels=("colour",))
