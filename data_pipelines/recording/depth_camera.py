"""Shared by the readers of depth cameras: pictures with their depth, intrinsics, and the unit of depth."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines.recording.recording import Recording
from data_pipelines.recording.stills import PictureHead, load_picture, open_picture, read_picture_head, verify_png
from wsm_jax.snapshot import Camera
from wsm_jax.typing import Float, Int, Shaped

DEPTH_RANGE_M = (0.2, 20.0)
"""Range of the median of measured depth, m."""
UNITS_M = {1e-3: "millimetres", 1e-4: "tenths of a millimetre", 1 / 5000: "TUM's 5000 a metre"}
"""Common steps of depth, for the error message of an implausible one."""
_DEEP = ("I;16", "I;16B", "I;16L", "I")
_LABELS = (*_DEEP, "1", "L", "P")


@dataclasses.dataclass(frozen=True)
class FrameFiles:
    """Files of one frame, aligned pixel by pixel."""

    colour: Path
    depth: Path
    mask: Path | None = None
    """Instance of every pixel, 1..; 0: unknown."""


@dataclasses.dataclass(frozen=True)
class RGBDPictures:
    """`Pictures` of a recording: rgb, depth in mm, and instance if the frames have masks."""

    shots: tuple[FrameFiles, ...]
    size: tuple[int, int]
    """Rows and columns of every file."""
    unit_m: float
    """One step of the depth files, m."""

    def __call__(self, indices: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Yield the frames at `indices`. Raises ValueError or OSError that names the file, ValueError for invalid indices."""
        wanted, count = [int(i) for i in indices], len(self.shots)
        if wanted != sorted(wanted) or (wanted and not 0 <= wanted[0] <= wanted[-1] < count):
            raise ValueError(f"{self.shots[0].colour}: frame indices must not decrease and lie in 0..{count - 1}")
        for index in wanted:
            shot = self.shots[index]
            frame = _colour(shot.colour, self.size)
            frame["depth"] = _millimetres(_stored_integers(shot.depth, _DEEP, self.size), self.unit_m)[..., None]
            if shot.mask is not None:
                labels = _stored_integers(shot.mask, _LABELS, self.size)
                if labels.min() < 0 or labels.max() > 65535:
                    raise ValueError(f"{shot.mask}: instances {labels.min()}..{labels.max()}; needed 0..65535")
                frame["instance"] = labels.astype(np.uint16)[..., None]
            yield frame


def _same_size(image: Image.Image, size: tuple[int, int], file: Path) -> None:
    if (image.height, image.width) != size:
        raise ValueError(
            f"{file}: {image.height} x {image.width} pixels, the first picture of the recording {size[0]} x {size[1]}; needed "
            "one size of all colour pictures, depth maps and masks: resample them onto one another first"
        )


def _colour(file: Path, size: tuple[int, int]) -> dict[str, Any]:
    """Colour picture of a frame, and its bytes if they are a plain JPEG. Raises ValueError for a rotated one."""
    _level(read_picture_head(file), file)
    with open_picture(file) as image:
        _same_size(image, size, file)
    return load_picture(file)


def _level(head: PictureHead, file: Path) -> PictureHead:
    """`head` itself. Raises ValueError for a rotated picture, because its depth has no such rotation."""
    if head.orientation != 1:
        raise ValueError(
            f"{file}: is to be turned (EXIF orientation {head.orientation}); needed pictures as they lie on their depth maps"
        )
    return head


def _stored_integers(file: Path, modes: tuple[str, ...], size: tuple[int, int]) -> Int[np.ndarray, "H W"]:
    """Stored integers of a picture with one component. Raises ValueError that names the file."""
    with open_picture(file) as image:
        verify_png(file, image)
        _one_component(image, modes, file)
        _same_size(image, size, file)
        return np.asarray(image).astype(np.int64)


def _one_component(image: Image.Image, modes: tuple[str, ...], file: Path) -> None:
    if image.mode not in modes:
        bits = "of 16 bits" if modes == _DEEP else "of whole numbers"
        raise ValueError(f"{file}: {image.mode} pixels; needed one component {bits}")


def _millimetres(steps: Int[np.ndarray, "H W"], unit_m: float) -> Shaped[np.ndarray, "H W"]:
    """Depth in mm, uint16; 0 if out of range."""
    stored = np.rint(steps * (unit_m * 1000.0))
    return np.where((stored >= 0) & (stored <= 65535), stored, 0).astype(np.uint16)


def checked_size(shots: Sequence[FrameFiles], notes: list[str]) -> tuple[int, int]:
    """Rows and columns of all files, from their headers alone; adds losses to `notes`.

    Raises FileNotFoundError or ValueError, naming the file: no picture, other components than needed, another size, rotated.
    """
    size, veiled = None, 0
    for shot in shots:
        head = _level(read_picture_head(shot.colour), shot.colour)
        with open_picture(shot.colour) as image:
            size = (image.height, image.width) if size is None else size
            _same_size(image, size, shot.colour)
        veiled += head.alpha
        for file, modes in ((shot.depth, _DEEP), (shot.mask, _LABELS)):
            if file is not None:
                with open_picture(file) as image:
                    _one_component(image, modes, file)
                    _same_size(image, size, file)
    if size is None:
        raise ValueError("depth camera: no frames; needed one or more")
    if veiled:
        notes.append(f"{veiled} colour pictures are transparent in parts, which are black")
    return size


def checked_unit(shots: Sequence[FrameFiles], size: tuple[int, int], unit_m: float | int, notes: list[str]) -> float:
    """Step of the depth files in m, checked on the first, the middle and the last of them.

    Raises ValueError, naming the first, for an invalid step, depth maps without depth, and a median outside DEPTH_RANGE_M.
    """
    first = shots[0].depth
    if not 0 < unit_m < math.inf:
        raise ValueError(f"{first}: steps of depth of unit_m={unit_m:g} m; needed a length above 0")
    picks = sorted({0, len(shots) // 2, len(shots) - 1})
    steps = np.concatenate([_stored_integers(shots[i].depth, _DEEP, size).ravel() for i in picks])
    if not (steps > 0).any():
        raise ValueError(f"{first}: this and {len(picks) - 1} other depth maps hold no depth above 0; needed depth")
    low, high = DEPTH_RANGE_M
    middle = float(np.median(steps[steps > 0]))
    if not low <= middle * unit_m <= high:
        better = [f"{unit:g} ({name}: {middle * unit:.3g} m)" for unit, name in UNITS_M.items() if low <= middle * unit <= high]
        suggestion = " or ".join(better) or f"between {low / middle:.2g} and {high / middle:.2g}"
        raise ValueError(
            f"{first}: a median depth of {middle * unit_m:.4g} m with steps of unit_m={unit_m:g} m; needed {low:g}..{high:g} m "
            f"of a depth camera, as with unit_m = {suggestion}"
        )
    if abs(unit_m * 1000 - round(unit_m * 1000)) > 1e-9:
        notes.append("depth is rounded to 1 mm")
    if 65535 * unit_m > 65.536:
        notes.append("depth beyond 65.535 m is taken for not measured")
    return float(unit_m)


@dataclasses.dataclass(frozen=True)
class OpenCVIntrinsics:
    """Intrinsics in OpenCV's convention: pixels, the centre of the first one at (0, 0)."""

    fx: float
    fy: float
    cx: float
    cy: float
    distortion: tuple[float, ...] | None = None
    """k1 k2 p1 p2 k3"""

    @classmethod
    def from_numbers(cls, numbers: Sequence[float | int], size: tuple[int, int], source: str) -> "OpenCVIntrinsics":
        """Intrinsics from fx fy cx cy, or these and k1 k2 p1 p2 k3. Raises ValueError that names `source`."""
        values = tuple(float(x) for x in numbers)
        if len(values) not in (4, 9) or not all(math.isfinite(x) for x in values):
            raise ValueError(f"{source}: intrinsics {values}; needed fx fy cx cy, or these and k1 k2 p1 p2 k3")
        fx, fy, cx, cy = values[:4]
        rows, columns = size
        if not (fx > 0 and fy > 0 and 0.5 < fx / fy < 2 and 0.05 < fy / rows < 100):
            raise ValueError(f"{source}: focal lengths {fx:g} and {fy:g} px of pictures {rows} high; needed a lens, in pixels")
        if not (0 <= cx <= columns and 0 <= cy <= rows):
            raise ValueError(f"{source}: principal point {cx:g}, {cy:g}; needed it in the {columns} x {rows} pixels, in pixels")
        return cls(fx, fy, cx, cy, values[4:] if any(values[4:]) else None)

    @property
    def pixel_aspect(self) -> float:
        """Width over height of a pixel; square pixels have one focal length."""
        return self.fy / self.fx

    def cameras(self, position: Float[np.ndarray, "T 3"], rotation: Float[np.ndarray, "T 4"], size: tuple[int, int]) -> Camera:
        """Cameras with these intrinsics, of the pictures with square pixels."""
        rows, columns = size
        offset = [(self.cx + 0.5 - 0.5 * columns) * self.pixel_aspect / rows, (self.cy + 0.5 - 0.5 * rows) / rows]

        def tiled(values: Sequence[float]) -> np.ndarray:
            return np.tile(np.array(values, np.float32), (len(position), 1))

        focal = np.full(len(position), self.fy / rows, np.float32)
        bent = None if self.distortion is None else tiled(self.distortion)
        return Camera(position.astype(np.float32), rotation.astype(np.float32), focal, tiled(offset), bent)


def rgbd_recording(
    folder: Path,
    texts: Sequence[Path],
    pictures: RGBDPictures,
    time: Float[np.ndarray, " T"],
    lens: OpenCVIntrinsics,
    camera: Camera | None,
    notes: Sequence[str],
) -> Recording:
    """Recording of a folder with two frames or more at `time` (s, from 0), and the text files that it is read from."""
    files = [file for shot in pictures.shots for file in (shot.colour, shot.depth, shot.mask) if file is not None]
    return Recording(
        name=folder.resolve().name,
        kind="video",
        time=time,
        seconds=float(time[-1] + np.median(np.diff(time))),
        size=np.tile(np.array(pictures.size), (len(time), 1)),
        channels=("rgb", "depth", "instance") if pictures.shots[0].mask else ("rgb", "depth"),
        pictures=pictures,
        files=(*texts, *dict.fromkeys(files)),
        camera=camera,
        pixel_aspect=lens.pixel_aspect,
        notes=tuple(notes),
    )
