"""Distance and contact of two waves, by their support functions.

Two convex bodies A and B, with d from the centre of A to that of B, have along a unit direction n the separation

    s(n) = n . d - h_A(n) - h_B(-n) ,          separation = max over n of s(n)                                            (1)

whose maximum is their distance if positive (duality of gauge and support function), and minus the smallest translation that
separates them if negative (Cameron and Culley 1986). The best n is the contact normal. s is concave and 1-homogeneous: in the
tangent plane of the sphere at n it is maximised by damped Newton steps, from the best of a fixed set of directions
(the axes and diagonals of both bodies, the cross products of their axes, d, and 32 spread over the sphere; for two boxes the
answer is among them, Gottschalk 1996). Waves are symmetric, h(-n) = h(n), so of n and -n the one along d is better.

The separation is differentiable in both bodies by the envelope theorem (its derivative is that of s at a fixed n), the normal
by the implicit function theorem (one more Newton step with a fixed Hessian).
"""

import itertools

import jax
import jax.numpy as jnp

from wsm_jax.core import superquadric
from wsm_jax.core.geometry import Geometry
from wsm_jax.core.physics.body import Body
from wsm_jax.core.physics.triple import Vector, chosen, stacked
from wsm_jax.typing import Array, Float, pytree

_STEPS = (1.0, 0.5, 0.25, 0.1, 0.03, 0.01, 1e-3, 0.0)
_DIAGONALS = ((1.0, 1.0, 1.0), (1.0, 1.0, -1.0), (1.0, -1.0, 1.0), (-1.0, 1.0, 1.0))
_NEVER = 1e12
_frozen = jax.lax.stop_gradient


@pytree
class Contact:
    """Contact of two waves A and B: the closest or deepest points; any leading axes."""

    separation: Float[Array, "*lead"]
    """Distance of the surfaces, m; minus the depth of penetration."""
    normal: Float[Array, "*lead 3"]
    """Unit vector from A to B, world."""
    point_a: Float[Array, "*lead 3"]
    """The point of A farthest along the normal, world, m."""
    point_b: Float[Array, "*lead 3"]
    """The point of B farthest against the normal, world, m."""


@pytree
class Pair:
    """Two bodies, each a batch of the same shape."""

    a: Body
    b: Body

    @property
    def offset(self) -> Vector:
        """Vector from the centre of A to that of B, m."""
        return self.b.centre - self.a.centre

    def margin(self, normal: Vector) -> Array:
        """s of eq. (1), m."""
        return normal.dot(self.offset) - self.a.reach(normal) - self.b.reach(normal)

    def slope(self, normal: Vector, plane: tuple[Vector, Vector]) -> tuple[Array, Array]:
        """Gradient of s along two tangents: from the farthest point of A to that of B."""
        away = self.offset - self.a.farthest_arm(normal) - self.b.farthest_arm(normal)
        return plane[0].dot(away), plane[1].dot(away)

    def curvature(self, normal: Vector, plane: tuple[Vector, Vector]) -> tuple[Array, Array, Array]:
        """Second derivatives uu, uv, vv of s over the sphere, where a 1-homogeneous function curves by -s more."""
        own, other = self.a.curvature(normal, *plane), self.b.curvature(normal, *plane)
        margin = self.margin(normal)
        uu, uv, vv = (-(x + y) for x, y in zip(own, other, strict=True))
        uu, vv = uu - margin, vv - margin
        # at a kink of the support function they may overflow float32; then a large curvature keeps the normal in place
        fine = jnp.isfinite(uu) & jnp.isfinite(uv) & jnp.isfinite(vv)
        return jnp.where(fine, uu, -_NEVER), jnp.where(fine, uv, 0.0), jnp.where(fine, vv, -_NEVER)

    @property
    def min_curvature(self) -> Array:
        """Minimum curvature used in a Newton step, m."""
        both = self.a.scale + self.b.scale
        return 1e-3 / 3.0 * (both.x + both.y + both.z)


def _candidates(pair: Pair) -> Vector:
    """Start directions [n ...], each oriented along the offset."""
    axes_a, axes_b = pair.a.axes, pair.b.axes
    directions = [*axes_a, *axes_b]
    for body in (pair.a, pair.b):
        for x, y, z in _DIAGONALS:
            corner = Vector(x / body.scale.x, y / body.scale.y, z / body.scale.z)
            directions.append(body.matrix.apply(corner).unit())
    for one, other in itertools.product(axes_a, axes_b):
        directions.append(_unit_or(one.cross(other), axes_a[0], 1e-6))
    directions.append(_unit_or(pair.offset, axes_a[0], 1e-12))
    sphere = superquadric.sphere_directions(32)
    shape = (32, *[1] * pair.offset.x.ndim)
    spread = Vector(*(jnp.broadcast_to(sphere[:, i].reshape(shape), (32, *pair.offset.x.shape)) for i in range(3)))
    fixed = stacked(directions)
    every = Vector(*(jnp.concatenate([getattr(v, name) for v in (fixed, spread)]) for name in "xyz"))
    return _along(every, pair.offset)


def _unit_or(vector: Vector, other: Vector, minimum: float) -> Vector:
    """The normalised vector, or the other one if its square is at most `minimum`."""
    long = vector.dot(vector) > minimum
    return Vector(*(jnp.where(long, getattr(vector, name), getattr(other, name)) for name in "xyz")).unit()


def _along(vector: Vector, offset: Vector) -> Vector:
    """The vector or its opposite, whichever points along `offset`."""
    return vector * jnp.where(vector.dot(offset) < 0, -1.0, 1.0)


def _tangents(normal: Vector) -> tuple[Vector, Vector]:
    """Two unit vectors orthogonal to `normal` and to each other."""
    x, y, z = (jnp.abs(value) for value in (normal.x, normal.y, normal.z))
    along_x = (x <= y) & (x <= z)
    along_y = ~along_x & (y <= z)
    axis = Vector(*(mask.astype(x.dtype) for mask in (along_x, along_y, ~along_x & ~along_y)))
    first = normal.cross(axis).unit()
    return first, normal.cross(first)


def _uphill(hessian: tuple[Array, Array, Array], slope: tuple[Array, Array], minimum: Array) -> tuple[Array, Array]:
    """The step |H|^-1 slope, with curvatures of at minimum `minimum` (m): Newton's where s is concave, uphill anywhere.

    By eigenvectors, since near a kink the curvatures of two directions differ by more than the precision of float32.
    """
    uu, uv, vv = hessian
    mean, difference = 0.5 * (uu + vv), 0.5 * (uu - vv)
    radius = jnp.sqrt(jnp.square(difference) + jnp.square(uv))
    angle = 0.5 * jnp.arctan2(uv, difference)
    c, s = jnp.cos(angle), jnp.sin(angle)
    first = (c * slope[0] + s * slope[1]) / jnp.maximum(jnp.abs(mean + radius), minimum)
    second = (c * slope[1] - s * slope[0]) / jnp.maximum(jnp.abs(mean - radius), minimum)
    return c * first - s * second, s * first + c * second


def _ascend(pair: Pair, normal: Vector, iterations: int) -> tuple[Array, Vector]:
    """Local maxima of s and the unit normals there."""
    minimum = pair.min_curvature
    steps = jnp.asarray(_STEPS).reshape(-1, *[1] * normal.x.ndim)

    def step(_, state: tuple[Array, Vector]) -> tuple[Array, Vector]:
        best, normal = state
        plane = _tangents(normal)
        u, v = _uphill(pair.curvature(normal, plane), pair.slope(normal, plane), minimum)
        short = jnp.minimum(1.0, 1.0 / (jnp.sqrt(u * u + v * v) + 1e-12))
        direction = plane[0] * (u * short) + plane[1] * (v * short)
        tried = (normal + direction * steps).unit()
        values = pair.margin(tried)
        for i in range(len(_STEPS)):  # cheaper than argmax, which XLA does not vectorise along the pairs
            better = values[i] > best
            best = jnp.where(better, values[i], best)
            normal = jax.tree.map(lambda new, old, i=i, better=better: jnp.where(better, new[i], old), tried, normal)
        return best, normal

    return jax.lax.fori_loop(0, iterations, step, (pair.margin(normal), normal))


def contact(a: Geometry, b: Geometry, *, iterations: int = 16, starts: int = 4) -> Contact:
    """Contacts of waves, pair by pair, by (1); any leading axes.

    The best `starts` candidate directions are refined by `iterations` Newton steps. If several normals are equally good
    (concentric or symmetric bodies), one of them is returned.
    """
    pair = Pair(Body.of(a), Body.of(b))
    touch = contact_at(pair, best_normal(pair, iterations=iterations, starts=starts))
    return Contact(touch.separation, touch.normal.array(), touch.point_a.array(), touch.point_b.array())


@pytree
class ContactVectors:
    """A `Contact` by components."""

    separation: Array
    normal: Vector
    point_a: Vector
    point_b: Vector


def best_normal(pair: Pair, *, iterations: int = 16, starts: int = 4) -> Vector:
    """Normals of `contact`, without derivatives."""
    pair = _frozen(pair)
    directions = _candidates(pair)
    values = pair.margin(directions)
    first = []
    for _ in range(starts):
        best = jnp.argmax(values, 0)
        first.append(chosen(directions, best))
        values = jnp.where(jnp.arange(len(values)).reshape(-1, *[1] * best.ndim) == best, -jnp.inf, values)
    values, normals = _ascend(pair, stacked(first), iterations)
    return chosen(normals, jnp.argmax(values, 0))


def normal_near(pair: Pair, normal: Vector, *, iterations: int = 3) -> Vector:
    """Normals of pairs that moved little since their normals were `normal`: the search starts there, or at a face."""
    pair, normal = _frozen((pair, normal))
    faces = [_along(axis, pair.offset) for axis in (*pair.a.axes, *pair.b.axes)]
    directions = stacked([normal, *faces])
    return _ascend(pair, chosen(directions, jnp.argmax(pair.margin(directions), 0)), iterations)[1]


def contact_at(pair: Pair, normal: Vector) -> ContactVectors:
    """Contacts with given best normals, with derivatives."""
    frozen, best = _frozen((pair, normal))
    plane = _tangents(best)
    hessian = frozen.curvature(best, plane)
    slope = pair.slope(best, plane)
    u, v = _uphill(hessian, (slope[0] - _frozen(slope[0]), slope[1] - _frozen(slope[1])), frozen.min_curvature)
    normal = best + plane[0] * u + plane[1] * v  # the value is that of `best`; only the derivative changes
    ends = pair.a.centre + pair.a.farthest_arm(normal), pair.b.centre - pair.b.farthest_arm(normal)
    return ContactVectors(pair.margin(best), normal, *ends)
