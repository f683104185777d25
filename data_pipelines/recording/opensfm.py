"""Reconstructions by OpenSfM: reconstruction.json, a list of reconstructions, beside images/ and optionally masks/.

A shot has a pose, world to camera (x right, y down, z forward), its rotation as axis times angle. The unit of a camera is the
longer side of its picture, from the centre. The world is z up (east, north, up around the GPS position of the photos).
"""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from data_pipelines.recording.photos import PhotoIntrinsics, PosedPhoto, photo_recording
from data_pipelines.recording.reconstruction import (
    find_file,
    folder_name,
    json_number,
    json_numbers,
    json_object,
    json_text,
    read_json,
)
from data_pipelines.recording.recording import Recording
from data_pipelines.recording.stills import read_picture_head

_MODELS = {
    "perspective": ("k1", "k2"),
    "brown": ("k1", "k2", "p1", "p2", "k3"),
    "radial": ("k1", "k2"),
    "simple_radial": ("k1",),
}
"""Supported projections -> their coefficients."""


def read_opensfm(path: str | Path) -> list[Recording]:
    """One recording of views for every reconstruction in a reconstruction.json, or in that of a folder.

    Only shots whose photos exist, in images/ or in the folder, are read. If each of them has a mask masks/NAME.png, the channel
    instance is 1 where the mask is above 0, and 0 where OpenSfM ignores the pixel. Cameras are perspective, brown, radial and
    simple_radial. Raises FileNotFoundError or ValueError that names the file: damaged, unsupported camera, no photo.
    """
    path = Path(path)
    source = path / "reconstruction.json" if path.is_dir() else path
    content = read_json(source)
    if not isinstance(content, list) or not content:
        raise ValueError(f"{source}: holds no list of reconstructions; needed what OpenSfM writes as reconstruction.json")
    folder = source.parent
    name, recordings, empty, wanted = folder_name(folder), [], [], 0
    for place, reconstruction in enumerate(content):
        context = f"{source}: reconstruction {place}"
        shots = json_object(json_object(reconstruction, context).get("shots"), f"{context}, shots")
        wanted += len(shots)
        photos = _views(folder, source, context, reconstruction, shots)
        if not photos:
            empty.append(place)
            continue
        notes = ["not measured: distances in m follow the GPS of the photos, where they have it; z is taken to be up"]
        if len(photos) < len(shots):
            notes.append(f"{len(shots) - len(photos)} of {len(shots)} shots left out, their photos are missing")
        recordings.append(photo_recording(name if len(content) == 1 else f"{name}/{place}", source, (source,), photos, notes))
    if not recordings:
        raise FileNotFoundError(
            f"{source}: none of the photos of its {wanted} shots is in {folder / 'images'} or {folder}; add them"
        )
    return recordings


def _views(folder: Path, source: Path, context: str, reconstruction: dict[str, Any], shots: dict[str, Any]) -> list[PosedPhoto]:
    """Shots whose photos exist. Raises ValueError that names a damaged one."""
    cameras = json_object(reconstruction.get("cameras"), f"{context}, cameras")
    photos = []
    for name, shot in shots.items():
        photo = find_file(folder, name, ("images", "."), source)
        if photo is None:
            continue
        here = f"{context}, shot {name}"
        shot = json_object(shot, here)
        camera = json_text(shot.get("camera"), f"{here}, camera")
        lens = _lens(json_object(cameras.get(camera), f"{context}, camera {camera}"), f"{context}, camera {camera}", photo)
        rotation = Rotation.from_rotvec(json_numbers(shot.get("rotation"), (3,), f"{here}, rotation")).as_matrix()
        pose = np.eye(4)
        pose[:3, :3] = rotation.T
        pose[:3, 3] = -rotation.T @ json_numbers(shot.get("translation", [0, 0, 0]), (3,), f"{here}, translation")
        mask = find_file(folder, f"{name}.png", ("masks",), source)
        photos.append(PosedPhoto(name, photo, lens, pose, mask=mask))
    return photos


def _lens(camera: dict[str, Any], context: str, photo: Path) -> PhotoIntrinsics:
    """Intrinsics of a camera. Raises ValueError for an unsupported one."""
    kind = camera.get("projection_type", "perspective")
    if kind not in tuple(_MODELS):
        raise ValueError(f"{context}: is {kind!r}; needed one of {', '.join(_MODELS)}: undistort the photos with OpenSfM first")

    def value(key: str, default: float | None = None) -> float:
        return json_number(camera.get(key, default), f"{context}, {key}")

    width, height = value("width", 0.0), value("height", 0.0)
    if not (width and height):
        head = read_picture_head(photo)
        width, height = head.columns, head.rows
    side = max(width, height)
    distortion = tuple(value(k, 0.0) if k in _MODELS[kind] else 0.0 for k in ("k1", "k2", "p1", "p2", "k3"))
    if kind == "perspective":
        return PhotoIntrinsics(
            width, height, value("focal") * side, value("focal") * side, 0.5 * width, 0.5 * height, distortion
        )
    centre = (0.5 * width + value("c_x", 0.0) * side, 0.5 * height + value("c_y", 0.0) * side)
    return PhotoIntrinsics(width, height, value("focal_x") * side, value("focal_y") * side, *centre, distortion)
