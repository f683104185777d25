"""How sharp the frames of a recording are, and how much changes from one to the next: what shots and filters go by.

Everything is measured on luma (0..255) of HEIGHT rows, so that it means the same for every resolution.
"""

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from wsm_jax.typing import Bool, Float, Shaped

HEIGHT = 144
"""Rows of the small pictures that are measured."""
_CUT = 24.0
"""A cut changes the mean pixel by this, in levels of 255, ..."""
_JUMP = 3.0
"""... and by this many times what the frames around it change by."""
_AROUND = 6


class Measure:
    """Collects the measures of frames in order."""

    def __init__(self) -> None:
        self.sharpness: list[float] = []
        """Variance of the Laplacian of the luma, levels^2; a blurred picture has little."""
        self.change: list[float] = []
        """Mean absolute change of the luma since the frame before, levels; the first is 0."""
        self._before: np.ndarray | None = None
        self._convert = VideoReformatter()

    def add(self, frame: av.VideoFrame | np.ndarray) -> None:
        """Takes the next frame: a decoded one, or uint8 [H W 3]."""
        grey = self._small(frame).astype(np.float32)
        inner = grey[1:-1, 1:-1]
        bend = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4.0 * inner
        self.sharpness.append(float(bend.var()) if bend.size else 0.0)
        before, self._before = self._before, grey
        if before is None:
            self.change.append(0.0)
        else:  # a picture of another size is another shot
            self.change.append(float(np.abs(grey - before).mean()) if before.shape == grey.shape else 255.0)

    def _small(self, frame: av.VideoFrame | np.ndarray) -> Shaped[np.ndarray, "h w"]:
        rows, columns = (frame.height, frame.width) if isinstance(frame, av.VideoFrame) else frame.shape[:2]
        height = min(HEIGHT, rows)
        width = max(1, round(columns * height / rows))
        if isinstance(frame, av.VideoFrame):
            return self._convert.reformat(frame, width=width, height=height, format="gray").to_ndarray()
        return np.asarray(Image.fromarray(frame).convert("L").resize((width, height), Image.Resampling.BOX))


def cuts(change: Float[np.ndarray, " T"]) -> Bool[np.ndarray, " T"]:
    """Whether a new shot begins at each frame: the picture changes much, and far more than it does around."""
    change = np.asarray(change, np.float64)
    found = np.zeros(len(change), bool)
    for i in np.flatnonzero(change > _CUT):
        around = np.concatenate([change[max(i - _AROUND, 1) : i], change[i + 1 : i + 1 + _AROUND]])
        found[i] = i > 0 and (not around.size or change[i] > _JUMP * np.median(around))
    return found
