"""Vectors and matrices as separate component arrays (x, y, z), with the pairs of waves on the last axis.

XLA vectorises an array [pairs 3] over three numbers only, but three arrays [pairs] over all pairs. The shapes of components
broadcast: a Vector [Q P] times a number [P], and so on.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from wsm_jax.typing import Array, NpOrJax, pytree


@pytree
class Vector:
    """Three components of one shape."""

    x: Array
    y: Array
    z: Array

    @classmethod
    def of(cls, array: NpOrJax) -> "Vector":
        """Vector from an array [... 3]."""
        array = jnp.asarray(array)
        return cls(array[..., 0], array[..., 1], array[..., 2])

    @classmethod
    def zeros(cls, shape: tuple[int, ...]) -> "Vector":
        return cls(jnp.zeros(shape), jnp.zeros(shape), jnp.zeros(shape))

    def array(self) -> Array:
        """Array [... 3]."""
        return jnp.stack([self.x, self.y, self.z], -1)

    def map(self, change: Callable[[Array], Array]) -> "Vector":
        """Apply a function to each component."""
        return Vector(change(self.x), change(self.y), change(self.z))

    def __add__(self, other: "Vector") -> "Vector":
        return Vector(self.x + other.x, self.y + other.y, self.z + other.z)

    def __sub__(self, other: "Vector") -> "Vector":
        return Vector(self.x - other.x, self.y - other.y, self.z - other.z)

    def __neg__(self) -> "Vector":
        return Vector(-self.x, -self.y, -self.z)

    def __mul__(self, factor: Array | float) -> "Vector":
        return Vector(self.x * factor, self.y * factor, self.z * factor)

    def dot(self, other: "Vector") -> Array:
        return self.x * other.x + self.y * other.y + self.z * other.z

    def cross(self, other: "Vector") -> "Vector":
        return Vector(
            self.y * other.z - self.z * other.y,
            self.z * other.x - self.x * other.z,
            self.x * other.y - self.y * other.x,
        )

    def unit(self) -> "Vector":
        """Normalise to length 1."""
        return self * jax.lax.rsqrt(self.dot(self))


@pytree
class Matrix:
    """Three rows."""

    x: Vector
    y: Vector
    z: Vector

    @classmethod
    def of(cls, array: NpOrJax) -> "Matrix":
        """Matrix from an array [... 3 3]."""
        array = jnp.asarray(array)
        return cls(*(Vector.of(array[..., i, :]) for i in range(3)))

    @property
    def transposed(self) -> "Matrix":
        return Matrix(*(Vector(*(getattr(row, name) for row in (self.x, self.y, self.z))) for name in "xyz"))

    def apply(self, vector: Vector) -> Vector:
        """Matrix-vector product."""
        return Vector(self.x.dot(vector), self.y.dot(vector), self.z.dot(vector))

    def combine(self, weights: Vector) -> Vector:
        """Weighted sum of the rows: the transposed matrix times a vector."""
        return self.x * weights.x + self.y * weights.y + self.z * weights.z


def chosen(vector: Vector, index: Array) -> Vector:
    """Entry `index` [...] of the first axis of components [n ...], as a masked sum, which is faster than a gather."""
    count = vector.x.shape[0]
    mask = jnp.arange(count).reshape(count, *[1] * index.ndim) == index
    return vector.map(lambda x: jnp.sum(jnp.where(mask, x, 0.0), 0))


def stacked(vectors: list[Vector]) -> Vector:
    """Stack vectors of one shape [...] to [n ...]."""
    return Vector(*(jnp.stack([getattr(v, name) for v in vectors]) for name in "xyz"))
