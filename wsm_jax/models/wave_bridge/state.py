"""The two ends of the wave bridge, and its loss.

The state is a dictionary of blocks, images [B ... c] that mean different things at the two ends:

    block        level 0, the core end                     level 1, the pixel end
    rgb          base colour of the waves                  the picture
    <channel>    the surface channel, from the core        the same channel as observed (sensor, label, sketch)
    style        codes of wave and scene, rasterised       noise of std `pixel_noise`
    remainder    code per patch, for what no wave explains noise of std `pixel_noise`

A block that is not known at an end is standard noise there, and a validity bit says so. A given channel is the same at both
ends, so it stays still along the path and steers everything else: control is data.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsm_jax.config import require
from wsm_jax.flow.path import block_loss, expand, velocity
from wsm_jax.snapshot import CHANNELS
from wsm_jax.typing import Array, Float, Key, NpOrJax, PyTree, array_namespace

CODES = ("style", "remainder")


@dataclasses.dataclass(frozen=True)
class BridgeLayout:
    """Blocks of the state of a bridge, and their sizes. Raises ValueError for channels that do not suit it."""

    channels: tuple[str, ...]
    """Surface channels besides rgb; "local" must be among them, textures hang on it."""
    waves: int
    """Slots N."""
    wave_code: int
    scene_code: int
    patch_code: int

    def __post_init__(self) -> None:
        require(self, 1, "waves", "wave_code", "scene_code", "patch_code")
        unknown = [name for name in self.channels if name not in CHANNELS]
        if unknown or "local" not in self.channels or "rgb" in self.channels:
            raise ValueError(
                f"bridge channels {self.channels}: needed known channels other than rgb, with 'local' among them"
                + (f"; unknown: {unknown}" if unknown else "")
            )

    @property
    def sizes(self) -> dict[str, int]:
        """Block name -> components, in the order of the state: rgb, the surface channels, the codes."""
        encoded = {name: CHANNELS[name].encoded for name in self.channels}
        return {"rgb": 3, **encoded, "style": self.wave_code + self.scene_code, "remainder": self.patch_code}

    @property
    def order(self) -> tuple[str, ...]:
        """Block names in the order of the state."""
        return tuple(self.sizes)

    @property
    def local_slice(self) -> tuple[int, int]:
        """Range of the wave-local coordinates among the components of the state."""
        start = sum(list(self.sizes.values())[: self.order.index("local")])
        return start, start + 3

    def noise(self, pixel_noise: float) -> tuple[float, ...]:
        """Std of every block at the pixel end where it holds no signal."""
        return tuple(pixel_noise if name in CODES else 1.0 for name in self.order)

    def bits(self, names: Sequence[str]) -> Float[np.ndarray, " blocks"]:
        """1 for the named blocks, 0 for the others."""
        return np.asarray([name in names for name in self.order], np.float32)


def wave_masks(instance: NpOrJax, waves: int) -> Float[Any, "... N"]:
    """Instance labels [... 1] -> one mask a wave; NumPy stays NumPy."""
    return (instance.astype(np.int32) == np.arange(1, waves + 1)).astype(np.float32)


def style_raster(
    masks: Float[NpOrJax, "B *image N"], wave_codes: Float[NpOrJax, "B N c"], scene_code: Float[NpOrJax, "B s"]
) -> Float[Any, "B *image k"]:
    """Codes of the waves in the pixels that show them, and the code of the scene in every pixel; NumPy stays NumPy."""
    xp = array_namespace(masks, wave_codes, scene_code)
    waves = xp.einsum("b...n,bnc->b...c", masks, wave_codes)
    scene = xp.broadcast_to(expand_last(scene_code, masks.ndim), (*masks.shape[:-1], scene_code.shape[-1]))
    return xp.concatenate([waves, scene], -1)


def expand_last(code: Float[NpOrJax, "B c"], ndim: int) -> Float[Any, "B ... c"]:
    """[B c] with axes of size 1 between, to `ndim` axes."""
    return code.reshape(code.shape[0], *[1] * (ndim - 2), code.shape[-1])


def join(state: dict[str, Array], order: Sequence[str]) -> Array:
    """Blocks side by side, [B ... S]."""
    return jnp.concatenate([state[name] for name in order], -1)


def split(state: NpOrJax, sizes: dict[str, int]) -> dict[str, Any]:
    """Inverse of `join`; NumPy stays NumPy."""
    edges = [sum(list(sizes.values())[: i + 1]) for i in range(len(sizes) - 1)]
    return dict(zip(sizes, array_namespace(state).split(state, edges, -1), strict=True))


def ends(
    key: Key,
    core_end: dict[str, Array],
    pixel_end: dict[str, Array],
    core_known: Float[Array, "B blocks"],
    pixel_known: Float[Array, "B blocks"],
    order: Sequence[str],
    core_noise: float,
    pixel_noise: float,
    noise_share: int,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Both ends of the path from what is known of them; unknown blocks become noise.

    `core_end` has every block in encoded form, `pixel_end` all but the codes. `core_noise` blurs the core end of rgb alone:
    geometry carries textures at high frequency, which noise would wash out.
    """
    whole = join(core_end, order)
    sizes = {name: core_end[name].shape[-1] for name in order}
    # one draw for all blocks: on a CPU, drawing block by block costs half a minute of compilation
    at_core, at_pixel = (split(noise_like(k, whole, noise_share), sizes) for k in jax.random.split(key))
    low, high = {}, {}
    for i, name in enumerate(order):
        clean = core_end[name] + (core_noise * at_pixel[name] if name == "rgb" else 0.0)
        low[name] = jnp.where(expand(core_known[:, i], clean) > 0, clean, at_core[name])
        if name in CODES:
            high[name] = pixel_noise * at_pixel[name]
        else:
            high[name] = jnp.where(expand(pixel_known[:, i], clean) > 0, pixel_end[name], at_pixel[name])
    return low, high


def noise_like(key: Key, x: Float[Array, "B *image c"], share: int) -> Float[Array, "B *image c"]:
    """Standard noise in the shape of x; every `share` rows use one draw, each with a random sign per component.

    Drawing noise costs as much as the network on a CPU. The rows of a batch are different pictures, whose mean gradient
    stays unbiased whatever their noises have to do with each other.
    """
    bank_key, sign_key = jax.random.split(key)
    rows, *image, size = x.shape
    bank = jax.random.normal(bank_key, (-(-rows // share), 1, *image, size))
    sign = jax.random.rademacher(sign_key, (len(bank), share, *[1] * len(image), size), jnp.float32)
    return (bank * sign).reshape(-1, *image, size)[:rows]


def velocity_of_ends(state: PyTree, low: PyTree, high: PyTree, level: Float[Array, " B"]) -> PyTree:
    """Velocity from the predicted ends: the blend (1 - l) (x1 - x)/(1 - l) + l (x - x0)/l = x1 - x0 of both readings.

    At the two ends themselves the end at hand is the state, not its prediction, so one Euler step lands on the other
    prediction exactly: level 0 gives x1 - x, level 1 gives x - x0.
    """

    def one(at_source: Array, at_target: Array, between: Array) -> Array:
        l = expand(level, between)
        return jnp.where(l <= 0, at_source, jnp.where(l >= 1, at_target, between))

    return jax.tree.map(one, velocity(state, high), velocity(low, state), velocity(low, high))


def loss(
    predicted: tuple[dict[str, Array], dict[str, Array]],
    target: tuple[dict[str, Array], dict[str, Array]],
    core_known: Float[Array, "B blocks"],
    pixel_known: Float[Array, "B blocks"],
    level: Float[Array, " B"],
    weight: Float[Array, "B ..."],
    code_weights: Mapping[str, float],
) -> tuple[Array, dict[str, Array]]:
    """Weighted sum over blocks and ends of the mean squared error where the end is known, and its terms.

    Weights are those of the channels in the channel table, and `code_weights`.
    The end at level 0 weighs l and the end at level 1 weighs 1 - l: near an end only the other one is to be inferred. The
    codes have no target at the pixel end, where they are noise. `weight` is a weight per pixel (last axis 1).
    """
    error, mask = {}, {}
    for end, (known, share) in enumerate(((core_known, level), (pixel_known, 1.0 - level))):
        for i, name in enumerate(predicted[end]):
            if end == 0 or name not in CODES:
                difference = predicted[end][name] - jax.lax.stop_gradient(target[end][name])
                error[f"{name}_{end}"] = jnp.square(difference)
                mask[f"{name}_{end}"] = expand(known[:, i] * share, weight) * weight
    _, terms = block_loss(error, mask)
    weights = {name: row.weight for name, row in CHANNELS.items()} | dict(code_weights)
    return sum(weights[name[:-2]] * term for name, term in terms.items()), terms  # type: ignore[return-value]
