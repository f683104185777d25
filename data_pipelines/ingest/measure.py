"""Sharpness of the frames of a recording, and change from one to the next: the input of shot detection and filters.

Both are measured on luma (0..255) of HEIGHT rows, so that they compare across resolutions.
"""

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from PIL import Image

from wsm_jax.typing import Bool, Float, Shaped

HEIGHT = 144
"""Rows of the reduced pictures that are measured."""
_LEAST_CHANGE = 24.0
"""Least change of the mean pixel at a shot boundary, levels of 255."""
_LEAST_RATIO = 3.0
"""Least ratio of the change at a shot boundary to the median change of the frames around it."""
_AROUND = 6


class FrameStatistics:
    """Sharpness and change of frames, which are added in order."""

    def __init__(self) -> None:
        self.sharpness: list[float] = []
        """Variance of the Laplacian of the luma, levels^2; small for a blurred picture."""
        self.change: list[float] = []
        """Mean absolute change of the luma from the previous frame, levels; the first is 0."""
        self._previous: np.ndarray | None = None
        self._convert = VideoReformatter()

    def add(self, frame: av.VideoFrame | np.ndarray) -> None:
        """Add the next frame: a decoded one, or uint8 [H W 3]."""
        grey = self._small(frame).astype(np.float32)
        inner = grey[1:-1, 1:-1]
        bend = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4.0 * inner
        self.sharpness.append(float(bend.var()) if bend.size else 0.0)
        previous, self._previous = self._previous, grey
        if previous is None:
            self.change.append(0.0)
        else:  # a picture of another size is another shot
            self.change.append(float(np.abs(grey - previous).mean()) if previous.shape == grey.shape else 255.0)

    def _small(self, frame: av.VideoFrame | np.ndarray) -> Shaped[np.ndarray, "h w"]:
        rows, columns = (frame.height, frame.width) if isinstance(frame, av.VideoFrame) else frame.shape[:2]
        height = min(HEIGHT, rows)
        width = max(1, round(columns * height / rows))
        if isinstance(frame, av.VideoFrame):
            return self._convert.reformat(frame, width=width, height=height, format="gray").to_ndarray()
        return np.asarray(Image.fromarray(frame).convert("L").resize((width, height), Image.Resampling.BOX))


def shot_starts(change: Float[np.ndarray, " T"]) -> Bool[np.ndarray, " T"]:
    """True at each frame that begins a new shot: its change is large, and far above that of the frames around it."""
    change = np.asarray(change, np.float64)
    starts = np.zeros(len(change), bool)
    for i in np.flatnonzero(change > _LEAST_CHANGE):
        around = np.concatenate([change[max(i - _AROUND, 1) : i], change[i + 1 : i + 1 + _AROUND]])
        starts[i] = i > 0 and (not around.size or change[i] > _LEAST_RATIO * np.median(around))
    return starts
