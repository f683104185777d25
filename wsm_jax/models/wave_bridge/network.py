"""The velocity network of the wave bridge, and the encoder that makes style codes while it trains.

Tokens embed patches; a small network per pixel decodes tokens to pixels. The token grid is tied to the
canvas (so many tokens per image height), not to pixels: more resolution means more pixels a token, the same tokens, the same
weights. In training the pixel network may run on a random subset of the pixels, which leaves the gradient unbiased.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from wsm_jax.config import require
from wsm_jax.layers.patches import resample
from wsm_jax.layers.transformer import SwiGLU, Transformer, dense, level_features, rms_norm
from wsm_jax.models.wave_bridge.state import BridgeLayout
from wsm_jax.typing import Array, Float, Int

FEATURES = ("batch", "frames", "rows", "columns", "channels")
"""Logical axes of the features of patches of clips [B T gh gw C]."""


def waves_of(local: Float[Array, "*n 3"], frequencies: tuple[float, ...]) -> Float[Array, "*n F"]:
    """sin and cos of pi f u for every wave-local coordinate u and frequency f: the basis of textures."""
    angle = jnp.pi * local[..., None] * jnp.asarray(frequencies)
    flat = angle.reshape(*local.shape[:-1], -1)
    return jnp.concatenate([jnp.sin(flat), jnp.cos(flat)], -1)


def signal_share(
    level: Float[Array, " B"], known: Float[Array, "B F"], noise: Float[Array, " blocks"]
) -> Float[Array, "B blocks"]:
    """The share of signal in the power of every block: what a Wiener filter would keep of it.

    With bits k0, k1 of the two ends, the noise of an unknown end having std s (1 at the core end),

        share = ((1-l)^2 k0 + l^2 k1) / ((1-l)^2 + l^2 (k1 + (1 - k1) s^2))

    so a block that is pure noise enters as 0, and does not drown the few that are not.
    """
    k0, k1 = jnp.split(known, 2, -1)
    low, high = jnp.square(1.0 - level)[:, None], jnp.square(level)[:, None]
    power = low + high * (k1 + (1.0 - k1) * jnp.square(noise))
    return (low * k0 + high * k1) / jnp.maximum(power, 1e-6)


class WaveBridge(nn.Module):
    """State at a level -> both ends of its path, all in patches [B gh gw p S].

    Raises ValueError for sizes below 1 and a width that does not divide by the heads.
    """

    layout: BridgeLayout
    """Blocks of the state."""
    rows: int
    """Token rows per image height."""
    patch: int
    """Side in pixels of the patch that a token embeds (other sizes are resampled to it)."""
    width: int
    depth: int
    heads: int
    pixel_width: int
    """Features of the network per pixel."""
    frequencies: tuple[float, ...]
    """Frequencies of the sines of wave-local coordinates (textures), half periods per semi-axis."""
    pixel_noise: float
    """Std of the codes at the pixel end, where they hold no signal."""
    value_heads: int = 4
    """Vectors that a token offers its pixels."""
    key_size: int = 16
    """Size of the keys by which a pixel chooses among them."""
    detail: int = 8
    """Channels of the map that each token draws over its own patch."""

    def __post_init__(self) -> None:
        require(self, 1, "rows", "patch", "depth", "heads", "pixel_width", "value_heads", "key_size", "detail")
        require(self, self.heads, "width")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide by heads {self.heads}")
        super().__post_init__()

    def tokens(self, size: tuple[int, int]) -> int:
        """Tokens of a picture of (height, width) pixels. Raises ValueError where it does not divide into square patches."""
        height, width = size
        if height % self.rows or width % (height // self.rows):
            raise ValueError(
                f"pictures of {height} x {width} do not divide into square patches, rows = {self.rows} of them high"
            )
        return self.rows * (width // (height // self.rows))

    @nn.compact
    def __call__(
        self,
        state: Float[Array, "B gh gw p S"],
        level: Float[Array, " B"],
        known: Float[Array, "B F"],
        pixels: Int[Array, " q"] | None = None,
    ) -> tuple[Array, Array]:
        """Predicts (end at level 0, end at level 1) of a state in `patches`. `known` holds the validity bits of both ends.

        `pixels` picks pixels of every patch, for which alone the ends are predicted.
        """
        size = state.shape[-1]
        gain = signal_share(level, known, jnp.asarray(self.layout.noise(self.pixel_noise)))
        sizes = jnp.asarray(tuple(self.layout.sizes.values()))
        gain = jnp.repeat(gain, sizes, axis=1, total_repeat_length=size)
        cut = state * gain[:, None, None, None]
        # inputs of one power, whether few blocks are known or many: else the layers are nearly blind to a picture alone
        seen = cut * jax.lax.rsqrt(jnp.mean(jnp.square(gain), 1) + 0.02)[:, None, None, None, None]
        side = round(cut.shape[3] ** 0.5)
        small = resample(seen, self.patch)
        batch, rows, columns = small.shape[:3]
        tokens = dense(self.width, ("channels", "embed"), name="embed")(small.reshape(batch, rows * columns, -1))
        condition = level_features(level, 64)
        condition = dense(self.width, ("level", "embed"), name="condition")(jnp.concatenate([condition, known], -1))[:, None]
        y, x = jnp.meshgrid((jnp.arange(rows) + 0.5) / rows, (jnp.arange(columns) + 0.5) / rows, indexing="ij")
        positions = jnp.stack([jnp.zeros_like(y), y, x], -1).reshape(1, -1, 3)
        place = dense(self.width, ("channels", "embed"), name="place")(
            level_features(positions[..., 1:].reshape(1, -1, 2), 16).reshape(1, rows * columns, -1)
        )
        positions = jnp.broadcast_to(positions, (batch, rows * columns, 3))
        tokens = Transformer(self.width, self.depth, self.heads, name="transformer")(
            tokens + condition + place, positions, condition
        )
        painted = dense(self.patch**2 * self.detail, ("embed", "mlp"), name="paint")(tokens)
        painted = resample(painted.reshape(batch, rows, columns, self.patch**2, self.detail), side)
        values = dense(self.value_heads * 2 * self.pixel_width, ("embed", "mlp"), name="speak")(tokens)
        values = values.reshape(batch, rows, columns, self.value_heads, 2 * self.pixel_width)
        keys = dense(self.value_heads * self.key_size, ("embed", "mlp"), name="keys")(tokens).reshape(
            batch, rows, columns, self.value_heads, self.key_size
        )
        if pixels is not None:
            cut, seen, painted = cut[..., pixels, :], seen[..., pixels, :], painted[..., pixels, :]
        texture = waves_of(cut[..., slice(*self.layout.local_slice)], self.frequencies)
        h = jnp.concatenate([seen, painted, texture], -1)
        # every pixel attends to the value heads of its token: object or background, within one patch
        query = dense(self.key_size, ("channels", "mlp"), name="query")(h)
        choice = jax.nn.softmax(jnp.einsum("bijqk,bijvk->bijqv", query, keys), -1)
        attended = jnp.einsum("bijqv,bijvd->bijqd", choice, values)
        gate, value = jnp.split(dense(2 * self.pixel_width, ("channels", "mlp"), name="pixel_in")(h) + attended, 2, -1)
        h = jax.nn.silu(gate) * value
        h = h + SwiGLU(self.pixel_width, self.pixel_width, name="pixel_mlp")(h)
        out = dense(2 * size, ("mlp", "channels"), name="pixel_out")(h) + jnp.concatenate([cut, cut], -1)
        return out[..., :size], out[..., size:]


class StyleEncoder(nn.Module):
    """Codes of what a picture shows beyond geometry: one per wave, one for the scene, one per patch.

    A network per pixel compares picture and surface; its features are averaged over the pixels of each wave, of the whole
    clip and of each patch, and mapped to codes of root mean square 1.
    """

    layout: BridgeLayout
    width: int
    frequencies: tuple[float, ...]

    def __post_init__(self) -> None:
        require(self, 1, "width")
        super().__post_init__()

    @nn.compact
    def __call__(
        self,
        rgb: Float[Array, "B T gh gw q 3"],
        surface: Float[Array, "B T gh gw q C"],
        local: Float[Array, "B T gh gw q 3"],
        masks: Float[Array, "B T gh gw q N"],
        frames: Float[Array, "B T"],
    ) -> tuple[Float[Array, "B N c"], Float[Array, "B s"], Float[Array, "B T gh gw p"]]:
        """All inputs in patches, every pixel or a sample of them: averages are all that is made of pixels here.

        `masks` are the pixels of every wave, `frames` weighs the frames that wave and scene codes may look at. A wave that
        is nowhere seen gets the code of an empty average.
        """
        x = jnp.concatenate([rgb, surface, waves_of(local, self.frequencies)], -1)
        h = SwiGLU(self.width, self.width, name="pixel")(x)
        h = SwiGLU(self.width, self.width, name="pixel_2")(h) + h
        share = frames / (jnp.sum(frames, 1, keepdims=True) * h.shape[2] * h.shape[3] * h.shape[4])
        seen = masks * share[:, :, None, None, None, None]
        amount = jnp.einsum("btijqn->bn", seen)[..., None]
        per_wave = jnp.einsum("btijqn,btijqd->bnd", seen, h) / (amount + 2e-4)
        scene = jnp.einsum("btijqd,bt->bd", h, share)
        whole = jnp.concatenate([per_wave, jnp.broadcast_to(scene[:, None], (*per_wave.shape[:2], self.width))], -1)
        wave = SwiGLU(self.width, self.layout.wave_code, name="wave")(whole)
        scene = SwiGLU(2 * self.width, self.layout.scene_code, name="scene")(jnp.concatenate([scene, per_wave[:, 0]], -1))
        # Without this the partitioner of XLA (jaxlib 0.10.2, 2 x 2 x 2 devices) silently loses a sum in the gradient of the
        # layers above: the features are used in several ways, and it splits each as it likes (compare openxla/xla 40034).
        means = nn.with_logical_constraint(jnp.mean(h, 4), FEATURES)
        patch = dense(self.layout.patch_code, ("mlp", "channels"), name="patch")(means)
        return rms_norm(wave), rms_norm(scene), rms_norm(patch)
