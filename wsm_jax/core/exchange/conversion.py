"""Conversion between representations of a scene: single steps, and the shortest path through them.

The forms are waves, points, mesh, voxels, distance, density and splats. A step that approximates or drops data appends a line
to `notes`.
"""

import dataclasses
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np

from wsm_jax.core.exchange import points, splats, tessellation, voxels
from wsm_jax.core.exchange.points import PointCloud
from wsm_jax.core.exchange.splats import Splats
from wsm_jax.core.exchange.voxels import VoxelGrid
from wsm_jax.core.fitting import observations, sets
from wsm_jax.core.mesh import Mesh, connected, joined, open_edges, welded
from wsm_jax.core.superquadric import EXPONENT_RANGE
from wsm_jax.snapshot import Waves

Representation = Waves | PointCloud | Mesh | VoxelGrid | Splats

_GREY = (0.5, 0.5, 0.5)
_SPLAT_MODES = ("moments", "surface")
_PART_POINTS, _POINTS_OF_A_PART = 65536, 2048


MOST_SPLATS = 1_000_000
"""Maximum number of points that become splats."""


@dataclasses.dataclass
class Options:
    """Options of the conversion steps. Raises ValueError for values out of range."""

    samples: int
    """Number of points of a sampled surface."""
    resolution: int
    """Cells along the longest side of a grid."""
    detail: int
    """Cells along an edge of the cube that is mapped onto a wave (tessellation.cube)."""
    max_waves: int
    """Maximum number of waves of a conversion."""
    splats: str
    """"moments": one splat per wave, and one wave per splat; "surface": splats lie on the surface."""
    seed: int
    """Seed of the sampled points."""
    waves_per_object: int = 16
    """Maximum number of waves of one fitted object."""
    complete: bool = True
    """True if point clouds cover their objects on all sides."""
    notes: list[str] = dataclasses.field(default_factory=list)
    """Approximations made so far."""

    def __post_init__(self) -> None:
        ranges = {"samples": (16, 10**7), "resolution": (4, 512), "detail": (2, 256)}
        ranges |= {"max_waves": (1, 65536), "waves_per_object": (1, 64)}
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(f"{name}={getattr(self, name)}; needed {low} to {high}")
        if self.detail % 2:
            raise ValueError(f"detail={self.detail}; needed an even number")
        if self.splats not in _SPLAT_MODES:
            raise ValueError(f"splats={self.splats!r}; needed one of {_SPLAT_MODES}")


def form(shape: Representation) -> str:
    """Name of the form of a representation."""
    if isinstance(shape, VoxelGrid):
        return {"occupancy": "voxels"}.get(shape.kind, shape.kind)
    return {Waves: "waves", PointCloud: "points", Mesh: "mesh", Splats: "splats"}[type(shape)]


def scaled(shape: Representation, factor: float) -> Representation:
    """Multiply all lengths by a factor, to convert other units to metres."""
    match shape:
        case VoxelGrid():
            per = {"distance": factor, "density": 1.0 / factor}.get(shape.kind)
            values = np.asarray(shape.values) if per is None else np.asarray(shape.values) * per
            return dataclasses.replace(
                shape, values=values, origin=np.asarray(shape.origin) * factor, spacing=shape.spacing * factor
            )
        case Waves():
            names = ("centre", "scale", "velocity")
        case Splats():
            names = ("means", "sigma")
        case PointCloud():
            names = ("points",)
        case _:
            names = ("vertices",)
    return dataclasses.replace(shape, **{name: np.asarray(getattr(shape, name)) * factor for name in names})


def length(shape: Representation) -> float:
    """Longest side (m) of the bounding box of the points or centres."""
    if isinstance(shape, VoxelGrid):
        return float(shape.spacing * max(shape.values.shape))
    name = {"waves": "centre", "splats": "means", "points": "points", "mesh": "vertices"}[form(shape)]
    points = np.asarray(getattr(shape, name), np.float64)
    return float(np.ptp(points, axis=0).max()) if len(points) else 0.0


def checked(waves: Waves, source: str) -> Waves:
    """The present waves [N]. Raises ValueError for none, degenerate or distant waves, or exponents out of range."""
    keep = np.asarray(waves.presence) > 0.5
    if not keep.any():
        raise ValueError(f"{source}: none of its {keep.size} waves has a presence above 1/2; needed one")
    waves = Waves(**{f.name: np.asarray(getattr(waves, f.name))[keep] for f in dataclasses.fields(Waves)})
    low, high = EXPONENT_RANGE
    exponents, scale = np.asarray(waves.exponents), np.asarray(waves.scale)
    if exponents.min() < low - 1e-6 or exponents.max() > high + 1e-6:
        raise ValueError(f"{source}: exponents {exponents.min():g}..{exponents.max():g}; needed {low}..{high}")
    thin = scale.min(-1) / scale.max(-1)
    if scale.min() < 1e-6 or scale.max() > 1e6 or thin.min() < 1e-5:
        raise ValueError(
            f"{source}: semi-axes {scale.min():g}..{scale.max():g} m, the thinnest wave 1:{1 / max(thin.min(), 1e-30):.3g}; "
            "needed 1e-6..1e6 m, and 1:100000 at most"
        )
    if np.abs(np.asarray(waves.centre)).max() > 1e6:
        raise ValueError(f"{source}: a centre {np.abs(np.asarray(waves.centre)).max():g} m away; needed 1e6 m at most")
    return waves


def _waves_to_mesh(waves: Waves, options: Options) -> Mesh:
    return joined(tessellation.tessellate(waves, options.detail)[0])


def _waves_to_points(waves: Waves, options: Options) -> PointCloud:
    """Points on the outer surface: sampled by area on meshes, projected onto the waves, without those inside others."""
    meshes, _ = tessellation.tessellate(waves, options.detail)
    whole = joined(meshes)
    # each sample carries its wave as its "colour"
    owner = np.repeat(np.arange(len(meshes), dtype=np.float64), len(meshes[0].vertices))
    marked = Mesh(whole.vertices, whole.faces, np.repeat(owner[:, None], 3, 1))
    cloud = points.sample_mesh(marked, options.samples, options.seed)
    wave = np.rint(np.asarray(cloud.colours)[:, 0]).astype(int)
    projected, normals = tessellation.projected(waves, wave, np.asarray(cloud.points))
    outer = ~voxels.inside_waves(waves, projected, level=-1e-4, skip=wave)
    return PointCloud(projected, normals, np.asarray(waves.colour, np.float64)[wave])[outer]


def _waves_to_voxels(waves: Waves, options: Options) -> VoxelGrid:
    return voxels.occupancy_of_waves(waves, _frame(waves, options))


def _waves_to_distance(waves: Waves, options: Options) -> VoxelGrid:
    return voxels.distance_of_waves(waves, _frame(waves, options))


def _waves_to_density(waves: Waves, options: Options) -> VoxelGrid:
    options.notes.append("density: the edge of a wave is softened over a quarter of a cell")
    return voxels.density_of_waves(waves, _frame(waves, options))


def _frame(waves: Waves, options: Options) -> VoxelGrid:
    low, high = voxels.world_bounds(waves)
    return voxels.frame(low.min(0), high.max(0), options.resolution)


def _waves_to_splats(waves: Waves, options: Options) -> Splats:
    if options.splats == "surface":
        area = sum(float(mesh.areas.sum()) for mesh in tessellation.tessellate(waves, options.detail)[0])
        cloud = _waves_to_points(waves, options)
        return splats.from_surface(cloud, area * len(cloud.points) / options.samples)
    if np.any(np.abs(np.asarray(waves.exponents) - 1.0) > 1e-3):
        options.notes.append("splats: a wave that is not an ellipsoid becomes the Gaussian with its second moments")
    return splats.from_moments(waves)


def _points_to_waves(cloud: PointCloud, options: Options) -> Waves:
    if options.complete:
        options.notes.append("waves: assumes that the points cover the objects on all sides")
    seen = observations.from_points(
        cloud.points, colour=np.asarray(cloud.colours), complete=options.complete, seed=options.seed
    )
    return _fitted(seen, options, None, len(cloud.points))


def _fitted(cloud: observations.Cloud, options: Options, noise: float | None, total: int) -> Waves:
    """Fit a set of waves to a cloud, subsampled from `total` points; unexplained points go into the notes."""
    each = min(options.waves_per_object, options.max_waves)
    fit = sets.fit_set(cloud, noise=noise, max_waves=options.max_waves, max_waves_per_object=each)
    explained = fit.owner >= 0
    off = float(np.sqrt(np.mean(np.square(fit.residual[explained])))) if explained.any() else float("nan")
    options.notes.append(
        f"waves: {len(fit.instance)} waves of {len(set(fit.instance.tolist()))} objects, fitted to {len(cloud.points)} of "
        f"{total} points, {off:.3g} m off (rms)"
    )
    if not explained.all():
        options.notes.append(f"waves: {np.count_nonzero(~explained)} points belong to no object that is large enough")
    return sets.to_waves(fit, cloud)


def _points_to_splats(cloud: PointCloud, options: Options) -> Splats:
    options.notes.append("splats: half the spread of the 8 nearest neighbours of each point")
    count = len(np.asarray(cloud.points))
    if count > MOST_SPLATS:
        options.notes.append(f"splats: {MOST_SPLATS} points of {count}, drawn with seed {options.seed}")
        cloud = cloud[np.sort(np.random.default_rng(options.seed).choice(count, MOST_SPLATS, replace=False))]
    return splats.from_points(cloud)


def _mesh_to_points(mesh: Mesh, options: Options) -> PointCloud:
    return points.sample_mesh(mesh, options.samples, options.seed)


def _mesh_to_splats(mesh: Mesh, options: Options) -> Splats:
    return splats.from_faces(mesh)


def _mesh_to_voxels(mesh: Mesh, options: Options) -> VoxelGrid:
    return voxels.occupancy_of_mesh(*_solid(mesh, options))


def _mesh_to_distance(mesh: Mesh, options: Options) -> VoxelGrid:
    return voxels.distance_of_mesh(*_solid(mesh, options))


def _solid(mesh: Mesh, options: Options) -> tuple[Mesh, VoxelGrid]:
    """The welded mesh and an empty grid around it. Raises ValueError for an open mesh."""
    mesh = welded(mesh)
    if gaps := open_edges(np.asarray(mesh.faces)):
        raise ValueError(f"the mesh is not watertight: {gaps} edges without their opposite; needed a closed mesh for a solid")
    used = np.asarray(mesh.vertices)[np.unique(np.asarray(mesh.faces))]
    return mesh, voxels.frame(used.min(0), used.max(0), options.resolution)


def _mesh_to_waves(mesh: Mesh, options: Options) -> Waves:
    """Waves for every connected part, an object each."""
    mesh = welded(mesh)
    pieces = connected(mesh)
    if len(pieces) > options.max_waves:
        options.notes.append(f"waves: the {options.max_waves} parts of largest area, of {len(pieces)}")
        order = np.argsort([-piece.areas.sum() for piece in pieces], kind="stable")[: options.max_waves]
        pieces = [pieces[i] for i in sorted(order)]
    each = max(_PART_POINTS // len(pieces), 64)
    each = min(each, _POINTS_OF_A_PART)
    clouds = [points.sample_mesh(piece, each, options.seed) for piece in pieces]
    closed = open_edges(np.asarray(mesh.faces)) == 0
    if not closed:
        options.notes.append("waves: the mesh is not watertight, so the space around it counts for nothing")
    return _fitted(_labelled(clouds, closed), options, 0.0, each * len(clouds))


def _labelled(clouds: list[PointCloud], complete: bool) -> observations.Cloud:
    """Several objects in one cloud."""
    label = np.repeat(np.arange(1, len(clouds) + 1), [len(cloud.points) for cloud in clouds])
    places = np.concatenate([np.asarray(cloud.points) for cloud in clouds])
    colours = np.concatenate([np.asarray(cloud.colours) for cloud in clouds])
    return observations.from_points(places, label, colours, complete=complete, limit=_PART_POINTS)


def _grid_to_waves(grid: VoxelGrid, options: Options) -> Waves:
    """Fit waves to every connected solid part, as one object each."""
    pieces = [piece for piece in voxels.parts(grid) if len(piece) >= sets.MIN_LABELLED_POINTS]
    if not pieces:
        raise ValueError(f"no solid part of 3 cells or more in a grid of {grid.values.shape}; needed one")
    if len(pieces) > options.max_waves:
        options.notes.append(f"waves: the {options.max_waves} largest solid parts, of {len(pieces)}")
    rng = np.random.default_rng(options.seed)
    total = sum(len(piece) for piece in pieces)
    most = max(_PART_POINTS // len(pieces), 64)
    pieces = [rng.permutation(piece)[:most] for piece in pieces[: options.max_waves]]
    grey = [PointCloud(p, np.zeros_like(p), np.full_like(p, 0.5)) for p in pieces]
    # zero crossings of a distance lie on its surface; other crossings are off by up to half a cell, uniformly distributed
    noise = 0.0 if grid.kind == "distance" else float(grid.spacing) / np.sqrt(12.0)
    return _fitted(_labelled(grey, True), options, noise, total)


def _grid_to_mesh(grid: VoxelGrid, options: Options) -> Mesh:
    options.notes.append(f"mesh: marching cubes on {'x'.join(map(str, grid.values.shape))} cells of {grid.spacing:.4g} m")
    return voxels.to_mesh(grid, _GREY)


def _grid_to_voxels(grid: VoxelGrid, options: Options) -> VoxelGrid:
    return grid.like(grid.inside().astype(np.uint8), "occupancy")


def _voxels_to_distance(grid: VoxelGrid, options: Options) -> VoxelGrid:
    options.notes.append(f"distance: between centres of cells, right to about a cell ({grid.spacing:.4g} m)")
    return voxels.distance_of_cells(grid)


def _voxels_to_density(grid: VoxelGrid, options: Options) -> VoxelGrid:
    """Density that absorbs 99.9 % of the light within a solid cell."""
    options.notes.append("density: a solid cell absorbs all but a thousandth of the light")
    return grid.like((grid.inside() * (np.log(1e3) / grid.spacing)).astype(np.float32), "density")


def _splats_to_points(cloud: Splats, options: Options) -> PointCloud:
    means = np.asarray(cloud.means)
    return PointCloud(means, np.zeros_like(means), np.asarray(cloud.colours))


def _splats_to_waves(cloud: Splats, options: Options) -> Waves:
    kept = splats.largest(cloud, options.max_waves)
    if len(kept.means) < len(cloud.means):
        options.notes.append(f"waves: the {len(kept.means)} splats of greatest opacity times volume, of {len(cloud.means)}")
    faint = int(np.sum(np.asarray(kept.opacity) <= 0.5))
    if faint:
        options.notes.append(f"waves: {faint} splats of opacity 1/2 or less become waves that are not present")
    options.notes.append("waves: one ellipsoid per splat, with its second moments")
    return splats.to_waves(kept)


def _splats_to_surface_waves(cloud: Any, options: Options) -> Waves:
    return _points_to_waves(_splats_to_points(cloud, options), options)


Step = Callable[[Any, Options], Representation]

STEPS: dict[tuple[str, str], Step] = {
    ("waves", "points"): _waves_to_points,
    ("waves", "mesh"): _waves_to_mesh,
    ("waves", "voxels"): _waves_to_voxels,
    ("waves", "distance"): _waves_to_distance,
    ("waves", "density"): _waves_to_density,
    ("waves", "splats"): _waves_to_splats,
    ("points", "waves"): _points_to_waves,
    ("points", "splats"): _points_to_splats,
    ("mesh", "points"): _mesh_to_points,
    ("mesh", "splats"): _mesh_to_splats,
    ("mesh", "voxels"): _mesh_to_voxels,
    ("mesh", "distance"): _mesh_to_distance,
    ("mesh", "waves"): _mesh_to_waves,
    ("voxels", "mesh"): _grid_to_mesh,
    ("voxels", "distance"): _voxels_to_distance,
    ("voxels", "density"): _voxels_to_density,
    ("voxels", "waves"): _grid_to_waves,
    ("distance", "mesh"): _grid_to_mesh,
    ("distance", "voxels"): _grid_to_voxels,
    ("distance", "waves"): _grid_to_waves,
    ("density", "mesh"): _grid_to_mesh,
    ("density", "voxels"): _grid_to_voxels,
    ("density", "waves"): _grid_to_waves,
    ("splats", "points"): _splats_to_points,
    ("splats", "waves"): _splats_to_waves,
}
"""(from, to) -> step."""


def route(start: str, goal: str) -> list[str]:
    """The forms on the shortest path, including both ends. Raises ValueError if there is no path."""
    queue, before = deque([start]), {start: start}
    while queue:
        current = queue.popleft()
        for source, target in STEPS:
            if source == current and target not in before:
                before[target] = current
                queue.append(target)
    if goal not in before:
        raise ValueError(f"no path from {start} to {goal}; the forms are {sorted({name for pair in STEPS for name in pair})}")
    path = [goal]
    while path[-1] != start:
        path.append(before[path[-1]])
    return path[::-1]


def convert(shape: Representation, goal: str, options: Options) -> Representation:
    """Convert a representation to another form, along `route`. Raises ValueError if a step fails."""
    path = route(form(shape), goal)
    for source, target in itertools.pairwise(path):
        on_surface = (source, target, options.splats) == ("splats", "waves", "surface")
        steps: dict[tuple[str, str], Step] = STEPS | {("splats", "waves"): _splats_to_surface_waves} if on_surface else STEPS
        shape = steps[source, target](shape, options)
    return shape
