"""From exact surface channels the reading recovers the core that made them: the theorem behind every perceived world."""

import jax
import numpy as np
import pytest

from wsm_jax.core import surface
from wsm_jax.evaluation.metrics import attributes, recover
from wsm_jax.models.wave_bridge import perceive as reading
from wsm_jax.snapshot import FIELDS, SEMANTIC_CLASSES, Waves, encode, orbit
from wsm_jax.snapshot.shapes import EXPONENTS
from wsm_jax.snapshot.waves import COLOURS, empty

SIZE, FRAMES, HZ = 48, 9, 8.0
KIND = {name: SEMANTIC_CLASSES.index(name) for name in SEMANTIC_CLASSES}
OBJECTS = (("ball", "red", (-0.9, 0.0, 0.45)), ("box", "blue", (0.8, 0.5, 0.42)), ("cylinder", "yellow", (0.1, -0.9, 0.4)))


def world() -> Waves:
    """A floor, and three objects of which the first moves to the right."""
    core = empty(6, (FRAMES,))
    fields = {name: np.array(getattr(core, name)) for name in FIELDS}

    def put(slot, kind, colour, centre, scale, exponents):
        fields["presence"][:, slot], fields["semantic"][:, slot] = 1, KIND[kind]
        fields["colour"][:, slot], fields["centre"][:, slot] = colour, centre
        fields["scale"][:, slot], fields["exponents"][:, slot] = scale, exponents

    put(0, "floor", (0.6, 0.6, 0.6), (0, 0, -0.25), (6, 6, 0.25), 0.1)
    scales = {"ball": (0.45, 0.45, 0.45), "box": (0.4, 0.42, 0.4), "cylinder": (0.35, 0.35, 0.4)}
    for slot, (kind, colour, centre) in enumerate(OBJECTS, start=2):
        put(slot, kind, COLOURS[colour], centre, scales[kind], EXPONENTS[kind])
        fields["instance"][:, slot] = slot + 1
    fields["centre"][:, 2, 0] += 0.6 * np.arange(FRAMES) / HZ
    return Waves(**fields)


@pytest.fixture(scope="module")
def seen():
    core, camera = world(), orbit(FRAMES, radius=5.0, height=2.2, sweep=0.4)
    draw = jax.jit(lambda waves, one: surface(waves, one, SIZE, SIZE))
    frames = []
    for t in range(FRAMES):
        channels = {name: np.asarray(x) for name, x in draw(core[t], camera[t]).items()}
        code = np.asarray(encode("semantic", channels["semantic"]))
        style = np.where(channels["instance"] > 0, channels["instance"], 0.0).repeat(2, -1)
        frames.append(channels | {"semantic_code": code, "style": style})
    return core, camera, frames


def _read(frames, camera, slots=6):
    found = [reading.detect(frame, camera[t], 2) for t, frame in enumerate(frames)]
    times = np.arange(len(frames)) / HZ
    return reading.to_core(reading.follow(found), times, np.full(3, 0.6), np.zeros(2), np.zeros(2), slots)


def test_a_seen_world_is_recovered(seen):
    core, camera, frames = seen
    read, ticks, style = _read(frames, camera)
    match = recover(core, read, gate_m=1.0)
    assert (match.matched, match.found, match.true) == (3, 3, 3)
    assert np.median(match.centre_error_m) < 0.02 and max(match.centre_error_m) < 0.06
    np.testing.assert_allclose(ticks, np.arange(FRAMES) / HZ)
    assert sorted(attributes(read)) == sorted((kind, colour) for kind, colour, _ in OBJECTS)
    for name in ("scale", "colour"):
        np.testing.assert_allclose(getattr(read, name)[4, 2:5], getattr(core, name)[4, 2:5], atol=0.03)
    # every wave keeps the style that was painted on it
    np.testing.assert_allclose(style.waves[2:5, 0], [3, 4, 5], atol=1e-3)


def test_motion_is_read_off(seen):
    _, camera, frames = seen
    read, *_ = _read(frames, camera)
    np.testing.assert_allclose(read.velocity[2:-2, 2], np.tile([0.6, 0, 0], (FRAMES - 4, 1)), atol=0.12)


def test_an_object_that_is_hidden_for_a_while_keeps_its_identity(seen):
    core, camera, frames = seen
    hidden = []
    for t, frame in enumerate(frames):
        ball = (frame["instance"] == 3) & (3 <= t <= 5)
        hidden.append({name: np.where(ball, -1.0 if name == "semantic_code" else 0.0, x) for name, x in frame.items()})
    match = recover(core, _read(hidden, camera)[0], gate_m=1.0)
    assert (match.matched, match.found) == (3, 3)
    assert np.median(match.centre_error_m) < 0.03


def test_no_object_no_wave(seen):
    _, camera, frames = seen
    bare = [{name: np.where(f["instance"] > 1, 0.0, x) for name, x in f.items()} for f in frames]
    read, *_ = _read(bare, camera)
    assert list(read.presence[0]) == [1, 0, 0, 0, 0, 0]


def test_more_objects_than_slots_keep_the_largest(seen):
    _, camera, frames = seen
    read, *_ = _read(frames, camera, slots=4)
    assert list(read.presence[0]) == [1, 0, 1, 1]
