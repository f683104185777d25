"""Fit of one superquadric to points by damped least squares on the radial distance.

Levenberg-Marquardt in 11 unconstrained parameters u, all 0 at the initial wave (r its mean semi-axis),

    centre = c0 + r u_c,   scale = a0 exp(u_a),   R = R0 exp([u_r]x),   e = 0.1 + 1.8 sigmoid(x0 + u_e)                   (1)

minimises, with the radial distance d of superquadric.py and the standard deviations s of the priors,

    cost(u) = sum_i w_i d_i(u)^2 + sum_k ((value_k(u) - value_k(0)) / s_k)^2                                              (2)

by steps (J^T J + damping diag(J^T J)) du = -J^T residual (Marquardt 1963), so that units do not matter; a step that does not
lower the cost is rejected and raises the damping. The number of steps is fixed, so the function runs under jit and vmap.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from wsm_jax.core.geometry import Geometry, to_local
from wsm_jax.core.rotation import from_rotation_vector, multiply
from wsm_jax.core.superquadric import EXPONENT_RANGE, radial_distance
from wsm_jax.typing import Array, Float, NpOrJax

PARAMETERS = {"centre": slice(0, 3), "scale": slice(3, 6), "rotation": slice(6, 9), "exponents": slice(9, 11)}
"""Field of a wave -> its slice of u."""

_EXACT = "highest"
_LOGIT_LIMIT = 6.0
_STEP_LIMIT = 0.5
DAMPING = (1e-5, 1e6)
"""Minimum and maximum damping of a step."""


def at_parameters(initial: Geometry, u: Array) -> Geometry:
    """The wave at parameters u, by (1)."""
    low, high = EXPONENT_RANGE
    centre, scale, rotation, exponents = (jnp.asarray(x) for x in jax.tree.leaves(initial))
    share = (exponents - low) / (high - low)
    limit = jax.nn.sigmoid(_LOGIT_LIMIT)
    logit = jax.scipy.special.logit(jnp.clip(share, 1.0 - limit, limit)) + u[PARAMETERS["exponents"]]
    return Geometry(
        centre=centre + size(initial) * u[PARAMETERS["centre"]],
        scale=scale * jnp.exp(u[PARAMETERS["scale"]]),
        rotation=multiply(rotation / jnp.linalg.norm(rotation), from_rotation_vector(u[PARAMETERS["rotation"]])),
        exponents=low + (high - low) * jax.nn.sigmoid(logit),
    )


def with_parameters(initial: Geometry, u: Array, free: tuple[str, ...]) -> Geometry:
    """The wave at parameters u, by (1), with only the `free` fields changed."""
    changed = at_parameters(initial, u)
    return Geometry(**{name: getattr(changed if name in free else initial, name) for name in PARAMETERS})


def free_mask(free: tuple[str, ...]) -> Array:
    """Mask of u: 1 for free parameters, else 0."""
    return jnp.concatenate([jnp.full(part.stop - part.start, float(name in free)) for name, part in PARAMETERS.items()])


def size(geometry: Geometry) -> Array:
    """Geometric mean of the semi-axes, m."""
    return jnp.exp(jnp.mean(jnp.log(jnp.asarray(geometry.scale))))


def _distances(points: Array, geometry: Geometry) -> Array:
    return radial_distance(to_local(geometry, points), geometry.scale, geometry.exponents)


def prior_residuals(prior: Mapping[str, Any], initial: Geometry, u: Array, geometry: Geometry) -> list[Array]:
    """Residuals of the priors: the change of each value, in standard deviations."""
    offsets = {
        "centre": size(initial) * u[PARAMETERS["centre"]],
        "scale": u[PARAMETERS["scale"]],
        "rotation": u[PARAMETERS["rotation"]],
        "exponents": geometry.exponents - jnp.asarray(initial.exponents),
    }
    return [offsets[name] / deviation for name, deviation in prior.items()]


def damped_step(jacobian: Array, residual: Array, damping: Array) -> Array:
    """The damped step, at most 1/2 in any component; 0 along directions without influence on the residuals."""
    normal = jnp.einsum("ij,ik->jk", jacobian, jacobian, precision=_EXACT)
    slope = jnp.einsum("ij,i->j", jacobian, residual, precision=_EXACT)
    diagonal = jnp.diagonal(normal)
    unit = jax.lax.rsqrt(diagonal + 1e-8 * jnp.max(diagonal) + 1e-30)
    scaled = unit[:, None] * normal * unit + damping * jnp.eye(len(unit), dtype=unit.dtype)
    step = -unit * jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(scaled), unit * slope)
    return step * jnp.minimum(1.0, _STEP_LIMIT / (jnp.max(jnp.abs(step)) + 1e-30))


def _checked(free: tuple[str, ...], prior: Mapping[str, Any], iterations: int) -> None:
    unknown = sorted({*free, *prior} - set(PARAMETERS))
    if unknown or not free:
        raise ValueError(
            f"fit_wave: free={free}, prior for {list(prior)}: {unknown or 'nothing'} free; needed {list(PARAMETERS)}"
        )
    if iterations < 1:
        raise ValueError(f"fit_wave: iterations={iterations}; needed 1 or more")


@partial(jax.jit, static_argnames=("free", "iterations"))
def fit_wave(
    points: Float[NpOrJax, "n 3"],
    weights: Float[NpOrJax, " n"],
    initial: Geometry,
    *,
    free: tuple[str, ...] = tuple(PARAMETERS),
    iterations: int = 30,
    prior: Mapping[str, Any] | None = None,
) -> tuple[Geometry, Float[Array, ""]]:
    """The wave through `points` (world, m) by (2), from `initial`, and its weighted RMS radial distance (m).

    `free` names the fields to fit. `prior` keeps free fields near their initial values, with standard deviations: "centre" in
    m, "scale" in natural logarithms, "rotation" in radians, "exponents" as such; the weights are then inverse variances
    (1/m^2). It keeps one-sided views well-posed. Points of weight 0 are ignored, so that batches can be padded; for many
    waves: `jax.vmap(fit_wave)`. Points without extent (one point, all equal, no weight) determine no shape: `initial` is
    returned, as it is if the fit would end with a higher cost. Raises ValueError for an unknown field.
    """
    prior = {} if prior is None else prior
    _checked(free, prior, iterations)
    weights = jnp.maximum(jnp.asarray(weights), 0.0)
    points = jnp.where(weights[:, None] > 0, jnp.asarray(points), jnp.asarray(initial.centre))
    total = jnp.maximum(jnp.sum(weights), 1e-30)
    free_parameters = free_mask(free)

    def residuals(geometry: Geometry, u: Array) -> Array:
        return jnp.concatenate(
            [jnp.sqrt(weights) * _distances(points, geometry), *prior_residuals(prior, initial, u, geometry)]
        )

    def residuals_twice(u: Array) -> tuple[Array, Array]:
        value = residuals(with_parameters(initial, u, free), u)
        return value, value

    def iterate(_, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        u, cost, damping = state
        jacobian, residual = jax.jacfwd(residuals_twice, has_aux=True)(u)
        trial = u + damped_step(jacobian * free_parameters, residual, damping)
        trial_cost = jnp.sum(jnp.square(residuals(with_parameters(initial, trial, free), trial)))
        better = trial_cost < cost
        damping = jnp.clip(jnp.where(better, 0.2 * damping, 4.0 * damping), *DAMPING)
        return jnp.where(better, trial, u), jnp.where(better, trial_cost, cost), damping

    start = jnp.zeros_like(free_parameters)
    start_cost = jnp.sum(jnp.square(residuals(with_parameters(initial, start, free), start)))
    u, cost, _ = jax.lax.fori_loop(0, iterations, iterate, (start, start_cost, jnp.full_like(total, 1e-2)))
    mean = jnp.sum(weights[:, None] * points, 0) / total
    spread = jnp.sqrt(jnp.sum(weights[:, None] * jnp.square(points - mean)) / total)
    initial_cost = jnp.sum(jnp.square(residuals(initial, start)))
    keep = (spread > 1e-4 * size(initial)) & (cost < initial_cost)
    fitted = jax.tree.map(lambda new, old: jnp.where(keep, new, old), with_parameters(initial, u, free), initial)
    return fitted, jnp.sqrt(jnp.sum(weights * jnp.square(_distances(points, fitted))) / total)
