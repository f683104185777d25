"""transforms.json, the format of instant-ngp, nerfstudio and Blender's synthetic scenes: photos with poses and intrinsics.

Poses are camera to world, of a camera with x right, y up, z backwards; the world is z up. Intrinsics are in pixels from the
upper left corner, at the top level for all frames or inside a frame.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.recording.photos import PhotoIntrinsics, PosedPhoto, photo_recording
from data_pipelines.recording.reconstruction import (
    check_complete,
    find_file,
    folder_name,
    json_number,
    json_numbers,
    json_object,
    json_text,
    read_json,
)
from data_pipelines.recording.recording import Recording
from data_pipelines.recording.stills import natural_order, read_picture_head
from wsm_jax.typing import Float

_PERSPECTIVE = ("SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV")
_OTHERS = ("is_fisheye", "ftheta_p0", "latlong", "equirectangular", "orthographic")
"""Keys of instant-ngp's unsupported lenses."""
_AXES = ("from_na", "from_mitsuba")
"""Keys of unsupported axes of worlds and cameras."""
_PICTURES = (".jpg", ".jpeg", ".png", ".webp")
_OPENGL = np.diag([1.0, -1.0, -1.0, 1.0])
"""Camera frame with z forward -> camera frame with z backwards."""


def read_transforms(path: str | Path, *, allow_missing: bool = False) -> list[Recording]:
    """One recording of views for a transforms.json; for a folder, of its transforms.json or else of each transforms_*.json.

    Depth (16-bit png, 1 mm a step or `depth_unit_scale_factor` m) and masks become the channels depth and instance where every
    frame has one. Frames whose photos are missing are left out with `allow_missing`. Raises FileNotFoundError or ValueError
    that names the file: damaged, a lens that is not perspective, photos missing or outside the folder.
    """
    path = Path(path)
    if not path.is_dir():
        return [_recording(path, allow_missing)]
    files = [path / "transforms.json"]
    if not files[0].is_file():
        files = sorted(path.glob("transforms_*.json"), key=lambda file: natural_order(file.name))
    if not files:
        raise FileNotFoundError(f"{path}: holds no transforms.json")
    return [_recording(file, allow_missing) for file in files]


def _recording(source: Path, allow_missing: bool) -> Recording:
    top = json_object(read_json(source), str(source))
    frames = top.get("frames")
    if not isinstance(frames, list) or not frames:
        raise ValueError(f"{source}: has no frames; needed a list of them, each with file_path and transform_matrix")
    root = source.parent
    photos, missing, skipped = [], [], set[str]()
    for place, frame in enumerate(frames):
        context = f"{source}: frame {place}"
        frame = json_object(frame, context)
        name = json_text(frame.get("file_path"), f"{context}, file_path")
        photo = _photo(root, name, source)
        if photo is None:
            missing.append(name)
            continue
        view = PosedPhoto(name, photo, _lens({**top, **frame}, context, photo), _pose(frame, context))
        photos.append(_with_layers(view, frame, context, root, source, allow_missing, skipped))
    notes = check_complete(source, root, len(frames), missing, allow_missing)
    notes += ["not metric: distances have an unknown scale; z is taken to be up", *sorted(skipped)]
    step = json_number(top.get("depth_unit_scale_factor", 1e-3), f"{source}: depth_unit_scale_factor")
    if not 0 < step < 1e3:
        raise ValueError(f"{source}: depth_unit_scale_factor is {step:g}; needed the metres of one step, as 0.001")
    name = folder_name(root) + ("" if source.stem == "transforms" else f"/{source.stem}")
    return photo_recording(name, source, (source,), photos, notes, step)


def _photo(root: Path, name: str, source: Path) -> Path | None:
    """Photo of a path; .png is implied for a path without a suffix of pictures."""
    names = [name] if name.lower().endswith(_PICTURES) else [name, f"{name}.png"]
    return next((file for file in (find_file(root, each, (".",), source) for each in names) if file), None)


def _with_layers(
    view: PosedPhoto, frame: dict[str, Any], context: str, root: Path, source: Path, allow_missing: bool, skipped: set[str]
) -> PosedPhoto:
    """View with its depth and mask; notes on unsupported files are added to `skipped`. Raises FileNotFoundError."""
    files: dict[str, Path | None] = {}
    for kind, key in (("depth", "depth_file_path"), ("mask", "mask_path")):
        if frame.get(key) is None:
            continue
        name = json_text(frame[key], f"{context}, {key}")
        if not name.lower().endswith(_PICTURES):
            skipped.add(f"{kind} files that are no pictures are not read, as {Path(name).suffix or 'those without suffix'}")
            continue
        files[kind] = find_file(root, name, (".",), source)
        if files[kind] is None and not allow_missing:
            raise FileNotFoundError(f"{context}: its {key} {name} is not in {root}; add it, or allow_missing to do without")
    return PosedPhoto(view.name, view.photo, view.lens, view.pose, **files)


def _pose(frame: dict[str, Any], context: str) -> Float[np.ndarray, "4 4"]:
    """Camera to world. Raises ValueError."""
    rows = frame.get("transform_matrix")
    if isinstance(rows, list) and len(rows) == 3:
        rows = [*rows, [0, 0, 0, 1]]
    pose = json_numbers(rows, (4, 4), f"{context}, transform_matrix")
    if not np.allclose(pose[3], [0, 0, 0, 1]):
        raise ValueError(f"{context}, transform_matrix: its last row is {pose[3].tolist()}; needed 0 0 0 1")
    return pose @ _OPENGL


def _lens(fields: dict[str, Any], context: str, photo: Path) -> PhotoIntrinsics:
    """Intrinsics of a frame. Raises ValueError for missing or unsupported ones."""
    model = fields.get("camera_model", "OPENCV")
    other = [mark for mark in _OTHERS + _AXES if fields.get(mark)]
    if model not in _PERSPECTIVE or other:
        raise ValueError(
            f"{context}: has {other[0] if other else f'camera_model {model!r}'}; needed one of {', '.join(_PERSPECTIVE)}"
        )

    def value(key: str, default: float | None = None) -> float:
        return json_number(fields.get(key, default), f"{context}, {key}")

    def focal(key: str, angle_key: str, side: float | int) -> list[float]:
        if key in fields:
            return [value(key)]
        if angle_key not in fields:
            return []
        if not 0 < (angle := value(angle_key)) < math.pi:
            raise ValueError(f"{context}, {angle_key}: got {angle:g}; needed an angle of view in radians, up to pi")
        return [0.5 * side / math.tan(0.5 * angle)]

    if "w" in fields and "h" in fields:
        width, height = value("w"), value("h")
    else:
        head = read_picture_head(photo)
        width, height = head.columns, head.rows
    wide, high = focal("fl_x", "camera_angle_x", width), focal("fl_y", "camera_angle_y", height)
    if not wide + high:
        raise ValueError(f"{context}: has no focal length; needed fl_x or camera_angle_x, in it or at the top")
    fx, fy = (wide or high)[0], (high or wide)[0]
    if value("k4", 0.0):
        raise ValueError(f"{context}: k4 is {value('k4'):g}; needed 0: such a lens is not known, undistort the photos first")
    distortion = tuple(value(k, 0.0) for k in ("k1", "k2", "p1", "p2", "k3"))
    return PhotoIntrinsics(width, height, fx, fy, value("cx", 0.5 * width), value("cy", 0.5 * height), distortion)
