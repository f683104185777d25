"""What a reader makes of one raw recording: its frames on demand, and all that comes with them."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wsm_jax.snapshot import Camera, Signal, channel, check_spans
from wsm_jax.typing import Float, Int

__all__ = ["Pictures", "Recording", "Signal"]

Pictures = Callable[[Sequence[int]], Iterator[dict[str, Any]]]
"""Indices of frames, not decreasing -> for each, {channel: stored integers [H W C]}, and, where the picture is a JPEG file that
shows it upright and in sRGB, {"jpeg": its bytes}. Picklable; raises ValueError or OSError that names the file."""


@dataclasses.dataclass(frozen=True)
class Recording:
    """One raw recording, as far as it is known without decoding its pictures; picklable."""

    name: str
    """Within its input, without directories of the machine: the name of a file, an episode, a camera of it."""
    kind: Literal["video", "views"]
    """Frames over time, or views of one instant."""
    time: Float[np.ndarray, " T"]
    """s, from 0, strictly increasing; of views 0, 1, 2, ..."""
    seconds: float
    """End of the last frame, s; of views their number."""
    size: Int[np.ndarray, "T 2"]
    """Rows and columns of the pictures as they are shown, upright."""
    channels: tuple[str, ...]
    """Of CHANNELS, those that `pictures` yields."""
    pictures: Pictures
    files: tuple[Path, ...]
    """All that it is read from."""
    camera: Camera | None = None
    """[T], of whole pictures with square pixels; world in m where the recording is metric, z up where it says what is up."""
    pixel_aspect: float = 1.0
    """Width over height of a pixel as shown."""
    text: tuple[str, ...] = ()
    signals: dict[str, Signal] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """What was assumed, approximated or lost, a line each, for the manifest."""
    spans: tuple[tuple[float, float] | None, ...] = ()
    """(start, end) of each text, s; None: it is of all of it. Empty: none has times."""

    def __post_init__(self) -> None:
        """Raises ValueError, naming the recording, for times, sizes, cameras or signals that do not fit together."""

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
