"""Observations as world points, from a point cloud, a mesh, a signed distance grid, or posed depth; validated and size-limited.

Every function runs on the host (NumPy out; NumPy or JAX in) and raises ValueError for input that determines no shape, with what
it got and what it needs.
"""

import dataclasses
import logging
from typing import Any

import jax
import numpy as np
from scipy import ndimage
from scipy.spatial import KDTree

from wsm_jax.snapshot import Camera, quaternion_to_matrix
from wsm_jax.typing import Float, Int, NpOrJax

_LOG = logging.getLogger(__name__)

LIMIT = 65536
"""Maximum number of points kept of a cloud."""

DEPTH_RANGE_M = (0.02, 200.0)
"""Valid range of the median of a depth map."""


@dataclasses.dataclass(frozen=True)
class Cloud:
    """Points that lie on surfaces, in world coordinates."""

    points: Float[np.ndarray, "n 3"]
    """m, float32."""
    label: Int[np.ndarray, " n"]
    """Instance of every point, 1..; 0 where unlabelled."""
    viewpoint: Float[np.ndarray, "3"] | None = None
    """Position of the camera (m); None for several cameras or none."""
    spread: Float[np.ndarray, " n"] | None = None
    """Standard deviation of the measurement of each point (m), if known."""
    colour: Float[np.ndarray, "n 3"] | None = None
    """sRGB values of each point, 0..1, if known."""
    complete: bool = False
    """True if the points cover the surface on all sides, so that the space outside it is known to be empty."""

    def take(self, chosen: np.ndarray) -> "Cloud":
        """The points selected by an index or a mask."""
        spread, colour = (None if x is None else x[chosen] for x in (self.spread, self.colour))
        return dataclasses.replace(self, points=self.points[chosen], label=self.label[chosen], spread=spread, colour=colour)


def float32(values: Any) -> np.ndarray:
    """Values as a float32 array, never a NumPy scalar."""
    return np.asarray(values, np.float32)


def checked_points(points: NpOrJax, source: str, min_count: int = 4) -> np.ndarray:
    """Points as float32 [n 3]. Raises ValueError, naming `source`, for another shape, too few points, or non-finite values."""
    array = np.asarray(points)
    if array.ndim != 2 or array.shape[-1] != 3 or array.dtype.kind not in "fiu":
        raise ValueError(f"{source}: points of shape {array.shape} and type {array.dtype}; needed numbers [n, 3] in m")
    if len(array) < min_count:
        raise ValueError(f"{source}: {len(array)} points; needed {min_count} or more")
    finite = np.isfinite(array).all(-1)
    if not finite.all():
        raise ValueError(f"{source}: {np.count_nonzero(~finite)} of {len(array)} points are not finite; remove them first")
    if np.abs(array).max() > 1e6:
        raise ValueError(f"{source}: coordinates up to {np.abs(array).max():g}; needed metres, below 1e6")
    return array.astype(np.float32)


def extent(points: Float[np.ndarray, "n 3"], source: str, outliers: float = 0.0) -> tuple[np.ndarray, float]:
    """Median position and size (m; root mean square radius of the inliers) of points that span a surface in space.

    Raises ValueError for one point, a line, or a plane: they do not determine a wave (`fit_set` makes a thin one of a plane).
    """
    if len(points) < 4:
        raise ValueError(f"{source}: {len(points)} points with weight; needed 4 or more")
    middle = np.median(points, 0).astype(np.float64)
    offset = points - middle
    radius = np.linalg.norm(offset, axis=1)
    near = offset[radius <= np.quantile(radius, 1.0 - outliers) + 1e-12]
    deviation = np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov((near - near.mean(0)).T)), 0.0))[::-1]
    names = ("one point", "a line", "a plane")
    for rank in range(3):
        if deviation[rank] <= 1e-4 * deviation[0] + 1e-9 * (1.0 + np.abs(middle).max()):
            raise ValueError(
                f"{source}: {len(points)} points lie on {names[rank]} (standard deviations "
                f"{', '.join(f'{x:.3g}' for x in deviation)} m); needed points that span a surface in space"
            )
    return middle, float(np.sqrt(np.sum(deviation**2)))


def subsampled(cloud: Cloud, limit: int = LIMIT, seed: int = 0) -> Cloud:
    """A random subset of at most `limit` points, drawn without replacement by `seed`; logs a warning if points are dropped.

    Raises ValueError for a limit below 4.
    """
    if limit < 4:
        raise ValueError(f"subsampled: limit={limit}; needed 4 points or more")
    count = len(cloud.points)
    if count <= limit:
        return cloud
    _LOG.warning("kept %d of %d points (seed %d)", limit, count, seed)
    return cloud.take(np.sort(np.random.default_rng(seed).choice(count, limit, replace=False)))


def from_points(
    points: NpOrJax,
    label: NpOrJax | None = None,
    colour: NpOrJax | None = None,
    *,
    complete: bool = False,
    limit: int = LIMIT,
    seed: int = 0,
) -> Cloud:
    """A cloud of world points [n 3] (m), optionally with the instance (1.., 0 unknown) and colour (sRGB 0..1) of every point.

    Set `complete` if they cover the objects on all sides. Raises ValueError for bad shapes, labels or colours.
    """
    array = checked_points(points, "from_points")
    labels = np.zeros(len(array), np.int32) if label is None else np.asarray(label)
    if labels.shape != (len(array),) or labels.dtype.kind not in "iub" or np.any(labels < 0):
        raise ValueError(f"from_points: labels of shape {labels.shape}, {labels.dtype}; needed integers from 0, one per point")
    colours = None if colour is None else np.asarray(colour, np.float32)
    if colours is not None and colours.shape != array.shape:
        raise ValueError(f"from_points: colours of shape {colours.shape}; needed {array.shape}")
    _check_colour(colours, "from_points")
    return subsampled(Cloud(array, labels.astype(np.int32), colour=colours, complete=complete), limit, seed)


def _check_colour(colour: NpOrJax | None, source: str) -> None:
    """Raise ValueError for colours that are not sRGB in 0..1."""
    if colour is not None and not (np.min(colour, initial=0) >= 0 and np.max(colour, initial=1) <= 1):
        low, high = np.min(colour), np.max(colour)
        raise ValueError(f"{source}: colours {low:g}..{high:g}; needed sRGB in 0..1 (bytes: divide by 255)")


def from_mesh(vertices: NpOrJax, faces: NpOrJax, count: int = 8192, seed: int = 0) -> Cloud:
    """`count` points uniform by area on triangles: faces [m 3] index vertices [v 3] (m).

    Raises ValueError for faces with an index out of range, and for a mesh without area.
    """
    corners = checked_points(vertices, "from_mesh", 3)
    index = np.asarray(faces)
    if index.ndim != 2 or index.shape[1] != 3 or index.dtype.kind not in "iu" or not len(index):
        raise ValueError(f"from_mesh: faces of shape {index.shape} and type {index.dtype}; needed vertex indices [m, 3]")
    if index.min() < 0 or index.max() >= len(corners):
        raise ValueError(f"from_mesh: faces name vertices {index.min()}..{index.max()}; there are 0..{len(corners) - 1}")
    a, b, c = (corners[index[:, i]].astype(np.float64) for i in range(3))
    area = 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=1)
    if not area.sum() > 0:
        raise ValueError(f"from_mesh: {len(index)} triangles of area 0; needed a surface")
    rng = np.random.default_rng(seed)
    # evenly spaced quantiles spread the points better than independent draws
    quantile = (np.arange(count) + rng.random()) / count * area.sum()
    face = np.minimum(np.searchsorted(np.cumsum(area), quantile), len(area) - 1)
    root, share = np.sqrt(rng.random(count))[:, None], rng.random(count)[:, None]
    points = (1 - root) * a[face] + root * (1 - share) * b[face] + root * share * c[face]
    return Cloud(points.astype(np.float32), np.zeros(count, np.int32), complete=True)


def zero_crossings(values: Float[np.ndarray, "x y z"]) -> tuple[Float[np.ndarray, "n 3"], Int[np.ndarray, "n 3"]]:
    """Zero crossings on the edges of a grid, by linear interpolation, and the node on the negative side of each.

    Both in grid steps. Half-way along the edge if the value on one side is infinite.
    """
    parts = []
    for axis, unit in enumerate(np.eye(3, dtype=int)):
        first = np.take(values, range(values.shape[axis] - 1), axis)
        second = np.take(values, range(1, values.shape[axis]), axis)
        edge = np.argwhere((first < 0) != (second < 0))
        a, b = first[tuple(edge.T)], second[tuple(edge.T)]
        finite = np.isfinite(a) & np.isfinite(b)
        share = np.where(finite, a, 1.0) / np.where(finite, a - b, 2.0)
        parts.append((edge + share[:, None] * unit, edge + (b < 0)[:, None] * unit))
    positions, nodes = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return positions, nodes


def from_signed_distance(
    values: Float[NpOrJax, "x y z"], origin: NpOrJax, spacing: float, *, limit: int = LIMIT, seed: int = 0
) -> Cloud:
    """The zero crossings of a signed distance grid (m, negative inside): the intersections of grid edges and the surface.

    Node (i, j, k) lies at origin + spacing (i, j, k), m; along an edge the distance is linear. Raises ValueError for a grid
    without a sign change.
    """
    grid = np.asarray(values, np.float64)
    if grid.ndim != 3 or not np.isfinite(grid).all() or not spacing > 0:
        raise ValueError(
            f"from_signed_distance: shape {grid.shape}, spacing {spacing}; needed finite values [x, y, z] and m > 0"
        )
    points, _ = zero_crossings(grid)
    if not len(points):
        raise ValueError(
            f"from_signed_distance: values {grid.min():.3g}..{grid.max():.3g} m have no zero; needed a surface in the grid"
        )
    points = np.asarray(origin, np.float64) + spacing * points
    return from_points(points.astype(np.float32), limit=limit, seed=seed)


def checked_depth(depth: NpOrJax, source: str = "from_depth") -> np.ndarray:
    """A validated depth map [H W] in metres, 0 where unmeasured. Raises ValueError, with the range of its values."""
    array = np.asarray(depth)
    if array.ndim != 2:
        raise ValueError(f"{source}: depth of shape {array.shape}; needed [H, W]")
    valid = np.isfinite(array) & (array > 0)
    if not valid.any():
        raise ValueError(f"{source}: no pixel of {array.shape[0]} x {array.shape[1]} has a depth above 0")
    low, middle, high = (float(x) for x in np.quantile(array[valid], (0.0, 0.5, 1.0)))
    got = f"depths {low:.4g}..{high:.4g}, median {middle:.4g}, type {array.dtype}"
    if array.dtype.kind != "f":
        raise ValueError(f"{source}: {got}; needed float metres (divide a 16-bit map in mm by 1000)")
    if not DEPTH_RANGE_M[0] <= middle <= DEPTH_RANGE_M[1]:
        raise ValueError(
            f"{source}: {got}; needed metres, a median in {DEPTH_RANGE_M[0]:g}..{DEPTH_RANGE_M[1]:g} (is it mm or inverse?)"
        )
    return np.where(valid, array, 0.0).astype(np.float32)


def from_depth(
    depth: NpOrJax,
    camera: Camera,
    mask: NpOrJax | None = None,
    colour: NpOrJax | None = None,
    *,
    noise: float = 0.0,
    noise_per_square_metre: float = 0.0015,
    limit: int = LIMIT,
    seed: int = 0,
) -> Cloud:
    """The world points of a depth map [H W] along the optical axis (m; 0 or not finite: unmeasured).

    `mask` [H W] holds the instance of every pixel, 1.. ; 0 unknown; `colour` [H W 3] sRGB in 0..1. The standard deviation of a
    point is noise + noise_per_square_metre z^2 (m): a structured-light sensor measures disparity (Khoshelham and Elberink 2012:
    1.4 mm at 1 m). Raises ValueError for depth that is not in metres (see checked_depth), for a mask of another size, and for a
    mask without a pixel with depth.
    """
    z = checked_depth(depth)
    labels = np.zeros(z.shape, np.int32) if mask is None else np.asarray(mask)
    if labels.shape != z.shape or labels.dtype.kind not in "iub":
        raise ValueError(
            f"from_depth: mask of shape {labels.shape}, {labels.dtype}, depth {z.shape}; needed integers of the same shape"
        )
    if colour is not None and np.shape(colour) != (*z.shape, 3):
        raise ValueError(f"from_depth: colours of shape {np.shape(colour)} for depth {z.shape}; needed [H, W, 3]")
    seen = z > 0
    if mask is not None and not np.any(seen & (labels > 0)):
        raise ValueError("from_depth: the mask holds no pixel with a depth; needed instance ids 1.. on the objects")
    if mask is not None and np.any(labels < 0):
        raise ValueError(f"from_depth: mask with {labels.min()}; needed instance ids from 0")
    if not (0 <= noise < np.inf and 0 <= noise_per_square_metre < np.inf):
        got = f"noise={noise}, noise_per_square_metre={noise_per_square_metre}"
        raise ValueError(f"from_depth: {got}; needed both from 0, finite")
    lens = np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(camera)])
    if np.shape(camera.focal) != () or not np.isfinite(lens).all() or not camera.focal > 0:
        raise ValueError(f"from_depth: a camera with focal {camera.focal}; needed one finite camera, its focal above 0")
    _check_colour(colour, "from_depth")
    points = world_points(z, camera)[seen]
    spread = (noise + noise_per_square_metre * np.square(z[seen])).astype(np.float32)
    position = np.asarray(camera.position, np.float32)
    seen_colour = None if colour is None else np.asarray(colour, np.float32)[seen]
    return subsampled(Cloud(points, labels[seen].astype(np.int32), position, spread, seen_colour), limit, seed)


def world_points(depth: Float[np.ndarray, "H W"], camera: Camera) -> Float[np.ndarray, "H W 3"]:
    """World points (m) of every pixel of a depth map (m); see snapshot/camera.py for the pixel rays."""
    height, width = depth.shape
    y, x = np.meshgrid((np.arange(height) + 0.5) / height - 0.5, (np.arange(width) + 0.5 - width / 2) / height, indexing="ij")
    offset, focal = np.asarray(camera.offset, np.float64), float(np.asarray(camera.focal))
    local = np.stack([(x - offset[0]) / focal, (y - offset[1]) / focal, np.ones_like(x)], -1) * depth[..., None]
    matrix = np.asarray(quaternion_to_matrix(np.asarray(camera.rotation)), np.float64)
    return (np.asarray(camera.position, np.float64) + local @ matrix.T).astype(np.float32)


def known_space(
    cloud: Cloud, low: np.ndarray, high: np.ndarray, count: int, margin: float
) -> tuple[Float[np.ndarray, "m 3"], Float[np.ndarray, "k 3"]]:
    """Points (m) of a box in known empty and in known solid space, at most `count` each, `margin` (m) off the cloud.

    With a viewpoint, the empty points lie on the rays to the observed points, three on the part of each ray inside the box, and
    no solid space is known. For a complete cloud, a flood fill from outside separates empty from solid space, and as many more
    empty points are drawn around the box, which the object does not leave. Otherwise none.
    """

    def thinned(points: np.ndarray) -> np.ndarray:
        return points[np.linspace(0, len(points) - 1, min(count, len(points))).round().astype(int)].astype(np.float32)

    nothing = np.zeros((0, 3), np.float32)
    if cloud.viewpoint is not None:
        return thinned(_on_rays(cloud.points, cloud.viewpoint, low, high, margin)), nothing
    if not cloud.complete:
        return nothing, nothing
    vacant, solid = map(thinned, _outside_and_inside(cloud.points, low, high, margin))
    reach = _AROUND * float((high - low).max())
    around = np.random.default_rng(1).uniform(low - reach, high + reach, (4 * count, 3))
    outside = ((around < low - margin) | (around > high + margin)).any(1)
    return np.concatenate([vacant, thinned(around[outside])]), solid


def _on_rays(points: np.ndarray, viewpoint: np.ndarray, low: np.ndarray, high: np.ndarray, margin: float) -> np.ndarray:
    """Three points on the part inside the box of each ray that ends `margin` before its point."""
    ray = points - viewpoint
    length = np.linalg.norm(ray, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        sides = np.stack([(low - viewpoint) / ray, (high - viewpoint) / ray])
    enter = np.nanmax(sides.min(0), axis=1)
    leave = np.minimum(np.nanmin(sides.max(0), axis=1), 1.0 - margin / np.maximum(length, 1e-9))
    through = np.flatnonzero((leave > enter) & (leave > 0))
    share = (np.arange(3) + 0.5) / 3
    t = np.maximum(enter[through], 0.0)[:, None]
    t = t + share * (leave[through, None] - t)
    return (viewpoint + t[..., None] * ray[through, None]).reshape(-1, 3)


_CLEARANCE = 1.2
"""Clearance of the flood fill from the points, over the 99th percentile of the distance to the fourth neighbour. Among points
drawn at random on a surface one in exp(14) has a hole of this radius next to it."""
_CELLS = 64
_AROUND = 0.75
"""Width of the border around the box that is known to be empty for a complete object, over the length of the box."""
_WIDE_RATIO = 1.5
"""Clearance of a second flood fill, which cannot leak through a single hole, over that of the first."""


def _connected_to_corner(free: np.ndarray) -> np.ndarray:
    """Free cells connected to the first corner of the grid."""
    label, _ = ndimage.label(free)  # type: ignore[misc]
    return free & (label == label[0, 0, 0])


def _outside_and_inside(points: np.ndarray, low: np.ndarray, high: np.ndarray, margin: float) -> tuple[np.ndarray, np.ndarray]:
    """Centres of the cells of a box outside and inside the surface, by flood fill, `margin` off the points; shuffled by a fixed
    seed."""
    inside = points[((points >= low) & (points <= high)).all(1)]
    if len(inside) < 8:
        return np.zeros((0, 3)), np.zeros((0, 3))
    tree = KDTree(inside)
    reach = _CLEARANCE * float(np.quantile(tree.query(inside, 5)[0][:, -1], 0.99))
    edge = max(0.5 * reach, float((high - low).max()) / _CELLS)
    pad = int(np.ceil(reach / edge)) + 1
    shape = np.ceil((high - low) / edge).astype(int) + 2 * pad
    origin = low - pad * edge
    grid = origin + edge * (np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1) + 0.5)
    near = tree.query(grid.reshape(-1, 3))[0].reshape(shape)
    narrow, wide = max(reach, edge), _WIDE_RATIO * max(reach, edge)
    outside, certain = (_connected_to_corner(near > clearance) for clearance in (narrow, wide))
    # one hole among many points leaks: outside cells far from every cell that the wide fill reaches lie behind a hole
    outside &= ndimage.distance_transform_edt(~certain) * edge < wide  # type: ignore[operator]
    # cells too close to the points for the wide fill are of neither kind
    enclosed = ~outside & (near > wide)
    within = ((grid >= low) & (grid <= high)).all(-1)
    rng = np.random.default_rng(0)
    return rng.permutation(grid[outside & (near > margin) & within]), rng.permutation(grid[enclosed & (near > margin) & within])
