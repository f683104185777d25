"""Point clouds: samples of a surface, with normals and colours, and the covariance of neighbourhoods."""

import numpy as np
from scipy.spatial import KDTree

from wsm_jax.core.mesh import Mesh
from wsm_jax.typing import Float, NpOrJax, pytree


@pytree
class PointCloud:
    """n points in the world, m."""

    points: Float[NpOrJax, "n 3"]
    normals: Float[NpOrJax, "n 3"]
    """Outward unit normals; 0 where unknown."""
    colours: Float[NpOrJax, "n 3"]
    """sRGB values 0..1."""

    def __getitem__(self, index: np.ndarray | slice) -> "PointCloud":
        """The points selected by an index or a mask."""
        return PointCloud(*(np.asarray(x)[index] for x in (self.points, self.normals, self.colours)))


def sample_mesh(mesh: Mesh, count: int, seed: int = 0) -> PointCloud:
    """Sample `count` points uniform by area, at evenly spaced quantiles, with the normals of their faces.

    Raises ValueError for a mesh without area.
    """
    areas = mesh.areas
    total = areas.sum()
    if not (np.isfinite(total) and total > 0):
        raise ValueError(f"sample_mesh: {len(areas)} faces of total area {total:g} m^2; needed an area above 0")
    rng = np.random.default_rng(seed)
    quantile = (np.arange(count) + rng.uniform()) / count * total
    face = np.minimum(np.searchsorted(np.cumsum(areas), quantile), len(areas) - 1)
    u, v = np.sqrt(rng.uniform(size=count)), rng.uniform(size=count)
    weight = np.stack([1.0 - u, u * (1.0 - v), u * v], -1)
    corners = mesh.corners[face]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-300)
    colours = np.asarray(mesh.colours)[np.asarray(mesh.faces)[face]]
    return PointCloud(np.einsum("nc,ncx->nx", weight, corners), normals, np.einsum("nc,ncx->nx", weight, colours))


def neighbour_covariance(points: Float[NpOrJax, "n 3"], neighbours: int = 8) -> Float[np.ndarray, "n 3 3"]:
    """Covariance (m^2) of the nearest neighbours of each point about the point, including the point itself.

    Raises ValueError for fewer than 4 points, which span no volume.
    """
    points = np.asarray(points, np.float64)
    if len(points) < 4:
        raise ValueError(f"neighbour_covariance: {len(points)} points; needed 4 or more")
    _, index = KDTree(points).query(points, min(neighbours + 1, len(points)))
    offset = points[index] - points[:, None]
    return np.einsum("nki,nkj->nij", offset, offset) / offset.shape[1]
