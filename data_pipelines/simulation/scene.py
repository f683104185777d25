"""Random scenes: waves at rest or in motion, materials, a camera path and a style.

World: z up, floor top at z = 0. Slots are canonical: 0 the floor, 1 the screen (empty where there is none), then the objects
sorted by class, colour and size, then spare. An object's instance id is its slot + 1; the floor and the screen are scenery, 0.
"""

import dataclasses

import jax
import numpy as np
from scipy.spatial.transform import Rotation

from data_pipelines.simulation.camera_path import CAMERA_KINDS, CameraPath, draw_camera
from data_pipelines.simulation.style import SceneStyle, draw_style
from wsm_jax.core import superquadric
from wsm_jax.snapshot import SEMANTIC_CLASSES, Waves
from wsm_jax.snapshot.shapes import EXPONENTS, FLOOR_HALF_M, SHAPES
from wsm_jax.snapshot.waves import COLOURS, empty
from wsm_jax.typing import Float

SLOTS = 6
FLOOR, SCREEN, FIRST_OBJECT = 0, 1, 2
ARENA_M = (3.6, 3.6, 1.8)
"""Box on the floor, centred on the origin, that holds the centre of every object."""
SCENE_DIAGONAL_M = float(np.linalg.norm(ARENA_M))
"""Nominal size of a scene, for errors relative to it."""

COLOUR_JITTER = 0.05
"""Largest difference of a component from the named colour."""

SIZES: dict[str, float] = {"small": 0.28, "large": 0.45}
"""Name -> radius, m; drawn with +-10 %."""
SIZE_THRESHOLD_M = 0.33
"""Boundary between small and large for the geometric mean of the semi-axes."""

STORIES = ("rest", "drop", "slide", "roll", "hit", "behind")
"""Intended motions of an object; what it then does is measured, not assumed."""

_FLOOR_TONES = ((0.62, 0.58, 0.52), (0.55, 0.58, 0.55), (0.60, 0.60, 0.62), (0.66, 0.60, 0.50), (0.52, 0.54, 0.60))
_SCREEN_TONES = ((0.40, 0.36, 0.33), (0.34, 0.37, 0.42), (0.45, 0.42, 0.36))
_support, _volume = jax.jit(superquadric.support), jax.jit(superquadric.volume)
_REST = np.array([1.0, 0.0, 0.0, 0.0])


@dataclasses.dataclass(frozen=True)
class Scene:
    """Input of a simulated clip. Arrays have one row for each slot."""

    waves: Waves
    """The state at time 0, [N]."""
    mass: Float[np.ndarray, " N"]
    """kg; 0 for scenery and empty slots."""
    friction: Float[np.ndarray, " N"]
    """Coefficient of sliding friction."""
    rolling: Float[np.ndarray, " N"]
    """Rolling friction, m."""
    restitution: Float[np.ndarray, " N"]
    """Speed after over speed before a bounce on the floor."""
    camera: CameraPath
    style: SceneStyle

    @property
    def objects(self) -> tuple[int, ...]:
        """Slots with an object."""
        present = np.asarray(self.waves.presence) > 0.5
        return tuple(int(slot) for slot in np.flatnonzero(present) if slot >= FIRST_OBJECT)

    @property
    def has_screen(self) -> bool:
        """True if slot 1 holds the screen."""
        return bool(np.asarray(self.waves.presence)[SCREEN] > 0.5)


@dataclasses.dataclass
class _Object:
    """One object while its scene is drawn."""

    shape: str
    colour: str
    size: str
    scale: np.ndarray
    exponents: np.ndarray
    centre: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(3))
    rotation: np.ndarray = dataclasses.field(default_factory=lambda: _REST.copy())
    velocity: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(3))
    spin: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(3))
    story: str = "rest"

    def reach(self, direction: np.ndarray) -> float:
        """Largest distance of the surface from the centre along a world direction, m."""
        local = Rotation.from_quat(self.rotation, scalar_first=True).inv().apply(direction)
        return float(_support(np.float32(local), np.float32(self.scale), np.float32(self.exponents)))

    @property
    def radius(self) -> float:
        """Upper bound of the radius of its outline seen from above, m."""
        return float(np.linalg.norm(self.scale)) if self.shape == "box" else float(1.1 * max(self.scale))

    @property
    def rolls(self) -> bool:
        """True if it lies on a round side."""
        return self.shape == "ball" or (self.shape == "cylinder" and not np.allclose(self.rotation[1:3], 0.0))


def draw(
    rng: np.random.Generator,
    *,
    objects: tuple[int, int] = (1, 3),
    screen: float = 0.4,
    stories: tuple[str, ...] = STORIES,
    cameras: tuple[str, ...] = CAMERA_KINDS,
    slots: int = SLOTS,
) -> Scene:
    """A random scene of `objects` (least, most) and, with probability `screen`, the screen; random `stories` and `cameras`.

    No two objects of a scene have both class and colour in common, so a text can name each. Raises ValueError for unknown
    names, a count that does not fit the slots, or stories that are impossible ("hit" alone, "behind" without a screen).
    """
    unknown = sorted(set(stories) - set(STORIES))
    if unknown or not stories:
        raise ValueError(f"stories {unknown or stories}: unknown or none; choose among {', '.join(STORIES)}")
    if not 1 <= objects[0] <= objects[1] <= slots - FIRST_OBJECT:
        raise ValueError(f"objects {objects}: needed 1 <= least <= most <= {slots - FIRST_OBJECT}")
    if (stories == ("behind",) and screen == 0.0) or stories == ("hit",):
        raise ValueError(f"stories {stories} are impossible with objects {objects} and a screen of probability {screen}")
    for _ in range(1000):
        scene = _try(rng, objects, screen, stories, cameras, slots)
        if scene is not None:
            return scene
    raise ValueError(f"no scene of {objects} objects with stories {stories} fits the arena in 1000 draws")


def _try(
    rng: np.random.Generator,
    objects: tuple[int, int],
    screen: float,
    stories: tuple[str, ...],
    cameras: tuple[str, ...],
    slots: int,
) -> Scene | None:
    """One attempt; None if an object has no free position or no possible story."""
    things = _things(rng, int(rng.integers(objects[0], objects[1] + 1)))
    barrier = _screen(rng) if rng.random() < screen else None
    placed: list[_Object] = []
    for thing in things:
        choices = [s for s in stories if _can(s, thing, placed, barrier)]
        if not choices:
            return None
        thing.story = choices[rng.integers(len(choices))]
        if not _place(rng, thing, placed, barrier):
            return None
        placed.append(thing)
    return _scene(rng, sorted(placed, key=_canonical), barrier, draw_camera(rng, cameras), slots)


def _canonical(thing: _Object) -> tuple[int, int, int]:
    """Sort key of the objects over the slots."""
    return SEMANTIC_CLASSES.index(thing.shape), list(COLOURS).index(thing.colour), list(SIZES).index(thing.size)


def _things(rng: np.random.Generator, count: int) -> list[_Object]:
    """Objects with a shape, a size and a colour, no two with the same class and colour."""
    pairs = [(shape, colour) for shape in SHAPES for colour in COLOURS]
    things = []
    for index in rng.choice(len(pairs), count, replace=False):
        shape, colour = pairs[index]
        size = list(SIZES)[rng.integers(len(SIZES))]
        row = SHAPES[shape]
        jitter = np.ones(3) if shape == "ball" else rng.uniform(0.96, 1.04, 3)
        if shape == "cylinder":
            jitter[1] = jitter[0]
        scale = SIZES[size] * rng.uniform(0.9, 1.1) * np.array(row.axes) * jitter
        things.append(_Object(shape, colour, size, scale, np.array([rng.uniform(*row.e1), rng.uniform(*row.e2)])))
    return things


def _screen(rng: np.random.Generator) -> _Object:
    """The screen: an upright thin occluder."""
    scale = np.array([rng.uniform(0.55, 0.9), 0.06, rng.uniform(0.5, 0.8)])
    thing = _Object("screen", "", "", scale, np.array(EXPONENTS["screen"]))
    thing.centre = np.array([rng.uniform(-0.5, 0.5), rng.uniform(-0.3, 0.4), scale[2]])
    thing.rotation = _yaw(rng.uniform(-0.2, 0.2))
    return thing


def _yaw(angle: float) -> np.ndarray:
    return Rotation.from_euler("z", angle).as_quat(scalar_first=True)


def _can(story: str, thing: _Object, placed: list[_Object], barrier: _Object | None) -> bool:
    """True if the story is possible for the object."""
    return {
        "rest": True,
        "drop": True,
        "slide": thing.shape != "ball",
        "roll": thing.shape in ("ball", "cylinder"),
        "hit": any(other.story in ("rest", "slide", "roll") for other in placed),
        "behind": barrier is not None,
    }[story]


def _place(rng: np.random.Generator, thing: _Object, placed: list[_Object], barrier: _Object | None) -> bool:
    """Set a pose and a velocity for the object's story, clear of the others; False if there is no free position."""
    for _ in range(24):
        _pose(rng, thing, placed, barrier)
        half = 0.5 * np.array(ARENA_M)
        if np.any(np.abs(thing.centre[:2]) > half[:2] - 0.2) or thing.centre[2] > ARENA_M[2]:
            continue
        if all(np.hypot(*(thing.centre - o.centre)[:2]) > thing.radius + o.radius + 0.03 for o in placed) and (
            barrier is None or _clear(thing, barrier)
        ):
            return True
    return False


def _clear(thing: _Object, barrier: _Object) -> bool:
    """True if the object's circle is clear of the screen's rectangle, seen from above."""
    local = Rotation.from_quat(barrier.rotation, scalar_first=True).inv().apply(thing.centre - barrier.centre)
    outside = np.maximum(np.abs(local[:2]) - barrier.scale[:2], 0.0)
    return bool(np.hypot(*outside) > thing.radius + 0.03)


def _pose(rng: np.random.Generator, thing: _Object, placed: list[_Object], barrier: _Object | None) -> None:
    """Set one random pose and velocity for the object's story."""
    thing.velocity, thing.spin = np.zeros(3), np.zeros(3)
    thing.centre = np.array([*rng.uniform(-1.25, 1.25, 2), 0.0])
    heading = rng.uniform(-np.pi, np.pi)
    speed = 0.0
    if thing.story in ("slide", "roll"):
        # mostly inwards, so that it stays in the arena
        heading = np.arctan2(-thing.centre[1], -thing.centre[0]) + rng.uniform(-0.7, 0.7)
        speed = rng.uniform(1.4, 2.4) if thing.story == "slide" else rng.uniform(0.6, 1.4)
    elif thing.story == "hit":
        aims = [o for o in placed if o.story in ("rest", "slide", "roll")]
        aim = aims[rng.integers(len(aims))]
        heading = rng.uniform(-np.pi, np.pi)
        gap = thing.radius + aim.radius + rng.uniform(0.25, 0.8)
        thing.centre[:2] = aim.centre[:2] - gap * np.array([np.cos(heading), np.sin(heading)])
        heading, speed = heading + rng.uniform(-0.12, 0.12), rng.uniform(1.5, 2.6)
    elif thing.story == "behind" and barrier is not None:
        side = rng.choice([-1.0, 1.0])
        turn = Rotation.from_quat(barrier.rotation, scalar_first=True)
        start = [-side * (barrier.scale[0] + thing.radius * rng.uniform(0.6, 1.0)), thing.radius + rng.uniform(0.12, 0.4), 0]
        thing.centre = barrier.centre * np.array([1, 1, 0]) + turn.apply(start)
        heading = turn.as_euler("zyx")[0] + (0.0 if side > 0 else np.pi) + rng.uniform(-0.05, 0.05)
        speed = rng.uniform(1.1, 1.9) if thing.shape in ("ball", "cylinder") else rng.uniform(2.4, 3.2)
    lying = thing.shape == "cylinder" and (thing.story in ("roll", "behind") or rng.random() < 0.35)
    thing.rotation = _yaw(rng.uniform(-np.pi, np.pi))
    if lying:
        across = heading if speed > 0.0 else rng.uniform(-np.pi, np.pi)
        thing.rotation = (Rotation.from_euler("z", across) * Rotation.from_euler("x", np.pi / 2)).as_quat(scalar_first=True)
    height = 0.001
    if thing.story == "drop":
        height = rng.uniform(0.5, 1.5) * min(1.0, (ARENA_M[2] - thing.radius) / 1.5)
        if rng.random() < 0.5:
            thing.rotation = Rotation.random(rng=rng).as_quat(scalar_first=True)
        thing.velocity[:2] = rng.uniform(-0.4, 0.4, 2)
    thing.centre[2] = thing.reach(np.array([0, 0, -1])) + height
    thing.velocity[:2] += speed * np.array([np.cos(heading), np.sin(heading)])
    if thing.rolls and speed > 0.0:
        thing.spin = np.cross([0, 0, 1], thing.velocity) / thing.centre[2]


def _scene(rng: np.random.Generator, things: list[_Object], barrier: _Object | None, camera: CameraPath, slots: int) -> Scene:
    """The scene with every object in its slot."""
    waves = empty(slots)
    columns = {name: np.zeros(slots, np.float32) for name in ("mass", "friction", "rolling", "restitution")}

    def put(slot: int, thing: _Object, colour: np.ndarray, roughness: float) -> None:
        waves.presence[slot] = 1.0
        waves.centre[slot], waves.rotation[slot] = thing.centre, thing.rotation
        waves.scale[slot], waves.exponents[slot] = thing.scale, thing.exponents
        waves.velocity[slot], waves.angular_velocity[slot] = thing.velocity, thing.spin
        waves.colour[slot], waves.material[slot] = np.clip(colour, 0, 1), (roughness, 0.0)
        waves.semantic[slot] = SEMANTIC_CLASSES.index(thing.shape)
        waves.instance[slot] = slot + 1 if slot >= FIRST_OBJECT else 0

    floor = _Object("floor", "", "", np.array(FLOOR_HALF_M), np.array(EXPONENTS["floor"]), np.array([0, 0, -FLOOR_HALF_M[2]]))
    put(FLOOR, floor, _FLOOR_TONES[rng.integers(len(_FLOOR_TONES))] + rng.uniform(-0.04, 0.04, 3), 0.9)
    if barrier is not None:
        put(SCREEN, barrier, _SCREEN_TONES[rng.integers(len(_SCREEN_TONES))] + rng.uniform(-0.03, 0.03, 3), 0.8)
    for slot, thing in enumerate(things, FIRST_OBJECT):
        jitter = rng.uniform(-COLOUR_JITTER, COLOUR_JITTER, 3)
        put(slot, thing, np.array(COLOURS[thing.colour]) + jitter, rng.uniform(0.3, 0.9))
        columns["mass"][slot] = rng.uniform(200, 800)  # kg/m^3, multiplied by the volumes below
        columns["friction"][slot] = rng.uniform(0.2, 0.35) if thing.story in ("slide", "behind") else rng.uniform(0.25, 0.6)
        columns["rolling"][slot] = rng.uniform(0.002, 0.01) if thing.shape in ("ball", "cylinder") else 0.0
        columns["restitution"][slot] = rng.uniform(0.5, 0.85) if thing.shape == "ball" else rng.uniform(0.15, 0.45)
    columns["mass"] *= np.asarray(_volume(waves.scale, waves.exponents))
    return Scene(waves, **columns, camera=camera, style=draw_style(rng, waves.scale))
