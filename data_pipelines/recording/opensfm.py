"""Reconstructions by OpenSfM: reconstruction.json, a list of reconstructions, beside images/ and perhaps masks/.

A shot has a pose, world to camera (x right, y down, z forward), its rotation as axis times angle. A camera counts in the longer
side of its picture, from the centre. The world is z up (east, north, up about the place that the photos' GPS gives).
"""

from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from data_pipelines.recording.photos import Lens, View, recorded
from data_pipelines.recording.reconstruction import folder_name, named_file, number, numbers, read_json, table, text
from data_pipelines.recording.recording import Recording
from data_pipelines.recording.stills import picture_head

_MODELS = {
    "perspective": ("k1", "k2"),
    "brown": ("k1", "k2", "p1", "p2", "k3"),
    "radial": ("k1", "k2"),
    "simple_radial": ("k1",),
}
"""Projections that a `Camera` describes, and their coefficients."""


def read_opensfm(path: str | Path) -> list[Recording]:
    """One recording of views for every reconstruction of a reconstruction.json (or of the folder that holds one).

    Only shots whose photos are there, in images/ or beside, are read. Where every one of them has a mask masks/NAME.png, the
    channel instance is 1 where it is above 0 and 0 where OpenSfM ignores the pixel. Cameras perspective, brown, radial and
    simple_radial. Raises FileNotFoundError or ValueError that names the file: damaged, another camera, no photo there.
    """
    path = Path(path)
    source = path / "reconstruction.json" if path.is_dir() else path
    found = read_json(source)
    if not isinstance(found, list) or not found:
        raise ValueError(f"{source}: holds no list of reconstructions; needed what OpenSfM writes as reconstruction.json")
    folder = source.parent
    name, recordings, empty, wanted = folder_name(folder), [], [], 0
    for place, reconstruction in enumerate(found):
        where = f"{source}: reconstruction {place}"
        shots = table(table(reconstruction, where).get("shots"), f"{where}, shots")
        wanted += len(shots)
        given = _views(folder, source, where, reconstruction, shots)
        if not given:
            empty.append(place)
            continue
        notes = ["not measured: distances in m follow the GPS of the photos, where they have it; z is taken to be up"]
        if len(given) < len(shots):
            notes.append(f"{len(shots) - len(given)} of {len(shots)} shots left out, their photos are missing")
        recordings.append(recorded(name if len(found) == 1 else f"{name}/{place}", source, (source,), given, notes))
    if not recordings:
        raise FileNotFoundError(
            f"{source}: none of the photos of its {wanted} shots is in {folder / 'images'} or {folder}; add them"
        )
    return recordings


def _views(folder: Path, source: Path, where: str, reconstruction: dict[str, Any], shots: dict[str, Any]) -> list[View]:
    """The shots whose photos are there. Raises ValueError that says `where` one is damaged."""
    cameras = table(reconstruction.get("cameras"), f"{where}, cameras")
    given = []
    for name, shot in shots.items():
        photo = named_file(folder, name, ("images", "."), source)
        if photo is None:
            continue
        here = f"{where}, shot {name}"
        shot = table(shot, here)
        camera = text(shot.get("camera"), f"{here}, camera")
        lens = _lens(table(cameras.get(camera), f"{where}, camera {camera}"), f"{where}, camera {camera}", photo)
        turn = Rotation.from_rotvec(numbers(shot.get("rotation"), (3,), f"{here}, rotation")).as_matrix()
        pose = np.eye(4)
        pose[:3, :3] = turn.T
        pose[:3, 3] = -turn.T @ numbers(shot.get("translation", [0, 0, 0]), (3,), f"{here}, translation")
        mask = named_file(folder, f"{name}.png", ("masks",), source)
        given.append(View(name, photo, lens, pose, mask=mask))
    return given


def _lens(camera: dict[str, Any], where: str, photo: Path) -> Lens:
    """Raises ValueError that says `where` a camera is one that cannot be described."""
    kind = camera.get("projection_type", "perspective")
    if kind not in tuple(_MODELS):
        raise ValueError(f"{where}: is {kind!r}; needed one of {', '.join(_MODELS)}: undistort the photos with OpenSfM first")

    def value(key: str, default: float | None = None) -> float:
        return number(camera.get(key, default), f"{where}, {key}")

    width, height = value("width", 0.0), value("height", 0.0)
    if not (width and height):
        head = picture_head(photo)
        width, height = head.columns, head.rows
    side = max(width, height)
    bend = tuple(value(k, 0.0) if k in _MODELS[kind] else 0.0 for k in ("k1", "k2", "p1", "p2", "k3"))
    if kind == "perspective":
        return Lens(width, height, value("focal") * side, value("focal") * side, 0.5 * width, 0.5 * height, bend)
    centre = (0.5 * width + value("c_x", 0.0) * side, 0.5 * height + value("c_y", 0.0) * side)
    return Lens(width, height, value("focal_x") * side, value("focal_y") * side, *centre, bend)
