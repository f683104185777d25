"""The superquadric gauge in log space, and closed-form quantities derived from it.

For semi-axes a and exponents e1 (along z) and e2 (in the xy plane), with p1 = 2/e1 and p2 = 2/e2, the gauge is a mixed norm:

    g(x) = || ( || (x/a1, y/a2) ||_p2 , z/a3 ) ||_p1 ,          inside: g < 1                                          (1)

For exponents up to 2 both orders are >= 1, so g is convex and 1-homogeneous. It is evaluated as a log-sum-exp, which never
overflows: l_i = 1/2 log((p_i/a_i)^2 + 1e-12),

    m = logaddexp(p2 l_x, p2 l_y) / p2 ,     log g = logaddexp(p1 m, p1 l_z) / p1                                      (2)

The classic inside-outside function is F = g^(2/e1) (Barr 1981). All functions take wave-local points [*lead 3] in metres and
parameters that broadcast against the leading axes.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln

from wsm_jax.typing import Array, Float, Key, NpOrJax

EXPONENT_RANGE = (0.1, 1.9)
TINY = 1e-12


def _pair(a: Array, b: Array, order: Array) -> tuple[Array, Array, Array]:
    """log of the `order`-norm of (exp a, exp b), and the two softmax weights."""
    small = jnp.exp(-order * jnp.abs(a - b))
    larger = 1.0 / (1.0 + small)
    # compute both weights, not one as 1 - the other: the small one determines the normal near a cusp
    first, second = jnp.where(a >= b, larger, small * larger), jnp.where(a >= b, small * larger, larger)
    return jnp.maximum(a, b) + jnp.log1p(small) / order, first, second


Components = Sequence[Array] | Array
"""Three (or two) arrays, or one array with its components on the first axis; they broadcast."""


def log_gauge_gradient(
    point: Components, inverse_scale: Components, orders: Components
) -> tuple[Array, tuple[Array, Array, Array]]:
    """log g and its gradient, 1/m: with u_i = p_i / a_i and the softmax weights w of eq. (2), w_i u_i / (a_i (u_i^2 + 1e-12)).

    `inverse_scale` is 1/a and `orders` is (2/e1, 2/e2). All have their components on the *first* axis.
    """
    units = [point[i] * inverse_scale[i] for i in range(3)]
    squares = [jnp.square(u) + TINY for u in units]
    lx, ly, lz = (0.5 * jnp.log(square) for square in squares)
    plane, wx, wy = _pair(lx, ly, orders[1])
    log_g, w_plane, wz = _pair(plane, lz, orders[0])
    x, y, z = (w * units[i] * inverse_scale[i] / squares[i] for i, w in enumerate((w_plane * wx, w_plane * wy, wz)))
    return log_g, (x, y, z)


def log_gauge(points: Float[NpOrJax, "*p 3"], scale: Float[NpOrJax, "*q 3"], exponents: Float[NpOrJax, "*q 2"]) -> Array:
    """log g of eq. (2)."""
    points, scale, exponents = jnp.asarray(points), jnp.asarray(scale), jnp.asarray(exponents)
    logs = 0.5 * jnp.log(jnp.square(points / scale) + TINY)
    order1, order2 = 2.0 / exponents[..., 0], 2.0 / exponents[..., 1]
    plane = jnp.logaddexp(order2 * logs[..., 0], order2 * logs[..., 1]) / order2
    return jnp.logaddexp(order1 * plane, order1 * logs[..., 2]) / order1


def gauge(points: Float[NpOrJax, "*p 3"], scale: Float[NpOrJax, "*q 3"], exponents: Float[NpOrJax, "*q 2"]) -> Array:
    """g of eq. (1): 1 on the surface, below inside; 1-homogeneous, convex."""
    return jnp.exp(log_gauge(points, scale, exponents))


def radial_distance(points: Float[NpOrJax, "*p 3"], scale: Float[NpOrJax, "*q 3"], exponents: Float[NpOrJax, "*q 2"]) -> Array:
    """Distance to the surface along the ray from the centre, m: |p| (1 - 1/g). Over-estimates the distance; for residuals.

    |p| is softened as in (2), so that a point at the very centre lies a semi-axis deep, and not on the surface.
    """
    points, scale = jnp.asarray(points), jnp.asarray(scale)
    norm = jnp.sqrt(jnp.sum(jnp.square(points) + TINY * jnp.square(scale), -1))
    return norm * -jnp.expm1(-log_gauge(points, scale, exponents))


def inner_radius(scale: Float[NpOrJax, "*q 3"], exponents: Float[NpOrJax, "*q 2"]) -> Array:
    """Radius (m) of a ball that is certain to fit inside: min(a) for exponents <= 1, else 1 / |1/a|."""
    scale, exponents = jnp.asarray(scale), jnp.asarray(exponents)
    always = jax.lax.rsqrt(jnp.sum(jnp.square(1.0 / scale), -1))
    return jnp.where(jnp.all(exponents <= 1.0, -1), jnp.min(scale, -1), always)


def certified_step(points: Float[NpOrJax, "*p 3"], scale: Float[NpOrJax, "*q 3"], exponents: Float[NpOrJax, "*q 2"]) -> Array:
    """A lower bound of the distance to the surface for points outside, m: (g - 1) r_in. Safe for sphere tracing."""
    return jnp.expm1(log_gauge(points, scale, exponents)) * inner_radius(scale, exponents)


def normal(points: Float[NpOrJax, "*p 3"], scale: Float[NpOrJax, "*q 3"], exponents: Float[NpOrJax, "*q 2"]) -> Array:
    """Outward unit normal of the level set of g through each point: the direction of grad g."""
    parts = (jnp.moveaxis(jnp.asarray(x), -1, 0) for x in (points, scale, exponents))
    return jnp.stack(normal_components(*parts), -1)


def normal_components(point: Components, scale: Components, exponents: Components) -> tuple[Array, Array, Array]:
    """`normal` by components on the first axis."""
    _, gradient = log_gauge_gradient(point, [1.0 / scale[i] for i in range(3)], [2.0 / exponents[i] for i in range(2)])
    # p . grad log g = 1, so |p| grad log g has length >= 1 off the centre; there the floor leaves the normal 0 and smooth
    squares = [jnp.square(point[i]) + TINY * jnp.square(scale[i]) for i in range(3)]
    length = jax.lax.stop_gradient(jnp.sqrt(squares[0] + squares[1] + squares[2]))
    x, y, z = (length * slope for slope in gradient)
    unit = jax.lax.rsqrt(jnp.maximum(x * x + y * y + z * z, 1e-2))
    return x * unit, y * unit, z * unit


def volume(scale: Float[NpOrJax, "*q 3"], exponents: Float[NpOrJax, "*q 2"]) -> Array:
    """Volume, m^3: 2 a1 a2 a3 e1 e2 B(e1/2 + 1, e1) B(e2/2, e2/2) (Jaklic, Leonardis and Solina 2000)."""
    scale, exponents = jnp.asarray(scale), jnp.asarray(exponents)
    e1, e2 = exponents[..., 0], exponents[..., 1]
    log_gamma = gammaln(jnp.stack([0.5 * e1 + 1.0, e1, 1.5 * e1 + 1.0, 0.5 * e2, 0.5 * e2, e2], -1))
    beta = jnp.exp(jnp.sum(log_gamma * jnp.array([1.0, 1.0, -1.0, 1.0, 1.0, -1.0]), -1))
    return 2.0 * jnp.prod(scale, -1) * e1 * e2 * beta


def second_moments(scale: Float[NpOrJax, "*q 3"], exponents: Float[NpOrJax, "*q 2"]) -> Array:
    """Mean of (x^2, y^2, z^2) over the body, m^2: its moments of inertia are m times the sum of the other two.

    Slices at height z are discs of the p2-norm with radius (1 - |z|^p1)^(1/p1); with i = 1/p1 = e1/2, j = 1/p2 = e2/2 and
    Dirichlet's integral, for unit semi-axes (G is the gamma function)

        <x^2> = G(3j) G(1 + 2j) / (G(j) G(1 + 4j)) * G(1 + 4i) G(1 + 3i) / (G(1 + 5i) G(1 + 2i))
        <z^2> = G(3i) G(1 + 3i) / (G(i) G(1 + 5i))
    """
    scale, exponents = jnp.asarray(scale), jnp.asarray(exponents)
    i, j = 0.5 * exponents[..., 0], 0.5 * exponents[..., 1]
    plane = gammaln(3 * j) + gammaln(1 + 2 * j) - gammaln(j) - gammaln(1 + 4 * j)
    plane = plane + gammaln(1 + 4 * i) + gammaln(1 + 3 * i) - gammaln(1 + 5 * i) - gammaln(1 + 2 * i)
    axis = gammaln(3 * i) + gammaln(1 + 3 * i) - gammaln(i) - gammaln(1 + 5 * i)
    return jnp.exp(jnp.stack([plane, plane, axis], -1)) * jnp.square(scale)


def support(direction: Float[NpOrJax, "*p 3"], scale: Float[NpOrJax, "*q 3"], exponents: Float[NpOrJax, "*q 2"]) -> Array:
    """Support function h(n) = max over the body of n . x, m (dual norm of g): the same mixed norm of a n with q = 2/(2 - e).

    Exact world bounds: a wave rotated by R reaches h(R^T n) from its centre along n.
    """
    scale, exponents = jnp.asarray(scale), jnp.asarray(exponents)
    return gauge(direction, 1.0 / scale, 2.0 - exponents)


def support_point(direction: Float[NpOrJax, "*p 3"], scale: Float[NpOrJax, "*q 3"], exponents: Float[NpOrJax, "*q 2"]) -> Array:
    """The point of the body farthest along `direction` (any length but 0): the gradient of the support function.

    The middle of a (nearly) flat face if the whole face is farthest.
    """
    direction, scale, exponents = jnp.asarray(direction), jnp.asarray(scale), jnp.asarray(exponents)
    parts, axes = jnp.moveaxis(direction, -1, 0), jnp.moveaxis(scale, -1, 0)
    log_h, gradient = log_gauge_gradient(parts, axes, jnp.moveaxis(2.0 / (2.0 - exponents), -1, 0))
    return jnp.exp(log_h)[..., None] * jnp.stack(gradient, -1)


def support_curvature(
    direction: Components, u: Components, v: Components, scale: Components, orders: Components
) -> tuple[Array, Array, Array]:
    """Second derivatives (uu, uv, vv) of the support function h along directions u and v, m; parts as in `log_gauge_gradient`.

    With l_i = log |a_i n_i| and L = log h, they are h (L_u L_v + L_uv), for weights w of L (and t of its inner pair) change by

        dw = q w (1 - w) d(difference of the pair) ,     d^2 l_i = u_i v_i (floor_i - n_i^2) / (n_i^2 + floor_i)^2

    with the floor of eq. (2). `orders` is (2/(2 - e1), 2/(2 - e2)). No derivative of its own at kinks.
    """
    squares = [jnp.square(direction[i]) for i in range(3)]
    floors = [TINY / jnp.square(scale[i]) for i in range(3)]
    logs = [0.5 * jnp.log(jnp.square(direction[i] * scale[i]) + TINY) for i in range(3)]
    plane, tx, ty = _pair(logs[0], logs[1], orders[1])
    log_h, wp, wz = _pair(plane, logs[2], orders[0])
    bend = [
        weight * (floor - square) / jnp.square(square + floor)
        for weight, floor, square in zip((wp * tx, wp * ty, wz), floors, squares, strict=True)
    ]
    outer, inner = orders[0] * wp * wz, wp * orders[1] * tx * ty

    def changes(along: Components) -> tuple[Array, Array, Array]:
        """Derivatives of L, and of the differences within the outer and the inner pair."""
        dx, dy, dz = (direction[i] * along[i] / (squares[i] + floors[i]) for i in range(3))
        dp = tx * dx + ty * dy
        return wp * dp + wz * dz, dp - dz, dx - dy

    h = jnp.exp(log_h)
    derivatives = {"u": (u, changes(u)), "v": (v, changes(v))}

    def second(first: str, other: str) -> Array:
        (a, (la, oa, ia)), (b, (lb, ob, ib)) = derivatives[first], derivatives[other]
        return h * (la * lb + outer * oa * ob + inner * ia * ib + sum(a[i] * b[i] * bend[i] for i in range(3)))

    return second("u", "u"), second("u", "v"), second("v", "v")


def surface_point(
    directions: Float[NpOrJax, "*p 3"], scale: Float[NpOrJax, "*q 3"], exponents: Float[NpOrJax, "*q 2"]
) -> Array:
    """The surface point on the ray from the centre through `directions` (any length but 0): v / g(v)."""
    return jnp.asarray(directions) * jnp.exp(-log_gauge(directions, scale, exponents))[..., None]


def sphere_directions(count: int) -> Float[Array, "n 3"]:
    """`count` unit vectors spread evenly over the sphere (Fibonacci lattice)."""
    i = jnp.arange(count) + 0.5
    z = 1.0 - 2.0 * i / count
    angle = jnp.pi * (1.0 + 5.0**0.5) * i
    radius = jnp.sqrt(1.0 - z * z)
    return jnp.stack([radius * jnp.cos(angle), radius * jnp.sin(angle), z], -1)


def sample_surface(
    key: Key, count: int, scale: Float[NpOrJax, "*waves 3"], exponents: Float[NpOrJax, "*waves 2"]
) -> Float[Array, "*waves n 3"]:
    """`count` random points on each wave (m, in its frame), uniform by area.

    Random directions v hit the surface of the shape with unit semi-axes at s = v / g(v), with normal n and area element
    |s|^2 / (v . n) per solid angle. Stretching by a multiplies the element by a1 a2 a3 |n / a|. A pool eight times
    larger is resampled with these weights, at evenly spaced quantiles.
    """
    scale, exponents = jnp.asarray(scale), jnp.asarray(exponents)
    if scale.ndim > 1:
        keys = jax.random.split(key, scale.shape[0])
        return jax.vmap(lambda k, a, e: sample_surface(k, count, a, e))(keys, scale, exponents)
    pool_key, pick_key = jax.random.split(key)
    directions = jax.random.normal(pool_key, (8 * count, 3))
    directions = directions / jnp.linalg.norm(directions, axis=-1, keepdims=True)
    unit = surface_point(directions, jnp.ones(3), exponents)
    normals = normal(unit, jnp.ones(3), exponents)
    cosine = jnp.sum(directions * normals, -1)
    stretch = jnp.linalg.norm(normals / scale, axis=-1)
    mass = jnp.cumsum(jnp.sum(jnp.square(unit), -1) * stretch / jnp.maximum(cosine, 1e-3))
    quantiles = (jnp.arange(count) + jax.random.uniform(pick_key)) / count * mass[-1]
    return unit[jnp.clip(jnp.searchsorted(mass, quantiles), 0, 8 * count - 1)] * scale


def occupancy(log_g: Array, scale: Float[NpOrJax, "*q 3"], presence: NpOrJax | float, softness: NpOrJax | float) -> Array:
    """Shape probability of a point: presence * sigmoid(-(g - 1) r / softness), r the geometric mean semi-axis (m)."""
    radius = jnp.exp(jnp.mean(jnp.log(jnp.asarray(scale)), -1))
    return jnp.asarray(presence) * jax.nn.sigmoid(-jnp.expm1(jnp.minimum(log_g, 20.0)) * radius / softness)


def union(probabilities: NpOrJax, axis: int = -1) -> Array:
    """Shape probability of a set of waves: 1 - prod (1 - p)."""
    return 1.0 - jnp.prod(1.0 - jnp.asarray(probabilities), axis)
