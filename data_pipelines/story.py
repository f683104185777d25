"""Scenes in which waves come and go, by a small grammar, played by our own physics.

    story    := shatters | merges
    shatters := a box, drum or cushion is dropped; at the tick after it meets the floor it breaks into two or three slabs, cut
                across one of its axes, that fly apart
    merges   := two balls of one colour move towards each other; at the tick at which they touch they are one ball

Breaking and merging conserve mass, momentum, angular momentum and volume (core/physics/event.py).
"""

import dataclasses

import numpy as np
from scipy.spatial.transform import Rotation

from data_pipelines.camera_path import draw_camera
from data_pipelines.scene import ARENA_M, COLOUR_JITTER, COLOURS, FIRST_OBJECT, FLOOR, SHAPES, SIZES, SLOTS, Scene
from data_pipelines.style import draw_style
from wsm_jax.core.geometry import Geometry
from wsm_jax.core.interpolate import interpolate
from wsm_jax.core.physics.change import Change, play
from wsm_jax.core.physics.dynamics import step
from wsm_jax.core.physics.event import break_apart, merge
from wsm_jax.core.physics.matter import Matter, matter
from wsm_jax.snapshot import SEMANTIC_CLASSES, TICK_HZ, WSV, Waves
from wsm_jax.snapshot.waves import empty
from wsm_jax.typing import Float

STORIES = ("shatters", "merges")
_TOUCH_M = 0.02
_JOLT_M_S = 0.5
_G = 9.81


@dataclasses.dataclass(frozen=True)
class Told:
    """A story that was played: the core at its ticks, in the form that `simulate.render` asks a trajectory for."""

    core: Waves
    """[K N]"""
    core_time: Float[np.ndarray, " K"]

    @property
    def waves(self) -> Waves:
        """The first tick, with every slot present that is so at any tick."""
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
) -> tuple[Scene, Told, WSV]:
    """Story `index`: what it begins with, what it does, and its clip without pictures.

    Raises ValueError for kinds that are none of STORIES, RuntimeError when a hundred draws come to no event in time.
    """
    if not kinds or set(kinds) - set(STORIES):
        raise ValueError(f"events {kinds}; needed some of {', '.join(STORIES)}")
    rng = np.random.default_rng([seed, index])
    kind = kinds[rng.integers(len(kinds))]
    for _ in range(100):
        waves, properties, text = {"shatters": _to_shatter, "merges": _to_merge}[kind](rng)
        tick, change = _event(rng, kind, waves, properties, len(core_time) - 2)
        if change is None:
            continue
        core, happened, _ = play(waves, properties, ticks=len(core_time) - 1, changes={tick: [change]})
        half = 0.5 * np.array(ARENA_M[:2])
        there = np.asarray(core.presence)[:, FIRST_OBJECT:] > 0.5
        if np.all((np.abs(np.asarray(core.centre)[:, FIRST_OBJECT:, :2]) < half).all(-1) | ~there):
            break
    else:
        raise RuntimeError(
            f"story {index} of seed {seed}: none of 100 draws of {kind!r} came to its event; give it more seconds"
        )
    watching = tuple(name for name in cameras if not name.endswith("return")) or cameras  # one that leaves may miss the event
    camera = draw_camera(rng, (watching[rng.integers(len(watching))],))
    columns = {name: np.asarray(getattr(properties, name)) for name in ("mass", "friction", "rolling", "restitution")}
    scene = Scene(waves, **columns, camera=camera, style=draw_style(rng, waves.scale))
    path = camera.cameras(frame_time, float(frame_time[-1]))
    return scene, Told(core, core_time), WSV({}, frame_time, path, core, core_time, (text,), happened)


def _event(rng: np.random.Generator, kind: str, waves: Waves, properties: Matter, last: int) -> tuple[int, Change | None]:
    """The tick at which the story comes to its event, and the event; none where it does not by tick `last`."""
    now = waves
    for tick in range(1, last + 1):
        before, now = now, step(now, properties)
        if kind == "shatters":
            jolt = float(now.velocity[FIRST_OBJECT, 2] - before.velocity[FIRST_OBJECT, 2]) + _G / TICK_HZ
            if jolt > _JOLT_M_S:
                return tick, _slabs(rng, waves)
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


def _floor(rng: np.random.Generator) -> Waves:
    waves = empty(SLOTS)
    waves.presence[FLOOR], waves.semantic[FLOOR] = 1.0, SEMANTIC_CLASSES.index("floor")
    waves.centre[FLOOR], waves.scale[FLOOR], waves.exponents[FLOOR] = (0, 0, -0.25), (6, 6, 0.25), 0.1
    waves.colour[FLOOR], waves.material[FLOOR] = np.clip(rng.uniform(0.5, 0.65) + rng.uniform(-0.04, 0.04, 3), 0, 1), (0.9, 0)
    return waves


def _put(rng: np.random.Generator, waves: Waves, slot: int, shape: str, colour: str, radius: float) -> None:
    axes, e1, e2 = SHAPES[shape]
    waves.presence[slot], waves.semantic[slot], waves.instance[slot] = 1.0, SEMANTIC_CLASSES.index(shape), slot + 1
    waves.scale[slot], waves.exponents[slot] = radius * np.array(axes), (rng.uniform(*e1), rng.uniform(*e2))
    waves.colour[slot] = np.clip(np.array(COLOURS[colour]) + rng.uniform(-COLOUR_JITTER, COLOUR_JITTER, 3), 0, 1)
    waves.material[slot] = (rng.uniform(0.3, 0.9), 0.0)


def _to_shatter(rng: np.random.Generator) -> tuple[Waves, Matter, str]:
    """A thing in the air."""
    waves = _floor(rng)
    shape, colour = str(rng.choice(["box", "cylinder", "cushion"])), str(rng.choice(list(COLOURS)))
    _put(rng, waves, FIRST_OBJECT, shape, colour, SIZES["small"] * rng.uniform(0.8, 1.1))
    waves.centre[FIRST_OBJECT] = (*rng.uniform(-0.5, 0.5, 2), rng.uniform(0.8, 1.4))
    waves.velocity[FIRST_OBJECT] = (*rng.uniform(-0.5, 0.5, 2), 0)
    waves.rotation[FIRST_OBJECT] = Rotation.random(rng=rng).as_quat(scalar_first=True)
    waves.angular_velocity[FIRST_OBJECT] = rng.normal(size=3)
    properties = matter(waves, density=rng.uniform(200, 800), friction=rng.uniform(0.3, 0.6), restitution=rng.uniform(0.1, 0.4))
    return waves, properties, f"a {colour} {shape} falls and breaks into pieces."


def _to_merge(rng: np.random.Generator) -> tuple[Waves, Matter, str]:
    """Two balls on their way to each other."""
    waves = _floor(rng)
    colour, heading = str(rng.choice(list(COLOURS))), rng.uniform(-np.pi, np.pi)
    way = np.array([np.cos(heading), np.sin(heading)])
    for k, side in enumerate((-1.0, 1.0)):
        slot = FIRST_OBJECT + k
        _put(rng, waves, slot, "ball", colour, SIZES["small"] * rng.uniform(0.6, 1.0))
        radius, speed = float(waves.scale[slot, 0]), rng.uniform(0.5, 1.0)
        waves.centre[slot] = (*(side * rng.uniform(0.6, 0.9) * way), radius)
        waves.velocity[slot] = (*(-side * speed * way), 0)
        waves.angular_velocity[slot] = np.cross([0, 0, 1], waves.velocity[slot]) / radius
    properties = matter(waves, density=rng.uniform(200, 800), friction=0.4, rolling=0.003, restitution=0.0)
    return waves, properties, f"two {colour} balls roll together and merge into one."
