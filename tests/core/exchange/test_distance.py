"""Exact distance: against dense samples of the surface, the certified bound, a sphere, finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial import KDTree

from wsm_jax.core import superquadric as sq
from wsm_jax.core.exchange.distance import closest_point, set_distance, signed_distance
from wsm_jax.core.exchange.tessellation import unit_surface
from wsm_jax.snapshot.waves import empty

SHAPES = [(0.1, 0.1), (0.1, 1.0), (1.0, 1.0), (1.9, 1.9), (0.1, 1.9), (1.9, 0.1), (0.4, 1.4), (1.7, 0.45)]
distance = jax.jit(signed_distance)
closest = jax.jit(closest_point)


def points_about(scale, seed=0, count=1024):
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1.5, 1.5, (count, 3)).astype(np.float32) * scale
    points[:100, 0], points[100:150] = 0.0, 10.0 * points[100:150]
    points[150:200, 1:], points[200] = 0.0, 0.0
    return points


@pytest.mark.parametrize("exponents", SHAPES)
def test_no_surface_point_is_nearer(exponents):
    scale, exponents = np.float32([0.3, 0.7, 0.15]), np.float32(exponents)
    points = points_about(scale)
    found = np.asarray(distance(points, scale, exponents))
    nearest = np.asarray(closest(points, scale, exponents))
    assert np.isfinite(found).all()
    np.testing.assert_allclose(sq.gauge(nearest, scale, exponents), 1.0, atol=1e-5)
    np.testing.assert_allclose(np.abs(found), np.linalg.norm(points - nearest, axis=-1), atol=1e-5)
    sampled, _ = KDTree(unit_surface(exponents[None], 100)[0][0] * scale).query(points)
    assert np.max(np.abs(found) - sampled) < 1e-4 * scale.max()
    gauge = np.asarray(sq.gauge(points, scale, exponents))
    np.testing.assert_array_equal(found < 0, gauge < 1)
    # a bound from below outside, and the radial distance from above
    bound = np.asarray(sq.certified_step(points, scale, exponents))
    radial = np.abs(np.asarray(sq.radial_distance(points, scale, exponents)))
    outside = gauge > 1
    assert np.all(bound[outside] <= found[outside] + 1e-5) and np.all(np.abs(found) <= radial + 1e-5)


def test_a_sphere_in_closed_form():
    points = points_about(np.float32([0.5, 0.5, 0.5]))
    expected = np.linalg.norm(points, axis=-1) - 0.5
    np.testing.assert_allclose(distance(points, np.float32([0.5] * 3), np.float32([1, 1])), expected, atol=2e-6)


def test_the_gradient_is_a_unit_normal_and_agrees_with_finite_differences():
    scale, exponents = np.float32([0.3, 0.7, 0.4]), np.float32([0.6, 1.3])
    points = np.float32([[0.5, 0.4, 0.6], [0.1, 0.3, 0.12], [-0.6, 0.2, -0.1], [0.02, -0.9, 0.3]])
    by_point = jax.vmap(jax.grad(signed_distance), (0, None, None))(points, scale, exponents)
    np.testing.assert_allclose(jnp.linalg.norm(by_point, axis=-1), 1.0, atol=1e-4)

    def total(change):
        return float(jnp.sum(distance(points, scale + change[:3], exponents + change[3:])))

    exact = jnp.concatenate(jax.grad(lambda a, e: jnp.sum(signed_distance(points, a, e)), (0, 1))(scale, exponents))
    step = 2e-3 * np.eye(5, dtype=np.float32)
    numeric = [(total(d) - total(-d)) / 4e-3 for d in step]
    np.testing.assert_allclose(exact, numeric, atol=2e-3)
    moved = [(distance(points + d[:3], scale, exponents) - distance(points - d[:3], scale, exponents)) / 4e-3 for d in step[:3]]
    np.testing.assert_allclose(by_point, np.stack(moved, -1), atol=2e-3)


def test_a_set_is_the_least_of_its_present_waves():
    waves = empty(3).replace(
        presence=np.float32([1, 0.2, 1]),
        centre=np.float32([[0, 0, 0], [5, 0, 0], [2, 0, 0]]),
        scale=np.full((3, 3), 0.5, np.float32),
    )
    points = np.float32([[0.9, 0, 0], [5, 0, 0], [2, 3, 0]])
    np.testing.assert_allclose(set_distance(waves, points), [0.4, 2.5, 2.5], atol=1e-5)
    np.testing.assert_array_equal(set_distance(empty(2), points), np.inf)
