"""Tessellation of waves in closed form: watertight meshes with exact normals, without marching cubes.

The gridded surface of a cube is mapped onto the wave. With r = max(|X|, |Y|) the square ring through (X, Y, Z) becomes
the ring of the e2-norm, and the square (r, Z) the profile of the e1-norm (orders p1 = 2/e1, p2 = 2/e2):

    d = (X, Y) / ||(X, Y)||_p2 ,   (r', z) = (r, Z) / ||(r, Z)||_p1 ,    point = (a1 r' d_x, a2 r' d_y, a3 z)                (1)

so that the edges of the cube map to the rims of the wave, for all exponents. The grid is warped by tan^s(pi t / 4),
s = sqrt(exponent): equal angles for a sphere, denser towards the rims of a box. The normal is the gradient of the gauge

    n ~ (r'^(p1-1) d_x^(p2-1) / a1,  r'^(p1-1) d_y^(p2-1) / a2,  z^(p1-1) / a3) .                                            (2)
"""

from functools import cache

import numpy as np

from wsm_jax.core.mesh import Mesh
from wsm_jax.core.rotation import matrix64
from wsm_jax.snapshot import Waves
from wsm_jax.typing import Float, Int, NpOrJax

DETAIL = 16
"""Cells along an edge of the cube: 6 n^2 + 2 vertices and 12 n^2 faces per wave."""


@cache
def cube(detail: int) -> tuple[Int[np.ndarray, "V 3"], Int[np.ndarray, "F 3"]]:
    """Corners (coordinates -n..n in steps of 2) and triangles of the surface of a cube of n^3 cells, watertight, outward.

    Raises ValueError for a detail that is not even and from 2 to 256: the middle lines carry the poles and the ridges.
    """
    if detail < 2 or detail > 256 or detail % 2:
        raise ValueError(f"cube: detail={detail}; needed an even number from 2 to 256")
    line = np.arange(-detail, detail + 1, 2)
    quads = []
    for axis in range(3):
        for side in (-detail, detail):
            u, v = np.meshgrid(line, line, indexing="ij")
            face = np.roll(np.stack([np.full_like(u, side), u, v], -1), axis, -1)
            corners = np.stack([face[:-1, :-1], face[1:, :-1], face[1:, 1:], face[:-1, 1:]], -2).reshape(-1, 4, 3)
            quads.append(corners if side > 0 else corners[:, ::-1])
    corners = np.concatenate(quads)
    vertices, index = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)
    index = index.reshape(-1, 4)
    # the diagonal starts at the corner nearest the middle of the face, so that mirrored cells get mirrored triangles
    middle = np.argmin(np.sum(np.square(corners), -1), 1)
    index = np.take_along_axis(index, (middle[:, None] + np.arange(4)) % 4, 1)
    faces = np.concatenate([index[:, [0, 1, 2]], index[:, [0, 2, 3]]])
    vertices.flags.writeable = faces.flags.writeable = False
    return vertices, faces


def _warped(share: np.ndarray, exponent: np.ndarray) -> np.ndarray:
    return np.tan(0.25 * np.pi * share) ** np.sqrt(exponent)


def _norm(a: np.ndarray, b: np.ndarray, order: np.ndarray) -> np.ndarray:
    """||(a, b)||_order of non-negative numbers, relative to the larger one, against underflow."""
    most = np.maximum(np.maximum(a, b), 1e-300)
    return most * ((a / most) ** order + (b / most) ** order) ** (1.0 / order)


def unit_surface(
    exponents: Float[NpOrJax, "N 2"], detail: int = DETAIL
) -> tuple[Float[np.ndarray, "N V 3"], Float[np.ndarray, "N V 3"]]:
    """Points (1) and unnormalised normals (2) of waves with unit semi-axes, at the corners of `cube`, float64."""
    corners, _ = cube(detail)
    e1, e2 = np.asarray(exponents, np.float64)[..., 0:1], np.asarray(exponents, np.float64)[..., 1:2]
    p1, p2 = 2.0 / e1, 2.0 / e2
    x, y, z = np.abs(corners.T) / detail
    ring = np.maximum(x, y)
    safe = np.where(ring > 0, ring, 1.0)
    dx, dy = _warped(np.where(ring > 0, x / safe, 1.0), e2), _warped(np.where(ring > 0, y / safe, 1.0), e2)
    length = _norm(dx, dy, p2)
    dx, dy = dx / length, dy / length
    ring, z = _warped(ring, e1), _warped(z, e1)
    length = _norm(ring, z, p1)
    ring, z = ring / length, z / length
    sign = np.sign(corners)
    tilt = ring ** (p1 - 1.0)
    points = np.stack([ring * dx, ring * dy, z], -1) * sign
    normals = np.stack([tilt * dx ** (p2 - 1.0), tilt * dy ** (p2 - 1.0), z ** (p1 - 1.0)], -1) * sign
    return points, normals


def tessellate(waves: Waves, detail: int = DETAIL) -> tuple[list[Mesh], Float[np.ndarray, "N V 3"]]:
    """One watertight mesh per wave in the colour of the wave, and the outward unit normals of its vertices, world frame.

    Presence is ignored. Raises ValueError for waves with leading axes, and as `cube` does.
    """
    if np.ndim(waves.presence) != 1:
        raise ValueError(f"tessellate: presence of shape {np.shape(waves.presence)}; needed (waves,): one tick, as waves[0]")
    points, normals = unit_surface(waves.exponents, detail)
    scale = np.asarray(waves.scale, np.float64)[:, None]
    # avoids underflow of the sum of squares for very different semi-axes
    normals = normals / scale * scale.min(-1, keepdims=True)
    normals = normals / np.linalg.norm(normals, axis=-1, keepdims=True)
    matrix = matrix64(waves.rotation)
    vertices = np.einsum("nij,nvj->nvi", matrix, points * scale) + np.asarray(waves.centre, np.float64)[:, None]
    faces = np.array(cube(detail)[1])
    colour = np.asarray(waves.colour, np.float64)
    meshes = [Mesh(v, faces, np.broadcast_to(c, v.shape)) for v, c in zip(vertices, colour)]
    return meshes, np.einsum("nij,nvj->nvi", matrix, normals)


def projected(
    waves: Waves, index: Int[np.ndarray, " n"], points: Float[np.ndarray, "n 3"]
) -> tuple[Float[np.ndarray, "n 3"], Float[np.ndarray, "n 3"]]:
    """World points projected onto the surface of wave `index` along rays from its centre, and the normals at them.

    NumPy, float64, for points near the surface: v / g(v), with g by the powers of its definition.
    """
    matrix, scale = matrix64(waves.rotation)[index], np.asarray(waves.scale, np.float64)[index]
    centre, exponents = np.asarray(waves.centre, np.float64)[index], np.asarray(waves.exponents, np.float64)[index]
    p1, p2 = (2.0 / exponents).T
    unit = np.einsum("nji,nj->ni", matrix, points - centre) / scale
    x, y, z = np.abs(unit.T)
    ring = _norm(x, y, p2)
    gauge = _norm(ring, z, p1)
    x, y, z, ring = (v / gauge for v in (x, y, z, ring))
    safe = np.maximum(ring, 1e-300)
    tilt = ring ** (p1 - 1.0)
    normals = np.stack([tilt * (x / safe) ** (p2 - 1.0), tilt * (y / safe) ** (p2 - 1.0), z ** (p1 - 1.0)], -1)
    normals = np.sign(unit) * normals / scale * scale.min(-1, keepdims=True)
    normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
    surface = np.einsum("nij,nj->ni", matrix, unit / gauge[:, None] * scale) + centre
    return surface, np.einsum("nij,nj->ni", matrix, normals)
