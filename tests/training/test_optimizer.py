"""Schedules have their values where they say, and decay spares what is no matrix."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from wsm_jax.training import AdamW, Constant, Cosine, WarmupStableDecay
from wsm_jax.training.optimizer import decayed, learning_rate

SETTINGS = {"peak": 0.01, "warmup": 0, "schedule": Constant(), "weight_decay": 0.1, "clip": 1.0, "b2": 0.99}


def make_optimizer(**changes):
    return AdamW(**{**SETTINGS, **changes}).transformation(100)


def test_warm_up_is_linear_and_reaches_the_peak():
    for schedule in (Constant(), Cosine(), WarmupStableDecay()):
        rate = learning_rate(schedule, 0.4, 10, 100)
        np.testing.assert_allclose(jax.vmap(rate)(jnp.arange(10)), 0.04 * np.arange(1, 11), rtol=1e-6)
        np.testing.assert_allclose(rate(10), 0.4, rtol=1e-6)


@pytest.mark.parametrize("decay", [0.2, 0.5])
def test_the_schedules_follow_their_formulas(decay):
    steps = np.arange(20, 101)
    cosine = learning_rate(Cosine(), 0.4, 20, 100)
    np.testing.assert_allclose(jax.vmap(cosine)(steps), 0.2 * (1 + np.cos(np.pi * (steps - 20) / 80)), rtol=1e-5, atol=1e-8)
    wsd = learning_rate(WarmupStableDecay(decay), 0.4, 20, 100)
    line = 0.4 * np.minimum(1.0, (100 - steps) / (100 * decay))
    np.testing.assert_allclose(jax.vmap(wsd)(steps), line, rtol=1e-5, atol=1e-8)
    constant = learning_rate(Constant(), 0.4, 0, 100)
    assert [float(constant(i)) for i in (0, 50, 1000)] == [pytest.approx(0.4)] * 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"peak": 0.0}, "peak = 0.0"),
        ({"warmup": 100}, r"warmup 100 .*0\.\.99"),
        ({"clip": 0.0}, r"clip = 0\.0"),
        ({"warmup": -1}, "warmup = -1"),
    ],
)
def test_bad_settings_are_errors_with_value_and_need(change, words):
    with pytest.raises(ValueError, match=words):
        make_optimizer(**change)


def test_decay_applies_to_matrices_alone_and_follows_the_rate():
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3), "gain": jnp.ones(())}
    assert decayed(params) == {"kernel": True, "bias": False, "gain": False}
    optimizer = make_optimizer()
    zero = jax.tree.map(jnp.zeros_like, params)
    after = jax.jit(lambda p: optax.apply_updates(p, optimizer.update(zero, optimizer.init(p), p)[0]))(params)
    np.testing.assert_allclose(after["kernel"], 1 - 0.01 * 0.1, rtol=1e-6)
    np.testing.assert_array_equal(after["bias"], 1.0)
    np.testing.assert_array_equal(after["gain"], 1.0)


def test_the_gradient_is_clipped_to_its_norm():
    params = {"w": jnp.zeros(4)}
    big, small = {"w": jnp.full(4, 1e6)}, {"w": jnp.full(4, 0.5)}
    optimizer = make_optimizer()
    moments = jax.jit(lambda gradient: optimizer.update(gradient, optimizer.init(params), params)[1])
    one, two = moments(big), moments(small)
    # Both have norm 1 after clipping, so they leave the same moments.
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), one, two)
