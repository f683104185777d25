"""The waves of one object, their number chosen by description length: splitting, merging and refinement.

A wave is split as long as that shortens the description length

    L = sum_k n_k/2 log(mean_k d^2 + noise^2) + 11/2 log(n) K        over the waves k with n_k points each               (1)

with n at most 512, since neighbouring points are not independent, and 11 parameters a wave. Two splits of the worst wave are
tried, along its longest axis and by residual; both children are fitted from several starts in one vmap, the points are assigned
to the nearest wave, and all waves are fitted again. Known space counts as data: an empty point (outside a complete surface)
inside a wave, a solid point (inside the surface) in no wave, and a ray that a wave blocks (sight.py) each add a residual equal
to their distance to the surface. If splitting leaves more than noise, agglomeration from many small waves is tried too, and the
shorter description is kept. Pairs are merged if one wave explains both as well, and early splits are revised while that
shortens the description.
"""

from typing import NamedTuple

import jax
import numpy as np
from scipy.cluster.vq import kmeans2
from scipy.spatial import KDTree

from wsm_jax.core.fitting import planes
from wsm_jax.core.fitting.compare import padded_set
from wsm_jax.core.fitting.observations import float32
from wsm_jax.core.fitting.robust import PRIOR, STARTS, Fit, first_order_distance, fit_batch, padded, principal_starts
from wsm_jax.core.fitting.sight import SightRays, blocked_length
from wsm_jax.core.geometry import Geometry
from wsm_jax.typing import Float, NpOrJax

MIN_POINTS = 40
"""Minimum number of points of an unlabelled object; smaller groups stay unexplained."""

_PATIENCE = 3
"""Consecutive splits that may lengthen the description: a table pays off only with a top and four legs."""

_PART_POINTS, _ITERATIONS, _PARAMETERS, _INDEPENDENT, _SEEDS = 256, 20, 11, 512, 24
_REVISIONS, _PROPOSALS, _SETTLED = 8, 16, 3


class KnownSpace(NamedTuple):
    """Space known to be empty or solid, with the cost of violating it."""

    empty: Float[np.ndarray, "m 3"]
    """Points in empty space, m."""
    empty_square: Float[np.ndarray, " m"]
    """Squared distance of each empty point to the surface, m^2: the cost of a wave that contains it."""
    solid: Float[np.ndarray, "k 3"]
    """Points in solid space, m."""
    solid_square: Float[np.ndarray, " k"]
    """Squared distance of each solid point to the surface, m^2: the cost if no wave contains it."""
    sight: SightRays | None = None
    """Rays that no wave may block; they replace the costs of the empty points."""


def stacked(waves: list[Geometry]) -> Geometry:
    """Stack a list of waves into a set [N ...], NumPy."""
    return jax.tree.map(lambda *x: np.stack(x), *waves)


@jax.jit
def _distances(waves: Geometry, points: NpOrJax) -> jax.Array:
    return jax.vmap(lambda wave: first_order_distance(points, wave))(waves)


def distances(waves: Geometry, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "N n"]:
    """First-order distance (m, negative inside) of points to every wave of a set, on the host; sizes are padded."""
    local, _ = padded(points, np.ones(len(points)), len(points))
    return np.asarray(_distances(padded_set(waves), local))[: len(waves.scale), : len(points)]


class _FitJob(NamedTuple):
    """One fit of one part from one start, scaled to unit size."""

    part: int
    points: np.ndarray
    weights: np.ndarray
    vacant: np.ndarray
    """1 for a point of empty space, 0 for a point of the surface."""
    start: Geometry
    noise: float
    unit: float
    """Scale (m) and origin (m) of the unit coordinates."""
    middle: np.ndarray


def _jobs(parts: list[np.ndarray], starts: list[Geometry | None], space: KnownSpace, noise: float) -> list[_FitJob]:
    """The fits to run: each part with the empty points near it, from its start or from four principal-axis starts."""
    jobs: list[_FitJob] = []
    for number, (part, start) in enumerate(zip(parts, starts, strict=True)):
        middle = np.median(part, 0).astype(np.float64)
        unit = max(float(np.sqrt(np.mean(np.sum(np.square(part - middle), 1)))), 1e-6)
        some, weight = padded((part - middle) / unit, np.ones(len(part)), _PART_POINTS)
        low, high = part.min(0), part.max(0)
        margin = 0.1 * (high - low)
        nearby = ((space.empty > low - margin) & (space.empty < high + margin)).all(1)
        if start is not None and len(space.empty):  # also where it extends beyond the box of its points
            nearby |= distances(stacked([start]), space.empty)[0] < 0
        near = space.empty[nearby]
        empty_space, empty_weight = padded((near - middle) / unit, np.ones(len(near)), _PART_POINTS)
        vacant = np.repeat(float32([0, 1]), _PART_POINTS)
        some, weight = (
            np.concatenate([np.pad(x, [(0, _PART_POINTS - len(x)), *[(0, 0)] * (x.ndim - 1)]) for x in pair])
            for pair in ((some, empty_space), (weight, empty_weight))
        )
        min_noise = max(noise / unit, 1e-3)
        if start is None:
            rounds = principal_starts(some, weight * (vacant == 0), 2 * min_noise)
            first = [jax.tree.map(lambda x, i=i: x[i], rounds) for i in (0, 1, 2, 3)]
        else:
            first = [Geometry(float32((start.centre - middle) / unit), float32(start.scale / unit), *_shape(start))]
        jobs += [_FitJob(number, some, weight, vacant, wave, min_noise, unit, middle) for wave in first]
    return jobs


def _fit_parts(parts: list[np.ndarray], starts: list[Geometry | None], space: KnownSpace, noise: float) -> list[Geometry]:
    """One wave per part: from its start, or the best of four starts along its principal axes. Runs in batches of eight."""
    jobs = _jobs(parts, starts, space, noise)
    best: dict[int, tuple[float, Geometry]] = {}
    for begin in range(0, len(jobs), STARTS):
        some_jobs = jobs[begin : begin + STARTS]
        full = some_jobs + [some_jobs[-1]] * (STARTS - len(some_jobs))
        waves = jax.tree.map(lambda *x: np.stack(x), *(job.start for job in full))
        inputs = (np.stack(arrays) for arrays in zip(*((job.points, job.weights, job.vacant) for job in full)))
        min_noise = float32([job.noise for job in full])
        fits = fit_batch(*inputs, waves, min_noise, np.ones(STARTS, np.float32), float32(0.0), PRIOR, iterations=_ITERATIONS)
        for job, fit in zip(some_jobs, _unstacked(fits), strict=False):
            if np.isfinite(fit.loss) and (job.part not in best or fit.loss < best[job.part][0]):
                best[job.part] = float(fit.loss), _in_metres(fit.geometry, job.unit, job.middle)
    return [best[number][1] for number in range(len(parts))]


def _shape(wave: Geometry) -> tuple[np.ndarray, np.ndarray]:
    return float32(wave.rotation), float32(wave.exponents)


def _unstacked(fits: Fit) -> list[Fit]:
    host = jax.tree.map(np.asarray, fits)
    return [jax.tree.map(lambda x, i=i: x[i], host) for i in range(STARTS)]


def _in_metres(wave: Geometry, unit: float, middle: np.ndarray) -> Geometry:
    centre = float32(middle + unit * np.float64(wave.centre))
    return Geometry(centre, float32(unit * wave.scale), *_shape(wave))


class _Assignment(NamedTuple):
    """Waves, and every point assigned to one; after the points come the violations of known space."""

    waves: list[Geometry]
    owner: np.ndarray
    """Index of the wave of each point or violation."""
    square: np.ndarray
    """Squared distance of each, m^2."""


def _description_length(state: _Assignment, noise: float) -> float:
    """Equation (1), nats."""
    waves, owner, square = state
    count = len(waves)
    n = min(len(square), _INDEPENDENT)
    shares = [(np.mean(owner == k), np.mean(square[owner == k])) for k in range(count) if np.any(owner == k)]
    cost = sum(0.5 * n * share * np.log(mean + noise**2) for share, mean in shares)
    return float(cost + 0.5 * _PARAMETERS * np.log(n) * count)


def _violations(waves: Geometry, space: KnownSpace) -> Float[np.ndarray, "N m"]:
    """Cost of each wave for each ray that it blocks or empty point that it contains, m^2; 0 for none."""
    if space.sight is not None:
        count = len(waves.scale)
        return np.square(blocked_length(padded_set(waves), space.sight)[:count])
    if not len(space.empty):
        return np.zeros((len(waves.scale), 0))
    return np.where(distances(waves, space.empty) < 0, space.empty_square, 0.0)


def _assign(points: np.ndarray, space: KnownSpace, waves: list[Geometry], noise: float, rounds: int) -> _Assignment:
    """Assign points to their nearest waves and refit the waves, `rounds` times; waves without enough points are dropped."""
    for iteration in range(rounds + 1):
        table = np.square(distances(stacked(waves), points))
        owner = np.argmin(table, 0)
        counts = np.bincount(owner, minlength=len(waves))
        if iteration == rounds or len(waves) == 1:
            break
        kept = np.flatnonzero(counts >= MIN_POINTS // 2)
        waves = _fit_parts([points[owner == k] for k in kept], [waves[k] for k in kept], space, noise)
    square = table[owner, np.arange(len(points))]
    costs = _violations(stacked(waves), space)
    worst = costs.argmax(0) if costs.size else np.zeros(0, int)
    cost = costs[worst, np.arange(len(worst))]
    owner, square = np.concatenate([owner, worst[cost > 0]]), np.concatenate([square, cost[cost > 0]])
    if len(space.solid):
        outside = distances(stacked(waves), space.solid)
        missed = outside.min(0) > 0
        owner = np.concatenate([owner, np.argmin(outside, 0)[missed]])
        square = np.concatenate([square, space.solid_square[missed]])
    return _Assignment(waves, owner, square)


def _splits(points: np.ndarray, square: np.ndarray) -> list[np.ndarray]:
    """Splits of the points of a wave, as masks: by two means, and the neighbourhood of the worst residual against the rest."""
    axes = np.linalg.eigh(np.cov((points - points.mean(0)).T))[1]
    along = (points - points.mean(0)) @ axes[:, 2]
    ends = points[[int(np.argmin(along)), int(np.argmax(along))]].astype(np.float64)
    halves = kmeans2(points.astype(np.float64), ends, minit="matrix", iter=8)[1] == 1
    bad = np.flatnonzero(square > np.quantile(square, 0.7))
    seed = points[bad[int(np.argmax(square[bad]))]]
    reach = np.linalg.norm(points - seed, axis=1)
    carved = reach <= np.quantile(reach, 0.3)
    sides = [side for side in (halves, carved) if min(side.sum(), (~side).sum()) >= MIN_POINTS // 2]
    return sides


def fit_object(
    points: np.ndarray, space: KnownSpace, noise: float, max_waves: int, tolerance: float, refine: int
) -> tuple[list[Geometry], np.ndarray]:
    """Fit at most `max_waves` waves to one object [n 3] (m); also the wave index of each point. `tolerance` as in `fit_set`."""
    good = max(noise, tolerance * float(np.sqrt(np.sum(np.var(points, axis=0)))))
    state = _assign(points, space, _fit_parts([points], [None], space, noise), noise, 0)
    best = length = _description_length(state, good)
    kept = state
    unsplittable: set[int] = set()
    splits_without_gain = 0
    while len(state.waves) < max_waves and len(unsplittable) < len(state.waves) and splits_without_gain < _PATIENCE:
        waves, owner, square = state
        cost = [np.sum(square[owner == k]) if k not in unsplittable else -1.0 for k in range(len(waves))]
        worst = int(np.argmax(cost))
        mine = owner[: len(points)] == worst
        trials = []
        if np.mean(square[owner == worst]) > good**2 and mine.sum() >= 2 * MIN_POINTS:
            for side in _splits(points[mine], square[: len(points)][mine]):
                pair = _fit_parts([points[mine][side], points[mine][~side]], [None, None], space, noise)
                trial = _assign(points, space, [*waves[:worst], *pair, *waves[worst + 1 :]], noise, refine)
                trials.append((_description_length(trial, good), trial))
        if not trials:
            unsplittable.add(worst)
            continue
        (length, state), unsplittable = min(trials, key=lambda trial: trial[0]), set()
        splits_without_gain = 0 if length < best else splits_without_gain + 1
        best, kept = (length, state) if length < best else (best, kept)
    state = _merge(points, space, kept, noise, good)
    if max_waves > 1 and np.mean(state.square) > good**2:
        other = _merge(points, space, _agglomerate(points, space, noise, good, max_waves, refine), noise, good)
        state = min(state, other, key=lambda candidate: _description_length(candidate, good))
    if max_waves > 1:
        state = _revise(points, space, state, noise, good, max_waves, refine)
    waves, owner, _ = state
    return waves, owner[: len(points)]


def _proposals(points: np.ndarray, state: _Assignment, good: float) -> list[tuple[tuple[int, ...], list[np.ndarray]]]:
    """Proposals to refit: the waves to replace, and the groups of points of the new ones.

    One wave is split in two or four, or two neighbours are split again. Highest cost first.
    """
    waves, owner, square = state
    mine, count = owner[: len(points)], len(waves)
    cost = np.array([np.sum(square[owner == k]) for k in range(count)])
    table = np.abs(distances(stacked(waves), points))
    second = np.argsort(table, 0)[1] if count > 1 else mine
    neighbours = {tuple(sorted((int(a), int(b)))) for a, b in set(zip(mine.tolist(), second.tolist(), strict=True)) if a != b}
    groups: list[tuple[int, ...]] = [(k,) for k in range(count)] + sorted(neighbours)
    proposals = []
    for group in sorted(groups, key=lambda group: -float(cost[list(group)].mean())):
        chosen = np.isin(mine, group)
        if np.mean(square[np.isin(owner, group)]) > good**2 and chosen.sum() >= 2 * MIN_POINTS:
            some = points[chosen]
            proposals += [(group, [some[side], some[~side]]) for side in _splits(some, square[: len(points)][chosen])]
            part = kmeans2(some.astype(np.float64), 4, minit="++", rng=np.random.default_rng(0))[1]
            if len(group) == 1 and np.bincount(part, minlength=4).min() >= MIN_POINTS // 2:
                proposals.append((group, [some[part == k] for k in range(4)]))  # for shapes such as a frame of four bars
    return proposals


def _revise(
    points: np.ndarray, space: KnownSpace, state: _Assignment, noise: float, good: float, max_waves: int, refine: int
) -> _Assignment:
    """Revise early splits, while that lowers (1): split one wave, or split two neighbours again.

    A split may create one wave too many, which a later merge removes (Ueda et al. 2000).
    """
    length = _description_length(state, good)
    for _ in range(_REVISIONS):
        proposals = _proposals(points, state, good)[:_PROPOSALS]
        parts = [part for _, some in proposals for part in some]
        new = iter(_fit_parts(parts, [None] * len(parts), space, noise))
        trials = []
        for group, some in proposals:
            waves = [wave for i, wave in enumerate(state.waves) if i not in group] + [next(new) for _ in some]
            trials.append(_assign(points, space, waves, noise, 0))
        for trial in sorted(trials, key=lambda trial: _description_length(trial, good))[:_SETTLED]:
            settled = _merge(points, space, _assign(points, space, trial.waves, noise, refine), noise, good)
            if len(settled.waves) <= max_waves and _description_length(settled, good) < length:
                state, length = settled, _description_length(settled, good)
                break
        else:
            break
    return state


def _agglomerate(points: np.ndarray, space: KnownSpace, noise: float, good: float, max_waves: int, refine: int) -> _Assignment:
    """Agglomeration: start from many small waves and merge the neighbours that lower (1) most, until no merge lowers it."""
    seeds = max(1, min(_SEEDS, len(points) // MIN_POINTS))
    group = kmeans2(points.astype(np.float64), seeds, minit="++", rng=np.random.default_rng(0))[1]
    parts = {k: np.flatnonzero(group == k) for k in range(seeds) if np.any(group == k)}
    pairs = KDTree(points).query_pairs(3.0 * planes.spacing(points), output_type="ndarray")
    neighbours = {(int(a), int(b)) for a, b in np.sort(group[pairs], 1) if a != b}
    share = min(len(points), _INDEPENDENT) / len(points)

    def described(members: list[np.ndarray]) -> list[tuple[float, Geometry]]:
        """Description length of each group of points by one wave, and that wave."""
        waves = _fit_parts([points[some] for some in members], [None] * len(members), space, noise)
        together = stacked(waves)
        residual = distances(together, points)
        costs = _violations(together, space)
        descriptions = []
        for k, (some, wave) in enumerate(zip(members, waves, strict=True)):
            square = np.concatenate([np.square(residual[k, some]), costs[k][costs[k] > 0]])
            descriptions.append((0.5 * share * len(square) * float(np.log(np.mean(square) + good**2)), wave))
        return descriptions

    costs = dict(zip(parts, described(list(parts.values())), strict=True))
    joint = {pair: np.concatenate([parts[k] for k in pair]) for pair in sorted(neighbours)}
    merged = dict(zip(joint, described(list(joint.values())), strict=True)) if joint else {}
    saved = 0.5 * _PARAMETERS * np.log(share * len(points))
    while merged:
        gains = {pair: costs[pair[0]][0] + costs[pair[1]][0] - merged[pair][0] + saved for pair in merged}
        a, b = max(gains, key=lambda pair: gains[pair])
        gain = gains[a, b]
        if gain <= 0 and len(parts) <= max_waves:
            break
        parts[a], costs[a] = np.concatenate([parts[a], parts.pop(b)]), merged[a, b]
        neighbours = {(a if i == b else i, a if j == b else j) for i, j in neighbours} - {(a, a)}
        neighbours = {(min(pair), max(pair)) for pair in neighbours}
        merged = {pair: cost for pair, cost in merged.items() if not {a, b} & set(pair)}
        changed = sorted(pair for pair in neighbours if a in pair)
        if changed:
            joint = [np.concatenate([parts[k] for k in pair]) for pair in changed]
            merged |= dict(zip(changed, described(joint), strict=True))
    waves = [costs[k][1] for k in parts]
    return _assign(points, space, waves[:max_waves], noise, refine)


def _merge(points: np.ndarray, space: KnownSpace, state: _Assignment, noise: float, good: float) -> _Assignment:
    """Merge pairs of waves while that lowers (1)."""
    tried: set[tuple[int, int]] = set()
    while len(state.waves) > 1:
        waves, owner, _ = state
        length = _description_length(state, good)
        mine = owner[: len(points)]
        centres, reach = np.stack([wave.centre for wave in waves]), np.stack([wave.scale.max() for wave in waves])
        pairs = [(i, j) for i in range(len(waves)) for j in range(i) if (i, j) not in tried]
        pairs = [(i, j) for i, j in pairs if np.linalg.norm(centres[i] - centres[j]) < 1.2 * (reach[i] + reach[j])]
        pairs = [(i, j) for i, j in pairs if np.any((mine == i) | (mine == j))]
        joint = [points[(mine == i) | (mine == j)] for i, j in pairs]
        for pair, wave in zip(pairs, _fit_parts(joint, [None] * len(joint), space, noise), strict=True):
            trial = _assign(points, space, [w for k, w in enumerate(waves) if k not in pair] + [wave], noise, 0)
            if _description_length(trial, good) < length:
                state, tried = trial, set()
                break
            tried.add(pair)
        else:
            break
    return state
