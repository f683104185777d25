"""The one transformer that every flow uses.

Pre-RMSNorm blocks, attention with normalised queries and keys and rotary positions over (seconds, y, x), SwiGLU, and a
modulation (shift, scale, gate) that is computed once from the condition of each token and shared by all blocks up to a
learned offset per block (adaLN-single, Chen et al. 2023). Parameters and tokens carry logical axis names only.
"""

from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from wsm_jax.typing import Array, Bool, Float

TOKENS = ("batch", "tokens", "embed")
"""Logical axes of tokens [B L D]."""

UNROLL = 4
"""Blocks per iteration of the scan over the depth: a fifth faster on a CPU than one by one."""


def dense(features: int, axes: tuple[str, str], *, name: str | None = None, bias: bool = True, gain: float = 1.0) -> nn.Dense:
    """A linear layer whose kernel carries logical axes; `gain` multiplies its initial weights, 0 starts it at 0.

    Inputs of which only a few carry signal at a time need a gain above 1, or the network starts blind to them.
    """
    init = nn.initializers.variance_scaling(gain**2, "fan_in", "truncated_normal") if gain else nn.initializers.zeros_init()
    return nn.Dense(
        features,
        use_bias=bias,
        kernel_init=nn.with_logical_partitioning(init, axes),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros_init(), axes[1:]),
        name=name,
    )


def parameter(module: nn.Module, name: str, init: Callable[..., Array], axes: tuple[str, ...], shape: tuple[int, ...]) -> Array:
    """A parameter of a module whose axes carry logical names."""
    value: Any = module.param(name, nn.with_logical_partitioning(init, axes), shape)
    return value


def rms_norm(x: Array) -> Array:
    """x / rms(x) over the last axis, in float32."""
    y = x.astype(jnp.float32)
    return (y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + 1e-6)).astype(x.dtype)


def rotary_angles(positions: Float[Array, "B L 3"], head_dim: int) -> Float[Array, "B L 1 pairs"]:
    """Angles linear in the positions, one per pair of features of a head.

    The head is cut in three: seconds, y and x (in canvas heights), each with geometric wavelengths from 1/4 to 64 units.
    """
    pairs = head_dim // 2
    share = [pairs - 2 * (pairs // 3), pairs // 3, pairs // 3]
    parts = [positions[..., i, None] * (2 * jnp.pi * jnp.logspace(2, -6, n, base=2.0)) for i, n in enumerate(share) if n]
    return jnp.concatenate(parts, -1)[:, :, None, :]


def rotary(x: Float[Array, "B L heads head_dim"], angle: Float[Array, "B L 1 pairs"]) -> Float[Array, "B L heads head_dim"]:
    """Rotates pairs of features, so that attention depends on differences of positions alone (Su et al. 2021)."""
    first, second = jnp.split(x, 2, -1)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], -1)


class Attention(nn.Module):
    """Multi-head attention with QK-norm and rotary positions."""

    heads: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "B L D"], angle: Float[Array, "B L 1 pairs"], mask: Bool[Array, "#B L L"] | None
    ) -> Float[Array, "B L D"]:
        width = x.shape[-1]
        qkv = dense(3 * width, ("embed", "heads"), bias=False, name="qkv")(x)
        q, k, v = (y.reshape(*y.shape[:2], self.heads, -1) for y in jnp.split(qkv, 3, -1))
        scale = parameter(self, "qk_scale", nn.initializers.ones_init(), ("norm", "head_dim"), (2, q.shape[-1]))
        q, k = rotary(rms_norm(q) * scale[0], angle), rotary(rms_norm(k) * scale[1], angle)
        logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / jnp.sqrt(float(q.shape[-1]))
        if mask is not None:
            logits = jnp.where(mask[:, None], logits, -1e9)
        weights = jax.nn.softmax(logits.astype(jnp.float32), -1).astype(x.dtype)
        out = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape)
        return dense(width, ("heads", "embed"), bias=False, name="out")(out)


class SwiGLU(nn.Module):
    """silu(x A) * (x B), then C (Shazeer 2020)."""

    hidden: int
    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        gate, value = jnp.split(dense(2 * self.hidden, ("embed", "mlp"), name="in")(x), 2, -1)
        return dense(self.features, ("mlp", "embed"), name="out")(jax.nn.silu(gate) * value)


class Block(nn.Module):
    """One block, as the body of a scan over the depth: carries the tokens, sees the rest."""

    width: int
    heads: int

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "B L D"],
        shared: Float[Array, "B l M"],
        angle: Float[Array, "B L 1 pairs"],
        mask: Bool[Array, "#B L L"] | None,
    ) -> tuple[Float[Array, "B L D"], None]:
        offset = parameter(self, "offset", _offset_init, ("modulation",), (6 * self.width,))
        shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(shared + offset, 6, -1)
        h = rms_norm(x) * (1 + scale1) + shift1
        x = x + gate1 * Attention(self.heads, name="attention")(h, angle, mask)
        h = rms_norm(x) * (1 + scale2) + shift2
        x = x + gate2 * SwiGLU(8 * (self.width // 3), self.width, name="mlp")(h)
        return nn.with_logical_constraint(x, TOKENS), None


class Transformer(nn.Module):
    """`depth` blocks over tokens, scanned, so that compile time does not grow with them; returns normalised tokens."""

    width: int
    depth: int
    heads: int

    @nn.compact
    def __call__(
        self,
        tokens: Float[Array, "B L D"],
        positions: Float[Array, "B L 3"],
        condition: Float[Array, "B l D"],
        mask: Bool[Array, "#B L L"] | None = None,
    ) -> Float[Array, "B L D"]:
        """`condition` has one vector a token, or one for all (l = 1); `mask[b, i, j]` lets token i see token j."""
        shared = dense(6 * self.width, ("embed", "modulation"), gain=0.0, name="modulation")(jax.nn.silu(condition))
        blocks = nn.scan(
            Block,
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=cast(Any, nn.broadcast),
            length=self.depth,
            unroll=min(UNROLL, self.depth),
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        angle = rotary_angles(positions, self.width // self.heads)
        tokens = nn.with_logical_constraint(tokens, TOKENS)
        x, _ = blocks(self.width, self.heads, name="blocks")(tokens, shared, angle, mask)
        return rms_norm(x)


def _offset_init(key: Array, shape: tuple[int], dtype: jnp.dtype = jnp.float32) -> Array:
    """Shift and scale 0, gates small: every block starts near the identity."""
    del key
    width = shape[0] // 6
    return jnp.concatenate([jnp.zeros(2 * width), jnp.full(width, 0.3)] * 2).astype(dtype)


def level_features(level: Float[Array, "*n"], width: int) -> Float[Array, "*n D"]:
    """Sines and cosines of a level in 0..1, `width` of them, with frequencies 1/4 .. 64 periods."""
    angle = level[..., None] * (2 * jnp.pi * jnp.logspace(-2, 6, width // 2, base=2.0))
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)
