"""Pose and shape of waves, and their closed-form measures in the world frame: reach, bounds, mass."""

import jax.numpy as jnp

from wsm_jax.core import superquadric
from wsm_jax.snapshot import Waves, quaternion_to_matrix
from wsm_jax.typing import Array, Float, NpOrJax, pytree

# Products of small matrices are written as sums: XLA fuses them, while its dot of 3 x 3 matrices is a call each on a CPU and
# rounds to bfloat16 on a TPU.


def apply(matrix: Array, vector: Array) -> Array:
    """Matrices [... i j] times vectors [... j]: [... i]."""
    return jnp.sum(matrix * vector[..., None, :], -1)


def combine(weights: Array, rows: Array) -> Array:
    """Weighted sum of rows [... i j] with weights [... i]: [... j]; the transposed matrix times a vector."""
    return jnp.sum(weights[..., :, None] * rows, -2)


def product(a: Array, b: Array) -> Array:
    """Matrices [... i j] times matrices [... j k]: [... i k]."""
    return jnp.sum(a[..., :, :, None] * b[..., None, :, :], -2)


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
    return combine(offset, quaternion_to_matrix(geometry.rotation))


def reach(geometry: Geometry, direction: Float[NpOrJax, "*lead 3"]) -> Float[Array, "*lead"]:
    """Extent of each wave from its centre along a world direction (m, times the length of the direction)."""
    return superquadric.support(_turned_back(geometry, direction), geometry.scale, geometry.exponents)


def farthest(geometry: Geometry, direction: Float[NpOrJax, "*lead 3"]) -> Float[Array, "*lead 3"]:
    """The point of each wave farthest along a world direction (world, m); the middle of a flat face along its axis."""
    local = superquadric.support_point(_turned_back(geometry, direction), geometry.scale, geometry.exponents)
    return jnp.asarray(geometry.centre) + apply(quaternion_to_matrix(geometry.rotation), local)


def _turned_back(geometry: Geometry, direction: NpOrJax) -> Array:
    return combine(jnp.asarray(direction), quaternion_to_matrix(geometry.rotation))


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
    return product(matrix * principal[..., None, :], jnp.swapaxes(matrix, -1, -2))
