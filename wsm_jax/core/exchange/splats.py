"""Gaussian splats: from waves by moments or on the surface, from faces and points by covariance, and back to waves.

A wave and a Gaussian have equal second moments if s_i^2 = <x_i^2> (superquadric.second_moments). An ellipsoid (exponents 1)
has <x^2> = a^2 / 5, so a = sqrt(5) s gives the wave with the moments of a splat; for ellipsoids the round trip is exact.
"""

import dataclasses
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from wsm_jax.core import superquadric
from wsm_jax.core.exchange import ply
from wsm_jax.core.exchange.points import PointCloud, neighbour_covariance
from wsm_jax.core.mesh import Mesh
from wsm_jax.core.rotation import matrix64
from wsm_jax.snapshot import Waves
from wsm_jax.snapshot.waves import empty
from wsm_jax.typing import Float, NpOrJax, pytree

MOMENT_RATIO = 5.0**0.5
"""Semi-axis of a solid ellipsoid over its standard deviation."""
SH_DC = 0.28209479177387814
"""The constant spherical harmonic, 1 / (2 sqrt(pi)): colour = 1/2 + SH_DC f_dc."""

_FLATNESS = 0.05
_REST = 45
_LOGIT_LIMIT = 15.0
_COLUMNS = ("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity")
_COLUMNS += ("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3")


@pytree
class Splats:
    """n Gaussians opacity * exp(-|R^T (x - mean) / sigma|^2 / 2), world frame."""

    means: Float[NpOrJax, "n 3"]
    """m."""
    sigma: Float[NpOrJax, "n 3"]
    """Standard deviations along the splat's own axes, m, positive."""
    rotation: Float[NpOrJax, "n 4"]
    """Unit quaternion (w, x, y, z)."""
    opacity: Float[NpOrJax, " n"]
    """0..1."""
    colours: Float[NpOrJax, "n 3"]
    """sRGB values of the constant harmonic, 0..1."""


def from_moments(waves: Waves) -> Splats:
    """One splat per present wave, with its centre, axes, second moments, presence and colour."""
    keep = np.asarray(waves.presence) > 0.5
    sigma = np.sqrt(np.asarray(superquadric.second_moments(waves.scale, waves.exponents), np.float64))
    parts = (waves.centre, sigma, waves.rotation, waves.presence, waves.colour)
    return Splats(*(np.asarray(x, np.float64)[keep] for x in parts))


def from_surface(cloud: PointCloud, area: float) -> Splats:
    """Flat splats on evenly spread points of a surface of `area` (m^2), oriented along the normals.

    Each has the second moment of a disc with 1/n of the area, s^2 = area / (4 pi n), and a thickness of s / 20.
    """
    width = np.sqrt(area / (4.0 * np.pi * len(cloud.points)))
    sigma = np.tile([width, width, _FLATNESS * width], (len(cloud.points), 1))
    opacity = np.full(len(sigma), 0.95)
    return Splats(np.asarray(cloud.points), sigma, _facing(np.asarray(cloud.normals)), opacity, np.asarray(cloud.colours))


def _facing(normals: np.ndarray) -> np.ndarray:
    """Quaternions of the shortest rotation from z to each normal."""
    x, y, z = normals.T
    quaternion = np.stack([1.0 + z, -y, x, np.zeros_like(x)], -1)
    quaternion[1.0 + z < 1e-9] = (0.0, 1.0, 0.0, 0.0)
    return quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True)


def from_faces(mesh: Mesh) -> Splats:
    """One splat per face, with the exact centre and second moments of the triangle: (1/12) sum (v - c)(v - c)^T."""
    corners = mesh.corners
    centre = corners.mean(1)
    offset = corners - centre[:, None]
    colours = np.asarray(mesh.colours)[np.asarray(mesh.faces)].mean(1)
    return _from_covariance(centre, np.einsum("nci,ncj->nij", offset, offset) / 12.0, colours)


def from_points(cloud: PointCloud, neighbours: int = 8) -> Splats:
    """One splat per point, with half the spread of its nearest neighbours. Raises ValueError for fewer than 4 points."""
    covariance = 0.25 * neighbour_covariance(cloud.points, neighbours)
    return _from_covariance(np.asarray(cloud.points, np.float64), covariance, np.asarray(cloud.colours))


def _from_covariance(means: np.ndarray, covariance: np.ndarray, colours: np.ndarray) -> Splats:
    values, axes = np.linalg.eigh(covariance)
    axes[np.linalg.det(axes) < 0, :, 0] *= -1.0
    sigma = np.sqrt(np.maximum(values, 0.0))
    sigma = np.maximum(sigma, np.maximum(_FLATNESS * sigma[:, 2:], 1e-9))
    rotation = Rotation.from_matrix(axes).as_quat(scalar_first=True)
    return Splats(means, sigma, rotation, np.full(len(means), 0.95), colours)


def to_waves(splats: Splats, ratio: float = MOMENT_RATIO) -> Waves:
    """One ellipsoid (exponents 1) per splat, with semi-axes `ratio` sigma, presence = opacity, and its own instance id."""
    count = len(splats.means)
    rotation = np.asarray(splats.rotation, np.float64)
    return dataclasses.replace(
        empty(count),
        presence=np.asarray(splats.opacity, np.float32),
        centre=np.asarray(splats.means, np.float32),
        scale=np.maximum(ratio * np.asarray(splats.sigma, np.float64), 1e-6).astype(np.float32),
        rotation=(rotation / np.linalg.norm(rotation, axis=-1, keepdims=True)).astype(np.float32),
        colour=np.clip(np.asarray(splats.colours), 0.0, 1.0).astype(np.float32),
        semantic=np.full(count, 7, np.int32),
        instance=np.arange(1, count + 1, dtype=np.int32),
    )


def largest(splats: Splats, count: int) -> Splats:
    """The `count` splats with the largest opacity times volume, in their original order."""
    weight = np.asarray(splats.opacity, np.float64) * np.prod(np.asarray(splats.sigma, np.float64), -1)
    keep = np.sort(np.argsort(-weight, kind="stable")[:count])
    return Splats(*(np.asarray(getattr(splats, f.name))[keep] for f in dataclasses.fields(Splats)))


def covariance(splats: Splats) -> Float[np.ndarray, "n 3 3"]:
    """Covariance of each splat, R diag(sigma^2) R^T, m^2."""
    matrix = matrix64(splats.rotation)
    return np.einsum("nij,nj,nkj->nik", matrix, np.square(np.asarray(splats.sigma, np.float64)), matrix)


def is_splats(vertex: ply.Mapping[str, np.ndarray]) -> bool:
    """True if the columns of a PLY file are those of 3DGS."""
    return {"opacity", "scale_0", "rot_0", "f_dc_0"} <= set(vertex)


def from_ply(vertex: ply.Mapping[str, np.ndarray], source: str) -> Splats:
    """Splats from the columns of a 3DGS PLY file; only the view-independent part of the colour is read.

    opacity is a logit, scale_i = ln sigma_i, rot_i = (w, x, y, z) of any length, colour = 1/2 + SH_DC f_dc, clipped to 0..1.
    Raises ValueError, naming `source`, for a missing column, a scale beyond 1e-9..1e9 m, or a quaternion of length 0.
    """
    missing = [name for name in _COLUMNS if name not in vertex]
    if missing:
        raise ValueError(f"{source}: 3DGS columns {missing} are missing; got {sorted(vertex)[:20]}")

    def columns(*names: str) -> np.ndarray:
        return np.stack([np.asarray(vertex[name], np.float64) for name in names], -1)

    log_sigma, rotation = columns("scale_0", "scale_1", "scale_2"), columns("rot_0", "rot_1", "rot_2", "rot_3")
    if np.any(np.abs(log_sigma) > np.log(1e9)):
        raise ValueError(
            f"{source}: a splat of ln sigma {log_sigma.flat[np.abs(log_sigma).argmax()]:g}; needed sigma in 1e-9..1e9 m"
        )
    length = np.linalg.norm(rotation, axis=-1, keepdims=True)
    if np.any(~(length > 1e-12)) or not np.isfinite(length).all():
        raise ValueError(f"{source}: a splat whose rotation has length {length.min():g}; needed a quaternion")
    means = columns("x", "y", "z")
    if np.any(np.abs(means) > 1e9):
        raise ValueError(f"{source}: a splat {np.abs(means).max():g} m away; needed coordinates within 1e9 m")
    opacity = 1.0 / (1.0 + np.exp(-np.clip(vertex["opacity"].astype(np.float64), -80.0, 80.0)))
    colours = np.clip(0.5 + SH_DC * columns("f_dc_0", "f_dc_1", "f_dc_2"), 0.0, 1.0)
    return Splats(means, np.exp(log_sigma), rotation / length, opacity, colours)


def write_ply(splats: Splats, path: str | Path) -> None:
    """Write a 3DGS PLY file for viewers: 62 float32 columns; normals and higher harmonics are 0. Atomic."""
    sigma = np.asarray(splats.sigma, np.float64)
    opacity = np.asarray(splats.opacity, np.float64)
    logit = np.log(np.maximum(opacity, 1e-30)) - np.log(np.maximum(1.0 - opacity, 1e-30))
    zero = np.zeros(len(sigma))
    harmonic = (np.asarray(splats.colours, np.float64) - 0.5) / SH_DC
    groups = [
        (("x", "y", "z"), np.asarray(splats.means).T),
        (("nx", "ny", "nz"), [zero] * 3),
        (tuple(f"f_dc_{i}" for i in range(3)), harmonic.T),
        (tuple(f"f_rest_{i}" for i in range(_REST)), [zero] * _REST),
        (("opacity",), [np.clip(logit, -_LOGIT_LIMIT, _LOGIT_LIMIT)]),
        (tuple(f"scale_{i}" for i in range(3)), np.log(sigma).T),
        (tuple(f"rot_{i}" for i in range(4)), np.asarray(splats.rotation).T),
    ]
    ply.write(path, {name: np.asarray(v, np.float32) for names, values in groups for name, v in zip(names, values)})
