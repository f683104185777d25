"""Front-to-back compositing of the waves that each ray meets: wave i, in order of depth, has the weight

    w_i = alpha_i prod_{j < i} (1 - alpha_j)                                                                            (1)

with alpha its presence where the ray enters it (hard, for data) or its occupancy at the closest approach (soft, for learning).
Differentiable; `front` is faster for hard edges without derivatives.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wsm_jax.core import ray, superquadric, tile
from wsm_jax.core.ray import MISS, NEAR_M
from wsm_jax.snapshot import Waves, quaternion_to_matrix
from wsm_jax.typing import Array, Float

_PAIRWISE = 27  # maximum number of waves per ray for which comparing all pairs is cheaper than sorting
_FEW = 9  # maximum number of waves per ray for which loops over them are unrolled

_COLUMNS = {
    "centre": 3, "scale": 3, "exponents": 2, "turn": 9, "presence": 1, "colour": 3, "slot": 1, "semantic": 1,
    "velocity": 3, "angular_velocity": 3,
}  # fmt: skip
"""Field of a wave row -> number of columns. `turn` is the wave-to-world matrix by rows. Labels are exact up to 2^24."""


def wave_rows(waves: Waves) -> Float[Array, "N columns"]:
    """All fields of each wave in one row, so that one gather fetches them."""
    count = waves.count
    turn, slot = quaternion_to_matrix(waves.rotation), jnp.arange(count)
    parts = [getattr(waves, name, {"turn": turn, "slot": slot}.get(name)) for name in _COLUMNS]
    dtype = jnp.result_type(float, *parts)
    return jnp.concatenate([jnp.asarray(part).astype(dtype).reshape(count, -1) for part in parts], 1)


def columns(rows: Float[Array, "columns ..."]) -> dict[str, list[Array]]:
    """Split rows, along the first axis, into lists of columns by field."""
    # the derivative of a split is one concatenation; that of slices is a sum of padded arrays
    parts = iter(jax.lax.split(rows, [1] * rows.shape[0]))
    return {name: [next(parts)[0] for _ in range(size)] for name, size in _COLUMNS.items()}


def frames(wave: dict[str, list[Array]]) -> ray.WaveFrames:
    """The columns needed to cast rays."""
    return ray.WaveFrames(wave["centre"], wave["scale"], wave["exponents"], wave["turn"])


def _alpha_and_depth(wave: dict[str, list[Array]], rays: ray.LocalRays, filled: Array, softness: float) -> tuple[Array, Array]:
    """Coverage by each wave alone and depth of its surface (closest approach where a soft edge misses it), [M K R]."""
    presence = jnp.where(filled[..., None], wave["presence"][0], 0.0)
    depth = ray.entry(rays, NEAR_M)
    hit = depth < MISS
    if softness == 0.0:
        return jnp.where(hit, presence, 0.0), depth
    t, log_g = ray.closest(rays, NEAR_M)
    alpha = superquadric.occupancy(log_g, jnp.stack(wave["scale"], -1), presence, softness)
    return alpha, jnp.where(hit, depth, t)


class Hit(NamedTuple):
    """Result of casting the R rays of M tiles: the input of the channels."""

    coverage: Array
    nearness: Array
    """Weighted mean of 1 / depth, 1/m."""
    colour: Array
    """Weighted mean colour."""
    t: Array
    """Depth of the wave with the largest weight, m."""
    wave: Array
    """The row of that wave, [columns M R]."""


def composite(waves: Array, seen: Array, origin: Array, direction: Array, count: int, softness: float) -> Hit:
    """Cast rays [3 M R] against wave rows, limited to the first `count` waves seen by each tile, mask [M N]."""
    slots, filled = tile.chosen(seen, count)
    rows = jnp.moveaxis(waves[slots], -1, 0)[..., None]
    wave = columns(rows)
    rays = ray.in_frames(frames(wave), origin[:, :, None], direction[:, :, None])
    alpha, depth = _alpha_and_depth(wave, rays, filled, softness)
    weight = weights(depth, alpha)
    coverage = _total(weight)
    share = weight / jnp.maximum(coverage, 1e-6)[..., None, :]
    first = jnp.argmax(weight, -2)
    nearness, colour = _total(share / jnp.maximum(depth, NEAR_M)), jnp.stack([_total(share * x) for x in wave["colour"]])
    return Hit(coverage, nearness, colour, _select(depth, first), _select(rows, first))


def _total(values: Array) -> Array:
    """Sum over the waves, [M K R] -> [M R]; unrolled for few terms, which is much faster than a reduction in XLA."""
    count = values.shape[-2]
    terms = [values[..., k, :] for k in range(count)]
    return functools.reduce(jnp.add, terms) if count <= _PAIRWISE else jnp.sum(values, -2)


def _select(values: Array, first: Array) -> Array:
    """Values of wave `first` of each ray, [... M K R] or [... M K 1] -> [... M R]; selects if few, gathers if many."""
    count = values.shape[-2]
    if count > _FEW:
        if values.shape[-1] == 1:
            return jnp.take_along_axis(values[..., 0], first.reshape(*[1] * (values.ndim - 3), *first.shape), -1)
        return jnp.take_along_axis(values, first[..., None, :], -2)[..., 0, :]
    selected = jnp.broadcast_to(values[..., 0, :], (*values.shape[:-3], *first.shape))
    for k in range(1, count):
        selected = jnp.where(first == k, values[..., k, :], selected)
    return selected


def weights(depth: Array, alpha: Array) -> Array:
    """Front-to-back compositing weights of (1), [... K R]; waves at equal depth keep their order."""
    count = depth.shape[-2]
    if count > _PAIRWISE:
        order = jnp.argsort(jax.lax.stop_gradient(depth), axis=-2, stable=True)
        sorted_alpha = jnp.take_along_axis(alpha, order, -2)
        clear = jnp.concatenate([jnp.ones_like(alpha[..., :1, :]), 1.0 - sorted_alpha[..., :-1, :]], -2)
        weight = sorted_alpha * jnp.cumprod(clear, -2)
        return jnp.take_along_axis(weight, jnp.argsort(order, axis=-2), -2)
    place = jnp.arange(count)[:, None]

    def behind(weight: Array, j: Array | int) -> tuple[Array, None]:
        """Attenuate the weights of waves behind wave j."""
        other, opaque = (jax.lax.dynamic_slice_in_dim(x, j, 1, -2) for x in (depth, alpha))
        nearer = (other < depth) | ((other == depth) & (place > j))
        return weight * jnp.where(nearer, 1.0 - opaque, 1.0), None

    return jax.lax.scan(behind, alpha, jnp.arange(count), unroll=count <= _FEW)[0]
