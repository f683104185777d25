"""Masks of instances beside a recording: a folder of png pictures, one a frame, as DAVIS and YouTube-VOS have them.

The picture is indexed or grey, of the size of the frame as it is shown; its values are the instances, 0 is none.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.recording.recording import Pictures, Recording
from data_pipelines.recording.stills import natural_order, opened, verify
from wsm_jax.typing import Shaped

_MODES = ("1", "L", "P", "I", "I;16", "I;16B")
_SPREAD = {"L;2": 85, "L;4": 17}
"""Pillow spreads grey of 2 and 4 bits over 0..255."""


def masked(recording: Recording, folder: Path) -> Recording:
    """The recording with the channel "instance" from a folder of masks, whose heads are read.

    Raises FileNotFoundError or ValueError, naming the folder or the file: another number of masks than of frames, another size
    than the frame's, a picture that holds no instances.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; needed masks of {recording.name}, a png a frame")
    if "instance" in recording.channels:
        raise ValueError(f"{folder}: masks of {recording.name}, which has instances of its own; name no masks for it")
    files = mask_files(folder)
    count = len(recording.time)
    if len(files) != count:
        raise ValueError(f"{folder}: has {len(files)} masks (png); needed {count}, one for every frame of {recording.name}")
    for file, (rows, columns) in zip(files, recording.size, strict=True):
        with opened(file) as image:
            if (image.height, image.width) != (rows, columns):
                raise ValueError(f"{file}: is {image.height} x {image.width} pixels; its frame is {rows} x {columns}")
    return dataclasses.replace(
        recording,
        channels=(*recording.channels, "instance"),
        pictures=Masked(recording.pictures, files),
        files=(*recording.files, *files),
    )


def mask_files(folder: Path) -> tuple[Path, ...]:
    """The masks of a folder; 2.png comes before 10.png."""
    files = [file for file in folder.iterdir() if file.suffix.lower() == ".png" and not file.name.startswith(".")]
    return tuple(sorted(files, key=lambda file: natural_order(file.name)))


def mask_picture(file: Path) -> Shaped[np.ndarray, "H W 1"]:
    """The instances of a frame. Raises ValueError, naming the file, for what is no whole picture of instances."""
    with opened(file) as image:
        verify(file, image)
        if image.format != "PNG" or image.mode not in _MODES:
            raise ValueError(f"is a {image.format} of mode {image.mode}; needed a png, indexed or grey without transparency")
        tiles: Any = getattr(image, "tile", ())  # before it is decoded
        raw = tiles[0][3] if tiles else ""
        values = np.asarray(image).astype(np.int64) // _SPREAD.get(str(raw), 1)
        return np.clip(values, 0, 65535).astype(np.uint16)[..., None]


@dataclasses.dataclass(frozen=True)
class Masked:
    """Pictures with the masks of their frames; a `Pictures`."""

    pictures: Pictures
    files: tuple[Path, ...]

    def __call__(self, indices: Sequence[int]) -> Iterator[dict[str, Any]]:
        last: tuple[int, np.ndarray] | None = None
        for index, found in itertools.zip_longest(indices, self.pictures(indices)):
            if found is None or index is None:
                raise ValueError(f"{self.files[0].parent}: masks of a recording that yields another number of pictures")
            if last is None or last[0] != index:
                last = int(index), mask_picture(self.files[index])
            yield {**found, "instance": last[1]}
