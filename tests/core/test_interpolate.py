"""The core between its ticks: the motions it holds exactly, the ticks themselves, and any frame rate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wsm_jax.core import interpolate
from wsm_jax.snapshot import FIELDS, TICK_HZ
from wsm_jax.snapshot.waves import empty, stack

TICKS, SLOTS, FRAMES = 9, 3, 48
at = jax.jit(interpolate)
TICK_TIME = np.arange(TICKS, dtype=np.float32) / np.float32(TICK_HZ)


def random_core(seed):
    rng = np.random.default_rng(seed)
    shape = (TICKS, SLOTS)
    rotation = rng.normal(size=(*shape, 4))
    return empty(SLOTS, (TICKS,)).replace(
        presence=rng.random(shape).astype(np.float32),
        centre=rng.normal(size=(*shape, 3)).astype(np.float32),
        scale=rng.uniform(0.1, 1, (*shape, 3)).astype(np.float32),
        rotation=(rotation / np.linalg.norm(rotation, axis=-1, keepdims=True)).astype(np.float32),
        exponents=rng.uniform(0.1, 1.9, (*shape, 2)).astype(np.float32),
        colour=rng.random((*shape, 3)).astype(np.float32),
        velocity=rng.normal(size=(*shape, 3)).astype(np.float32),
        angular_velocity=rng.normal(size=(*shape, 3)).astype(np.float32),
        semantic=rng.integers(0, 8, shape, dtype=np.int32),
        instance=rng.integers(0, 8, shape, dtype=np.int32),
    )


def frames(rate, count=FRAMES, start=0.0):
    return (start + np.arange(count) / rate).astype(np.float32)


def assert_equal(a, b, atol=0.0):
    """All fields equal within `atol`, rotations up to the sign of the quaternion."""
    for name in FIELDS:
        x, y = np.asarray(getattr(a, name)), np.asarray(getattr(b, name))
        if name == "rotation":
            y = y * np.where((x * y).sum(-1, keepdims=True) < 0, -1, 1)
            np.testing.assert_allclose(x, y, atol=max(atol, 1e-6), err_msg=name)
        else:
            np.testing.assert_allclose(x, y, rtol=0, atol=atol, err_msg=name)


def test_constant_acceleration_is_exact():
    rng = np.random.default_rng(0)
    start, speed, pull = rng.normal(size=(3, SLOTS, 3))
    moving = lambda t: (start + speed * t + 0.5 * pull * t * t, speed + pull * t)  # noqa: E731
    ticks = [moving(t) for t in TICK_TIME.astype(np.float64)]
    core = random_core(1).replace(
        centre=np.float32([centre for centre, _ in ticks]), velocity=np.float32([velocity for _, velocity in ticks])
    )
    time = rng.uniform(0, TICK_TIME[-1], FRAMES).astype(np.float32)
    between = at(core, TICK_TIME, time)
    exact = [moving(t) for t in time.astype(np.float64)]
    np.testing.assert_allclose(between.centre, [centre for centre, _ in exact], atol=2e-6)
    np.testing.assert_allclose(between.velocity, [velocity for _, velocity in exact], atol=2e-6)


@pytest.mark.parametrize("speed", [1e-3, 0.5, 3.0, 20.0])
def test_rotation_turns_at_constant_rate(speed):
    """20 rad/s are 2.5 rad a tick; slow turns are where an arc cosine loses its digits."""
    rng = np.random.default_rng(2)
    first = Rotation.from_rotvec(rng.normal(size=(SLOTS, 3)))
    axis = rng.normal(size=(SLOTS, 3))
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    orient = lambda t: (Rotation.from_rotvec(axis * speed * t) * first).as_quat(scalar_first=True)  # noqa: E731
    signs = rng.choice([-1.0, 1.0], (TICKS, SLOTS, 1))  # q and -q are one rotation
    core = random_core(3).replace(rotation=np.float32(signs * np.stack([orient(t) for t in np.float64(TICK_TIME)])))
    time = rng.uniform(0, TICK_TIME[-1], FRAMES).astype(np.float32)
    got, exact = np.asarray(at(core, TICK_TIME, time).rotation), np.stack([orient(t) for t in np.float64(time)])
    np.testing.assert_allclose(np.linalg.norm(got, axis=-1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(np.abs((got * exact).sum(-1)), 1.0, atol=1e-6)
    np.testing.assert_allclose(got * np.sign((got * exact).sum(-1, keepdims=True)), exact, atol=3e-6)


def test_ticks_are_reproduced():
    core = random_core(4)
    assert_equal(at(core, TICK_TIME, np.resize(TICK_TIME, FRAMES))[:TICKS], core)


def test_presence_and_scale_are_linear_and_labels_hold():
    core = random_core(5)
    time = frames(7 * TICK_HZ)
    got = at(core, TICK_TIME, time)
    for name in ("presence", "scale", "velocity", "angular_velocity"):
        values = np.asarray(getattr(core, name)).reshape(TICKS, -1)
        expected = np.stack([np.interp(time, TICK_TIME, column) for column in values.T], -1)
        np.testing.assert_allclose(np.asarray(getattr(got, name)).reshape(FRAMES, -1), expected, atol=1e-5, err_msg=name)
    held = np.arange(FRAMES) // 7
    for name in ("exponents", "colour", "material", "semantic", "instance"):
        np.testing.assert_array_equal(getattr(got, name), np.asarray(getattr(core, name))[held], err_msg=name)


def test_the_velocity_of_the_path_at_a_tick_is_the_tick_s():
    core = random_core(6)
    path = lambda t: interpolate(core, TICK_TIME, t[None]).centre[0]  # noqa: E731
    slope = jax.jit(jax.vmap(jax.jacfwd(path)))(jnp.asarray(TICK_TIME[1:-1]))
    np.testing.assert_allclose(slope, core.velocity[1:-1], atol=2e-4)


@pytest.mark.parametrize("rate", [7, 24, 25, 30, 59.94])
def test_a_moment_does_not_depend_on_the_frame_rate(rate):
    core = random_core(7)
    picked = frames(rate, 7)
    alone = at(core, TICK_TIME, np.resize(picked, FRAMES))[:7]
    among = np.resize(np.sort(np.concatenate([picked, frames(13.3, 12)])), FRAMES)
    assert_equal(at(core, TICK_TIME, among)[np.searchsorted(among[:19], picked)], alone)


def test_uneven_ticks_and_times_of_any_shape():
    core, rng = random_core(8), np.random.default_rng(9)
    ticks = np.cumsum(rng.uniform(0.02, 0.5, TICKS)).astype(np.float32)
    time = rng.uniform(ticks[0], ticks[-1], FRAMES).astype(np.float32)
    flat, grid = at(core, ticks, time), at(core, ticks, time.reshape(6, 8))
    assert_equal(jax.tree.map(lambda x: x.reshape(FRAMES, *x.shape[2:]), grid), flat, 1e-6)
    assert_equal(at(core, ticks, np.resize(ticks, FRAMES))[:TICKS], core)
    scalar = jax.eval_shape(interpolate, core, ticks, np.float32(0.3) * np.ones(()))
    assert scalar.centre.shape == (SLOTS, 3)


def test_outside_the_ticks_time_stands_still():
    core = random_core(10)
    ends = at(core, TICK_TIME, np.resize(np.float32([-5, 99]), FRAMES))
    assert_equal(ends[0], core[0])
    assert_equal(ends[1], core[TICKS - 1])
    one = interpolate(core[:1], TICK_TIME[:1], np.float32([0, 3]))
    assert_equal(one[0], core[0])
    assert_equal(one[1], core[0])


def test_a_window_ten_hours_into_the_world_is_as_precise_as_the_first():
    core, late = random_core(11), 36_000.0
    ticks, time = np.arange(TICKS) / TICK_HZ, np.arange(FRAMES) / 59.94
    assert_equal(interpolate(core, late + ticks, late + time), interpolate(core, ticks, time), 1e-5)


def test_gradients_are_finite_also_between_equal_and_opposite_rotations():
    core = random_core(12)
    rotation = core.rotation.copy()
    rotation[1], rotation[2] = rotation[0], -rotation[0]  # the same rotation, and the same with the other sign
    w, x, y, z = np.moveaxis(rotation[3], -1, 0)
    rotation[4] = np.stack([-x, w, -z, y], -1)  # half a turn away, where the shorter arc is not unique

    @jax.jit
    def gradients(rotation, centre, time):
        def loss(rotation, centre, time):
            out = interpolate(core.replace(rotation=rotation, centre=centre), TICK_TIME, time)
            return jnp.sum(jnp.sin(3 * out.rotation)) + jnp.sum(out.centre**2)

        return jax.grad(loss, (0, 1, 2))(rotation, centre, time)

    for x in gradients(rotation, core.centre, frames(5 * TICK_HZ)):
        assert np.isfinite(x).all()
        assert np.abs(x).max() < 1e3


def test_a_wave_that_is_born_or_dies_fades_on_its_own_way_and_not_to_the_pose_of_an_empty_slot():
    core = stack([empty(2), empty(2)])
    for tick, slot in ((1, 0), (0, 1)):  # slot 0 is born between the ticks, slot 1 dies
        core.presence[tick, slot], core.centre[tick, slot], core.velocity[tick, slot] = 1.0, (1, 2, 3), (4, 0, -8)
        core.scale[tick, slot], core.exponents[tick, slot], core.instance[tick, slot] = (0.1, 0.2, 0.3), (0.5, 1.5), 9
        core.rotation[tick, slot], core.angular_velocity[tick, slot] = (0.6, 0.8, 0, 0), (4, 0, 0)
    now = interpolate(core, np.array([0.0, 0.125]), np.asarray(0.03125))
    np.testing.assert_allclose(now.presence, [0.25, 0.75])
    np.testing.assert_allclose(now.centre, [[1 - 0.375, 2, 3.75], [1.125, 2, 2.75]], rtol=1e-6)
    np.testing.assert_allclose(now.scale, [[0.1, 0.2, 0.3]] * 2, rtol=1e-6)
    np.testing.assert_allclose(now.exponents, [[0.5, 1.5]] * 2, rtol=1e-6)
    assert list(now.instance) == [9, 9]
    angle = 2 * np.arctan2(now.rotation[:, 1], now.rotation[:, 0])
    np.testing.assert_allclose(angle, 2 * np.arctan2(0.8, 0.6) + np.array([-0.375, 0.125]), rtol=1e-5)
