"""Photos with known cameras: one recording of views from the poses and intrinsics of a reconstruction.

A reconstruction describes photos as stored: the tools that make it ignore the EXIF orientation. Recordings have upright
pictures, so the camera of a rotated photo is rotated too. If photos are resized copies of those of the reconstruction, the
intrinsics are scaled.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.recording.recording import Recording
from data_pipelines.recording.stills import (
    PictureHead,
    load_stored_rgb,
    natural_order,
    open_picture,
    read_picture_head,
    upright,
)
from wsm_jax.snapshot import Camera, channel, resize
from wsm_jax.snapshot.camera import matrix_to_quaternion
from wsm_jax.snapshot.lens import limit
from wsm_jax.typing import Float

_QUARTERS = {1: 0, 6: 1, 3: 2, 8: 3}
"""EXIF orientation -> clockwise quarter turns to the upright picture."""
_CLOCKWISE = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
"""Camera frame of a picture -> camera frame of the picture rotated clockwise."""
_SQUARE, _SAME = 1e-4, 1e-3  # relative tolerances of square pixels, and of equal aspects
_FARTHEST, _WIDEST, _LONGEST, _ASIDE = 1e9, 1e-2, 1e4, 1e2  # world units; image heights of focal lengths and offsets


@dataclasses.dataclass(frozen=True)
class PhotoIntrinsics:
    """Intrinsics in pixels; (0, 0) is the upper left corner of the picture, pixel centres are at +1/2."""

    width: float | int
    height: float | int
    fx: float | int
    fy: float | int
    cx: float | int
    cy: float | int
    distortion: tuple[float | int, ...] = (0.0,) * 5
    """k1 k2 p1 p2 k3, as in `Camera.distortion`."""


@dataclasses.dataclass(frozen=True)
class PosedPhoto:
    """Photo of a reconstruction with its pose and intrinsics."""

    name: str
    photo: Path
    lens: PhotoIntrinsics
    pose: Float[np.ndarray, "4 4"]
    """Camera frame (x right, y down, z forward, of the stored photo) to world."""
    depth: Path | None = None
    mask: Path | None = None
    """Mask; pixels above 0 are kept."""


@dataclasses.dataclass(frozen=True)
class _PictureFile:
    """File of one picture of a view, its stored size, and its EXIF orientation."""

    file: Path
    rows: int
    columns: int
    orientation: int
    plain_jpeg: bool = False


@dataclasses.dataclass(frozen=True)
class PhotoPictures:
    """Pictures of views, decoded on demand: `Recording.pictures`."""

    layers: tuple[dict[str, _PictureFile], ...]
    """Channel -> file, for every view; rgb is always present."""
    step_m: float
    """One step of the depth files, m."""

    def __call__(self, indices: Sequence[int]) -> Iterator[dict[str, Any]]:
        """Yield the views at `indices` (not decreasing). Raises ValueError or OSError that names the file."""
        wanted, count = [int(i) for i in indices], len(self.layers)
        if any(b < a for a, b in itertools.pairwise(wanted)) or (wanted and not 0 <= wanted[0] <= wanted[-1] < count):
            raise ValueError(f"{self.layers[0]['rgb'].file}: indices of views must not decrease and lie in 0..{count - 1}")
        for index in wanted:
            layers = self.layers[index]
            upright_pictures = {name: upright(self._stored(name, layer), layer.orientation) for name, layer in layers.items()}
            rows, columns = upright_pictures["rgb"].shape[:2]
            pictures: dict[str, Any] = {
                name: resize(name, picture, rows, columns) for name, picture in upright_pictures.items()
            }
            if layers["rgb"].plain_jpeg:
                pictures["jpeg"] = layers["rgb"].file.read_bytes()
            yield pictures

    def _stored(self, name: str, layer: _PictureFile) -> np.ndarray:
        if name == "rgb":
            picture = load_stored_rgb(layer.file)
        else:
            with open_picture(layer.file) as image:
                picture = np.array(image if image.mode.startswith("I") else image.convert("RGB"))
        if picture.shape[:2] != (layer.rows, layer.columns):
            raise ValueError(
                f"{layer.file}: has {picture.shape[0]} x {picture.shape[1]} pixels, had {layer.rows} x {layer.columns}; "
                "it changed meanwhile"
            )
        if name == "depth":
            steps = np.rint(picture[..., None] * (self.step_m / channel("depth").step))
            picture = np.where(steps <= np.iinfo(np.uint16).max, steps, 0.0).astype(np.uint16)
        elif name == "instance":
            picture = picture.reshape(layer.rows, layer.columns, -1).any(-1, keepdims=True).astype(np.uint16)
        return np.asarray(picture)


def photo_recording(
    name: str, source: Path, files: Sequence[Path], photos: Sequence[PosedPhoto], notes: Sequence[str], step_m: float = 1e-3
) -> Recording:
    """Recording of photos, in the natural order of their names.

    `source` is named in errors, `files` are those of the reconstruction, `step_m` is one step of the depth files, m.
    Depth and masks become the channels depth and instance if every view has them. Raises ValueError that names the file, for
    invalid cameras, photos of another shape than in the reconstruction, and photos named twice.
    """
    photos = sorted(photos, key=lambda view: natural_order(view.name))
    if not photos:
        raise ValueError(f"{source}: holds no view; needed at least one photo with its camera")
    twice = next((b for a, b in itertools.pairwise(sorted(view.photo for view in photos)) if a == b), None)
    if twice is not None:
        raise ValueError(f"{source}: names the photo {twice} twice; needed one camera each")
    heads = [read_picture_head(view.photo) for view in photos]
    upright_cameras = [_upright_camera(view, head, source) for view, head in zip(photos, heads, strict=True)]
    all_notes = [*notes, *_picture_notes(photos, heads)]
    layers = [
        {"rgb": _PictureFile(view.photo, head.rows, head.columns, head.orientation, head.plain_jpeg)}
        for view, head in zip(photos, heads, strict=True)
    ]
    all_notes += _add_layers("depth", "depth", [view.depth for view in photos], layers)
    all_notes += _add_layers("instance", "mask", [view.mask for view in photos], layers)
    lenses = [lens for lens, _ in upright_cameras]
    camera, aspect, approximated = _camera(source, lenses, np.stack([pose for _, pose in upright_cameras]))
    return Recording(
        name=name,
        kind="views",
        time=np.arange(len(photos), dtype=np.float64),
        seconds=float(len(photos)),
        size=np.array([[round(lens.height), round(lens.width)] for lens in lenses]),
        channels=tuple(label for label in ("rgb", "depth", "instance") if label in layers[0]),
        pictures=PhotoPictures(tuple(layers), step_m),
        files=(*files, *(layer.file for row in layers for layer in row.values())),
        camera=camera,
        pixel_aspect=aspect,
        notes=(*all_notes, *approximated),
    )


def _same_shape(rows: float | int, columns: float | int, height: float | int, width: float | int) -> bool:
    """True if two sizes differ by a scale, up to rounding to whole pixels."""
    return abs(columns * height - rows * width) <= max(rows + columns, height + width)


def _upright_camera(view: PosedPhoto, head: PictureHead, source: Path) -> tuple[PhotoIntrinsics, Float[np.ndarray, "4 4"]]:
    """Intrinsics, in pixels of the upright photo, and pose. Raises ValueError that names the photo."""
    lens, quarters = view.lens, _QUARTERS.get(head.orientation)
    if quarters is None:
        raise ValueError(
            f"{view.photo}: EXIF orientation {head.orientation} mirrors it, which no camera does; save it as it is to be seen"
        )
    sides = [lens.width, lens.height, lens.fx, lens.fy]
    if not (np.isfinite([*sides, lens.cx, lens.cy, *lens.distortion]).all() and min(sides) > 0):
        raise ValueError(
            f"{source}: the camera of {view.name} is {lens}; needed finite numbers, sizes and focal lengths above 0"
        )
    rows, columns = head.rows, head.columns
    if not _same_shape(rows, columns, lens.height, lens.width):
        if quarters % 2 == 0 or not _same_shape(columns, rows, lens.height, lens.width):
            raise ValueError(
                f"{view.photo}: is {columns} pixels wide, {rows} high, in {source} {lens.width:g} and {lens.height:g}; "
                "needed the photos that it was made from, or copies of them"
            )
        rows, columns, quarters = columns, rows, 0  # made from the upright picture
    x, y = columns / lens.width, rows / lens.height
    lens = PhotoIntrinsics(columns, rows, lens.fx * x, lens.fy * y, lens.cx * x, lens.cy * y, lens.distortion)
    pose = view.pose
    for _ in range(quarters):
        lens, pose = _clockwise(lens), pose @ _CLOCKWISE.T
    return lens, pose


def _clockwise(lens: PhotoIntrinsics) -> PhotoIntrinsics:
    """Intrinsics of the picture rotated clockwise: x becomes y, and y counts from the other side."""
    k1, k2, p1, p2, k3 = lens.distortion
    return PhotoIntrinsics(lens.height, lens.width, lens.fy, lens.fx, lens.height - lens.cy, lens.cx, (k1, k2, p2, -p1, k3))


def _camera(
    source: Path, lenses: Sequence[PhotoIntrinsics], poses: Float[np.ndarray, "T 4 4"]
) -> tuple[Camera, float, list[str]]:
    """Cameras [T] of the pictures with square pixels, the aspect of their pixels, and notes on approximations. Raises
    ValueError for poses that are no rigid motions, and intrinsics out of range."""
    rotations = poses[:, :3, :3]
    rigid = np.isfinite(poses).all() and np.abs(poses).max() < _FARTHEST
    if not (
        rigid
        and np.allclose(rotations @ np.swapaxes(rotations, 1, 2), np.eye(3), atol=1e-2)
        and (np.linalg.det(rotations) > 0).all()
    ):
        raise ValueError(f"{source}: holds poses that are no rigid motions; needed rotations, and places within {_FARTHEST:g}")
    wide, high, fx, fy, cx, cy = np.array([dataclasses.astuple(lens)[:6] for lens in lenses], np.float64).T
    distortion = np.array([lens.distortion for lens in lenses], np.float64)
    aspects, notes = fy / fx, []
    aspect = float(aspects.mean())
    if abs(aspect - 1.0) < _SQUARE:
        aspect = 1.0
    off = float(np.abs(aspects / aspect - 1.0).max())
    if off > _SAME:
        notes.append(f"fx/fy varies: pixels count as {aspect:.4g} wide a height for all views, up to {100 * off:.2g} % off")
    focal, offset = fy / high, np.stack([(cx - 0.5 * wide) * aspect / high, (cy - 0.5 * high) / high], -1)
    if not ((focal > _WIDEST) & (focal < _LONGEST)).all() or np.abs(offset).max() > _ASIDE or not 0.05 < aspect < 20:
        raise ValueError(
            f"{source}: focal lengths of {focal.min():.3g} to {focal.max():.3g} image heights, principal points up to "
            f"{np.abs(offset).max():.3g} off the centre, pixels {aspect:.3g} as wide as high; no lens is like that"
        )
    notes += _folds(distortion, np.hypot(0.5 * wide * aspect / high + np.abs(offset[:, 0]), 0.5 + np.abs(offset[:, 1])) / focal)
    camera = Camera(
        poses[:, :3, 3].astype(np.float32),
        matrix_to_quaternion(rotations),
        focal.astype(np.float32),
        offset.astype(np.float32),
        distortion.astype(np.float32) if distortion.any() else None,
    )
    return camera, aspect, notes


def _folds(distortion: Float[np.ndarray, "T 5"], corner: Float[np.ndarray, " T"]) -> list[str]:
    """Note on the views whose distortion polynomial stops growing before the corners, at radius `corner`."""
    farthest = np.minimum(np.asarray(limit(distortion)), 1e3)
    s = farthest**2
    folds = farthest * (1 + s * (distortion[:, 0] + s * (distortion[:, 1] + s * distortion[:, 4]))) < corner
    bad = int(folds.sum())
    return [
        f"the distortion of {bad} of {len(distortion)} views folds before their corners: directions there are not known"
    ] * bool(bad)


def _picture_notes(photos: Sequence[PosedPhoto], heads: Sequence[PictureHead]) -> list[str]:
    """Notes on the conversions of photos and their cameras, and what they lose."""
    pairs = list(zip(photos, heads, strict=True))
    counts = {
        "are transparent in places: shown on black": sum(head.alpha for head in heads),
        "have more than 8 bits a component: scaled to 8": sum(head.deep for head in heads),
        "are in another colour space: brought to sRGB by their ICC profiles": sum(head.foreign for head in heads),
        "are turned upright by their EXIF orientation, their cameras with them": sum(head.orientation != 1 for head in heads),
        "are copies at another size than the reconstruction was made from: lenses scaled": sum(
            sorted((head.rows, head.columns)) != sorted((view.lens.height, view.lens.width)) for view, head in pairs
        ),
    }
    return [f"{count} of {len(heads)} photos {what}" for what, count in counts.items() if count]


def _add_layers(label: str, kind: str, files: Sequence[Path | None], layers: list[dict[str, _PictureFile]]) -> list[str]:
    """Add the channel `label` to `layers` if every view has its file; return notes. Raises ValueError that names a file."""
    present = [file for file in files if file is not None]
    if len(present) < len(files):
        return [f"{len(present)} of {len(files)} views have a {kind}: left out, for a channel needs all"] * bool(present)
    scaled = 0
    for file, layer in zip(present, layers, strict=True):
        head, rgb = read_picture_head(file), layer["rgb"]
        if label == "depth" and not head.mode.startswith("I"):
            raise ValueError(f"{file}: has {head.mode} pixels; needed a depth map of one component of 16 bits")
        orientation = rgb.orientation
        if not _same_shape(head.rows, head.columns, rgb.rows, rgb.columns):
            if orientation < 5 or not _same_shape(head.rows, head.columns, rgb.columns, rgb.rows):
                raise ValueError(
                    f"{file}: is {head.columns} pixels wide, {head.rows} high, its photo {rgb.columns} and {rgb.rows}; "
                    "needed one shape"
                )
            orientation = 1  # drawn on the upright photo
        layer[label] = _PictureFile(file, head.rows, head.columns, orientation)
        scaled += (head.rows, head.columns) not in ((rgb.rows, rgb.columns), (rgb.columns, rgb.rows))
    note = {
        "depth": "depth counts along the optical axis; beyond 65.535 m it is left out",
        "instance": "instance is a mask: 1 keep, 0 ignore",
    }[label]
    return [note, *[f"{scaled} {kind}s have another size than their photos: resized, nearest pixel"] * bool(scaled)]
