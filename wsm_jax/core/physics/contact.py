"""Distance and contact of two waves, by their support functions alone.

Two convex bodies A and B, d from the centre of A to that of B, are kept apart along a unit direction n by

    s(n) = n . d - h_A(n) - h_B(-n) ,          separation = max over n of s(n)                                            (1)

which is their distance where it is positive (duality of gauge and support function), and minus the least translation that
parts them where it is negative (Cameron and Culley 1986). The best n is the contact normal. s is concave and 1-homogeneous:
in the plane that touches the sphere at n it is maximised by damped Newton steps, from the best of a fixed set of directions
(the axes and diagonals of both bodies, the cross products of their axes, d, and 32 spread over the sphere; for two boxes the
answer is among them, Gottschalk 1996).

The separation is differentiable in both bodies by the envelope theorem (its derivative is that of s at a fixed n), the normal
by the implicit function theorem (one more Newton step with a fixed Hessian).
"""

import jax
import jax.numpy as jnp

from wsm_jax.core import superquadric
from wsm_jax.core.geometry import Geometry, Posed, apply, combine, farthest, farthest_arm, reach
from wsm_jax.typing import Array, Float, pytree

_STEPS = (1.0, 0.5, 0.25, 0.1, 0.03, 0.01, 1e-3, 0.0)
_DIAGONALS = ((1.0, 1.0, 1.0), (1.0, 1.0, -1.0), (1.0, -1.0, 1.0), (-1.0, 1.0, 1.0))
_frozen = jax.lax.stop_gradient


@pytree
class Contact:
    """Where two waves A and B are nearest, or deepest in one another; any leading axes."""

    separation: Float[Array, "*lead"]
    """Distance of the surfaces, m; minus the depth of penetration."""
    normal: Float[Array, "*lead 3"]
    """Unit vector from A to B, world."""
    point_a: Float[Array, "*lead 3"]
    """The point of A farthest along the normal, world, m."""
    point_b: Float[Array, "*lead 3"]
    """The point of B farthest against the normal, world, m."""


def _margin(a: Posed, b: Posed, normal: Array) -> Array:
    """s of eq. (1)."""
    offset = jnp.asarray(b.centre) - jnp.asarray(a.centre)
    return jnp.sum(normal * offset, -1) - reach(a, normal) - reach(b, -normal)


def _candidates(a: Posed, b: Posed) -> Array:
    """Directions [n 3] to begin from, both signs."""
    frames = [jnp.asarray(x.matrix).T for x in (a, b)]  # rows: the world directions of the local axes
    scales = [jnp.asarray(x.scale) for x in (a, b)]
    diagonals = [combine(jnp.asarray(_DIAGONALS) / scale, frame) for frame, scale in zip(frames, scales, strict=True)]
    crosses = jnp.cross(frames[0][:, None], frames[1][None]).reshape(9, 3)
    offset = jnp.asarray(b.centre) - jnp.asarray(a.centre)
    crosses = jnp.where(jnp.sum(jnp.square(crosses), -1, keepdims=True) > 1e-6, crosses, frames[0][:1])
    apart = jnp.where(jnp.sum(jnp.square(offset)) > 1e-12, offset, frames[0][0])
    found = jnp.concatenate([*frames, *diagonals, crosses, apart[None]])
    found = found / jnp.linalg.norm(found, axis=-1, keepdims=True)
    return jnp.concatenate([found, -found, superquadric.sphere_directions(32)])


def _tangents(normal: Array) -> Array:
    """Two unit vectors at right angles to `normal` and to each other, [2 3]."""
    axis = jnp.eye(3)[jnp.argmin(jnp.abs(normal))]
    first = jnp.cross(normal, axis)
    first = first / jnp.linalg.norm(first)
    return jnp.stack([first, jnp.cross(normal, first)])


def _gradient(a: Posed, b: Posed, direction: Array) -> Array:
    """Gradient [3] of s at any direction: from the farthest point of A to that of B."""
    offset = jnp.asarray(b.centre) - jnp.asarray(a.centre)
    return offset - farthest_arm(a, direction) + farthest_arm(b, -direction)


def _slope(a: Posed, b: Posed, normal: Array, plane: Array) -> Array:
    """Gradient [2] of s over the tangent plane."""
    return apply(plane, _gradient(a, b, normal))


def _curvature(a: Posed, b: Posed, normal: Array, plane: Array) -> Array:
    """Hessian [2 2] of s over the tangent plane; on the sphere a 1-homogeneous function curves by -s more."""
    gradient, turn = jax.linearize(lambda way: _gradient(a, b, way), normal)
    hessian = apply(plane, jax.vmap(turn)(plane)) - jnp.sum(normal * gradient) * jnp.eye(2)
    # at a kink of the support function the Hessian may leave float32: so curved that the normal stays where it is
    return jnp.where(jnp.all(jnp.isfinite(hessian)), hessian, -1e12 * jnp.eye(2))


def _uphill(hessian: Array, gradient: Array, least: Array) -> Array:
    """The step |H|^-1 gradient, with curvatures of at least `least` (m): Newton's where s is concave, uphill anywhere.

    By the eigenvectors, since beside a kink the curvatures of two directions differ by more than float32 has digits.
    """
    mean, difference = 0.5 * (hessian[0, 0] + hessian[1, 1]), 0.5 * (hessian[0, 0] - hessian[1, 1])
    radius = jnp.sqrt(jnp.square(difference) + jnp.square(hessian[0, 1]))
    angle = 0.5 * jnp.arctan2(hessian[0, 1], difference)
    axes = jnp.stack([jnp.stack([jnp.cos(angle), jnp.sin(angle)]), jnp.stack([-jnp.sin(angle), jnp.cos(angle)])])
    curvature = jnp.maximum(jnp.abs(jnp.stack([mean + radius, mean - radius])), least)
    return combine(apply(axes, gradient) / curvature, axes)


def _least_curvature(a: Posed, b: Posed) -> Array:
    return 1e-3 * jnp.mean(jnp.asarray(a.scale) + jnp.asarray(b.scale))


def _ascend(a: Posed, b: Posed, normal: Array, iterations: int) -> tuple[Array, Array]:
    """A local maximum of s and the unit normal there."""

    least = _least_curvature(a, b)

    def step(_, state: tuple[Array, Array]) -> tuple[Array, Array]:
        best, normal = state
        plane = _tangents(normal)
        way = _uphill(_curvature(a, b, normal, plane), _slope(a, b, normal, plane), least)
        way = way * jnp.minimum(1.0, 1.0 / (jnp.linalg.norm(way) + 1e-12))
        tried = normal + jnp.asarray(_STEPS)[:, None] * combine(way, plane)
        tried = tried / jnp.linalg.norm(tried, axis=-1, keepdims=True)
        values = jax.vmap(lambda n: _margin(a, b, n))(tried)
        there = jnp.argmax(values)
        return jnp.maximum(values[there], best), jnp.where(values[there] > best, tried[there], normal)

    return jax.lax.fori_loop(0, iterations, step, (_margin(a, b, normal), normal))


def contact(a: Geometry, b: Geometry, *, iterations: int = 16, starts: int = 4) -> Contact:
    """The contact of two waves (one each; `jax.vmap` for more), eq. (1).

    `starts` of the candidate directions are refined by `iterations` Newton steps. Concentric bodies, and symmetric ones that
    have several best normals, give one of them.
    """
    return _contact_at(a, b, best_normal(a, b, iterations=iterations, starts=starts))


def best_normal(a: Geometry, b: Geometry, *, iterations: int = 16, starts: int = 4) -> Float[Array, "3"]:
    """The normal of `contact`, without a derivative."""
    posed_a, posed_b = Posed.of(_frozen(a)), Posed.of(_frozen(b))
    directions = _candidates(posed_a, posed_b)
    _, order = jax.lax.top_k(jax.vmap(lambda n: _margin(posed_a, posed_b, n))(directions), starts)
    values, normals = jax.vmap(lambda n: _ascend(posed_a, posed_b, n, iterations))(directions[order])
    return normals[jnp.argmax(values)]


def contact_near(a: Geometry, b: Geometry, normal: Float[Array, "3"], *, iterations: int = 3) -> Contact:
    """The contact of two waves that has moved little since its normal was `normal`: the search begins there, or at a face."""
    posed_a, posed_b = Posed.of(_frozen(a)), Posed.of(_frozen(b))
    faces = jnp.concatenate([jnp.asarray(x.matrix).T for x in (posed_a, posed_b)])
    directions = jnp.concatenate([_frozen(normal)[None], faces, -faces])
    best = directions[jnp.argmax(jax.vmap(lambda n: _margin(posed_a, posed_b, n))(directions))]
    return _contact_at(a, b, _ascend(posed_a, posed_b, best, iterations)[1])


def _contact_at(a: Geometry, b: Geometry, normal: Array) -> Contact:
    """The contact with the best normal, and its derivatives."""
    posed_a, posed_b = Posed.of(a), Posed.of(b)
    still_a, still_b, found = _frozen((posed_a, posed_b, normal))
    plane = _tangents(found)
    hessian = _curvature(still_a, still_b, found, plane)
    gradient = _slope(posed_a, posed_b, found, plane)
    change = gradient - _frozen(gradient)  # 0, but for its derivative
    moved = _uphill(_frozen(hessian), change, _least_curvature(still_a, still_b))
    normal = found + combine(moved, plane)
    return Contact(_margin(posed_a, posed_b, found), normal, farthest(posed_a, normal), farthest(posed_b, -normal))
