"""A folder of jpg/png frames, in the order of the numbers in their names."""

import re
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from wsm_jax.typing import UInt8

SUFFIXES = (".jpg", ".jpeg", ".png")
"""Files of a folder that count as its frames; others are left alone."""


def folder_files(path: Path) -> tuple[Path, ...]:
    """The frames of a folder; 2.png comes before 10.png."""
    files = [file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")]
    return tuple(sorted(files, key=_number_order))


def _number_order(file: Path) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", file.name) if part]


def folder_picture(file: Path) -> UInt8[np.ndarray, "H W 3"]:
    """One frame, upright (EXIF orientation applied), sRGB. Raises ValueError, naming the file, for what is no whole picture."""
    try:
        with Image.open(file) as image:
            image.load()
            if image.mode.startswith(("I", "F")):
                raise ValueError(
                    f"{file}: has {image.mode} pixels (more than 8 bits, one component); needed an 8-bit colour picture"
                )
            return np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except UnidentifiedImageError as error:
        raise ValueError(f"{file}: is no jpg or png picture") from error
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for a broken png
        raise ValueError(f"{file}: cannot be read as a picture ({error})") from error
