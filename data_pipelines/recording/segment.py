"""A stretch of a video file that holds many, one after the other: found by time, without decoding what lies before it."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.recording.decode import WANTED, Reader, upright
from wsm_jax.typing import Float


@dataclasses.dataclass(frozen=True)
class Film:
    """What the container of a video file says of its pictures, undecoded."""

    rows: int
    columns: int
    pixel_aspect: float
    seconds: float
    """inf where it does not say."""


def film(path: Path) -> Film:
    """Reads the head of a video file. Raises FileNotFoundError or ValueError, naming the path: no video, or it ends early."""
    with Reader(path) as reader:
        if reader.promised > reader.size:
            raise ValueError(f"{path}: ends early: it has {reader.size} of {reader.promised} bytes; get the whole file")
        rows, columns = reader.height, reader.width
        if rows < 1 or columns < 1 or rows * columns > 2**26:
            raise ValueError(f"{path}: has pictures of {rows} x {columns} pixels; {WANTED}")
        return Film(rows, columns, reader.pixel_aspect, reader.seconds)


@dataclasses.dataclass(frozen=True)
class Segment:
    """The pictures of one recording in a file of many; a `Pictures`."""

    path: Path
    time: Float[np.ndarray, " T"]
    """Of the frames, s from the first frame of the file, strictly increasing."""
    tolerance: float
    """How far from its time a frame may lie, s."""

    def __call__(self, indices: Sequence[int]) -> Iterator[dict[str, Any]]:
        if any(b < a for a, b in itertools.pairwise(indices)) or any(not 0 <= i < len(self.time) for i in indices):
            raise ValueError(f"{self.path}: frame indices must not decrease and lie in 0..{len(self.time) - 1}")
        if not len(indices):
            return
        with Reader(self.path) as reader:
            source = reader.seek(float(self.time[indices[0]]) + self.tolerance)
            found, following = next(source, None), next(source, None)
            for index, repeats in itertools.groupby(indices):
                wanted = float(self.time[index])
                while following is not None and found is not None and abs(following[0] - wanted) <= abs(found[0] - wanted):
                    found, following = following, next(source, None)
                if found is None or abs(found[0] - wanted) > self.tolerance:
                    nearest = "none" if found is None else f"one at {found[0]:.4f} s"
                    raise ValueError(
                        f"{self.path}: has no frame at {wanted:.4f} s (+-{self.tolerance:.4f} s), the nearest is {nearest}; "
                        f"frame {index} of its recording is lost, or the file is another"
                    )
                picture = upright(found[1], self.path)
                yield from ({"rgb": picture} for _ in repeats)
