"""Exact signed distance to a superquadric, by Newton's iteration for the closest surface point.

By symmetry the point is folded into the first octant, which also contains the closest point x. Points of the surface there have
two coordinates, both logarithms of ratios, s = log x^ - log y^ and t = log r^ - log z^ with x^ = x / a and r^ = ||(x^,
y^)||_p2:

    log r^ = -softplus(-p1 t) / p1,  log z^ = log r^ - t,  log x^ = log r^ - softplus(-p2 s) / p2,  log y^ = log x^ - s     (1)

In these coordinates the squared distance f(s, t) = 1/2 |x(s, t) - p|^2 is smooth for every exponent, without constraints.
Newton's method with the Hessian's eigenvalues made positive and a trust region descends from eight starts: the radial
projection and the projections along the three axes, which find the nearest face from inside, of the point itself and of the
point moved off the planes of symmetry, where it may be a saddle. The derivative is exact by the envelope theorem: the normal
for the point, and for the wave the change of the gauge over its slope.
"""

import jax
import jax.numpy as jnp

from wsm_jax.core import superquadric
from wsm_jax.core.geometry import Geometry, to_local
from wsm_jax.snapshot import Waves
from wsm_jax.typing import Array, Float, NpOrJax

_LIMIT = 40.0
_SCREEN, _POLISH = 6, 40
_FLOOR, _PUSH = 1e-6, 0.15


def _surface(u: Array, orders: Array) -> Array:
    """Equation (1): u = (s, t) -> (x, y, z) / a in the first octant."""
    plane = -jax.nn.softplus(-orders[0] * u[1]) / orders[0]
    x = plane - jax.nn.softplus(-orders[1] * u[0]) / orders[1]
    return jnp.exp(jnp.stack([x, x - u[0], plane - u[1]]))


def _starts(unit: Array, orders: Array) -> Array:
    """Radial projection and projections along x, y and z of a point of the first octant (in semi-axes), as (s, t), [4 2]."""
    log = jnp.log(jnp.maximum(unit, _FLOOR))
    p1, p2 = orders[0], orders[1]
    plane = jnp.logaddexp(p2 * log[0], p2 * log[1]) / p2

    def rest(order: Array, other: Array) -> Array:
        """log of (1 - other^order)^(1/order)."""
        return jnp.log(jnp.maximum(-jnp.expm1(order * jnp.minimum(other, 0.0)), 1e-6)) / order

    rim = rest(p1, log[2])
    along_x = rim + rest(p2, log[1] - rim)
    along_y = rim + rest(p2, log[0] - rim)
    starts = [
        (log[0] - log[1], plane - log[2]),
        (along_x - log[1], rim - log[2]),
        (log[0] - along_y, rim - log[2]),
        (log[0] - log[1], plane - rest(p1, plane)),
    ]
    return jnp.clip(jnp.stack([jnp.stack(start) for start in starts]), -_LIMIT, _LIMIT)


def _derivatives(u: Array, point: Array, scale: Array, orders: Array) -> tuple[Array, Array, Array]:
    """x - p, and of f the gradient (f_s, f_t) and the Hessian (f_ss, f_st, f_tt, and the terms of
    f_ss and f_tt summed without their signs), from the softmax weights of (1)."""
    unit = _surface(u, orders)
    x = scale * unit
    gap = x - point
    # d log of (x, y, z) by s and by t; their own derivatives are -p w (1 - w), the same for the members of a pair
    ws, wt = jax.nn.sigmoid(-orders[1] * u[0]), jax.nn.sigmoid(-orders[0] * u[1])
    by_s = jnp.stack([ws, ws - 1.0, jnp.zeros_like(ws)])
    by_t = jnp.stack([wt, wt, wt - 1.0])
    bend_s = -orders[1] * ws * (1.0 - ws) * jnp.array([1.0, 1.0, 0.0])
    bend_t = -orders[0] * wt * (1.0 - wt)
    slope, curve = gap * x, x * x + gap * x
    gradient = jnp.stack([jnp.sum(slope * by_s), jnp.sum(slope * by_t)])
    size = x * x + jnp.abs(slope)
    hessian = jnp.stack([
        jnp.sum(curve * by_s * by_s + slope * bend_s),
        jnp.sum(curve * by_s * by_t),
        jnp.sum(curve * by_t * by_t + slope * bend_t),
        jnp.sum(size * by_s * by_s - jnp.abs(slope) * bend_s),
        jnp.sum(size * by_t * by_t - jnp.abs(slope) * bend_t),
    ])  # fmt: skip
    return gap, gradient, hessian


def _newton(gradient: Array, hessian: Array, radius: Array) -> Array:
    """-|H|^-1 g, with the absolute eigenvalues of the 2x2 Hessian (a, b; b, c) in its own units, at most `radius` long."""
    a, b, c = hessian[0], hessian[1], hessian[2]
    # both coordinates in their own units first: one in the tail of its exponential has terms as small as that
    unit = jax.lax.rsqrt(jnp.maximum(hessian[3:], 1e-14 * jnp.max(hessian[3:]) + 1e-30))
    a, b, c, gradient = a * unit[0] ** 2, b * unit[0] * unit[1], c * unit[1] ** 2, gradient * unit
    middle, half = 0.5 * (a + c), jnp.sqrt(0.25 * (a - c) ** 2 + b * b + 1e-20)
    high, low = middle + half, middle - half
    # f(H) = f(low) + (f(high) - f(low)) (H - low) / (high - low), for f(x) = 1 / max(|x|, floor)
    f_high, f_low = (1.0 / jnp.maximum(jnp.abs(x), 1e-6) for x in (high, low))
    rate = (f_high - f_low) / (high - low)
    h_gradient = jnp.stack([a * gradient[0] + b * gradient[1], b * gradient[0] + c * gradient[1]])
    step = -unit * (f_low * gradient + rate * (h_gradient - low * gradient))
    return step * jnp.minimum(1.0, radius / (jnp.max(jnp.abs(step)) + 1e-30))


def _descend(u: Array, steps: int, point: Array, scale: Array, orders: Array) -> tuple[Array, Array]:
    """The local minimum (s, t) from a start, and 2 f at it."""

    def iterate(_, state: tuple[Array, ...]) -> tuple[Array, ...]:
        u, gap, gradient, hessian, radius = state
        trial = jnp.clip(u + _newton(gradient, hessian, radius), -_LIMIT, _LIMIT)
        trial_gap, trial_gradient, trial_hessian = _derivatives(trial, point, scale, orders)
        # f(trial) - f(u) without cancellation: far from the wave f itself does not resolve the last steps
        better = jnp.sum((trial_gap - gap) * (trial_gap + gap)) < 0
        radius = jnp.where(better, jnp.minimum(2.0 * radius, 4.0), 0.25 * radius)
        pairs = ((trial, u), (trial_gap, gap), (trial_gradient, gradient), (trial_hessian, hessian))
        return *(jnp.where(better, new, old) for new, old in pairs), radius

    state = (u, *_derivatives(u, point, scale, orders), jnp.full((), 2.0, u.dtype))
    u, gap, *_ = jax.lax.fori_loop(0, steps, iterate, state)
    return u, jnp.sum(gap * gap)


def _closest_one(point: Array, scale: Array, orders: Array) -> Array:
    size = jnp.max(scale)
    folded, axes = jnp.abs(point) / size, scale / size
    unit = folded / axes
    starts = jnp.concatenate([_starts(unit, orders), _starts(jnp.maximum(unit, _PUSH), orders)])
    u, value = jax.vmap(lambda start: _descend(start, _SCREEN, folded, axes, orders))(starts)
    u, _ = _descend(u[jnp.argmin(value)], _POLISH, folded, axes, orders)
    return jnp.where(point < 0, -1.0, 1.0) * scale * _surface(u, orders)


def closest_point(
    points: Float[NpOrJax, "*p 3"], scale: Float[NpOrJax, "*q 3"], exponents: Float[NpOrJax, "*q 2"]
) -> Float[Array, "*p 3"]:
    """The surface point (local, m) nearest to each wave-local point; any one of several nearest. Without gradient."""
    points, scale, exponents = jax.lax.stop_gradient((jnp.asarray(points), jnp.asarray(scale), jnp.asarray(exponents)))
    scale = jnp.broadcast_to(scale, points.shape)
    exponents = jnp.broadcast_to(exponents, (*points.shape[:-1], 2))
    flat = jax.vmap(_closest_one)(points.reshape(-1, 3), scale.reshape(-1, 3), 2.0 / exponents.reshape(-1, 2))
    return flat.reshape(points.shape)


def signed_distance(
    points: Float[NpOrJax, "*p 3"], scale: Float[NpOrJax, "*q 3"], exponents: Float[NpOrJax, "*q 2"]
) -> Float[Array, "*p"]:
    """Euclidean distance of wave-local points to the surface (m), negative inside; differentiable in all arguments.

    float32 resolves the closest point to about 1e-7 of the longest semi-axis, and the distance to the same.
    """
    points, scale, exponents = jnp.asarray(points), jnp.asarray(scale), jnp.asarray(exponents)
    frozen = jax.lax.stop_gradient
    nearest = closest_point(points, scale, exponents)
    sign = jnp.where(frozen(superquadric.log_gauge(points, scale, exponents)) < 0, -1.0, 1.0)
    distance = sign * jnp.sqrt(jnp.sum(jnp.square(frozen(points) - nearest), -1))
    # both terms have value 0 and carry only the derivative
    outward = superquadric.normal(nearest, frozen(scale), frozen(exponents))
    gap = jnp.sum(outward * (points - frozen(points)), -1)
    log_g = superquadric.log_gauge(nearest, scale, exponents)
    # x . grad log g = 1, so that |grad log g| = 1 / (x . n)
    slope_inverse = jnp.abs(jnp.sum(nearest * outward, -1))
    return distance + gap + (log_g - frozen(log_g)) * frozen(slope_inverse)


@jax.jit
def _to_one(geometry: Geometry, points: Array) -> Array:
    pose = jax.tree.map(lambda x: jnp.broadcast_to(x, (*points.shape[:-1], x.shape[-1])), geometry)
    return signed_distance(to_local(pose, points), geometry.scale, geometry.exponents)


def set_distance(waves: Waves, points: Float[NpOrJax, "n 3"]) -> Float[Array, " n"]:
    """Signed distance (m) to the union of the waves with presence > 1/2: the minimum over the waves; +inf for none.

    Exact outside. Inside, where waves overlap, the true depth of the union may be larger: the value is a bound, -d <= depth.
    Waves are processed one after another, so memory does not grow with their number.
    """
    geometry = jax.tree.map(jnp.asarray, Geometry.of(waves))
    present = jnp.asarray(waves.presence) > 0.5
    points = jnp.asarray(points)

    def nearer(least: Array, wave: tuple[Geometry, Array]) -> tuple[Array, None]:
        distance = jax.lax.cond(wave[1], _to_one, lambda *_: jnp.full(points.shape[:1], jnp.inf, points.dtype), wave[0], points)
        return jnp.minimum(least, distance), None

    return jax.lax.scan(nearer, jnp.full(points.shape[:1], jnp.inf, points.dtype), (geometry, present))[0]
