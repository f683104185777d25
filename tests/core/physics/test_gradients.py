"""Derivatives through a tick of the dynamics, in all that it takes, against closed forms and finite differences.

One program for all: four slots and one joint, which in most scenes holds nothing.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.core.physics.worlds import G, ball, box, thing, world
from wsm_jax.core.physics.dynamics import step
from wsm_jax.core.physics.matter import joint, matter

TIME_S = 0.25


@jax.jit
def move(waves, properties, joints):
    return step(waves, properties, joints, tick_s=TIME_S)


@jax.jit
def pull(waves, properties, joints, weight):
    """The derivatives of the sum of places and velocities, weighed [N 6], in waves, matter and joints."""

    def total(waves, properties, joints):
        after = step(waves, properties, joints, tick_s=TIME_S)
        return jnp.sum(weight[:, :3] * after.centre) + jnp.sum(weight[:, 3:] * after.velocity)

    grad = jax.grad(total, (0, 1, 2), allow_int=True)
    return grad(*jax.tree.map(jnp.asarray, (waves, properties, joints)))


def none(waves):
    """A joint that holds nothing."""
    return joint(waves, "ball", 0, 3, (0, 0, 0)).replace(holds=np.zeros((1, 6), np.float32))


def weighed(slot, column):
    weight = np.zeros((4, 6), np.float32)
    weight[slot, column] = 1.0
    return weight


def test_the_way_of_a_sliding_box_depends_on_friction_and_speed_as_coulomb_says():
    """x = v t - mu g t^2 / 2, whatever it weighs."""
    waves = world(box((0, 0, 0.1), (0.2, 0.2, 0.1), velocity=(2, 0, 0)))
    properties = matter(waves, friction=0.3, restitution=0.0)
    in_waves, in_matter, _ = pull(waves, properties, none(waves), weighed(1, 0))
    np.testing.assert_allclose(in_matter.friction[1], -0.5 * G * TIME_S**2, rtol=2e-2)
    np.testing.assert_allclose(in_waves.velocity[1, 0], TIME_S, rtol=2e-2)
    assert abs(in_matter.mass[1] * properties.mass[1]) < 1e-3


def test_speeds_after_a_collision_depend_on_masses_and_restitution_as_newton_says():
    """v_b = v (1 + e) m_a / (m_a + m_b), in free fall beside each other."""
    waves = world(ball((0, 0, 5), velocity=(2, 0, 0)), ball((0.6, 0, 5)))
    properties = matter(waves, friction=0.0, restitution=0.6)
    _, in_matter, _ = pull(waves, properties, none(waves), weighed(2, 3))
    m = float(properties.mass[1])
    np.testing.assert_allclose(in_matter.mass[1:3], np.array([1, -1]) * 2 * 1.6 / (4 * m), rtol=1e-3)
    np.testing.assert_allclose(in_matter.restitution[1:3].sum(), 1.0, rtol=1e-3)


def test_a_ball_that_begins_to_roll_at_its_bounce_goes_on_at_five_sevenths():
    """Of the speed across the floor that it is given, for what is left of the time."""
    waves = world(ball((0, 0, 0.5), velocity=(1, 0, -1)))
    properties = matter(waves, restitution=0.6, friction=0.2)
    in_waves, _, _ = pull(waves, properties, none(waves), weighed(1, 0))
    touch = (-1 + np.sqrt(1 + 2 * G * 0.3)) / G
    np.testing.assert_allclose(in_waves.velocity[1, 0], touch + 5 / 7 * (TIME_S - touch), rtol=2e-3)


def bouncing():
    waves = world(thing(centre=(0, 0, 0.45), scale=(0.2, 0.3, 0.15), exponents=(0.6, 0.9), velocity=(1, 0.2, -1)))
    return waves, matter(waves, restitution=0.6, friction=0.2), none(waves)


def hanging():
    """A ball on a link from a held anchor, swinging."""
    waves = world(
        thing(centre=(0, 0, 2), scale=(0.05, 0.05, 0.05), instance=0),
        thing(centre=(0.4, 0, 2), scale=(0.1, 0.12, 0.15), velocity=(0, 0.5, 0.3)),
    )
    return waves, matter(waves), joint(waves, "ball", 1, 2, (0, 0, 2))


def resting():
    """A box that slides on another, which it drags over a floor without friction."""
    waves = world(box((0, 0, 0.1), (0.2, 0.2, 0.1)), box((0.05, 0, 0.3), (0.15, 0.15, 0.1), velocity=(1, 0, 0)))
    return waves, matter(waves, restitution=0.0).replace(friction=np.float32([0, 0, 0.2, 0])), none(waves)


PROBES = {
    "bounce, velocity": (bouncing, 1, "velocity", 0, 1e-2),
    "bounce, place": (bouncing, 1, "centre", 0, 3e-3),
    "bounce, size": (bouncing, 1, "scale", 0, 2e-3),
    "joint, velocity": (hanging, 2, "velocity", 0, 1e-2),
    "joint, size": (hanging, 2, "scale", 0, 3e-3),
    "joint, anchor": (hanging, 0, "anchor_b", 2, 3e-3),
    "stack, velocity": (resting, 2, "velocity", 0, 1e-2),
    "stack, friction": (resting, 2, "friction", 1, 1e-2),
    "stack, mass": (resting, 2, "mass", 1, 1.0),
}


@pytest.mark.parametrize("name", PROBES)
def test_derivatives_are_finite_differences(name):
    scene, row, field, which, by = PROBES[name]
    given = scene()
    weight = np.float32(np.random.default_rng(0).normal(size=(4, 6)))
    way = np.zeros_like(np.asarray(getattr(given[which], field)))
    way[row] = np.random.default_rng(1).normal(size=way[row].shape) if way.ndim > 1 else 1.0
    slope = float(np.sum(way * np.asarray(getattr(pull(*given, weight)[which], field))))

    def total(sign):
        moved = list(given)
        moved[which] = given[which].replace(**{field: getattr(given[which], field) + np.float32(sign * by * way)})
        after = move(*moved)
        return float(np.sum(weight * np.concatenate([after.centre, after.velocity], -1), dtype=np.float64))

    numeric = (total(1) - total(-1)) / (2 * by)
    assert abs(numeric) > 5e-3
    np.testing.assert_allclose(slope, numeric, rtol=1e-2, err_msg=name)
