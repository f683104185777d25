"""Masks of instances beside a recording, one a frame, of the size of the frame as it is shown; 0 is none.

FOLDER/a/*.png              indexed or grey pictures, as DAVIS and YouTube-VOS have them: mask_picture.py
FOLDER/a.npy, a.npz         one array [T H W] of integers or bool: mask_array.py
FOLDER/a.mkv, avi, mov, mp4 a film of indexed or grey pixels that its codec keeps as they are: mask_film.py
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from data_pipelines.recording import mask_array, mask_film, mask_picture
from data_pipelines.recording.recording import Pictures, Recording

SUFFIXES = (*mask_array.SUFFIXES, *mask_film.SUFFIXES)
"""Of files that hold the masks of a recording."""


@runtime_checkable
class Masks(Protocol):
    """The masks of a recording; picklable, and nothing stays open."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All that they are read from."""
        ...

    def __len__(self) -> int: ...

    def head(self, index: int) -> tuple[str, tuple[int, int]]:
        """Where a mask is, for messages, and its rows and columns."""
        ...

    def __call__(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Some of them, by increasing indices, uint16 [H W 1]. Raises ValueError, naming the file, for what is no mask."""
        ...


def masks_at(path: Path) -> Masks:
    """The masks of a folder or a file, whose head is read. Raises FileNotFoundError or ValueError, naming it."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such folder or file; needed masks, as a folder with a png a frame")
    if path.is_dir():
        return mask_picture.of_folder(path)
    return mask_array.of_file(path) if path.suffix.lower() in mask_array.SUFFIXES else mask_film.of_file(path)


def mask_files(path: Path) -> tuple[Path, ...]:
    """The files that the masks at a path are read from; none is opened."""
    return mask_picture.of_folder(path).files if path.is_dir() else (path,)


def masked(recording: Recording, path: Path) -> Recording:
    """The recording with the channel "instance" from the masks at a path, whose heads are read.

    Raises FileNotFoundError or ValueError, naming the folder or the file: another number of masks than of frames, another size
    than the frame's, what holds no instances.
    """
    if "instance" in recording.channels:
        raise ValueError(f"{path}: masks of {recording.name}, which has instances of its own; name no masks for it")
    masks = masks_at(path)
    count, kind = len(recording.time), "png" if path.is_dir() else path.suffix[1:].lower()
    if len(masks) != count:
        raise ValueError(f"{path}: has {len(masks)} masks ({kind}); needed {count}, one for every frame of {recording.name}")
    for index, (rows, columns) in enumerate(recording.size):
        where, (high, wide) = masks.head(index)
        if (high, wide) != (rows, columns):
            raise ValueError(f"{where}: is {high} x {wide} pixels; its frame is {rows} x {columns}")
    return dataclasses.replace(
        recording,
        channels=(*recording.channels, "instance"),
        pictures=Masked(recording.pictures, masks),
        files=(*recording.files, *masks.files),
    )


@dataclasses.dataclass(frozen=True)
class Masked:
    """Pictures with the masks of their frames; a `Pictures`."""

    pictures: Pictures
    masks: Masks

    def __call__(self, indices: Sequence[int]) -> Iterator[dict[str, Any]]:
        shown = self.masks([int(index) for index, _ in itertools.groupby(indices)])
        last, mask = None, None
        for index, found in itertools.zip_longest(indices, self.pictures(indices)):
            if found is None or index is None:
                raise ValueError(f"{self.masks.files[0]}: masks of a recording that yields another number of pictures")
            if last is None or last != index:
                last, mask = index, next(shown)
            yield {**found, "instance": mask}
