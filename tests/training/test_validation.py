"""Validation is the mean loss on the same batches with the same noise, and changes nothing."""

from pathlib import Path

import jax
import numpy as np
import pytest

from wsm_jax.runtime import make_mesh
from wsm_jax.training import Context, Validation
from wsm_jax.training.step import init_state


@pytest.fixture
def measure(toy):
    def start(devices=1):
        mesh = make_mesh(devices, 1, 1, 1, jax.devices()[:devices])
        context = Context("toy", toy.Regression(), Path("."), 3, mesh, {}, {})
        state = init_state(toy.Regression(), toy.optimizer(), mesh, 3)
        return Validation(toy.Data(), batches=3, rows=16, every=5).open(context), state.ema

    return start


def test_it_is_the_mean_over_its_batches_and_repeats(toy, measure):
    run, params = measure()
    first = run(1, params)
    assert first == run(9, params) and set(first) == {"loss", "rmse"}
    quiet = Validation(toy.Data(), batches=3, rows=16, every=5).open(
        Context("toy", toy.Regression(0.0), Path("."), 3, make_mesh(1, 1, 1, 1, jax.devices()[:1]), {}, {})
    )(1, params)
    batches = toy.Batches(16)
    by_hand = [float(toy.Regression(0.0).loss(params, next(batches), jax.random.key(0), {})[0]) for _ in range(3)]
    np.testing.assert_allclose(quiet["loss"], np.mean(by_hand), rtol=1e-6)


def test_eight_devices_give_what_one_gives(measure):
    one, eight = (run(1, params) for run, params in (measure(1), measure(8)))
    np.testing.assert_allclose(eight["loss"], one["loss"], rtol=1e-5)


@pytest.mark.parametrize("name", ["batches", "rows", "every"])
def test_numbers_below_one_are_refused(toy, name):
    with pytest.raises(ValueError, match=f"{name} = 0"):
        Validation(toy.Data(), **{"batches": 1, "rows": 1, "every": 1, name: 0})
