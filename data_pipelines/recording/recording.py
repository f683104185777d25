"""A raw recording: its frames on demand, with cameras, captions, signals and notes."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wsm_jax.snapshot import Camera, Signal, channel, check_spans
from wsm_jax.typing import Float, Int

__all__ = ["Pictures", "Recording", "Signal"]

Pictures = Callable[[Sequence[int]], Iterator[dict[str, Any]]]
"""Indices of frames, not decreasing -> {channel: stored integers [H W C]} of each; an upright sRGB JPEG file also has its bytes
as "jpeg". Picklable; raises ValueError or OSError that names the file."""


@dataclasses.dataclass(frozen=True)
class Recording:
    """One raw recording, without its decoded pictures; picklable."""

    name: str
    """Name within its input, without directories of the machine: of a file, an episode, a camera."""
    kind: Literal["video", "views"]
    """Frames over time, or views of one instant."""
    time: Float[np.ndarray, " T"]
    """s, from 0, strictly increasing; 0, 1, 2, ... for views."""
    seconds: float
    """End of the last frame, s; for views their number."""
    size: Int[np.ndarray, "T 2"]
    """Rows and columns of the upright pictures."""
    channels: tuple[str, ...]
    """Names in CHANNELS that `pictures` yields."""
    pictures: Pictures
    files: tuple[Path, ...]
    """All files that it is read from."""
    camera: Camera | None = None
    """[T], of whole pictures with square pixels; world in m if the recording is metric, z up if its up direction is known."""
    pixel_aspect: float = 1.0
    """Width over height of a pixel of the upright picture."""
    text: tuple[str, ...] = ()
    signals: dict[str, Signal] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """Assumptions, approximations and losses, one line each, for the manifest."""
    spans: tuple[tuple[float, float] | None, ...] = ()
    """(start, end) of each text, s; None: the text describes the whole. Empty: no text has times."""

    def __post_init__(self) -> None:
        """Check the fields. Raises ValueError, naming the recording, for inconsistent times, sizes, cameras or signals."""

        def need(ok: bool, what: str) -> None:
            if not ok:
                raise ValueError(f"{self.name}: {what}")

        count = len(self.time)
        for name in self.channels:
            channel(name)
        need(bool(np.isfinite(self.time).all() and np.all(np.diff(self.time) > 0)), "times of frames do not increase")
        need(count > 0, "no frames")
        check_spans(self.name, self.spans, len(self.text))
        need(tuple(self.size.shape) == (count, 2) and bool(np.all(self.size > 0)), f"{count} frames of sizes {self.size.shape}")
        if self.camera is not None:
            need(tuple(self.camera.position.shape) == (count, 3), f"{self.camera.position.shape} cameras for {count} frames")
            fields = (self.camera.position, self.camera.rotation, self.camera.focal, self.camera.offset)
            need(all(np.isfinite(np.asarray(x)).all() for x in fields), "a camera is not finite")
        for name, signal in self.signals.items():
            need(
                len(signal.time) == len(signal.values) and signal.values.ndim == 2 and bool(np.isfinite(signal.values).all()),
                f"signal {name!r} of shape {signal.values.shape} at {len(signal.time)} times; needed finite numbers",
            )
            need(bool(np.all(np.diff(signal.time) > 0)), f"times of signal {name!r} do not increase")
