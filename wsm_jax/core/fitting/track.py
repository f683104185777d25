"""Tracking of waves over time: rigid motion, warm starts, and one slot per object.

Each frame starts from a constant-velocity prediction of every wave. Points are assigned to the nearest wave within a gate. A
wave with enough points is fitted to them in centre and rotation only (its shape is known), from the prediction and with it as
a prior. If the prediction or the last pose explains the points and the free rays as well, it is kept instead, so that objects
at rest stay at rest. A wave with too few points keeps its prediction, and its presence halves every frame until it is seen
again. A labelled wave takes only points of its label. Points that no wave explains are fitted as new objects in new slots.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from wsm_jax.core.fitting.observations import Cloud, checked_points, float32
from wsm_jax.core.fitting.partition import MIN_POINTS as MIN_POINTS_OF_OBJECT
from wsm_jax.core.fitting.partition import distances
from wsm_jax.core.fitting.robust import fit_robust, padded
from wsm_jax.core.fitting.sets import SetFit, split_objects, to_waves
from wsm_jax.core.fitting.sight import blocked_length, lines_of_sight
from wsm_jax.core.geometry import Geometry
from wsm_jax.core.project import motion_from_poses
from wsm_jax.snapshot import FIELDS, Waves
from wsm_jax.typing import Float, Int, NpOrJax

MIN_POINTS = 12
"""Minimum number of points of a visible wave."""

_POINTS, _RAYS, _PARAMETERS = 256, 8192, 6


@jax.jit
def _fit_rigid(points: NpOrJax, weights: NpOrJax, waves: Geometry, noise: NpOrJax, prior: dict) -> Geometry:
    """Rigid fit of each wave to its points."""

    def one(points: jax.Array, weights: jax.Array, wave: Geometry, centre: jax.Array) -> Geometry:
        held = {"centre": centre, "rotation": prior["rotation"]}
        options = {"noise": noise, "volume": 1.0, "prior": held, "free": ("centre", "rotation"), "iterations": 12}
        return fit_robust(points, weights, wave, **options).geometry

    return jax.vmap(one)(*jax.tree.map(jnp.asarray, (points, weights, waves, prior["centre"])))


def track(
    first: Waves,
    clouds: Sequence[Cloud],
    rate: float,
    *,
    noise: float = 0.005,
    reach: float = 0.1,
    angle: float = 0.5,
    static: Sequence[int] = (),
    fit_new: Callable[[Cloud], SetFit] | None = None,
) -> Waves:
    """Track the waves [N] of the first instant through clouds at `rate` (Hz): [K N'], K = len(clouds), with velocities.

    `reach` (m) and `angle` (rad) bound the deviation of a wave from its prediction in one frame: the gate of its points and the
    standard deviations of its prior. The slots in `static` do not move. `fit_new` (such as `fit_set` with its options) fits
    objects that appear after the first cloud, to the points out of reach of all waves; their waves get the slots from N on,
    absent before, and new scenery is static. Without it N' = N. A label means the same object in all clouds. Raises ValueError
    for no clouds, bad points, options out of range, an unknown slot, and waves that are absent or not finite.
    """
    options = {"rate": rate, "reach": reach, "noise": noise, "angle": angle}
    if not clouds or first.presence.ndim != 1 or not all(0 < value < np.inf for value in options.values()):
        got = f"{first.presence.ndim} axes of waves, {len(clouds)} clouds, {options}"
        raise ValueError(f"track: {got}; needed waves [N], one cloud or more, and options above 0, finite")
    if not np.any(np.asarray(first.presence) > 0.5) or not all(np.isfinite(x).all() for x in vars(first).values()):
        raise ValueError("track: no present wave, or waves that are not finite; needed the waves of the first instant")
    outside = [slot for slot in static if not 0 <= slot < first.count]
    if outside:
        raise ValueError(f"track: static={outside}; the core has slots 0 to {first.count - 1}")
    core = Waves(**{name: np.array(getattr(first, name)) for name in FIELDS})
    now = before = Geometry.of(core)
    presence = np.asarray(core.presence, np.float32)
    slots, fixed = np.flatnonzero(presence > 0.5), np.isin(np.arange(core.count), np.asarray(static, int))
    labels = np.zeros(core.count, int)
    states: list[tuple[Geometry, np.ndarray]] = []
    for number, cloud in enumerate(clouds):
        points = checked_points(cloud.points, f"track: cloud {number}", 1)
        guess = predicted(before, now) if number > 1 else now
        tracked = jax.tree.map(lambda x, slots=slots: x[slots], guess)
        owner = _owners(points, np.asarray(cloud.label), tracked, labels[slots], reach)
        labels[slots] = _labels(owner, np.asarray(cloud.label), labels[slots])
        last = jax.tree.map(lambda x, slots=slots: x[slots], now)
        fitted, seen = _fit_visible(points, owner, tracked, ~fixed[slots], noise, reach, angle)
        chosen = _best(points, cloud.viewpoint, owner, [fitted, tracked, last], ~fixed[slots], noise)
        before, now = now, jax.tree.map(lambda x, y, slots=slots: _with_rows(x, slots, y), guess, chosen)
        presence = presence.copy()
        presence[slots] = np.where(seen, 1.0, 0.5 * presence[slots])
        states.append((now, presence))
        if fit_new is None or number == 0:
            continue
        unexplained = _owners(points, np.asarray(cloud.label), chosen, labels[slots], reach) < 0
        new = _fit_new(cloud.take(unexplained), fit_new)
        if new is not None:
            new = new.replace(instance=np.where(new.instance > 0, new.instance + np.max(core.instance), 0))  # type: ignore[attr-defined]
            slots = np.concatenate([slots, core.count + np.arange(new.count)])
            core = _concatenated(core, new)
            before, now = (_concatenated(x, Geometry.of(new)) for x in (before, now))
            presence, fixed = np.concatenate([presence, new.presence]), np.concatenate([fixed, new.instance == 0])
            labels = np.concatenate([labels, np.zeros(new.count, int)])
            states[-1] = now, presence
    return motion_from_poses(_stacked(core, states), rate)


def _concatenated(some: Any, more: Any) -> Any:
    """Waves or geometry with the slots of both arguments."""
    return jax.tree.map(lambda x, y: np.concatenate([x, y]).astype(x.dtype), some, more)


def _fit_new(rest: Cloud, fit: Callable[[Cloud], SetFit]) -> Waves | None:
    """Waves of new objects, fitted to the unexplained points; None if these form no object."""
    points, label = np.asarray(rest.points), np.asarray(rest.label)
    if len(points) < MIN_POINTS_OF_OBJECT or not split_objects(points, label, np.arange(len(points))):
        return None
    return to_waves(fit(rest), rest)


def _stacked(core: Waves, states: list[tuple[Geometry, np.ndarray]]) -> Waves:
    """The waves [K N] of states with a growing number of slots; earlier poses of a new wave are extrapolated backwards."""
    fields = {name: np.stack([np.asarray(getattr(core, name))] * len(states)) for name in FIELDS}
    fields["presence"] = np.stack([np.pad(shown, (0, core.count - len(shown))) for _, shown in states])
    for k, (state, _) in enumerate(states):
        for name in ("centre", "rotation"):
            fields[name][k, : len(state.scale)] = getattr(state, name)
    for k in range(len(states) - 1, 0, -1):
        count_before, count = len(states[k - 1][1]), len(states[k][1])
        if count_before < count:
            after = states[min(k + 1, len(states) - 1)][0]
            new = slice(count_before, count)
            guess = predicted(*(jax.tree.map(lambda x, new=new: x[new], state) for state in (after, states[k][0])))
            fields["centre"][:k, new], fields["rotation"][:k, new] = guess.centre, guess.rotation
    return Waves(**fields)


def _best(
    points: np.ndarray,
    viewpoint: np.ndarray | None,
    owner: np.ndarray,
    candidates: list[Geometry],
    moving: np.ndarray,
    noise: float,
) -> Geometry:
    """For each wave, the candidate pose that best explains its points and the free rays.

    The first candidate is the fitted one: it must be better by the cost of its parameters (Schwarz 1978), so that waves at rest
    stay at rest. If a plate slips within its own plane, only the rays beside its outline show it.
    """
    chosen = np.zeros(len(candidates[0].scale), int)
    for k in np.flatnonzero(moving):
        mine = points[owner == k]
        if len(mine) < MIN_POINTS:
            continue
        waves = jax.tree.map(lambda *x, k=k: np.stack([y[k] for y in x]), *candidates)
        cost = np.sum(np.square(distances(waves, mine)), 1)
        if viewpoint is not None:
            margin = 5 * noise + 0.02 * float(np.ptp(mine, axis=0).max())
            sight = lines_of_sight(points, viewpoint, mine, margin, _RAYS)
            cost = cost + np.sum(np.square(blocked_length(waves, sight)), 1)
        cost[0] += _PARAMETERS * np.log(len(mine)) * noise**2
        chosen[k] = np.argmin(cost)
    return jax.tree.map(lambda *x: np.stack(x)[chosen, np.arange(len(chosen))], *candidates)


def _with_rows(values: np.ndarray, slots: np.ndarray, new: np.ndarray) -> np.ndarray:
    out = np.array(values, np.float32)
    out[slots] = new
    return out


def predicted(before: Geometry, now: Geometry) -> Geometry:
    """The waves one frame later, by the displacement and rotation of the last frame. NumPy."""
    a, b = (Rotation.from_quat(np.asarray(x.rotation, np.float64), scalar_first=True) for x in (before, now))
    rotation = (b * a.inv() * b).as_quat(scalar_first=True).astype(np.float32)
    return Geometry(2 * np.asarray(now.centre) - np.asarray(before.centre), now.scale, rotation, now.exponents)


def _owners(
    points: Float[np.ndarray, "n 3"], label: np.ndarray, waves: Geometry, labels: np.ndarray, reach: float
) -> Int[np.ndarray, " n"]:
    """The nearest wave of each point, -1 if none is in reach; of the same label if both have one (0: none)."""
    table = np.abs(distances(waves, points))
    table = np.where((labels[:, None] > 0) & (label > 0) & (labels[:, None] != label), np.inf, table)
    return np.where(table.min(0) < reach, np.argmin(table, 0), -1)


def _labels(owner: np.ndarray, label: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Labels of the waves; an unlabelled wave takes the most frequent label of its points, which may be 0 (none)."""
    labels = known.copy()
    for k in np.flatnonzero(known == 0):
        counts = np.bincount(label[owner == k])
        labels[k] = np.argmax(counts) if len(counts) else 0
    return labels


def _fit_visible(
    points: Float[np.ndarray, "n 3"],
    owner: Int[np.ndarray, " n"],
    waves: Geometry,
    moving: np.ndarray,
    noise: float,
    reach: float,
    angle: float,
) -> tuple[Geometry, np.ndarray]:
    """The visible waves fitted to their points, and a mask of the visible waves."""
    seen = np.bincount(owner[owner >= 0], minlength=len(moving)) >= MIN_POINTS
    active = np.flatnonzero(seen & moving)
    if not len(active):
        return waves, seen
    full = np.concatenate([active, np.repeat(active[-1:], (1 << (len(active) - 1).bit_length()) - len(active))])
    some = [padded(points[owner == k], np.ones(np.count_nonzero(owner == k)), _POINTS) for k in full]
    inputs = [np.stack([np.pad(x[i], [(0, _POINTS - len(x[i])), *[(0, 0)] * (x[i].ndim - 1)]) for x in some]) for i in (0, 1)]
    prior = {"centre": np.full(len(full), reach, np.float32), "rotation": float32(angle)}
    fitted = _fit_rigid(*inputs, jax.tree.map(lambda x: float32(x[full]), waves), float32(noise), prior)
    new = jax.tree.map(lambda old, x: _with_rows(old, active, np.asarray(x)[: len(active)]), waves, fitted)
    return new, seen
