"""Snapshots of the viewer: any channel of the waves at an instant from a camera, by our renderer, compiled once per size."""

from functools import partial

import jax
import numpy as np

from data_pipelines.simulation.style import SceneStyle
from wsm_jax.core.render import SURFACE, surface
from wsm_jax.snapshot import CAMERA_CHANNELS, FIELDS, Camera, Waves
from wsm_jax.snapshot.waves import empty
from wsm_jax.typing import Array, UInt8
from wsm_jax.visualise.pictures import picture

CHANNELS = ("rgb", *SURFACE, *CAMERA_CHANNELS)
"""Channels of a snapshot; rgb is shaded by one light, without textures."""

_SLOTS = 8  # numbers of waves are rounded up to a multiple, so that one program serves many cores
_BRUTE = 16  # up to this number of slots every ray is tested against every wave: half the compile time, twice the render time
_SHADOWS = 64  # up to this number of slots shadows are cast: every pixel is then tested against every wave
_AWAY = (0.0, 0.0, -1e4)  # m; an empty slot there costs no ray test


@partial(jax.jit, static_argnames=("height", "width"))
def _surface(waves: Waves, camera: Camera, later: Camera, dt: np.ndarray, height: int, width: int) -> dict[str, Array]:
    return surface(waves, camera, height, width, later=later, dt=dt, cull=waves.count > _BRUTE)


@partial(jax.jit, static_argnames="shadows")
def _shade(style: SceneStyle, channels: dict[str, Array], waves: Waves, camera: Camera, shadows: bool) -> Array:
    return style.shade(channels, waves, camera, shadows)


class Snapshots:
    """Renderer of cores with `count` waves; it recompiles for a new size, not for new waves, cameras or channels."""

    def __init__(self, count: int):
        self._slots = -(-(count + 1) // _SLOTS) * _SLOTS
        self._style = _plain(self._slots)

    def picture(
        self, name: str, waves: Waves, camera: Camera, height: int, width: int, later: Camera | None = None, dt: float = 1e-2
    ) -> UInt8[np.ndarray, "H W 3"]:
        """A channel of `waves` [N ...] as an image; the motion channel needs `later`, the camera after `dt` seconds.

        The instance channel numbers slots from 1, as in datasets. Raises KeyError for an unknown channel.
        """
        padded = self._padded(waves)
        channels = _surface(padded, camera, later or camera, np.float32(dt), height=height, width=width)
        if name == "rgb":
            values = _shade(self._style, channels, padded, camera, shadows=self._slots <= _SHADOWS)
        else:
            # slot 0 of the padded waves is empty
            values = np.maximum(channels[name] - 1.0, 0.0) if name == "instance" else channels[name]
        return picture(name, np.asarray(values))

    def _padded(self, waves: Waves) -> Waves:
        """The waves after one empty slot, which `SceneStyle.shade` takes as the floor, and padded to the number of slots."""
        slots = vars(empty(self._slots))
        for name in FIELDS:
            slots[name][1 : waves.count + 1] = getattr(waves, name)
        slots["centre"][slots["presence"] <= 0] = _AWAY
        return Waves(**slots)


def _plain(slots: int) -> SceneStyle:
    """Style with a light from the upper left, a pale sky and no textures."""
    light = np.array([-0.4, -0.5, 0.77], np.float32)
    return SceneStyle(
        light=light / np.sqrt(np.sum(np.square(light))),
        light_colour=np.ones(3, np.float32),
        ambient=np.full((), 0.45, np.float32),
        sky=np.array([[0.62, 0.70, 0.82], [0.80, 0.84, 0.90]], np.float32),
        frequency=np.zeros((slots, 3), np.float32),
        phase=np.zeros((slots, 3), np.float32),
        tint=np.zeros(slots, np.float32),
    )
