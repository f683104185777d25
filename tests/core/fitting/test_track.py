"""Slots keep their objects while they move, are hidden, and come back."""

import dataclasses

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wsm_jax.core.fitting.compare import iou, surface_samples
from wsm_jax.core.fitting.observations import from_points
from wsm_jax.core.fitting.sets import fit_set
from wsm_jax.core.fitting.track import predicted, track
from wsm_jax.core.geometry import Geometry
from wsm_jax.snapshot.waves import empty

FRAMES, RATE = 6, 8.0
SPEED = np.array([[0.8, 0.0, 0.0], [-0.8, 0.0, 0.4]])
SPIN = np.array([0.0, 0.0, 1.2])


def world():
    """Two waves in three slots (slot 1 is empty) that pass each other, at each frame."""
    waves = empty(3)
    for name, value in {
        "presence": [1, 0, 1],
        "centre": [[-0.4, 0.3, 0.3], [0, 0, 0], [0.4, -0.3, 0.3]],
        "scale": [[0.2, 0.3, 0.15], [1, 1, 1], [0.2, 0.2, 0.3]],
        "exponents": [[0.3, 0.3], [1, 1], [0.5, 1.0]],
    }.items():
        waves = waves.replace(**{name: np.asarray(value, np.float32)})
    states = []
    for frame in range(FRAMES):
        centre = np.array(waves.centre)
        centre[[0, 2]] += np.float32(SPEED * frame / RATE)
        rotation = np.array(waves.rotation)
        rotation[0] = Rotation.from_rotvec(SPIN * frame / RATE).as_quat(scalar_first=True)
        states.append(waves.replace(centre=centre, rotation=rotation))
    return states


def cloud_of(state, slots, seed):
    geometry = jax.tree.map(lambda x: np.asarray(x)[slots], Geometry.of(state))
    points = surface_samples(geometry, 512, seed)
    return from_points(points + np.float32(0.003 * np.random.default_rng(seed).normal(size=points.shape)))


def test_slots_keep_their_objects_through_motion_and_hiding():
    states = world()
    hidden = [[0, 2], [0, 2], [0, 2], [0], [0, 2], [0, 2]]  # slot 2 is out of sight once
    tracked = track(states[0], [cloud_of(s, slots, i) for i, (s, slots) in enumerate(zip(states, hidden, strict=True))], RATE)
    assert tracked.presence.shape == (FRAMES, 3)
    np.testing.assert_array_equal(tracked.presence[:, 0], 1.0)
    np.testing.assert_array_equal(tracked.presence[:, 1], 0.0)
    np.testing.assert_array_equal(tracked.presence[:, 2], [1, 1, 1, 0.5, 1, 1])
    true = np.stack([s.centre for s in states])
    assert np.abs(tracked.centre - true)[:, [0, 2]].max() < 0.012
    np.testing.assert_array_equal(tracked.scale, np.broadcast_to(states[0].scale, (FRAMES, 3, 3)))
    for frame, slot in ((2, 0), (5, 0), (5, 2)):
        a, b = (jax.tree.map(lambda x, s=slot: np.asarray(x)[s], Geometry.of(w)) for w in (tracked[frame], states[frame]))
        assert iou(a, b, 24) > 0.93
    np.testing.assert_allclose(tracked.velocity[2:5, 0], np.broadcast_to(SPEED[0], (3, 3)), atol=0.08)
    np.testing.assert_allclose(tracked.angular_velocity[2:5, 0], np.broadcast_to(SPIN, (3, 3)), atol=0.25)


def test_what_stands_still_is_left_where_it_is():
    states = world()
    tracked = track(states[0], [cloud_of(states[0], [0, 2], 7)] * 2, RATE, static=(0, 2))
    np.testing.assert_array_equal(tracked.centre, np.stack([states[0].centre] * 2))
    np.testing.assert_array_equal(tracked.velocity, 0.0)


def test_prediction_is_constant_velocity():
    a, b, c = (Geometry.of(s) for s in world()[:3])
    guess = predicted(a, b)
    np.testing.assert_allclose(guess.centre, c.centre, atol=1e-6)
    dot = np.abs(np.sum(guess.rotation * np.asarray(c.rotation), -1))
    np.testing.assert_allclose(dot, 1.0, atol=1e-6)


def test_bad_input_is_refused():
    state = world()[0]
    with pytest.raises(ValueError, match=r"track: 1 axes of waves, 0 clouds.*needed"):
        track(state, [], RATE)
    with pytest.raises(ValueError, match=r"'rate': 0\.0"):
        track(state, [cloud_of(state, [0], 0)], 0.0)


def test_what_enters_later_gets_slots_of_its_own_and_keeps_them():
    states = world()
    seen = [[0], [0], [0, 2], [0, 2], [0, 2], [0, 2]]  # slot 2 enters in the third frame, and is not among the first waves
    first = states[0].replace(presence=np.float32([1, 0, 0]))
    clouds = [cloud_of(s, slots, i) for i, (s, slots) in enumerate(zip(states, seen, strict=True))]
    alone = track(first, clouds, RATE)
    assert alone.count == 3 and alone.presence[:, 2].max() == 0
    tracked = track(first, clouds, RATE, fit_new=lambda rest: fit_set(rest, max_waves=2, max_waves_per_object=1))
    assert tracked.count == 4 and list(tracked.instance[0]) == [0, 0, 0, 1]
    np.testing.assert_array_equal(tracked.presence[:, 3], [0, 0, 1, 1, 1, 1])
    true = np.stack([s.centre[2] for s in states])
    assert np.abs(tracked.centre[2:, 3] - true[2:]).max() < 0.02
    np.testing.assert_allclose(tracked.velocity[2:5, 3], np.broadcast_to(SPEED[1], (3, 3)), atol=0.15)
    assert np.abs(tracked.centre[:, 0] - np.stack([s.centre[0] for s in states])).max() < 0.012


def test_a_wave_takes_no_point_of_another_label():
    """Two balls that both move on to where the next one was: by nearness alone one takes the other's points."""
    waves = empty(2).replace(
        presence=np.ones(2, np.float32),
        centre=np.float32([[-0.12, 0, 0.3], [0.12, 0, 0.3]]),
        scale=np.full((2, 3), 0.1, np.float32),
        exponents=np.ones((2, 2), np.float32),
    )
    moved = waves.replace(centre=waves.centre + np.float32([0.2, 0, 0]))
    clouds = [cloud_of(state, [0, 1], seed) for seed, state in enumerate((waves, moved))]
    labels = [np.where(cloud.points[:, 0] < middle, 5, 3) for cloud, middle in zip(clouds, (0.0, 0.2), strict=True)]
    named = [dataclasses.replace(cloud, label=label.astype(np.int32)) for cloud, label in zip(clouds, labels, strict=True)]
    with_labels, without = (track(waves, given, RATE, reach=0.3).centre[1] for given in (named, clouds))
    assert np.abs(with_labels - moved.centre).max() < 0.02
    assert np.abs(without - moved.centre).max() > 0.1
