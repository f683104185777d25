"""Waves over time: the same slots from frame to frame, warm-started, rigid, and given up only where nothing is seen of them.

At each frame every wave is first moved on by its last displacement (constant velocity). Points go to the nearest wave within a
gate; a wave with enough points is fitted to them in centre and rotation alone, from there, with its prediction as a prior, for
its shape is known: so a slot keeps its object. Where its points, and the light that came past it, speak as well for the
prediction or for where it was, it goes there: what rests, rests. A wave with too few points keeps its prediction, its presence
falls by half a frame, and it returns to 1 when it is seen again. Where points have labels, a wave takes none of another label
than its own. What enters later is fitted where no wave explains it, and gets slots of its own.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from wsm_jax.core.fitting.observations import Cloud, checked_points, float32
from wsm_jax.core.fitting.partition import LEAST_POINTS as LEAST_POINTS_OF_ONE
from wsm_jax.core.fitting.partition import distances
from wsm_jax.core.fitting.robust import fit_robust, padded
from wsm_jax.core.fitting.sets import SetFit, objects, to_waves
from wsm_jax.core.fitting.sight import in_the_way, lines_of_sight
from wsm_jax.core.geometry import Geometry
from wsm_jax.core.project import motion_from_poses
from wsm_jax.snapshot import FIELDS, Waves
from wsm_jax.typing import Float, Int, NpOrJax

LEAST_POINTS = 12
"""Points without which a wave is not seen."""

_POINTS, _RAYS, _PARAMETERS = 256, 8192, 6


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
    grow: Callable[[Cloud], SetFit] | None = None,
) -> Waves:
    """The waves [N] of the first instant followed through clouds at `rate` (Hz): [K N'], K = len(clouds), with velocities.

    `reach` (m) and `turn` (rad) are how far a wave may stray from its prediction in one frame: the gate of its points and the
    standard deviation of its prior. The slots in `still` do not move. `grow` fits what enters later (`fit_set`, with what it
    is to be given): from the second cloud on, points that are in reach of no wave, where they make an object. Its waves get
    the slots from N on, absent before; its scenery stands still. Without it N' = N. Labels of the clouds name the same things
    throughout. Raises ValueError for no clouds, what is no cloud, no present wave, and waves that are none.
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
    core = Waves(**{name: np.array(getattr(first, name)) for name in FIELDS})
    now = before = Geometry.of(core)
    presence = np.asarray(core.presence, np.float32)
    slots, fixed = np.flatnonzero(presence > 0.5), np.isin(np.arange(core.count), np.asarray(still, int))
    own = np.zeros(core.count, int)
    states: list[tuple[Geometry, np.ndarray]] = []
    for number, cloud in enumerate(clouds):
        points = checked_points(cloud.points, f"track: cloud {number}", 1)
        guess = predicted(before, now) if number > 1 else now
        tracked = jax.tree.map(lambda x, slots=slots: x[slots], guess)
        owner = _owners(points, np.asarray(cloud.label), tracked, own[slots], reach)
        own[slots] = _labels(owner, np.asarray(cloud.label), own[slots])
        last = jax.tree.map(lambda x, slots=slots: x[slots], now)
        found, seen = _step(points, owner, tracked, ~fixed[slots], noise, reach, turn)
        found = _best(points, cloud.viewpoint, owner, [found, tracked, last], ~fixed[slots], noise)
        before, now = now, jax.tree.map(lambda x, y, slots=slots: _put(x, slots, y), guess, found)
        presence = presence.copy()
        presence[slots] = np.where(seen, 1.0, 0.5 * presence[slots])
        states.append((now, presence))
        if grow is None or number == 0:
            continue
        left = _owners(points, np.asarray(cloud.label), found, own[slots], reach) < 0
        born = _born(cloud.take(left), grow)
        if born is not None:
            later = born.replace(instance=np.where(born.instance > 0, born.instance + np.max(core.instance), 0))  # type: ignore[attr-defined]
            slots = np.concatenate([slots, core.count + np.arange(born.count)])
            core = _beside(core, later)
            before, now = (_beside(x, Geometry.of(born)) for x in (before, now))
            presence, fixed = np.concatenate([presence, born.presence]), np.concatenate([fixed, later.instance == 0])
            own = np.concatenate([own, np.zeros(born.count, int)])
            states[-1] = now, presence
    return motion_from_poses(_recorded(core, states), rate)


def _beside(some: Any, more: Any) -> Any:
    """Waves or their geometry with more slots."""
    return jax.tree.map(lambda x, y: np.concatenate([x, y]).astype(x.dtype), some, more)


def _born(rest: Cloud, grow: Callable[[Cloud], SetFit]) -> Waves | None:
    """The waves of what hangs together among points that no wave explains; None where nothing does."""
    points, label = np.asarray(rest.points), np.asarray(rest.label)
    if len(points) < LEAST_POINTS_OF_ONE or not objects(points, label, np.arange(len(points))):
        return None
    return to_waves(grow(rest), rest)


def _recorded(core: Waves, states: list[tuple[Geometry, np.ndarray]]) -> Waves:
    """The waves [K N] of states with ever more slots; before it is there, a wave waits where its motion comes from."""
    fields = {name: np.stack([np.asarray(getattr(core, name))] * len(states)) for name in FIELDS}
    fields["presence"] = np.stack([np.pad(shown, (0, core.count - len(shown))) for _, shown in states])
    for k, (state, _) in enumerate(states):
        for name in ("centre", "rotation"):
            fields[name][k, : len(state.scale)] = getattr(state, name)
    for k in range(len(states) - 1, 0, -1):
        begun, there = len(states[k - 1][1]), len(states[k][1])
        if begun < there:
            after = states[min(k + 1, len(states) - 1)][0]
            new = slice(begun, there)
            guess = predicted(*(jax.tree.map(lambda x, new=new: x[new], state) for state in (after, states[k][0])))
            fields["centre"][:k, new], fields["rotation"][:k, new] = guess.centre, guess.rotation
    return Waves(**fields)


def _best(
    points: np.ndarray,
    viewpoint: np.ndarray | None,
    owner: np.ndarray,
    ways: list[Geometry],
    moving: np.ndarray,
    noise: float,
) -> Geometry:
    """Of the ways that a wave may have gone, the one that its points, and the light that came past it, speak for.

    The first has been fitted: it must be the better by what its parameters cost (Schwarz 1978), so that what rests, rests.
    A plate that slips in its own plane stays on its points, and only the rays beside its outline tell.
    """
    chosen = np.zeros(len(ways[0].scale), int)
    for k in np.flatnonzero(moving):
        mine = points[owner == k]
        if len(mine) < LEAST_POINTS:
            continue
        waves = jax.tree.map(lambda *x, k=k: np.stack([y[k] for y in x]), *ways)
        cost = np.sum(np.square(distances(waves, mine)), 1)
        if viewpoint is not None:
            margin = 5 * noise + 0.02 * float(np.ptp(mine, axis=0).max())
            sight = lines_of_sight(points, viewpoint, mine, margin, _RAYS)
            cost = cost + np.sum(np.square(in_the_way(waves, sight)), 1)
        cost[0] += _PARAMETERS * np.log(len(mine)) * noise**2
        chosen[k] = np.argmin(cost)
    return jax.tree.map(lambda *x: np.stack(x)[chosen, np.arange(len(chosen))], *ways)


def _put(values: np.ndarray, slots: np.ndarray, new: np.ndarray) -> np.ndarray:
    out = np.array(values, np.float32)
    out[slots] = new
    return out


def predicted(before: Geometry, now: Geometry) -> Geometry:
    """The waves one frame on, with the displacement and the turn of the last frame. NumPy."""
    a, b = (Rotation.from_quat(np.asarray(x.rotation, np.float64), scalar_first=True) for x in (before, now))
    rotation = (b * a.inv() * b).as_quat(scalar_first=True).astype(np.float32)
    return Geometry(2 * np.asarray(now.centre) - np.asarray(before.centre), now.scale, rotation, now.exponents)


def _owners(
    points: Float[np.ndarray, "n 3"], label: np.ndarray, waves: Geometry, own: np.ndarray, reach: float
) -> Int[np.ndarray, " n"]:
    """The nearest wave of each point, -1 where none is in reach; of one label where both have one (0: none)."""
    table = np.abs(distances(waves, points))
    table = np.where((own[:, None] > 0) & (label > 0) & (own[:, None] != label), np.inf, table)
    return np.where(table.min(0) < reach, np.argmin(table, 0), -1)


def _labels(owner: np.ndarray, label: np.ndarray, own: np.ndarray) -> np.ndarray:
    """The labels of the waves; of one that had none, that of most of its points, where most have one."""
    found = own.copy()
    for k in np.flatnonzero(own == 0):
        counts = np.bincount(label[owner == k])
        found[k] = np.argmax(counts) if len(counts) else 0
    return found


def _step(
    points: Float[np.ndarray, "n 3"],
    owner: Int[np.ndarray, " n"],
    waves: Geometry,
    moving: np.ndarray,
    noise: float,
    reach: float,
    turn: float,
) -> tuple[Geometry, np.ndarray]:
    """The waves moved onto their points, and which of them are seen."""
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
