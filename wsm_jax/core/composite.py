"""What each ray meets of the waves that its tile sees, composited front to back: wave i, in order of depth, weighs

    w_i = alpha_i prod_{j < i} (1 - alpha_j)                                                                            (1)

with alpha its presence where the ray enters it (hard, for data) or its occupancy at the closest approach (soft, for learning).
Differentiable; what needs no derivative and has hard edges is found sooner by `front`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wsm_jax.core import ray, superquadric, tile
from wsm_jax.core.ray import MISS, NEAR_M
from wsm_jax.snapshot import Waves, quaternion_to_matrix
from wsm_jax.typing import Array, Float

_PAIRWISE = 27  # up to so many waves a ray, comparing all pairs is cheaper than sorting
_FEW = 9  # up to so many waves a ray, loops over them are written out

_COLUMNS = {
    "centre": 3, "scale": 3, "exponents": 2, "turn": 9, "presence": 1, "colour": 3, "slot": 1, "semantic": 1,
    "velocity": 3, "angular_velocity": 3,
}  # fmt: skip
"""What a row says of a wave -> numbers. `turn` is wave to world, by rows. Labels are exact up to 2^24."""


def wave_rows(waves: Waves) -> Float[Array, "N columns"]:
    """Everything about each wave in one row: one gather fetches it."""
    count = waves.count
    turn, slot = quaternion_to_matrix(waves.rotation), jnp.arange(count)
    parts = [getattr(waves, name, {"turn": turn, "slot": slot}.get(name)) for name in _COLUMNS]
    dtype = jnp.result_type(float, *parts)
    return jnp.concatenate([jnp.asarray(part).astype(dtype).reshape(count, -1) for part in parts], 1)


def columns(rows: Float[Array, "columns ..."]) -> dict[str, list[Array]]:
    """The numbers of each name, of rows that lie along the first axis."""
    # the derivative of a split is one concatenation, and that of slices a sum of as many padded arrays
    parts = iter(jax.lax.split(rows, [1] * rows.shape[0]))
    return {name: [next(parts)[0] for _ in range(size)] for name, size in _COLUMNS.items()}


def frames(wave: dict[str, list[Array]]) -> ray.WaveFrames:
    """Of the columns of waves, what rays are cast by."""
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
    """What each of M tiles of R rays meets: all that the channels are made of."""

    coverage: Array
    nearness: Array
    """1 / depth, averaged by weight, 1/m."""
    colour: Array
    """Averaged by weight."""
    t: Array
    """Depth of the wave that weighs most, m."""
    wave: Array
    """The row of that wave, [columns M R]."""


def composite(waves: Array, seen: Array, origin: Array, direction: Array, count: int, softness: float) -> Hit:
    """Casts rays [3 M R] against the waves, given by their rows, that their tiles see, [M N], at most `count` of each."""
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
    return Hit(coverage, nearness, colour, _of(depth, first), _of(rows, first))


def _total(values: Array) -> Array:
    """Sum over the waves, [M K R] -> [M R]. XLA's reduction over few terms of an inner axis costs many times the plain sum."""
    count = values.shape[-2]
    terms = [values[..., k, :] for k in range(count)]
    return functools.reduce(jnp.add, terms) if count <= _PAIRWISE else jnp.sum(values, -2)


def _of(values: Array, first: Array) -> Array:
    """Of wave `first` of each ray, [... M K R] or [... M K 1] -> [... M R]. To choose among few costs less than to gather."""
    count = values.shape[-2]
    if count > _FEW:
        if values.shape[-1] == 1:
            return jnp.take_along_axis(values[..., 0], first.reshape(*[1] * (values.ndim - 3), *first.shape), -1)
        return jnp.take_along_axis(values, first[..., None, :], -2)[..., 0, :]
    found = jnp.broadcast_to(values[..., 0, :], (*values.shape[:-3], *first.shape))
    for k in range(1, count):
        found = jnp.where(first == k, values[..., k, :], found)
    return found


def weights(depth: Array, alpha: Array) -> Array:
    """Front-to-back compositing weights of eq. (1), [... K R]; of waves at one depth the first comes first."""
    count = depth.shape[-2]
    if count > _PAIRWISE:
        order = jnp.argsort(jax.lax.stop_gradient(depth), axis=-2, stable=True)
        sorted_alpha = jnp.take_along_axis(alpha, order, -2)
        clear = jnp.concatenate([jnp.ones_like(alpha[..., :1, :]), 1.0 - sorted_alpha[..., :-1, :]], -2)
        weight = sorted_alpha * jnp.cumprod(clear, -2)
        return jnp.take_along_axis(weight, jnp.argsort(order, axis=-2), -2)
    place = jnp.arange(count)[:, None]

    def behind(weight: Array, j: Array | int) -> tuple[Array, None]:
        """Weights behind wave j."""
        other, opaque = (jax.lax.dynamic_slice_in_dim(x, j, 1, -2) for x in (depth, alpha))
        nearer = (other < depth) | ((other == depth) & (place > j))
        return weight * jnp.where(nearer, 1.0 - opaque, 1.0), None

    return jax.lax.scan(behind, alpha, jnp.arange(count), unroll=count <= _FEW)[0]
