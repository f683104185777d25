"""Draws the pictures of docs/wave.md, by the renderer of the core:     python docs/wave_pictures.py [FOLDER [ROWS]]

FOLDER is docs by default, ROWS (144) the height of a small picture in pixels. The same pictures come out every time.
"""

import dataclasses
import math
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from launch.view.snapshot import CHANNELS, Snapshots
from wsm_jax.core import interpolate, superquadric, surface
from wsm_jax.snapshot import TICK_HZ, Camera, Waves, look_at, resize
from wsm_jax.snapshot.waves import COLOURS, empty
from wsm_jax.visualise.pictures import grid, picture

ROWS = 144
SLOTS = 15
SMOOTH = ("rgb", "coverage", "base_colour")
EXPONENTS = (0.1, 0.5, 1.0, 1.5, 1.9)
SOFTNESS_M = (0.0, 0.02, 0.1)
INK = "#24292f"

WAVE = {"presence": 1.0, "centre": (0.0, 0.0, 0.5), "scale": (0.5, 0.5, 0.5), "colour": COLOURS["orange"]}
FLOOR = {"presence": 1.0, "centre": (0.0, 0.0, -0.1), "scale": (4.0, 4.0, 0.1), "exponents": (0.1, 0.1), "semantic": 1}
FLOOR["colour"] = (0.60, 0.60, 0.58)


def waves_of(*rows: dict) -> Waves:
    """Waves by the fields that they do not share with an empty slot."""
    waves = empty(len(rows))
    for slot, row in enumerate(rows):
        for name, value in row.items():
            getattr(waves, name)[slot] = value
    return waves


def camera_at(position: tuple, target: tuple, degrees: float) -> Camera:
    """A camera that looks at a target; its vertical field of view."""
    return look_at(np.array(position, np.float32), np.array(target, np.float32), math.radians(degrees))


def turn(axis: str, degrees: float) -> np.ndarray:
    """Quaternion of a turn about a world axis."""
    half = math.radians(degrees) / 2
    return np.array([math.cos(half), *(math.sin(half) * (axis == name) for name in "xyz")], np.float32)


def drawn(snapshots: Snapshots, name: str, waves: Waves, camera: Camera, rows: int) -> np.ndarray:
    """A channel at four rays a pixel, of aspect 4:3; one size for all pictures, so that one program draws them."""
    found = snapshots.picture(name, waves, camera, 2 * rows, 8 * rows // 3)
    return resize(name if name in SMOOTH else "instance", found, rows, 4 * rows // 3)


def exponents(snapshots: Snapshots, rows: int) -> np.ndarray:
    """The family of shapes: e1 from left to right, e2 from the top down."""
    camera, shapes = camera_at((1.15, -1.9, 1.5), (0.0, 0.0, 0.44), 38), []
    for e2 in EXPONENTS:
        for e1 in EXPONENTS:
            waves = waves_of({**WAVE, "exponents": (e1, e2)})
            shapes.append((f"e1 {e1:g}  e2 {e2:g}", drawn(snapshots, "rgb", waves, camera, rows)[None]))
    return grid(shapes, len(EXPONENTS))[0]


def measures() -> Figure:
    """A cut through a wave with level sets of its gauge and one supporting plane; the shape probability across its surface."""
    scale, shape = np.array([1.0, 1.0, 0.6], np.float32), np.array([0.5, 0.5], np.float32)
    x, z = np.meshgrid(np.linspace(-1.7, 1.7, 241), np.linspace(-1.25, 1.25, 181))
    g = np.asarray(superquadric.gauge(np.stack([x, np.zeros_like(x), z], -1).astype(np.float32), scale, shape))
    figure = Figure((8.0, 3.1), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.35, 1.0))
    left.contourf(x, z, g, levels=[0.0, 1.0], colors=["#fde3c8"])
    lines = left.contour(x, z, g, levels=[0.5, 1.0, 1.5], colors=[INK], linewidths=[0.8, 2.0, 0.8])
    left.clabel(lines, fmt="g = %g", fontsize=8, manual=[(0.0, -0.3), (0.0, -0.6), (0.0, -0.9)])
    normal = np.array([0.6, 0.0, 0.8], np.float32)
    height = float(superquadric.support(normal, scale, shape))
    point = np.asarray(superquadric.support_point(normal, scale, shape))
    along, foot = np.array([normal[2], -normal[0]]), height * normal[[0, 2]]
    ends = np.stack([point[[0, 2]] - 0.75 * along, point[[0, 2]] + 0.75 * along])
    left.plot(*ends.T, color="#0072b2", linewidth=1.2)
    left.annotate("", foot, (0.0, 0.0), arrowprops={"arrowstyle": "->", "color": "#0072b2"})
    left.plot(point[0], point[2], "o", color="#0072b2", markersize=5)
    left.text(*(0.5 * foot + [-0.36, 0.0]), "h(n)", color="#0072b2", fontsize=9)
    left.set(aspect="equal", xlabel="x, m", ylabel="z, m", xlim=(-1.7, 1.7), ylim=(-1.25, 1.25))
    distance = np.linspace(0.5, 1.5, 201, dtype=np.float32)
    log_g = superquadric.log_gauge(np.stack([distance, 0 * distance, 0 * distance], -1), scale, shape)
    for softness, colour in zip((0.02, 0.1), ("#d55e00", "#009e73")):
        for presence, style in ((1.0, "-"), (0.5, "--")):
            probability = np.asarray(superquadric.occupancy(log_g, scale, presence, softness))
            right.plot(distance, probability, style, color=colour, label=f"presence {presence:g}, softness {softness:g} m")
    right.set(xlabel="x along the axis, m", ylabel="shape probability", ylim=(-0.03, 1.5), yticks=(0.0, 0.5, 1.0))
    right.legend(fontsize=8, frameon=False, loc="upper right")
    return figure


@partial(jax.jit, static_argnames=("rows", "softness"))
def _coverage(waves: Waves, camera: Camera, rows: int, softness: float) -> jax.Array:
    channels = surface(waves, camera, rows, rows, softness=softness, channels=("coverage",), cull=False)
    return channels["coverage"]


def coverage(rows: int) -> np.ndarray:
    """Coverage of one wave, hard and soft, certain and uncertain."""
    camera, found = camera_at((1.15, -1.9, 1.1), (0.0, 0.0, 0.5), 40), []
    for presence in (1.0, 0.5):
        waves = waves_of({**WAVE, "exponents": (0.5, 0.5), "presence": presence})
        for softness in SOFTNESS_M:
            values = np.asarray(_coverage(waves, camera, rows, softness))
            found.append((f"presence {presence:g}, {softness:g} m", picture("coverage", values)[None]))
    return grid(found, len(SOFTNESS_M))[0]


def table() -> list[dict]:
    """A table with a lamp on it: two objects, each a set of waves."""
    wood, brass = (0.58, 0.38, 0.20), (0.86, 0.72, 0.25)
    leg = {"presence": 1.0, "scale": (0.05, 0.05, 0.35), "exponents": (0.1, 1.0), "colour": wood, "instance": 1}
    legs = [{**leg, "centre": (x, y, 0.35)} for x in (-0.6, 0.6) for y in (-0.35, 0.35)]
    top = {**leg, "centre": (0.0, 0.0, 0.74), "scale": (0.75, 0.5, 0.04), "exponents": (0.1, 0.2)}
    part = {"presence": 1.0, "colour": brass, "instance": 2}
    foot = {**part, "centre": (0.2, 0.0, 0.82), "scale": (0.16, 0.16, 0.04), "exponents": (1.0, 1.0)}
    stem = {**part, "centre": (0.2, 0.0, 1.02), "scale": (0.025, 0.025, 0.22), "exponents": (0.1, 1.0)}
    shade = {**part, "centre": (0.2, 0.0, 1.3), "scale": (0.22, 0.22, 0.22), "exponents": (1.7, 1.0), "colour": COLOURS["red"]}
    return [FLOOR, *legs, top, foot, stem, shade]


def sets(snapshots: Snapshots, rows: int) -> np.ndarray:
    """The table and its lamp, as they look, by wave, and by the object that a wave belongs to."""
    camera, waves = camera_at((1.7, -2.7, 1.7), (0.0, 0.0, 0.6), 36), waves_of(*table())
    look, slots = (drawn(snapshots, name, waves, camera, rows) for name in ("rgb", "instance"))
    known = np.array([[0.08, 0.08, 0.1], [0.5, 0.5, 0.55], COLOURS["cyan"], COLOURS["red"]])
    alone = dataclasses.replace(waves, colour=known[1 + np.asarray(waves.instance)].astype(np.float32))
    whole = drawn(snapshots, "base_colour", alone, camera, rows)
    return grid([("rgb", look[None]), ("by wave", slots[None]), ("by instance", whole[None])], 3)[0]


def thrown(ticks: int = 5) -> Waves:
    """A spinning bar in free flight, [K 1 ...] at 8 Hz."""
    bar = waves_of({**WAVE, "scale": (0.05, 0.05, 0.15), "exponents": (0.3, 0.3)})
    time = np.arange(ticks) / TICK_HZ
    states = []
    for t in time:
        speed = np.array([3.2, 0.0, 2.2 - 9.81 * t], np.float32)
        centre = np.array([-0.85 + 3.2 * t, 0.0, 0.55 + 2.2 * t - 0.5 * 9.81 * t * t], np.float32)
        states.append(
            dataclasses.replace(bar, centre=centre[None], velocity=speed[None], rotation=turn("y", math.degrees(5.0 * t))[None])
        )
    return jax.tree.map(lambda *x: np.stack(x), *states)


def ticks(snapshots: Snapshots, rows: int) -> np.ndarray:
    """The bar at its ticks, orange, and in the middle between them, blue: interpolated."""
    core = thrown()
    count = len(core.presence)
    time = np.arange(2 * count - 1) / (2 * TICK_HZ)
    states = interpolate(core, np.arange(count) / TICK_HZ, time)
    colour = np.where(np.arange(2 * count - 1)[:, None] % 2, COLOURS["blue"], COLOURS["orange"]).astype(np.float32)
    shown = jax.tree.map(lambda x: np.asarray(x)[:, 0], states)
    shown = dataclasses.replace(shown, colour=colour)
    floor = waves_of(FLOOR)
    both = jax.tree.map(lambda a, b: np.concatenate([a, b]), floor, shown)
    camera = camera_at((-0.1, -3.4, 1.0), (-0.05, 0.0, 0.5), 33)
    found = snapshots.picture("rgb", both, camera, 2 * rows, 8 * rows // 3)
    return found[rows // 2 : 3 * rows // 2]


def channels(snapshots: Snapshots, rows: int) -> np.ndarray:
    """Every channel of one snapshot."""
    rolling = {"velocity": (1.5, 0.0, 0.0), "angular_velocity": (0.0, 5.0, 0.0)}
    ball = {**WAVE, "scale": (0.3, 0.3, 0.3), "centre": (-0.6, -0.3, 0.3), "semantic": 3, "instance": 1, **rolling}
    box = {**WAVE, "scale": (0.35, 0.25, 0.4), "centre": (0.35, 0.3, 0.4), "exponents": (0.1, 0.1), "semantic": 4}
    box |= {"colour": COLOURS["blue"], "instance": 2, "rotation": turn("z", 25)}
    can = {**WAVE, "scale": (0.2, 0.2, 0.3), "centre": (0.5, -0.6, 0.3), "exponents": (0.15, 1.0), "semantic": 5}
    can |= {"colour": COLOURS["green"], "instance": 3}
    waves, camera = waves_of(FLOOR, ball, box, can), camera_at((0.6, -3.0, 1.5), (0.0, 0.0, 0.3), 36)
    shown = [(name.replace("_", " "), drawn(snapshots, name, waves, camera, rows)) for name in CHANNELS]
    return grid([(name, values[None]) for name, values in shown], 4)[0]


def main(folder: Path, rows: int) -> None:
    """Writes all pictures into a folder."""
    snapshots = Snapshots(SLOTS)
    pictures = {
        "exponents": exponents(snapshots, rows),
        "coverage": coverage(rows),
        "sets": sets(snapshots, rows),
        "ticks": ticks(snapshots, rows),
        "channels": channels(snapshots, rows),
    }
    for name, values in pictures.items():
        Image.fromarray(values).save(folder / f"wave_{name}.png", optimize=True)
    measures().savefig(folder / "wave_measures.png", metadata={"Software": None})
    for path in sorted(folder.glob("wave_*.png")):
        print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    arguments = sys.argv[1:]
    main(Path(arguments[0]) if arguments else Path(__file__).parent, int(arguments[1]) if arguments[1:] else ROWS)
