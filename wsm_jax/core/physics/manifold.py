"""Where two waves carry each other: a few points of the patch in which they touch, with the gap at each.

Seen along the contact normal both bodies show the outline of their contact face: the points farthest along the normal, tilted
by a small angle in eight directions. The patch is the intersection of the two convex outlines; its corners are corners of one
inside the other, or crossings of their edges. Kept are the corner farthest along each diagonal, and their mean. The gap at a
point is the distance of the two surfaces along the normal there (Newton's iteration on the convex gauge, from outside).

A body that is round across its face has no outline there: a ball touches in one point, a lying cylinder along a line.
"""

import jax
import jax.numpy as jnp
import numpy as np

from wsm_jax.core import superquadric
from wsm_jax.core.geometry import Geometry, apply, combine, farthest
from wsm_jax.core.physics.contact import Contact
from wsm_jax.snapshot import quaternion_to_matrix
from wsm_jax.typing import Array, Float, pytree

POINTS = 5
"""Points of a manifold."""
_TILT = 3e-3
_ROUND = 0.03
_CIRCLE = np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], -1).astype(np.float32)
_frozen = jax.lax.stop_gradient


@pytree
class Manifold:
    """The points in which two waves touch, or would; any leading axes."""

    point: Float[Array, "*lead points 3"]
    """World, m, half-way between the surfaces."""
    gap: Float[Array, "*lead points"]
    """Distance of the surfaces along the normal, m; negative in penetration."""
    normal: Float[Array, "*lead 3"]
    """Unit vector from A to B."""


def _frame(a: Geometry, b: Geometry, normal: Array) -> Array:
    """Two tangents [2 3] at right angles, along the axes of the smaller body as far as they go."""
    size_a, size_b = (jnp.prod(jnp.asarray(x.scale)) for x in (a, b))
    matrix = jnp.where(size_a <= size_b, quaternion_to_matrix(a.rotation), quaternion_to_matrix(b.rotation))
    axis = matrix[:, jnp.argmin(jnp.abs(combine(normal, matrix)))]
    first = axis - normal * jnp.dot(axis, normal)
    first = first / jnp.linalg.norm(first)
    return jnp.stack([first, jnp.cross(normal, first)])


def _outline(body: Geometry, normal: Array, frame: Array, origin: Array) -> Array:
    """The eight corners [8 2] of the contact face in the plane of `frame`, counter-clockwise; a speck where it is round."""
    tilted = normal + _TILT * combine(jnp.asarray(_CIRCLE), frame)
    corners = apply(frame, jax.vmap(lambda n: farthest(body, n))(tilted))
    middle = apply(frame, farthest(body, normal))
    size = jnp.mean(jnp.asarray(body.scale))
    sharp = jnp.abs(corners - middle) > _ROUND * size
    return jnp.where(sharp, corners, middle + 1e-4 * size * _CIRCLE) - apply(frame, origin)


def _cross(a: Array, b: Array) -> Array:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _inside(points: Array, outline: Array, slack: Array) -> Array:
    """Whether points [n 2] lie in a convex outline [8 2], counter-clockwise, or `slack` (m) outside it."""
    edge = jnp.roll(outline, -1, 0) - outline
    length = jnp.linalg.norm(edge, axis=-1)
    off = _cross(edge[None], points[:, None] - outline[None]) / jnp.maximum(length, 1e-9)
    return jnp.all((off > -slack) | (length < 1e-7), -1)


def _crossings(a: Array, b: Array) -> tuple[Array, Array]:
    """Where the edges of two outlines cross, [64 2], and whether they do."""
    way_a, way_b = jnp.roll(a, -1, 0) - a, jnp.roll(b, -1, 0) - b
    det = _cross(way_a[:, None], way_b[None])
    offset = b[None] - a[:, None]
    safe = jnp.where(jnp.abs(det) > 1e-9, det, 1.0)
    s, t = _cross(offset, way_b[None]) / safe, _cross(offset, way_a[:, None]) / safe
    meet = (jnp.abs(det) > 1e-9) & (s >= 0) & (s <= 1) & (t >= 0) & (t <= 1)
    return (a[:, None] + s[..., None] * way_a[:, None]).reshape(64, 2), meet.reshape(64)


def _patch(a: Array, b: Array, slack: Array) -> Array:
    """The four corners of the intersection of two outlines farthest along the diagonals, [4 2]; (0, 0) where it is empty."""
    crossing, meet = _crossings(a, b)
    points = jnp.concatenate([a, b, crossing])
    valid = jnp.concatenate([_inside(a, b, slack), _inside(b, a, slack), meet])
    diagonals = jnp.asarray([[1.0, 1.0], [-1.0, 1.0], [-1.0, -1.0], [1.0, -1.0]])
    reach = jnp.where(valid[:, None], jnp.sum(points[:, None] * diagonals, -1), -jnp.inf)
    return jnp.where(jnp.any(valid), points[jnp.argmax(reach, 0)], 0.0)


def _surface_along(body: Geometry, point: Array, way: Array) -> Array:
    """t at which the line `point` + t `way`, coming from t = +inf, meets the body."""
    matrix = quaternion_to_matrix(body.rotation)
    start, way = combine(point - jnp.asarray(body.centre), matrix), combine(way, matrix)
    inverse, orders = 1.0 / jnp.asarray(body.scale), 2.0 / jnp.asarray(body.exponents)

    def log_gauge_and_slope(start: Array, way: Array, t: Array, inverse: Array, orders: Array) -> tuple[Array, Array]:
        p = start + t * way
        log_g, weights = superquadric.log_gauge_weights(p, inverse, orders)
        return log_g, jnp.sum(jnp.stack(weights) * p / (p * p + 1e-12 / (inverse * inverse)) * way)

    still = _frozen((start, way)), _frozen((inverse, orders))
    t = superquadric.support(still[0][1], 1.0 / still[1][0], 2.0 / still[1][1]) - jnp.dot(*still[0])

    def approach(_, t: Array) -> Array:
        log_g, slope = log_gauge_and_slope(*still[0], t, *still[1])
        return t + jnp.expm1(-log_g) / jnp.maximum(slope, 1e-3)

    t = jax.lax.fori_loop(0, 6, approach, t)
    log_g, slope = log_gauge_and_slope(start, way, t, inverse, orders)
    return t - (log_g - _frozen(log_g)) / _frozen(jnp.maximum(slope, 1e-3))  # t, with its derivative


def manifold(a: Geometry, b: Geometry, contact: Contact) -> Manifold:
    """The manifold of two waves (one each; `jax.vmap` for more) that touch, or come near, as `contact` says."""
    still_a, still_b, still = _frozen((a, b, contact))
    normal = still.normal
    frame = _frame(still_a, still_b, normal)
    origin = 0.5 * (still.point_a + still.point_b)
    normal = contact.normal
    outline_a, outline_b = _outline(a, normal, frame, origin), _outline(b, -normal, frame, origin)
    slack = 1e-3 * jnp.minimum(jnp.min(jnp.asarray(still_a.scale)), jnp.min(jnp.asarray(still_b.scale)))
    corners = _patch(outline_a, outline_b, slack)
    flat = jnp.concatenate([jnp.mean(corners, 0, keepdims=True), corners])
    points = origin + combine(flat, frame)
    upper = jax.vmap(lambda p: _surface_along(a, p, normal))(points)
    lower = -jax.vmap(lambda p: _surface_along(b, p, -normal))(points)
    return Manifold(points + 0.5 * (upper + lower)[:, None] * normal, lower - upper, normal)
