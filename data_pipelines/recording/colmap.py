"""Reconstructions by COLMAP: the files cameras and images of a sparse model, as text or binary, beside the photos.

A model has a pose for every photo (world to camera, x right, y down, z forward) and cameras in pixels from the upper left
corner. Its world has neither scale nor up direction. Points are not read.
"""

import math
import mmap
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
from scipy.spatial.transform import Rotation

from data_pipelines.recording.photos import PhotoIntrinsics, PosedPhoto, photo_recording
from data_pipelines.recording.reconstruction import check_complete, find_file, folder_name
from data_pipelines.recording.recording import Recording
from data_pipelines.recording.stills import natural_order
from wsm_jax.typing import Float

_MODELS = {
    0: ("SIMPLE_PINHOLE", "f cx cy"),
    1: ("PINHOLE", "fx fy cx cy"),
    2: ("SIMPLE_RADIAL", "f cx cy k1"),
    3: ("RADIAL", "f cx cy k1 k2"),
    4: ("OPENCV", "fx fy cx cy k1 k2 p1 p2"),
    6: ("FULL_OPENCV", "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6"),
}
"""Number in binary files -> name, and parameters in file order."""
_OTHER = {
    5: ("OPENCV_FISHEYE", 8),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
    11: ("RAD_TAN_THIN_PRISM_FISHEYE", 16),
}
"""Models that no `Camera` describes -> name, and number of parameters."""
_NAMES = dict(_MODELS.values())
_LONGEST_NAME = 4096  # bytes
_Record = TypeVar("_Record")


class _ColmapCamera(NamedTuple):
    model: str
    width: int
    height: int
    params: tuple[float, ...]


class _ColmapImage(NamedTuple):
    name: str
    camera: int
    rotation: tuple[float, ...]
    """Unit quaternion (w, x, y, z), world to camera."""
    translation: tuple[float, ...]


def read_colmap(folder: str | Path, *, allow_missing: bool = False) -> list[Recording]:
    """One recording of views for every model of a folder: in the folder, in sparse/0, sparse/1, ..., or in sparse.

    Photos are in images/ or in the folder. Binary files are preferred to text. Cameras are SIMPLE_PINHOLE, PINHOLE,
    SIMPLE_RADIAL, RADIAL, OPENCV, and FULL_OPENCV whose k4 to k6 are 0. Views without a photo are left out with
    `allow_missing`. Raises FileNotFoundError or ValueError that names the file: no model, damaged, unsupported camera, photos
    missing.
    """
    folder = Path(folder)
    models = _models(folder)
    name = folder_name(folder)
    return [
        _recording(name if len(models) == 1 else f"{name}/{model.name}", folder, model, suffix, allow_missing)
        for model, suffix in models
    ]


def _models(folder: Path) -> list[tuple[Path, str]]:
    """Folders of models, and the suffix of their files. Raises FileNotFoundError."""
    sparse = folder / "sparse"
    inner = sorted(sparse.iterdir(), key=lambda path: natural_order(path.name)) if sparse.is_dir() else []
    for group in ([folder], inner, [sparse]):
        models = []
        for path in group:
            both = [suffix for suffix in (".bin", ".txt") if (path / f"images{suffix}").is_file()]
            if both and not (path / f"cameras{both[0]}").is_file():
                raise FileNotFoundError(f"{path}: has images{both[0]} but no cameras{both[0]}; needed both")
            models += [(path, both[0])] if both else []
        if models:
            return models
    raise FileNotFoundError(
        f"{folder}: no COLMAP model: needed images and cameras (.bin or .txt) in it, in sparse/0 or in sparse"
    )


def _recording(name: str, folder: Path, model: Path, suffix: str, allow_missing: bool) -> Recording:
    cameras_file, images_file = model / f"cameras{suffix}", model / f"images{suffix}"
    if suffix == ".bin":
        cameras, images = _binary(cameras_file, _binary_camera), _binary(images_file, _binary_image)
    else:
        cameras, images = _text(cameras_file, _text_camera), _text(images_file, _text_image)
    by_number = dict(cameras)
    if len(by_number) < len(cameras):
        raise ValueError(f"{cameras_file}: {len(cameras)} cameras, {len(by_number)} different numbers; needed one number each")
    inside = model.relative_to(folder)
    photos, missing = [], []
    for image in images:
        if image.camera not in by_number:
            raise ValueError(
                f"{images_file}: {image.name} has camera {image.camera}, but {cameras_file.name} has no such number"
            )
        photo = find_file(folder, image.name, ("images", ".", str(inside / "images"), str(inside)), images_file)
        if photo is None:
            missing.append(image.name)
            continue
        lens = _lens(by_number[image.camera], f"{cameras_file}: camera {image.camera}")
        photos.append(PosedPhoto(image.name, photo, lens, _pose(image, images_file)))
    notes = check_complete(images_file, folder, len(images), missing, allow_missing)
    notes.append("not metric: distances have an unknown scale; which way is up is not known")
    return photo_recording(name, images_file, (cameras_file, images_file), photos, notes)


def _lens(camera: _ColmapCamera, context: str) -> PhotoIntrinsics:
    """Intrinsics of a camera. Raises ValueError for an unsupported one."""
    wanted = _NAMES.get(camera.model)
    if wanted is None:
        raise ValueError(
            f"{context}: is {camera.model}; needed one of {', '.join(_NAMES)}: undistort the photos with COLMAP first"
        )
    if len(camera.params) != len(wanted.split()):
        raise ValueError(f"{context}: {len(camera.params)} parameters; {camera.model} needs {wanted}")
    if not 0 < min(camera.width, camera.height) <= max(camera.width, camera.height) < 2**31:
        raise ValueError(f"{context}: is {camera.width} wide, {camera.height} high; needed pixels")
    p = dict(zip(wanted.split(), camera.params, strict=True))
    if any(p.get(k) for k in ("k4", "k5", "k6")):
        raise ValueError(
            f"{context}: k4, k5, k6 are {p['k4']:g}, {p['k5']:g}, {p['k6']:g}; needed 0: undistort the photos first"
        )
    distortion = tuple(p.get(k, 0.0) for k in ("k1", "k2", "p1", "p2", "k3"))
    fx, fy = (p["f"], p["f"]) if "f" in p else (p["fx"], p["fy"])
    return PhotoIntrinsics(camera.width, camera.height, fx, fy, p["cx"], p["cy"], distortion)


def _pose(image: _ColmapImage, source: Path) -> Float[np.ndarray, "4 4"]:
    """Camera to world. Raises ValueError for a quaternion that is not of unit length."""
    if not abs(math.hypot(*image.rotation) - 1.0) < 1e-2:
        raise ValueError(f"{source}: {image.name} has the quaternion {image.rotation}; needed one of length 1")
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_quat(image.rotation, scalar_first=True).as_matrix().T
    pose[:3, 3] = -pose[:3, :3] @ np.array(image.translation)
    return pose


def _text(file: Path, parse: Callable[[list[str], Iterator[str]], _Record]) -> list[_Record]:
    """Records that `parse` makes of the words of each line that is no comment, and of further lines. Raises ValueError."""
    records: list[_Record] = []
    promised = None
    try:
        with file.open(encoding="utf-8") as stream:
            for line in stream:
                match = re.match(r"# Number of (?:cameras|images): (\d{1,18})", line)
                promised = int(match[1]) if match else promised
                if line.strip() and not line.startswith("#"):
                    records.append(parse(line.strip().split(maxsplit=9), stream))
    except ValueError as error:
        raise ValueError(f"{file}: record {len(records) + 1}: {error}") from error
    if promised is not None and promised != len(records):
        raise ValueError(f"{file}: says that it holds {promised} records, but has {len(records)}; is it whole?")
    return records


def _text_camera(words: list[str], _: Iterator[str]) -> tuple[int, _ColmapCamera]:
    if len(words) < 5:
        raise ValueError(f"{len(words)} words; needed CAMERA_ID MODEL WIDTH HEIGHT PARAMS")
    params = " ".join(words[4:]).split()
    return int(words[0]), _ColmapCamera(words[1], int(words[2]), int(words[3]), tuple(map(float, params)))


def _text_image(words: list[str], following: Iterator[str]) -> _ColmapImage:
    if len(words) < 10:
        raise ValueError(f"{len(words)} words; needed IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME")
    if len(next(following, "").split()) % 3:
        raise ValueError("is not followed by a line of X Y POINT3D_ID, which may be empty")
    values = tuple(map(float, words[1:8]))
    return _ColmapImage(words[9], int(words[8]), values[:4], values[4:])


class _ByteReader:
    """Sequential reader of bytes; its methods raise ValueError past the end."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._at = data, 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def skip(self, count: int) -> None:
        if count > self.left:
            raise ValueError(f"needed {count} more bytes, {self.left} are left; is it whole?")
        self._at += count

    def take(self, form: str) -> tuple:
        """Next values, little endian."""
        start = self._at
        self.skip(struct.calcsize("<" + form))
        return struct.unpack_from("<" + form, self._data, start)

    def text(self) -> str:
        """Text up to the next zero byte."""
        end = self._data.find(b"\0", self._at, self._at + _LONGEST_NAME)
        if end < 0:
            raise ValueError(f"no name ends within {_LONGEST_NAME} bytes")
        value = self._data[self._at : end].decode("utf-8")
        self._at = end + 1
        return value


def _binary(file: Path, parse: Callable[[_ByteReader], _Record]) -> list[_Record]:
    """Records that `parse` makes of a binary file. Raises ValueError that names the file and the record."""
    records: list[_Record] = []
    try:
        with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
            read = _ByteReader(data)
            (count,) = read.take("Q")
            while len(records) < count:
                records.append(parse(read))
            if read.left:
                raise ValueError(f"{read.left} bytes follow the {count} records that it should hold")
    except ValueError as error:
        raise ValueError(f"{file}: record {len(records) + 1}: {error}") from error
    return records


def _binary_camera(read: _ByteReader) -> tuple[int, _ColmapCamera]:
    number, model, width, height = read.take("iiQQ")
    if model in _MODELS:
        name, count = _MODELS[model][0], len(_MODELS[model][1].split())
    elif model in _OTHER:
        name, count = _OTHER[model]
    else:
        raise ValueError(f"a camera of model {model}; needed one of {', '.join(_NAMES)}")
    return number, _ColmapCamera(name, width, height, read.take(f"{count}d"))


def _binary_image(read: _ByteReader) -> _ColmapImage:
    _, *pose, camera = read.take("I7dI")
    name = read.text()
    (points,) = read.take("Q")
    read.skip(24 * points)
    return _ColmapImage(name, camera, tuple(pose[:4]), tuple(pose[4:]))
