"""Interactive edits of a core: its waves at any time, changes of one wave, and saving."""

from functools import cached_property
from pathlib import Path

import jax
import numpy as np
from scipy.spatial.transform import Rotation

from wsm_jax.core import interpolate
from wsm_jax.core.edit.text import RANGES
from wsm_jax.snapshot import FIELDS, TICK_HZ, Waves
from wsm_jax.snapshot import waves as core_json
from wsm_jax.typing import Float

_interpolate = jax.jit(interpolate)
_SAME = 1e-6  # rounding error of numbers that a browser sends back


class EditedCore:
    """Waves [K N ...] at ticks `time` [K] (s), edited one wave at a time; not thread-safe.

    A single instant [N ...] is accepted and saved as one. Without times the ticks are 1 / TICK_HZ apart, from 0. Raises
    ValueError, naming `source`, for other leading axes, no wave or no tick, or times that do not increase.
    """

    def __init__(self, waves: Waves, time: Float[np.ndarray, " K"] | None, source: str):
        shape = np.shape(waves.presence)
        if len(shape) not in (1, 2) or 0 in shape:
            raise ValueError(f"{source}: presence of shape {shape}; needed (waves,) or (ticks, waves), none of them 0")
        self._instant = len(shape) == 1
        lead = (None,) if self._instant else ()
        self._fields = {name: np.array(np.asarray(getattr(waves, name))[lead]) for name in FIELDS}
        self.ticks, self.count = self._fields["presence"].shape
        self._time = None if time is None else np.array(time, np.float64).reshape(-1)
        self.time = np.arange(self.ticks) / TICK_HZ if self._time is None else self._time
        if np.any(np.diff(self.time) <= 0):
            raise ValueError(f"{source}: its tick times do not increase; needed increasing times")

    @cached_property
    def span(self) -> tuple[float, float]:
        """Times of the first and of the last tick, s."""
        return float(self.time[0]), float(self.time[-1])

    @property
    def waves(self) -> Waves:
        """A copy of the core, with its original axes."""
        return Waves(**{name: np.array(values[0] if self._instant else values) for name, values in self._fields.items()})

    def at(self, time: float) -> Waves:
        """The waves [N ...] at a time (s), between ticks too; NumPy."""
        return jax.tree.map(np.asarray, _interpolate(Waves(**self._fields), self.time, np.float64(time)))

    def nearest(self, time: float) -> int:
        """The tick nearest to a time (s)."""
        return int(np.argmin(np.abs(self.time - time)))

    def change(self, slot: int, field: str, value: np.ndarray | float, time: float, tick: int | None) -> bool:
        """Set `field` of wave `slot`; returns True if that changed anything.

        With a `tick`, only at that tick. Without one, at all ticks: pose and size become `value` at `time` (s), and all other
        ticks get the same shift, rotation or scaling; other fields become `value`. Values are clipped to `RANGES`.
        """
        values = self._fields[field][:, slot]
        wanted = np.asarray(value, np.float64)
        wanted = np.clip(wanted, *RANGES[field]) if field in RANGES else wanted
        present = np.asarray(getattr(self.at(time), field), np.float64)[slot] if tick is None else values[tick]
        if np.allclose(present, wanted, rtol=_SAME, atol=_SAME) and (tick is not None or field in _RELATIVE):
            return False
        if tick is not None:
            self._fields[field][tick, slot] = _unit(wanted) if field == "rotation" else wanted
        elif field == "centre":
            values += (wanted - present).astype(values.dtype)
        elif field == "scale":
            values[:] = np.clip(values * (wanted / present), *RANGES["scale"])
        elif field == "rotation":
            self._rotate(slot, Rotation.from_quat(_unit(wanted), scalar_first=True), present)
        else:
            values[:] = wanted
        return True

    def _rotate(self, slot: int, wanted: Rotation, present: np.ndarray) -> None:
        """Rotate a wave and its angular velocity at all ticks."""
        change = wanted * Rotation.from_quat(present, scalar_first=True).inv()
        turned = change * Rotation.from_quat(self._fields["rotation"][:, slot].astype(np.float64), scalar_first=True)
        self._fields["rotation"][:, slot] = turned.as_quat(scalar_first=True)
        self._fields["angular_velocity"][:, slot] = change.apply(self._fields["angular_velocity"][:, slot].astype(np.float64))

    def save(self, path: Path) -> None:
        """Write core JSON; atomic. Raises OSError."""
        core_json.save(self.waves, path, self._time if self._time is None or not self._instant else self._time[0])


_RELATIVE = ("centre", "scale", "rotation")


def _unit(quaternion: np.ndarray) -> np.ndarray:
    return quaternion / np.linalg.norm(quaternion)
