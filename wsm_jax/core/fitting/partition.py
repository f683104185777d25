"""The waves of one object: as many as its points ask for, by splitting, merging and repair.

One wave is split as long as that pays. A split is judged by the description length

    L = sum_k n_k/2 log(mean_k d^2 + noise^2) + 11/2 log(n) K        over the waves k with n_k points each               (1)

n being at most 512, for neighbouring points are not independent; 11 is the number of parameters. Two ways to split the worst
wave are tried, along its longest axis, and off by residual; both children are fitted from several starts in one vmap, the
points go to the nearest wave, and all are fitted again. Space counts, where it is known: an empty point (outside a complete
surface) inside a wave, a solid one (within it) in none, or a ray of light that a wave stands in the way of (sight.py), is a
point as far off as it is from the surface. Where splitting leaves more than noise, the other way is tried too, from many small
waves to few, and the shorter description wins. Pairs are merged where one wave does as well; and what was parted wrongly early
on is parted anew while that shortens the description.
"""

from typing import NamedTuple

import jax
import numpy as np
from scipy.cluster.vq import kmeans2
from scipy.spatial import KDTree

from wsm_jax.core.fitting import planes
from wsm_jax.core.fitting.compare import padded_set
from wsm_jax.core.fitting.observations import float32
from wsm_jax.core.fitting.robust import PRIOR, STARTS, Fit, first_order_distance, fit_each, padded, principal_starts
from wsm_jax.core.fitting.sight import Sight, in_the_way
from wsm_jax.core.geometry import Geometry
from wsm_jax.typing import Float, NpOrJax

LEAST_POINTS = 40
"""Points that an object found by its nearness needs; fewer stay unexplained."""

_PATIENCE = 3
"""Splits in a row that may lengthen the description before the growth ends: a table pays only from top and four legs on."""

_PART_POINTS, _ITERATIONS, _PARAMETERS, _INDEPENDENT, _SEEDS = 256, 20, 11, 512, 24
_REPAIRS, _PROPOSALS, _SETTLED = 8, 16, 3


class Hollow(NamedTuple):
    """What is known of space: empty points (m), and what it costs to fill each; solid ones, and to leave each out."""

    place: Float[np.ndarray, "m 3"]
    square: Float[np.ndarray, " m"]
    """The square of how far each point is to the surface, m^2."""
    solid: Float[np.ndarray, "k 3"]
    """Points that some wave should hold (m), and what it costs to leave each out."""
    solid_square: Float[np.ndarray, " k"]
    sight: Sight | None = None
    """Rays that no wave may cross; where they are known, they say what it costs to fill space."""


def stacked(waves: list[Geometry]) -> Geometry:
    """A list of waves as a set [N ...], NumPy."""
    return jax.tree.map(lambda *x: np.stack(x), *waves)


@jax.jit
def _distances(waves: Geometry, points: NpOrJax) -> jax.Array:
    return jax.vmap(lambda wave: first_order_distance(points, wave))(waves)


def distances(waves: Geometry, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "N n"]:
    """First-order distance (m, negative inside) of points to every wave of a set, on the host; sizes are padded."""
    local, _ = padded(points, np.ones(len(points)), len(points))
    return np.asarray(_distances(padded_set(waves), local))[: len(waves.scale), : len(points)]


_Job = tuple[int, np.ndarray, np.ndarray, np.ndarray, Geometry, float, float, np.ndarray]
"""Which part, points, weights, vacancy, start, least sigma, and the unit and middle that scaled them."""


def _jobs(parts: list[np.ndarray], starts: list[Geometry | None], hollow: Hollow, noise: float) -> list[_Job]:
    """The fits to make: each part, with the vacant points in its box, at unit size, from its start or from four."""
    jobs: list[_Job] = []
    for number, (part, start) in enumerate(zip(parts, starts, strict=True)):
        middle = np.median(part, 0).astype(np.float64)
        unit = max(float(np.sqrt(np.mean(np.sum(np.square(part - middle), 1)))), 1e-6)
        some, weight = padded((part - middle) / unit, np.ones(len(part)), _PART_POINTS)
        low, high = part.min(0), part.max(0)
        room = 0.1 * (high - low)
        beside = ((hollow.place > low - room) & (hollow.place < high + room)).all(1)
        if start is not None and len(hollow.place):  # also where it has left the box of its points
            beside |= distances(stacked([start]), hollow.place)[0] < 0
        near = hollow.place[beside]
        empty_space, empty_weight = padded((near - middle) / unit, np.ones(len(near)), _PART_POINTS)
        vacant = np.repeat(float32([0, 1]), _PART_POINTS)
        some, weight = (
            np.concatenate([np.pad(x, [(0, _PART_POINTS - len(x)), *[(0, 0)] * (x.ndim - 1)]) for x in pair])
            for pair in ((some, empty_space), (weight, empty_weight))
        )
        least = max(noise / unit, 1e-3)
        if start is None:
            rounds = principal_starts(some, weight * (vacant == 0), 2 * least)
            first = [jax.tree.map(lambda x, i=i: x[i], rounds) for i in (0, 1, 2, 3)]
        else:
            first = [Geometry(float32((start.centre - middle) / unit), float32(start.scale / unit), *_shape(start))]
        jobs += [(number, some, weight, vacant, wave, least, unit, middle) for wave in first]
    return jobs


def _fit_parts(parts: list[np.ndarray], starts: list[Geometry | None], hollow: Hollow, noise: float) -> list[Geometry]:
    """One wave to each part: from its start, or the best from four starts along its principal axes. Batches of eight."""
    jobs = _jobs(parts, starts, hollow, noise)
    best: dict[int, tuple[float, Geometry]] = {}
    for begin in range(0, len(jobs), STARTS):
        some_jobs = jobs[begin : begin + STARTS]
        full = some_jobs + [some_jobs[-1]] * (STARTS - len(some_jobs))
        waves = jax.tree.map(lambda *x: np.stack(x), *(job[4] for job in full))
        inputs = (np.stack([np.asarray(job[i]) for job in full]) for i in range(1, 4))
        least = float32([job[5] for job in full])
        fits = fit_each(*inputs, waves, least, np.ones(STARTS, np.float32), float32(0.0), PRIOR, iterations=_ITERATIONS)
        for job, fit in zip(some_jobs, _each(fits), strict=False):
            if np.isfinite(fit.loss) and (job[0] not in best or fit.loss < best[job[0]][0]):
                best[job[0]] = float(fit.loss), _enlarged(fit.geometry, job[6], job[7])
    return [best[number][1] for number in range(len(parts))]


def _shape(wave: Geometry) -> tuple[np.ndarray, np.ndarray]:
    return float32(wave.rotation), float32(wave.exponents)


def _each(fits: Fit) -> list[Fit]:
    host = jax.tree.map(np.asarray, fits)
    return [jax.tree.map(lambda x, i=i: x[i], host) for i in range(STARTS)]


def _enlarged(wave: Geometry, unit: float, middle: np.ndarray) -> Geometry:
    centre = float32(middle + unit * np.float64(wave.centre))
    return Geometry(centre, float32(unit * wave.scale), *_shape(wave))


def _length(state: "_Settled", noise: float) -> float:
    """Equation (1), nats."""
    waves, owner, square = state
    count = len(waves)
    n = min(len(square), _INDEPENDENT)
    shares = [(np.mean(owner == k), np.mean(square[owner == k])) for k in range(count) if np.any(owner == k)]
    cost = sum(0.5 * n * share * np.log(mean + noise**2) for share, mean in shares)
    return float(cost + 0.5 * _PARAMETERS * np.log(n) * count)


_Settled = tuple[list[Geometry], np.ndarray, np.ndarray]
"""Waves, the wave of every point, its square distance; last, empty points inside waves and solid ones in none."""


def _filled(waves: Geometry, hollow: Hollow) -> Float[np.ndarray, "N m"]:
    """What each wave is charged for each ray or empty point that it fills, m^2; 0 where it does not."""
    if hollow.sight is not None:
        count = len(waves.scale)
        return np.square(in_the_way(padded_set(waves), hollow.sight)[:count])
    if not len(hollow.place):
        return np.zeros((len(waves.scale), 0))
    return np.where(distances(waves, hollow.place) < 0, hollow.square, 0.0)


def _settle(points: np.ndarray, hollow: Hollow, waves: list[Geometry], noise: float, rounds: int) -> _Settled:
    """Points to their nearest waves, waves to their points, `rounds` times; waves without points go."""
    for turn in range(rounds + 1):
        table = np.square(distances(stacked(waves), points))
        owner = np.argmin(table, 0)
        counts = np.bincount(owner, minlength=len(waves))
        if turn == rounds or len(waves) == 1:
            break
        kept = np.flatnonzero(counts >= LEAST_POINTS // 2)
        waves = _fit_parts([points[owner == k] for k in kept], [waves[k] for k in kept], hollow, noise)
    square = table[owner, np.arange(len(points))]
    filled = _filled(stacked(waves), hollow)
    worst = filled.argmax(0) if filled.size else np.zeros(0, int)
    charge = filled[worst, np.arange(len(worst))]
    owner, square = np.concatenate([owner, worst[charge > 0]]), np.concatenate([square, charge[charge > 0]])
    if len(hollow.solid):
        outside = distances(stacked(waves), hollow.solid)
        missed = outside.min(0) > 0
        owner = np.concatenate([owner, np.argmin(outside, 0)[missed]])
        square = np.concatenate([square, hollow.solid_square[missed]])
    return waves, owner, square


def _splits(points: np.ndarray, square: np.ndarray) -> list[np.ndarray]:
    """Ways to part the points of a wave: two means, and what it explains worst against the rest."""
    axes = np.linalg.eigh(np.cov((points - points.mean(0)).T))[1]
    along = (points - points.mean(0)) @ axes[:, 2]
    ends = points[[int(np.argmin(along)), int(np.argmax(along))]].astype(np.float64)
    halves = kmeans2(points.astype(np.float64), ends, minit="matrix", iter=8)[1] == 1
    bad = np.flatnonzero(square > np.quantile(square, 0.7))
    seed = points[bad[int(np.argmax(square[bad]))]]
    reach = np.linalg.norm(points - seed, axis=1)
    carved = reach <= np.quantile(reach, 0.3)
    sides = [side for side in (halves, carved) if min(side.sum(), (~side).sum()) >= LEAST_POINTS // 2]
    return sides


def grow(
    points: np.ndarray, hollow: Hollow, noise: float, most: int, tolerance: float, refine: int
) -> tuple[list[Geometry], np.ndarray]:
    """The waves of one object [n 3] (m), at most `most`, and the wave of each of its points. `tolerance` as in `fit_set`."""
    good = max(noise, tolerance * float(np.sqrt(np.sum(np.var(points, axis=0)))))
    state = _settle(points, hollow, _fit_parts([points], [None], hollow, noise), noise, 0)
    best = length = _length(state, good)
    kept = state
    spent: set[int] = set()
    since = 0
    while len(state[0]) < most and len(spent) < len(state[0]) and since < _PATIENCE:
        waves, owner, square = state
        cost = [np.sum(square[owner == k]) if k not in spent else -1.0 for k in range(len(waves))]
        worst = int(np.argmax(cost))
        mine = owner[: len(points)] == worst
        trials = []
        if np.mean(square[owner == worst]) > good**2 and mine.sum() >= 2 * LEAST_POINTS:
            for side in _splits(points[mine], square[: len(points)][mine]):
                pair = _fit_parts([points[mine][side], points[mine][~side]], [None, None], hollow, noise)
                trial = _settle(points, hollow, [*waves[:worst], *pair, *waves[worst + 1 :]], noise, refine)
                trials.append((_length(trial, good), trial))
        if not trials:
            spent.add(worst)
            continue
        (length, state), spent = min(trials, key=lambda trial: trial[0]), set()
        since = 0 if length < best else since + 1
        best, kept = (length, state) if length < best else (best, kept)
    state = _merge(points, hollow, kept, noise, good)
    if most > 1 and np.mean(state[2]) > good**2:
        other = _merge(points, hollow, _gather(points, hollow, noise, good, most, refine), noise, good)
        state = min(state, other, key=lambda found: _length(found, good))
    if most > 1:
        state = _repaired(points, hollow, state, noise, good, most, refine)
    waves, owner, _ = state
    return waves, owner[: len(points)]


def _proposals(points: np.ndarray, state: _Settled, good: float) -> list[tuple[tuple[int, ...], list[np.ndarray]]]:
    """Waves to replace, and the groups of points for new ones: one wave in two or four parts, or two neighbours parted anew.

    Dearest first: those whose points (and empty space) lie farthest off.
    """
    waves, owner, square = state
    mine, count = owner[: len(points)], len(waves)
    cost = np.array([np.sum(square[owner == k]) for k in range(count)])
    table = np.abs(distances(stacked(waves), points))
    second = np.argsort(table, 0)[1] if count > 1 else mine
    beside = {tuple(sorted((int(a), int(b)))) for a, b in set(zip(mine.tolist(), second.tolist(), strict=True)) if a != b}
    groups: list[tuple[int, ...]] = [(k,) for k in range(count)] + sorted(beside)
    proposals = []
    for group in sorted(groups, key=lambda group: -float(cost[list(group)].mean())):
        chosen = np.isin(mine, group)
        if np.mean(square[np.isin(owner, group)]) > good**2 and chosen.sum() >= 2 * LEAST_POINTS:
            some = points[chosen]
            proposals += [(group, [some[side], some[~side]]) for side in _splits(some, square[: len(points)][chosen])]
            part = kmeans2(some.astype(np.float64), 4, minit="++", rng=np.random.default_rng(0))[1]
            if len(group) == 1 and np.bincount(part, minlength=4).min() >= LEAST_POINTS // 2:
                proposals.append((group, [some[part == k] for k in range(4)]))  # as the bars of a frame
    return proposals


def _repaired(
    points: np.ndarray, hollow: Hollow, state: _Settled, noise: float, good: float, most: int, refine: int
) -> _Settled:
    """What a greedy growth cannot undo is undone: one wave is split, or two are parted anew, while (1) gains by it.

    A split may make one too many where a merger after it makes up for that (Ueda et al. 2000).
    """
    length = _length(state, good)
    for _ in range(_REPAIRS):
        proposals = _proposals(points, state, good)[:_PROPOSALS]
        parts = [part for _, some in proposals for part in some]
        new = iter(_fit_parts(parts, [None] * len(parts), hollow, noise))
        trials = []
        for group, some in proposals:
            waves = [wave for i, wave in enumerate(state[0]) if i not in group] + [next(new) for _ in some]
            trials.append(_settle(points, hollow, waves, noise, 0))
        for trial in sorted(trials, key=lambda trial: _length(trial, good))[:_SETTLED]:
            settled = _merge(points, hollow, _settle(points, hollow, trial[0], noise, refine), noise, good)
            if len(settled[0]) <= most and _length(settled, good) < length:
                state, length = settled, _length(settled, good)
                break
        else:
            break
    return state


def _gather(points: np.ndarray, hollow: Hollow, noise: float, good: float, most: int, refine: int) -> _Settled:
    """The other way: many small waves, of which the neighbours that gain most by (1) become one, till none gains."""
    seeds = max(1, min(_SEEDS, len(points) // LEAST_POINTS))
    group = kmeans2(points.astype(np.float64), seeds, minit="++", rng=np.random.default_rng(0))[1]
    parts = {k: np.flatnonzero(group == k) for k in range(seeds) if np.any(group == k)}
    pairs = KDTree(points).query_pairs(3.0 * planes.spacing(points), output_type="ndarray")
    beside = {(int(a), int(b)) for a, b in np.sort(group[pairs], 1) if a != b}
    share = min(len(points), _INDEPENDENT) / len(points)

    def price(members: list[np.ndarray]) -> list[tuple[float, Geometry]]:
        """The description of groups of points, each by one wave: its length and the wave."""
        waves = _fit_parts([points[some] for some in members], [None] * len(members), hollow, noise)
        those = stacked(waves)
        off = distances(those, points)
        filled = _filled(those, hollow)
        found = []
        for k, (some, wave) in enumerate(zip(members, waves, strict=True)):
            square = np.concatenate([np.square(off[k, some]), filled[k][filled[k] > 0]])
            found.append((0.5 * share * len(square) * float(np.log(np.mean(square) + good**2)), wave))
        return found

    costs = dict(zip(parts, price(list(parts.values())), strict=True))
    joint = {pair: np.concatenate([parts[k] for k in pair]) for pair in sorted(beside)}
    merged = dict(zip(joint, price(list(joint.values())), strict=True)) if joint else {}
    saved = 0.5 * _PARAMETERS * np.log(share * len(points))
    while merged:
        gains = {pair: costs[pair[0]][0] + costs[pair[1]][0] - merged[pair][0] + saved for pair in merged}
        a, b = max(gains, key=lambda pair: gains[pair])
        gain = gains[a, b]
        if gain <= 0 and len(parts) <= most:
            break
        parts[a], costs[a] = np.concatenate([parts[a], parts.pop(b)]), merged[a, b]
        beside = {(a if i == b else i, a if j == b else j) for i, j in beside} - {(a, a)}
        beside = {(min(pair), max(pair)) for pair in beside}
        merged = {pair: cost for pair, cost in merged.items() if not {a, b} & set(pair)}
        anew = sorted(pair for pair in beside if a in pair)
        if anew:
            merged |= dict(zip(anew, price([np.concatenate([parts[k] for k in pair]) for pair in anew]), strict=True))
    waves = [costs[k][1] for k in parts]
    return _settle(points, hollow, waves[:most], noise, refine)


def _merge(points: np.ndarray, hollow: Hollow, state: _Settled, noise: float, good: float) -> _Settled:
    """Pairs of waves made one where equation (1) gains by it."""
    tried: set[tuple[int, int]] = set()
    while len(state[0]) > 1:
        waves, owner, _ = state
        length = _length(state, good)
        mine = owner[: len(points)]
        centres, reach = np.stack([wave.centre for wave in waves]), np.stack([wave.scale.max() for wave in waves])
        pairs = [(i, j) for i in range(len(waves)) for j in range(i) if (i, j) not in tried]
        pairs = [(i, j) for i, j in pairs if np.linalg.norm(centres[i] - centres[j]) < 1.2 * (reach[i] + reach[j])]
        pairs = [(i, j) for i, j in pairs if np.any((mine == i) | (mine == j))]
        joint = [points[(mine == i) | (mine == j)] for i, j in pairs]
        for pair, wave in zip(pairs, _fit_parts(joint, [None] * len(joint), hollow, noise), strict=True):
            trial = _settle(points, hollow, [w for k, w in enumerate(waves) if k not in pair] + [wave], noise, 0)
            if _length(trial, good) < length:
                state, tried = trial, set()
                break
            tried.add(pair)
        else:
            break
    return state
