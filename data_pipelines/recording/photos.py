"""Photos with known cameras: from what a reconstruction says of each to one recording of views.

A reconstruction knows its photos as their files store them: the tools that make it ignore the EXIF orientation. Recordings
show pictures upright, so the camera of a photo that is to be turned is turned with it. Where photos are smaller or larger
copies of those the reconstruction was made from, its lenses are scaled.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.recording.recording import Recording
from data_pipelines.recording.stills import Head, natural_order, opened, picture_head, stored_picture, upright
from wsm_jax.snapshot import Camera, channel, resize
from wsm_jax.snapshot.camera import matrix_to_quaternion
from wsm_jax.snapshot.lens import limit
from wsm_jax.typing import Float

_QUARTERS = {1: 0, 6: 1, 3: 2, 8: 3}
"""EXIF orientation -> clockwise quarter turns that show the picture upright."""
_CLOCKWISE = np.array([[0.0, -1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
"""Camera frame of a picture -> that of the picture turned clockwise."""
_SQUARE, _SAME = 1e-4, 1e-3  # relative: pixels this near to square are square, aspects this near to each other are one
_FARTHEST, _WIDEST, _LONGEST, _ASIDE = 1e9, 1e-2, 1e4, 1e2  # world units; image heights of focal lengths and offsets


@dataclasses.dataclass(frozen=True)
class Lens:
    """Intrinsics in pixels of a picture; (0, 0) is its upper left corner, pixel centres lie at +1/2."""

    width: float | int
    height: float | int
    fx: float | int
    fy: float | int
    cx: float | int
    cy: float | int
    bend: tuple[float | int, ...] = (0.0,) * 5
    """k1 k2 p1 p2 k3, as `Camera.distortion`."""


@dataclasses.dataclass(frozen=True)
class View:
    """What a reconstruction says of one photo."""

    name: str
    photo: Path
    lens: Lens
    pose: Float[np.ndarray, "4 4"]
    """Camera frame (x right, y down, z forward, of the photo as stored) to world."""
    depth: Path | None = None
    mask: Path | None = None
    """Its pixels above 0 are to be kept."""


@dataclasses.dataclass(frozen=True)
class _Layer:
    """One picture of a view: its file, its stored size, and the EXIF orientation by which it comes upright."""

    file: Path
    rows: int
    columns: int
    orientation: int
    plain_jpeg: bool = False


@dataclasses.dataclass(frozen=True)
class Photos:
    """The pictures of views, decoded on demand: `Recording.pictures`."""

    layers: tuple[dict[str, _Layer], ...]
    """Of every view, by channel; rgb is always there."""
    step_m: float
    """One step of the depth files, m."""

    def __call__(self, indices: Sequence[int]) -> Iterator[dict[str, Any]]:
        """The views at `indices` (not decreasing). Raises ValueError or OSError that names the file."""
        wanted, count = [int(i) for i in indices], len(self.layers)
        if any(b < a for a, b in itertools.pairwise(wanted)) or (wanted and not 0 <= wanted[0] <= wanted[-1] < count):
            raise ValueError(f"{self.layers[0]['rgb'].file}: indices of views must not decrease and lie in 0..{count - 1}")
        for index in wanted:
            layers = self.layers[index]
            shown = {name: upright(self._stored(name, layer), layer.orientation) for name, layer in layers.items()}
            rows, columns = shown["rgb"].shape[:2]
            pictures: dict[str, Any] = {name: resize(name, picture, rows, columns) for name, picture in shown.items()}
            if layers["rgb"].plain_jpeg:
                pictures["jpeg"] = layers["rgb"].file.read_bytes()
            yield pictures

    def _stored(self, name: str, layer: _Layer) -> np.ndarray:
        if name == "rgb":
            picture = stored_picture(layer.file)
        else:
            with opened(layer.file) as image:
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


def recorded(
    name: str, source: Path, files: Sequence[Path], given: Sequence[View], notes: Sequence[str], step_m: float = 1e-3
) -> Recording:
    """The recording of the `given` views, in the natural order of their names.

    `source` is named in errors, `files` are those of the reconstruction, `step_m` is one step of the depth files, m.
    Depth and masks become the channels depth and instance where every view has them. Raises ValueError that names the file, for
    cameras that are none, photos of another shape than the reconstruction says, photos named twice.
    """
    given = sorted(given, key=lambda view: natural_order(view.name))
    if not given:
        raise ValueError(f"{source}: holds no view; needed at least one photo with its camera")
    twice = next((b for a, b in itertools.pairwise(sorted(view.photo for view in given)) if a == b), None)
    if twice is not None:
        raise ValueError(f"{source}: names the photo {twice} twice; needed one camera each")
    heads = [picture_head(view.photo) for view in given]
    seen = [_seen(view, head, source) for view, head in zip(given, heads, strict=True)]
    said = [*notes, *_picture_notes(given, heads)]
    layers = [
        {"rgb": _Layer(view.photo, head.rows, head.columns, head.orientation, head.plain_jpeg)}
        for view, head in zip(given, heads, strict=True)
    ]
    said += _add_layers("depth", "depth", [view.depth for view in given], layers)
    said += _add_layers("instance", "mask", [view.mask for view in given], layers)
    lenses = [lens for lens, _ in seen]
    camera, aspect, approximated = _camera(source, lenses, np.stack([pose for _, pose in seen]))
    return Recording(
        name=name,
        kind="views",
        time=np.arange(len(given), dtype=np.float64),
        seconds=float(len(given)),
        size=np.array([[round(lens.height), round(lens.width)] for lens in lenses]),
        channels=tuple(label for label in ("rgb", "depth", "instance") if label in layers[0]),
        pictures=Photos(tuple(layers), step_m),
        files=(*files, *(layer.file for row in layers for layer in row.values())),
        camera=camera,
        pixel_aspect=aspect,
        notes=(*said, *approximated),
    )


def _copies(rows: float | int, columns: float | int, height: float | int, width: float | int) -> bool:
    """Whether two sizes are those of one picture, scaled, sides rounded to whole pixels."""
    return abs(columns * height - rows * width) <= max(rows + columns, height + width)


def _seen(view: View, head: Head, source: Path) -> tuple[Lens, Float[np.ndarray, "4 4"]]:
    """Lens, in pixels of the upright photo, and pose. Raises ValueError that names the photo."""
    lens, quarters = view.lens, _QUARTERS.get(head.orientation)
    if quarters is None:
        raise ValueError(
            f"{view.photo}: EXIF orientation {head.orientation} mirrors it, which no camera does; save it as it is to be seen"
        )
    sides = [lens.width, lens.height, lens.fx, lens.fy]
    if not (np.isfinite([*sides, lens.cx, lens.cy, *lens.bend]).all() and min(sides) > 0):
        raise ValueError(
            f"{source}: the camera of {view.name} is {lens}; needed finite numbers, sizes and focal lengths above 0"
        )
    rows, columns = head.rows, head.columns
    if not _copies(rows, columns, lens.height, lens.width):
        if quarters % 2 == 0 or not _copies(columns, rows, lens.height, lens.width):
            raise ValueError(
                f"{view.photo}: is {columns} pixels wide, {rows} high, in {source} {lens.width:g} and {lens.height:g}; "
                "needed the photos that it was made from, or copies of them"
            )
        rows, columns, quarters = columns, rows, 0  # made from the upright picture
    x, y = columns / lens.width, rows / lens.height
    lens = Lens(columns, rows, lens.fx * x, lens.fy * y, lens.cx * x, lens.cy * y, lens.bend)
    pose = view.pose
    for _ in range(quarters):
        lens, pose = _clockwise(lens), pose @ _CLOCKWISE.T
    return lens, pose


def _clockwise(lens: Lens) -> Lens:
    """The lens of the picture turned clockwise: what was x is y, what was y counts from the other side."""
    k1, k2, p1, p2, k3 = lens.bend
    return Lens(lens.height, lens.width, lens.fy, lens.fx, lens.height - lens.cy, lens.cx, (k1, k2, p2, -p1, k3))


def _camera(source: Path, lenses: Sequence[Lens], poses: Float[np.ndarray, "T 4 4"]) -> tuple[Camera, float, list[str]]:
    """Cameras [T] of the pictures with square pixels, the aspect of their pixels, and notes on what that approximates."""
    turn = poses[:, :3, :3]
    rigid = np.isfinite(poses).all() and np.abs(poses).max() < _FARTHEST
    if not (rigid and np.allclose(turn @ np.swapaxes(turn, 1, 2), np.eye(3), atol=1e-2) and (np.linalg.det(turn) > 0).all()):
        raise ValueError(f"{source}: holds poses that are no rigid motions; needed rotations, and places within {_FARTHEST:g}")
    wide, high, fx, fy, cx, cy = np.array([dataclasses.astuple(lens)[:6] for lens in lenses], np.float64).T
    bend = np.array([lens.bend for lens in lenses], np.float64)
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
    notes += _folds(bend, np.hypot(0.5 * wide * aspect / high + np.abs(offset[:, 0]), 0.5 + np.abs(offset[:, 1])) / focal)
    camera = Camera(
        poses[:, :3, 3].astype(np.float32),
        matrix_to_quaternion(turn),
        focal.astype(np.float32),
        offset.astype(np.float32),
        bend.astype(np.float32) if bend.any() else None,
    )
    return camera, aspect, notes


def _folds(bend: Float[np.ndarray, "T 5"], corner: Float[np.ndarray, " T"]) -> list[str]:
    """A note where the polynomial of a lens stops growing within the picture, whose corners lie that far out."""
    farthest = np.minimum(np.asarray(limit(bend)), 1e3)
    s = farthest**2
    folds = farthest * (1 + s * (bend[:, 0] + s * (bend[:, 1] + s * bend[:, 4]))) < corner
    bad = int(folds.sum())
    return [f"the distortion of {bad} of {len(bend)} views folds before their corners: directions there are not known"] * bool(
        bad
    )


def _picture_notes(given: Sequence[View], heads: Sequence[Head]) -> list[str]:
    """What is lost of the photos, or done to them and their cameras."""
    pairs = list(zip(given, heads, strict=True))
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


def _add_layers(label: str, kind: str, files: Sequence[Path | None], layers: list[dict[str, _Layer]]) -> list[str]:
    """Adds the channel `label` to the layers if every view has its file; notes. Raises ValueError that names a file."""
    present = [file for file in files if file is not None]
    if len(present) < len(files):
        return [f"{len(present)} of {len(files)} views have a {kind}: left out, for a channel needs all"] * bool(present)
    scaled = 0
    for file, layer in zip(present, layers, strict=True):
        head, rgb = picture_head(file), layer["rgb"]
        if label == "depth" and not head.mode.startswith("I"):
            raise ValueError(f"{file}: has {head.mode} pixels; needed a depth map of one component of 16 bits")
        orientation = rgb.orientation
        if not _copies(head.rows, head.columns, rgb.rows, rgb.columns):
            if orientation < 5 or not _copies(head.rows, head.columns, rgb.columns, rgb.rows):
                raise ValueError(
                    f"{file}: is {head.columns} pixels wide, {head.rows} high, its photo {rgb.columns} and {rgb.rows}; "
                    "needed one shape"
                )
            orientation = 1  # drawn on the upright photo
        layer[label] = _Layer(file, head.rows, head.columns, orientation)
        scaled += (head.rows, head.columns) not in ((rgb.rows, rgb.columns), (rgb.columns, rgb.rows))
    note = {
        "depth": "depth counts along the optical axis; beyond 65.535 m it is left out",
        "instance": "instance is a mask: 1 keep, 0 ignore",
    }[label]
    return [note, *[f"{scaled} {kind}s have another size than their photos: resized, nearest pixel"] * bool(scaled)]
