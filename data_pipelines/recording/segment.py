"""A stretch of a video file that holds many, one after the other: found by time, without decoding what lies before it."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from data_pipelines.recording.decode import FORMATS, WANTED, promised_bytes, upright
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
    with _opened(path) as container:
        stream = _stream(container)
        size, promised = promised_bytes(path)
        if promised > size:
            raise ValueError(f"{path}: ends early: it has {size} of {promised} bytes; get the whole file")
        ends = [stream.duration and float(stream.duration * stream.time_base), float(container.duration or 0) / av.time_base]
        seconds = max((end for end in ends if end), default=math.inf)
        aspect = float(stream.sample_aspect_ratio or 1)
        if stream.height < 1 or stream.width < 1 or stream.height * stream.width > 2**26:
            raise ValueError(f"{path}: has pictures of {stream.height} x {stream.width} pixels; {WANTED}")
        return Film(stream.height, stream.width, aspect, seconds)


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
        with _opened(self.path) as container:
            source = _frames(container, self.path, float(self.time[indices[0]]) + self.tolerance)
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


def _opened(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {WANTED}")
    try:
        container = av.open(str(path))
    except (FFmpegError, OSError, UnicodeError) as error:  # av decodes the texts of a container as UTF-8
        raise ValueError(f"{path}: is no video ({error}); {WANTED}") from error
    if not set(container.format.name.split(",")) & set(FORMATS) or _stream(container) is None:
        kind = container.format.name
        container.close()
        raise ValueError(f"{path}: is of format {kind!r}, or has no video stream; {WANTED}")
    return container


def _stream(container: Any) -> Any:
    """Its first stream of pictures that there is a decoder for, or None."""
    return next((stream for stream in container.streams.video if stream.codec_context is not None), None)


def _frames(container: Any, path: Path, begin: float) -> Iterator[tuple[float, av.VideoFrame]]:
    """(time s from the first frame of the file, frame), from a key frame at or before `begin`."""
    stream = _stream(container)
    stream.thread_type = "AUTO"
    start, tick = stream.start_time or 0, Fraction(stream.time_base)
    try:
        first, back = None, 0.0
        # Seeking may land on a key frame that is decoded before `begin` and shown after it (HEVC): then from further back.
        while first is None or first.pts is None or (first.pts - start) * tick > begin:
            if back > 4 * begin + 4:
                return
            container.seek(start + math.floor(max(begin - back, 0.0) / tick), stream=stream)
            frames = container.decode(stream)
            first, back = next(frames, None), 4 * back + 1
        for frame in itertools.chain([first], frames):
            if frame is not None and frame.pts is not None:
                yield float((frame.pts - start) * tick), frame
    except (FFmpegError, OSError, UnicodeError) as error:
        raise ValueError(f"{path}: cannot be decoded ({error}); get the file again") from error
