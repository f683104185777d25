"""RGB-D sequences in the layout of the TUM benchmark (Sturm et al. 2012): lists of times, and poses by motion capture.

A folder holds rgb.txt and depth.txt (each line a time in s and the name of a picture), 16-bit depth registered to the colour
pictures, and groundtruth.txt: time, position (m) and quaternion (x y z w) of the colour camera, camera to world. Lines that
start with # are comments. The three share one clock and have different rates.
"""

import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from data_pipelines.recording.depth_camera import (
    FrameFiles,
    OpenCVIntrinsics,
    RGBDPictures,
    checked_size,
    checked_unit,
    rgbd_recording,
)
from data_pipelines.recording.recording import Recording
from data_pipelines.recording.rgbd import STRUCTURED_LIGHT
from wsm_jax.typing import Bool, Float, Int

DEPTH_APART_S = 0.02
"""Largest time between a colour picture and its depth."""
POSES_APART_S = 0.1
"""Largest time between the two poses around a frame."""
UNIT_M = 1 / 5000
"""One step of TUM's depth."""
LENSES = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3, 0.2624, -0.9531, -0.0054, 0.0026, 1.1633),
    "freiburg2": (520.9, 521.0, 325.1, 249.7, 0.2312, -0.7849, -0.0033, -0.0001, 0.9172),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
}
"""Documented fx fy cx cy (pixels of 640 x 480) and k1 k2 p1 p2 k3 of the benchmark's colour cameras."""
_TEXT_BYTES = 2**27


def read_tum(
    folder: str | Path, *, unit_m: float | int | None = None, intrinsics: Sequence[float | int] | None = None
) -> Recording:
    """Read a folder in TUM's layout; its frames are the colour pictures with depth and poses near them in time.

    `unit_m` is one step of the depth (m), default 1/5000; it is required without groundtruth.txt, because the folder may be of
    another sensor. `intrinsics` are fx fy cx cy, or these and k1 k2 p1 p2 k3, pixels; the default is that documented for
    freiburg1, 2 or 3, by the name of the folder, else that of ROS. Without groundtruth.txt there is no camera.

    Raises FileNotFoundError or ValueError that names the file and line.
    """
    folder = Path(folder)
    notes: list[str] = []
    (seen, colour), (measured, depth) = (_listed(folder / name, notes) for name in ("rgb.txt", "depth.txt"))
    truth = folder / "groundtruth.txt"
    if unit_m is None and not truth.is_file():
        raise FileNotFoundError(
            f"{truth}: no such file, so the depth may not be TUM's; needed it, or a step of depth as unit_m"
        )
    nearest = _nearest(measured, seen)
    apart = np.abs(measured[nearest] - seen)
    kept = _within(apart, DEPTH_APART_S)
    _count(notes, ~kept, f"colour pictures have no depth within {DEPTH_APART_S} s and are left out")
    position = rotation = None
    if truth.is_file():
        position, rotation, known = _poses(truth, seen, notes)
        _count(notes, kept & ~known, f"frames are not between two poses within {POSES_APART_S} s and are left out")
        kept = kept & known
    if np.count_nonzero(kept) < 2:
        raise ValueError(f"{folder}: {np.count_nonzero(kept)} frames with colour, depth and pose at one time; needed 2 or more")
    shots = tuple(FrameFiles(colour[i], depth[nearest[i]]) for i in np.flatnonzero(kept))
    size = checked_size(shots, notes)
    lens = _lens(folder, intrinsics, size, notes)
    if unit_m is None:
        notes.append("depth is in TUM's steps of 1/5000 m, by the layout of the folder")
    unit = checked_unit(shots, size, UNIT_M if unit_m is None else unit_m, notes)
    notes.append(f"depth is measured up to {1000 * apart[kept].max():.1f} ms before or after its colour picture")
    camera = None
    if position is None or rotation is None:
        notes.append("no groundtruth.txt, so no camera")
    else:
        camera = lens.cameras(position[kept], rotation[kept], size)
        notes.append("poses are interpolated between those of groundtruth.txt; z of its world is taken for up")
    time = seen[kept] - seen[kept][0]
    texts = [folder / name for name in ("rgb.txt", "depth.txt")] + [truth] * truth.is_file()
    return rgbd_recording(folder, texts, RGBDPictures(shots, size, unit), time, lens, camera, notes)


def _rows(path: Path) -> list[tuple[int, float, list[str]]]:
    """(line number, time, other words) of every line. Raises FileNotFoundError, or ValueError that names the line."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; needed the layout of the TUM benchmark: rgb.txt, depth.txt")
    if path.stat().st_size > _TEXT_BYTES:
        raise ValueError(f"{path}: {path.stat().st_size} bytes; needed a list of frames or poses")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").split("\n"), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        first, *others = line.replace(",", " ").split()
        try:
            time = float(first)
        except ValueError:
            time = math.nan
        if not abs(time) < 1e12:
            raise ValueError(f"{path}: line {number} begins with {first[:40]!r}; needed a time in s")
        rows.append((number, time, others))
    if not rows:
        raise ValueError(f"{path}: no line of data in it; needed a time and what is at it, each line")
    return rows


def _in_order(path: Path, time: Float[np.ndarray, " n"], notes: list[str]) -> Int[np.ndarray, " m"]:
    """Indices that sort the times and keep the first of equal ones; adds changes to `notes`."""
    if np.any(np.diff(time) < 0):
        notes.append(f"{path.name} was not in order of time and is sorted")
    order = np.unique(time, return_index=True)[1]  # the first of those at one time
    if len(order) < len(time):
        notes.append(f"{path.name} has {len(time) - len(order)} lines at times of lines before, left out")
    return order


def _listed(path: Path, notes: list[str]) -> tuple[Float[np.ndarray, " n"], list[Path]]:
    """Increasing times, and files, of a list of pictures. Raises FileNotFoundError or ValueError."""
    rows = _rows(path)
    for number, _, words in rows:
        if len(words) != 1 or Path(words[0]).is_absolute() or ".." in Path(words[0]).parts:
            raise ValueError(f"{path}: line {number} holds {len(words) + 1} words; needed a time and a file inside the folder")
    time = np.array([row[1] for row in rows])
    order = _in_order(path, time, notes)
    return time[order], [path.parent / rows[i][2][0] for i in order]


def _poses(
    path: Path, at: Float[np.ndarray, " T"], notes: list[str]
) -> tuple[Float[np.ndarray, "T 3"], Float[np.ndarray, "T 4"], Bool[np.ndarray, " T"]]:
    """Position and rotation (w x y z) at the times `at`, and a mask of the known ones; the others are invalid."""
    rows = _rows(path)
    values = np.empty((len(rows), 7))
    for i, (number, _, words) in enumerate(rows):
        try:
            values[i] = [float(word) for word in words]
        except ValueError:
            values[i] = math.nan
        if not (np.abs(values[i, :3]) < 1e6).all() or not abs(np.linalg.norm(values[i, 3:]) - 1) < 1e-2:
            raise ValueError(
                f"{path}: line {number} holds no pose; needed time, tx ty tz (m), and a unit quaternion qx qy qz qw"
            )
    time = np.array([row[1] for row in rows])
    order = _in_order(path, time, notes)
    time, values = time[order], values[order]
    if len(time) < 2:
        raise ValueError(f"{path}: one pose; needed 2 or more")
    after = np.clip(np.searchsorted(time, at), 1, len(time) - 1)  # time[after - 1] < at <= time[after]
    exact = (at == time[after]) | (at == time[after - 1])
    known = (at >= time[0]) & (at <= time[-1]) & (exact | _within(time[after] - time[after - 1], POSES_APART_S))
    inside = np.clip(at, time[0], time[-1])
    position = np.stack([np.interp(inside, time, values[:, k]) for k in range(3)], -1)
    turned = Slerp(time - time[0], Rotation.from_quat(values[:, 3:]))(inside - time[0])
    return position, turned.as_quat(canonical=True, scalar_first=True), known


def _nearest(time: Float[np.ndarray, " n"], at: Float[np.ndarray, " T"]) -> Int[np.ndarray, " T"]:
    """Index in the increasing `time` nearest to each of `at`."""
    after = np.clip(np.searchsorted(time, at), 1, max(len(time) - 1, 1))
    before, after = after - 1, np.minimum(after, len(time) - 1)
    return np.where(at - time[before] <= time[after] - at, before, after)


def _within(apart: np.ndarray, limit: float) -> np.ndarray:
    return apart <= limit + 1e-6  # float64 has 2e-7 s left of a time since 1970


def _count(notes: list[str], lost: np.ndarray, what: str) -> None:
    if lost.any():
        notes.append(f"{np.count_nonzero(lost)} of {len(lost)} {what}")


def _lens(folder: Path, intrinsics: Sequence[float | int] | None, size: tuple[int, int], notes: list[str]) -> OpenCVIntrinsics:
    if intrinsics is not None:
        return OpenCVIntrinsics.from_numbers(intrinsics, size, f"{folder}, as given")
    if size != (480, 640):
        raise ValueError(f"{folder}: pictures of {size[0]} x {size[1]} pixels; needed their intrinsics, or TUM's 480 x 640")
    name = re.search(r"freiburg[123]", folder.resolve().name)
    notes.append(
        f"intrinsics are those documented for {name[0]}, by the name of the folder"
        if name
        else "intrinsics are the default of ROS, 525 px without distortion: the folder is not called freiburg1, 2 or 3"
    )
    return OpenCVIntrinsics.from_numbers(LENSES[name[0]] if name else STRUCTURED_LIGHT, size, str(folder))
