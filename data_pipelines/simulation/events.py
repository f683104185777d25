"""Events measured on a recorded trajectory: falls, bounces, rolls, slides, hits, hides, stops, rests.

The intended stories of a scene are not used. An event is {"kind", "time" (s), "instances"}; the first instance is the one
that acts. Instance 0 as the second is the screen.
"""

import functools

import jax
import numpy as np

from data_pipelines.simulation.physics import STEP_HZ, Trajectory
from data_pipelines.simulation.scene import FIRST_OBJECT, FLOOR, SCREEN
from wsm_jax.core import superquadric
from wsm_jax.core.rotation import matrix64
from wsm_jax.snapshot import Camera, project
from wsm_jax.typing import Array, Bool, Float, NpOrJax

EVENT_KINDS = (
    *("falls", "bounces", "rolls", "slides", "hits", "lands on", "hits screen"),
    *("passes behind", "goes behind", "comes out", "is behind", "stops", "rests"),
)

FALL_M = 0.2
"""A fall loses at least this height without touching anything."""
BOUNCE_M = 0.04
"""A bounce rises at least this far after a touch."""
TRAVEL_M = 0.25
"""Rolling and sliding go at least this far."""
HIT_M_S = 0.25
"""A hit closes at least this fast."""
STILL_M_S = 0.06
"""Objects slower than this are at rest."""
HIDDEN = 0.7
"""Share of an object's surface behind the screen from which it counts as hidden."""

_SMOOTH = round(0.03 * STEP_HZ)
_project = jax.jit(project)


@functools.partial(jax.jit, static_argnums=2)
def _surface_points(scale: Array, exponents: Array, count: int) -> Array:
    return superquadric.surface_point(superquadric.sphere_directions(count), scale, exponents)


def measure(trajectory: Trajectory, camera: Camera, frame_time: Float[np.ndarray, " T"]) -> tuple[dict, ...]:
    """Every event of the trajectory in order of time; hiding is as the `camera` [T] sees it at `frame_time` (s)."""
    slots = [int(i) for i in np.flatnonzero(np.asarray(trajectory.waves.presence) > 0.5) if i >= FIRST_OBJECT]
    events: list[tuple[float, int, str, int | None]] = []
    for slot in slots:
        events += [(time, slot, kind, None) for kind, time in _alone(trajectory, slot)]
        events += [(time, slot, kind, SCREEN) for kind, time in _hiding(trajectory, slot, camera, frame_time)]
        events += _hits(trajectory, slot, [other for other in slots if other != slot])
    instance = trajectory.waves.instance
    return tuple(
        {"kind": kind, "time": round(time, 4), "instances": [int(instance[i]) for i in (slot, other) if i is not None]}
        for time, slot, kind, other in sorted(events, key=lambda e: (e[0], e[1], e[2]))
    )


def _spans(mask: Bool[np.ndarray, " S"], shortest: int = 1) -> list[tuple[int, int]]:
    """Half-open [begin, end) runs of True that are at least `shortest` long."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= shortest]


def _alone(trajectory: Trajectory, slot: int) -> list[tuple[str, float]]:
    """Events of one object without another: (kind, time)."""
    height = trajectory.centre[:, slot, 2]
    touching = np.any(trajectory.touching[:, slot], 1)
    found: list[tuple[str, float]] = []
    for begin, end in _spans(np.logical_not(touching), shortest=round(0.06 * STEP_HZ)):
        rise = height[begin:end].max() - height[begin]
        if height[begin] + rise - height[end - 1] > FALL_M and rise < BOUNCE_M:
            found.append(("falls", begin / STEP_HZ))
        elif rise > BOUNCE_M and begin > 0:
            found.append(("bounces", begin / STEP_HZ))
    found += _travel(trajectory, slot)
    return found + _stillness(trajectory, slot)


def _travel(trajectory: Trajectory, slot: int) -> list[tuple[str, float]]:
    """Rolling and sliding: metres travelled on the floor with the lowest point at rest, or dragged along."""
    velocity = trajectory.velocity[:, slot].copy()
    velocity[:, 2] = 0.0
    speed = np.linalg.norm(velocity, axis=1)
    arm = np.zeros_like(velocity)
    arm[:, 2] = -trajectory.centre[:, slot, 2]
    drag = velocity + np.cross(trajectory.angular_velocity[:, slot], arm)
    slip = np.linalg.norm(drag[:, :2], axis=1) / np.maximum(speed, 1e-6)
    on_floor = np.convolve(trajectory.touching[:, slot, FLOOR], np.ones(2 * _SMOOTH + 1), mode="same") > 0
    found = []
    for kind, mask in (("rolls", slip < 0.35), ("slides", slip > 0.6)):
        step = np.where(on_floor & mask & (speed > STILL_M_S), speed, 0.0) / STEP_HZ
        if step.sum() > TRAVEL_M:
            # begins after a tenth of the shortest travel
            found.append((kind, float(np.argmax(np.cumsum(step) > 0.1 * TRAVEL_M)) / STEP_HZ))
    return found


def _stillness(trajectory: Trajectory, slot: int) -> list[tuple[str, float]]:
    """The events "rests" and "stops"."""
    reach = float(np.max(trajectory.waves.scale[slot]))
    pace = np.linalg.norm(trajectory.velocity[:, slot], axis=1)
    pace = pace + reach * np.linalg.norm(trajectory.angular_velocity[:, slot], axis=1)
    moved = np.linalg.norm(trajectory.centre[:, slot] - trajectory.centre[0, slot], axis=1).max()
    if moved < 0.04 and pace.max() < 4 * STILL_M_S:
        return [("rests", 0.0)]
    moving = np.flatnonzero(pace > STILL_M_S)
    if len(moving) and moving[-1] < len(pace) - round(0.25 * STEP_HZ):
        return [("stops", float(moving[-1] + 1) / STEP_HZ)]
    return []


def _hits(trajectory: Trajectory, slot: int, others: list[int]) -> list[tuple[float, int, str, int | None]]:
    """Contacts in which this object was the faster one just before: at most one with each partner in 0.5 s."""
    found: list[tuple[float, int, str, int | None]] = []
    partners = [*others, SCREEN] if trajectory.waves.presence[SCREEN] > 0.5 else others
    for other in partners:
        last = -STEP_HZ
        for begin, _ in _spans(trajectory.touching[:, slot, other]):
            before = max(begin - 4, 0)
            mine, theirs = trajectory.velocity[before, slot], trajectory.velocity[before, other]
            apart = trajectory.centre[begin, other] - trajectory.centre[begin, slot]
            closing = float((mine - theirs) @ apart) / max(float(np.linalg.norm(apart)), 1e-6)
            faster = np.linalg.norm(mine) > np.linalg.norm(theirs) or (
                np.linalg.norm(mine) == np.linalg.norm(theirs) and slot < other
            )
            if begin - last < 0.5 * STEP_HZ or closing < HIT_M_S or not faster:
                continue
            last = begin
            above = -apart[2] > 0.6 * np.linalg.norm(apart) and mine[2] < -HIT_M_S
            kind = "hits screen" if other == SCREEN else "lands on" if above else "hits"
            found.append((begin / STEP_HZ, slot, kind, other))
    return found


def _hiding(trajectory: Trajectory, slot: int, camera: Camera, frame_time: np.ndarray) -> list[tuple[str, float]]:
    """Events of an object and the screen that hides it, over the frames in which its centre is in the picture."""
    if trajectory.waves.presence[SCREEN] < 0.5:
        return []
    covered = hidden_share(trajectory, slot, camera, frame_time) > HIDDEN
    seen = in_view(trajectory.at(frame_time).centre[:, slot], camera)
    covered, time = covered[seen], np.asarray(frame_time)[seen]
    if not covered.any():
        return []
    if covered.all():
        return [("is behind", float(time[0]))]
    first, last = int(np.argmax(covered)), len(covered) - 1 - int(np.argmax(covered[::-1]))
    if first == 0:
        return [("comes out", float(time[int(np.argmin(covered))]))]
    return [("goes behind" if last == len(covered) - 1 else "passes behind", float(time[first]))]


def in_view(points: Float[NpOrJax, "T 3"], camera: Camera, margin: float = 0.0) -> Bool[np.ndarray, " T"]:
    """True for points in the (square) picture of their camera [T], at least `margin` image heights from the border."""
    canvas, depth = _project(camera, points[:, None])
    inside = np.all((np.asarray(canvas) > margin) & (np.asarray(canvas) < 1.0 - margin), -1) & (np.asarray(depth) > 0.1)
    return inside[:, 0]


def hidden_share(
    trajectory: Trajectory, slot: int, camera: Camera, frame_time: Float[np.ndarray, " T"]
) -> Float[np.ndarray, " T"]:
    """Share of points on the object's surface hidden by the screen, 0..1 (slab test of the screen's box)."""
    state = trajectory.at(frame_time)
    scale, exponents = state.scale[0, slot], state.exponents[0, slot]
    local = np.asarray(_surface_points(scale, exponents, 40))
    points = state.centre[:, slot, None] + np.einsum("tij,pj->tpi", matrix64(state.rotation[:, slot]), local)
    turn = matrix64(state.rotation[0, SCREEN])
    half = state.scale[0, SCREEN]
    begin = (np.asarray(camera.position)[:, None] - state.centre[0, SCREEN]) @ turn
    way = (points - state.centre[0, SCREEN]) @ turn - begin
    way = np.where(np.abs(way) < 1e-9, 1e-9, way)
    a, b = (-half - begin) / way, (half - begin) / way
    enter, leave = np.minimum(a, b).max(-1), np.maximum(a, b).min(-1)
    return np.mean((enter < leave) & (enter < 1.0) & (leave > 0.0), -1)
