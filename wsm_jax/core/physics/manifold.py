"""Contact manifolds: a few points of the contact patch of two waves, with the gap at each.

The outline of the contact face of a body consists of the farthest points along the contact normal, tilted by a small angle in
eight directions. The patch is the intersection of the two convex outlines; its corners are corners of one outline inside the
other, or crossings of their edges. The manifold has the farthest corner along each diagonal, and their mean. The gap at a point
is the distance of the two surfaces along the normal (Newton's iteration on the convex gauge, from outside).

The outline of a round face shrinks to a point: a ball touches in one point, a lying cylinder along a line.
"""

import jax
import jax.numpy as jnp
import numpy as np

from wsm_jax.core import superquadric
from wsm_jax.core.physics.body import Body
from wsm_jax.core.physics.contact import ContactVectors, Pair
from wsm_jax.core.physics.triple import Vector, chosen, stacked
from wsm_jax.typing import Array, pytree

POINTS = 5
"""Number of points of a manifold."""
_TILT = 3e-3
_ROUND = 0.03
_TIE = 1e-3
_CIRCLE = np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)]).astype(np.float32)
_frozen = jax.lax.stop_gradient


@pytree
class Manifold:
    """Contact points, actual or potential, of the waves of P pairs."""

    point: Vector
    """World, m, half-way between the surfaces, [points P]."""
    gap: Array
    """Distance of the surfaces along the normal, m, [points P]; negative in penetration."""
    normal: Vector
    """Unit vector from A to B, [P]."""


@pytree
class Plane:
    """Points [n P] in a plane, m."""

    u: Array
    v: Array

    def __sub__(self, other: "Plane") -> "Plane":
        return Plane(self.u - other.u, self.v - other.v)

    def cross(self, other: "Plane") -> Array:
        return self.u * other.v - self.v * other.u

    def after(self, axis: int = 0) -> "Plane":
        """The next corner of every corner."""
        return Plane(jnp.roll(self.u, -1, axis), jnp.roll(self.v, -1, axis))

    def at(self, index: tuple) -> "Plane":
        return Plane(self.u[index], self.v[index])


def _frame(pair: Pair, normal: Vector) -> tuple[Vector, Vector]:
    """Two orthogonal tangents, aligned with the axes of the smaller body as far as possible."""
    size_a, size_b = (body.scale.x * body.scale.y * body.scale.z for body in (pair.a, pair.b))
    axes = jax.tree.map(lambda one, other: jnp.where(size_a <= size_b, one, other), stacked(pair.a.axes), stacked(pair.b.axes))
    # prefer the first of several axes orthogonal to the normal: rounding must not decide the friction frame
    order = _TIE * jnp.arange(3.0).reshape(3, *[1] * normal.x.ndim)
    axis = chosen(axes, jnp.argmin(jnp.abs(axes.dot(normal)) + order, 0))
    first = (axis - normal * axis.dot(normal)).unit()
    return first, normal.cross(first)


def _outline(body: Body, normal: Vector, frame: tuple[Vector, Vector], origin: Vector) -> Plane:
    """The eight corners of the contact face in the plane of `frame`, counter-clockwise, [8 P]; tiny for a round face."""
    circle = [row.reshape(8, *[1] * normal.x.ndim) for row in _CIRCLE]
    tilted = normal + frame[0] * jnp.asarray(_TILT * circle[0]) + frame[1] * jnp.asarray(_TILT * circle[1])
    corners, middle = body.farthest_arm(tilted), body.farthest_arm(normal)
    sharp = _ROUND / 3.0 * (body.scale.x + body.scale.y + body.scale.z)
    min_radius = 1e-4 / _ROUND * sharp
    start = body.centre - origin

    def along(axis: Vector, circle: np.ndarray) -> Array:
        corner, centre = corners.dot(axis), middle.dot(axis)
        return jnp.where(jnp.abs(corner - centre) > sharp, corner, centre + min_radius * circle) + start.dot(axis)

    return Plane(along(frame[0], circle[0]), along(frame[1], circle[1]))


def _inside(points: Plane, outline: Plane, slack: Array) -> Array:
    """Mask of points [n P] inside a convex counter-clockwise outline [8 P], with a tolerance of `slack` (m)."""
    edge = outline.after() - outline
    length = jnp.sqrt(edge.u * edge.u + edge.v * edge.v)
    from_corner = points.at((slice(None), None)) - outline
    off = edge.cross(from_corner) / jnp.maximum(length, 1e-9)
    return jnp.all((off > -slack) | (length < 1e-7), 1)


def _crossings(a: Plane, b: Plane) -> tuple[Plane, Array]:
    """Crossings of the edges of two outlines, [64 P], and a mask of the valid ones."""
    way_a, way_b = (a.after() - a).at((slice(None), None)), b.after() - b
    det = way_a.cross(way_b)
    offset = b - a.at((slice(None), None))
    parallel = jnp.abs(det) <= 1e-9
    safe = jnp.where(parallel, 1.0, det)
    s, t = offset.cross(way_b) / safe, offset.cross(way_a) / safe
    meet = ~parallel & (s >= 0) & (s <= 1) & (t >= 0) & (t <= 1)
    shape = (64, *s.shape[2:])
    start = a.at((slice(None), None))
    return Plane((start.u + s * way_a.u).reshape(shape), (start.v + s * way_a.v).reshape(shape)), meet.reshape(shape)


def _patch(a: Plane, b: Plane, slack: Array) -> list[Plane]:
    """The four corners of the intersection of two outlines farthest along the diagonals, [P]; (0, 0) if it is empty."""
    crossing, meet = _crossings(a, b)
    points = jax.tree.map(lambda *x: jnp.concatenate(x), a, b, crossing)
    valid = jnp.concatenate([_inside(a, b, slack), _inside(b, a, slack), meet])
    some = jnp.any(valid, 0)
    corners = []
    for u, v in ((1.0, 1.0), (-1.0, 1.0), (-1.0, -1.0), (1.0, -1.0)):
        reach = jnp.where(valid, u * points.u + v * points.v, -jnp.inf)
        mask = (jnp.arange(len(reach)).reshape(-1, *[1] * slack.ndim) == jnp.argmax(reach, 0)) & some
        corners.append(jax.tree.map(lambda x, mask=mask: jnp.sum(jnp.where(mask, x, 0.0), 0), points))
    return corners


def _surface_along(body: Body, point: Vector, world_direction: Vector) -> Array:
    """Parameter t of the first intersection of the body with the lines `point` + t `world_direction`, coming from t = +inf."""
    start, way = body.matrix.combine(point - body.centre), body.matrix.combine(world_direction)

    def log_gauge_and_slope(start: Vector, way: Vector, t: Array, body: Body) -> tuple[Array, Array]:
        p, scale, (e1, e2) = start + way * t, body.scale, body.exponents
        inverse = (1.0 / scale.x, 1.0 / scale.y, 1.0 / scale.z)
        log_g, gradient = superquadric.log_gauge_gradient((p.x, p.y, p.z), inverse, (2.0 / e1, 2.0 / e2))
        return log_g, Vector(*gradient).dot(way)

    still, frozen, ahead = _frozen(((start, way), body, world_direction))
    t = frozen.reach(ahead) - still[1].dot(still[0])

    def approach(_, t: Array) -> Array:
        log_g, slope = log_gauge_and_slope(*still, t, frozen)
        return t + jnp.expm1(-log_g) / jnp.maximum(slope, 1e-3)

    t = jax.lax.fori_loop(0, 6, approach, t)
    log_g, slope = log_gauge_and_slope(start, way, t, body)
    return t - (log_g - _frozen(log_g)) / _frozen(jnp.maximum(slope, 1e-3))  # the value is t; adds its derivative


def manifold(pair: Pair, touch: ContactVectors) -> Manifold:
    """Manifolds of pairs [P] of waves in contact or close to it, at the contacts `touch`."""
    frozen_pair, frozen = _frozen((pair, touch))
    frame = _frame(frozen_pair, frozen.normal)
    origin = (frozen.point_a + frozen.point_b) * 0.5
    normal = touch.normal
    outline_a, outline_b = _outline(pair.a, normal, frame, origin), _outline(pair.b, -normal, frame, origin)
    sizes = [getattr(body.scale, name) for body in (frozen_pair.a, frozen_pair.b) for name in "xyz"]
    slack = 1e-3 * jnp.minimum(jnp.min(jnp.stack(sizes[:3]), 0), jnp.min(jnp.stack(sizes[3:]), 0))
    corners = _patch(outline_a, outline_b, slack)
    flat = jax.tree.map(lambda *x: jnp.stack([sum(x) / 4.0, *x]), *corners)
    points = origin + frame[0] * flat.u + frame[1] * flat.v
    upper = _surface_along(pair.a, points, normal)
    lower = -_surface_along(pair.b, points, -normal)
    return Manifold(points + normal * (0.5 * (upper + lower)), lower - upper, normal)
