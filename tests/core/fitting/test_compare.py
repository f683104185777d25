"""One body, many parameter vectors: the comparison sees through the symmetries, and geometry agrees with closed forms."""

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wsm_jax.core.fitting import compare
from wsm_jax.core.fitting.compare import (
    chamfer,
    iou,
    match,
    parameter_error,
    readings,
    rotation_error,
    surface_area,
    surface_samples,
)
from wsm_jax.core.geometry import Geometry


def wave(seed=0, exponents=(0.4, 1.3), scale=(0.5, 0.8, 0.3)):
    rng = np.random.default_rng(seed)
    turn = Rotation.random(random_state=seed).as_quat(scalar_first=True)
    return jax.tree.map(np.float32, Geometry(rng.normal(size=3), np.asarray(scale), turn, np.asarray(exponents)))


@pytest.mark.parametrize(("exponents", "count"), [((0.4, 1.3), 8), ((0.7, 0.7), 24)])
def test_all_readings_are_one_surface(exponents, count):
    true = wave(1, exponents)
    found = readings(true)
    assert len(found) == count
    points = np.random.default_rng(2).normal(size=(64, 3)).astype(np.float32) + true.centre
    values = np.stack([compare.log_gauges(x, points)[0] for x in found])
    np.testing.assert_allclose(values, np.broadcast_to(values[:1], values.shape), atol=2e-5)
    for other in found:
        assert parameter_error(true, other)["scale"] < 1e-6
        assert rotation_error(true, other) < 1e-3
        assert iou(true, other, 16) == 1.0


def test_a_quarter_turn_without_exchanged_axes_is_another_body():
    true = wave(3)
    turned = Rotation.from_quat(true.rotation, scalar_first=True) * Rotation.from_euler("z", 90, degrees=True)
    other = true.replace(rotation=turned.as_quat(scalar_first=True).astype(np.float32))
    exchanged = other.replace(scale=true.scale[[1, 0, 2]])
    assert parameter_error(true, exchanged)["rotation"] < 1e-3
    assert rotation_error(true, other) < 1e-3  # the axes are the same ...
    assert iou(true, other, 24) < 0.8  # ... the body is not


def test_canonical_is_one_for_all_readings():
    true = wave(4)
    forms = [compare.canonical(jax.tree.map(np.float32, x)) for x in readings(true)]
    for form in forms:
        np.testing.assert_allclose(form.scale, [0.8, 0.5, 0.3], rtol=1e-6)
        assert abs(abs(np.sum(form.rotation * forms[0].rotation)) - 1) < 1e-5


def test_an_angle_that_says_nothing_is_no_error():
    can = wave(5, (0.1, 1.0), (0.4, 0.4, 0.6))
    spun = Rotation.from_quat(can.rotation, scalar_first=True) * Rotation.from_euler("z", 33, degrees=True)
    assert rotation_error(can, can.replace(rotation=spun.as_quat(scalar_first=True))) < 1e-3
    tipped = Rotation.from_quat(can.rotation, scalar_first=True) * Rotation.from_euler("x", 33, degrees=True)
    np.testing.assert_allclose(
        rotation_error(can, can.replace(rotation=tipped.as_quat(scalar_first=True))), np.deg2rad(33), rtol=1e-3
    )
    ball = wave(6, (1.0, 1.0), (0.4, 0.4, 0.4))
    assert rotation_error(ball, wave(7, (1.0, 1.0), (0.4, 0.4, 0.4))) == 0.0


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


def test_samples_of_a_union_lie_outside_and_match_pairs_bodies():
    waves = jax.tree.map(lambda *x: np.stack(x), *(wave(seed) for seed in (8, 9, 10)))
    waves = waves.replace(centre=np.float32([[0, 0, 0], [0.4, 0, 0], [3, 0, 0]]))
    points = surface_samples(waves, 1024)
    assert compare.log_gauges(waves, points).min() > -2e-3
    assert np.abs(compare.log_gauges(waves, points)).min(0).max() < 1e-3
    order = np.array([2, 0, 1])
    rows, columns, overlap = match(waves, jax.tree.map(lambda x: x[order], waves), 12)
    np.testing.assert_array_equal(order[columns], rows)
    np.testing.assert_array_equal(overlap, 1.0)
