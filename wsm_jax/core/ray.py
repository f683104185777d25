"""Intersections of rays and waves, and closest approaches: Newton's iteration on the convex gauge.

Along a ray o + t d the gauge of a wave is convex, so Newton's iteration on g = 1 started in front of the wave,

    t <- t - (g - 1) / (dg/dt)                                                                                          (1)

grows monotonically to the entry and never steps past it; a slope that becomes positive while g > 1 proves a miss. There is
no step size and no tunnelling. It starts where the ray enters the box |p_i| <= a_i, which contains the wave for all exponents,
costs no logarithm, excludes most misses, and brings g near 1. The exit is the entry of the reversed ray. Gradients do not run
through the iteration: one last step of (1) with a frozen slope carries the exact implicit
derivative of the crossing.

Internally, arrays have components on the first axis and rays on the last: [3 *waves R].
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from wsm_jax.core import superquadric
from wsm_jax.core.geometry import Geometry
from wsm_jax.core.superquadric import TINY, Components
from wsm_jax.snapshot import Waves, quaternion_to_matrix
from wsm_jax.typing import Array, Float, NpOrJax

NEAR_M = 0.05
"""Start of a ray of unit depth, m."""
MISS = 1e6
"""The parameter of a ray that does not cross a wave."""
ITERATIONS = 32
"""Maximum number of Newton steps; 9 was the maximum in 2e5 random pairs of exponents 0.1 to 1.9."""
BISECTIONS = 20
_BOX = 1.0001  # semi-axes of the box that holds a unit wave, with room for rounding
_FLAT = 1e-7
_ARRIVED = 1e-5  # log g, before a last step
_FAR = MISS * (1 - 1e-6)  # a ray at MISS lies beyond every box


class LocalRays(NamedTuple):
    """Rays in the frames of the waves, m, by components. `shift` is the ray parameter at `start`.

    `start` is the point of the ray nearest to the centre of the wave, so that distant origins keep their precision.
    """

    start: list[Array]
    way: list[Array]
    shift: Array
    scale: list[Array]
    orders: list[Array]

    def frozen(self) -> tuple[list[Array], list[Array], list[Array]]:
        """Start and way in units of the semi-axes, and the orders, for searches, through which no gradient runs."""
        start, way, scale, orders = jax.lax.stop_gradient((self.start, self.way, self.scale, self.orders))
        return [start[i] / scale[i] for i in range(3)], [way[i] / scale[i] for i in range(3)], orders

    def at(self, t: Array) -> list[Array]:
        """The points at a parameter, m."""
        return [self.start[i] + t * self.way[i] for i in range(3)]


def local_rays(waves: Waves | Geometry, origin: Array, direction: Array) -> LocalRays:
    """Rays [3 ... R] in the frame of each wave [*waves]; the axes between must broadcast against those of the waves."""
    matrix = quaternion_to_matrix(waves.rotation)
    parts = (waves.centre, waves.scale, waves.exponents, matrix.reshape(*matrix.shape[:-2], 9))
    frames = WaveFrames(*([x[..., i, None] for i in range(x.shape[-1])] for x in map(jnp.asarray, parts)))
    return in_frames(frames, origin, direction)


class WaveFrames(NamedTuple):
    """Waves by components, of shapes that broadcast with those of the rays."""

    centre: list[Array]
    scale: list[Array]
    exponents: list[Array]
    turn: list[Array]
    """Wave to world, by rows."""


def in_frames(frames: WaveFrames, origin: Array, direction: Array) -> LocalRays:
    """`local_rays` for given wave frames."""
    centre, scale, exponents, turn = frames
    offset = [origin[i] - centre[i] for i in range(3)]
    start, way = ([dot(turn[j::3], x) for j in range(3)] for x in (offset, direction))
    shift = jax.lax.stop_gradient(-dot(start, way) / jnp.maximum(dot(way, way), TINY))
    nearest = [start[i] + shift * way[i] for i in range(3)]
    return LocalRays(nearest, way, shift, scale, [2.0 / exponents[i] for i in range(2)])


def dot(a: Components, b: Components) -> Array:
    """Dot product of components, without a matrix unit, which would round it on accelerators."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def log_gauge_and_slope(start: Components, way: Components, t: Array, orders: Components) -> tuple[Array, Array]:
    """log g and d(log g)/dt at parameter t of every ray, in units of the semi-axes.

    Equals the slope of `superquadric.log_gauge_gradient` without its weights: this is the hot loop of the caster.
    """
    logs, slopes = [], []
    for i in range(3):
        p = start[i] + t * way[i]
        square = p * p + TINY
        logs.append(0.5 * jnp.log(square))
        slopes.append(way[i] * p / square)
    log_plane, slope_plane = _norm_and_slope(logs[0], logs[1], slopes[0], slopes[1], orders[1])
    return _norm_and_slope(log_plane, logs[2], slope_plane, slopes[2], orders[0])


def _norm_and_slope(a: Array, b: Array, slope_a: Array, slope_b: Array, order: Array) -> tuple[Array, Array]:
    """log of the `order`-norm of (exp a, exp b), and its slope."""
    small = jnp.exp(-order * jnp.abs(a - b))
    whole = 1.0 + small
    greater = a >= b
    slope = jnp.where(greater, slope_a, slope_b) + small * jnp.where(greater, slope_b, slope_a)
    return jnp.maximum(a, b) + jnp.log(whole) / order, slope / whole


def slabs(start: Components, way: Components, half: Array | float = _BOX) -> tuple[Array, Array]:
    """Parameters at which each ray enters and leaves the box |p_i| <= half; entry > exit where it misses."""
    ends = []
    for i in range(3):
        inverse = 1.0 / jnp.where(jnp.abs(way[i]) < TINY, TINY, way[i])
        near, far = (-half - start[i]) * inverse, (half - start[i]) * inverse
        ends.append((jnp.minimum(near, far), jnp.maximum(near, far)))
    enter = jnp.maximum(jnp.maximum(ends[0][0], ends[1][0]), ends[2][0])
    return enter, jnp.minimum(jnp.minimum(ends[0][1], ends[1][1]), ends[2][1])


def _entry(start: Components, way: Components, orders: Components, near: Array, far: Array | float = _FAR) -> Array:
    """Parameter of the first surface point between `near` and `far`, MISS where there is none or `near` lies inside.

    A converged ray is frozen, so its parameter does not depend on the other rays of the batch. With L = log g the
    numerator of (1), over g, is 1 - exp(-L) >= L / (1 + L/2 + L^2/12): a close lower bound, so a step never goes too far.
    """
    shape = jnp.broadcast_shapes(near.shape, start[0].shape)
    # one long axis, since XLA vectorises short axes (the pixels of a tile) badly
    near, far, *parts = (jnp.broadcast_to(x, shape).reshape(-1) for x in (near, far, *start, *way, *orders))
    start, way, orders = parts[:3], parts[3:6], parts[6:]
    enter, leave = slabs(start, way)
    inside, leave = near >= enter, jnp.minimum(leave, far)
    t = jnp.minimum(jnp.maximum(enter, near), MISS)

    def unfinished(state):
        i, t, log_g = state
        return (i < ITERATIONS) & jnp.any((t <= leave) & (log_g > _ARRIVED))

    def advance(state):
        i, t, before = state
        log_g, slope = log_gauge_and_slope(start, way, t, orders)
        missed = jnp.where(log_g > 0, slope >= -_FLAT, inside & (i == 0))
        above = jnp.maximum(log_g, 0.0)
        step = above / ((1.0 + above * (0.5 + above / 12.0)) * jnp.minimum(slope, -_FLAT))
        arrived = before <= _ARRIVED
        log_g = jnp.where(arrived, before, log_g)
        return i + 1, jnp.where(arrived, t, jnp.where(missed | (t > leave), MISS, t - step)), log_g

    _, t, log_g = jax.lax.while_loop(unfinished, advance, (0, t, jnp.full_like(t, jnp.inf)))
    return jnp.where((t > leave) | (log_g > 2e-3), MISS, t).reshape(shape)


def _log_gauge_and_gradient(rays: LocalRays, t: Array) -> tuple[Array, list[Array]]:
    """log g at parameter t, with its derivative in everything but t, and its gradient there, 1/m, without one."""
    log_g, gradient = superquadric.log_gauge_gradient(rays.at(t), [1.0 / x for x in rays.scale], rays.orders)
    return log_g, list(jax.lax.stop_gradient(gradient))


def _refined(rays: LocalRays, t: Array, sign: float) -> Array:
    """The last step of (1), which carries the derivative; `sign` is that of the slope: -1 at an entry, 1 at an exit."""
    log_g, gradient = _log_gauge_and_gradient(rays, t)
    way = jax.lax.stop_gradient(rays.way)
    grazing = 1e-3 * jnp.sqrt(dot(gradient, gradient) * dot(way, way))
    return t + rays.shift - log_g / (sign * jnp.maximum(sign * dot(gradient, way), grazing))


def entry(rays: LocalRays, near: Array | float) -> Array:
    """Parameter at which each ray enters each wave, [*waves R]; MISS where it does not, or begins inside. Differentiable."""
    start, way, orders = rays.frozen()
    t = _entry(start, way, orders, near - rays.shift)
    return jnp.where(t < MISS, _refined(rays, t, -1.0), MISS)


def before(rays: LocalRays, near: Array | float, far: Array) -> Array:
    """`entry` where it lies before `far`, MISS elsewhere; no gradient runs through it."""
    start, way, orders = rays.frozen()
    shift = jax.lax.stop_gradient(rays.shift)
    t = _entry(start, way, orders, near - shift, jnp.minimum(far - shift, _FAR))
    return jnp.where(t < MISS, t + shift, MISS)


def leaving(rays: LocalRays, near: Array | float) -> Array:
    """Parameter at which each ray leaves each wave, [*waves R]; MISS where it does not, or begins behind. Differentiable."""
    start, way, orders = rays.frozen()
    back = _entry(start, [-x for x in way], orders, jnp.full_like(rays.shift, -MISS))
    met = (back < MISS) & (-back + rays.shift > near)
    return jnp.where(met, _refined(rays, jnp.where(met, -back, 0.0), 1.0), MISS)


def closest(rays: LocalRays, near: Array | float) -> tuple[Array, Array]:
    """Parameter of the minimum of the gauge on each ray beyond `near`, and log g at it, [*waves R].

    By bisection of the sign of the slope. With gauge G at the point nearest to the centre, the minimum has g <= G, so it lies
    in the box of semi-axes G a. No gradient runs through the parameter, since the slope at the minimum is 0. For exponents
    above 1 the gauge may have an edge there, with two gradients, of slopes s0 < 0 < s1 along the ray. The gradient of the
    minimum is the combination that is orthogonal to the ray, (s1 n0 - s0 n1) / (s1 - s0).
    """
    start, way, orders = rays.frozen()
    near = near - rays.shift
    middle = jnp.maximum(-dot(start, way) / jnp.maximum(dot(way, way), TINY), near)
    log_g, _ = log_gauge_and_slope(start, way, middle, orders)
    low, high = slabs(start, way, jnp.exp(log_g) * _BOX)
    low = jnp.maximum(low, near)

    def halve(_, bounds):
        low, high = bounds
        middle = 0.5 * (low + high)
        _, slope = log_gauge_and_slope(start, way, middle, orders)
        return jnp.where(slope < 0, middle, low), jnp.where(slope < 0, high, middle)

    low, high = jax.lax.fori_loop(0, BISECTIONS, halve, (low, jnp.maximum(high, low)))
    ends = [_log_gauge_and_gradient(rays, end) for end in (low, high)]
    (before, falling), (after, rising) = ((log_g, dot(gradient, jax.lax.stop_gradient(rays.way))) for log_g, gradient in ends)
    share = jnp.where((falling < 0) & (rising > 0), rising / jnp.maximum(rising - falling, TINY), 0.5)
    return 0.5 * (low + high) + rays.shift, share * before + (1.0 - share) * after


def _world(waves: Waves, origin: NpOrJax, direction: NpOrJax) -> LocalRays:
    """R rays [R 3] and every wave [N]."""
    origin, direction = (jnp.moveaxis(jnp.asarray(x), -1, 0)[:, None] for x in (origin, direction))
    return local_rays(waves, origin, direction)


def cast(
    waves: Waves, origin: Float[NpOrJax, "R 3"], direction: Float[NpOrJax, "R 3"], near: float = NEAR_M
) -> Float[Array, "N R"]:
    """Depth at which each ray enters each wave, in units of the direction's length; 1e6 where it does not.

    A wave that contains the start of the ray is not entered. Absent waves (presence < 1/2) are entered too: weight by presence.
    Differentiable in the waves, the origin and the direction by the implicit function theorem. The entry of a ray that grazes
    the surface moves without bound; its derivative is limited to that of an incidence of cosine 1e-3.
    """
    return entry(_world(waves, origin, direction), near)


def crossing(
    waves: Waves, origin: Float[NpOrJax, "R 3"], direction: Float[NpOrJax, "R 3"], near: float = NEAR_M
) -> tuple[Float[Array, "N R"], Float[Array, "N R"]]:
    """Entry and exit of each ray in each wave: `cast`, and its counterpart at the far side; 1e6 for none.

    A ray that begins inside a wave leaves it without entering. Differentiable as `cast` is.
    """
    rays = _world(waves, origin, direction)
    return entry(rays, near), leaving(rays, near)
