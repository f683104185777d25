"""Waves from points: exact, noisy, half-seen, batched and degenerate. Geometry is compared, since parameters are not unique."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wsm_jax.core.fitting.fit import PARAMETERS, fit_wave
from wsm_jax.core.geometry import Geometry
from wsm_jax.snapshot.waves import empty

BATCH, POINTS = 8, 300
FREE = dict.fromkeys(PARAMETERS, np.inf)
"""Priors that do not hold: one compilation serves the tests with and without them."""


@jax.jit
def fit(points, weights, initial, prior):
    return jax.vmap(partial(fit_wave, prior=prior, iterations=40))(points, weights, initial)


def gauge(p, scale, exponents):
    """The power form, float64."""
    x, y, z = np.moveaxis(np.abs(p / scale), -1, 0)
    e1, e2 = np.moveaxis(np.float64(exponents), -1, 0)
    return ((x ** (2 / e2) + y ** (2 / e2)) ** (e2 / e1) + z ** (2 / e1)) ** (e1 / 2)


def surface(rng, geometry, count):
    """`count` surface points of every wave, [B count 3], in world and in local coordinates."""
    v = rng.normal(size=(len(geometry.scale), count, 3)) * geometry.scale[:, None]
    local = v / gauge(v, geometry.scale[:, None], geometry.exponents[:, None])[..., None]
    turn = Rotation.from_quat(geometry.rotation, scalar_first=True).as_matrix()
    return geometry.centre[:, None] + np.einsum("bij,bnj->bni", turn, local), local


def radial(points, geometry):
    """Radial distances of points [B n 3] to the surfaces: at least the distance. Float64."""
    turn = Rotation.from_quat(np.float64(geometry.rotation), scalar_first=True).as_matrix()
    local = np.einsum("bij,bni->bnj", turn, points - np.float64(geometry.centre)[:, None])
    g = gauge(local, np.float64(geometry.scale)[:, None], np.float64(geometry.exponents)[:, None])
    return np.linalg.norm(local, axis=-1) * np.abs(1 - 1 / g)


def hausdorff(a, b):
    """A bound of the distance of two surfaces, each point of either to the other, relative to the mean semi-axis."""
    rng = np.random.default_rng(99)
    a, b = (jax.tree.map(np.asarray, x) for x in (a, b))
    size = np.exp(np.log(a.scale).mean(-1))
    there, back = (radial(surface(rng, x, 2000)[0], y).max(-1) for x, y in ((a, b), (b, a)))
    return np.maximum(there, back) / size


def quaternions(rng, *shape):
    q = rng.normal(size=(*shape, 4))
    return q / np.linalg.norm(q, axis=-1, keepdims=True)


def truth(seed, exponents=(0.2, 1.8), aspect=2.0):
    rng = np.random.default_rng(seed)
    return Geometry(
        centre=rng.normal(size=(BATCH, 3)),
        scale=0.5 * np.exp(rng.uniform(-np.log(aspect) / 2, np.log(aspect) / 2, (BATCH, 3))),
        rotation=quaternions(rng, BATCH),
        exponents=rng.uniform(*exponents, (BATCH, 2)),
    )


def guess(seed, true):
    """A wave some way off: centre by a tenth, scale by a fifth, 10 degrees, exponents 1."""
    rng = np.random.default_rng(seed)
    turn = Rotation.from_quat(true.rotation, scalar_first=True) * Rotation.from_rotvec(rng.normal(size=(BATCH, 3)) * 0.1)
    wave = Geometry(
        centre=true.centre + 0.05 * rng.normal(size=(BATCH, 3)),
        scale=true.scale * np.exp(rng.uniform(-0.2, 0.2, (BATCH, 3))),
        rotation=turn.as_quat(scalar_first=True),
        exponents=np.ones((BATCH, 2)),
    )
    return jax.tree.map(np.float32, wave)


ONES = np.ones((BATCH, POINTS), np.float32)


def test_exact_points_recover_the_surface():
    true = truth(0)
    points, _ = surface(np.random.default_rng(1), true, POINTS)
    fitted, residual = fit(np.float32(points), ONES, guess(2, true), FREE)
    assert hausdorff(guess(2, true), true).min() > 0.05
    assert hausdorff(fitted, true).max() < 1e-3
    assert np.max(residual) < 1e-4


def test_noise_of_five_percent_is_averaged_out():
    true = truth(3, (0.3, 1.5))
    rng = np.random.default_rng(4)
    points, _ = surface(rng, true, POINTS)
    size = np.exp(np.log(true.scale).mean(-1))
    noisy = points + 0.05 * size[:, None, None] * rng.normal(size=points.shape)
    fitted, residual = fit(np.float32(noisy), ONES, guess(5, true), FREE)
    np.testing.assert_allclose(residual / size, 0.05, atol=0.015)
    clean = radial(points, jax.tree.map(np.asarray, fitted))
    assert (np.sqrt((clean**2).mean(-1)) / size).max() < 0.025
    assert hausdorff(fitted, true).max() < 0.25


def test_weights_count_points():
    """Double weight is the point twice; weight 0 is no point, whatever stands there."""
    true = truth(6)
    rng = np.random.default_rng(7)
    points = np.float32(surface(rng, true, POINTS)[0] + 0.02 * rng.normal(size=(BATCH, POINTS, 3)))
    half = POINTS // 2
    twice = np.concatenate([points[:, :half]] * 2, 1)
    padded = np.concatenate([points[:, :half], np.full_like(points[:, half:], np.nan)], 1)
    weights = np.concatenate([2 * ONES[:, :half], 0 * ONES[:, half:]], 1)
    (a, rms_a), (b, rms_b) = (fit(p, w, guess(8, true), FREE) for p, w in ((twice, ONES), (padded, weights)))
    np.testing.assert_allclose(rms_a, rms_b, rtol=1e-3)
    assert hausdorff(a, b).max() < 0.01
    expected = np.sqrt((radial(points[:, :half], jax.tree.map(np.asarray, a)) ** 2).mean(-1))
    np.testing.assert_allclose(rms_a, expected, rtol=1e-3)


def test_a_half_seen_wave_is_completed_by_its_prior():
    """The camera side alone is seen: the prior keeps the far side near the initial wave, and the near side fits."""
    true = truth(9, (0.3, 1.2))
    rng = np.random.default_rng(10)
    world, local = surface(rng, true, 8 * POINTS)
    view = rng.normal(size=(BATCH, 3))
    turn = Rotation.from_quat(true.rotation, scalar_first=True)
    facing = np.einsum("bni,bi->bn", local / true.scale[:, None] ** 2, turn.inv().apply(view))  # an ellipsoid's normal
    near = np.argsort(-facing, axis=1)[:, : 3 * POINTS : 3]
    points = np.take_along_axis(world, near[..., None], 1)
    prior = {"centre": 0.1, "scale": 0.2, "rotation": 0.2, "exponents": 0.5}
    noise = 0.005
    seen = points + noise * rng.normal(size=points.shape)
    start = guess(11, true)
    fitted, _ = fit(np.float32(seen), ONES / noise**2, start, prior)
    fitted = jax.tree.map(np.asarray, fitted)
    size = np.exp(np.log(true.scale).mean(-1))
    assert (np.sqrt((radial(points, fitted) ** 2).mean(-1)) / size).max() < 0.03
    assert np.median(hausdorff(fitted, true)) < np.median(hausdorff(start, true))
    assert hausdorff(fitted, true).max() < 0.5


def test_priors_divide_what_the_points_cannot_tell():
    """Only the top of a box is seen, 5 mm too high: centre and height share the difference as their variances."""
    scale = np.float32([[0.5, 0.4, 0.5]] * BATCH)
    upright = np.tile(np.float32([1, 0, 0, 0]), (BATCH, 1))
    start = Geometry(np.zeros((BATCH, 3), np.float32), scale, upright, np.full((BATCH, 2), 0.2, np.float32))
    points = np.random.default_rng(12).uniform(-0.1, 0.1, (BATCH, POINTS, 3)).astype(np.float32)
    points[..., 2] = 0.505
    prior = {"centre": 0.05, "scale": 0.2, "rotation": 1e-4, "exponents": 1e-4}
    fitted, _ = fit(points, 1e4 * ONES, start, prior)
    share = 0.05**2 / (0.05**2 + (0.5 * 0.2) ** 2)
    np.testing.assert_allclose(fitted.centre[:, 2], 0.005 * share, rtol=0.02)
    np.testing.assert_allclose(fitted.scale[:, 2] - 0.5, 0.005 * (1 - share), rtol=0.02)
    np.testing.assert_allclose(fitted.centre[:, :2], 0.0, atol=1e-3)


@pytest.mark.parametrize("case", ["all points equal", "one point", "all points at the centre", "no weight"])
def test_points_without_extent_return_the_initial_wave(case):
    true = truth(13)
    start = guess(14, true)
    points = np.float32(np.repeat(surface(np.random.default_rng(15), true, 1)[0], POINTS, 1))
    weights = ONES.copy()
    if case == "all points at the centre":
        points = np.repeat(start.centre[:, None], POINTS, 1)
    if case == "one point":
        points[:, 1:] += np.arange(1, POINTS)[:, None]
        weights[:, 1:] = 0
    if case == "no weight":
        weights[:] = 0
    fitted, residual = fit(points, weights, start, FREE)
    jax.tree.map(np.testing.assert_array_equal, fitted, start)
    assert np.isfinite(residual).all()
    if case != "all points at the centre":  # where the radial distance has no value
        expected = 0.0 if case == "no weight" else radial(np.float64(points[:, :1]), start)[:, 0]
        np.testing.assert_allclose(residual, expected, rtol=1e-4, atol=1e-6)


def test_poor_input_gives_a_finite_wave_that_is_no_worse():
    """Points on a line, on two spots, inside, far off; initial exponents at both ends of their range."""
    rng = np.random.default_rng(16)
    points = rng.normal(size=(BATCH, POINTS, 3))
    points[0, :, 1:] = 0.0
    points[1] = np.where(rng.random((POINTS, 1)) < 0.5, 1.0, -1.0)
    points[2] *= 0.01
    points[3] *= 100.0
    points[4, 3:] = points[4, :1]
    points[5, 0] = 0.0
    exponents = rng.choice([0.1, 1.9], (BATCH, 2))
    start = Geometry(np.zeros((BATCH, 3)), np.full((BATCH, 3), 0.5), quaternions(rng, BATCH), exponents)
    start = jax.tree.map(np.float32, start)
    fitted, residual = fit(np.float32(points), ONES, start, FREE)
    fitted = jax.tree.map(np.asarray, fitted)
    assert all(np.isfinite(x).all() for x in (*jax.tree.leaves(fitted), np.asarray(residual)))
    assert (fitted.scale > 0).all()
    assert ((fitted.exponents >= 0.1 - 1e-6) & (fitted.exponents <= 1.9 + 1e-6)).all()
    before = np.sqrt((radial(points[3:4], jax.tree.map(lambda x: np.float64(x[3:4]), start)) ** 2).mean(-1))
    assert residual[3] < before


def test_a_batch_is_its_waves_one_by_one_and_only_the_free_parts_move():
    true = truth(17)
    points, start = np.float32(surface(np.random.default_rng(18), true, POINTS)[0]), guess(19, true)
    free = ("centre", "scale")
    single = partial(fit_wave, free=free, iterations=8)
    together, rms = jax.vmap(single)(points, ONES, start)
    alone, alone_rms = single(points[2], ONES[2], jax.tree.map(lambda x: x[2], start))
    np.testing.assert_allclose(alone_rms, rms[2], rtol=1e-3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b[2], atol=1e-3), alone, together)
    np.testing.assert_array_equal(together.rotation, start.rotation)
    np.testing.assert_array_equal(together.exponents, start.exponents)
    assert (np.abs(together.centre - start.centre).max(-1) > 1e-3).all()
    before = np.sqrt((radial(points, start) ** 2).mean(-1))
    assert (rms < before).all()


def test_geometry_of_waves():
    waves = empty(3, (2,))
    geometry = Geometry.of(waves)
    assert jnp.shape(geometry.exponents) == (2, 3, 2)
    np.testing.assert_array_equal(geometry.scale, waves.scale)


@pytest.mark.parametrize("bad", [{"free": ("size",)}, {"free": ()}, {"prior": {"colour": 1.0}}, {"iterations": 0}])
def test_an_unknown_part_is_refused(bad):
    start = jax.tree.map(lambda x: x[0], guess(20, truth(21)))
    with pytest.raises(ValueError, match=r"fit_wave: .*needed"):
        fit_wave(np.zeros((4, 3), np.float32), np.ones(4, np.float32), start, **bad)
