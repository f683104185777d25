"""Segment of a video file that holds many recordings in sequence: read by time, without decoding the frames before it."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.recording.decode import WANTED, VideoDecoder, upright
from wsm_jax.typing import Float


@dataclasses.dataclass(frozen=True)
class VideoHead:
    """Size and length of a video file from its container."""

    rows: int
    columns: int
    pixel_aspect: float
    seconds: float
    """Length, s; inf if unknown."""


def read_video_head(path: Path) -> VideoHead:
    """Read the head of a video file. Raises FileNotFoundError or ValueError, naming the path: no video, or truncated."""
    with VideoDecoder(path) as decoder:
        if decoder.promised > decoder.size:
            raise ValueError(f"{path}: ends early: it has {decoder.size} of {decoder.promised} bytes; get the whole file")
        rows, columns = decoder.height, decoder.width
        if rows < 1 or columns < 1 or rows * columns > 2**26:
            raise ValueError(f"{path}: has pictures of {rows} x {columns} pixels; {WANTED}")
        return VideoHead(rows, columns, decoder.pixel_aspect, decoder.seconds)


@dataclasses.dataclass(frozen=True)
class Segment:
    """Pictures of one recording in a file of many; a `Pictures`."""

    path: Path
    time: Float[np.ndarray, " T"]
    """Times of the frames, s from the first frame of the file, strictly increasing."""
    tolerance: float
    """Largest difference of a frame from its time, s."""

    def __call__(self, indices: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Yield the frames at `indices`. Raises ValueError that names the file."""
        if any(b < a for a, b in itertools.pairwise(indices)) or any(not 0 <= i < len(self.time) for i in indices):
            raise ValueError(f"{self.path}: frame indices must not decrease and lie in 0..{len(self.time) - 1}")
        if not len(indices):
            return
        with VideoDecoder(self.path) as decoder:
            source = decoder.seek(float(self.time[indices[0]]) + self.tolerance)
            current, following = next(source, None), next(source, None)
            for index, repeats in itertools.groupby(indices):
                wanted = float(self.time[index])
                while following is not None and current is not None and abs(following[0] - wanted) <= abs(current[0] - wanted):
                    current, following = following, next(source, None)
                if current is None or abs(current[0] - wanted) > self.tolerance:
                    nearest = "none" if current is None else f"one at {current[0]:.4f} s"
                    raise ValueError(
                        f"{self.path}: has no frame at {wanted:.4f} s (+-{self.tolerance:.4f} s), the nearest is {nearest}; "
                        f"frame {index} of its recording is lost, or the file is another"
                    )
                picture = upright(current[1], self.path)
                yield from ({"rgb": picture} for _ in repeats)
