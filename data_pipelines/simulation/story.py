"""Scenes in which waves appear and disappear, by a small grammar, simulated by wsm_jax.core.physics.

    story    := shatters | merges | appears | vanishes
    shatters := a thing is dropped; at the tick after it hits the floor it breaks into pieces that fly apart
    thing    := a box, drum or cushion, cut across one of its axes into two or three slabs | a cup, which is a set of waves, a
                bottom and six sides: they are the pieces
    merges   := two balls of one colour move towards each other; at the tick at which they touch they are one ball
    appears  := a thing of one wave rests; at some tick a ball appears in the air above it and falls
    vanishes := a ball rolls; at some tick it disappears

Breaking and merging conserve mass, momentum, angular momentum and volume (core/physics/event.py).
"""

import dataclasses

import numpy as np
from scipy.spatial.transform import Rotation

from data_pipelines.simulation.camera_path import draw_camera
from data_pipelines.simulation.scene import ARENA_M, COLOUR_JITTER, COLOURS, FIRST_OBJECT, FLOOR, SIZES, SLOTS, Scene
from data_pipelines.simulation.style import draw_style
from wsm_jax.core.geometry import Geometry
from wsm_jax.core.interpolate import interpolate
from wsm_jax.core.physics.change import Change, add, play, remove
from wsm_jax.core.physics.dynamics import step
from wsm_jax.core.physics.event import break_apart, come_apart, merge
from wsm_jax.core.physics.matter import Matter, matter
from wsm_jax.snapshot import SEMANTIC_CLASSES, TICK_HZ, WSV, Waves
from wsm_jax.snapshot.shapes import EXPONENTS, FLOOR_HALF_M, SHAPES
from wsm_jax.snapshot.waves import empty
from wsm_jax.typing import Float

STORIES = ("shatters", "merges", "appears", "vanishes")
_SIDES = 6
_CUP = tuple(range(FIRST_OBJECT, FIRST_OBJECT + 1 + _SIDES))
_TOUCH_M = 0.02
_JOLT_M_S = 0.5
_G = 9.81


def slots_of(stories: tuple[str, ...]) -> int:
    """Number of slots of the scenes of these stories."""
    return _CUP[-1] + 1 if "shatters" in stories else SLOTS


@dataclasses.dataclass(frozen=True)
class PlayedStory:
    """The core of a simulated story at its ticks, with the interface of `Trajectory` that `simulate.render` uses."""

    core: Waves
    """[K N]"""
    core_time: Float[np.ndarray, " K"]

    @property
    def waves(self) -> Waves:
        """The first tick, with the largest presence of each slot over all ticks."""
        return self.core[0].replace(presence=np.asarray(self.core.presence).max(0))  # type: ignore[attr-defined]

    def at(self, time: Float[np.ndarray, " T"]) -> Waves:
        """The waves [T N] at any times (s)."""
        return interpolate(self.core, self.core_time, np.asarray(time))


def record_story(
    kinds: tuple[str, ...],
    seed: int,
    index: int,
    core_time: Float[np.ndarray, " K"],
    frame_time: Float[np.ndarray, " T"],
    cameras: tuple[str, ...],
    slots: int,
) -> tuple[Scene, PlayedStory, WSV]:
    """Story `index`: its first scene, its core, and its clip without pictures; the core has `slots` slots.

    Raises ValueError for kinds that are not in STORIES, RuntimeError if none of a hundred draws reaches its event in time.
    """
    if not kinds or set(kinds) - set(STORIES):
        raise ValueError(f"events {kinds}; needed some of {', '.join(STORIES)}")
    rng = np.random.default_rng([seed, index])
    kind = kinds[rng.integers(len(kinds))]
    for _ in range(100):
        waves, properties, text = _BEGINNINGS[kind](rng, slots)
        tick, change = _event(rng, kind, waves, properties, len(core_time) - 2)
        if change is None:
            continue
        core, happened, _ = play(waves, properties, ticks=len(core_time) - 1, changes={tick: [change]})
        half = 0.5 * np.array(ARENA_M[:2])
        there = np.asarray(core.presence)[:, FIRST_OBJECT:] > 0.5
        if np.all((np.abs(np.asarray(core.centre)[:, FIRST_OBJECT:, :2]) < half).all(-1) | ~there):
            break
    else:
        raise RuntimeError(f"story {index} of seed {seed}: none of 100 draws of {kind!r} reached its event; use more seconds")
    # a camera that turns away may miss the event
    watching = tuple(name for name in cameras if not name.endswith("return")) or cameras
    camera = draw_camera(rng, (watching[rng.integers(len(watching))],))
    columns = {name: np.asarray(getattr(properties, name)) for name in ("mass", "friction", "rolling", "restitution")}
    scene = Scene(waves, **columns, camera=camera, style=draw_style(rng, waves.scale))
    path = camera.cameras(frame_time, float(frame_time[-1]))
    return scene, PlayedStory(core, core_time), WSV({}, frame_time, path, core, core_time, (text,), happened)


def _event(rng: np.random.Generator, kind: str, waves: Waves, properties: Matter, last: int) -> tuple[int, Change | None]:
    """Tick and change of the event of the story; None for the change if it is not reached by tick `last`."""
    if kind in ("appears", "vanishes"):
        tick = int(rng.integers(1, last + 1))
        return tick, _born(rng, waves) if kind == "appears" else remove(FIRST_OBJECT)
    now = waves
    for tick in range(1, last + 1):
        before, now = now, step(now, properties)
        if kind == "shatters":
            slots = np.flatnonzero(np.asarray(properties.part) == FIRST_OBJECT)
            gained = np.asarray(now.velocity - before.velocity)[slots, 2] @ np.asarray(properties.mass)[slots]
            if gained / np.asarray(properties.mass)[slots].sum() + _G / TICK_HZ > _JOLT_M_S:
                return tick, _slabs(rng, waves) if len(slots) == 1 else _sherds(rng, now)
        else:
            a, b = (np.asarray(now.centre)[FIRST_OBJECT + k] for k in (0, 1))
            touch = float(np.asarray(waves.scale)[FIRST_OBJECT : FIRST_OBJECT + 2, 0].sum())
            if np.linalg.norm(a - b) < touch + _TOUCH_M:
                return tick, merge((FIRST_OBJECT, FIRST_OBJECT + 1), FIRST_OBJECT + 2)
    return last, None


def _slabs(rng: np.random.Generator, waves: Waves) -> Change:
    """The first object cut across one of its axes into slabs that fly apart."""
    count, axis = int(rng.integers(2, 4)), int(rng.integers(3))
    share = rng.uniform(0.7, 1.3, count)
    share = share / share.sum()
    scale = np.repeat(np.asarray(waves.scale)[FIRST_OBJECT][None], count, 0).astype(np.float32)
    middle = (np.cumsum(share) - 0.5 * share) * 2 - 1
    centre = np.zeros((count, 3), np.float32)
    centre[:, axis] = middle * scale[:, axis]
    scale[:, axis] *= share
    exponents = np.repeat(np.asarray(waves.exponents)[FIRST_OBJECT][None], count, 0).astype(np.float32)
    turn = np.tile(np.array([1, 0, 0, 0], np.float32), (count, 1))
    apart = rng.normal(size=(count, 3)) * [0.5, 0.5, 0.2] + [0, 0, 0.6]
    slots = tuple(range(FIRST_OBJECT + 1, FIRST_OBJECT + 1 + count))
    return break_apart(FIRST_OBJECT, slots, Geometry(centre, scale, turn, exponents), apart=apart)


def _sherds(rng: np.random.Generator, waves: Waves) -> Change:
    """The bottom and the sides of the cup, which fly apart."""
    centre = np.asarray(waves.centre, np.float64)[list(_CUP)]
    way = centre - centre.mean(0)
    way = way / np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-6)
    apart = way * rng.uniform(0.4, 1.2, (len(_CUP), 1)) + rng.normal(size=(len(_CUP), 3)) * 0.2
    return come_apart(_CUP, apart=apart)


def _born(rng: np.random.Generator, waves: Waves) -> Change:
    """A ball in the air above the first object, with the colour of the spare slot."""
    slot = FIRST_OBJECT + 1
    here = np.arange(waves.count) == slot
    place = np.asarray(waves.centre)[FIRST_OBJECT] + np.array([*rng.uniform(-0.2, 0.2, 2), rng.uniform(0.7, 1.0)])
    centre = np.where(here[:, None], place, waves.centre).astype(np.float32)
    ball = waves.replace(presence=np.where(here, 1.0, waves.presence).astype(np.float32), centre=centre)  # type: ignore[attr-defined]
    properties = matter(ball, density=rng.uniform(200, 800), rolling=0.003, restitution=rng.uniform(0.3, 0.7))
    row = slice(slot, slot + 1)
    return add(slot, ball[row], Matter(**{name: column[row] for name, column in vars(properties).items()}))


def _floor(rng: np.random.Generator, slots: int) -> Waves:
    waves = empty(slots)
    waves.presence[FLOOR], waves.semantic[FLOOR] = 1.0, SEMANTIC_CLASSES.index("floor")
    waves.centre[FLOOR], waves.scale[FLOOR], waves.exponents[FLOOR] = (0, 0, -FLOOR_HALF_M[2]), FLOOR_HALF_M, EXPONENTS["floor"]
    waves.colour[FLOOR], waves.material[FLOOR] = np.clip(rng.uniform(0.5, 0.65) + rng.uniform(-0.04, 0.04, 3), 0, 1), (0.9, 0)
    return waves


def _put(rng: np.random.Generator, waves: Waves, slot: int, shape: str, colour: str, radius: float) -> None:
    row = SHAPES[shape]
    waves.presence[slot], waves.semantic[slot], waves.instance[slot] = 1.0, SEMANTIC_CLASSES.index(shape), slot + 1
    waves.scale[slot], waves.exponents[slot] = radius * np.array(row.axes), (rng.uniform(*row.e1), rng.uniform(*row.e2))
    waves.colour[slot] = np.clip(np.array(COLOURS[colour]) + rng.uniform(-COLOUR_JITTER, COLOUR_JITTER, 3), 0, 1)
    waves.material[slot] = (rng.uniform(0.3, 0.9), 0.0)


def _put_cup(rng: np.random.Generator, waves: Waves, colour: str, radius: float) -> None:
    """A cup in the slots _CUP: a round bottom and six upright sides about the world's origin, z up."""
    high, thin = radius * rng.uniform(1.0, 1.3), 0.12 * radius
    turns = np.arange(_SIDES) * 2 * np.pi / _SIDES
    for slot in _CUP:
        _put(rng, waves, slot, "box", colour, radius)
    slots = list(_CUP)
    waves.semantic[slots], waves.instance[slots] = SEMANTIC_CLASSES.index("thing"), FIRST_OBJECT + 1
    for values in (waves.colour, waves.material, waves.exponents):
        values[slots] = values[FIRST_OBJECT]
    waves.scale[FIRST_OBJECT], waves.exponents[FIRST_OBJECT] = (radius, radius, thin), (0.15, 1.0)
    waves.centre[FIRST_OBJECT] = (0, 0, thin - high)
    for slot, turn in zip(slots[1:], turns, strict=True):
        waves.scale[slot] = (thin, radius * np.tan(np.pi / _SIDES), high - thin)
        waves.centre[slot] = ((radius - thin) * np.cos(turn), (radius - thin) * np.sin(turn), thin)
        waves.rotation[slot] = Rotation.from_euler("z", turn).as_quat(scalar_first=True)


def _throw(rng: np.random.Generator, waves: Waves, slots: list[int]) -> None:
    """Move waves around the origin, as one rigid body, into the air, with a random rotation and velocity."""
    turn, spin = Rotation.random(rng=rng), rng.normal(size=3)
    arm = turn.apply(np.asarray(waves.centre)[slots])
    waves.centre[slots] = arm + np.array([*rng.uniform(-0.5, 0.5, 2), rng.uniform(0.8, 1.4)])
    waves.rotation[slots] = (turn * Rotation.from_quat(waves.rotation[slots], scalar_first=True)).as_quat(scalar_first=True)
    waves.velocity[slots] = np.cross(spin, arm) + np.array([*rng.uniform(-0.5, 0.5, 2), 0])
    waves.angular_velocity[slots] = spin


def _to_shatter(rng: np.random.Generator, slots: int) -> tuple[Waves, Matter, str]:
    """A thing in the air."""
    waves = _floor(rng, slots)
    shape, colour = str(rng.choice(["box", "cylinder", "cushion", "cup"])), str(rng.choice(list(COLOURS)))
    radius = SIZES["small"] * rng.uniform(0.8, 1.1)
    if shape == "cup":
        _put_cup(rng, waves, colour, radius)
    else:
        _put(rng, waves, FIRST_OBJECT, shape, colour, radius)
    _throw(rng, waves, list(_CUP) if shape == "cup" else [FIRST_OBJECT])
    properties = matter(waves, density=rng.uniform(200, 800), friction=rng.uniform(0.3, 0.6), restitution=rng.uniform(0.1, 0.4))
    return waves, properties, f"{_a(colour)} {shape} falls and breaks into pieces."


def _to_merge(rng: np.random.Generator, slots: int) -> tuple[Waves, Matter, str]:
    """Two balls that roll towards each other."""
    waves = _floor(rng, slots)
    colour, heading = str(rng.choice(list(COLOURS))), rng.uniform(-np.pi, np.pi)
    way = np.array([np.cos(heading), np.sin(heading)])
    for k, side in enumerate((-1.0, 1.0)):
        slot = FIRST_OBJECT + k
        _put(rng, waves, slot, "ball", colour, SIZES["small"] * rng.uniform(0.6, 1.0))
        _roll(rng, waves, slot, side * rng.uniform(0.6, 0.9), way)
    properties = matter(waves, density=rng.uniform(200, 800), friction=0.4, rolling=0.003, restitution=0.0)
    return waves, properties, f"two {colour} balls roll together and merge into one."


def _to_appear(rng: np.random.Generator, slots: int) -> tuple[Waves, Matter, str]:
    """A thing at rest, and an absent ball in the next slot."""
    waves = _floor(rng, slots)
    shape = str(rng.choice(["box", "cylinder", "cushion"]))
    first, second = (str(name) for name in rng.choice(list(COLOURS), 2, replace=False))
    _put(rng, waves, FIRST_OBJECT, shape, first, SIZES["small"] * rng.uniform(0.8, 1.1))
    waves.centre[FIRST_OBJECT] = (*rng.uniform(-0.5, 0.5, 2), waves.scale[FIRST_OBJECT, 2])
    _put(rng, waves, FIRST_OBJECT + 1, "ball", second, SIZES["small"] * rng.uniform(0.6, 1.0))
    waves.presence[FIRST_OBJECT + 1] = 0.0
    properties = matter(waves, density=rng.uniform(200, 800), friction=rng.uniform(0.3, 0.6), restitution=rng.uniform(0.1, 0.4))
    return waves, properties, f"{_a(first)} {shape} rests. {_a(second)} ball appears above it and falls."


def _to_vanish(rng: np.random.Generator, slots: int) -> tuple[Waves, Matter, str]:
    """A ball that rolls."""
    waves = _floor(rng, slots)
    colour, heading = str(rng.choice(list(COLOURS))), rng.uniform(-np.pi, np.pi)
    _put(rng, waves, FIRST_OBJECT, "ball", colour, SIZES["small"] * rng.uniform(0.8, 1.1))
    _roll(rng, waves, FIRST_OBJECT, -rng.uniform(0.3, 0.6), np.array([np.cos(heading), np.sin(heading)]))
    properties = matter(waves, density=rng.uniform(200, 800), friction=0.4, rolling=0.003, restitution=0.3)
    return waves, properties, f"{_a(colour)} ball rolls and vanishes."


def _a(word: str) -> str:
    """The word with its indefinite article."""
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def _roll(rng: np.random.Generator, waves: Waves, slot: int, from_m: float, way: np.ndarray) -> None:
    """The ball of a slot, on the floor `from_m` (m) along `way` from the middle, rolling towards the middle."""
    radius, speed = float(waves.scale[slot, 0]), rng.uniform(0.5, 1.0)
    waves.centre[slot] = (*(from_m * way), radius)
    waves.velocity[slot] = (*(-np.sign(from_m) * speed * way), 0)
    waves.angular_velocity[slot] = np.cross([0, 0, 1], waves.velocity[slot]) / radius


_BEGINNINGS = {"shatters": _to_shatter, "merges": _to_merge, "appears": _to_appear, "vanishes": _to_vanish}
