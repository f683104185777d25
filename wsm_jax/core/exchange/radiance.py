"""Radiance field of waves: density and colour at points, in closed form.

A medium of density sigma (1/m) absorbs the fraction p = 1 - exp(-sigma delta) of the light along a step delta (m). The density
that absorbs the shape probability within one step is therefore

    sigma = -log(1 - p) / delta ,          p = 1 - exp(-sigma delta)                                                        (1)

In terms of -log(1 - p) the union 1 - prod(1 - p_i) of waves is a sum: densities add, and the colour is their weighted mean.
"""

import jax
import jax.numpy as jnp

from wsm_jax.core import superquadric
from wsm_jax.core.geometry import Geometry, to_local
from wsm_jax.snapshot import Waves
from wsm_jax.typing import Array, Float, NpOrJax


def field(
    waves: Waves, points: Float[NpOrJax, "n 3"], delta: NpOrJax | float, softness: NpOrJax | float
) -> tuple[Float[Array, " n"], Float[Array, "n 3"]]:
    """Density (1/m) and colour (sRGB) at world points, by (1) from the shape probability with an edge of `softness` m.

    Differentiable in waves and points; runs under jit; memory does not grow with the number of waves. The probability of a
    wave is limited to 1 - 1e-6, which bounds the density by 14 / delta. Colour is 0 in empty space.
    """
    geometry = jax.tree.map(jnp.asarray, Geometry.of(waves))
    points = jnp.asarray(points)
    start = jnp.zeros(points.shape[:1], points.dtype), jnp.zeros_like(points)

    def add(state: tuple[Array, Array], wave: tuple[Geometry, Array, Array]) -> tuple[tuple[Array, Array], None]:
        shape, presence, colour = wave
        pose = jax.tree.map(lambda x: jnp.broadcast_to(x, (*points.shape[:-1], x.shape[-1])), shape)
        log_g = superquadric.log_gauge(to_local(pose, points), shape.scale, shape.exponents)
        p = superquadric.occupancy(log_g, shape.scale, presence, softness)
        depth = -jnp.log1p(-jnp.minimum(p, 1.0 - 1e-6))
        return (state[0] + depth, state[1] + depth[:, None] * colour), None

    (depth, weighted), _ = jax.lax.scan(add, start, (geometry, jnp.asarray(waves.presence), jnp.asarray(waves.colour)))
    return depth / delta, weighted / jnp.maximum(depth, 1e-12)[:, None]


def probability(density: Float[NpOrJax, "*lead"], delta: NpOrJax | float) -> Float[Array, "*lead"]:
    """Shape probability of a density (1/m), by (1)."""
    return -jnp.expm1(-jnp.asarray(density) * delta)
