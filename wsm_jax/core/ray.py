"""Where rays enter and leave waves, and where they pass nearest to them: Newton's iteration on the convex gauge.

Along a ray o + t d the gauge of a wave is convex, so Newton's iteration on g = 1 started in front of the wave,

    t <- t - (g - 1) / (dg/dt)                                                                                          (1)

grows monotonically to the entry and never steps past it; a slope that turns positive while g > 1 proves a miss. There is
no step size and no tunnelling. It starts where the ray enters the box |p_i| <= a_i that holds the wave, whatever its
exponents, which costs no logarithm, leaves out most misses, and brings g near 1. The exit is the entry of the ray run
backwards. Gradients do not run through the iteration: one last step of (1) with a frozen slope carries the exact implicit
derivative of the crossing.

Inside, arrays have their components on the first axis and the rays on the last: [3 *waves R].
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
"""Where a ray of unit depth begins, m."""
MISS = 1e6
"""The parameter of a ray that does not cross a wave."""
ITERATIONS = 32
"""Most Newton steps; 9 were the most seen in 2e5 random pairs of exponents 0.1 to 1.9."""
BISECTIONS = 20
_BOX = 1.0001  # semi-axes of the box that holds a unit wave, with room for rounding
_FLAT = 1e-7
_ARRIVED = 1e-5  # log g, before a last step
_FAR = MISS * (1 - 1e-6)  # so that a ray that has missed, at MISS, lies beyond every box


class LocalRays(NamedTuple):
    """Rays in the frames of the waves, m, by components. `shift` is the parameter of the ray's own start, from `start`.

    `start` is the point of the ray nearest to the centre of the wave, so that a far start costs no precision.
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
    """`local_rays` in frames that are known."""
    centre, scale, exponents, turn = frames
    offset = [origin[i] - centre[i] for i in range(3)]
    start, way = ([dot(turn[j::3], x) for j in range(3)] for x in (offset, direction))
    shift = jax.lax.stop_gradient(-dot(start, way) / jnp.maximum(dot(way, way), TINY))
    nearest = [start[i] + shift * way[i] for i in range(3)]
    return LocalRays(nearest, way, shift, scale, [2.0 / exponents[i] for i in range(2)])


def dot(a: Components, b: Components) -> Array:
    """Written out: a contraction of three numbers is no work for a matrix unit, and accelerators would round it."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def log_gauge_and_slope(start: Components, way: Components, t: Array, orders: Components) -> tuple[Array, Array]:
    """log g and d(log g)/dt at parameter t of every ray, in units of the semi-axes.

    The slope of `superquadric.log_gauge_gradient`, whose weights it never forms: this is what a caster's time goes to.
    """
    logs, slopes = [], []
    for i in range(3):
        p = start[i] + t * way[i]
        square = p * p + TINY
        logs.append(0.5 * jnp.log(square))
        slopes.append(way[i] * p / square)
    log_plane, slope_plane = _join(logs[0], logs[1], slopes[0], slopes[1], orders[1])
    return _join(log_plane, logs[2], slope_plane, slopes[2], orders[0])


def _join(a: Array, b: Array, slope_a: Array, slope_b: Array, order: Array) -> tuple[Array, Array]:
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

    A ray that has arrived rests, so that its parameter does not depend on which others are cast with it. With L = log g the
    numerator of (1), over g, is 1 - exp(-L) >= L / (1 + L/2 + L^2/12): as near as makes no difference, and never too far.
    """
    shape = jnp.broadcast_shapes(near.shape, start[0].shape)
    # one long axis: loops over short ones, as the pixels of a tile are, would run at a fraction of the vector unit's speed
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
    """Parameter where the gauge is least on each ray beyond `near`, and log g there, [*waves R].

    By bisection of the sign of the slope. Whatever the gauge G at the point nearest to the centre, the least point lies where
    g <= G, so in the box of semi-axes G a. No gradient runs through the parameter: at the least point it would be 0 times it.
    There the gauge of a wave with exponents above 1 has an edge, and two gradients, of slopes s0 < 0 < s1 along the ray. That
    of the least value is the one between them that the ray is at right angles to, (s1 n0 - s0 n1) / (s1 - s0).
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

    A wave that holds the ray's start is not entered. Absent waves (presence < 1/2) are entered too: weigh by presence.
    Differentiable in the waves, the origin and the direction by the implicit function theorem. The entry of a ray that grazes
    the surface moves without bound; its derivative is held to what the ray would have at an incidence of cosine 1e-3.
    """
    return entry(_world(waves, origin, direction), near)


def crossing(
    waves: Waves, origin: Float[NpOrJax, "R 3"], direction: Float[NpOrJax, "R 3"], near: float = NEAR_M
) -> tuple[Float[Array, "N R"], Float[Array, "N R"]]:
    """Where each ray enters and where it leaves each wave: `cast`, and its counterpart at the far side; 1e6 for none.

    A ray that begins inside a wave leaves it without entering. Differentiable as `cast` is.
    """
    rays = _world(waves, origin, direction)
    return entry(rays, near), leaving(rays, near)
