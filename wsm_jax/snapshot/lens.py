"""Lens distortion after Brown (1966) and Conrady (1919), in the order of coefficients and signs of OpenCV: k1 k2 p1 p2 k3.

A direction (x, y, 1) of the camera frame, with s = x^2 + y^2 and R(s) = 1 + k1 s + k2 s^2 + k3 s^3, has the pixel at which
a pinhole camera sees (x', y', 1):

    x' = x R + 2 p1 x y + p2 (s + 2 x^2)
    y' = y R + p1 (s + 2 y^2) + 2 p2 x y                                                                                (1)

The polynomial is invertible up to the radius r = `limit` at which the distorted radius r R stops growing. Directions and
pixels farther out are moved to the circle of that radius. NumPy stays NumPy.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from wsm_jax.typing import Bool, Float, NpOrJax, array_namespace

Pixels = Float[NpOrJax, "*pixels"]
"""One number for each pixel."""

_FARTHEST = 1e4  # s of a direction 89.4 degrees off the axis
_BISECTIONS, _NEWTON_STEPS = 30, 6


def _parts(coefficients: Float[NpOrJax, "*lead 5"], like: Float[NpOrJax, "..."], xp: Any) -> list[Float[NpOrJax, "..."]]:
    """The coefficients one by one, with axes to broadcast against `like`, whose axes begin with `*lead`."""
    values = xp.asarray(coefficients)
    lead = values.shape[:-1]
    return [values[..., i].reshape(*lead, *[1] * (like.ndim - len(lead))) for i in range(5)]


def _polynomial(x: Pixels, y: Pixels, k: list[Float[NpOrJax, "..."]]) -> tuple[Pixels, Pixels]:
    """Equation (1)."""
    k1, k2, p1, p2, k3 = k
    s = x * x + y * y
    radial = 1.0 + s * (k1 + s * (k2 + s * k3))
    return x * radial + 2 * p1 * x * y + p2 * (s + 2 * x * x), y * radial + p1 * (s + 2 * y * y) + 2 * p2 * x * y


def _jacobian(x: Pixels, y: Pixels, k: list[Float[NpOrJax, "..."]]) -> tuple[Pixels, Pixels, Pixels]:
    """dx'/dx, dx'/dy = dy'/dx, and dy'/dy."""
    k1, k2, p1, p2, k3 = k
    s = x * x + y * y
    radial, slope = 1.0 + s * (k1 + s * (k2 + s * k3)), k1 + s * (2 * k2 + 3 * s * k3)
    cross = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
    return radial + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x, cross, radial + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x


def limit(coefficients: Float[NpOrJax, "*lead 5"]) -> Float[NpOrJax, "*lead"]:
    """The radius sqrt(x^2 + y^2) up to which the distorted radius grows: 0.999 of the first root of d(r R)/dr."""
    xp = array_namespace(coefficients)
    k1, k2, _, _, k3 = (xp.asarray(coefficients)[..., i, None] for i in range(5))

    def grows(s: Float[NpOrJax, "..."]) -> Bool[NpOrJax, "..."]:
        return 1.0 + s * (3 * k1 + s * (5 * k2 + s * 7 * k3)) > 0

    grid = xp.asarray(np.concatenate([[0.0], np.geomspace(1e-4, _FARTHEST, 500)]), k1.dtype)
    last = xp.sum(xp.cumprod(grows(grid), -1), -1, keepdims=True) - 1
    low, high = grid[last], grid[xp.minimum(last + 1, len(grid) - 1)]

    def halve(bounds: tuple[Pixels, Pixels]) -> tuple[Pixels, Pixels]:
        middle = 0.5 * (bounds[0] + bounds[1])
        return xp.where(grows(middle), middle, bounds[0]), xp.where(grows(middle), bounds[1], middle)

    low, _ = _repeat(_BISECTIONS, halve, (low, high), xp)
    return xp.asarray(0.999 * xp.sqrt(low[..., 0]))


def _repeat(count: int, body: Callable[[Any], Any], state: Any, xp: Any) -> Any:
    """`body` applied `count` times. Under JAX it is a loop: unrolled, XLA would fuse the bisections into 2^count copies."""
    if xp is not np:
        return jax.lax.fori_loop(0, count, lambda _, now: body(now), state)
    for _ in range(count):
        state = body(state)
    return state


def _within(x: Pixels, y: Pixels, radius: Float[NpOrJax, "..."], xp: Any) -> tuple[Pixels, Pixels]:
    """Points outside the disc of that radius, moved to its edge."""
    inside = xp.minimum(1.0, radius / xp.sqrt(xp.maximum(x * x + y * y, 1e-24)))
    return x * inside, y * inside


def distort(x: Pixels, y: Pixels, coefficients: Float[NpOrJax, "*lead 5"]) -> tuple[Pixels, Pixels]:
    """Distorted (x', y') of the directions (x, y, 1); directions beyond the limit are moved to it first."""
    xp = array_namespace(x, y, coefficients)
    radius = limit(coefficients)
    radius = radius.reshape(*radius.shape, *[1] * (x.ndim - radius.ndim))
    return _polynomial(*_within(x, y, radius, xp), _parts(coefficients, x, xp))


def undistort(x: Pixels, y: Pixels, coefficients: Float[NpOrJax, "*lead 5"]) -> tuple[Pixels, Pixels]:
    """Directions (x, y, 1) of distorted points: the inverse of `distort`.

    The radius is found by bisection of the radial part, then both components by Newton's iteration. The derivative is that of
    one last step, which is exact; points beyond the limit get a direction on its circle and derivative 0.
    """
    xp = array_namespace(x, y, coefficients)
    frozen = jax.lax.stop_gradient if xp is not np else lambda tree: tree
    k = _parts(coefficients, x, xp)
    seen_x, seen_y, fixed, radius = frozen((x, y, k, limit(coefficients)))
    radius = radius.reshape(*radius.shape, *[1] * (x.ndim - radius.ndim))
    seen = xp.sqrt(xp.maximum(seen_x * seen_x + seen_y * seen_y, 1e-24))
    k1, k2, _, _, k3 = fixed
    low, high = xp.zeros_like(seen), radius + xp.zeros_like(seen)

    def halve(bounds: tuple[Pixels, Pixels]) -> tuple[Pixels, Pixels]:
        low, high = bounds
        r = 0.5 * (low + high)
        short = r * (1.0 + r * r * (k1 + r * r * (k2 + r * r * k3))) < seen
        return xp.where(short, r, low), xp.where(short, high, r)

    def newton(place: tuple[Pixels, Pixels]) -> tuple[Pixels, Pixels]:
        step_x, step_y = _step(*place, seen_x, seen_y, fixed, xp)
        return _within(place[0] + step_x, place[1] + step_y, radius, xp)

    low, _ = _repeat(_BISECTIONS, halve, (low, high), xp)
    u, v = _repeat(_NEWTON_STEPS, newton, (seen_x * low / seen, seen_y * low / seen), xp)
    got_x, got_y = _polynomial(u, v, fixed)
    solved = xp.abs(got_x - seen_x) + xp.abs(got_y - seen_y) < 1e-4 * (1.0 + seen)
    u, v = frozen((u, v))
    step_x, step_y = _step(u, v, x, y, k, xp, frozen(_jacobian(u, v, k)))
    return u + xp.where(solved, step_x, 0.0), v + xp.where(solved, step_y, 0.0)


def _step(
    u: Pixels, v: Pixels, x: Pixels, y: Pixels, k: list[Float[NpOrJax, "..."]], xp: Any, jacobian: Any = None
) -> tuple[Pixels, Pixels]:
    """Newton's step towards the direction of the point (x, y); 0 where the mapping is not invertible."""
    a, b, d = _jacobian(u, v, k) if jacobian is None else jacobian
    got_x, got_y = _polynomial(u, v, k)
    determinant = a * d - b * b
    inverse = xp.where(determinant > 1e-4, 1.0 / xp.maximum(determinant, 1e-4), 0.0)
    miss_x, miss_y = x - got_x, y - got_y
    return inverse * (d * miss_x - b * miss_y), inverse * (a * miss_y - b * miss_x)
