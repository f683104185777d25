"""The two ends of the wave bridge, and its loss.

The state is a dictionary of blocks, images [B H W c] that mean different things at the two ends:

    block        level 0, the core end                     level 1, the pixel end
    rgb          base colour of the waves                  the picture
    <channel>    the surface channel, from the core        the same channel as observed (sensor, label, sketch)
    style        codes of wave and scene, rasterised       noise of std `pixel_noise`
    remainder    code per patch, for what no wave explains noise of std `pixel_noise`

A block that is not known at an end is standard noise there, and a validity bit says so. A given channel is the same at both
ends, so it stays still along the path and steers everything else: control is data.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from wsm_jax.typing import Array, Float, Key, PyTree

CODES = ("style", "remainder")


def block_sizes(channels: dict[str, int], style: int, remainder: int) -> dict[str, int]:
    """Block name -> components, in the order of the state: rgb, the surface channels, the codes."""
    return {"rgb": 3, **channels, "style": style, "remainder": remainder}


def join(state: dict[str, Array], order: Sequence[str]) -> Array:
    """Blocks side by side, [B H W S]."""
    return jnp.concatenate([state[name] for name in order], -1)


def split(state: Array, sizes: dict[str, int]) -> dict[str, Array]:
    """Inverse of `join`."""
    edges = [sum(list(sizes.values())[: i + 1]) for i in range(len(sizes) - 1)]
    return dict(zip(sizes, jnp.split(state, edges, -1), strict=True))


def ends(
    key: Key,
    core_end: dict[str, Array],
    pixel_end: dict[str, Array],
    core_known: Float[Array, "B blocks"],
    pixel_known: Float[Array, "B blocks"],
    order: Sequence[str],
    core_noise: float,
    pixel_noise: float,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Both ends of the path from what is known of them; unknown blocks become noise.

    `core_end` has every block in encoded form, `pixel_end` all but the codes. `core_noise` blurs the core end of rgb alone:
    geometry carries textures at high frequency, which noise would wash out.
    """
    low, high = {}, {}
    for i, name in enumerate(order):
        keys = jax.random.split(jax.random.fold_in(key, i), 3)
        shape = core_end[name].shape
        noise = [jax.random.normal(k, shape) for k in keys]
        clean = core_end[name] + (core_noise * noise[2] if name == "rgb" else 0.0)
        target = pixel_noise * noise[2] if name in CODES else pixel_end[name]
        low[name] = jnp.where(_bits(core_known, i) > 0, clean, noise[0])
        high[name] = jnp.where(_bits(pixel_known, i) > 0, target, pixel_noise * noise[1] if name in CODES else noise[1])
    return low, high


def _bits(known: Array, index: int) -> Array:
    return known[:, index][:, None, None, None]


def velocity_of_ends(state: PyTree, low: PyTree, high: PyTree, level: Float[Array, " B"]) -> PyTree:
    """Velocity from the predicted ends: the blend (1 - l) (x1 - x)/(1 - l) + l (x - x0)/l = x1 - x0 of both readings.

    At the two ends themselves the end at hand is the state, not its prediction, so one Euler step lands on the other
    prediction exactly: level 0 gives x1 - x, level 1 gives x - x0.
    """

    def one(x: Array, x0: Array, x1: Array) -> Array:
        l = level.reshape(-1, *([1] * (x.ndim - 1)))
        return jnp.where(l <= 0, x1 - x, jnp.where(l >= 1, x - x0, x1 - x0))

    return jax.tree.map(one, state, low, high)


def loss(
    predicted: tuple[dict[str, Array], dict[str, Array]],
    target: tuple[dict[str, Array], dict[str, Array]],
    core_known: Float[Array, "B blocks"],
    pixel_known: Float[Array, "B blocks"],
    level: Float[Array, " B"],
    order: Sequence[str],
) -> tuple[Array, dict[str, Array]]:
    """Sum over blocks and ends of the mean squared error where the end is known; returns it with its terms.

    The end at level 0 weighs l and the end at level 1 weighs 1 - l: near an end only the other one is to be inferred.
    """
    total, terms = jnp.zeros(()), {}
    for end, (known, weight) in enumerate(((core_known, level), (pixel_known, 1.0 - level))):
        for i, name in enumerate(order):
            if end == 1 and name in CODES:
                continue
            error = jnp.square(predicted[end][name] - jax.lax.stop_gradient(target[end][name]))
            error = jnp.mean(error, tuple(range(1, error.ndim)))
            share = known[:, i] * weight
            terms[f"{name}_{end}"] = jnp.sum(share * error) / (jnp.sum(share) + 1e-3)
            total = total + terms[f"{name}_{end}"]
    return total, terms
