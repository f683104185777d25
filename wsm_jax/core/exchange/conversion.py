"""Every form of a scene into every other: single steps, and the shortest way through them.

The forms are waves, points, mesh, voxels, distance, density and splats. A step that is no closed form appends a line to `notes`
that names the approximation, so that nothing is bounded or simplified in silence.
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
from wsm_jax.core.exchange.voxels import Grid
from wsm_jax.core.fitting import observations, sets
from wsm_jax.core.mesh import Mesh, connected, joined, open_edges, welded
from wsm_jax.core.superquadric import EXPONENT_RANGE
from wsm_jax.snapshot import Waves

Thing = Waves | PointCloud | Mesh | Grid | Splats

_GREY = (0.5, 0.5, 0.5)
_SPLAT_MODES = ("moments", "surface")
_PART_POINTS, _POINTS_OF_A_PART = 65536, 2048


MOST_SPLATS = 1_000_000
"""Points of a cloud that become splats, at most."""


@dataclasses.dataclass
class Options:
    """What the steps need to know."""

    samples: int
    """Points of a sampled surface."""
    resolution: int
    """Cells along the longest side of a grid."""
    detail: int
    """Cells along an edge of the cube that is laid onto a wave (tessellation.cube)."""
    max_waves: int
    """Most waves that a conversion makes."""
    splats: str
    """"moments": one splat a wave, and one wave a splat; "surface": splats stand on the surface."""
    seed: int
    """Of the sampled points."""
    waves_per_object: int = 16
    """Most waves of one object that is fitted."""
    complete: bool = True
    """Whether a cloud of points covers its objects on all sides."""
    notes: list[str] = dataclasses.field(default_factory=list)
    """Approximations that were made."""

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


def form(thing: Thing) -> str:
    """Name of the form of a thing."""
    if isinstance(thing, Grid):
        return {"occupancy": "voxels"}.get(thing.kind, thing.kind)
    return {Waves: "waves", PointCloud: "points", Mesh: "mesh", Splats: "splats"}[type(thing)]


def scaled(thing: Thing, factor: float) -> Thing:
    """The thing with all lengths times a factor: brings other units to metres."""
    match thing:
        case Grid():
            per = {"distance": factor, "density": 1.0 / factor}.get(thing.kind)
            values = np.asarray(thing.values) if per is None else np.asarray(thing.values) * per
            return dataclasses.replace(
                thing, values=values, origin=np.asarray(thing.origin) * factor, spacing=thing.spacing * factor
            )
        case Waves():
            names = ("centre", "scale", "velocity")
        case Splats():
            names = ("means", "sigma")
        case PointCloud():
            names = ("points",)
        case _:
            names = ("vertices",)
    return dataclasses.replace(thing, **{name: np.asarray(getattr(thing, name)) * factor for name in names})


def length(thing: Thing) -> float:
    """The longest side (m) of the box of the places of a thing."""
    if isinstance(thing, Grid):
        return float(thing.spacing * max(thing.values.shape))
    name = {"waves": "centre", "splats": "means", "points": "points", "mesh": "vertices"}[form(thing)]
    places = np.asarray(getattr(thing, name), np.float64)
    return float(np.ptp(places, axis=0).max()) if len(places) else 0.0


def checked(waves: Waves, source: str) -> Waves:
    """The present waves, at one instant. Raises ValueError for none, a degenerate scale or exponents out of range."""
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
    """Points on the outer surface: spread by area on fine meshes, put onto the waves exactly, without those inside others."""
    meshes, _ = tessellation.tessellate(waves, options.detail)
    whole = joined(meshes)
    # each sample carries its wave as its "colour"
    owner = np.repeat(np.arange(len(meshes), dtype=np.float64), len(meshes[0].vertices))
    marked = Mesh(whole.vertices, whole.faces, np.repeat(owner[:, None], 3, 1))
    cloud = points.sample_mesh(marked, options.samples, options.seed)
    wave = np.rint(np.asarray(cloud.colours)[:, 0]).astype(int)
    place, normals = tessellation.onto(waves, wave, np.asarray(cloud.points))
    outer = ~voxels.inside_waves(waves, place, level=-1e-4, skip=wave)
    return PointCloud(place, normals, np.asarray(waves.colour, np.float64)[wave])[outer]


def _waves_to_voxels(waves: Waves, options: Options) -> Grid:
    return voxels.occupancy_of_waves(waves, _frame(waves, options))


def _waves_to_distance(waves: Waves, options: Options) -> Grid:
    return voxels.distance_of_waves(waves, _frame(waves, options))


def _waves_to_density(waves: Waves, options: Options) -> Grid:
    options.notes.append("density: the edge of a wave is softened over a quarter of a cell")
    return voxels.density_of_waves(waves, _frame(waves, options))


def _frame(waves: Waves, options: Options) -> Grid:
    low, high = voxels.world_bounds(waves)
    return voxels.frame(low.min(0), high.max(0), options.resolution)


def _waves_to_splats(waves: Waves, options: Options) -> Splats:
    if options.splats == "surface":
        area = sum(float(mesh.areas.sum()) for mesh in tessellation.tessellate(waves, options.detail)[0])
        cloud = _waves_to_points(waves, options)
        return splats.from_surface(cloud, area * len(cloud.points) / options.samples)
    if np.any(np.abs(np.asarray(waves.exponents) - 1.0) > 1e-3):
        options.notes.append("splats: a wave that is no ellipsoid becomes the Gaussian with its second moments")
    return splats.from_moments(waves)


def _points_to_waves(cloud: PointCloud, options: Options) -> Waves:
    if options.complete:
        options.notes.append("waves: the points are taken to cover the objects on all sides")
    seen = observations.from_points(
        cloud.points, colour=np.asarray(cloud.colours), complete=options.complete, seed=options.seed
    )
    return _fitted(seen, options, None, len(cloud.points))


def _fitted(cloud: observations.Cloud, options: Options, noise: float | None, given: int) -> Waves:
    """A set of waves through a cloud of points, kept from `given` ones; what it leaves out goes into the notes."""
    each = min(options.waves_per_object, options.max_waves)
    found = sets.fit_set(cloud, noise=noise, most=options.max_waves, most_per_object=each)
    explained = found.owner >= 0
    off = float(np.sqrt(np.mean(np.square(found.residual[explained])))) if explained.any() else float("nan")
    options.notes.append(
        f"waves: {len(found.instance)} waves of {len(set(found.instance.tolist()))} objects, fitted to {len(cloud.points)} of "
        f"{given} points, {off:.3g} m off (rms)"
    )
    if not explained.all():
        options.notes.append(f"waves: {np.count_nonzero(~explained)} points belong to no object that is large enough")
    return sets.to_waves(found, cloud)


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


def _mesh_to_voxels(mesh: Mesh, options: Options) -> Grid:
    return voxels.occupancy_of_mesh(*_solid(mesh, options))


def _mesh_to_distance(mesh: Mesh, options: Options) -> Grid:
    return voxels.distance_of_mesh(*_solid(mesh, options))


def _solid(mesh: Mesh, options: Options) -> tuple[Mesh, Grid]:
    """The mesh with its vertices welded, and the cells for it. Raises ValueError for an open one."""
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


def _grid_to_waves(grid: Grid, options: Options) -> Waves:
    """Waves for every connected solid part, an object each."""
    pieces = [piece for piece in voxels.parts(grid) if len(piece) >= sets.LABELLED_POINTS]
    if not pieces:
        raise ValueError(f"no solid part of 3 cells or more in a grid of {grid.values.shape}; needed one")
    if len(pieces) > options.max_waves:
        options.notes.append(f"waves: the {options.max_waves} largest solid parts, of {len(pieces)}")
    rng = np.random.default_rng(options.seed)
    given = sum(len(piece) for piece in pieces)
    most = max(_PART_POINTS // len(pieces), 64)
    pieces = [rng.permutation(piece)[:most] for piece in pieces[: options.max_waves]]
    grey = [PointCloud(p, np.zeros_like(p), np.full_like(p, 0.5)) for p in pieces]
    # the points of a distance lie on its surface; others are up to half a cell off, all values alike
    noise = 0.0 if grid.kind == "distance" else float(grid.spacing) / np.sqrt(12.0)
    return _fitted(_labelled(grey, True), options, noise, given)


def _grid_to_mesh(grid: Grid, options: Options) -> Mesh:
    options.notes.append(f"mesh: marching cubes on {'x'.join(map(str, grid.values.shape))} cells of {grid.spacing:.4g} m")
    return voxels.to_mesh(grid, _GREY)


def _grid_to_voxels(grid: Grid, options: Options) -> Grid:
    return grid.like(grid.inside().astype(np.uint8), "occupancy")


def _voxels_to_distance(grid: Grid, options: Options) -> Grid:
    options.notes.append(f"distance: between centres of cells, right to about a cell ({grid.spacing:.4g} m)")
    return voxels.distance_of_cells(grid)


def _voxels_to_density(grid: Grid, options: Options) -> Grid:
    """What stops all but a thousandth of the light within a solid cell."""
    options.notes.append("density: a solid cell stops all but a thousandth of the light")
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
    options.notes.append("waves: one ellipsoid a splat, with its second moments")
    return splats.to_waves(kept)


def _splats_to_surface_waves(cloud: Any, options: Options) -> Waves:
    return _points_to_waves(_splats_to_points(cloud, options), options)


Step = Callable[[Any, Options], Thing]

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
"""(form, form) -> one step."""


def route(start: str, goal: str) -> list[str]:
    """The forms on the shortest way, both ends among them. Raises ValueError where there is none."""
    queue, before = deque([start]), {start: start}
    while queue:
        here = queue.popleft()
        for first, then in STEPS:
            if first == here and then not in before:
                before[then] = here
                queue.append(then)
    if goal not in before:
        raise ValueError(f"no way from {start} to {goal}; the forms are {sorted({name for pair in STEPS for name in pair})}")
    way = [goal]
    while way[-1] != start:
        way.append(before[way[-1]])
    return way[::-1]


def convert(thing: Thing, goal: str, options: Options) -> Thing:
    """The thing in another form, by `route`. Raises ValueError where a step cannot be taken."""
    way = route(form(thing), goal)
    for first, then in itertools.pairwise(way):
        on_surface = (first, then, options.splats) == ("splats", "waves", "surface")
        steps: dict[tuple[str, str], Step] = STEPS | {("splats", "waves"): _splats_to_surface_waves} if on_surface else STEPS
        thing = steps[first, then](thing, options)
    return thing
