"""OpenSfM: points lie at the pixels of its cameras, those of a real reconstruction have the colours of its real photos."""

import json
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from data_pipelines.recording.opensfm import read_opensfm
from tests.data_pipelines.recording.posed import (
    BEND,
    CENTRED,
    COLUMNS,
    LENS,
    NAMES,
    ORDER,
    ROWS,
    SHIFTS,
    TURNS,
    VIEWS,
    check,
    pixels,
    refusals,
    shown,
    write_photos,
)
from wsm_jax.snapshot import project

SIDE = max(ROWS, COLUMNS)
OFF = {"focal_x": 60 / SIDE, "focal_y": 54 / SIDE, "c_x": 2.5 / SIDE, "c_y": -3.75 / SIDE}
CAMERAS = {
    "perspective": ({"focal": 60 / SIDE, "k1": 0.11, "k2": -0.04}, CENTRED | {"k1": 0.11, "k2": -0.04}),
    "brown": (OFF | BEND, LENS | BEND),
    "radial": (OFF | {"k1": 0.11, "k2": -0.04}, LENS | {"k1": 0.11, "k2": -0.04}),
    "simple_radial": (OFF | {"k1": 0.11}, LENS | {"k1": 0.11}),
}


def reconstruction(kind="brown", names=NAMES, **camera):
    fields = CAMERAS[kind][0] if kind in CAMERAS else {"focal": 0.9}
    camera = {"projection_type": kind, "width": COLUMNS, "height": ROWS} | fields | camera
    vectors = Rotation.from_matrix(TURNS).as_rotvec()
    shots = {
        name: {"rotation": vectors[view].tolist(), "translation": SHIFTS[view].tolist(), "camera": "c", "orientation": 1}
        for view, name in enumerate(names)
    }
    return {"cameras": {"c": camera}, "shots": shots, "points": {}}


def write(folder, *given):
    path = folder / "reconstruction.json"
    path.write_text(json.dumps(given))
    return path


@pytest.fixture
def folder(tmp_path):
    write_photos(tmp_path / "images")
    return tmp_path


@pytest.mark.parametrize("kind", CAMERAS)
@pytest.mark.parametrize("size", [{}, {"width": 0, "height": 0}, {"width": 2 * COLUMNS, "height": 2 * ROWS}])
def test_points_lie_at_the_pixels_of_the_camera(kind, size, folder):
    write(folder, reconstruction(kind, **size))
    (recording,) = read_opensfm(folder)
    check(pickle.loads(pickle.dumps(recording)), [CAMERAS[kind][1]] * VIEWS)
    assert recording.name == folder.name and any("GPS" in note for note in recording.notes)


def test_a_camera_counts_in_the_longer_side_of_a_portrait_too(folder):
    for name in NAMES:
        Image.new("RGB", (ROWS, COLUMNS)).save(folder / "images" / name)
    write(folder, reconstruction("brown", width=ROWS, height=COLUMNS))
    (recording,) = read_opensfm(folder)
    lens = LENS | BEND | {"cx": ROWS / 2 + 2.5, "cy": COLUMNS / 2 - 3.75}
    np.testing.assert_allclose(shown(recording, 0), pixels(ORDER[0], **lens), atol=2e-3)


def test_several_reconstructions_and_photos_that_are_not_there(folder):
    here, elsewhere = reconstruction(), reconstruction(names=("x.jpg", "y.jpg", "z.jpg"))
    path = write(folder, elsewhere, here, reconstruction(names=("a2.png", "x.jpg")))
    found = read_opensfm(path)
    assert [(recording.name, len(recording.time)) for recording in found] == [(f"{folder.name}/1", 3), (f"{folder.name}/2", 1)]
    assert "1 of 2 shots left out, their photos are missing" in found[1].notes
    with pytest.raises(FileNotFoundError, match=r"none of the photos of its 3 shots is in"):
        read_opensfm(write(folder, elsewhere))
    with pytest.raises(ValueError, match="lies outside"):
        read_opensfm(write(folder, reconstruction(names=("/etc/hostname",))))


def test_masks_of_all_shots_become_instances(folder):
    for view, name in enumerate(NAMES):
        mask = np.zeros((ROWS, COLUMNS), np.uint8)
        mask[view] = 255
        (folder / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).convert("RGB" if view else "L").save(folder / "masks" / f"{name}.png")
    write(folder, reconstruction())
    (recording,) = read_opensfm(folder)
    for index, picture in enumerate(recording.pictures([0, 1, 2])):
        rows = np.flatnonzero(picture["instance"].all((1, 2)))
        assert rows.tolist() == [ORDER[index]] and picture["instance"].sum() == COLUMNS
    (folder / "masks" / "a2.png.png").unlink()
    (recording,) = read_opensfm(folder)
    assert recording.channels == ("rgb",) and "2 of 3 views have a mask: left out, for a channel needs all" in recording.notes


def test_a_real_reconstruction_shows_its_points_in_their_colours(real_data):
    folder = real_data / "posed_photos" / "berlin"
    path = folder / "reconstruction_example.json"
    (recording,) = read_opensfm(path)
    assert (
        recording.name == "berlin"
        and recording.channels == ("rgb", "instance")
        and recording.size.tolist() == [[2448, 3264]] * 3
    )
    found = json.loads(path.read_text())[0]["points"].values()
    points, colours = (np.array([point[key] for point in found]) for key in ("coordinates", "color"))
    for index, picture in enumerate(recording.pictures([0, 1, 2])):
        assert picture["jpeg"] == (folder / "images" / f"0{index + 1}.jpg").read_bytes()
        assert np.unique(picture["instance"]).tolist() == [0, 1] and picture["instance"].mean() > 0.9
        canvas, depth = project(recording.camera[index], points, 3264 / 2448)
        place = np.floor(np.asarray(canvas) * 2448).astype(int)
        inside = (np.asarray(depth) > 0) & (place >= 0).all(1) & (place < [3264, 2448]).all(1)
        assert inside.mean() > 0.6
        seen = picture["rgb"][place[inside, 1], place[inside, 0]].astype(float)
        off = np.median(np.abs(seen - colours[inside]).mean(1))
        shuffled = np.median(np.abs(seen - np.random.default_rng(0).permutation(colours[inside])).mean(1))
        assert off < 10 < 60 < shuffled


def test_real_shots_without_photos_are_left_out(real_data, tmp_path):
    berlin = real_data / "posed_photos" / "berlin"
    (tmp_path / "images").mkdir()
    shutil.copy(berlin / "images" / "02.jpg", tmp_path / "images")
    shutil.copy(berlin / "reconstruction_example.json", tmp_path / "reconstruction.json")
    (recording,) = read_opensfm(tmp_path)
    assert len(recording.time) == 1 and "2 of 3 shots left out, their photos are missing" in recording.notes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda r: r["cameras"]["c"].update(projection_type="fisheye"),
            r"camera c: is 'fisheye'; needed one of perspective, brown",
        ),
        (lambda r: r["cameras"]["c"].update(projection_type=[]), "camera c: is "),
        (lambda r: r["cameras"].clear(), "reconstruction 0, camera c: got nothing; needed an object"),
        (lambda r: r["cameras"]["c"].pop("focal_x"), "camera c, focal_x: got nothing; needed a finite number"),
        (lambda r: r["cameras"]["c"].update(height=10), "a2.png: is 64 pixels wide, 48 high, in .* 64 and 10"),
        (lambda r: r["cameras"]["c"].update(width=-64), "sizes and focal lengths above 0"),
        (lambda r: r["shots"]["a2.png"].update(rotation=[0, 1]), r"shot a2.png, rotation: got \[0, 1\]; needed 3 numbers"),
        (lambda r: r["shots"]["a2.png"].update(translation=[0, 1, 1e300]), "no rigid motions"),
        (lambda r: r["shots"]["a2.png"].update(camera=3), "shot a2.png, camera: got 3"),
        (lambda r: r.pop("shots"), "reconstruction 0, shots: got nothing"),
    ],
)
def test_what_is_wrong_is_named(change, words, folder):
    given = reconstruction()
    change(given)
    with pytest.raises(ValueError, match=words) as caught:
        read_opensfm(write(folder, given))
    assert str(folder) in str(caught.value)


def test_files_that_are_none_are_named(folder):
    with pytest.raises(FileNotFoundError, match=r"reconstruction\.json: no such file"):
        read_opensfm(folder)
    for text in ("{}", "[]", "3"):
        (folder / "reconstruction.json").write_text(text)
        with pytest.raises(ValueError, match="holds no list of reconstructions"):
            read_opensfm(folder)


def test_damaged_files_are_read_or_refused(folder):
    path = write(folder, reconstruction())
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))
    assert refusals(read_opensfm, folder, [path]) > 100
