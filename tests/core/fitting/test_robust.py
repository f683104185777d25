"""Waves from points alone: the first-order distance bounds the true one, outliers are told apart, no start is needed."""

import jax
import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from wsm_jax.core.fitting.compare import iou, surface_samples
from wsm_jax.core.fitting.robust import STARTS, alternative_starts, first_order_distance, fit_one, fit_robust, padded
from wsm_jax.core.geometry import Geometry


def wave(exponents, scale=(0.5, 0.8, 0.3), seed=0):
    turn = Rotation.random(random_state=seed).as_quat(scalar_first=True)
    centre = np.random.default_rng(seed).normal(size=3)
    return jax.tree.map(np.float32, Geometry(centre, np.asarray(scale), turn, np.asarray(exponents)))


distance = jax.jit(first_order_distance)


@pytest.mark.parametrize("exponents", [(1.0, 1.0), (0.3, 1.6), (0.1, 0.1)])
def test_distance_to_first_order_is_a_lower_bound_and_right_nearby(exponents):
    true = wave(exponents)
    surface = surface_samples(true, 4096)
    points = true.centre + np.random.default_rng(1).uniform(-2, 2, (512, 3)).astype(np.float32)
    d = np.asarray(distance(points, true))
    nearest = cKDTree(surface).query(points)[0]
    outside = d > 0
    assert (d[outside] <= nearest[outside] + 1e-5).all()
    flat = wave((0.1, 0.1), (1.0, 1.0, 0.01))
    turn = Rotation.from_quat(flat.rotation, scalar_first=True)
    above = np.float32(flat.centre + turn.apply([[0.5, 0.3, 0.06], [0.0, 0.7, 0.06]]))
    np.testing.assert_allclose(distance(above, flat), 0.05, rtol=1e-3)
    assert np.isfinite(distance(np.float32([flat.centre, flat.centre + 1e4]), flat)).all()


@pytest.mark.parametrize("exponents", [(0.1, 0.1), (0.1, 1.0), (1.7, 0.4)])
def test_a_wave_is_found_without_a_start_whichever_axis_is_z(exponents):
    true = wave(exponents, seed=2)
    fit = fit_one(surface_samples(true, 512, 3))
    assert iou(fit.geometry, true, 32) > 0.985
    assert fit.sigma < 2e-3
    np.testing.assert_array_equal(fit.inlier, 1.0)


def test_outliers_are_told_apart():
    true = wave((0.4, 0.8), seed=4)
    points = surface_samples(true, 512, 5)
    rng = np.random.default_rng(6)
    bad = np.arange(len(points)) % 10 < 3
    points[bad] = true.centre + rng.uniform(-1.0, 1.0, (bad.sum(), 3))
    trusting, fit = fit_one(points), fit_one(points, outliers=0.5)
    assert iou(fit.geometry, true, 32) > 0.97 > 0.9 > iou(trusting.geometry, true, 32)
    off = np.abs(np.asarray(distance(points, true)))
    assert fit.inlier[~bad].mean() > 0.97
    assert fit.inlier[bad & (off > 0.05)].max() < 0.05
    np.testing.assert_allclose(fit.outliers, 0.3, atol=0.04)


def test_noise_is_measured():
    true = wave((0.6, 1.2), seed=7)
    points = surface_samples(true, 512, 8)
    points = points + np.float32(0.02 * np.random.default_rng(9).normal(size=points.shape))
    fit = fit_one(points)
    np.testing.assert_allclose(fit.sigma, 0.02, rtol=0.12)
    assert iou(fit.geometry, true, 32) > 0.93


def test_the_fit_moves_and_grows_with_its_points():
    true = wave((0.4, 1.4), seed=10)
    points = surface_samples(true, 512, 11)
    fit = fit_one(points)
    far = fit_one(100.0 * points + np.float32([2000, 0, 0]))
    there = true.replace(centre=100.0 * true.centre + np.float32([2000, 0, 0]), scale=100.0 * true.scale)
    assert iou(fit.geometry, true, 24) > 0.98 and iou(far.geometry, there, 24) > 0.98


def test_empty_space_is_left_empty():
    """A half ball is completed to a ball by its points, but not into space that is known to be empty."""
    rng = np.random.default_rng(12)
    ball = rng.normal(size=(400, 3))
    ball = 0.5 * ball / np.linalg.norm(ball, axis=1, keepdims=True)
    ball = ball[ball[:, 2] > 0][:128]
    space = np.stack([*rng.uniform(-0.5, 0.5, (2, 128)), rng.uniform(-0.6, -0.1, 128)], -1)
    points, weights = np.float32(np.concatenate([ball, space])), np.ones(256, np.float32)
    start = Geometry(np.float32([0, 0, 0]), np.full(3, 0.5, np.float32), np.float32([1, 0, 0, 0]), np.ones(2, np.float32))
    known = np.repeat(np.float32([0, 1]), 128)
    options = {"noise": 0.005, "volume": 1.0}
    blind = fit_robust(points, weights * (1 - known), start, vacant=known, **options)
    aware = fit_robust(points, weights, start, vacant=known, **options)
    inside = [np.asarray(distance(points[128:], fit.geometry)).min() for fit in (blind, aware)]
    assert inside[0] < -0.3 and inside[1] > 0.3 * inside[0]
    assert np.abs(np.asarray(distance(points[:128], aware.geometry))).mean() < 0.03


def test_switched_starts_hold_other_readings_of_a_box():
    box = wave((0.1, 0.1), (0.3, 0.4, 0.5))
    starts = alternative_starts(box)
    assert starts.scale.shape == (STARTS, 3)
    straight = jax.tree.map(lambda x: x[np.array([0, 2, 4])], starts)
    for i in range(3):
        assert iou(jax.tree.map(lambda x, i=i: x[i], straight), box, 24) > 0.95
    assert sorted({round(float(x), 3) for x in straight.scale[:, 2]}) == [0.3, 0.4, 0.5]


def test_padding_grows_by_powers_of_two():
    points = np.arange(30.0).reshape(10, 3)
    assert [len(padded(np.zeros((n, 3)), np.ones(n), 512)[0]) for n in (1, 64, 65, 300, 9000)] == [64, 64, 128, 512, 512]
    some, weights = padded(points, np.ones(10), 512)
    np.testing.assert_array_equal(some[:10], points)
    np.testing.assert_array_equal(weights, np.arange(64) < 10)


@pytest.mark.parametrize("case", ["one point", "a line", "a plane"])
def test_points_without_extent_are_refused(case):
    points = np.random.default_rng(0).normal(size=(50, 3))
    points[:, {"one point": [0, 1, 2], "a line": [1, 2], "a plane": [2]}[case]] = 0.0
    with pytest.raises(ValueError, match=f"fit_one: 50 points lie on {case}"):
        fit_one(points)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"noise": float("nan")}, "noise=nan"),
        ({"outliers": 1.0}, "outliers=1"),
        ({"outliers": -0.5}, "outliers=-0.5"),
        ({"weights": np.full(100, -1.0, np.float32)}, "from 0, finite"),
    ],
)
def test_what_a_fit_cannot_use_is_named_before_it_begins(given, words):
    with pytest.raises(ValueError, match=words):
        fit_one(np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32), **given)
