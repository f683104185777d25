"""Front-to-back casting: the nearest wave of each ray, then the waves behind it, until the ray is opaque.

The same result as `composite` with hard edges, in a fraction of its time and without derivatives. The tiles of a chunk test
their waves one by one and keep the nearest; they continue behind it only if it is translucent.
"""

import jax
import jax.numpy as jnp

from wsm_jax.core import ray
from wsm_jax.core.composite import Hit, columns, frames
from wsm_jax.core.ray import MISS, NEAR_M
from wsm_jax.typing import Array


def front(waves: Array, seen: Array, origin: Array, direction: Array) -> Hit:
    """Cast rays [3 M R] against wave rows, limited to the waves seen by each tile, mask [M N]."""
    shape = seen.shape[0], direction.shape[-1]
    dtype, table = waves.dtype, columns(waves.T)
    through = [*table["presence"], *table["colour"]]

    def more(state: tuple) -> Array:
        """True if a ray met a translucent wave."""
        last, clear, *_ = state
        return jnp.any((last[0] < MISS) & (clear > 0))

    def layer(state: tuple) -> tuple:
        last, clear, hit, nearness, colour, heaviest = state
        coverage, t, slot = hit
        depth, wave = _next(waves, seen, origin, direction, last)
        presence, *own = (x[wave] for x in through)
        weight = jnp.where(depth < MISS, clear * presence, 0.0)
        nearness = nearness + weight / jnp.maximum(depth, NEAR_M)
        colour = [total + weight * x for total, x in zip(colour, own, strict=True)]
        first = (weight > heaviest) | ((weight == heaviest) & (weight > 0) & (wave < slot))
        hit = coverage + weight, jnp.where(first, depth, t), jnp.where(first, wave, slot)
        return (depth, wave), clear - weight, hit, nearness, colour, jnp.maximum(weight, heaviest)

    zero, none = jnp.zeros(shape, dtype), jnp.zeros(shape, jnp.int32)
    begin = ((zero, none - 1), zero + 1, (zero, zero + MISS, none), zero, [zero] * 3, zero)
    *_, hit, nearness, colour, _ = jax.lax.while_loop(more, layer, begin)
    coverage, t, slot = hit
    share = 1.0 / jnp.maximum(coverage, 1e-6)
    return Hit(coverage, nearness * share, jnp.stack([x * share for x in colour]), t, waves.T[:, slot])


def _next(waves: Array, seen: Array, origin: Array, direction: Array, last: tuple[Array, Array]) -> tuple[Array, Array]:
    """Depth and slot of the first wave on each ray after `last` (equal depths in slot order); MISS for none."""
    slots = jnp.arange(seen.shape[1])
    past, behind = last

    def other(_, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        """Test the next wave of each tile."""
        done, depth, wave = state
        left = seen & (slots > done[:, None])
        slot, some = jnp.argmax(left, -1).astype(jnp.int32), jnp.any(left, -1)
        rays = ray.in_frames(frames(columns(jnp.moveaxis(waves[slot], -1, 0)[..., None])), origin, direction)
        t = ray.before(rays, NEAR_M, jnp.where(some[:, None], depth, 0.0))
        after = (t > past) | ((t == past) & (slot[:, None] > behind))
        nearer = after & (t < depth)
        done = jnp.where(some, slot, len(slots))
        return done, jnp.where(nearer, t, depth), jnp.where(nearer, slot[:, None], wave)

    begin = (jnp.full(seen.shape[:1], -1, jnp.int32), jnp.full_like(past, MISS), jnp.zeros_like(behind))
    _, depth, wave = jax.lax.fori_loop(0, jnp.max(jnp.sum(seen, -1)), other, begin)
    return depth, wave
