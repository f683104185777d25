"""The equations of wsm_jax/flow/path.py, each by its number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from wsm_jax.flow import path


@pytest.fixture
def ends():
    """Two ends of a tree state (a batch of 5) and its levels, inside (0.1, 0.9)."""
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = {"picture": (5, 3, 4, 2), "style": (5, 7)}
    x0 = {name: jax.random.normal(keys[0], shape) for name, shape in shapes.items()}
    x1 = {name: jax.random.normal(keys[1], shape) for name, shape in shapes.items()}
    return x0, x1, jax.random.uniform(keys[2], (5,), minval=0.1, maxval=0.9)


def close(a, b, rtol=1e-5):
    jax.tree.map(lambda p, q: np.testing.assert_allclose(p, q, rtol=rtol, atol=1e-6), a, b)


def test_equation_1_the_convention(ends):
    x0, x1, level = ends
    close(path.interpolate(x0, x1, 0.0), x0, 0)
    close(path.interpolate(x0, x1, 1.0), x1, 0)
    x = path.interpolate(x0, x1, level)
    for name in x0:
        for b in range(5):
            expected = (1 - level[b]) * x0[name][b] + level[b] * x1[name][b]
            np.testing.assert_allclose(x[name][b], expected, rtol=1e-6, atol=1e-7)


def test_equation_1_levels_by_group_and_frame(ends):
    x0, x1, _ = ends
    frames = jnp.linspace(0, 1, 15).reshape(5, 3)
    x = path.interpolate(x0, x1, {"picture": frames, "style": 1.0})
    close(x["style"], x1["style"], 0)
    a, b, s = x0["picture"][2, 1], x1["picture"][2, 1], frames[2, 1]
    np.testing.assert_allclose(x["picture"][2, 1], (1 - s) * a + s * b, rtol=1e-6, atol=1e-7)


def test_equation_2_velocity_is_the_derivative_of_1(ends):
    x0, x1, level = ends
    _, slope = jax.jvp(lambda s: path.interpolate(x0, x1, s), (level,), (jnp.ones_like(level),))
    close(slope, path.velocity(x0, x1))


def test_equation_3_recovers_the_velocity_that_made_the_state(ends):
    x0, x1, level = ends
    x, v = path.interpolate(x0, x1, level), path.velocity(x0, x1)
    close(path.velocity_from_target(x, level, x1, jnp.full(5, 0.5), 0.02), jax.tree.map(lambda a: 0.5 * a, v), 1e-4)


def test_equation_3_stays_finite_at_the_target_and_is_zero_where_the_level_stands():
    x, prediction = jnp.zeros(3), jnp.ones(3)
    value, slope = jax.value_and_grad(lambda p: jnp.sum(path.velocity_from_target(x, 1.0, p, 1.0, 0.05)))(prediction)
    np.testing.assert_allclose(value, 3 / 0.05, rtol=1e-6)
    np.testing.assert_allclose(slope, 1 / 0.05, rtol=1e-6)
    np.testing.assert_array_equal(path.velocity_from_target(x, 1.0, jnp.full(3, jnp.nan), 0.0, 0.05), 0.0)


def test_equation_4_block_loss_is_the_sum_of_masked_means():
    error = {"big": jnp.arange(24.0).reshape(2, 3, 4), "small": jnp.float32([[7.0], [9.0]]), "none": jnp.ones((2, 5))}
    mask = {"big": jnp.float32([[1, 0, 1], [0, 0, 0]]), "small": jnp.array([False, True]), "none": jnp.zeros(2)}
    loss, means = path.block_loss(error, mask)
    big = np.concatenate([np.arange(4.0), np.arange(8.0, 12.0)]).mean()
    np.testing.assert_allclose([means["big"], means["small"], means["none"], loss], [big, 9.0, 0.0, big + 9.0], rtol=1e-6)
    gradient = jax.grad(lambda e: path.block_loss(e, mask)[0])(error)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    np.testing.assert_array_equal(gradient["none"], 0)
    np.testing.assert_allclose(path.block_loss(error)[0], 11.5 + 8.0 + 1.0, rtol=1e-6)


def test_equation_4_a_block_weighs_the_same_at_any_size():
    many, one = jnp.full((4, 1000), 2.0), jnp.full((4, 1), 3.0)
    gradient = jax.grad(lambda e: path.block_loss(e)[0])({"many": many, "one": one})
    np.testing.assert_allclose([gradient["many"].sum(), gradient["one"].sum()], [1.0, 1.0], rtol=1e-5)


def test_equation_5_levels_follow_the_mixture():
    mix = path.LevelMix(logit_normal=0.4, mean=-0.3, std=1.2, source_end=0.35, target_end=0.25, power=3.0)
    n = 40_000
    level = np.sort(np.asarray(mix.sample(jax.random.key(1), (n // 100, 100))).ravel().astype(np.float64))
    assert level[0] >= 0
    assert level[-1] <= 1
    inner = np.clip(level, 1e-9, 1 - 1e-9)
    normal = norm.cdf((np.log(inner) - np.log1p(-inner) + 0.3) / 1.2)
    cdf = 0.4 * normal + 0.35 * np.cbrt(level) + 0.25 * (1 - np.cbrt(1 - level))
    assert np.abs(cdf - (np.arange(n) + 0.5) / n).max() < 2 / np.sqrt(n)


def test_equation_5_the_design_puts_a_quarter_at_each_end_and_is_symmetric():
    level = np.asarray(path.LevelMix().sample(jax.random.key(2), (40_000,)))
    np.testing.assert_allclose(level.mean(), 0.5, atol=0.01)
    np.testing.assert_allclose((level < 0.01).mean(), 0.25 * np.cbrt(0.01) + 0.25 * (1 - np.cbrt(0.99)), atol=0.005)


def test_levels_depend_on_the_key_alone():
    mix = path.LevelMix()
    np.testing.assert_array_equal(mix.sample(jax.random.key(3), (8,)), mix.sample(jax.random.key(3), (8,)))
    assert not np.array_equal(mix.sample(jax.random.key(3), (8,)), mix.sample(jax.random.key(4), (8,)))


@pytest.mark.parametrize(
    "bad", [{"source_end": 0.5}, {"logit_normal": 1.25, "target_end": -0.5}, {"std": 0.0}, {"power": -1.0}]
)
def test_a_mixture_that_is_none_is_refused(bad):
    with pytest.raises(ValueError, match="LevelMix"):
        path.LevelMix(**bad)


def test_bad_shapes_and_blocks_are_named():
    with pytest.raises(ValueError, match=r"\(4,\).*\(5, 2\)"):
        path.interpolate(jnp.zeros((5, 2)), jnp.ones((5, 2)), jnp.zeros(4))
    with pytest.raises(ValueError, match=r"masks for \['b'\], errors for \['a'\]"):
        path.block_loss({"a": jnp.zeros(2)}, {"b": jnp.zeros(2)})
