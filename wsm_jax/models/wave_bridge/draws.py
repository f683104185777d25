"""Random draws of a training row of the wave bridge: which blocks are known at its two ends, and its level.

Three kinds of rows. *perceive*: the picture alone is given at the pixel end, mostly with its camera (channels that follow from
it). *render*: picture and surface channels are. *any*: a random subset of channels is known at either end, so that later any
subset can drive any other. Levels lean to the end that is given.
"""

import dataclasses

import jax
import jax.numpy as jnp

from wsm_jax.config import require
from wsm_jax.flow import LevelMix
from wsm_jax.models.wave_bridge.state import CODES
from wsm_jax.snapshot import CAMERA_CHANNELS
from wsm_jax.typing import Array, Bool, Key

PERCEIVE, RENDER, ANY = range(3)


@dataclasses.dataclass(frozen=True)
class BridgeDraws:
    """Probabilities of the draws. Raises ValueError for shares that do not sum to 1."""

    mix: tuple[float, float, float]
    """Shares of the kinds perceive, render, any; they sum to 1."""
    levels: LevelMix
    at_end: float
    """Share of rows exactly at an end: inference starts there, and with one step it evaluates the network nowhere else."""
    core_block: float = 0.7
    """A channel is known at the core end in a row of the kind any."""
    pixel_block: float = 0.5
    """A channel is known at the pixel end in a row of the kind any."""
    camera: float = 0.8
    """The camera is known in a row of the kind perceive."""
    remainder: float = 0.4
    """The code per patch is known at the core end."""
    lean_perceive: float = 0.8
    """The level leans to the pixel end in a row of the kind perceive."""
    lean_render: float = 0.5
    """The level leans to the core end, else to the pixel end, in a row of the kind render."""

    def __post_init__(self) -> None:
        if abs(sum(self.mix) - 1) > 1e-6:
            raise ValueError(f"mix {self.mix}: the shares of perceive, render and any must sum to 1")
        for name in ("at_end", "core_block", "pixel_block", "camera", "remainder", "lean_perceive", "lean_render"):
            require(self, 0, name)
            if getattr(self, name) > 1:
                raise ValueError(f"{name} = {getattr(self, name)}: needed a probability")

    def sample(
        self, key: Key, known: dict[str, Bool[Array, " B"]], frames: int, order: tuple[str, ...]
    ) -> tuple[Array, Array, Array]:
        """Validity bits of both ends [B*T, blocks] and levels [B*T]; `known` says which channels a clip has."""
        keys = jax.random.split(key, 8)
        source = {"rgb": "base_colour"}
        exists = {
            0: jnp.stack([jnp.ones_like(known["rgb"]) if n in CODES else known[source.get(n, n)] for n in order], -1),
            1: jnp.stack([jnp.zeros_like(known["rgb"]) if n in CODES else known[n] for n in order], -1),
        }
        exists = {end: jnp.repeat(bits, frames, 0).astype(jnp.float32) for end, bits in exists.items()}
        rows = exists[0].shape[0]
        kind = jax.random.choice(keys[0], 3, (rows,), p=jnp.asarray(self.mix))[:, None]
        is_code = jnp.asarray([n in CODES for n in order])
        is_rgb, is_camera = (jnp.asarray([n in names for n in order]) for names in (("rgb",), CAMERA_CHANNELS))
        chances = ((keys[1], self.core_block), (keys[2], self.pixel_block))
        drawn = [jax.random.bernoulli(k, p, (rows, len(order))) for k, p in chances]
        core = jnp.where(kind == ANY, drawn[0] | is_code, True)
        posed = is_camera & jax.random.bernoulli(keys[7], self.camera, (rows, 1))
        pixel = jnp.where(kind == PERCEIVE, is_rgb | posed, jnp.where(kind == RENDER, True, drawn[1]))
        is_other = jnp.asarray([n != "remainder" for n in order])
        core = core & (jax.random.bernoulli(keys[3], self.remainder, (rows, 1)) | is_other)
        return core * exists[0], pixel * exists[1], self._levels(keys[4:7], kind[:, 0])

    def _levels(self, keys: Array, kind: Array) -> Array:
        """Levels [B*T], leaning to the end that the kind of row gives."""
        rows = kind.shape
        level, lean = self.levels.sample(keys[0], rows), jax.random.uniform(keys[1], rows)
        high, low = jnp.maximum(level, 1 - level), jnp.minimum(level, 1 - level)
        towards = jnp.where(lean < self.lean_render, low, high)
        perceive = jnp.where(lean < self.lean_perceive, high, level)
        level = jnp.where(kind == PERCEIVE, perceive, jnp.where(kind == RENDER, towards, level))
        return jnp.where(jax.random.bernoulli(keys[2], self.at_end, rows), jnp.round(level), level)
