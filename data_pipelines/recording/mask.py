"""Instance masks beside a recording, one per frame, of the size of the upright frame; 0 is background.

FOLDER/a/*.png              indexed or grey pictures, as in DAVIS and YouTube-VOS: mask_picture.py
FOLDER/a.npy, a.npz         one array [T H W] of integers or bool: mask_array.py
FOLDER/a.mkv, avi, mov, mp4 a video of indexed or grey pixels in a lossless codec: mask_video.py
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from data_pipelines.recording import mask_array, mask_picture, mask_video
from data_pipelines.recording.recording import Pictures, Recording

SUFFIXES = (*mask_array.SUFFIXES, *mask_video.SUFFIXES)
"""Suffixes of files that hold the masks of a recording."""


@runtime_checkable
class Masks(Protocol):
    """Masks of a recording; picklable, keeps no file open."""

    @property
    def files(self) -> tuple[Path, ...]:
        """All files that they are read from."""
        ...

    def __len__(self) -> int: ...

    def head(self, index: int) -> tuple[str, tuple[int, int]]:
        """File of a mask, for messages, and its rows and columns."""
        ...

    def __call__(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield masks at increasing indices, uint16 [H W 1]. Raises ValueError, naming the file, for an invalid mask."""
        ...


def open_masks(path: Path) -> Masks:
    """Masks of a folder or a file, whose head is read. Raises FileNotFoundError or ValueError, naming it."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such folder or file; needed masks, as a folder with a png a frame")
    if path.is_dir():
        return mask_picture.folder_masks(path)
    return (
        mask_array.read_array_masks(path) if path.suffix.lower() in mask_array.SUFFIXES else mask_video.read_video_masks(path)
    )


def mask_files(path: Path) -> tuple[Path, ...]:
    """Files of the masks at a path; none is opened."""
    return mask_picture.folder_masks(path).files if path.is_dir() else (path,)


def with_masks(recording: Recording, path: Path) -> Recording:
    """Recording with the channel "instance" from the masks at a path, whose heads are read.

    Raises FileNotFoundError or ValueError, naming the folder or the file: another number of masks than of frames, another size
    than that of the frame, no instances.
    """
    if "instance" in recording.channels:
        raise ValueError(f"{path}: masks of {recording.name}, which has instances of its own; name no masks for it")
    masks = open_masks(path)
    count, kind = len(recording.time), "png" if path.is_dir() else path.suffix[1:].lower()
    if len(masks) != count:
        raise ValueError(f"{path}: has {len(masks)} masks ({kind}); needed {count}, one for every frame of {recording.name}")
    for index, (rows, columns) in enumerate(recording.size):
        context, (high, wide) = masks.head(index)
        if (high, wide) != (rows, columns):
            raise ValueError(f"{context}: is {high} x {wide} pixels; its frame is {rows} x {columns}")
    return dataclasses.replace(
        recording,
        channels=(*recording.channels, "instance"),
        pictures=MaskedPictures(recording.pictures, masks),
        files=(*recording.files, *masks.files),
    )


@dataclasses.dataclass(frozen=True)
class MaskedPictures:
    """Pictures with the masks of their frames; a `Pictures`."""

    pictures: Pictures
    masks: Masks

    def __call__(self, indices: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Yield the frames at `indices`. Raises ValueError or OSError that names the file."""
        masks = self.masks([int(index) for index, _ in itertools.groupby(indices)])
        last, mask = None, None
        for index, picture in itertools.zip_longest(indices, self.pictures(indices)):
            if picture is None or index is None:
                raise ValueError(f"{self.masks.files[0]}: masks of a recording that yields another number of pictures")
            if last is None or last != index:
                last, mask = index, next(masks)
            yield {**picture, "instance": mask}
