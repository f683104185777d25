"""Areas, Chamfer distances and IoU agree with closed forms; matching finds a permutation."""

import jax
import numpy as np
from scipy.spatial.transform import Rotation

from wsm_jax.core.fitting import compare
from wsm_jax.core.fitting.compare import (
    chamfer,
    iou,
    match,
    surface_area,
    surface_samples,
)
from wsm_jax.core.geometry import Geometry


def wave(seed=0, exponents=(0.4, 1.3), scale=(0.5, 0.8, 0.3)):
    rng = np.random.default_rng(seed)
    turn = Rotation.random(random_state=seed).as_quat(scalar_first=True)
    return jax.tree.map(np.float32, Geometry(rng.normal(size=3), np.asarray(scale), turn, np.asarray(exponents)))


def test_area_of_a_ball_a_box_and_a_spheroid():
    np.testing.assert_allclose(surface_area(np.full(3, 0.7), np.ones(2)), 4 * np.pi * 0.49, rtol=1e-5)
    a, c = 0.5, 1.0
    e = np.sqrt(1 - a**2 / c**2)
    np.testing.assert_allclose(
        surface_area(np.array([a, a, c]), np.ones(2)), 2 * np.pi * a**2 * (1 + c / (a * e) * np.arcsin(e)), rtol=1e-3
    )
    box = 8 * (1 * 2 + 2 * 3 + 3 * 1)
    assert 0.92 * box < surface_area(np.array([1.0, 2.0, 3.0]), np.full(2, 0.1), 65536) < box


def test_chamfer_and_iou_of_shifted_balls():
    ball = Geometry(*(np.float32(x) for x in ([0, 0, 0], [0.5] * 3, [1, 0, 0, 0], [1, 1])))
    d = 0.3
    other = ball.replace(centre=np.float32([d, 0, 0]))
    lens = np.pi * (4 * 0.5 + d) * (2 * 0.5 - d) ** 2 / 12
    np.testing.assert_allclose(iou(ball, other, 64), lens / (2 * 4 / 3 * np.pi * 0.125 - lens), rtol=0.02)
    np.testing.assert_allclose(
        iou(ball, lambda p: np.linalg.norm(p - other.centre, axis=1) < 0.5, 48, (np.full(3, -0.8), np.full(3, 0.8))),
        iou(ball, other, 48),
        atol=0.01,
    )
    larger = ball.replace(scale=np.float32([0.6] * 3))
    distances = chamfer(ball, larger)
    np.testing.assert_allclose(distances["l1"], 0.1, rtol=0.02)
    np.testing.assert_allclose(distances["l2"], 2 * 0.01, rtol=0.03)


def test_samples_of_a_union_lie_outside_and_match_finds_a_permutation():
    waves = jax.tree.map(lambda *x: np.stack(x), *(wave(seed) for seed in (8, 9, 10)))
    waves = waves.replace(centre=np.float32([[0, 0, 0], [0.4, 0, 0], [3, 0, 0]]))
    points = surface_samples(waves, 1024)
    assert compare.log_gauges(waves, points).min() > -2e-3
    assert np.abs(compare.log_gauges(waves, points)).min(0).max() < 1e-3
    order = np.array([2, 0, 1])
    rows, columns, overlap = match(waves, jax.tree.map(lambda x: x[order], waves), 12)
    np.testing.assert_array_equal(order[columns], rows)
    np.testing.assert_array_equal(overlap, 1.0)
