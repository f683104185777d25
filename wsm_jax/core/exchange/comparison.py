"""Comparison of two representations of one scene: Chamfer-L1 of their surfaces and IoU of their solids."""

import dataclasses

import numpy as np

from wsm_jax.core.exchange import voxels
from wsm_jax.core.exchange.conversion import Options, Representation, convert, form
from wsm_jax.core.exchange.points import PointCloud
from wsm_jax.core.exchange.splats import Splats
from wsm_jax.core.exchange.voxels import VoxelGrid
from wsm_jax.core.fitting import compare
from wsm_jax.core.mesh import Mesh, open_edges, welded
from wsm_jax.snapshot import Waves

SAMPLES = 20_000
"""Number of points per surface in a comparison; larger clouds are thinned evenly."""


def surface_points(shape: Representation, options: Options) -> np.ndarray:
    """At most SAMPLES points on the surface of a representation, or of its own points."""
    quiet = dataclasses.replace(options, samples=SAMPLES, notes=[])
    shape = as_solid(shape, options)
    if isinstance(shape, VoxelGrid):
        shape = convert(shape, "mesh", quiet)
    cloud = convert(shape, "points", quiet)
    assert isinstance(cloud, PointCloud)
    points = np.asarray(cloud.points, np.float64)
    return points[np.linspace(0, len(points) - 1, min(len(points), SAMPLES)).astype(int)]


def chamfer(a: Representation, b: Representation, options: Options) -> float:
    """Chamfer-L1 (m) between two surfaces, with independent samples; clouds, and splats on surfaces, are their points."""
    other = dataclasses.replace(options, seed=options.seed + 1)
    again = dataclasses.replace(other, seed=other.seed + 1)
    return compare.chamfer(surface_points(a, other), surface_points(b, again))["l1"]


def as_solid(shape: Representation, options: Options) -> Representation:
    """Convert solid splats to waves, if `max_waves` permits one wave per splat; return everything else unchanged."""
    if isinstance(shape, Splats) and options.splats == "moments" and len(np.asarray(shape.means)) <= options.max_waves:
        waves = convert(shape, "waves", dataclasses.replace(options, notes=[]))
        if isinstance(waves, Waves) and waves.count == len(np.asarray(shape.means)):
            return waves
    return shape


def spread(shape: Representation, options: Options) -> tuple[float, str]:
    """Noise floor of `chamfer` (m), between two samplings of one representation, and a description of the method.

    A cloud has only one sampling: its points are split into two halves of half the density.
    """
    shape = as_solid(shape, options)
    if not isinstance(shape, PointCloud | Splats):
        return chamfer(shape, shape, options), "two samplings of the input"
    points = np.random.default_rng(options.seed).permutation(surface_points(shape, options))
    if len(points) < 2:
        return 0.0, "one point"
    return compare.chamfer(points[::2], points[1::2])["l1"], "two halves of the input's points"


def is_solid(shape: Representation) -> bool:
    """True for representations with an inside: waves, grids and closed meshes."""
    return isinstance(shape, Waves | VoxelGrid) or (isinstance(shape, Mesh) and not open_edges(welded(shape).faces))


def box(shape: Representation) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner of a solid, m. Raises ValueError for an empty grid, TypeError for points and splats."""
    if isinstance(shape, Waves):
        low, high = voxels.world_bounds(shape)
        return low.min(0), high.max(0)
    if isinstance(shape, Mesh):
        used = np.asarray(shape.vertices)[np.unique(np.asarray(shape.faces))]
        return used.min(0), used.max(0)
    if isinstance(shape, VoxelGrid):
        solid = np.argwhere(shape.inside())
        if not len(solid):
            raise ValueError(f"box: no cell of {shape.values.shape} is solid; needed one or more")
        low = np.asarray(shape.origin) + shape.spacing * (solid.min(0) - 0.5)
        return low, low + shape.spacing * (np.ptp(solid, axis=0) + 1)
    raise TypeError(f"box: {form(shape)} is no solid")


def iou(a: Representation, b: Representation, options: Options, resolution: int) -> float | None:
    """Intersection over union on `resolution` cells along the longest side of the common box; None unless both are solids."""
    a, b = as_solid(a, options), as_solid(b, options)
    if isinstance(a, PointCloud | Splats) or isinstance(b, PointCloud | Splats) or not (is_solid(a) and is_solid(b)):
        return None
    boxes = box(a), box(b)
    grid = voxels.frame(np.minimum(boxes[0][0], boxes[1][0]), np.maximum(boxes[0][1], boxes[1][1]), resolution)
    return voxels.iou(_on(a, grid), _on(b, grid))


def _on(shape: Representation, grid: VoxelGrid) -> VoxelGrid:
    """Resample a solid onto the cells of another grid."""
    if isinstance(shape, Waves):
        return voxels.occupancy_of_waves(shape, grid)
    if isinstance(shape, Mesh):
        return voxels.occupancy_of_mesh(welded(shape), grid)
    assert isinstance(shape, VoxelGrid)
    index = np.rint((grid.points - np.asarray(shape.origin)) / shape.spacing).astype(int)
    inside = np.all((index >= 0) & (index < shape.values.shape), -1)
    values = np.zeros(len(index), np.uint8)
    values[inside] = shape.inside()[tuple(index[inside].T)]
    return grid.like(values.reshape(grid.values.shape), "occupancy")
