"""Extraction of large planes (walls, floors, table tops) from a cloud, as large thin waves.

Deterministic, without random trials: each of a few hundred evenly spaced points proposes the plane of its neighbourhood, all
proposals are scored, the best is refined by least squares, and its largest connected region is removed; this repeats on the
remaining points. A region that is not a rectangle is cut into rectangles if that saves area, so that a doorway in a wall stays
open. A hole that no single cut reaches, such as a window in the middle, stays covered.
"""

from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial import ConvexHull, KDTree, QhullError

from wsm_jax.core.fitting.observations import float32
from wsm_jax.core.geometry import Geometry
from wsm_jax.snapshot.camera import matrix_to_quaternion
from wsm_jax.typing import Float

_NEIGHBOURS = 16
_PROPOSALS = 384
_COS = np.cos(np.deg2rad(25.0))
_CUT = 0.12
"""Minimum gain of a cut: a fraction of the area of the rectangle, or holes as a fraction of its points."""


def normals(points: Float[np.ndarray, "n 3"]) -> tuple[np.ndarray, np.ndarray]:
    """Unit normals [n 3] (sign arbitrary) and roughness [n] (m, standard deviation off the plane) of each neighbourhood."""
    _, index = KDTree(points).query(points, min(_NEIGHBOURS, len(points)))
    near = points[index].astype(np.float64)
    near -= near.mean(1, keepdims=True)
    values, vectors = np.linalg.eigh(np.einsum("nki,nkj->nij", near, near) / near.shape[1])
    return vectors[..., 0], np.sqrt(np.maximum(values[:, 0], 0.0))


def spacing(points: Float[np.ndarray, "n 3"]) -> float:
    """Typical distance between neighbours, m: the median distance to the fourth neighbour."""
    return float(np.median(KDTree(points).query(points, min(5, len(points)))[0][:, -1]))


def carve(
    points: Float[np.ndarray, "n 3"],
    spread: Float[np.ndarray, " n"],
    extent: float,
    viewpoint: Float[np.ndarray, "3"] | None = None,
    max_planes: int = 12,
) -> tuple[list[Geometry], np.ndarray]:
    """Planes in a cloud that are at least `extent` (m) long, as thin waves, and the wave index of each point (-1: none).

    A point belongs to a plane within three `spread` (m) and 25 degrees. The face of a wave lies on its points with its body
    behind them, seen from `viewpoint`; without one the wave is centred on them. At most `max_planes` planes, each cut into
    rectangles.
    """
    normal, _ = normals(points)
    owner = np.full(len(points), -1)
    waves: list[Geometry] = []
    gap = spacing(points)
    for _ in range(max_planes):
        free = np.flatnonzero(owner < 0)
        region = _largest(points[free], normal[free], spread[free], gap)
        if region is None or np.ptp(points[free[region]], axis=0).max() < extent:
            break
        for part, wave in _slabs(points[free[region]], spread[free[region]], gap, viewpoint, points):
            owner[free[region][part]] = len(waves)
            waves.append(wave)
    return waves, owner


def _largest(points: np.ndarray, normal: np.ndarray, spread: np.ndarray, gap: float) -> np.ndarray | None:
    """Indices of the largest connected region of the plane with most points; None if it has fewer than 1 point in 50."""
    if len(points) < 200:
        return None
    seeds = np.linspace(0, len(points) - 1, min(_PROPOSALS, len(points))).astype(int)

    def belongs(n: np.ndarray, level: Any) -> np.ndarray:
        return (np.abs(points @ n - level) < 3 * spread) & (np.abs(normal @ n) > _COS)

    score = [np.count_nonzero(belongs(normal[i], points[i] @ normal[i])) for i in seeds]
    best = seeds[int(np.argmax(score))]
    members = belongs(normal[best], points[best] @ normal[best])
    for _ in range(3):
        if np.count_nonzero(members) < 50:
            return None
        middle, axes = _plane(points[members], spread[members])
        members = belongs(axes[:, 0], middle @ axes[:, 0])
    index = np.flatnonzero(members)
    if len(index) < max(100, 0.02 * len(points)):
        return None
    flat = (points[index] - middle) @ axes[:, 1:]
    cells = np.floor((flat - flat.min(0)) / (3 * gap)).astype(int)
    occupied = np.zeros(cells.max(0) + 1, bool)
    occupied[tuple(cells.T)] = True
    component = np.zeros(occupied.shape, np.int32)
    ndimage.label(occupied, np.ones((3, 3)), output=component)
    part = component[tuple(cells.T)]
    index = index[part == np.argmax(np.bincount(part))]
    return index if len(index) >= max(100, 0.02 * len(points)) else None


def _plane(points: np.ndarray, spread: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted middle and axes (normal first) of points near a plane."""
    weight = 1.0 / np.square(spread)
    middle = np.average(points, 0, weight)
    return middle, np.linalg.eigh(np.cov((points - middle).T, aweights=weight))[1]


def _slabs(
    points: np.ndarray, spread: np.ndarray, gap: float, viewpoint: np.ndarray | None, everything: np.ndarray
) -> list[tuple[np.ndarray, Geometry]]:
    """The region as thin boxes: point indices and wave of each. Rays to points of `everything` behind it mark its holes."""
    middle, axes = _plane(points, spread)
    flat = (points - middle) @ axes[:, 1:]
    frame = _smallest_rectangle(flat)
    sides = axes[:, 1:] @ frame
    flat = flat @ frame
    n = np.cross(sides[:, 0], sides[:, 1])
    half = max(2.0 * float(np.median(spread)), 0.005)
    behind = 0.0
    if viewpoint is not None:
        behind = half if (viewpoint - middle) @ n < 0 else -half
    rotation = matrix_to_quaternion(np.stack([sides[:, 0], sides[:, 1], n], -1))
    slabs = []
    holes = np.zeros((0, 2))
    if viewpoint is not None:
        ray = everything - viewpoint
        slope = ray @ n
        t = ((middle - viewpoint) @ n) / np.where(np.abs(slope) > 1e-9, slope, 1e-9)
        past = (t > 0) & (t < 1) & (np.abs((everything - middle) @ n) > 6 * half)
        holes = (viewpoint + t[past, None] * ray[past] - middle) @ sides
    for part in _rectangles(flat, holes, 3 * gap):
        low, high = np.quantile(flat[part], 0.005, axis=0), np.quantile(flat[part], 0.995, axis=0)
        centre = middle + sides @ (0.5 * (low + high)) + behind * n
        scale = np.array([*np.maximum(0.5 * (high - low) + 0.5 * gap, half), half])
        slabs.append((part, Geometry(float32(centre), float32(scale), rotation, np.full(2, 0.1, np.float32))))
    return slabs


def _smallest_rectangle(flat: np.ndarray) -> np.ndarray:
    """Rotation [2 2] of the bounding rectangle of least area of plane points: one side lies along a side of their hull."""
    try:
        hull = flat[ConvexHull(flat).vertices]
    except QhullError:
        return np.eye(2)
    side = np.diff(np.concatenate([hull, hull[:1]]), axis=0)
    angle = np.arctan2(side[:, 1], side[:, 0])
    turns = np.stack([np.stack([np.cos(angle), -np.sin(angle)], -1), np.stack([np.sin(angle), np.cos(angle)], -1)], -2)
    area = np.prod(np.ptp(np.einsum("vi,aij->avj", hull, turns), axis=1), -1)
    return turns[int(np.argmin(area))]


def _rectangles(flat: np.ndarray, holes: np.ndarray, cell: float, depth: int = 4) -> list[np.ndarray]:
    """Point indices of the parts of a region, cut along the axes while tight boxes have fewer holes or less area in sum.

    The cost of a box is its area over that of the region, plus the holes in it over the points of the region.
    """
    everything = np.arange(len(flat))
    low, high = flat.min(0), flat.max(0)
    holes = holes[((holes > low) & (holes < high)).all(1)]
    if depth == 0 or len(flat) < 200:
        return [everything]

    def cost(part: np.ndarray) -> float:
        low, high = np.quantile(part, 0.005, axis=0), np.quantile(part, 0.995, axis=0)
        inside = np.count_nonzero(((holes > low) & (holes < high)).all(1))
        return inside / len(flat) + float(np.prod(high - low + cell) / box)

    box = float(np.prod(high - low + cell))
    best, cut = cost(flat), None
    limit = best - _CUT
    for axis in range(2):
        for level in np.linspace(low[axis], high[axis], 40)[1:-1]:
            below = flat[:, axis] < level
            if min(below.sum(), (~below).sum()) < 50:
                continue
            total = cost(flat[below]) + cost(flat[~below])
            best, cut = (total, below) if total < min(best, limit) else (best, cut)
    if cut is None:
        return [everything]
    parts = [everything[cut], everything[~cut]]
    return [part[inner] for part in parts for inner in _rectangles(flat[part], holes, cell, depth - 1)]
