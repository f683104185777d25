"""Benchmark of the rigid physics: errors against closed forms and MuJoCo, drifts, speed, and a soak test of random scenes."""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from absl import flags
from scipy.integrate import solve_ivp
from tqdm import tqdm

from launch import command
from launch.bench.render import machine
from wsm_jax.core.geometry import Geometry, inertia
from wsm_jax.core.physics import mjcf
from wsm_jax.core.physics.dynamics import step
from wsm_jax.core.physics.matter import Joints, Matter, joint, matter, side_by_side
from wsm_jax.snapshot import TICK_HZ, Waves
from wsm_jax.snapshot.waves import empty, stack

G = 9.81
SLOTS = 4
_FLOOR_M, _FASTEST_M_S = 50.0, 30.0


class Case(NamedTuple):
    """A world, and the closed form of the positions [n 3] of its waves at a time (s), if there is one."""

    waves: Waves
    matter: Matter
    seconds: float
    exact: Callable[[float], np.ndarray] | None
    joints: Joints | None = None
    gravity: tuple[float, float, float] = (0.0, 0.0, -G)
    elastic: bool = False


def world(*objects: dict, floor: float = 6.0) -> Waves:
    """Objects (fields of Waves) in the slots from 1; slot 0 is a floor at z = 0 of half-width `floor` (m), if not 0."""
    waves = empty(SLOTS)
    if floor:
        waves.presence[0], waves.scale[0], waves.exponents[0], waves.semantic[0] = 1.0, (floor, floor, 0.25), 0.1, 1
        waves.centre[0] = (0, 0, -0.25)
    for slot, fields in enumerate(objects, 1):
        waves.presence[slot], waves.instance[slot], waves.semantic[slot] = 1.0, slot + 1, 7
        for name, value in fields.items():
            getattr(waves, name)[slot] = value
    return waves


def bounce(t: float, height: float = 1.0, e: float = 0.7) -> float:
    """Height above the floor of a ball dropped from `height`."""
    fall = np.sqrt(2 * height / G)
    if t < fall:
        return height - 0.5 * G * t * t
    t, v = t - fall, e * np.sqrt(2 * G * height)
    while t > 2 * v / G:
        t, v = t - 2 * v / G, e * v
    return v * t - 0.5 * G * t * t


def cases() -> dict[str, Case]:
    """The seven test motions."""
    flight = world({"centre": (0, 0, 20), "scale": (0.1, 0.2, 0.35), "velocity": (1, 0, 3), "angular_velocity": (3, 5, 0.2)})
    ball = {"centre": (0, 0, 1.2), "scale": 0.2}
    slide = world({"centre": (0, 0, 0.1), "scale": (0.2, 0.2, 0.1), "exponents": 0.1, "velocity": (2, 0, 0)})
    roll = world({"centre": (0, 0, 0.2), "scale": 0.2, "velocity": (1, 0, 0)})
    pile = world(*({"centre": (0.05 * (k == 1), 0, 0.2 + 0.4 * k), "scale": 0.2, "exponents": 0.1} for k in range(3)))
    swing = world({"centre": (0.6, 0, 2), "scale": 0.1}, {"centre": (0, 0, 2), "scale": 0.02}, floor=0.0)
    swing.instance[2] = 0
    meet = world(
        {"centre": (-0.5, 0, 0), "scale": 0.2, "velocity": (2, 0, 0)}, {"centre": (0.3, 0.1, 0), "scale": 0.25}, floor=0.0
    )
    stop = 2.0 / (0.4 * G)
    still = (1 - 5 / 7) / (0.4 * G)
    swinging = solve_ivp(
        lambda t, y: [y[1], -G * 0.6 / (0.4 * 0.1**2 + 0.6**2) * np.sin(y[0])], (0, 4), [np.pi / 2, 0], "DOP853",
        dense_output=True, rtol=1e-11,
    ).sol  # fmt: skip
    return {
        "flight": Case(flight, matter(flight), 2, lambda t: np.array([[t, 0, 20 + 3 * t - 0.5 * G * t * t]]), elastic=True),
        "bounce": Case(world(ball), matter(world(ball), restitution=0.7), 2, lambda t: np.array([[0, 0, 0.2 + bounce(t)]])),
        "slide": Case(
            slide, matter(slide, friction=0.4, restitution=0.0), 1,
            lambda t: np.array([[2 * min(t, stop) - 0.2 * G * min(t, stop) ** 2, 0, 0.1]]),
        ),
        "roll": Case(
            roll, matter(roll, friction=0.4, restitution=0.0), 2,
            lambda t: np.array([[min(t, still) - 0.2 * G * min(t, still) ** 2 + 5 / 7 * max(t - still, 0), 0, 0.2]]),
        ),
        "stack of three": Case(pile, matter(pile, restitution=0.2), 4, lambda t: np.asarray(pile.centre[1:4], np.float64)),
        "pendulum": Case(
            swing, matter(swing), 4,
            lambda t: np.array([[0.6 * np.sin(swinging(t)[0]), 0, 2 - 0.6 * np.cos(swinging(t)[0])]]),
            joint(swing, "hinge", 2, 1, (0, 0, 2), (0, 1, 0)), elastic=True,
        ),
        "collision": Case(
            meet, matter(meet, restitution=1.0, friction=0.0), 1, _collision(meet), gravity=(0.0, 0.0, 0.0), elastic=True
        ),
    }  # fmt: skip


def _collision(meet: Waves) -> Callable[[float], np.ndarray]:
    """Two smooth elastic balls: straight motion before and after the collision."""
    x, v = np.asarray(meet.centre[1:3], np.float64), np.asarray(meet.velocity[1:3], np.float64)
    m = np.asarray(meet.scale[1:3, 0], np.float64) ** 3
    touch = float(meet.scale[1, 0] + meet.scale[2, 0])
    when = (x[1, 0] - x[0, 0] - np.sqrt(touch**2 - (x[1, 1] - x[0, 1]) ** 2)) / v[0, 0]
    n = (x[1] - x[0] - when * v[0]) / touch
    push = 2 * n @ (v[0] - v[1]) / (1 / m[0] + 1 / m[1])
    later = v + push * np.outer([-1 / m[0], 1 / m[1]], n)
    return lambda t: x + v * min(t, when) + later * max(t - when, 0.0)


def rolled_out(case: Case) -> Waves:
    """The core [K+1 N] computed by our step."""
    core = [case.waves]
    for _ in range(round(case.seconds * TICK_HZ)):
        core.append(step(core[-1], case.matter, case.joints, gravity=case.gravity))
    return stack(core)


def drifts(case: Case, core: Waves) -> tuple[float, float, float]:
    """Largest relative change of energy, momentum and angular momentum about the centre of mass; nan if not conserved.

    Momentum is corrected for gravity and needs a world without joints; energy needs a lossless one.
    """
    free = (np.asarray(core.presence[0]) > 0.5) & ~np.asarray(case.matter.held)
    m = np.asarray(case.matter.mass, np.float64)[free]
    x, v, w = (np.asarray(a, np.float64)[:, free] for a in (core.centre, core.velocity, core.angular_velocity))
    tensors = np.stack(
        [np.asarray(inertia(Geometry.of(c), case.matter.mass), np.float64)[free] for c in map(core.__getitem__, range(len(x)))]
    )
    spin = np.einsum("knij,knj->kni", tensors, w)
    linear = m[:, None] * v
    energy = 0.5 * np.sum(linear * v, (1, 2)) + 0.5 * np.sum(spin * w, (1, 2)) - np.einsum("n,kni,i->k", m, x, case.gravity)
    middle = np.einsum("n,kni->ki", m, x) / m.sum()
    total = linear.sum(1)
    t = np.arange(len(x))[:, None] / TICK_HZ
    momentum = total - m.sum() * t * np.asarray(case.gravity)
    angular = (np.cross(x - middle[:, None], linear) + spin).sum(1)
    kinetic = np.ptp(0.5 * np.sum(linear * v, (1, 2))) + 0.5 * np.sum(linear[0] * v[0]) + 1e-12
    isolated = case.joints is None and case.elastic
    return (
        float(np.ptp(energy) / kinetic) if case.elastic else float("nan"),
        float(np.abs(momentum - momentum[0]).max() / np.abs(linear).max()) if isolated else float("nan"),
        float(np.abs(angular - angular[0]).max() / max(np.abs(angular).max(), 1e-12)) if isolated else float("nan"),
    )


def compare(substeps: int) -> None:
    """Print the table of errors."""
    print(f"Largest distance from the closed form at any tick, per second, mm/s; MuJoCo with {substeps} steps per tick.\n")
    head = ("motion", "s", "ours", "MuJoCo", "ours - MuJoCo", "energy drift", "momentum drift", "angular momentum drift")
    print("| " + " | ".join(head) + " |\n|---|" + "---:|" * (len(head) - 1))
    for name, case in cases().items():
        ours = rolled_out(case)
        theirs = mjcf.simulate(
            case.waves, case.matter, case.joints, ticks=len(ours.presence) - 1, substeps=substeps, gravity=case.gravity
        )
        times = np.arange(len(ours.presence)) / TICK_HZ
        assert case.exact is not None
        exact = np.stack([case.exact(t) for t in times])
        places = [np.asarray(core.centre, np.float64)[:, 1 : 1 + exact.shape[1]] for core in (ours, theirs)]
        gaps = (places[0] - exact, places[1] - exact, places[0] - places[1])
        numbers = [f"{1e3 * np.linalg.norm(gap, axis=-1).max() / case.seconds:.3g}" for gap in gaps]
        numbers += ["-" if np.isnan(x) else f"{x:.1e}" for x in drifts(case, ours)]
        print("| " + " | ".join([name, f"{case.seconds:g}", *numbers]) + " |", flush=True)


def random_world(rng: np.random.Generator) -> Waves:
    """One to three random waves over a floor, some overlapping."""
    shapes = []
    for _ in range(rng.integers(1, SLOTS)):
        turn = rng.normal(size=4)
        shapes.append(
            {
                "centre": (*rng.uniform(-0.4, 0.4, 2), rng.uniform(0.3, 1.5)),
                "scale": rng.uniform(0.05, 0.3, 3),
                "exponents": rng.uniform(0.1, 1.9, 2),
                "rotation": turn / np.linalg.norm(turn),
                "velocity": 2 * rng.normal(size=3),
                "angular_velocity": 5 * rng.normal(size=3),
            }
        )
    return world(*shapes, floor=_FLOOR_M)


def soak(scenes: int, seconds: float, batch: int, seed: int) -> int:
    """Simulate random scenes; print and return how many leave their bounds, become NaN or exceed the speed limit."""
    bad, fastest, begin = 0, 0.0, time.perf_counter()
    bar = tqdm(total=scenes, desc="soak", unit="scene")
    for first in range(0, scenes, batch):
        rng = np.random.default_rng([seed, first])
        waves, properties = side_by_side([_piled(rng) for _ in range(batch)])
        wrong = np.zeros(batch, bool)
        for _ in range(round(seconds * TICK_HZ)):
            waves = step(waves, properties, worlds=batch)
            fields = {name: np.asarray(getattr(waves, name)) for name in ("presence", "centre", "velocity", "rotation")}
            presence, centre, velocity, rotation = (x.reshape(batch, SLOTS, *x.shape[1:])[:, 1:] for x in fields.values())
            speed = np.linalg.norm(velocity, axis=-1)
            checked = presence > 0.5
            checked &= ~(np.abs(centre[..., :2]) > 0.9 * _FLOOR_M).any(-1)  # waves beyond the edge of the floor fall
            fine = np.isfinite(rotation).all(-1) & (speed < _FASTEST_M_S) & (centre[..., 2] > 0) & (centre[..., 2] < 20)
            wrong |= (checked & ~fine).any(-1)
            fastest = max(fastest, float(np.max(speed, where=checked, initial=0.0)))
        bad += int(wrong[: min(batch, scenes - first)].sum())
        bar.set_postfix(bad=bad)
        bar.update(min(batch, scenes - first))
    bar.close()
    spent = time.perf_counter() - begin
    print(
        f"soak: {scenes} scenes of 1 to 3 waves for {seconds:g} s: {bad} left their bounds or became NaN; maximum speed "
        f"{fastest:.1f} m/s; {spent:.0f} s, {scenes * seconds / spent:.1f} times real time"
    )
    return bad


def _piled(rng: np.random.Generator) -> tuple[Waves, Matter]:
    """A random world and its material properties."""
    pile = random_world(rng)
    friction, restitution, rolling = rng.uniform(0, 1), rng.uniform(0, 0.9), rng.uniform(0, 0.01)
    return pile, matter(pile, friction=friction, restitution=restitution, rolling=rolling)


def main(arguments: list[str]) -> int:
    """Print the tables as Markdown. Raises Usage."""
    values = flags.FlagValues()
    flags.DEFINE_integer("mujoco_steps", 1000, "number of MuJoCo steps per tick", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("scenes", 256, "random scenes of the soak test; 0: none", lower_bound=0, flag_values=values)
    flags.DEFINE_float("seconds", 10.0, "duration of each scene, s", lower_bound=0.125, flag_values=values)
    flags.DEFINE_integer("batch", 128, "scenes simulated together", lower_bound=1, flag_values=values)
    flags.DEFINE_integer("seed", 0, "random seed of the soak test", lower_bound=0, flag_values=values)
    flags.DEFINE_bool("compare", True, "compare the seven test motions with MuJoCo", flag_values=values)
    command.parse("python -m launch.bench physics", values, arguments)
    print(machine() + "\n")
    if values.compare:
        compare(values.mujoco_steps)
    return int(bool(values.scenes and soak(values.scenes, values.seconds, values.batch, values.seed)))
