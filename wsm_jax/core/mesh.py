"""Triangle meshes, and points on the surface of a wave."""

from collections.abc import Sequence

import jax
import numpy as np
import scipy.sparse.csgraph

from wsm_jax.core import superquadric
from wsm_jax.typing import Float, Int, NpOrJax, pytree

_surface_point = jax.jit(superquadric.surface_point)


def surface_points(
    scale: Float[NpOrJax, "3"], exponents: Float[NpOrJax, "2"], rows: int = 9, columns: int = 40
) -> Float[np.ndarray, "V 3"]:
    """Points on the surface of a wave, local, m, whose convex hull is the body within 4 % of its size, denser near its edges.

    Directions (cos u, sin u) at equal angles u are warped to (cos^s u, sin^s u) with s = sqrt(exponent): for a box that puts
    the points where the surface bends. `rows` rings of `columns` points, and the two poles at the end.
    """

    def warped(angle: np.ndarray, exponent: float) -> tuple[np.ndarray, np.ndarray]:
        cos, sin = np.cos(angle), np.sin(angle)
        power = np.sqrt(exponent)
        return np.sign(cos) * np.abs(cos) ** power, np.sign(sin) * np.abs(sin) ** power

    latitude = np.linspace(-np.pi / 2, np.pi / 2, rows + 2)[1:-1]
    longitude = 2 * np.pi * np.arange(columns) / columns
    (ring, z), (x, y) = warped(latitude, float(exponents[0])), warped(longitude, float(exponents[1]))
    # all rings have the same directions, so that corners line up from row to row
    length = np.hypot(x, y)
    directions = np.stack([ring[:, None] * x / length, ring[:, None] * y / length, np.repeat(z[:, None], columns, 1)], -1)
    directions = np.concatenate([directions.reshape(-1, 3), [[0, 0, 1], [0, 0, -1]]]) * np.asarray(scale)
    return np.asarray(_surface_point(np.float32(directions), np.float32(scale), np.float32(exponents)), np.float64)


@pytree
class Mesh:
    """Triangles in the world: V vertices in metres and F faces, counter-clockwise seen from outside."""

    vertices: Float[NpOrJax, "V 3"]
    faces: Int[NpOrJax, "F 3"]
    """Indices of vertices."""
    colours: Float[NpOrJax, "V 3"]
    """sRGB values 0..1."""

    @property
    def corners(self) -> Float[np.ndarray, "F 3 3"]:
        """The three corners of every face, float64."""
        return np.asarray(self.vertices, np.float64)[np.asarray(self.faces)]

    @property
    def areas(self) -> Float[np.ndarray, " F"]:
        """Areas of the faces, m^2."""
        a, b, c = np.moveaxis(self.corners, 1, 0)
        return 0.5 * np.linalg.norm(np.cross(b - a, c - a), axis=-1)

    @property
    def volume(self) -> float:
        """Enclosed volume, m^3, by the divergence theorem: sum det(a, b, c) / 6. Undefined for an open mesh."""
        corners = self.corners - np.asarray(self.vertices, np.float64).mean(0)
        return float(np.linalg.det(corners).sum() / 6.0)


def open_edges(faces: Int[NpOrJax, "F 3"]) -> int:
    """Number of directed edges without their opposite, counted with multiplicity; 0 for a watertight, oriented mesh."""
    faces = np.asarray(faces, np.int64)
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    sign = np.where(edges[:, 0] < edges[:, 1], 1, -1)
    low, high = edges.min(1), edges.max(1)
    _, index = np.unique(low * (faces.max(initial=0) + 1) + high, return_inverse=True)
    return int(np.abs(np.bincount(index, weights=sign)).sum())


def welded(mesh: Mesh) -> Mesh:
    """The mesh with vertices at equal places made one (with the first of several colours), and degenerate faces removed."""
    vertices, first, index = np.unique(np.asarray(mesh.vertices), axis=0, return_index=True, return_inverse=True)
    faces = index.reshape(-1)[np.asarray(mesh.faces)]
    distinct = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return Mesh(vertices, faces[distinct], np.asarray(mesh.colours)[first])


def connected(mesh: Mesh) -> list[Mesh]:
    """The parts of a mesh that share no vertex, in order of their first face."""
    faces = np.asarray(mesh.faces)
    count = len(mesh.vertices)
    links = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = scipy.sparse.coo_matrix((np.ones(len(links), bool), (links[:, 0], links[:, 1])), (count, count))
    _, label = scipy.sparse.csgraph.connected_components(graph, directed=False)
    of_face = label[faces[:, 0]]
    order = np.argsort(of_face, kind="stable")
    cuts = np.flatnonzero(np.diff(of_face[order])) + 1
    groups = sorted(np.split(order, cuts), key=lambda group: group[0]) if len(faces) else []
    return [taken(mesh, faces[group]) for group in groups]


def taken(mesh: Mesh, faces: Int[np.ndarray, "F 3"]) -> Mesh:
    """The given faces of a mesh, with the vertices that they use."""
    used, index = np.unique(faces, return_inverse=True)
    return Mesh(np.asarray(mesh.vertices)[used], index.reshape(-1, 3), np.asarray(mesh.colours)[used])


def joined(meshes: Sequence[Mesh]) -> Mesh:
    """Several meshes as one, vertex after vertex. Raises ValueError for none."""
    if not meshes:
        raise ValueError("joined: got no mesh; needed one or more")
    offsets = np.cumsum([0, *(len(mesh.vertices) for mesh in meshes)])
    return Mesh(
        np.concatenate([np.asarray(mesh.vertices) for mesh in meshes]),
        np.concatenate([np.asarray(mesh.faces) + offset for mesh, offset in zip(meshes, offsets)]),
        np.concatenate([np.asarray(mesh.colours) for mesh in meshes]),
    )
