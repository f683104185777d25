"""Separation, normal and points of two waves, against closed forms, dense directions and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsm_jax.core import superquadric as sq
from wsm_jax.core.geometry import Geometry, reach, to_local
from wsm_jax.core.physics.contact import contact

UPRIGHT = np.float32([1, 0, 0, 0])
_contact = jax.jit(contact)
_contacts = jax.jit(jax.vmap(contact))


def wave(centre, scale, exponents=(1.0, 1.0), rotation=UPRIGHT):
    scale = np.broadcast_to(np.asarray(scale, np.float32), (3,)).copy()
    return Geometry(np.float32(centre), scale, np.float32(rotation), np.float32(exponents))


def random_waves(rng, count, spread):
    rotation = rng.normal(size=(count, 4))
    return Geometry(
        (spread * rng.normal(size=(count, 3))).astype(np.float32),
        np.exp(rng.uniform(-1.5, 0.3, (count, 3))).astype(np.float32),
        (rotation / np.linalg.norm(rotation, axis=1, keepdims=True)).astype(np.float32),
        rng.uniform(0.1, 1.9, (count, 2)).astype(np.float32),
    )


@pytest.mark.parametrize("gap", [0.5, 1e-3, 0.0, -0.2])
def test_spheres(gap):
    way = np.float32([2, -1, 2]) / 3
    found = _contact(wave((0, 0, 0), 0.3), wave(way * (0.8 + gap), 0.5))
    np.testing.assert_allclose(found.separation, gap, atol=2e-6)
    np.testing.assert_allclose(found.normal, way, atol=1e-4)
    np.testing.assert_allclose(found.point_a, 0.3 * way, atol=1e-4)
    np.testing.assert_allclose(found.point_b, way * (0.3 + gap), atol=1e-4)


@pytest.mark.parametrize("height", [0.5, 0.40002, 0.39])
def test_a_box_over_a_floor(height):
    floor, box = wave((0, 0, -0.25), (6, 6, 0.25), (0.1, 0.1)), wave((2.1, -1.3, height), (0.2, 0.3, 0.4), (0.1, 0.1))
    found = _contact(floor, box)
    np.testing.assert_allclose(found.separation, height - 0.4, atol=5e-6)
    np.testing.assert_allclose(found.normal, [0, 0, 1], atol=1e-5)


def test_an_edge_over_an_edge():
    """Two long boxes, each turned by 45 degrees about its own length, crossed: the normal is that of neither's faces."""
    a = wave((0, 0, 0), (1, 0.2, 0.2), (0.1, 0.1), [np.cos(np.pi / 8), np.sin(np.pi / 8), 0, 0])
    b = wave((0, 0, 0.7), (0.2, 1, 0.2), (0.1, 0.1), [np.cos(np.pi / 8), 0, np.sin(np.pi / 8), 0])
    found = _contact(a, b)
    edge = float(reach(a, np.float32([0, 0, 1])))
    np.testing.assert_allclose(found.separation, 0.7 - 2 * edge, atol=1e-5)
    np.testing.assert_allclose(found.normal, [0, 0, 1], atol=1e-3)


@pytest.mark.parametrize("spread", [1.5, 0.4])
def test_no_direction_parts_random_waves_better(spread):
    """The separation is the greatest margin over all directions; its value at one direction is closed form."""
    rng = np.random.default_rng(0)
    count = 256
    a, b = random_waves(rng, count, spread), random_waves(rng, count, spread)
    found = _contacts(a, b)
    ways = np.asarray(sq.sphere_directions(6000), np.float32)

    @jax.jit
    def margins(a, b):
        def at(n):
            return jnp.dot(n, b.centre - a.centre) - reach(a, n) - reach(b, -n)

        return jax.lax.map(lambda pair: jnp.max(jax.vmap(lambda n: at_pair(pair, n))(ways)), (a, b))

    def at_pair(pair, n):
        a, b = pair
        return jnp.dot(n, b.centre - a.centre) - reach(a, n) - reach(b, -n)

    best = np.asarray(margins(a, b))
    size = np.max(a.scale, 1) + np.max(b.scale, 1)
    assert np.all(np.asarray(found.separation) > best - 1e-4 * size), np.min((found.separation - best) / size)
    # and it is the margin of the normal that is told
    own = jax.vmap(lambda a, b, n: at_pair((a, b), n))(a, b, found.normal)
    np.testing.assert_allclose(own, found.separation, atol=2e-5)


def test_points_lie_on_the_surfaces_and_bound_the_distance_of_those_apart():
    """For bodies apart, the margin is a lower bound of the distance and the distance of any two points an upper one."""
    rng = np.random.default_rng(1)
    a, b = random_waves(rng, 256, 1.5), random_waves(rng, 256, 1.5)
    found = _contacts(a, b)
    for body, point in ((a, found.point_a), (b, found.point_b)):
        np.testing.assert_allclose(sq.gauge(to_local(body, point), body.scale, body.exponents), 1.0, atol=1e-3)
    apart = np.asarray(found.separation) > 1e-3
    assert 100 < apart.sum() < 256
    between = np.linalg.norm(np.asarray(found.point_a - found.point_b), axis=1)
    assert np.all(between[apart] > np.asarray(found.separation)[apart] * (1 - 1e-4))


def test_changing_the_roles_turns_the_normal_round():
    rng = np.random.default_rng(2)
    a, b = random_waves(rng, 64, 1.0), random_waves(rng, 64, 1.0)
    one, other = _contacts(a, b), _contacts(b, a)
    np.testing.assert_allclose(one.separation, other.separation, atol=3e-4)


def test_derivatives_are_finite_differences():
    rng = np.random.default_rng(3)
    a, b = random_waves(rng, 24, 1.0), random_waves(rng, 24, 1.0)

    def along(t, way):
        return _contacts(a, b.replace(centre=b.centre + t * way)).separation

    way = rng.normal(size=(24, 3)).astype(np.float32)
    _, slope = jax.jvp(lambda t: along(t, way), (0.0,), (1.0,))
    numeric = (along(2e-3, way) - along(-2e-3, way)) / 4e-3
    assert np.median(np.abs(slope - numeric)) < 2e-3 and np.mean(np.abs(slope - numeric) < 0.02) > 0.9

    def ball(x):
        return _contact(wave((0, 0, 0), 0.3), wave((0.5, 0, 0), 0.4).replace(centre=jnp.stack([0.5 + 0 * x, x, 0 * x]))).normal

    np.testing.assert_allclose(jax.jacfwd(ball)(0.0), [0, 1 / 0.5, 0], atol=2e-3)


def test_a_normal_beside_a_kink_of_the_support_function_is_finite():
    """Two boxes, an edge in a face: the Hessian of the margin leaves float32."""
    a = wave(
        (0.33175424, 0.41345963, 0.4810901), (0.2, 0.25, 0.15), (0.1, 0.1), (0.41383013, -0.8092239, 0.41142568, 0.06804597)
    )
    turn = (-0.07923857, -0.50438493, 0.35957196, -0.7810411)
    b = wave((0.40638697, 0.21559809, 0.19506), (0.07231554, 0.28926218, 0.14463109), (0.1, 1.2), turn)
    for iterations, starts in ((6, 2), (16, 4)):
        found = jax.jit(contact, static_argnames=("iterations", "starts"))(a, b, iterations=iterations, starts=starts)
        np.testing.assert_allclose(np.linalg.norm(found.normal), 1.0, rtol=1e-5)
        assert np.isfinite(found.point_a).all() and np.isfinite(found.point_b).all()


def test_degenerate_pairs_are_finite():
    a = wave((0, 0, 0), (0.3, 0.4, 0.5))
    found = _contact(a, a)
    assert np.isfinite(found.separation) and found.separation < 0
    gradient = jax.grad(lambda c: _contact(a, a.replace(centre=c)).separation)(jnp.zeros(3))
    assert np.isfinite(gradient).all()
