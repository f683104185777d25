"""Still pictures: jpg, png and webp, as files, as their bytes, or as a folder of frames in the order of their numbers."""

import contextlib
import dataclasses
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, UnidentifiedImageError

from wsm_jax.typing import UInt8

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
"""Files of a folder that count as its frames; others are left alone."""
LIMIT_PIXELS = 2**27
"""Largest picture that is read."""
_FORMATS = ("JPEG", "PNG", "WEBP")
_ORIENTATION = 0x0112  # EXIF


@dataclasses.dataclass(frozen=True)
class Head:
    """What a picture says of itself before it is decoded."""

    rows: int
    columns: int
    """As stored, before any turn."""
    orientation: int
    """EXIF: 1 is upright, 3, 6 and 8 are turned, the others of 2..8 mirrored."""
    mode: str
    """Pillow's name of the stored components."""
    alpha: bool
    deep: bool
    """Whether it has more than 8 bits a component."""
    foreign: bool
    """Whether its colours are of another space than sRGB, by its ICC profile."""
    plain_jpeg: bool
    """Whether it is a baseline JPEG file of three 8-bit components in sRGB that shows the picture upright."""

    @property
    def shown(self) -> tuple[int, int]:
        """Rows and columns once it stands upright."""
        return (self.columns, self.rows) if self.orientation >= 5 else (self.rows, self.columns)


def folder_files(path: Path) -> tuple[Path, ...]:
    """The frames of a folder; 2.png comes before 10.png."""
    files = [file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")]
    return tuple(sorted(files, key=lambda file: natural_order(file.name)))


def natural_order(name: str) -> list[tuple[int, int, str]]:
    """A key by which names sort as people number things: a2 before a10."""
    return [(0, int(part[:400]), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


@contextlib.contextmanager
def opened(file: Path | bytes, name: str = "") -> Iterator[Image.Image]:
    """The picture of a file, or of the bytes of one that is called `name`, not yet decoded.

    Raises FileNotFoundError or ValueError, naming the file, for whatever fails while it is open.
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


def picture_head(file: Path | bytes, name: str = "") -> Head:
    """What a picture is, from its first bytes. Raises ValueError, naming the file, for what is no picture."""
    with opened(file, name) as image:
        orientation, foreign = _orientation(image), _profile(image) is not None
        baseline = image.format == "JPEG" and image.mode == "RGB" and not image.info.get("progressive")
        ycbcr = image.info.get("adobe_transform", 1) == 1  # else its components are RGB, which not every decoder knows
        deep = image.mode.startswith("I") or any(";16" in str(tile) for tile in getattr(image, "tile", ()))
        return Head(
            image.height,
            image.width,
            orientation,
            image.mode,
            image.has_transparency_data,
            deep,
            foreign,
            baseline and ycbcr and orientation == 1 and not foreign,
        )


def colour_head(data: bytes, name: str) -> Head:
    """As `picture_head`, of a picture that is promised to be a camera's. Raises ValueError also where it may be a depth map."""
    head = picture_head(data, name)
    if head.deep and head.mode.startswith("I"):
        raise ValueError(f"{name}: is one component of {head.mode} (more than 8 bits); needed a colour picture")
    return head


def shown_picture(file: Path | bytes, name: str = "") -> UInt8[np.ndarray, "H W 3"]:
    """A picture, upright (EXIF orientation applied), sRGB. Raises ValueError, naming the file, for what is no whole picture."""
    with opened(file, name) as image:
        verify(file, image)
        image.load()
        return upright(_rgb(image), _orientation(image))


def pictured(file: Path | bytes, name: str = "") -> dict[str, Any]:
    """{"rgb": as `shown_picture`}, and {"jpeg": the bytes} where these show any decoder the same. Raises as that does."""
    found: dict[str, Any] = {"rgb": shown_picture(file, name)}
    if picture_head(file, name).plain_jpeg:
        found["jpeg"] = file if isinstance(file, bytes) else file.read_bytes()
    return found


def stored_picture(file: Path) -> UInt8[np.ndarray, "H W 3"]:
    """As `shown_picture`, but the way the file stores it, not turned."""
    with opened(file) as image:
        verify(file, image)
        return _rgb(image)


def verify(file: Path | bytes, image: Image.Image) -> None:
    """Checks the checksums of a png, which Pillow decodes without them. Raises what Pillow does."""
    if image.format == "PNG":
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=("PNG",)) as again:
            again.verify()


def upright(picture: np.ndarray, orientation: int) -> np.ndarray:
    """A stored picture [H W ...] as its EXIF orientation, 1..8, says that it is to be shown."""
    if orientation >= 5:
        picture = np.swapaxes(picture, 0, 1)
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    return np.ascontiguousarray(picture)


def _orientation(image: Image.Image) -> int:
    # The method of the base class: that of png decodes the whole picture in search of a tag behind it.
    value = Image.Image.getexif(image).get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _profile(image: Image.Image) -> ImageCms.ImageCmsProfile | None:
    """The colour space of an RGB picture, where its file names one that can be read and is not sRGB."""
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
    """sRGB: grey repeated, 16 bits scaled to 8, transparency on black."""
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
