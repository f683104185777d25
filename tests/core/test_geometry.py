"""Reach, bounds and inertia of turned waves, against dense samples of their surfaces and volumes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsm_jax.core import superquadric as sq
from wsm_jax.core.geometry import Geometry, bounds, farthest, inertia, reach, to_local
from wsm_jax.snapshot import quaternion_to_matrix

COUNT = 32


@pytest.fixture(scope="module")
def geometry():
    rng = np.random.default_rng(0)
    rotation = rng.normal(size=(COUNT, 4))
    return Geometry(
        rng.normal(size=(COUNT, 3)).astype(np.float32),
        np.exp(rng.uniform(-2, 0.5, (COUNT, 3))).astype(np.float32),
        (rotation / np.linalg.norm(rotation, axis=1, keepdims=True)).astype(np.float32),
        rng.uniform(0.1, 1.9, (COUNT, 2)).astype(np.float32),
    )


def surface(geometry, count=4000):
    """World points on each wave, [COUNT count 3]."""
    key = jax.random.split(jax.random.key(1), COUNT)
    local = jax.vmap(lambda k, a, e: sq.sample_surface(k, count, a, e))(key, geometry.scale, geometry.exponents)
    turned = jnp.einsum("nij,npj->npi", quaternion_to_matrix(geometry.rotation), local)
    return np.asarray(turned + geometry.centre[:, None])


def test_bounds_hold_every_point_and_are_reached(geometry):
    points = surface(geometry)
    low, high = map(np.asarray, bounds(geometry))
    size = np.max(geometry.scale, -1, keepdims=True)
    assert np.all(points.min(1) > low - 1e-5 * size) and np.all(points.max(1) < high + 1e-5 * size)
    along = np.stack([np.asarray(farthest(geometry, np.broadcast_to(np.eye(3)[i], (COUNT, 3)))) for i in range(3)], 1)
    np.testing.assert_allclose(np.diagonal(along, axis1=1, axis2=2), high, rtol=0, atol=1e-5 * size.max())


def test_the_farthest_point_lies_on_the_surface_at_the_reach(geometry):
    rng = np.random.default_rng(2)
    way = rng.normal(size=(COUNT, 3)).astype(np.float32)
    way /= np.linalg.norm(way, axis=1, keepdims=True)
    point = farthest(geometry, way)
    reached = np.sum(np.asarray(point - geometry.centre) * way, -1)
    np.testing.assert_allclose(reached, reach(geometry, way), rtol=2e-5)
    g = sq.gauge(to_local(geometry, point), geometry.scale, geometry.exponents)
    np.testing.assert_allclose(g, 1.0, atol=2e-4)
    sampled = np.max(np.sum((surface(geometry) - geometry.centre[:, None]) * way[:, None], -1), 1)
    assert np.all(sampled <= np.asarray(reach(geometry, way)) * (1 + 1e-5))
    assert np.median(sampled / np.asarray(reach(geometry, way))) > 0.98


def test_moments_are_those_of_points_in_the_volume():
    rng = np.random.default_rng(3)
    for exponents in ((1.0, 1.0), (0.1, 0.1), (0.1, 1.0), (1.9, 0.4), (0.6, 1.8)):
        scale = np.float32([0.3, 0.7, 1.4])
        points = rng.uniform(-1, 1, (400_000, 3)).astype(np.float32) * scale
        inside = points[np.asarray(sq.gauge(points, scale, np.float32(exponents))) < 1]
        np.testing.assert_allclose(sq.second_moments(scale, np.float32(exponents)), np.mean(inside**2, 0), rtol=0.01)


def test_inertia_is_a_sphere_s_and_turns_with_the_wave(geometry):
    ball = Geometry(np.zeros(3, np.float32), np.full(3, 0.4, np.float32), np.float32([1, 0, 0, 0]), np.ones(2, np.float32))
    tensor = inertia(ball, np.asarray(3.0, np.float32))
    np.testing.assert_allclose(tensor, 0.4 * 3 * 0.4**2 * np.eye(3), rtol=1e-6, atol=1e-7)
    tensors = np.asarray(inertia(geometry, np.ones(COUNT, np.float32)), np.float64)
    square = np.asarray(sq.second_moments(geometry.scale, geometry.exponents))
    own = np.sort(np.sum(square, -1, keepdims=True) - square)
    np.testing.assert_allclose(np.linalg.eigvalsh(tensors), own, rtol=2e-4)
