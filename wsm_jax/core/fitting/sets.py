"""Fit of a set of waves to a cloud of points; the number of waves follows from the residual.

Large planes are extracted first (planes.py), on request; the other points are grouped into objects, by label or by connected
components; partition.py fits the waves of each object.
"""

import dataclasses

import jax
import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from wsm_jax.core.fitting import planes
from wsm_jax.core.fitting.observations import Cloud, checked_points, known_space
from wsm_jax.core.fitting.partition import MIN_POINTS, KnownSpace, distances, fit_object, stacked
from wsm_jax.core.fitting.sight import lines_of_sight
from wsm_jax.core.geometry import Geometry
from wsm_jax.snapshot import SEMANTIC_CLASSES, Waves
from wsm_jax.snapshot.waves import empty
from wsm_jax.typing import Float, Int

MIN_LABELLED_POINTS = 12
"""Minimum number of points of a labelled object."""

_GROWN = 8192  # maximum number of points of one object that are fitted; the others are assigned afterwards


@dataclasses.dataclass(frozen=True)
class SetFit:
    """N waves fitted to a cloud."""

    geometry: Geometry
    """Waves, [N ...], NumPy."""
    instance: Int[np.ndarray, " N"]
    """Object id of every wave, 1..; 0 for scenery (planes)."""
    owner: Int[np.ndarray, " n"]
    """Wave index of every point, -1 for unexplained points."""
    residual: Float[np.ndarray, " n"]
    """First-order distance of every point to its wave (m, from 0); infinite for unexplained points."""


def estimate_noise(points: Float[np.ndarray, "n 3"]) -> float:
    """Standard deviation of the points off their surface (m): the median thickness of their neighbourhoods.

    It includes curvature, so it is an upper estimate for sparse points on curved surfaces.
    """
    chosen = np.linspace(0, len(points) - 1, min(len(points), 20000)).astype(int)
    return float(np.median(planes.normals(points[chosen])[1])) * 1.2  # 16 neighbours lose three degrees of freedom


def fit_set(
    cloud: Cloud,
    *,
    noise: float | None = None,
    max_waves: int = 32,
    max_waves_per_object: int = 8,
    plane_extent: float | None = None,
    tolerance: float = 0.01,
    refine: int = 2,
) -> SetFit:
    """Fit at most `max_waves` waves to a cloud, at most `max_waves_per_object` per object. Deterministic.

    Fitting stops at a residual of `noise` (m; None: estimated) or of `tolerance` (fraction of the size of an object). Planes
    longer than `plane_extent` (m), if given, become thin waves first. Raises ValueError for options out of range and a cloud
    that is too small, not finite, or without a connected object.
    """
    points = checked_points(cloud.points, "fit_set", MIN_LABELLED_POINTS)
    if max_waves < 1 or max_waves_per_object < 1:
        raise ValueError(f"fit_set: max_waves={max_waves}, max_waves_per_object={max_waves_per_object}; needed 1 or more")
    if (
        not (noise is None or 0 <= noise < np.inf)
        or not 0 < tolerance < np.inf
        or not (plane_extent is None or plane_extent > 0)
    ):
        got = f"noise={noise}, tolerance={tolerance}, plane_extent={plane_extent}"
        raise ValueError(f"fit_set: {got}; needed noise from 0 (m), and the others above 0")
    noise = estimate_noise(points) if noise is None else noise
    if not np.ptp(points, axis=0).max() > 0:
        raise ValueError(f"fit_set: all {len(points)} points coincide; needed points that span a surface")
    spread = np.maximum(noise, 0.0 if cloud.spread is None else cloud.spread) * np.ones(len(points))
    owner, waves = np.full(len(points), -1), []
    if plane_extent is not None:
        waves, owner = planes.carve(points, np.maximum(spread, 1e-4), plane_extent, cloud.viewpoint)
        waves, owner = waves[:max_waves], np.where(owner < max_waves, owner, -1)
        owner[_near_waves(waves, points, owner, 3 * spread)] = -2
    instance = [0] * len(waves)
    for number, members in enumerate(split_objects(points, cloud.label, np.flatnonzero(owner == -1)), 1):
        budget = min(max_waves - len(waves), max_waves_per_object)
        if budget < 1:
            break
        scale = float(np.median(spread[members]))
        low, high = points[members].min(0), points[members].max(0)
        some = points[members[np.linspace(0, len(members) - 1, min(len(members), _GROWN)).round().astype(int)]]
        size = float((high - low).max())
        tree = KDTree(some)
        margin = 5 * scale + 0.02 * size
        known = known_space(cloud, low, high, len(some), margin)
        empty_square, solid_square = (np.square(tree.query(x)[0]) if len(x) else np.zeros(0) for x in known)
        sight = None if cloud.viewpoint is None else lines_of_sight(points, cloud.viewpoint, some, margin, len(some))
        space = KnownSpace(known[0], empty_square, known[1], solid_square, sight)
        fits, part = fit_object(some, space, scale, budget, tolerance, refine)
        if len(some) < len(members):
            part = np.argmin(np.abs(distances(stacked(fits), points[members])), 0)
        owner[members] = part + len(waves)
        waves += fits
        instance += [number] * len(fits)
    owner = np.maximum(owner, -1)
    if not waves:
        raise ValueError(f"fit_set: no connected object of {MIN_POINTS} points among {len(points)}; needed denser points")
    geometry = jax.tree.map(lambda *x: np.stack([np.asarray(y, np.float32) for y in x]), *waves)
    distance = np.abs(distances(geometry, points))
    residual = np.where(owner >= 0, distance[np.maximum(owner, 0), np.arange(len(points))], np.inf)
    return SetFit(geometry, np.asarray(instance, np.int32), owner.astype(np.int32), residual.astype(np.float32))


def _near_waves(waves: list[Geometry], points: np.ndarray, owner: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Unassigned points that lie on a wave (at edges, where the normal is unreliable)."""
    if not waves:
        return np.zeros(len(points), bool)
    geometry = stacked(waves)
    return (owner == -1) & (distances(geometry, points).min(0) < reach)


def split_objects(points: np.ndarray, label: np.ndarray, free: np.ndarray) -> list[np.ndarray]:
    """Point indices of every object, largest first: by label for labelled points, else by connected components."""
    groups = [free[label[free] == value] for value in np.unique(label[free]) if value > 0]
    groups = [group for group in groups if len(group) >= MIN_LABELLED_POINTS]
    loose = free[label[free] == 0]
    if len(points) < MIN_POINTS and len(loose) == len(points):
        return [loose]
    if len(loose) >= MIN_POINTS:
        reach = 3.0 * planes.spacing(points[loose])
        pairs = KDTree(points[loose]).sparse_distance_matrix(KDTree(points[loose]), reach, output_type="coo_matrix")
        part = connected_components(pairs, directed=False)[1]
        groups += [loose[part == value] for value in np.flatnonzero(np.bincount(part) >= MIN_POINTS)]
    return sorted(groups, key=len, reverse=True)


def to_waves(fit: SetFit, cloud: Cloud | None = None, slots: int | None = None) -> Waves:
    """The fit as `slots` waves at rest (None: one per fitted wave), coloured by the mean colour of their points in `cloud`.

    Objects have class "thing"; scenery has class "screen" and instance 0. Raises ValueError for too few slots.
    """
    count = len(fit.instance)
    slots = count if slots is None else slots
    if slots < count:
        raise ValueError(f"to_waves: {count} waves for {slots} slots; needed {count} or more")
    waves = empty(slots)
    fields = {
        name: np.array(getattr(waves, name)) for name in ("presence", "centre", "scale", "rotation", "exponents", "colour")
    }
    for name in ("centre", "scale", "rotation", "exponents"):
        fields[name][:count] = getattr(fit.geometry, name)
    fields["presence"][:count] = 1.0
    if cloud is not None and cloud.colour is not None:
        for k in np.unique(fit.owner[fit.owner >= 0]):
            fields["colour"][k] = cloud.colour[fit.owner == k].mean(0, dtype=np.float64)
    semantic, instance = np.zeros(slots, np.int32), np.zeros(slots, np.int32)
    semantic[:count] = np.where(fit.instance > 0, SEMANTIC_CLASSES.index("thing"), SEMANTIC_CLASSES.index("screen"))
    instance[:count] = fit.instance
    return waves.replace(**fields, semantic=semantic, instance=instance)  # type: ignore[attr-defined]
