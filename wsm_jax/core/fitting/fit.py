"""Points -> wave: one superquadric by damped least squares on the radial distance.

Levenberg-Marquardt in an unconstrained gauge u of 11 numbers, all 0 at the initial wave (r its mean semi-axis),

    centre = c0 + r u_c,   scale = a0 exp(u_a),   R = R0 exp([u_r]x),   e = 0.1 + 1.8 sigmoid(x0 + u_e)                   (1)

minimises, with the radial distance d of superquadric.py and the standard deviations s of the priors,

    cost(u) = sum_i w_i d_i(u)^2 + sum_k ((value_k(u) - value_k(0)) / s_k)^2                                              (2)

by steps (J^T J + damping diag(J^T J)) du = -J^T residual (Marquardt 1963), so that units do not matter; a step that does not
lower the cost is not taken and raises the damping. The number of steps is fixed: the function runs under jit and vmap.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from wsm_jax.core.geometry import Geometry, to_local
from wsm_jax.core.superquadric import EXPONENT_RANGE, radial_distance
from wsm_jax.typing import Array, Float, NpOrJax

PARTS = {"centre": slice(0, 3), "scale": slice(3, 6), "rotation": slice(6, 9), "exponents": slice(9, 11)}
"""What can be free, and where it stands in u."""

_EXACT = "highest"
_LOGIT_LIMIT = 6.0
_STEP_LIMIT = 0.5
DAMPING = (1e-5, 1e6)
"""Least and greatest damping of a step."""


def _turned(rotation: Array, vector: Array) -> Array:
    """The quaternion times the turn by a rotation vector (rad) in the wave's own frame."""
    angle = jnp.sqrt(jnp.sum(vector * vector) + 1e-20)
    w, v = jnp.cos(0.5 * angle), jnp.sin(0.5 * angle) / angle * vector
    w0, v0 = rotation[0], rotation[1:]
    return jnp.concatenate([(w0 * w - jnp.sum(v0 * v))[None], w0 * v + w * v0 + jnp.cross(v0, v)])


def moved(initial: Geometry, u: Array) -> Geometry:
    """Equation (1)."""
    low, high = EXPONENT_RANGE
    centre, scale, rotation, exponents = (jnp.asarray(x) for x in jax.tree.leaves(initial))
    share = (exponents - low) / (high - low)
    limit = jax.nn.sigmoid(_LOGIT_LIMIT)
    logit = jax.scipy.special.logit(jnp.clip(share, 1.0 - limit, limit)) + u[PARTS["exponents"]]
    return Geometry(
        centre=centre + size(initial) * u[PARTS["centre"]],
        scale=scale * jnp.exp(u[PARTS["scale"]]),
        rotation=_turned(rotation / jnp.linalg.norm(rotation), u[PARTS["rotation"]]),
        exponents=low + (high - low) * jax.nn.sigmoid(logit),
    )


def placed(initial: Geometry, u: Array, free: tuple[str, ...]) -> Geometry:
    """Equation (1) for the free fields; the others stay as they are."""
    there = moved(initial, u)
    return Geometry(**{name: getattr(there if name in free else initial, name) for name in PARTS})


def movable_parts(free: tuple[str, ...]) -> Array:
    """1 where u may move, else 0."""
    return jnp.concatenate([jnp.full(part.stop - part.start, float(name in free)) for name, part in PARTS.items()])


def size(geometry: Geometry) -> Array:
    """Mean (geometric) semi-axis, m."""
    return jnp.exp(jnp.mean(jnp.log(jnp.asarray(geometry.scale))))


def _distances(points: Array, geometry: Geometry) -> Array:
    return radial_distance(to_local(geometry, points), geometry.scale, geometry.exponents)


def pulls(prior: Mapping[str, Any], initial: Geometry, u: Array, geometry: Geometry) -> list[Array]:
    """The residuals of the priors: how far each held value has moved, in standard deviations."""
    offsets = {
        "centre": size(initial) * u[PARTS["centre"]],
        "scale": u[PARTS["scale"]],
        "rotation": u[PARTS["rotation"]],
        "exponents": geometry.exponents - jnp.asarray(initial.exponents),
    }
    return [offsets[name] / deviation for name, deviation in prior.items()]


def damped_step(jacobian: Array, residual: Array, damping: Array) -> Array:
    """The damped step, at most 1/2 long in any component; 0 along what the residuals do not see."""
    normal = jnp.einsum("ij,ik->jk", jacobian, jacobian, precision=_EXACT)
    slope = jnp.einsum("ij,i->j", jacobian, residual, precision=_EXACT)
    diagonal = jnp.diagonal(normal)
    unit = jax.lax.rsqrt(diagonal + 1e-8 * jnp.max(diagonal) + 1e-30)
    scaled = unit[:, None] * normal * unit + damping * jnp.eye(len(unit), dtype=unit.dtype)
    step = -unit * jax.scipy.linalg.cho_solve(jax.scipy.linalg.cho_factor(scaled), unit * slope)
    return step * jnp.minimum(1.0, _STEP_LIMIT / (jnp.max(jnp.abs(step)) + 1e-30))


def _checked(free: tuple[str, ...], prior: Mapping[str, Any], iterations: int) -> None:
    unknown = sorted({*free, *prior} - set(PARTS))
    if unknown or not free:
        raise ValueError(f"fit_wave: free={free}, prior for {list(prior)}: {unknown or 'nothing'} free; needed {list(PARTS)}")
    if iterations < 1:
        raise ValueError(f"fit_wave: iterations={iterations}; needed 1 or more")


@partial(jax.jit, static_argnames=("free", "iterations"))
def fit_wave(
    points: Float[NpOrJax, "n 3"],
    weights: Float[NpOrJax, " n"],
    initial: Geometry,
    *,
    free: tuple[str, ...] = tuple(PARTS),
    iterations: int = 30,
    prior: Mapping[str, Any] | None = None,
) -> tuple[Geometry, Float[Array, ""]]:
    """The wave through `points` (world, m) nearest by (2) to where `initial` leads, and its weighted RMS radial distance (m).

    `free` names the fields to move. `prior` holds free fields near their initial values, by standard deviations: "centre" in
    m, "scale" in natural logarithms, "rotation" in radians, "exponents" as such; the weights are then inverse variances
    (1/m^2). It keeps one-sided views well-posed. A point of weight 0 is not looked at, so that batches can be padded; for
    many waves: `jax.vmap(fit_wave)`. Points without extent (one point, all equal, no weight) tell no shape, and give back
    `initial`, as does a fit that would end worse than it began. Raises ValueError for a name that is no field.
    """
    prior = {} if prior is None else prior
    _checked(free, prior, iterations)
    weights = jnp.maximum(jnp.asarray(weights), 0.0)
    points = jnp.where(weights[:, None] > 0, jnp.asarray(points), jnp.asarray(initial.centre))
    total = jnp.maximum(jnp.sum(weights), 1e-30)
    movable = movable_parts(free)

    def residuals(geometry: Geometry, u: Array) -> Array:
        return jnp.concatenate([jnp.sqrt(weights) * _distances(points, geometry), *pulls(prior, initial, u, geometry)])

    def residuals_twice(u: Array) -> tuple[Array, Array]:
        value = residuals(placed(initial, u, free), u)
        return value, value

    def iterate(_, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        u, cost, damping = state
        jacobian, residual = jax.jacfwd(residuals_twice, has_aux=True)(u)
        there = u + damped_step(jacobian * movable, residual, damping)
        there_cost = jnp.sum(jnp.square(residuals(placed(initial, there, free), there)))
        better = there_cost < cost
        damping = jnp.clip(jnp.where(better, 0.2 * damping, 4.0 * damping), *DAMPING)
        return jnp.where(better, there, u), jnp.where(better, there_cost, cost), damping

    start = jnp.zeros_like(movable)
    start_cost = jnp.sum(jnp.square(residuals(placed(initial, start, free), start)))
    u, cost, _ = jax.lax.fori_loop(0, iterations, iterate, (start, start_cost, jnp.full_like(total, 1e-2)))
    mean = jnp.sum(weights[:, None] * points, 0) / total
    spread = jnp.sqrt(jnp.sum(weights[:, None] * jnp.square(points - mean)) / total)
    initial_cost = jnp.sum(jnp.square(residuals(initial, start)))
    keep = (spread > 1e-4 * size(initial)) & (cost < initial_cost)
    fitted = jax.tree.map(lambda new, old: jnp.where(keep, new, old), placed(initial, u, free), initial)
    return fitted, jnp.sqrt(jnp.sum(weights * jnp.square(_distances(points, fitted))) / total)
