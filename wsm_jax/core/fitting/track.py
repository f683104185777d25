"""Waves over time: the same slots from frame to frame, warm-started, rigid, and given up only where nothing is seen of them.

At each frame every wave is first moved on by its last displacement (constant velocity). Points go to the nearest wave within a
gate; a wave with enough points is fitted to them in centre and rotation alone, from there, with its prediction as a prior, for
its shape is known: so a slot keeps its object. A wave with too few points keeps its prediction, its presence falls by half a
frame, and it returns to 1 when it is seen again.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from wsm_jax.core.fitting.observations import Cloud, checked_points, float32
from wsm_jax.core.fitting.robust import fit_robust, padded
from wsm_jax.core.fitting.sets import distances
from wsm_jax.core.geometry import Geometry
from wsm_jax.core.project import motion_from_poses
from wsm_jax.snapshot import FIELDS, Waves
from wsm_jax.typing import Float, NpOrJax

LEAST_POINTS = 12
"""Points without which a wave is not seen."""

_POINTS = 256


@partial(jax.jit, static_argnames="iterations")
def _follow(points: NpOrJax, weights: NpOrJax, waves: Geometry, noise: NpOrJax, prior: dict, iterations: int = 12) -> Geometry:
    """Each wave moved rigidly onto its points."""

    def one(points: jax.Array, weights: jax.Array, wave: Geometry, centre: jax.Array) -> Geometry:
        held = {"centre": centre, "rotation": prior["rotation"]}
        options = {"noise": noise, "volume": 1.0, "prior": held, "free": ("centre", "rotation"), "iterations": iterations}
        return fit_robust(points, weights, wave, **options).geometry

    return jax.vmap(one)(*jax.tree.map(jnp.asarray, (points, weights, waves, prior["centre"])))


def track(
    first: Waves,
    clouds: Sequence[Cloud],
    rate: float,
    *,
    noise: float = 0.005,
    reach: float = 0.1,
    turn: float = 0.5,
    still: Sequence[int] = (),
) -> Waves:
    """The waves [N] of the first instant followed through clouds at `rate` (Hz): [K N], K = len(clouds), with velocities.

    `reach` (m) and `turn` (rad) are how far a wave may stray from its prediction in one frame: the gate of its points and the
    standard deviation of its prior. The slots in `still` do not move. Raises ValueError for no clouds, what is no cloud, no
    present wave, and waves that are none.
    """
    given = {"rate": rate, "reach": reach, "noise": noise, "turn": turn}
    if not clouds or first.presence.ndim != 1 or not all(0 < value < np.inf for value in given.values()):
        got = f"{first.presence.ndim} axes of waves, {len(clouds)} clouds, {given}"
        raise ValueError(f"track: {got}; needed waves [N], and all others above 0, finite")
    if not np.any(np.asarray(first.presence) > 0.5) or not all(np.isfinite(x).all() for x in vars(first).values()):
        raise ValueError("track: waves of which none is present, or that are not finite; needed those of the first instant")
    outside = [slot for slot in still if not 0 <= slot < first.count]
    if outside:
        raise ValueError(f"track: still={outside}; the core has slots 0 to {first.count - 1}")
    now = jax.tree.map(np.asarray, Geometry.of(first))
    before = now
    presence = np.array(first.presence, np.float32)
    slots = np.flatnonzero(presence > 0.5)
    moving = np.isin(slots, np.asarray(still, int), invert=True)
    states = []
    for number, cloud in enumerate(clouds):
        points = checked_points(cloud.points, f"track: cloud {number}", 1)
        guess = predicted(before, now) if number > 1 else now
        tracked = jax.tree.map(lambda x: x[slots], guess)
        found, seen = _step(points, tracked, moving, noise, reach, turn)
        before, now = now, jax.tree.map(lambda x, y: _put(x, slots, y), guess, found)
        presence = presence.copy()
        presence[slots] = np.where(seen, 1.0, 0.5 * presence[slots])
        states.append((now, presence))
    fields = {name: np.stack([np.asarray(getattr(first, name))] * len(states)) for name in FIELDS}
    for name in ("centre", "rotation"):
        fields[name] = np.stack([getattr(state, name) for state, _ in states])
    fields["presence"] = np.stack([shown for _, shown in states])
    return motion_from_poses(Waves(**fields), rate)


def _put(values: np.ndarray, slots: np.ndarray, new: np.ndarray) -> np.ndarray:
    out = np.array(values, np.float32)
    out[slots] = new
    return out


def predicted(before: Geometry, now: Geometry) -> Geometry:
    """The waves one frame on, with the displacement and the turn of the last frame. NumPy."""
    a, b = (Rotation.from_quat(np.asarray(x.rotation, np.float64), scalar_first=True) for x in (before, now))
    rotation = (b * a.inv() * b).as_quat(scalar_first=True).astype(np.float32)
    return Geometry(2 * np.asarray(now.centre) - np.asarray(before.centre), now.scale, rotation, now.exponents)


def _step(
    points: Float[np.ndarray, "n 3"], waves: Geometry, moving: np.ndarray, noise: float, reach: float, turn: float
) -> tuple[Geometry, np.ndarray]:
    """The waves moved onto the points, and which of them are seen."""
    table = np.abs(distances(waves, points))
    owner = np.where(table.min(0) < reach, np.argmin(table, 0), -1)
    seen = np.bincount(owner[owner >= 0], minlength=len(moving)) >= LEAST_POINTS
    active = np.flatnonzero(seen & moving)
    if not len(active):
        return waves, seen
    full = np.concatenate([active, np.repeat(active[-1:], (1 << (len(active) - 1).bit_length()) - len(active))])
    some = [padded(points[owner == k], np.ones(np.count_nonzero(owner == k)), _POINTS) for k in full]
    inputs = [np.stack([np.pad(x[i], [(0, _POINTS - len(x[i])), *[(0, 0)] * (x[i].ndim - 1)]) for x in some]) for i in (0, 1)]
    prior = {"centre": np.full(len(full), reach, np.float32), "rotation": float32(turn)}
    fitted = _follow(*inputs, jax.tree.map(lambda x: float32(x[full]), waves), float32(noise), prior)
    new = jax.tree.map(lambda old, x: _put(old, active, np.asarray(x)[: len(active)]), waves, fitted)
    return new, seen
