"""Fit of a wave to points with noise and outliers, without an initial wave.

A point lies at distance d ~ N(0, sigma^2) off a surface of area A, or, with probability o, anywhere in the volume V:

    p(x) = (1 - o)/A N(d(x); 0, sigma^2) + o/V                                                                           (1)

(EMS: Liu, Wu, Ruan and Chirikjian, CVPR 2022, use the isotropic density of a point about its closest surface point instead.)
The E step gives every point its posterior weight, the share of the first term; the M step is one damped step of fit.py on the
weighted distances and log A (which keeps a wave from growing into space without points); sigma and o follow the weights, and
sigma never increases, which anneals the fit. d is the first-order distance (Taubin 1991), (g - 1)/|grad g|: for the convex g a
lower bound of the distance outside, and, unlike the radial distance, accurate near the broad faces of a thin wave.

A superquadric is not symmetric in its axes, and least squares does not move from one parameterisation of a shape to another. So
eight starts run in one vmap: first along the principal axes, then the alternative parameterisations of the best fit
("switching"). The start with the highest likelihood is kept.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from wsm_jax.core.fitting.compare import surface_area
from wsm_jax.core.fitting.fit import DAMPING, PARAMETERS, damped_step, free_mask, prior_residuals, size, with_parameters
from wsm_jax.core.fitting.observations import checked_points, extent, float32
from wsm_jax.core.geometry import Geometry, to_local
from wsm_jax.core.rotation import matrix64
from wsm_jax.core.superquadric import EXPONENT_RANGE, log_gauge_gradient
from wsm_jax.snapshot.camera import matrix_to_quaternion
from wsm_jax.typing import Array, Float, NpOrJax, pytree

STARTS = 8
"""Number of starts in one vmap."""

_DIRECTIONS = 256


@pytree
class Fit:
    """A wave and the quality of its fit; any leading axes."""

    geometry: Geometry
    sigma: Float[NpOrJax, "*lead"]
    """Standard deviation of the inliers' distances, m."""
    outliers: Float[NpOrJax, "*lead"]
    """Fraction of outliers, o."""
    loss: Float[NpOrJax, "*lead"]
    """Mean of -log p of eq. (1), nats per point, with the priors."""
    inlier: Float[NpOrJax, "*lead n"]
    """Posterior probability that a point lies on the wave; 0 where its weight is 0."""


def first_order_distance(points: Float[NpOrJax, "n 3"], geometry: Geometry) -> Float[Array, " n"]:
    """First-order signed distance of world points to the surface (m), (g - 1)/|grad g|; outside a lower bound."""
    scale, exponents = jnp.asarray(geometry.scale), jnp.asarray(geometry.exponents)
    local = to_local(geometry, points).T
    log_g, gradient = log_gauge_gradient(local, (1.0 / scale)[:, None], (2.0 / exponents)[:, None])
    g = jnp.exp(jnp.minimum(log_g, 40.0))
    # g is a norm, so |grad g| >= g/|p| >= 1/|a| everywhere; at the centre the formula is undefined
    slope = jnp.sqrt(jnp.sum(jnp.square(g * jnp.stack(gradient)), 0) + 1e-30)
    steepness = jnp.maximum(slope, jax.lax.rsqrt(jnp.sum(jnp.square(scale))))
    return (g - 1.0) / steepness


def _log_area(geometry: Geometry) -> Array:
    return jnp.log(surface_area(geometry.scale, geometry.exponents, _DIRECTIONS))


def _log_terms(d: Array, geometry: Geometry, sigma: Array, outliers: Array, volume: Array) -> tuple[Array, Array]:
    """Logarithms of the two terms of (1)."""
    on = jnp.log1p(-outliers) - _log_area(geometry) - 0.5 * jnp.square(d / sigma)
    return on - jnp.log(sigma) - 0.5 * jnp.log(2 * jnp.pi), jnp.log(outliers + 1e-30) - jnp.log(volume)


@partial(jax.jit, static_argnames=("free", "iterations"))
def fit_robust(
    points: Float[NpOrJax, "n 3"],
    weights: Float[NpOrJax, " n"],
    initial: Geometry,
    *,
    noise: NpOrJax | float,
    volume: NpOrJax | float,
    outliers: NpOrJax | float = 0.0,
    vacant: Float[NpOrJax, " n"] | None = None,
    prior: Mapping[str, Any] | None = None,
    free: tuple[str, ...] = tuple(PARAMETERS),
    iterations: int = 30,
) -> Fit:
    """The wave that explains `points` (world, m) by (1), starting at `initial`.

    `noise` is the minimum of sigma (m), `volume` is V (m^3), `outliers` the maximum fraction of outliers (0: every point has
    full weight). A point with `vacant` 1 lies in empty space (a ray passed through it) and not on a surface: only its depth
    inside the wave counts, d = min(d, 0). `prior` as in fit_wave. Points of weight 0 are ignored. Runs under jit and vmap;
    never NaN for finite points.
    """
    prior = {} if prior is None else prior
    weights = jnp.maximum(jnp.asarray(weights), 0.0)
    points = jnp.where(weights[:, None] > 0, jnp.asarray(points), jnp.asarray(initial.centre))
    total = jnp.maximum(jnp.sum(weights), 1e-30)
    noise, volume, max_outliers = (jnp.asarray(x, jnp.float32) for x in (noise, volume, outliers))
    free_parameters = free_mask(free)
    is_vacant = jnp.zeros_like(weights) if vacant is None else jnp.asarray(vacant)

    def distance(geometry: Geometry) -> Array:
        d = first_order_distance(points, geometry)
        return jnp.where(is_vacant > 0, jnp.minimum(d, 0.0), d)

    def posterior(d: Array, geometry: Geometry, sigma: Array, share: Array) -> tuple[Array, Array]:
        on, off = _log_terms(d, geometry, sigma, share, volume)
        inlier = jnp.where((max_outliers > 0) & (is_vacant == 0), jax.nn.sigmoid(on - off), 1.0)
        loss = -jnp.sum(weights * jnp.where(max_outliers > 0, jnp.logaddexp(on, off), on)) / total
        return inlier, loss

    def residuals(u: Array, root: Array, count: Array, log_area: Array) -> tuple[Array, Array]:
        geometry = with_parameters(initial, u, free)
        d = distance(geometry)
        # the area term of (1) as a square: r^2 = 2 count (1 + log A - log A now)
        growth = jnp.maximum(1.0 + _log_area(geometry) - log_area, 1e-3)
        area = jnp.sqrt(2.0 * count * growth) * (max_outliers > 0)
        return jnp.concatenate([root * d, area[None], *prior_residuals(prior, initial, u, geometry)]), d

    def spread(d: Array, inlier: Array) -> Array:
        return jnp.sqrt(jnp.sum(weights * inlier * d * d) / jnp.maximum(jnp.sum(weights * inlier), 1e-30))

    def iterate(_, state: tuple[Array, ...]) -> tuple[Array, ...]:
        u, d, damping, sigma, share = state
        inlier, _ = posterior(d, with_parameters(initial, u, free), sigma, share)
        sigma = jnp.clip(spread(d, inlier), noise, jnp.maximum(sigma, noise))
        share = jnp.clip(1.0 - jnp.sum(weights * inlier) / total, 0.0, max_outliers)
        root = jnp.sqrt(weights * inlier) / sigma
        frozen = root, jnp.sum(weights * inlier * (1.0 - is_vacant)), _log_area(with_parameters(initial, u, free))
        residual = residuals(u, *frozen)[0]
        jacobian, _ = jax.jacfwd(residuals, has_aux=True)(u, *frozen)
        trial = u + damped_step(jacobian * free_parameters, residual, damping)
        trial_residual, trial_d = residuals(trial, *frozen)
        better = jnp.sum(jnp.square(trial_residual)) < jnp.sum(jnp.square(residual))
        damping = jnp.clip(jnp.where(better, 0.2 * damping, 4.0 * damping), *DAMPING)
        return jnp.where(better, trial, u), jnp.where(better, trial_d, d), damping, sigma, share

    start = jnp.zeros_like(free_parameters)
    d = distance(with_parameters(initial, start, free))
    sigma = jnp.clip(spread(d, jnp.ones_like(d)), noise, jnp.maximum(0.2 * size(initial), noise))
    state = (start, d, jnp.full_like(total, 1e-2), sigma, jnp.minimum(0.3, 0.5 * max_outliers))
    u, d, _, sigma, share = jax.lax.fori_loop(0, iterations, iterate, state)
    geometry = with_parameters(initial, u, free)
    inlier, loss = posterior(d, geometry, sigma, share)
    loss = loss + 0.5 * sum(jnp.sum(jnp.square(r)) for r in prior_residuals(prior, initial, u, geometry)) / total
    sigma = jnp.maximum(spread(d, inlier), 1e-12)
    return Fit(geometry, sigma, share, loss, inlier * (weights > 0))


def _axis_frames(axes: np.ndarray) -> list[np.ndarray]:
    """Eight right-handed frames from three axes: each axis as z, the other two at 0 and 45 degrees, and two oblique frames."""
    axes = axes * np.sign(np.linalg.det(axes))
    eighth = Rotation.from_euler("z", 45, degrees=True).as_matrix()
    cycled = [axes[:, [i, (i + 1) % 3, (i + 2) % 3]] for i in range(3)]
    oblique = [axes @ Rotation.from_rotvec(np.deg2rad(45) * np.eye(3)[i]).as_matrix() for i in (0, 1)]
    return [*cycled, *(frame @ eighth for frame in cycled), *oblique]


def principal_starts(
    points: Float[np.ndarray, "n 3"], weights: Float[np.ndarray, " n"], thinnest: float, outliers: float = 0.0
) -> Geometry:
    """Eight round waves [8 ...] around the points, in frames of their principal axes; semi-axes at least `thinnest` (m).

    Centre and semi-axes are those of the box of the inner 94 % of the points along each axis. If `outliers` is above 0, only
    the densest 1 - `outliers` of the points count.
    """
    points, weights = np.asarray(points, np.float64), np.asarray(weights, np.float64)
    kept = points[weights > 0]
    near = kept
    if outliers > 0:  # outliers rotate the axes, and are less dense than points on a surface
        gap = KDTree(kept).query(kept, min(9, len(kept)))[0][:, -1]
        near = kept[gap <= np.quantile(gap, 1.0 - outliers)]
    _, axes = np.linalg.eigh(np.cov((near - near.mean(0)).T))
    frames = _axis_frames(axes)
    low, high = (np.stack([np.quantile(near @ frame, q, axis=0) for frame in frames]) for q in (0.03, 0.97))
    return Geometry(
        centre=np.einsum("sij,sj->si", np.stack(frames), 0.5 * (low + high)).astype(np.float32),
        scale=np.maximum(0.53 * (high - low), thinnest).astype(np.float32),
        rotation=matrix_to_quaternion(np.stack(frames)),
        exponents=np.full((STARTS, 2), 0.9, np.float32),
    )


def alternative_starts(wave: Geometry) -> Geometry:
    """Eight alternative parameterisations [8 ...] of a wave that is nearly a box, a prism or a double cone.

    Each axis serves as z, which swaps the exponents, with and without the dual, which rotates xy by 45 degrees: exponent 2 - e2
    and both semi-axes the radius at 45 degrees, 2^((1 - e2)/2) sqrt(a1 a2). The last two restart from round exponents.
    """
    scale, exponents = np.asarray(wave.scale, np.float64), np.asarray(wave.exponents, np.float64)
    axes = matrix64(wave.rotation)
    eighth = Rotation.from_euler("z", 45, degrees=True).as_matrix()
    alternatives = []
    for shift in range(3):
        order = [(shift + i) % 3 for i in range(3)]
        a, e = scale[order], exponents if shift == 0 else exponents[::-1]
        alternatives.append((axes[:, order], a, e))
        radius = np.sqrt(a[0] * a[1]) * 2 ** (0.5 * (1 - e[1]))
        alternatives.append((axes[:, order] @ eighth, np.array([radius, radius, a[2]]), np.array([e[0], 2.0 - e[1]])))
    alternatives += [(axes, scale, np.array([1.0, exponents[1]])), (axes, scale, np.array([exponents[0], 1.0]))]
    low, high = EXPONENT_RANGE
    return Geometry(
        centre=np.tile(np.asarray(wave.centre, np.float32), (STARTS, 1)),
        scale=np.stack([a for _, a, _ in alternatives]).astype(np.float32),
        rotation=matrix_to_quaternion(np.stack([frame for frame, _, _ in alternatives])),
        exponents=np.clip(np.stack([e for _, _, e in alternatives]), low + 0.05, high - 0.05).astype(np.float32),
    )


PRIOR = {"centre": 0.5, "scale": 0.7, "rotation": 1.0, "exponents": 1.0}
"""Standard deviations of the weak prior around the start, in units of the cloud; it decides only what the points do not."""

_SEARCH_POINTS, _POLISH_POINTS = 512, 4096


@partial(jax.jit, static_argnames=("iterations",))
def fit_batch(
    points: Float[NpOrJax, "B n 3"],
    weights: Float[NpOrJax, "B n"],
    vacant: Float[NpOrJax, "B n"],
    initial: Geometry,
    noise: Float[NpOrJax, " B"],
    volume: Float[NpOrJax, " B"],
    outliers: NpOrJax | float,
    prior: Mapping[str, Any],
    iterations: int = 30,
) -> Fit:
    """`fit_robust` for a batch of waves, each with its own points."""

    def one(points: Array, weights: Array, vacant: Array, initial: Geometry, noise: Array, volume: Array) -> Fit:
        options = {"noise": noise, "volume": volume, "outliers": outliers, "prior": prior, "vacant": vacant}
        return fit_robust(points, weights, initial, **options, iterations=iterations)

    return jax.vmap(one)(*jax.tree.map(jnp.asarray, (points, weights, vacant, initial, noise, volume)))


def padded(points: Float[np.ndarray, "n 3"], weights: Float[np.ndarray, " n"], limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Thin points and weights to at most `limit`, then pad them (weight 0) to the next power of two from 64 on.

    The number of compilations then grows with the logarithm of the number of points.
    """
    if len(points) > limit:
        chosen = np.linspace(0, len(points) - 1, limit).round().astype(int)
        points, weights = points[chosen], weights[chosen]
    count = max(64, 1 << max(len(points) - 1, 0).bit_length())
    fill = count - len(points)
    return np.pad(float32(points), ((0, fill), (0, 0))), np.pad(float32(weights), (0, fill))


def fit_one(
    points: Float[NpOrJax, "n 3"],
    weights: Float[NpOrJax, " n"] | None = None,
    *,
    noise: float | None = None,
    outliers: float = 0.0,
) -> Fit:
    """One wave through points (world, m), without an initial wave: eight starts, eight alternatives of the best, refinement.

    `noise` is the minimum standard deviation of the points (m; None: 1/500 of their size); `outliers` the maximum fraction of
    outliers. The result is NumPy; `inlier` covers all points. Unobserved sides stay near the box of the points (PRIOR). Raises
    ValueError for points that span no volume, are too few, or not finite.
    """
    points = checked_points(points, "fit_one")
    weights = np.ones(len(points), np.float32) if weights is None else np.asarray(weights, np.float32)
    if weights.shape != (len(points),) or not np.isfinite(weights).all() or weights.min() < 0:
        raise ValueError(
            f"fit_one: weights of shape {weights.shape} for {len(points)} points; needed one per point, from 0, finite"
        )
    if not (noise is None or 0 < noise < np.inf) or not 0 <= outliers < 1:
        raise ValueError(
            f"fit_one: noise={noise}, outliers={outliers}; needed noise above 0 (m) and a fraction from 0, below 1"
        )
    middle, unit = extent(points[weights > 0], "fit_one", outliers)
    local = (points - middle) / unit
    min_noise = 2e-3 if noise is None else max(noise / unit, 1e-4)
    box = np.ptp(local[weights > 0], axis=0)
    volume = np.full(STARTS, np.prod(np.maximum(box, 0.02 * box.max())), np.float32)

    def search(starts: Geometry, count: int, iterations: int) -> Fit:
        some, some_weights = padded(local, weights, count)
        batch = len(starts.scale)
        inputs = np.broadcast_to(some, (batch, *some.shape)), np.broadcast_to(some_weights, (batch, len(some)))
        sigma = np.full(batch, min_noise, np.float32)
        fits = fit_batch(
            *inputs, np.zeros_like(inputs[1]), starts, sigma, volume[:batch], float32(outliers), PRIOR, iterations=iterations
        )
        best = int(np.nanargmin(np.asarray(fits.loss)))
        return jax.tree.map(lambda x: np.asarray(x)[best], fits)

    first = search(principal_starts(local, weights, 0.01, outliers), _SEARCH_POINTS, 30)
    second = search(alternative_starts(first.geometry), _SEARCH_POINTS, 30)
    best = min(first, second, key=lambda fit: float(fit.loss))
    last = search(jax.tree.map(lambda x: x[None], best.geometry), _POLISH_POINTS, 20)
    explained = [np.sum(fit.inlier) / max(np.sum(fit.inlier > 0), 1) for fit in (best, last)]
    last = last if explained[1] > 0.8 * explained[0] else best
    return _in_metres(last, points, weights, middle, unit, float(volume[0]))


def _in_metres(fit: Fit, points: np.ndarray, weights: np.ndarray, middle: np.ndarray, unit: float, volume: float) -> Fit:
    """A fit in unit coordinates converted to metres, with the inlier probabilities of all points."""
    local, _ = padded((points - middle) / unit, weights, len(points))
    d = _distance(local, fit.geometry)
    on, off = _log_terms(d, fit.geometry, jnp.asarray(fit.sigma), jnp.asarray(fit.outliers), jnp.asarray(volume))
    inlier = np.where(fit.outliers > 0, np.asarray(jax.nn.sigmoid(on - off)), 1.0)[: len(points)] * (weights > 0)
    geometry = Geometry(
        centre=(middle + unit * np.float64(fit.geometry.centre)).astype(np.float32),
        scale=float32(unit * fit.geometry.scale),
        rotation=fit.geometry.rotation,
        exponents=fit.geometry.exponents,
    )
    sigma, share, loss = (np.asarray(x, np.float32) for x in (unit * fit.sigma, fit.outliers, fit.loss))
    return Fit(geometry, sigma, share, loss, inlier.astype(np.float32))


_distance = jax.jit(first_order_distance)
