"""A cloud of points -> a set of waves, as many as the residual asks for.

Large planes are carved first (planes.py), if asked for; what is left falls into objects, by its labels or by what hangs
together; each object is the waves that partition.py finds for it.
"""

import dataclasses

import jax
import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from wsm_jax.core.fitting import planes
from wsm_jax.core.fitting.observations import Cloud, checked_points, known_space
from wsm_jax.core.fitting.partition import LEAST_POINTS, Hollow, distances, grow, stacked
from wsm_jax.core.fitting.sight import lines_of_sight
from wsm_jax.core.geometry import Geometry
from wsm_jax.snapshot import SEMANTIC_CLASSES, Waves
from wsm_jax.snapshot.waves import empty
from wsm_jax.typing import Float, Int

LABELLED_POINTS = 12
"""Points that an object known by its label needs; all points of a smaller cloud are one object."""

_GROWN = 8192  # points of one object by which its waves are found; all points are explained by them


@dataclasses.dataclass(frozen=True)
class SetFit:
    """N waves that explain a cloud."""

    geometry: Geometry
    """Waves, [N ...], NumPy."""
    instance: Int[np.ndarray, " N"]
    """Object of every wave, 1..; 0 for scenery (planes)."""
    owner: Int[np.ndarray, " n"]
    """Wave of every point, -1 where none explains it."""
    residual: Float[np.ndarray, " n"]
    """Distance of every point to its wave (m, first order, at least 0); infinite where none explains it."""


def estimate_noise(points: Float[np.ndarray, "n 3"]) -> float:
    """Standard deviation of the points off their surface (m), from how thick neighbourhoods are: their median.

    Curvature counts as noise in it, so that it is an upper estimate for sparse points on curved surfaces.
    """
    chosen = np.linspace(0, len(points) - 1, min(len(points), 20000)).astype(int)
    return float(np.median(planes.normals(points[chosen])[1])) * 1.2  # 16 neighbours lose three degrees of freedom


def fit_set(
    cloud: Cloud,
    *,
    noise: float | None = None,
    most: int = 32,
    most_per_object: int = 8,
    plane_extent: float | None = None,
    tolerance: float = 0.01,
    refine: int = 2,
) -> SetFit:
    """The waves that explain a cloud: at most `most`, and `most_per_object` of one object.

    `noise` (m; none: estimated) and `tolerance` (share of the size of an object) say what residual is good enough to stop.
    `plane_extent`: planes longer than this (m) become thin waves first. Raises ValueError for a cloud that is too small or
    not finite. Deterministic.
    """
    points = checked_points(cloud.points, "fit_set", LABELLED_POINTS)
    if most < 1 or most_per_object < 1:
        raise ValueError(f"fit_set: most={most}, most_per_object={most_per_object}; needed 1 or more")
    if (
        not (noise is None or 0 <= noise < np.inf)
        or not 0 < tolerance < np.inf
        or not (plane_extent is None or plane_extent > 0)
    ):
        given = f"noise={noise}, tolerance={tolerance}, plane_extent={plane_extent}"
        raise ValueError(f"fit_set: {given}; needed noise from 0 (m), and the others above 0")
    noise = estimate_noise(points) if noise is None else noise
    if not np.ptp(points, axis=0).max() > 0:
        raise ValueError(f"fit_set: all {len(points)} points are one; needed points that span a surface")
    spread = np.maximum(noise, 0.0 if cloud.spread is None else cloud.spread) * np.ones(len(points))
    owner, waves = np.full(len(points), -1), []
    if plane_extent is not None:
        waves, owner = planes.carve(points, np.maximum(spread, 1e-4), plane_extent, cloud.viewpoint)
        waves, owner = waves[:most], np.where(owner < most, owner, -1)
        owner[_touching(waves, points, owner, 3 * spread)] = -2
    instance = [0] * len(waves)
    for number, members in enumerate(objects(points, cloud.label, np.flatnonzero(owner == -1)), 1):
        room = min(most - len(waves), most_per_object)
        if room < 1:
            break
        scale = float(np.median(spread[members]))
        low, high = points[members].min(0), points[members].max(0)
        some = points[members[np.linspace(0, len(members) - 1, min(len(members), _GROWN)).round().astype(int)]]
        size = float((high - low).max())
        tree = KDTree(some)
        margin = 5 * scale + 0.02 * size
        space = known_space(cloud, low, high, len(some), margin)
        empty_square, solid_square = (np.square(tree.query(x)[0]) if len(x) else np.zeros(0) for x in space)
        sight = None if cloud.viewpoint is None else lines_of_sight(points, cloud.viewpoint, some, margin, len(some))
        hollow = Hollow(space[0], empty_square, space[1], solid_square, sight)
        fits, part = grow(some, hollow, scale, room, tolerance, refine)
        if len(some) < len(members):
            part = np.argmin(np.abs(distances(stacked(fits), points[members])), 0)
        owner[members] = part + len(waves)
        waves += fits
        instance += [number] * len(fits)
    owner = np.maximum(owner, -1)
    if not waves:
        raise ValueError(
            f"fit_set: no object of {LEAST_POINTS} points hangs together among {len(points)}; needed denser points"
        )
    geometry = jax.tree.map(lambda *x: np.stack([np.asarray(y, np.float32) for y in x]), *waves)
    distance = np.abs(distances(geometry, points))
    residual = np.where(owner >= 0, distance[np.maximum(owner, 0), np.arange(len(points))], np.inf)
    return SetFit(geometry, np.asarray(instance, np.int32), owner.astype(np.int32), residual.astype(np.float32))


def _touching(waves: list[Geometry], points: np.ndarray, owner: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Points of no wave that lie on one all the same (edges, where the normal is no help)."""
    if not waves:
        return np.zeros(len(points), bool)
    geometry = stacked(waves)
    return (owner == -1) & (distances(geometry, points).min(0) < reach)


def objects(points: np.ndarray, label: np.ndarray, free: np.ndarray) -> list[np.ndarray]:
    """Points of every object, largest first: by label where there is one, else by what hangs together."""
    groups = [free[label[free] == value] for value in np.unique(label[free]) if value > 0]
    groups = [group for group in groups if len(group) >= LABELLED_POINTS]
    loose = free[label[free] == 0]
    if len(points) < LEAST_POINTS and len(loose) == len(points):
        return [loose]
    if len(loose) >= LEAST_POINTS:
        reach = 3.0 * planes.spacing(points[loose])
        pairs = KDTree(points[loose]).sparse_distance_matrix(KDTree(points[loose]), reach, output_type="coo_matrix")
        part = connected_components(pairs, directed=False)[1]
        groups += [loose[part == value] for value in np.flatnonzero(np.bincount(part) >= LEAST_POINTS)]
    return sorted(groups, key=len, reverse=True)


def to_waves(fit: SetFit, cloud: Cloud | None = None, slots: int | None = None) -> Waves:
    """The fit as `slots` waves at rest (none: as many as fitted), coloured by the mean colour of their points in `cloud`.

    Class "thing", and "nothing"-free scenery as "screen" with instance 0. Raises ValueError where the slots are too few.
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
