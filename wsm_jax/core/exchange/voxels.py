"""Voxel grids of occupancy, signed distance or density: from waves and meshes, to each other and to meshes.

A mesh is voxelised exactly, by the winding number along vertical lines: a line through a cell centre crosses a face upwards
(-1) or downwards (+1), and the cumulative sum counts the closed shells around each cell, so shells may overlap.
"""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np
import scipy.ndimage
from scipy.spatial import KDTree

from wsm_jax.core import superquadric
from wsm_jax.core.exchange.distance import set_distance
from wsm_jax.core.exchange.radiance import field, probability
from wsm_jax.core.fitting.observations import zero_crossings
from wsm_jax.core.geometry import Geometry, bounds, to_local
from wsm_jax.core.mesh import Mesh
from wsm_jax.extras import extra
from wsm_jax.snapshot import Waves
from wsm_jax.typing import Array, Float, NpOrJax, Shaped, pytree, static

KINDS = ("occupancy", "distance", "density")
"""Kinds of values: 0 or 1; signed distance, m, negative inside; density, 1/m."""

_CHUNK = 16384
_NEAREST = 8


@pytree
class VoxelGrid:
    """Values at cell centres: value [i, j, k] lies at origin + spacing (i, j, k), world frame."""

    values: Shaped[NpOrJax, "X Y Z"]
    origin: Float[NpOrJax, "3"]
    """Centre of the first cell, m."""
    spacing: float = static()
    """Edge of a cell, m."""
    kind: str = static()
    """One of KINDS."""

    @property
    def points(self) -> Float[np.ndarray, "n 3"]:
        """Centres of all cells, m, in C order."""
        axes = [o + self.spacing * np.arange(n) for o, n in zip(np.asarray(self.origin, np.float64), self.values.shape)]
        return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)

    def inside(self) -> Shaped[np.ndarray, "X Y Z"]:
        """Mask of solid cells: occupied, at negative distance, or absorbing more than half of the light within a cell."""
        values = np.asarray(self.values)
        if self.kind == "density":
            return values * self.spacing > np.log(2.0)
        return values < 0 if self.kind == "distance" else values > 0.5

    def like(self, values: Shaped[np.ndarray, "X Y Z"], kind: str) -> "VoxelGrid":
        """A grid with other values on the same cells."""
        return VoxelGrid(values, self.origin, self.spacing, kind)


def frame(low: Float[NpOrJax, "3"], high: Float[NpOrJax, "3"], resolution: int) -> VoxelGrid:
    """An empty occupancy grid around a box, `resolution` cells along its longest side, one cell of margin on every side.

    Raises ValueError for a box that is not finite or has no extent.
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    size = float(np.max(high - low))
    if not (np.isfinite(size) and size > 0):
        raise ValueError(f"frame: a box from {low} to {high} m; needed a finite box with an extent")
    spacing = size / max(resolution - 2, 1)
    shape = np.ceil((high - low) / spacing).astype(int).clip(1) + 2
    origin = 0.5 * (low + high) - 0.5 * spacing * (shape - 1)
    return VoxelGrid(np.zeros(shape, np.uint8), origin, spacing, "occupancy")


def in_chunks(function: Callable[[Array], Array], points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, " n"]:
    """Evaluate a jitted function of points in chunks of one size, to limit compilations and memory."""
    out = np.empty(len(points), np.float32)
    # one of two chunk sizes
    size = _CHUNK if len(points) > _CHUNK // 8 else _CHUNK // 8
    for start in range(0, len(points), size):
        part = points[start : start + size].astype(np.float32)
        padded = np.pad(part, ((0, size - len(part)), (0, 0)), mode="edge")
        out[start : start + size] = np.asarray(function(jax.numpy.asarray(padded)))[: len(part)]
    return out


@jax.jit
def _log_gauge(geometry: Geometry, points: Array) -> Array:
    pose = jax.tree.map(lambda x: jax.numpy.broadcast_to(x, (*points.shape[:-1], x.shape[-1])), geometry)
    return superquadric.log_gauge(to_local(pose, points), geometry.scale, geometry.exponents)


_set_distance = jax.jit(set_distance)
_density = jax.jit(lambda waves, points, delta, softness: field(waves, points, delta, softness)[0])


def world_bounds(waves: Waves) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner of every wave (m), exact, [N 3] float64."""
    low, high = bounds(Geometry.of(waves))
    return np.asarray(low, np.float64), np.asarray(high, np.float64)


def inside_waves(
    waves: Waves, points: Float[np.ndarray, "n 3"], level: float = 0.0, skip: np.ndarray | None = None
) -> np.ndarray:
    """Mask of points with log g < `level` in a wave with presence > 1/2; `skip` is the index of a wave to ignore, per point."""
    low, high = world_bounds(waves)
    geometry = jax.tree.map(np.asarray, Geometry.of(waves))
    result = np.zeros(len(points), bool)
    for i in np.flatnonzero(np.asarray(waves.presence) > 0.5):
        near = ~result & np.all((points >= low[i]) & (points <= high[i]), -1)
        if skip is not None:
            near &= skip != i
        index = np.flatnonzero(near)
        if len(index):
            one = jax.tree.map(lambda x, i=i: x[i], geometry)
            result[index] = in_chunks(lambda p, one=one: _log_gauge(one, p), points[index]) < level
    return result


def occupancy_of_waves(waves: Waves, grid: VoxelGrid) -> VoxelGrid:
    """1 for cells whose centre lies in a wave with presence > 1/2. Evaluates only the cells within the bounds of each wave."""
    low, high = world_bounds(waves)
    geometry = jax.tree.map(np.asarray, Geometry.of(waves))
    origin, shape = np.asarray(grid.origin, np.float64), np.asarray(grid.values.shape)
    values = np.zeros(shape, np.uint8)
    for i in np.flatnonzero(np.asarray(waves.presence) > 0.5):
        first = np.clip(np.ceil((low[i] - origin) / grid.spacing).astype(int), 0, shape)
        last = np.clip(np.floor((high[i] - origin) / grid.spacing).astype(int) + 1, 0, shape)
        if np.all(last > first):
            part = values[tuple(slice(a, b) for a, b in zip(first, last))]
            cells = VoxelGrid(part, origin + grid.spacing * first, grid.spacing, "occupancy").points
            one = jax.tree.map(lambda x, i=i: x[i], geometry)
            part |= (in_chunks(lambda p, one=one: _log_gauge(one, p), cells) < 0).reshape(part.shape).astype(np.uint8)
    return grid.like(values, "occupancy")


def distance_of_waves(waves: Waves, grid: VoxelGrid) -> VoxelGrid:
    """Signed distance (m) to the union of the waves, by distance.set_distance."""
    device = jax.tree.map(jax.numpy.asarray, waves)
    return grid.like(in_chunks(lambda p: _set_distance(device, p), grid.points).reshape(grid.values.shape), "distance")


def density_of_waves(waves: Waves, grid: VoxelGrid) -> VoxelGrid:
    """Density (1/m) by radiance.field, with a step of one cell and an edge of a quarter cell."""
    device, step = jax.tree.map(jax.numpy.asarray, waves), np.float32(grid.spacing)
    values = in_chunks(lambda p: _density(device, p, step, 0.25 * step), grid.points)
    return grid.like(values.reshape(grid.values.shape), "density")


def occupancy_of_mesh(mesh: Mesh, grid: VoxelGrid) -> VoxelGrid:
    """1 for cells whose centre lies inside a closed, outward mesh: winding number along z above 1/2.

    Raises ValueError for an open mesh: more than 1 in 1000 lines do not leave it as often as they enter it.
    """
    shape = grid.values.shape
    # an irrational offset, so that faces on a lattice do not coincide with the lines
    shift = np.array([0.5**0.5, 3.0**0.5 / 3.0]) * 1e-5
    corners = (mesh.corners - np.asarray(grid.origin, np.float64)) / grid.spacing
    corners[..., :2] += shift
    crossings = np.zeros((shape[0] * shape[1], shape[2] + 1))
    for line, height, sign in _columns(corners, shape[:2]):
        cell = np.clip(np.ceil(height), 0, shape[2]).astype(int)
        np.add.at(crossings, (line, cell), sign)
    winding = np.cumsum(crossings, -1)
    met = np.abs(crossings).sum(-1) > 0
    broken = int(np.sum(np.abs(winding[:, -1]) > 0.5))
    if broken > 1e-3 * met.sum():
        raise ValueError(
            f"occupancy_of_mesh: {broken} of {met.sum()} lines enter and leave it unequally often; needed a closed mesh"
        )
    solid = (winding[:, :-1] > 0.5) & (np.abs(winding[:, -1:]) < 0.5)
    return grid.like(solid.reshape(shape).astype(np.uint8), "occupancy")


def distance_of_mesh(mesh: Mesh, grid: VoxelGrid) -> VoxelGrid:
    """Signed distance (m) to a closed, outward mesh: to the nearest point of its faces, with the sign of `occupancy_of_mesh`.

    The faces are subdivided to at most two cells, and the eight pieces with the nearest centres are tested: accurate to some
    thousandths of a cell. Faces inside the solid count too. Raises ValueError for an open mesh, ModuleNotFoundError without
    trimesh.
    """
    solid = occupancy_of_mesh(mesh, grid).inside()
    remesh, triangles = extra("trimesh.remesh"), extra("trimesh.triangles")
    whole = np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces)
    vertices, faces = remesh.subdivide_to_size(*whole, max_edge=2 * grid.spacing, max_iter=24)
    pieces = vertices[faces]
    tree, points = KDTree(pieces.mean(1)), grid.points
    distance = np.empty(len(points))
    for start in range(0, len(points), _CHUNK):
        some = points[start : start + _CHUNK]
        _, index = tree.query(some, min(_NEAREST, len(pieces)))
        index = index.reshape(len(some), -1)
        own = np.repeat(some, index.shape[1], 0)
        off = np.linalg.norm(triangles.closest_point(pieces[index.reshape(-1)], own) - own, axis=-1)
        distance[start : start + _CHUNK] = off.reshape(index.shape).min(1)
    signed = np.where(solid, -distance.reshape(solid.shape), distance.reshape(solid.shape))
    return grid.like(signed.astype(np.float32), "distance")


def _columns(corners: np.ndarray, shape: tuple[int, ...], budget: int = 2_000_000):
    """Crossings of vertical lines (i, j) with faces, in batches: (line, height, +1 entering, -1 leaving), in cells."""
    low = np.clip(np.ceil(corners[..., :2].min(1)), 0, None).astype(int)
    high = np.minimum(np.floor(corners[..., :2].max(1)), np.asarray(shape[:2]) - 1).astype(int)
    size = np.maximum(high - low + 1, 0)
    count = size[:, 0] * size[:, 1]
    kept = np.flatnonzero(count)
    start = 0
    while start < len(kept):
        total = np.cumsum(count[kept[start:]])
        stop = start + max(int(np.searchsorted(total, budget)), 1)
        face = np.repeat(kept[start:stop], count[kept[start:stop]])
        at = np.arange(len(face)) - np.repeat(
            np.cumsum(count[kept[start:stop]]) - count[kept[start:stop]], count[kept[start:stop]]
        )
        i, j = low[face, 0] + at // size[face, 1], low[face, 1] + at % size[face, 1]
        inside, height, sign = _crossing(corners[face], i, j)
        yield i[inside] * shape[1] + j[inside], height[inside], sign[inside]
        start = stop


def _crossing(corners: np.ndarray, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mask of triangles that contain (i, j) in plan view, the height of the crossing, and its contribution to the winding."""
    weights = []
    for k in range(3):
        p, q = corners[:, k], corners[:, (k + 1) % 3]
        # both faces of an edge must compute the same numbers: start from its smaller end
        swap = (p[:, 0] > q[:, 0]) | ((p[:, 0] == q[:, 0]) & (p[:, 1] > q[:, 1]))
        a, b = np.where(swap[:, None], q, p), np.where(swap[:, None], p, q)
        side = (b[:, 0] - a[:, 0]) * (j - a[:, 1]) - (b[:, 1] - a[:, 1]) * (i - a[:, 0])
        weights.append(np.where(swap, -side, side))
    weights = np.stack(weights, -1)
    inside = np.all(weights > 0, -1) | np.all(weights < 0, -1)
    total = np.where(inside, weights.sum(-1), 1.0)
    height = (weights[:, 0] * corners[:, 2, 2] + weights[:, 1] * corners[:, 0, 2] + weights[:, 2] * corners[:, 1, 2]) / total
    return inside, height, -np.sign(total)


def distance_of_cells(grid: VoxelGrid) -> VoxelGrid:
    """Signed distance (m) to the boundary of the solid cells, between cell centres: accurate to about a cell.

    Raises ValueError for a grid that is all solid or all empty.
    """
    solid = grid.inside()
    if solid.all() or not solid.any():
        raise ValueError(
            f"distance_of_cells: {int(solid.sum())} of {solid.size} cells are solid; needed both solid and empty cells"
        )
    outside, depth = (np.asarray(scipy.ndimage.distance_transform_edt(part)) for part in (~solid, solid))
    cells = np.where(solid, 0.5 - depth, outside - 0.5)
    return grid.like((grid.spacing * cells).astype(np.float32), "distance")


def to_mesh(grid: VoxelGrid, colour: tuple[float, float, float] = (0.5, 0.5, 0.5)) -> Mesh:
    """Watertight marching cubes: a distance at 0, an occupancy or density smoothed by one cell at half its level.

    The grid is padded with one empty cell, so that solids at its border are closed. Raises ValueError for a grid that is
    all solid or all empty, ModuleNotFoundError without scikit-image.
    """
    if grid.kind == "distance":
        values = np.asarray(grid.values, np.float64)
        values = np.pad(values, 1, constant_values=max(float(np.abs(values).max()), grid.spacing))
    else:
        values = 0.5 - np.pad(np.asarray(_solid_fraction(grid), np.float64), 2)
        values = scipy.ndimage.gaussian_filter(values, 0.7, mode="nearest")[1:-1, 1:-1, 1:-1]
    if not (values < 0).any():
        raise ValueError(f"to_mesh: no cell of {grid.values.shape} is solid; needed some")
    measure = extra("skimage.measure")
    # values exactly at the level would give faces without area
    values = np.where(np.abs(values) < 1e-7 * np.abs(values).max(), 1e-7 * np.abs(values).max(), values)
    vertices, faces, _, _ = measure.marching_cubes(values, 0.0, gradient_direction="ascent")
    vertices = np.asarray(grid.origin, np.float64) + grid.spacing * (vertices.astype(np.float64) - 1.0)
    mesh = Mesh(vertices, faces.astype(np.int64), np.broadcast_to(np.asarray(colour, np.float64), vertices.shape))
    return mesh if mesh.volume > 0 else dataclasses.replace(mesh, faces=mesh.faces[:, ::-1])


def _solid_fraction(grid: VoxelGrid) -> np.ndarray:
    """Solid fraction of each cell, 0..1."""
    return np.asarray(probability(np.asarray(grid.values), grid.spacing)) if grid.kind == "density" else grid.inside()


def parts(grid: VoxelGrid) -> list[Float[np.ndarray, "n 3"]]:
    """Surface points (m) between solid and empty cells, for every connected solid part, largest part first.

    Values are interpolated linearly between centres: a distance crosses 0, a solid fraction 1/2. At the border of the grid, and
    for an occupancy, the crossing is half-way.
    """
    solid = np.pad(grid.inside(), 1)
    label, count = scipy.ndimage.label(solid)  # type: ignore[misc]
    level = np.asarray(grid.values if grid.kind == "distance" else 0.5 - np.asarray(_solid_fraction(grid)), np.float64)
    crossing, cell = zero_crossings(np.pad(level, 1, constant_values=np.inf))
    part = label[tuple(cell.T)]
    points = np.asarray(grid.origin, np.float64) + grid.spacing * (crossing - 1)
    order = np.argsort(-np.bincount(label[solid], minlength=count + 1)[1:], kind="stable") + 1
    return [points[part == i] for i in order]


def iou(a: VoxelGrid, b: VoxelGrid) -> float:
    """Intersection over union of two solids on the same cells; 1 if both are empty."""
    first, second = a.inside(), b.inside()
    union = np.sum(first | second)
    return float(np.sum(first & second) / union) if union else 1.0
