"""How alike two forms of one scene are: Chamfer-L1 of their surfaces and IoU of their solids."""

import dataclasses

import numpy as np

from wsm_jax.core.exchange import voxels
from wsm_jax.core.exchange.conversion import Options, Thing, convert, form
from wsm_jax.core.exchange.points import PointCloud
from wsm_jax.core.exchange.splats import Splats
from wsm_jax.core.exchange.voxels import Grid
from wsm_jax.core.fitting import compare
from wsm_jax.core.mesh import Mesh, open_edges, welded
from wsm_jax.snapshot import Waves

SAMPLES = 20_000
"""Points of each surface that are compared: of a larger cloud, so many evenly picked ones."""


def surface_points(thing: Thing, options: Options) -> np.ndarray:
    """Points on the surface of a thing, or the points that it is, at most SAMPLES of them."""
    quiet = dataclasses.replace(options, samples=SAMPLES, notes=[])
    thing = bodies(thing, options)
    if isinstance(thing, Grid):
        thing = convert(thing, "mesh", quiet)
    found = convert(thing, "points", quiet)
    assert isinstance(found, PointCloud)
    places = np.asarray(found.points, np.float64)
    return places[np.linspace(0, len(places) - 1, min(len(places), SAMPLES)).astype(int)]


def chamfer(a: Thing, b: Thing, options: Options) -> float:
    """Chamfer-L1 (m) between the surfaces of two things, sampled apart; clouds, and splats on surfaces, are their points."""
    other = dataclasses.replace(options, seed=options.seed + 1)
    again = dataclasses.replace(other, seed=other.seed + 1)
    return compare.chamfer(surface_points(a, other), surface_points(b, again))["l1"]


def bodies(thing: Thing, options: Options) -> Thing:
    """Splats that are bodies as their waves, where these are not too many to be all kept; anything else as it is."""
    if isinstance(thing, Splats) and options.splats == "moments" and len(np.asarray(thing.means)) <= options.max_waves:
        waves = convert(thing, "waves", dataclasses.replace(options, notes=[]))
        if isinstance(waves, Waves) and waves.count == len(np.asarray(thing.means)):
            return waves
    return thing


def spread(thing: Thing, options: Options) -> tuple[float, str]:
    """What Chamfer-L1 (m) is between two samplings of one thing, and how that was found.

    Of a cloud there is one sampling: its points in two halves, so that each is half as dense.
    """
    thing = bodies(thing, options)
    if not isinstance(thing, PointCloud | Splats):
        return chamfer(thing, thing, options), "two samplings of the input"
    places = np.random.default_rng(options.seed).permutation(surface_points(thing, options))
    if len(places) < 2:
        return 0.0, "one point"
    return compare.chamfer(places[::2], places[1::2])["l1"], "two halves of the input's points"


def is_solid(thing: Thing) -> bool:
    """Whether a thing has an inside: waves, grids and closed meshes."""
    return isinstance(thing, Waves | Grid) or (isinstance(thing, Mesh) and not open_edges(welded(thing).faces))


def box(thing: Thing) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner of a solid, m."""
    if isinstance(thing, Waves):
        low, high = voxels.world_bounds(thing)
        return low.min(0), high.max(0)
    if isinstance(thing, Mesh):
        used = np.asarray(thing.vertices)[np.unique(np.asarray(thing.faces))]
        return used.min(0), used.max(0)
    if isinstance(thing, Grid):
        solid = np.argwhere(thing.inside())
        if not len(solid):
            raise ValueError(f"box: no cell of {thing.values.shape} is solid; needed some")
        low = np.asarray(thing.origin) + thing.spacing * (solid.min(0) - 0.5)
        return low, low + thing.spacing * (np.ptp(solid, axis=0) + 1)
    raise TypeError(f"box: {form(thing)} is no solid")


def iou(a: Thing, b: Thing, options: Options, resolution: int) -> float | None:
    """Intersection over union on `resolution` cells along the longest side of their common box; None where one is no solid."""
    a, b = bodies(a, options), bodies(b, options)
    if isinstance(a, PointCloud | Splats) or isinstance(b, PointCloud | Splats) or not (is_solid(a) and is_solid(b)):
        return None
    boxes = box(a), box(b)
    grid = voxels.frame(np.minimum(boxes[0][0], boxes[1][0]), np.maximum(boxes[0][1], boxes[1][1]), resolution)
    return voxels.iou(_on(a, grid), _on(b, grid))


def _on(thing: Thing, grid: Grid) -> Grid:
    """The solid on other cells."""
    if isinstance(thing, Waves):
        return voxels.occupancy_of_waves(thing, grid)
    if isinstance(thing, Mesh):
        return voxels.occupancy_of_mesh(welded(thing), grid)
    assert isinstance(thing, Grid)
    index = np.rint((grid.points - np.asarray(thing.origin)) / thing.spacing).astype(int)
    inside = np.all((index >= 0) & (index < thing.values.shape), -1)
    values = np.zeros(len(index), np.uint8)
    values[inside] = thing.inside()[tuple(index[inside].T)]
    return grid.like(values.reshape(grid.values.shape), "occupancy")
