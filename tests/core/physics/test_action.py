"""The discrete action: stationary on true motion, its residual is the impulse that is missing, its gradient exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.core.physics.worlds import G, ball, thing, world
from wsm_jax.core.geometry import Geometry
from wsm_jax.core.physics.action import free_intervals, residual, stationarity
from wsm_jax.core.physics.change import play, remove
from wsm_jax.core.physics.event import break_apart
from wsm_jax.core.physics.matter import joint, matter


def flight(spin=(0.0, 0.0, 0.0)):
    waves = world(thing(centre=(0, 0, 20), scale=(0.1, 0.2, 0.35), velocity=(1, 0, 3), angular_velocity=spin), floor=False)
    properties = matter(waves)
    return play(waves, properties, ticks=8)[0], properties


def test_free_flight_is_stationary():
    core, properties = flight()
    left = np.asarray(residual(core, properties))
    assert left.shape == (7, 4, 6)
    assert np.abs(left).max() < 1e-3 * properties.mass[1] * G * 0.125
    assert np.sqrt(stationarity(core, properties)) < 1e-2


def test_without_gravity_the_residual_is_the_weight():
    core, properties = flight()
    left = np.asarray(residual(core, properties, gravity=(0.0, 0.0, 0.0)))
    np.testing.assert_allclose(left[:, 1, 2], -properties.mass[1] * G * 0.125, rtol=1e-3)
    np.testing.assert_allclose(np.sqrt(stationarity(core, properties, gravity=(0.0, 0.0, 0.0))), G, rtol=1e-3)


def test_a_kick_in_flight_is_its_impulse_at_its_tick():
    core, properties = flight()
    kicked = np.array(core.centre)
    kicked[5:, 1, 1] += 0.125 * 0.4 * np.arange(1, 5)  # 0.4 m/s more along y from tick 4 on
    left = np.array(residual(core.replace(centre=kicked), properties))
    np.testing.assert_allclose(left[3, 1, 1], 0.4 * properties.mass[1], rtol=1e-3)
    left[3] = 0
    assert np.abs(left[..., :3]).max() < 1e-3 * properties.mass[1] * G * 0.125


def test_the_residual_of_a_turning_body_falls_with_the_cube_of_the_tick():
    waves = world(thing(centre=(0, 0, 20), scale=(0.1, 0.2, 0.35), angular_velocity=(1, 2, 0.3)), floor=False)
    properties = matter(waves)
    sizes = []
    for tick in (0.125, 0.0625):
        core = play(waves, properties, ticks=4, tick_s=tick)[0]
        sizes.append(np.abs(np.asarray(residual(core, properties, tick_s=tick))[..., 3:]).max())
    assert 6 < sizes[0] / sizes[1] < 10, sizes


def test_ticks_beside_an_impact_do_not_count():
    waves = world(ball((0, 0, 1.2)))
    properties = matter(waves, restitution=0.7)
    core = play(waves, properties, ticks=12)[0]
    free = free_intervals(core, properties)
    landing = int(np.sqrt(2 * 1.0 / G) / 0.125)
    assert not free[landing, 1] and free[:landing, 1].all() and free[:, 0].tolist() == free[:, 1].tolist()
    assert np.sqrt(stationarity(core, properties)) > 3 and np.sqrt(stationarity(core, properties, free)) < 0.02


def test_the_gradient_of_the_loss_is_its_finite_difference_and_leads_to_the_parabola():
    core, properties = flight((1.0, 2.0, 0.0))
    rng = np.random.default_rng(0)
    noise = 0.02 * rng.normal(size=core.centre.shape).astype(np.float32) * (np.arange(9) % 8 > 0)[:, None, None]

    def loss(shift):
        return stationarity(core.replace(centre=core.centre + shift), properties)

    slope = jnp.vdot(jax.grad(loss)(jnp.asarray(noise)), noise)
    h = 1e-2
    numeric = (loss(noise * (1 + h)) - loss(noise * (1 - h))) / (2 * h)
    np.testing.assert_allclose(slope, numeric, rtol=5e-3)


def test_two_ticks_are_too_few():
    core, properties = flight()
    with pytest.raises(ValueError, match="2 ticks; the action needs three"):
        residual(core[:2], properties)


def test_what_hangs_at_a_joint_and_what_is_born_or_ends_does_not_count():
    waves = world(ball((0.6, 0, 2), 0.1), ball((0, 0, 2), 0.02), floor=False)
    waves.instance[2] = 0
    hinge = joint(waves, "hinge", 2, 1, (0, 0, 2), (0, 1, 0))
    core, _, last = play(waves, matter(waves), hinge, ticks=8)
    free = free_intervals(core, last, hinge)
    assert not free[:, 1].any() and np.sqrt(stationarity(core, last)) > 3 and stationarity(core, last, free) == 0

    waves = world(ball((0, 0, 20), 0.3, velocity=(1, 0, 3)), ball((3, 0, 20), 0.2), floor=False)
    halves = Geometry(np.float32([[0.2, 0, 0], [-0.2, 0, 0]]), np.full((2, 3), 0.2, np.float32), *halved())
    changes = {3: [break_apart(1, (0, 3), halves, apart=np.float32([[1, 0, 0], [-1, 0, 0]]))], 5: [remove(2)]}
    core, events, last = play(waves, matter(waves), ticks=10, changes=changes)
    free = jax.jit(lambda core: free_intervals(core, last))(core)
    assert len(events) == 2 and np.sqrt(stationarity(core, last, free)) < 0.05
    moved = core.replace(centre=core.centre + np.float32([0, 0, 1])[None, None] * (np.arange(11) == 8)[:, None, None])
    assert np.sqrt(stationarity(moved, last, free)) > 1, "the pieces count while they fly"


def halved():
    return np.tile(np.float32([1, 0, 0, 0]), (2, 1)), np.ones((2, 2), np.float32)
