"""Instance masks as a video of indexed or grey pixels in a lossless codec; the values are the instances."""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.codec import Properties

from data_pipelines.recording.decode import VideoDecoder, quarter_turns
from data_pipelines.recording.mask_picture import read_mask_picture
from wsm_jax.typing import Shaped

SUFFIXES = (".mkv", ".avi", ".mov", ".mp4")
_FORMATS = ("matroska", "avi", "mov", "mp4")
_WANTED = (
    "needed masks as a film (mkv, avi, mov, mp4) of gray, gray16 or pal8 pixels in a lossless codec (ffv1, png, zmbv); "
    "or write them as FOLDER/a/*.png or FOLDER/a.npz"
)
_KEEPS = Properties.LOSSLESS.value | Properties.LOSSY.value
"""Flags of a codec; many have both, depending on their settings."""
_GREY = re.compile("gray((9|10|12|14|16)le)?")


def read_video_masks(path: Path) -> "VideoMasks":
    """Masks of a video; reads its container and decodes its first picture. Raises ValueError, naming it."""
    with _reader(path) as decoder:
        codec = decoder.codec
        if codec.properties & _KEEPS != Properties.LOSSLESS.value:
            raise ValueError(f"{path}: is of codec {codec.name}, which may blur labels into others; {_WANTED}")
        time = tuple(seconds for seconds, _ in decoder.packets())
    if not time or any(b <= a for a, b in itertools.pairwise(time)):
        raise ValueError(f"{path}: has {len(time)} pictures, whose times do not increase; {_WANTED}")
    masks = VideoMasks(path, codec.name == "png", time, 0, 0)
    if not masks.png:
        with _reader(path) as decoder:  # from the start, because only the first picture may have a palette
            masks = dataclasses.replace(masks, inverted=any(_inverted(frame) for _, _, frame in itertools.islice(decoder, 1)))
    rows, columns, _ = next(masks([0])).shape
    return dataclasses.replace(masks, rows=rows, columns=columns)


@dataclasses.dataclass(frozen=True)
class VideoMasks:
    """Masks in a video; a `Masks`."""

    path: Path
    png: bool
    """True if its packets are png files."""
    time: tuple[float, ...]
    """Times of the pictures, s from the start of the stream."""
    rows: int
    columns: int
    inverted: bool = False
    """True for QuickTime's grey: indices into a palette from white to black."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The single file."""
        return (self.path,)

    def __len__(self) -> int:
        return len(self.time)

    def head(self, index: int) -> tuple[str, tuple[int, int]]:
        """File, and rows and columns of every mask."""
        return str(self.path), (self.rows, self.columns)

    def __call__(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield the masks at `indices`, uint16 [H W 1]. Raises ValueError, naming the file, for an invalid mask."""
        if not indices:
            return
        with _reader(self.path) as decoder:
            source: Iterator[tuple[float, Any]]
            source = decoder.packets() if self.png else decoder.seek(self.time[indices[0]])
            for index in indices:
                seconds, content = next(((s, held) for s, held in source if s >= self.time[index]), (None, None))
                context = f"{self.path}: picture {index}"
                if seconds != self.time[index] or content is None or content.is_corrupt:
                    raise ValueError(f"{context} is damaged or missing; get the film again")
                yield read_mask_picture(bytes(content), context) if self.png else self._labels(content)

    def _labels(self, frame: av.VideoFrame) -> Shaped[np.ndarray, "H W 1"]:
        """Upright labels of a picture. Raises ValueError, naming the file, for colours."""
        name = frame.format.name
        if name != "pal8" and not _GREY.fullmatch(name):
            raise ValueError(f"{self.path}: its pixels are {name}, which are no labels; {_WANTED}")
        dtype = np.dtype("u1" if name in ("gray", "pal8") else "<u2")
        plane: Any = frame.planes[0]
        rows = np.frombuffer(plane, dtype).reshape(-1, plane.line_size // dtype.itemsize)
        values = rows[: frame.height, : frame.width].astype(np.uint16)
        return np.rot90(255 - values if self.inverted else values, quarter_turns(frame, self.path))[..., None]


def _reader(path: Path) -> VideoDecoder:
    return VideoDecoder(path, threads=False, formats=_FORMATS, wanted=_WANTED)


def _inverted(frame: av.VideoFrame) -> bool:
    """True if indices count from white, 0, to black, 255."""
    if frame.format.name != "pal8":
        return False
    palette: Any = frame.planes[1]
    colours = np.frombuffer(palette, np.uint8).reshape(256, 4)
    return bool((colours[:, :3] == np.arange(256)[::-1, None]).all())
