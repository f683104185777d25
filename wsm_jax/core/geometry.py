"""Pose and shape of waves, and their closed-form measures in the world frame: reach, bounds, mass."""

import jax.numpy as jnp

from wsm_jax.core import superquadric
from wsm_jax.snapshot import Waves, quaternion_to_matrix
from wsm_jax.typing import Array, Float, NpOrJax, pytree

_EXACT = "highest"


@pytree
class Geometry:
    """Pose and shape of a wave, fields as in `Waves`; any leading axes."""

    centre: Float[NpOrJax, "*lead 3"]
    scale: Float[NpOrJax, "*lead 3"]
    rotation: Float[NpOrJax, "*lead 4"]
    exponents: Float[NpOrJax, "*lead 2"]

    @classmethod
    def of(cls, waves: Waves) -> "Geometry":
        """The geometry of every wave, [*lead N ...]."""
        return cls(waves.centre, waves.scale, waves.rotation, waves.exponents)


def to_local(geometry: Geometry, points: Float[NpOrJax, "*lead 3"]) -> Float[Array, "*lead 3"]:
    """World points (m) in the frame of their wave."""
    offset = jnp.asarray(points) - jnp.asarray(geometry.centre)
    return jnp.einsum("...ij,...i->...j", quaternion_to_matrix(geometry.rotation), offset, precision=_EXACT)


def reach(geometry: Geometry, direction: Float[NpOrJax, "*lead 3"]) -> Float[Array, "*lead"]:
    """How far each wave reaches from its centre along a world direction (m, times the length of the direction)."""
    return superquadric.support(_turned_back(geometry, direction), geometry.scale, geometry.exponents)


def farthest(geometry: Geometry, direction: Float[NpOrJax, "*lead 3"]) -> Float[Array, "*lead 3"]:
    """The point of each wave farthest along a world direction (world, m): where a plane that comes from there touches it.

    Along the axis of a flat face, the middle of the face.
    """
    local = superquadric.support_point(_turned_back(geometry, direction), geometry.scale, geometry.exponents)
    turned = jnp.einsum("...ij,...j->...i", quaternion_to_matrix(geometry.rotation), local, precision=_EXACT)
    return jnp.asarray(geometry.centre) + turned


def _turned_back(geometry: Geometry, direction: NpOrJax) -> Array:
    matrix = quaternion_to_matrix(geometry.rotation)
    return jnp.einsum("...ij,...i->...j", matrix, jnp.asarray(direction), precision=_EXACT)


def bounds(geometry: Geometry) -> tuple[Float[Array, "*lead 3"], Float[Array, "*lead 3"]]:
    """Lowest and highest world coordinates of each wave (m), exact: the support function along the world's axes."""
    matrix = quaternion_to_matrix(geometry.rotation)
    scale, exponents = (jnp.asarray(x)[..., None, :] for x in (geometry.scale, geometry.exponents))
    half = superquadric.support(matrix, scale, exponents)
    centre = jnp.asarray(geometry.centre)
    return centre - half, centre + half


def inertia(geometry: Geometry, mass: Float[NpOrJax, "*lead"]) -> Float[Array, "*lead 3 3"]:
    """Inertia tensor of uniform waves of the given mass (kg) about their own centres, world frame, kg m^2."""
    square = superquadric.second_moments(geometry.scale, geometry.exponents)
    principal = jnp.asarray(mass)[..., None] * (jnp.sum(square, -1, keepdims=True) - square)
    matrix = quaternion_to_matrix(geometry.rotation)
    return jnp.einsum("...ij,...j,...kj->...ik", matrix, principal, matrix, precision=_EXACT)


def multiply(a: Float[NpOrJax, "*lead 4"], b: Float[NpOrJax, "*lead 4"]) -> Float[Array, "*lead 4"]:
    """Product of quaternions (w, x, y, z): the turn by b, then by a."""
    a, b = jnp.asarray(a), jnp.asarray(b)
    aw, av, bw, bv = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    real = aw * bw - jnp.sum(av * bv, -1, keepdims=True)
    return jnp.concatenate([real, aw * bv + bw * av + jnp.cross(av, bv)], -1)


def turned(rotation: Float[NpOrJax, "*lead 4"], vector: Float[NpOrJax, "*lead 3"]) -> Float[Array, "*lead 4"]:
    """The quaternion after a turn by a rotation vector (world, rad); of unit length."""
    vector = jnp.asarray(vector)
    half = 0.5 * jnp.sqrt(jnp.sum(vector * vector, -1, keepdims=True) + 1e-20)
    change = jnp.concatenate([jnp.cos(half), 0.5 * vector * jnp.sinc(half / jnp.pi)], -1)
    after = multiply(change, rotation)
    return after / jnp.linalg.norm(after, axis=-1, keepdims=True)
