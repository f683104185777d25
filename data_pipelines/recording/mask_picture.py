"""Instance masks as png pictures, indexed or grey, one per frame; the values are the instances."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.recording.stills import natural_order, open_picture, verify_png
from wsm_jax.typing import Shaped

_MODES = ("1", "L", "P", "I", "I;16", "I;16B")
_SPREAD = {"L;2": 85, "L;4": 17}
"""Factors by which Pillow scales grey of 2 and 4 bits to 0..255."""


def folder_masks(path: Path) -> "PictureMasks":
    """Masks of a folder; 2.png comes before 10.png."""
    files = [file for file in path.iterdir() if file.suffix.lower() == ".png" and not file.name.startswith(".")]
    return PictureMasks(tuple(sorted(files, key=lambda file: natural_order(file.name))))


def read_mask_picture(file: Path | bytes, name: str = "") -> Shaped[np.ndarray, "H W 1"]:
    """Instances of a frame, from a file or from the bytes of a file called `name`.

    Raises FileNotFoundError or ValueError, naming the file, for a damaged picture, or one without instances.
    """
    with open_picture(file, name) as image:
        verify_png(file, image)
        if image.format != "PNG" or image.mode not in _MODES:
            raise ValueError(f"is a {image.format} of mode {image.mode}; needed a png, indexed or grey without transparency")
        tiles: Any = getattr(image, "tile", ())  # before it is decoded
        raw = tiles[0][3] if tiles else ""
        values = np.asarray(image).astype(np.int64) // _SPREAD.get(str(raw), 1)
        return np.clip(values, 0, 65535).astype(np.uint16)[..., None]


@dataclasses.dataclass(frozen=True)
class PictureMasks:
    """Masks in pictures; a `Masks`."""

    files: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.files)

    def head(self, index: int) -> tuple[str, tuple[int, int]]:
        """File, and rows and columns of a mask."""
        with open_picture(self.files[index]) as image:
            return str(self.files[index]), (image.height, image.width)

    def __call__(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        return (read_mask_picture(self.files[index]) for index in indices)
