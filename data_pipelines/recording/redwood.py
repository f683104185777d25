"""RGB-D sequences in the layout of Redwood and Open3D: color/, depth/, trajectory.log [, mask/, intrinsics, times].

The folder is that of `rgbd`, optionally with camera_intrinsic.json or intrinsic.json in Open3D's format: width, height,
intrinsic_matrix (nine numbers, column by column), and, in recordings by Open3D, depth_scale (steps per metre) and fps. Times
are in timestamps.txt, one number per frame, or in the names of the pictures, <frame>-<microseconds> as in Redwood.
"""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.recording.depth_camera import (
    FrameFiles,
    OpenCVIntrinsics,
    RGBDPictures,
    checked_size,
    checked_unit,
    rgbd_recording,
)
from data_pipelines.recording.recording import Recording
from data_pipelines.recording.rgbd import STRUCTURED_LIGHT, colours_and_depths, read_trajectory
from data_pipelines.recording.stills import folder_files
from wsm_jax.snapshot.camera import matrix_to_quaternion
from wsm_jax.typing import Float

RATES_HZ = (1.0, 240.0)
"""Range of the rate of a depth camera; it determines the unit of timestamps.txt."""
_INTRINSICS = ("camera_intrinsic.json", "intrinsic.json")
_CLOCKS = {"s": 1.0, "ms": 1e-3, "microseconds": 1e-6, "ns": 1e-9}
_FRAME_AND_TIME = re.compile(r"(\d+)-(\d+)", re.ASCII)
_TEXT_BYTES = 2**24


def read_redwood(
    folder: str | Path,
    intrinsics: Sequence[float | int] | None = None,
    unit_m: float | int | None = None,
    rate_hz: float | int | None = None,
) -> Recording:
    """A folder in the layout of Redwood and Open3D.

    `intrinsics` are fx fy cx cy, or these and k1 k2 p1 p2 k3, pixels; the default is the folder's file, else those of
    PrimeSense. `unit_m` is one step of the depth (m); the default is that of the file, else 1 mm, the documented one. `rate_hz`
    is required if the folder has no times, and overrides them if it has.

    Raises FileNotFoundError or ValueError that names the file: what is missing, does not pair, is no picture or pose, has
    another size, a depth in other units, or no times.
    """
    folder = Path(folder)
    notes: list[str] = []
    shots = _paired(folder, notes)
    log = folder / "trajectory.log"
    poses = read_trajectory(log)
    if len(poses) != len(shots):
        raise ValueError(f"{log}: {len(poses)} poses for {len(shots)} depth maps; needed one each")
    if len(shots) < 2:
        raise ValueError(f"{folder}: {len(shots)} frame; needed 2 or more")
    size = checked_size(shots, notes)
    path = next((folder / name for name in _INTRINSICS if (folder / name).is_file()), None)
    stated = {} if path is None else _read_intrinsics_file(path)
    lens = _lens(folder, path, stated, intrinsics, size, notes)
    source, step = "as given", unit_m
    if step is None:
        source = "as its file says" if "depth_scale" in stated else "by the layout of the folder"
        step = 1 / stated.get("depth_scale", 1000.0)
    notes.append(f"depth is in steps of {step:g} m, {source}")
    unit = checked_unit(shots, size, step, notes)
    time, stamps = _times(folder, shots, rate_hz, stated.get("fps"), notes)
    notes.append("the world is that of trajectory.log: what is up in it is not known")
    texts = [file for file in (log, path, stamps) if file is not None]
    camera = lens.cameras(poses[:, :3, 3], matrix_to_quaternion(poses[:, :3, :3]), size)
    return rgbd_recording(folder, texts, RGBDPictures(shots, size, unit), time, lens, camera, notes)


def _paired(folder: Path, notes: list[str]) -> tuple[FrameFiles, ...]:
    """Files of every frame, in the order of their numbers. Raises FileNotFoundError or ValueError."""
    colours, depths = colours_and_depths(folder)
    masks = _by_name(folder / "mask") if (folder / "mask").is_dir() else None
    pictures = _by_name(colours)
    shots = []
    for depth in depths:
        colour, mask = pictures.get(_key(depth)), None if masks is None else masks.get(_key(depth))
        if colour is None or (masks is not None and mask is None):
            lacking = colours if colour is None else folder / "mask"
            raise FileNotFoundError(f"{lacking}: no picture {_key(depth)}* for {depth}; needed one for each depth map")
        shots.append(FrameFiles(colour, depth, mask))
    if len(shots) < len(pictures):
        notes.append(f"{len(pictures) - len(shots)} colour pictures have no depth and are left out")
    return tuple(shots)


def _key(file: Path) -> str:
    """Key shared by the files of one frame: their name, or the frame number before the time."""
    stamped = _FRAME_AND_TIME.fullmatch(file.stem)
    return f"{stamped[1]}-" if stamped else file.stem


def _by_name(folder: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for file in folder_files(folder):
        if (twin := files.setdefault(_key(file), file)) is not file:
            raise ValueError(f"{file}: is of the same frame as {twin.name}; needed one picture a frame")
    return files


def _read_intrinsics_file(path: Path) -> dict[str, Any]:
    """Content of a file of intrinsics: "lens" (fx fy cx cy), "size", optionally "depth_scale", "fps". Raises ValueError."""
    try:
        if path.stat().st_size > _TEXT_BYTES:
            raise ValueError("too large")
        whole = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: no JSON that can be read ({error}); needed intrinsics in Open3D's format") from error
    matrix, size = (
        (whole.get("intrinsic_matrix"), (whole.get("height"), whole.get("width"))) if isinstance(whole, dict) else ((), ())
    )
    if not isinstance(matrix, list) or len(matrix) != 9 or not all(_is_number(x) for x in (*matrix, *size)):
        raise ValueError(f"{path}: needed width, height and intrinsic_matrix, a list of nine numbers, as Open3D has them")
    fx, _, _, _, fy, _, cx, cy, _ = matrix
    if matrix != [fx, 0, 0, 0, fy, 0, cx, cy, 1]:
        raise ValueError(f"{path}: intrinsic_matrix {matrix}; needed fx 0 0 0 fy 0 cx cy 1, column after column")
    stated: dict[str, Any] = {"lens": (fx, fy, cx, cy), "size": size}
    for name in ("depth_scale", "fps"):
        if name in whole:
            if not _is_number(whole[name]) or not whole[name] > 0:
                raise ValueError(f"{path}: {name} is {whole[name]!r}; needed a number above 0")
            stated[name] = float(whole[name])
    return stated


def _is_number(x: Any) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool) and abs(x) < 1e12


def _lens(
    folder: Path,
    path: Path | None,
    stated: dict[str, Any],
    intrinsics: Sequence[float | int] | None,
    size: tuple[int, int],
    notes: list[str],
) -> OpenCVIntrinsics:
    if intrinsics is not None:
        return OpenCVIntrinsics.from_numbers(intrinsics, size, f"{folder}, as given")
    if path is not None:
        if stated["size"] != size:
            rows, columns = stated["size"]
            raise ValueError(
                f"{path}: is of {rows} x {columns} pixels, the pictures {size[0]} x {size[1]}; needed their intrinsics"
            )
        return OpenCVIntrinsics.from_numbers(stated["lens"], size, str(path))
    if size != (480, 640):
        raise ValueError(f"{folder}: pictures of {size[0]} x {size[1]} pixels; needed intrinsics, or {_INTRINSICS[0]} in it")
    notes.append("intrinsics are PrimeSense's default, 525 px without distortion: the folder names none")
    return OpenCVIntrinsics.from_numbers(STRUCTURED_LIGHT, size, str(folder))


def _times(
    folder: Path, shots: Sequence[FrameFiles], rate_hz: float | int | None, fps: float | None, notes: list[str]
) -> tuple[Float[np.ndarray, " T"], Path | None]:
    """Times from 0 (s), and their file, if any. Raises ValueError for missing times, and times that do not increase."""
    stamps = folder / "timestamps.txt"
    named = [_FRAME_AND_TIME.fullmatch(shot.colour.stem) for shot in shots]
    if rate_hz is None and stamps.is_file():
        return _stamped(stamps, len(shots), notes), stamps
    if rate_hz is None and all(named):
        time = np.array([float(match[2]) for match in named if match is not None]) * 1e-6
        notes.append("times are the microseconds in the names of the colour pictures")
        return _increasing(time, str(shots[0].colour.parent)), None
    rate = fps if rate_hz is None else rate_hz
    if rate is not None:
        if not RATES_HZ[0] / 100 <= rate <= RATES_HZ[1]:
            raise ValueError(f"{folder}: a rate of {rate:g} Hz; needed {RATES_HZ[0] / 100:g}..{RATES_HZ[1]:g}")
        notes.append(f"times are those of {rate:g} Hz, " + ("as its file says" if rate_hz is None else "as given"))
        return np.arange(len(shots)) / rate, None
    raise ValueError(
        f"{folder}: has no times (timestamps.txt, or pictures called <frame>-<microseconds>); needed rate_hz in Hz"
    )


def _stamped(path: Path, count: int, notes: list[str]) -> Float[np.ndarray, " T"]:
    """Times of timestamps.txt, in the unit (s, ms, microseconds or ns) that gives a plausible rate. Raises ValueError."""
    if path.stat().st_size > _TEXT_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size} bytes; needed a number for each frame")
    words = path.read_text(encoding="utf-8", errors="replace").split()
    try:
        time = np.array([float(word) for word in words])
    except ValueError as error:
        raise ValueError(f"{path}: {error}; needed a number for each frame, nothing else") from error
    if len(time) != count:
        raise ValueError(f"{path}: {len(time)} numbers for {count} frames; needed one each")
    time = _increasing(time, str(path))
    step = float(np.median(np.diff(time)))
    for name, scale in _CLOCKS.items():
        if (
            1 / RATES_HZ[1] <= step * scale <= 1 / RATES_HZ[0]
        ):  # the range spans less than a factor of 1000, so only one unit fits
            notes.append(f"timestamps.txt is in {name}, by the rate of {1 / (step * scale):.4g} Hz that this makes")
            return time * scale
    raise ValueError(f"{path}: steps of {step:g}; needed s, ms, microseconds or ns that make 1 to 240 Hz, or rate_hz")


def _increasing(time: Float[np.ndarray, " T"], source: str) -> Float[np.ndarray, " T"]:
    """Times relative to the first. Raises ValueError that names `source`."""
    if not (np.abs(time) < math.inf).all() or not (np.diff(time) > 0).all():
        raise ValueError(f"{source}: times that do not increase from frame to frame; needed them to, or rate_hz in their place")
    return time - time[0]
