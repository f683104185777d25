"""Convex bodies for contact search: the support function of waves and its derivatives, by components, in batches."""

import jax.numpy as jnp

from wsm_jax.core import superquadric
from wsm_jax.core.geometry import Geometry
from wsm_jax.core.physics.triple import Matrix, Vector
from wsm_jax.snapshot import quaternion_to_matrix
from wsm_jax.typing import Array, pytree


@pytree
class Body:
    """Waves; fields as in `Geometry`, with the rotation as a matrix."""

    centre: Vector
    scale: Vector
    matrix: Matrix
    exponents: tuple[Array, Array]

    @classmethod
    def of(cls, geometry: Geometry) -> "Body":
        """Bodies of waves with any leading axes."""
        exponents = jnp.asarray(geometry.exponents)
        matrix = Matrix.of(quaternion_to_matrix(geometry.rotation))
        return cls(Vector.of(geometry.centre), Vector.of(geometry.scale), matrix, (exponents[..., 0], exponents[..., 1]))

    @property
    def axes(self) -> list[Vector]:
        """Local axes in world coordinates."""
        columns = self.matrix.transposed
        return [columns.x, columns.y, columns.z]

    @property
    def _dual(self) -> tuple[tuple[Array, Array, Array], tuple[Array, Array]]:
        """Semi-axes and orders of the gauge that is the support function."""
        e1, e2 = self.exponents
        return (self.scale.x, self.scale.y, self.scale.z), (2.0 / (2.0 - e1), 2.0 / (2.0 - e2))

    def reach(self, direction: Vector) -> Array:
        """Extent of the body from its centre along a world direction, m: the support function; even."""
        local = self.matrix.combine(direction)
        return jnp.exp(superquadric.log_gauge_gradient((local.x, local.y, local.z), *self._dual)[0])

    def farthest_arm(self, direction: Vector) -> Vector:
        """Vector from the centre to the farthest point along a direction, world, m: the gradient of `reach`; odd."""
        local = self.matrix.combine(direction)
        log_h, gradient = superquadric.log_gauge_gradient((local.x, local.y, local.z), *self._dual)
        return self.matrix.apply(Vector(*gradient) * jnp.exp(log_h))

    def curvature(self, direction: Vector, u: Vector, v: Vector) -> tuple[Array, Array, Array]:
        """Second derivatives uu, uv and vv of `reach` at a direction, m."""
        n, first, second = ((w.x, w.y, w.z) for w in map(self.matrix.combine, (direction, u, v)))
        return superquadric.support_curvature(n, first, second, *self._dual)
