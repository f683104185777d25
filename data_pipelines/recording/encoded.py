"""Pictures as the bytes of a jpg or png file, as datasets keep them inside larger files."""

import dataclasses
import io
from typing import Any

import numpy as np
from PIL import Image, ImageOps

LIMIT_PIXELS = 2**26
"""Largest picture that is read."""

_TURNED = (5, 6, 7, 8)
"""EXIF orientations that swap rows and columns."""


@dataclasses.dataclass(frozen=True)
class Header:
    """What a picture says of itself, undecoded."""

    rows: int
    columns: int
    """As shown, upright."""
    alpha: bool
    """Whether it has an alpha channel, which `decoded` drops."""


def header(data: bytes, where: str) -> Header:
    """Reads the header of a jpg or png file. Raises ValueError, beginning with `where`, for what is none."""
    with _opened(data, where) as image:
        rows, columns = image.height, image.width
        if _orientation(image) in _TURNED:
            rows, columns = columns, rows
        return Header(rows, columns, image.has_transparency_data)


def decoded(data: bytes, where: str) -> dict[str, Any]:
    """{"rgb": uint8 [H W 3] upright}, and {"jpeg": data} where that is a baseline RGB jpg that needs neither turning nor a
    colour profile. Grey is repeated, alpha dropped. Raises ValueError, beginning with `where`, for what is no whole picture.
    """
    with _opened(data, where) as image:
        try:
            image.load()
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # Pillow: SyntaxError for broken png
            raise ValueError(f"{where} cannot be decoded ({error})") from error
        upright = _orientation(image) in (0, 1)
        picture = {"rgb": np.array((image if upright else ImageOps.exif_transpose(image)).convert("RGB"))}
        plain = image.format == "JPEG" and image.mode == "RGB" and not {"progressive", "icc_profile"} & set(image.info)
        return picture | ({"jpeg": data} if plain and upright else {})


def _opened(data: bytes, where: str) -> Image.Image:
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{where} is no jpg or png picture, but {len(data)} bytes that begin {data[:8]!r}") from error
    if image.width * image.height > LIMIT_PIXELS:
        raise ValueError(f"{where} has {image.height} x {image.width} pixels; needed at most {LIMIT_PIXELS}")
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"{where} has {image.mode} pixels (more than 8 bits, one component); needed an 8-bit colour picture")
    return image


def _orientation(image: Image.Image) -> int:
    """EXIF orientation of a jpg; of a png it may stand behind the pixels, and is not looked for."""
    if image.format == "PNG":
        return 1
    try:
        value = image.getexif().get(0x0112, 1)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError):  # broken EXIF is no reason to lose a picture
        return 1
    return value if isinstance(value, int) and 0 <= value <= 8 else 1
