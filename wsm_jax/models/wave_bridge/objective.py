"""The training objective of the wave bridge: random paths between the surface of the waves and the picture."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta

from wsm_jax.config import require
from wsm_jax.flow import expand, interpolate
from wsm_jax.layers.flops import training_flops
from wsm_jax.layers.patches import patches
from wsm_jax.models.wave_bridge import state as ends
from wsm_jax.models.wave_bridge.draws import BridgeDraws
from wsm_jax.models.wave_bridge.network import StyleEncoder, WaveBridge
from wsm_jax.snapshot import channel, encode, restore
from wsm_jax.typing import Array, Float, Key, PyTree, Shaped


def encoded_channels(stored: dict[str, Array]) -> dict[str, Array]:
    """Stored integers [... C] -> what the model sees."""
    return {name: encode(name, restore(name, values)) for name, values in stored.items()}


@dataclasses.dataclass(frozen=True)
class BridgeObjective:
    """Trains velocity network and style encoder together; parameters are {"bridge", "style"}.

    Raises ValueError for parts that do not fit each other.
    """

    bridge: WaveBridge
    style: StyleEncoder
    frames: int
    """Frames of a clip."""
    size: tuple[int, int]
    """Height and width of the pictures in pixels."""
    core_noise: float
    """Std of the noise on base colour at the core end."""
    code_noise: float
    """Std of the noise on style codes, so that nearby codes mean nearby pictures."""
    draws: BridgeDraws
    """Levels, and what is known of the two ends."""
    object_weight: float
    """Extra weight of the pixels of objects and screens in every mean."""
    pixel_share: float
    """Share of the pixels of every patch that a step trains on."""
    style_weight: float
    """Loss weight of the style codes; they have unit variance and a picture tells them in part only."""
    remainder_weight: float
    """Loss weight of the code per patch."""
    noise_share: int = 4
    """Rows that share one draw of noise (see `state.noise_like`)."""

    def __post_init__(self) -> None:
        require(self, 1, "frames", "noise_share")
        if self.style.layout != self.bridge.layout:
            raise ValueError("bridge and style have layouts that differ; needed one layout for both")
        self.bridge.tokens(self.size)

    @property
    def layout(self) -> ends.BridgeLayout:
        """Blocks of the state."""
        return self.bridge.layout

    @property
    def tokens(self) -> int:
        """Tokens of a picture."""
        return self.bridge.tokens(self.size)

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels of a clip that the loss reads."""
        return tuple(dict.fromkeys(("rgb", "base_colour", "instance", "semantic", *self.layout.channels)))

    def batch(self, rows: int) -> PyTree:
        """{"channels": {name: stored [B T H W C]}, "known": {name: bool [B]}}."""
        table = {name: channel(name) for name in self.channels}
        shape = (rows, self.frames, *self.size)
        channels = {name: jax.ShapeDtypeStruct((*shape, row.components), row.dtype) for name, row in table.items()}
        return {"channels": channels, "known": {name: jax.ShapeDtypeStruct((rows,), bool) for name in table}}

    def flops(self, rows: int) -> int:
        """Model FLOPs of a training step."""
        key = jax.random.key(0)
        params = jax.eval_shape(lambda: meta.unbox(self.init(key)))
        return training_flops(lambda p, b: self.loss(p, b, key, {})[0], params, self.batch(rows))

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

    def loss(self, params: PyTree, batch: PyTree, key: Key, frozen: Mapping[str, PyTree]) -> tuple[Array, dict[str, Array]]:
        """The loss of `state.loss`, on random paths through the clips of the batch."""
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
        core_known, pixel_known, level = self.draws.sample(keys[3], batch["known"], frames, self.layout.order)
        order = self.layout.order
        low, high = ends.ends(
            keys[4],
            core_end,
            pixel_end,
            core_known,
            pixel_known,
            order,
            self.core_noise,
            self.bridge.pixel_noise,
            self.noise_share,
        )
        state = ends.join(interpolate(low, high, level), order)
        known = jnp.concatenate([core_known, pixel_known], -1)
        predicted: Any = self.bridge.apply({"params": params["bridge"]}, state, level, known, pick)
        target = jax.tree.map(lambda x: x[:, :, :, pick], (low, high))
        low_out, high_out = (ends.split(end, self.layout.sizes) for end in predicted)
        weight = _flat(self._cut(1.0 + self.object_weight * self._objects(batch)))[:, :, :, pick]
        weights = {"style": self.style_weight, "remainder": self.remainder_weight}
        return ends.loss((low_out, high_out), target, core_known, pixel_known, level, weight, weights)

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


def _flat(x: Array) -> Array:
    return x.reshape(-1, *x.shape[2:])


def _some_frames(key: Key, clips: int, frames: int) -> Float[Array, "B T"]:
    """A random non-empty subset of the frames of each clip: codes must serve the frames that they were not read from."""
    first, rest = jax.random.split(key)
    chosen = jax.nn.one_hot(jax.random.randint(first, (clips,), 0, frames), frames)
    return jnp.maximum(chosen, jax.random.bernoulli(rest, 0.5, (clips, frames)))
