"""What the wave bridge is trained on: paths between the surface of the waves and the picture, in three kinds.

*perceive*: the picture alone is given at the pixel end, mostly with its camera channels. *render*: picture and surface
channels are. *any*: a random subset of channels is known at either end, so that later any subset can drive any other. Levels
lean to the end that is given.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from wsm_jax.flow import LevelMix, expand, interpolate
from wsm_jax.layers.patches import patches
from wsm_jax.models.wave_bridge import state as ends
from wsm_jax.models.wave_bridge.network import StyleEncoder, WaveBridge
from wsm_jax.snapshot import CAMERA_CHANNELS, channel, encode, restore
from wsm_jax.typing import Array, Float, Key, PyTree, Shaped


def encoded_channels(stored: dict[str, Array]) -> dict[str, Array]:
    """Stored integers [... C] -> what the model sees."""
    return {name: encode(name, restore(name, values)) for name, values in stored.items()}


@dataclasses.dataclass(frozen=True)
class BridgeObjective:
    """Trains velocity network and style encoder together; parameters are {"bridge", "style"}."""

    bridge: WaveBridge
    style: StyleEncoder
    layout: ends.Layout
    core_noise: float
    pixel_noise: float
    code_noise: float
    """Std of the noise on style codes, so that nearby codes mean nearby pictures."""
    mix: tuple[float, float, float]
    """Shares of perceive, render, any."""
    levels: LevelMix
    at_end: float
    """Share of rows exactly at an end, where inference begins, and with one step also is."""
    object_weight: float
    """Extra weight of the pixels of objects and screens in every mean."""
    pixel_share: float
    """Share of the pixels of every patch that a step trains on."""

    def init(self, key: Key) -> PyTree:
        """Parameters in Linen's boxes of logical axes."""
        rows = self.bridge.rows
        keys = jax.random.split(key)
        state = jnp.zeros((1, rows, rows, self.bridge.patch**2, sum(self.layout.sizes.values())))
        known = jnp.zeros((1, 2 * len(self.layout.sizes)))
        rgb, surface, masks = (jnp.zeros((1, 1, 1, 1, 1, c)) for c in (3, self._surface_size, self.layout.waves))
        return {
            "bridge": self.bridge.init(keys[0], state, jnp.zeros(1), known)["params"],
            "style": self.style.init(keys[1], rgb, surface, rgb, masks, jnp.ones((1, 1)))["params"],
        }

    @property
    def _surface_size(self) -> int:
        return 3 + sum(channel(name).encoded for name in self.layout.channels)

    def codes(self, params: PyTree, batch: PyTree, frames: Float[Array, "B T"]) -> tuple[Array, Array, Array]:
        """(wave codes [B N c], scene code [B s], patch codes [B T gh gw p]) of clips, read off every pixel."""
        code = encoded_channels(jax.tree.map(self._cut, batch["channels"]))
        return self._codes(params, code, self._masks(batch), batch["known"], frames)

    def loss(self, params: PyTree, batch: PyTree, key: Key) -> tuple[Array, dict[str, Array]]:
        """The loss of `wsm_jax.models.wave_bridge.state.loss`, on random paths through the clips of the batch."""
        keys = jax.random.split(key, 8)
        clips, frames = batch["channels"]["rgb"].shape[:2]
        code, masks = encoded_channels(jax.tree.map(self._cut, batch["channels"])), self._masks(batch)
        pixels = masks.shape[4]
        pick = jax.random.permutation(keys[5], pixels)[: max(1, round(self.pixel_share * pixels))]
        some = {name: x[:, :, :, :, pick] for name, x in code.items()}
        keep = _some_frames(keys[0], clips, frames)
        waves, scene, patch = self._codes(params, some, masks[:, :, :, :, pick], batch["known"], keep)
        waves = waves + self.code_noise * jax.random.normal(keys[1], waves.shape)
        scene = scene + self.code_noise * jax.random.normal(keys[2], scene.shape)
        core_end = {"rgb": code["base_colour"]} | {name: code[name] for name in self.layout.channels}
        core_end["style"] = ends.style_raster(masks, waves, scene)
        core_end["remainder"] = jnp.broadcast_to(patch[..., None, :], (*masks.shape[:5], patch.shape[-1]))
        core_end = jax.tree.map(_flat, core_end)
        pixel_end = core_end | {"rgb": _flat(code["rgb"])}
        core_known, pixel_known, level = self._draw(keys[3], batch["known"], frames)
        order = self.layout.order
        low, high = ends.ends(keys[4], core_end, pixel_end, core_known, pixel_known, order, self.core_noise, self.pixel_noise)
        state = ends.join(interpolate(low, high, level), order)
        known = jnp.concatenate([core_known, pixel_known], -1)
        predicted: Any = self.bridge.apply({"params": params["bridge"]}, state, level, known, pick)
        target = jax.tree.map(lambda x: x[:, :, :, pick], (low, high))
        low_out, high_out = (ends.split(end, self.layout.sizes) for end in predicted)
        weight = _flat(self._cut(1.0 + self.object_weight * self._objects(batch)))[:, :, :, pick]
        return ends.loss((low_out, high_out), target, core_known, pixel_known, level, weight)

    def _cut(self, x: Array) -> Shaped[Array, "B T gh gw p C"]:
        """Images [B T H W C] in patches."""
        parts = patches(_flat(x), self.bridge.rows)
        return parts.reshape(*x.shape[:2], *parts.shape[1:])

    def _masks(self, batch: PyTree) -> Float[Array, "B T gh gw p N"]:
        masks = ends.wave_masks(self._cut(batch["channels"]["instance"]), self.layout.waves)
        return masks * expand(batch["known"]["instance"], masks)

    def _objects(self, batch: PyTree) -> Float[Array, "B T H W 1"]:
        """1 in the pixels of objects and screens: small, but what the world is about."""
        semantic = batch["channels"]["semantic"]
        return ((semantic >= 2) & expand(batch["known"]["semantic"], semantic)).astype(jnp.float32)

    def _codes(
        self, params: PyTree, code: dict[str, Array], masks: Array, known: dict[str, Array], frames: Float[Array, "B T"]
    ) -> tuple[Array, Array, Array]:
        """The style encoder on encoded channels in patches; what is not known enters as 0."""
        have = {name: x * expand(known[name].astype(jnp.float32), x) for name, x in code.items()}
        surface = jnp.concatenate([have[name] for name in ("base_colour", *self.layout.channels)], -1)
        return self.style.apply({"params": params["style"]}, have["rgb"], surface, have["local"], masks, frames)  # type: ignore[return-value]

    def _draw(self, key: Key, known: dict[str, Array], frames: int) -> tuple[Array, Array, Array]:
        """Validity bits of both ends [B*T, blocks] and levels [B*T]."""
        keys = jax.random.split(key, 8)
        order = tuple(self.layout.sizes)
        source = {"rgb": "base_colour"}
        exists = {
            0: jnp.stack([jnp.ones_like(known["rgb"]) if n in ends.CODES else known[source.get(n, n)] for n in order], -1),
            1: jnp.stack([jnp.zeros_like(known["rgb"]) if n in ends.CODES else known[n] for n in order], -1),
        }
        exists = {end: jnp.repeat(bits, frames, 0).astype(jnp.float32) for end, bits in exists.items()}
        rows = exists[0].shape[0]
        kind = jax.random.choice(keys[0], 3, (rows,), p=jnp.asarray(self.mix))[:, None]
        is_code = jnp.asarray([n in ends.CODES for n in order])
        is_rgb, is_camera = (jnp.asarray([n in names for n in order]) for names in (("rgb",), CAMERA_CHANNELS))
        drawn = [jax.random.bernoulli(k, p, (rows, len(order))) for k, p in ((keys[1], 0.7), (keys[2], 0.5))]
        core = jnp.where(kind == 2, drawn[0] | is_code, True)
        posed = is_camera & jax.random.bernoulli(keys[7], 0.8, (rows, 1))
        pixel = jnp.where(kind == 0, is_rgb | posed, jnp.where(kind == 1, True, drawn[1]))
        remainder = jax.random.bernoulli(keys[3], 0.4, (rows, 1)) | jnp.asarray([n != "remainder" for n in order])
        core = core & remainder
        level = self.levels.sample(keys[4], (rows,))
        lean = jax.random.uniform(keys[5], (rows,))
        high, low = jnp.maximum(level, 1 - level), jnp.minimum(level, 1 - level)
        towards = jnp.where(lean < 0.5, low, high)
        level = jnp.where(kind[:, 0] == 0, jnp.where(lean < 0.8, high, level), jnp.where(kind[:, 0] == 1, towards, level))
        at_end = jax.random.bernoulli(keys[6], self.at_end, (rows,))
        return core * exists[0], pixel * exists[1], jnp.where(at_end, jnp.round(level), level)


def _flat(x: Array) -> Array:
    return x.reshape(-1, *x.shape[2:])


def _some_frames(key: Key, clips: int, frames: int) -> Float[Array, "B T"]:
    """A random non-empty subset of the frames of each clip: codes must serve the frames that they were not read from."""
    first, rest = jax.random.split(key)
    chosen = jax.nn.one_hot(jax.random.randint(first, (clips,), 0, frames), frames)
    return jnp.maximum(chosen, jax.random.bernoulli(rest, 0.5, (clips, frames)))
