"""Masks of instances as a film whose codec keeps indexed or grey pixels as they are; their values are the instances."""

import dataclasses
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.codec import Properties

from data_pipelines.recording.decode import Reader, quarter_turns
from data_pipelines.recording.mask_picture import mask_picture
from wsm_jax.typing import Shaped

SUFFIXES = (".mkv", ".avi", ".mov", ".mp4")
_FORMATS = ("matroska", "avi", "mov", "mp4")
_WANTED = (
    "needed masks as a film (mkv, avi, mov, mp4) of gray, gray16 or pal8 pixels in a lossless codec (ffv1, png, zmbv); "
    "or write them as FOLDER/a/*.png or FOLDER/a.npz"
)
_KEEPS = Properties.LOSSLESS.value | Properties.LOSSY.value
"""What a codec may be; many are both, by their settings."""
_GREY = re.compile("gray((9|10|12|14|16)le)?")


def of_file(path: Path) -> "FilmMasks":
    """The masks of a film, whose container is read and its first picture decoded. Raises ValueError, naming it."""
    with _reader(path) as reader:
        codec = reader.codec
        if codec.properties & _KEEPS != Properties.LOSSLESS.value:
            raise ValueError(f"{path}: is of codec {codec.name}, which may blur labels into others; {_WANTED}")
        time = tuple(seconds for seconds, _ in reader.packets())
    if not time or any(b <= a for a, b in itertools.pairwise(time)):
        raise ValueError(f"{path}: has {len(time)} pictures, whose times do not increase; {_WANTED}")
    masks = FilmMasks(path, codec.name == "png", time, 0, 0)
    if not masks.png:
        with _reader(path) as reader:  # from its start, for a palette may come with the first picture alone
            masks = dataclasses.replace(masks, inverted=any(_inverted(frame) for _, _, frame in itertools.islice(reader, 1)))
    rows, columns, _ = next(masks([0])).shape
    return dataclasses.replace(masks, rows=rows, columns=columns)


@dataclasses.dataclass(frozen=True)
class FilmMasks:
    """Masks that are a film; a `Masks`."""

    path: Path
    png: bool
    """Its packets are png files."""
    time: tuple[float, ...]
    """Of the pictures, s from the start of the stream."""
    rows: int
    columns: int
    inverted: bool = False
    """It is grey, as QuickTime keeps that: indices into a palette from white to black."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.path,)

    def __len__(self) -> int:
        return len(self.time)

    def head(self, index: int) -> tuple[str, tuple[int, int]]:
        """The film, and rows and columns of every mask."""
        return str(self.path), (self.rows, self.columns)

    def __call__(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        if not indices:
            return
        with _reader(self.path) as reader:
            source: Iterator[tuple[float, Any]]
            source = reader.packets() if self.png else reader.seek(self.time[indices[0]])
            for index in indices:
                seconds, found = next(((s, held) for s, held in source if s >= self.time[index]), (None, None))
                where = f"{self.path}: picture {index}"
                if seconds != self.time[index] or found is None or found.is_corrupt:
                    raise ValueError(f"{where} is damaged or missing; get the film again")
                yield mask_picture(bytes(found), where) if self.png else self._labels(found)

    def _labels(self, frame: av.VideoFrame) -> Shaped[np.ndarray, "H W 1"]:
        """The pixels of a picture, upright. Raises ValueError, naming the film, for colours."""
        name = frame.format.name
        if name != "pal8" and not _GREY.fullmatch(name):
            raise ValueError(f"{self.path}: its pixels are {name}, which are no labels; {_WANTED}")
        dtype = np.dtype("u1" if name in ("gray", "pal8") else "<u2")
        plane: Any = frame.planes[0]
        rows = np.frombuffer(plane, dtype).reshape(-1, plane.line_size // dtype.itemsize)
        values = rows[: frame.height, : frame.width].astype(np.uint16)
        return np.rot90(255 - values if self.inverted else values, quarter_turns(frame, self.path))[..., None]


def _reader(path: Path) -> Reader:
    return Reader(path, threads=False, formats=_FORMATS, wanted=_WANTED)


def _inverted(frame: av.VideoFrame) -> bool:
    """Whether indices count from white, 0, to black, 255."""
    if frame.format.name != "pal8":
        return False
    palette: Any = frame.planes[1]
    colours = np.frombuffer(palette, np.uint8).reshape(256, 4)
    return bool((colours[:, :3] == np.arange(256)[::-1, None]).all())
