"""The state of the world flow: its token groups and their shapes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from wsm_jax.config import require
from wsm_jax.core import vector
from wsm_jax.snapshot import FIELDS
from wsm_jax.snapshot.waves import empty
from wsm_jax.text import Tokenizer
from wsm_jax.typing import PyTree

GROUPS = ("text", "core", "style")


@dataclasses.dataclass(frozen=True)
class WorldLayout:
    """Sizes of the groups. Raises ValueError for a window that the tokens of the core do not fill."""

    text: Tokenizer
    text_code: int
    """E, width of the code of a text token."""
    ticks: int
    """K, ticks of the window."""
    tick_patch: int
    """Ticks of one wave that make a token."""
    waves: int
    """N, slots."""
    style_code: int
    """Width of the style code of a wave, and of the scene."""

    def __post_init__(self) -> None:
        require(self, 1, "text_code", "ticks", "tick_patch", "waves", "style_code")
        if self.ticks % self.tick_patch or self.ticks < 2 * self.tick_patch:
            raise ValueError(f"ticks {self.ticks}; needed a multiple of tick_patch {self.tick_patch}, two of them at least")

    @property
    def tokens(self) -> int:
        """Tokens of a window: text, chunks of ticks of every wave, styles."""
        return self.text.length + self.ticks // self.tick_patch * self.waves + self.waves + 1

    def shapes(self, rows: int) -> dict[str, tuple[int, ...]]:
        """Shape of every group of the state."""
        return {
            "text": (rows, self.text.length, self.text_code),
            "core": (rows, self.ticks, self.waves, vector.SIZE),
            "style": (rows, self.waves + 1, self.style_code),
        }

    def zeros(self, rows: int) -> dict[str, np.ndarray]:
        """A state of zeros."""
        return {name: np.zeros(shape, np.float32) for name, shape in self.shapes(rows).items()}

    def batch(self, rows: int) -> PyTree:
        """The batch that trains it, as jax.ShapeDtypeStructs: tokens, core, latents and what is known of them."""
        core = vars(jax.eval_shape(lambda: jax.tree.map(jnp.asarray, empty(self.waves, (rows, self.ticks)))))
        return {
            "tokens": jax.ShapeDtypeStruct((rows, self.text.length), np.int32),
            "core": {name: core[name] for name in FIELDS},
            "latents": {"style": jax.ShapeDtypeStruct(self.shapes(rows)["style"], np.float32)},
            "known": {name: jax.ShapeDtypeStruct((rows,), bool) for name in GROUPS},
        }
