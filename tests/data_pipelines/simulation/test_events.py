"""Events on trajectories that are made up, so that what happened is known."""

import dataclasses

import numpy as np
import pytest

from data_pipelines.simulation.events import EVENT_KINDS, hidden_share, measure
from data_pipelines.simulation.physics import STEP_HZ, Trajectory
from data_pipelines.simulation.scene import SLOTS
from wsm_jax.snapshot import look_at
from wsm_jax.snapshot.waves import empty

SECONDS = 2.0
TIME = np.arange(round(SECONDS * STEP_HZ) + 1) / STEP_HZ
FRAMES = np.arange(17) / 8
CAMERA = look_at(np.tile([[0.0, -5.0, 2.0]], (17, 1)), np.tile([[0.0, 0.0, 0.3]], (17, 1)))
R = 0.3


def recorded(*paths: np.ndarray, floor: tuple[np.ndarray, ...], spin: tuple = (), screen: bool = False) -> Trajectory:
    """Balls of radius R in slots 2, 3, ... on the given paths [S 3], on the floor where said."""
    waves = empty(SLOTS)
    steps = len(TIME)
    waves.presence[0] = 1.0
    if screen:
        waves.presence[1], waves.scale[1], waves.centre[1], waves.exponents[1] = 1, (0.7, 0.06, 0.7), (0, 0, 0.7), 0.1
    fields = {name: np.zeros((steps, SLOTS, n)) for name, n in (("centre", 3), ("velocity", 3), ("angular_velocity", 3))}
    fields["rotation"] = np.tile([1.0, 0, 0, 0], (steps, SLOTS, 1))
    fields["centre"] += waves.centre
    touching = np.zeros((steps, SLOTS, SLOTS), np.bool_)
    for slot, path in enumerate(paths, 2):
        waves.presence[slot], waves.instance[slot], waves.scale[slot] = 1.0, slot + 1, R
        fields["centre"][:, slot] = path
        fields["velocity"][:, slot] = np.gradient(path, 1 / STEP_HZ, axis=0)
        fields["angular_velocity"][:, slot] = spin[slot - 2] if spin else 0.0
        touching[:, slot, 0] = touching[:, 0, slot] = floor[slot - 2]
    return Trajectory(TIME, touching=touching, waves=waves, **fields)


def path(x: np.ndarray | float, y: np.ndarray | float = 0.0, z: np.ndarray | float = R) -> np.ndarray:
    return np.stack([np.broadcast_to(v, TIME.shape) for v in (x, y, z)], -1)


ALWAYS = np.ones(len(TIME), np.bool_)


def kinds(trajectory: Trajectory, instance: int = 3) -> list[str]:
    found = measure(trajectory, CAMERA, FRAMES)
    assert {event["kind"] for event in found} <= set(EVENT_KINDS)
    assert [event["time"] for event in found] == sorted(event["time"] for event in found)
    return [event["kind"] for event in found if event["instances"][0] == instance]


def test_at_rest():
    assert kinds(recorded(path(0.5), floor=(ALWAYS,))) == ["rests"]


def test_rolling_and_sliding_differ_by_the_spin():
    moving = path(-1 + 0.8 * TIME)
    assert kinds(recorded(moving, floor=(ALWAYS,), spin=((0, 0.8 / R, 0),))) == ["rolls"]
    assert kinds(recorded(moving, floor=(ALWAYS,))) == ["slides"]


def test_sliding_to_a_stop():
    x = -1 + 0.8 * np.minimum(TIME, 1.0)
    assert kinds(recorded(path(x), floor=(ALWAYS,))) == ["slides", "stops"]
    stop = measure(recorded(path(x), floor=(ALWAYS,)), CAMERA, FRAMES)[-1]
    assert stop["time"] == pytest.approx(1.0, abs=0.01) and stop["instances"] == [3]


def test_falling_and_bouncing():
    z = np.where(TIME < 0.45, R + 1.0 - 4.905 * TIME**2, R + np.maximum(2.0 * (TIME - 0.45) - 4.905 * (TIME - 0.45) ** 2, 0))
    down = z <= R + 0.01
    assert kinds(recorded(path(0.0, z=np.maximum(z, R)), floor=(down,))) == ["falls", "bounces", "stops"]
    tiny = np.where(TIME < 0.45, z, R)
    assert "bounces" not in kinds(recorded(path(0.0, z=np.maximum(tiny, R)), floor=(tiny <= R + 0.01,)))


def test_the_faster_one_hits():
    still, coming = path(0.5), path(np.minimum(-1 + 1.0 * TIME, 0.5 - 2 * R))
    record = recorded(coming, still, floor=(ALWAYS, ALWAYS))
    record.touching[432:, 2, 3] = record.touching[432:, 3, 2] = True
    events = [event for event in measure(record, CAMERA, FRAMES) if event["kind"] == "hits"]
    assert events == [{"kind": "hits", "time": 0.9, "instances": [3, 4]}]
    slow = dataclasses.replace(record, velocity=0.1 * record.velocity)
    assert "hits" not in kinds(slow)


def test_landing_on_another():
    z = np.maximum(3 * R + 0.8 - 4.905 * TIME**2, 3 * R)
    record = recorded(path(0.0), path(0.02, z=z), floor=(ALWAYS, ~ALWAYS))
    record.touching[:, 2, 3] = record.touching[:, 3, 2] = z <= 3 * R + 1e-3
    assert kinds(record, 4)[:2] == ["falls", "lands on"]


def test_the_screen_hides():
    across = path(-1.5 + 1.5 * TIME, 0.8)
    assert "passes behind" in kinds(recorded(across, floor=(ALWAYS,), screen=True))
    assert "goes behind" in kinds(recorded(path(np.minimum(-1.5 + 1.5 * TIME, 0), 0.8), floor=(ALWAYS,), screen=True))
    assert "comes out" in kinds(recorded(path(np.maximum(1.5 * TIME - 1, 0), 0.8), floor=(ALWAYS,), screen=True))
    assert "is behind" in kinds(recorded(path(0.0, 0.8), floor=(ALWAYS,), screen=True))
    front = recorded(path(-1.5 + 1.5 * TIME, -0.8), floor=(ALWAYS,), screen=True)
    assert not {"passes behind", "goes behind", "comes out", "is behind"} & set(kinds(front))
    assert np.all(hidden_share(front, 2, CAMERA, FRAMES) == 0)
    assert not {"passes behind"} & set(kinds(recorded(across, floor=(ALWAYS,))))
