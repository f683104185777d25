"""Still pictures: jpg, png and webp, as files, as bytes, or as a folder of numbered frames."""

import contextlib
import dataclasses
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from wsm_jax.typing import Shaped, UInt8

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
"""Suffixes of the frames of a folder."""
LIMIT_PIXELS = 2**27
"""Largest picture that is read."""
_FORMATS = ("JPEG", "PNG", "WEBP")
_ORIENTATION = 0x0112  # EXIF


@dataclasses.dataclass(frozen=True)
class PictureHead:
    """Properties of a picture that is not decoded yet."""

    rows: int
    columns: int
    """As stored, before rotation."""
    orientation: int
    """EXIF: 1 is upright, 3, 6 and 8 are rotated, the others of 2..8 mirrored."""
    mode: str
    """Pillow's name of the stored components."""
    alpha: bool
    deep: bool
    """True if it has more than 8 bits per component."""
    foreign: bool
    """True if its ICC profile states another colour space than sRGB."""
    plain_jpeg: bool
    """True for an upright baseline JPEG file of three 8-bit components in sRGB."""

    @property
    def upright_size(self) -> tuple[int, int]:
        """Rows and columns of the upright picture."""
        return (self.columns, self.rows) if self.orientation >= 5 else (self.rows, self.columns)


def folder_files(path: Path) -> tuple[Path, ...]:
    """Frames of a folder; 2.png comes before 10.png."""
    files = [file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")]
    return tuple(sorted(files, key=lambda file: natural_order(file.name)))


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """Sort key of names with numbers: a2 before a10."""
    return [(0, int(part[:400]), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


@contextlib.contextmanager
def open_picture(file: Path | bytes, name: str = "") -> Iterator[Image.Image]:
    """Context of an undecoded picture, from a file or from the bytes of a file called `name`.

    Raises FileNotFoundError or ValueError, naming the file, for any failure while it is open.
    """
    name = name or str(file)
    if isinstance(file, Path) and not file.is_file():  # a pipe would be waited for
        if not file.exists():
            raise FileNotFoundError(f"{name}: no such file; needed a picture")
        raise ValueError(f"{name}: is no file")
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=_FORMATS) as image:
            if image.width * image.height > LIMIT_PIXELS:
                raise ValueError(f"has {image.height} x {image.width} pixels; needed at most {LIMIT_PIXELS}")
            yield image
    except UnidentifiedImageError as error:
        size = len(file) if isinstance(file, bytes) else file.stat().st_size
        raise ValueError(f"{name}: {'is no jpg, png or webp picture' if size else 'is empty'}") from error
    except Exception as error:  # Pillow raises a dozen kinds for damaged files, SyntaxError among them
        if isinstance(error, ValueError) and str(error).startswith(f"{name}: "):
            raise
        raise ValueError(f"{name}: cannot be read as a picture ({error})") from error


def read_picture_head(file: Path | bytes, name: str = "") -> PictureHead:
    """Properties of a picture, from its first bytes. Raises FileNotFoundError or ValueError, naming the file."""
    with open_picture(file, name) as image:
        orientation, foreign = _orientation(image), _profile(image) is not None
        baseline = image.format == "JPEG" and image.mode == "RGB" and not image.info.get("progressive")
        ycbcr = image.info.get("adobe_transform", 1) == 1  # else its components are RGB, which not every decoder knows
        deep = image.mode.startswith("I") or any(";16" in str(tile) for tile in getattr(image, "tile", ()))
        return PictureHead(
            image.height,
            image.width,
            orientation,
            image.mode,
            image.has_transparency_data,
            deep,
            foreign,
            baseline and ycbcr and orientation == 1 and not foreign,
        )


def read_colour_head(data: bytes, name: str) -> PictureHead:
    """`read_picture_head` of a colour picture. Raises ValueError also for a possible depth map."""
    head = read_picture_head(data, name)
    if head.deep and head.mode.startswith("I"):
        raise ValueError(f"{name}: is one component of {head.mode} (more than 8 bits); needed a colour picture")
    return head


def load_rgb(file: Path | bytes, name: str = "") -> UInt8[np.ndarray, "H W 3"]:
    """Upright sRGB picture (EXIF orientation applied). Raises FileNotFoundError or ValueError, naming the file."""
    with open_picture(file, name) as image:
        verify_png(file, image)
        image.load()
        return upright(_rgb(image), _orientation(image))


def load_picture(file: Path | bytes, name: str = "") -> dict[str, Any]:
    """{"rgb": `load_rgb`}, and {"jpeg": bytes} for a plain JPEG, which every decoder shows alike. Raises as `load_rgb`."""
    picture: dict[str, Any] = {"rgb": load_rgb(file, name)}
    if read_picture_head(file, name).plain_jpeg:
        picture["jpeg"] = file if isinstance(file, bytes) else file.read_bytes()
    return picture


def load_stored_rgb(file: Path) -> UInt8[np.ndarray, "H W 3"]:
    """`load_rgb` without the rotation by EXIF orientation."""
    with open_picture(file) as image:
        verify_png(file, image)
        return _rgb(image)


def verify_png(file: Path | bytes, image: Image.Image) -> None:
    """Check the checksums of a png, which Pillow ignores when it decodes. Raises what Pillow raises."""
    if image.format == "PNG":
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=("PNG",)) as again:
            again.verify()


def upright(picture: Shaped[np.ndarray, "..."], orientation: int) -> Shaped[np.ndarray, "..."]:
    """Upright picture from a stored picture [H W ...] and its EXIF orientation, 1..8."""
    if orientation >= 5:
        picture = np.swapaxes(picture, 0, 1)
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    return np.ascontiguousarray(picture)


def _orientation(image: Image.Image) -> int:
    # The method of the base class, because that of png decodes the whole picture to search for a tag after it.
    value = Image.Image.getexif(image).get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _profile(image: Image.Image) -> ImageCms.ImageCmsProfile | None:
    """ICC profile of an RGB picture, if it is readable and not sRGB; else None."""
    raw = image.info.get("icc_profile")
    if not raw or image.mode not in ("RGB", "RGBA", "P", "PA"):
        return None
    try:
        profile: Any = ImageCms.ImageCmsProfile(io.BytesIO(raw))
        known = profile.profile.xcolor_space.strip() == "RGB" and "srgb" not in ImageCms.getProfileDescription(profile).lower()
    except (OSError, ImageCms.PyCMSError):
        return None
    return profile if known else None


def _rgb(image: Image.Image) -> UInt8[np.ndarray, "H W 3"]:
    """sRGB picture: grey repeated, 16 bits scaled to 8, transparency on black."""
    if image.mode.startswith("I"):
        grey = np.rint(np.clip(np.asarray(image), 0, 65535) / 257.0).astype(np.uint8)
        return np.repeat(grey[..., None], 3, -1)
    profile = _profile(image)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = np.asarray(image)[..., 3:].astype(np.float32) / 255.0
    image = image.convert("RGB")
    if profile is not None:
        image = ImageCms.profileToProfile(image, profile, ImageCms.createProfile("sRGB")) or image
    picture = np.array(image)
    return picture if alpha is None else np.rint(picture * alpha).astype(np.uint8)
