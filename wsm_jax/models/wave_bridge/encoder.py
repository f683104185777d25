"""Latents that a trained bridge writes into datasets: the style codes of clips."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from wsm_jax.config import require
from wsm_jax.models.wave_bridge.objective import BridgeObjective
from wsm_jax.typing import Array, Float, PyTree, Shaped


@dataclasses.dataclass(frozen=True)
class StyleCodes:
    """Codes of every wave and of the scene, read off every pixel of some frames of a clip."""

    objective: BridgeObjective
    frames: int = 4
    """Frames of a clip, evenly spaced."""
    key: str = "style"
    """Name of the latents in batches."""

    def __post_init__(self) -> None:
        require(self, 1, "frames")

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels of a clip that must be there."""
        return tuple(dict.fromkeys(("rgb", "base_colour", "instance", *self.objective.layout.channels)))

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the codes of a clip: waves and then the scene, each padded to the longer code."""
        layout = self.objective.layout
        return layout.waves + 1, max(layout.wave_code, layout.scene_code)

    def __call__(self, params: PyTree, channels: dict[str, Shaped[np.ndarray, "B T H W _"]]) -> Float[np.ndarray, "B M c"]:
        """Codes of clips, from their stored channels."""
        return np.asarray(_codes(self.objective, self.shape, params, channels))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _codes(
    objective: BridgeObjective, shape: tuple[int, int], params: PyTree, channels: dict[str, Array]
) -> Float[Array, "B M c"]:
    known = {name: jnp.ones(x.shape[0], bool) for name, x in channels.items()}
    frames = jnp.ones(channels["rgb"].shape[:2])
    waves, scene, _ = objective.codes(params, {"channels": channels, "known": known}, frames)
    waves = jnp.pad(waves, ((0, 0), (0, 0), (0, shape[1] - waves.shape[-1])))
    scene = jnp.pad(scene, ((0, 0), (0, shape[1] - scene.shape[-1])))
    return jnp.concatenate([waves, scene[:, None]], 1)
