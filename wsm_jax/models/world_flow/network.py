"""The network of the world flow: text, core and style as token groups of one transformer, each token at its own level."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from wsm_jax.config import require
from wsm_jax.layers.transformer import Transformer, dense, level_features, parameter
from wsm_jax.models.world_flow.state import WorldLayout
from wsm_jax.snapshot import TICK_HZ
from wsm_jax.text import codebook
from wsm_jax.typing import Array, Float


class WorldFlow(nn.Module):
    """Predicts the data end of every group: text as logits and as their mean code, core and style as values.

    Raises ValueError for sizes below 1 and a width that does not divide by the heads.
    """

    layout: WorldLayout
    width: int
    depth: int
    heads: int

    def __post_init__(self) -> None:
        require(self, 1, "depth", "heads")
        require(self, self.heads, "width")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide by heads {self.heads}")
        super().__post_init__()

    @property
    def tick_patch(self) -> int:
        """Ticks of one wave that make a token."""
        return self.layout.tick_patch

    @nn.compact
    def __call__(
        self,
        text: Float[Array, "B L E"],
        core: Float[Array, "B K N P"],
        style: Float[Array, "B M c"],
        levels: dict[str, Float[Array, "B ..."]],
    ) -> tuple[dict[str, Array], Float[Array, "B L V"]]:
        """Style has one token per wave and a last one for the scene (M = N + 1). Returns (data ends, text logits).

        Raises ValueError when the ticks do not divide into patches.
        """
        batch, ticks, waves, size = core.shape
        if ticks % self.tick_patch:
            raise ValueError(f"{ticks} ticks do not divide into tokens of {self.tick_patch}; choose ticks as a multiple")
        chunks = ticks // self.tick_patch
        normal = nn.initializers.normal(0.3)
        slots = parameter(self, "slots", normal, ("layers", "embed"), (waves + 1, self.width))
        groups = parameter(self, "groups", normal, ("layers", "embed"), (3, self.width))
        pieces = self._pieces(core, levels["core"], chunks)
        place = level_features(jnp.arange(text.shape[1]) / 64.0, 32)
        tokens = [
            dense(self.width, ("channels", "embed"), name="text_in")(text)
            + dense(self.width, ("channels", "embed"), name="text_place")(place)
            + groups[0],
            (dense(self.width, ("channels", "embed"), name="core_in")(pieces) + slots[:waves] + groups[1]).reshape(
                batch, -1, self.width
            ),
            dense(self.width, ("channels", "embed"), name="style_in")(style) + slots + groups[2],
        ]
        level = [levels["text"], _by_chunk(levels["core"], chunks).mean(-1).reshape(batch, -1), levels["style"]]
        condition = dense(self.width, ("level", "embed"), name="level")(level_features(jnp.concatenate(level, 1), 64))
        x = jnp.concatenate(tokens, 1) + condition
        x = Transformer(self.width, self.depth, self.heads, name="transformer")(
            x, self._positions(text, style, chunks, waves, batch), condition
        )
        text_out, core_out, style_out = jnp.split(x, [text.shape[1], text.shape[1] + chunks * waves], 1)
        logits = dense(self.layout.text.size, ("embed", "vocab"), name="text_out")(text_out)
        codes = jnp.asarray(codebook(self.layout.text.size, self.layout.text_code))
        core_out = dense(self.tick_patch * size, ("embed", "channels"), name="core_out")(core_out)
        core_out = core_out.reshape(batch, chunks, waves, self.tick_patch, size).transpose(0, 1, 3, 2, 4)
        data = {
            "text": jax.nn.softmax(logits) @ codes,
            "core": core_out.reshape(core.shape),
            "style": dense(style.shape[-1], ("embed", "channels"), name="style_out")(style_out),
        }
        return data, logits

    def _pieces(self, core: Array, level: Array, chunks: int) -> Float[Array, "B chunks N c"]:
        """Ticks of a token side by side, each with its level."""
        whole = jnp.concatenate([core, level[..., None]], -1)
        whole = whole.reshape(core.shape[0], chunks, self.tick_patch, *whole.shape[2:])
        return whole.transpose(0, 1, 3, 2, 4).reshape(core.shape[0], chunks, core.shape[2], -1)

    def _positions(self, text: Array, style: Array, chunks: int, waves: int, batch: int) -> Float[Array, "B L 3"]:
        """(seconds, y, x): the core lies along time, text along x, style at the origin."""
        seconds = jnp.repeat(jnp.arange(chunks) * self.tick_patch / TICK_HZ, waves)
        words = jnp.arange(text.shape[1]) / 8.0
        rows = [
            jnp.stack([jnp.zeros_like(words), jnp.zeros_like(words), words], -1),
            jnp.stack([seconds, jnp.zeros_like(seconds), jnp.zeros_like(seconds)], -1),
            jnp.zeros((style.shape[1], 3)),
        ]
        return jnp.broadcast_to(jnp.concatenate(rows)[None], (batch, sum(map(len, rows)), 3))


def _by_chunk(level: Float[Array, "B K N"], chunks: int) -> Float[Array, "B chunks N p"]:
    batch, ticks, waves = level.shape
    return level.reshape(batch, chunks, ticks // chunks, waves).transpose(0, 1, 3, 2)
