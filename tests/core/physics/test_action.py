"""The discrete action: stationary on true motion, its residual is the impulse that is missing, its gradient exact."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.core.physics.worlds import G, ball, thing, world
from wsm_jax.core.physics.action import free_intervals, residual, stationarity
from wsm_jax.core.physics.change import play
from wsm_jax.core.physics.matter import matter


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
