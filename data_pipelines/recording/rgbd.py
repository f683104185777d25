"""Recordings with geometry: folders of RGB-D frames with camera poses, and coloured points with cameras.

An RGB-D folder holds color/ (or colour/, rgb/, image/), depth/ (16-bit PNG in mm), frames paired by name, and trajectory.log:
for every frame a line of numbers and four lines of a matrix, camera to world. The optional folder mask/ holds pictures with the
instance of every pixel, 1.. (0: unknown), consistent over all frames. A points file is .npz with means3d
[n 3] (m), colors [n 3] (bytes), and, if it has cameras, viewmats [k 4 4] (world to camera), Ks [k 3 3] (pixels), height and
width.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from data_pipelines.recording.stills import folder_files
from wsm_jax.core.exchange import array_file
from wsm_jax.core.fitting.observations import checked_depth, checked_points
from wsm_jax.snapshot import Camera
from wsm_jax.snapshot.camera import matrix_to_quaternion
from wsm_jax.typing import Float, Int

STRUCTURED_LIGHT = (525.0, 525.0, 319.5, 239.5)
"""Common fx, fy, cx, cy (pixels of 640 x 480) of PrimeSense sensors, for recordings without intrinsics."""
_FIELDS = ("means3d", "colors", "viewmats", "Ks", "height", "width")
_COLOURS = ("color", "colour", "rgb", "image")


@dataclasses.dataclass(frozen=True)
class Frame:
    """One RGB-D frame."""

    rgb: Float[np.ndarray, "H W 3"]
    """sRGB, 0..1."""
    depth: Float[np.ndarray, "H W"]
    """Along the optical axis, m; 0: not measured."""
    camera: Camera
    mask: Int[np.ndarray, "H W"] | None = None
    """Instance of every pixel, 1..; 0: unknown."""


@dataclasses.dataclass(frozen=True)
class Points:
    """Coloured point cloud with optional cameras."""

    points: Float[np.ndarray, "n 3"]
    """m"""
    colours: Float[np.ndarray, "n 3"]
    """sRGB, 0..1."""
    cameras: Camera | None
    """[k]"""
    height: int
    width: int
    """Size of the pictures of the cameras, pixels."""


def read_frames(
    folder: str | Path,
    intrinsics: Sequence[float | int] = STRUCTURED_LIGHT,
    *,
    most: int | None = None,
    shrink: int = 1,
    unit_m: float = 1e-3,
) -> list[Frame]:
    """Frames of an RGB-D folder, at most `most`; every `shrink`-th pixel is kept; `unit_m` is one step of the depth, m.

    Raises FileNotFoundError or ValueError that names the file: missing, unpaired, or implausible depth.
    """
    folder = Path(folder)
    colours, depths = colours_and_depths(folder)
    depths = depths[:most]
    poses = read_trajectory(folder / "trajectory.log")
    if len(poses) < len(depths):
        raise ValueError(f"{folder / 'trajectory.log'}: {len(poses)} poses for {len(depths)} frames; needed one each")
    masks = folder / "mask"
    frames = []
    for path, pose in zip(depths, poses, strict=False):
        frame = _frame(path, _beside(colours, path), pose, intrinsics, shrink, unit_m)
        if masks.is_dir():
            frame = dataclasses.replace(frame, mask=_mask(_beside(masks, path), frame.depth.shape, shrink))
        frames.append(frame)
    return frames


def colours_and_depths(folder: Path) -> tuple[Path, list[Path]]:
    """Folder of the pictures, and the depth maps in natural order. Raises FileNotFoundError."""
    colours = next((folder / name for name in _COLOURS if (folder / name).is_dir()), None)
    if colours is None or not (folder / "depth").is_dir():
        raise FileNotFoundError(f"{folder}: needed the folders depth and one of {', '.join(_COLOURS)}")
    depths = [file for file in folder_files(folder / "depth") if file.suffix.lower() == ".png"]
    if not depths:
        raise FileNotFoundError(f"{folder / 'depth'}: no .png in it; needed 16-bit depth maps")
    return colours, depths


def _beside(folder: Path, depth: Path) -> Path:
    """Picture of the same frame. Raises FileNotFoundError."""
    picture = next(iter(folder.glob(f"{depth.stem}.*")), None)
    if picture is None:
        raise FileNotFoundError(f"{folder}: no picture {depth.stem}.* for {depth}")
    return picture


def _mask(path: Path, shape: tuple[int, ...], shrink: int) -> Int[np.ndarray, "H W"]:
    try:
        mask = np.asarray(Image.open(path))
    except OSError as error:
        raise ValueError(f"{path}: no picture that can be read ({error})") from error
    kept = mask[::shrink, ::shrink]
    if mask.ndim != 2 or mask.dtype.kind not in "iub" or kept.shape != shape:
        raise ValueError(f"{path}: {mask.dtype} {mask.shape}; needed one channel of whole numbers, as large as the depth")
    return kept.astype(np.int32)


def _frame(path: Path, picture: Path, pose: np.ndarray, intrinsics: Sequence[float | int], shrink: int, unit_m: float) -> Frame:
    try:
        raw, photo = np.asarray(Image.open(path)), Image.open(picture).convert("RGB")
    except OSError as error:
        raise ValueError(f"{path} or {picture.name}: no picture that can be read ({error})") from error
    if raw.ndim != 2 or raw.dtype.kind not in "iu":
        raise ValueError(f"{path}: {raw.dtype} {raw.shape}; needed one channel of whole numbers (16-bit depth)")
    depth = checked_depth((raw * unit_m).astype(np.float32), str(path))[::shrink, ::shrink]
    height, width = depth.shape
    rgb = np.asarray(photo.resize((width, height), Image.Resampling.BOX), np.float32) / 255.0
    fx, fy, cx, cy = intrinsics
    if abs(fx / fy - 1.0) > 0.01:
        raise ValueError(f"intrinsics fx={fx:g}, fy={fy:g}; needed square pixels")
    full = raw.shape[0]
    offset = np.array([(cx + 0.5 - 0.5 * raw.shape[1]) / full, (cy + 0.5 - 0.5 * full) / full])
    offset = offset + 0.5 * (shrink - 1) / full  # every shrink-th pixel is the first of its block
    focal = np.full((), fy / full, np.float32)
    camera = Camera(pose[:3, 3].astype(np.float32), matrix_to_quaternion(pose[:3, :3]), focal, offset.astype(np.float32))
    return Frame(rgb, depth, camera)


def read_trajectory(path: str | Path) -> Float[np.ndarray, "K 4 4"]:
    """Poses, camera to world, of a trajectory.log. Raises FileNotFoundError, or ValueError that names the line."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; needed the camera poses")
    lines = [line.split() for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if len(lines) % 5 or not lines:
        raise ValueError(f"{path}: {len(lines)} lines; needed five a pose: its numbers, and a 4 x 4 matrix")
    poses = []
    for first in range(0, len(lines), 5):
        try:
            pose = np.array([[float(word) for word in line] for line in lines[first + 1 : first + 5]])
        except ValueError as error:
            raise ValueError(f"{path}: lines {first + 2} to {first + 5}: {error}") from error
        rotation = pose[:3, :3]
        rigid = (
            pose.shape == (4, 4) and np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) and np.linalg.det(rotation) > 0
        )
        if not rigid or not np.allclose(pose[3], (0, 0, 0, 1)) or not (np.abs(pose[:3, 3]) < 1e6).all():
            raise ValueError(f"{path}: lines {first + 2} to {first + 5} hold no rigid motion of 4 x 4 numbers")
        poses.append(pose)
    return np.stack(poses)


def read_points(path: str | Path) -> Points:
    """Read a points file. Raises FileNotFoundError or ValueError that names it and the defect."""
    path = Path(path)
    if path.suffix.lower() != ".npz":
        raise ValueError(f"{path}: needed .npz points or an RGB-D folder; meshes and point clouds: python -m launch.convert")
    data = array_file.members(path)
    if not {"means3d", "colors"} <= set(data):
        raise ValueError(f"{path}: holds {sorted(data)}; needed means3d and colors")
    for name, values in data.items():
        if name in _FIELDS and (values.dtype.kind not in "fiu" or not np.isfinite(values).all()):
            raise ValueError(f"{path}: {name} of type {values.dtype} holds what is no finite number; needed numbers")
    points = checked_points(data["means3d"], str(path), 1)
    if data["colors"].shape != points.shape:
        raise ValueError(f"{path}: means3d {points.shape}, colors {data['colors'].shape}; needed [n, 3] both")
    colours = data["colors"].astype(np.float32) / 255.0
    if colours.min() < 0 or colours.max() > 1:
        raise ValueError(f"{path}: colors {data['colors'].min():g}..{data['colors'].max():g}; needed 0..255")
    if not set(_FIELDS) <= set(data):
        return Points(points, colours, None, 0, 0)
    return Points(points, colours, *_cameras(data, str(path)))


def _cameras(data: dict[str, np.ndarray], source: str) -> tuple[Camera, int, int]:
    """Cameras [k], height and width. Raises ValueError that names `source` and the field."""
    views, lens = data["viewmats"].astype(np.float64), data["Ks"].astype(np.float64)
    count = len(views) if views.ndim == 3 else -1
    if views.shape != (count, 4, 4) or lens.shape != (count, 3, 3):
        raise ValueError(f"{source}: viewmats {views.shape}, Ks {lens.shape}; needed [k, 4, 4] and [k, 3, 3]")
    if data["height"].size != 1 or data["width"].size != 1 or min(data["height"].min(), data["width"].min()) < 2:
        raise ValueError(f"{source}: height {data['height']}, width {data['width']}; needed two whole numbers of pixels from 2")
    height, width = int(data["height"].item()), int(data["width"].item())
    rotation = views[:, :3, :3]
    if not np.allclose(rotation @ np.swapaxes(rotation, 1, 2), np.eye(3), atol=1e-2):
        raise ValueError(f"{source}: viewmats are no rigid motions, world to camera")
    if not (lens[:, 0, 0] > 0).all() or not (lens[:, 1, 1] > 0).all():
        raise ValueError(f"{source}: Ks with focal lengths {lens[:, [0, 1], [0, 1]].min():g} px; needed them above 0")
    world = np.linalg.inv(views)
    offset = (lens[:, :2, 2] - 0.5 * np.array([width, height])) / height
    focal = 0.5 * (lens[:, 0, 0] + lens[:, 1, 1]) / height
    rotation = matrix_to_quaternion(world[:, :3, :3])
    cameras = Camera(world[:, :3, 3].astype(np.float32), rotation, focal.astype(np.float32), offset.astype(np.float32))
    return cameras, height, width
