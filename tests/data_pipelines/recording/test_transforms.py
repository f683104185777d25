"""transforms.json: points lie at the pixels that it says, whatever form its lens has; depth, masks, and what is refused."""

import json
import math
import pickle

import numpy as np
import pytest
from PIL import Image

from data_pipelines.recording.transforms import read_transforms
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
    level,
    refusals,
    write_photos,
)

TOP = {"fl_x": 60.0, "fl_y": 54.0, "cx": 34.5, "cy": 20.25, "w": COLUMNS, "h": ROWS}


def opengl_pose(view):
    """Camera to world, of a camera that looks along its -z with y up."""
    pose = np.eye(4)
    pose[:3, :3] = TURNS[view].T @ np.diag([1.0, -1.0, -1.0])
    pose[:3, 3] = -TURNS[view].T @ SHIFTS[view]
    return pose.tolist()


def frames(**fields):
    """Frames of all views; a value that is a list has one entry a view."""
    return [
        {"file_path": name, "transform_matrix": opengl_pose(view)}
        | {key: value[view] if isinstance(value, list) else value for key, value in fields.items()}
        for view, name in enumerate(NAMES)
    ]


def write(folder, top, given=None, name="transforms.json"):
    path = folder / name
    path.write_text(json.dumps(top | {"frames": frames() if given is None else given}))
    return path


@pytest.fixture
def folder(tmp_path):
    return write_photos(tmp_path)


FORMS = {
    "all at the top": (TOP | BEND | {"camera_model": "OPENCV"}, {}, [LENS | BEND] * VIEWS),
    "one focal length": ({"fl_x": 60.0}, {}, [CENTRED] * VIEWS),
    "angle of view": ({"camera_angle_x": 2 * math.atan(32 / 60)}, {}, [CENTRED] * VIEWS),
    "two angles": (
        {"camera_angle_x": 2 * math.atan(32 / 60), "camera_angle_y": 2 * math.atan(24 / 54)},
        {},
        [CENTRED | {"fy": 54.0}] * VIEWS,
    ),
    "angle and centre": (
        {"camera_angle_x": 2 * math.atan(32 / 60), "cx": 34.5, "cy": 20.25},
        {},
        [LENS | {"fy": 60.0}] * VIEWS,
    ),
    "a lens a frame": (
        {"k1": 0.05},
        {"fl_x": [60.0, 50.0, 70.0], "cx": [30.0, 31.0, 33.5], "k1": [0.1, -0.05, 0.2]},
        [CENTRED | {"fx": f, "fy": f, "cx": c, "k1": k} for f, c, k in ((60, 30, 0.1), (50, 31, -0.05), (70, 33.5, 0.2))],
    ),
    "of a copy of twice the size": (
        {"fl_x": 120.0, "fl_y": 108.0, "cx": 69.0, "cy": 40.5, "w": 2 * COLUMNS, "h": 2.0 * ROWS, "p1": 0.013},
        {},
        [LENS | {"p1": 0.013}] * VIEWS,
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_points_lie_at_the_pixels_of_the_lens(form, folder):
    top, fields, lenses = FORMS[form]
    (recording,) = read_transforms(write(folder, top, frames(**fields)))
    check(pickle.loads(pickle.dumps(recording)), lenses)
    assert any("not metric" in note for note in recording.notes) and recording.name == folder.name
    assert any("lenses scaled" in note for note in recording.notes) == (form == "of a copy of twice the size")


def test_pixels_of_several_shapes_count_as_one_and_it_is_noted(folder):
    given = frames(fl_x=[60.0, 50.0, 55.0], fl_y=[60.0, 49.0, 55.0])
    (recording,) = read_transforms(write(folder, {"cx": 34.5, "cy": 20.25}, given))
    assert recording.pixel_aspect == pytest.approx((1 + 0.98 + 1) / 3)
    np.testing.assert_allclose(np.asarray(recording.camera.focal) * ROWS, [49.0, 60.0, 55.0], rtol=1e-6)
    assert any(note.startswith("fx/fy varies") and "1.3 % off" in note for note in recording.notes)
    given = frames(fl_x=60.0, fl_y=[54.0, 54.02, 54.01])
    (recording,) = read_transforms(write(folder, {}, given))
    assert recording.pixel_aspect == pytest.approx(0.9, rel=1e-3) and not any("varies" in note for note in recording.notes)


def test_paths_without_suffix_and_folders_of_splits(folder):
    given = [frames()[1] | {"file_path": "./a2"}]
    for split in ("test", "train"):
        write(folder, TOP, given, f"transforms_{split}.json")
    found = read_transforms(folder)
    assert [recording.name for recording in found] == [f"{folder.name}/transforms_{split}" for split in ("test", "train")]
    assert found[0].files == (folder / "transforms_test.json", folder / "a2.png")
    write(folder, TOP)
    assert [recording.name for recording in read_transforms(folder)] == [folder.name]


def test_missing_photos_are_refused_or_left_out(folder):
    given = frames()
    given[1]["file_path"] = "gone"
    path = write(folder, TOP, given)
    with pytest.raises(
        FileNotFoundError, match=r"transforms\.json: 1 of its 3 photos are not in .*first gone; .*allow_missing"
    ):
        read_transforms(path)
    (recording,) = read_transforms(path, allow_missing=True)
    assert len(recording.time) == 2 and "1 of 3 views left out, their photos are missing: first gone" in recording.notes
    with pytest.raises(FileNotFoundError, match="first gone"):
        read_transforms(write(folder, TOP, given[1:2]), allow_missing=True)


def test_depth_becomes_millimetres_and_masks_instances(folder):
    for view in range(VIEWS):
        depth = np.zeros((ROWS, COLUMNS), np.uint16)
        depth[5, 7], depth[6, 7] = 2000 + view, 40000
        Image.fromarray(depth).save(folder / f"d{view}.png")
        mask = np.zeros((ROWS // 2, COLUMNS // 2), np.uint8)  # of half the size
        mask[3, view] = 1
        Image.fromarray(mask).save(folder / f"m{view}.png")
    paths = {kind: [f"{kind}{view}.png" for view in range(VIEWS)] for kind in "dm"}
    given = frames(depth_file_path=paths["d"], mask_path=paths["m"])
    for unit in (None, 0.002):
        top = TOP if unit is None else TOP | {"depth_unit_scale_factor": unit}
        (recording,) = read_transforms(write(folder, top, given))
        assert recording.channels == ("rgb", "depth", "instance")
        for index, picture in enumerate(recording.pictures([0, 1, 2])):
            depth, mask = picture["depth"], picture["instance"]
            assert depth.dtype == mask.dtype == np.uint16 and depth.shape == mask.shape == (ROWS, COLUMNS, 1)
            assert depth[5, 7, 0] == (2000 + ORDER[index]) * (2 if unit else 1)
            assert depth[6, 7, 0] == (0 if unit else 40000)  # 80 m do not fit
            column = 2 * ORDER[index]
            assert mask.sum() == 4 and mask[6:8, column : column + 2].all()
    assert any("resized" in note for note in recording.notes)
    for key in ("depth_file_path", "mask_path"):
        some = [{k: v for k, v in frame.items() if k != key or n} for n, frame in enumerate(given)]
        (recording,) = read_transforms(write(folder, TOP, some))
        assert recording.channels == ("rgb", "instance" if key == "depth_file_path" else "depth")
        assert any("2 of 3 views have a" in note for note in recording.notes)
    (folder / "d0.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"frame 0: its depth_file_path d0\.png is not in"):
        read_transforms(write(folder, TOP, given))
    assert read_transforms(folder, allow_missing=True)[0].channels == ("rgb", "instance")
    Image.fromarray(np.zeros((ROWS, COLUMNS), np.uint8)).save(folder / "d0.png")
    with pytest.raises(ValueError, match=r"d0\.png: has L pixels; needed a depth map of one component of 16 bits"):
        read_transforms(folder)
    Image.fromarray(np.zeros((COLUMNS, ROWS), np.uint16)).save(folder / "d0.png")
    with pytest.raises(ValueError, match=r"d0\.png: is 48 pixels wide, 64 high, its photo 64 and 48"):
        read_transforms(folder)
    (recording,) = read_transforms(write(folder, TOP, frames(depth_file_path="depth.npy")))
    assert recording.channels == ("rgb",) and any("not read, as .npy" in note for note in recording.notes)


def test_photos_outside_of_the_folder_are_refused(folder, tmp_path_factory):
    other = write_photos(tmp_path_factory.mktemp("other"))
    for key in ("file_path", "mask_path", "depth_file_path"):
        for name in (str(other / "a2.png"), f"../{other.name}/a2.png", "/etc/passwd.png"):
            with pytest.raises(ValueError, match=r"transforms\.json: names .* which lies outside .* copy them there"):
                read_transforms(write(folder, TOP, frames(**{key: name})), allow_missing=True)
    for name in (str(folder / "a2.png"), "b/../a2.png", "images/../a2", str(folder / "a2")):
        (recording,) = read_transforms(write(folder, TOP, [frames()[1] | {"file_path": name}]))
        assert recording.files[-1] == folder / "a2.png"
    (folder / "link").symlink_to(other)  # the folder's own doing
    (recording,) = read_transforms(write(folder, TOP, [frames()[0], frames()[1] | {"file_path": "link/a2.png"}]))
    assert next(recording.pictures([1]))["rgb"][0, 0, 0] == level(1)


MATRIX = np.eye(4).tolist()


@pytest.mark.parametrize(
    ("top", "fields", "words"),
    [
        ({"camera_model": "OPENCV_FISHEYE"}, {}, r"frame 0: has camera_model 'OPENCV_FISHEYE'; needed one of SIMPLE_PINHOLE"),
        ({"camera_model": "EQUIRECTANGULAR"}, {}, "EQUIRECTANGULAR"),
        ({"camera_model": ["OPENCV"]}, {}, "has camera_model"),
        ({"is_fisheye": True}, {}, "has is_fisheye"),
        ({"from_na": True}, {}, "has from_na"),
        ({"k4": 0.1}, {}, "k4 is 0.1; needed 0"),
        ({"fl_x": "60"}, {}, "fl_x: got '60'; needed a finite number"),
        ({"fl_x": True}, {}, "fl_x: got True"),
        ({"fl_x": float("nan")}, {}, "fl_x: got nan"),
        ({"fl_x": 10**350}, {}, "fl_x: got 1000"),
        ({"fl_x": 0}, {}, "focal lengths above 0"),
        ({"h": 20}, {}, r"a2.png: is 64 pixels wide, 48 high, in .* 64 and 20"),
        ({"depth_unit_scale_factor": 0}, {}, "depth_unit_scale_factor is 0"),
        ({}, {"transform_matrix": [[[1, 2], [3, 4]]] * 3}, r"frame 0, transform_matrix: got .*needed 4 x 4 numbers"),
        ({}, {"transform_matrix": [(2 * np.eye(4)).tolist()] * 3}, r"its last row is \[0.0, 0.0, 0.0, 2.0\]"),
        ({}, {"transform_matrix": [np.diag([2.0, 2, 2, 1]).tolist()] * 3}, "no rigid motions"),
        ({}, {"transform_matrix": [np.diag([-1.0, 1, 1, 1]).tolist()] * 3}, "no rigid motions"),
        ({}, {"transform_matrix": None}, "transform_matrix: got nothing"),
        ({}, {"file_path": "a2.png"}, "names the photo .*a2.png twice"),
        ({}, {"file_path": 3}, "file_path: got 3; needed a text"),
    ],
)
def test_what_is_wrong_is_named(top, fields, words, folder):
    with pytest.raises(ValueError, match=words) as caught:
        read_transforms(write(folder, TOP | top, frames(**fields)))
    assert "transforms.json" in str(caught.value)


def test_files_that_are_none_are_named(folder):
    with pytest.raises(FileNotFoundError, match=r"holds no transforms\.json"):
        read_transforms(folder)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_transforms(folder / "no.json")
    path = folder / "transforms.json"
    for text, words in (
        ("", "is no JSON"),
        ("[" * 200000, "is no JSON"),
        ("[]", "needed an object"),
        ("{}", "has no frames"),
        ('{"frames": []}', "has no frames"),
        ('{"frames": [3]}', "frame 0: got 3"),
        ('{"frames": [{"file_path": "a2.png", "transform_matrix": [[1]]}]}', "no focal length"),
        ('{"fl_x": ' + "1" * 5000 + "}", "is no JSON"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=words) as caught:
            read_transforms(path)
        assert str(path) in str(caught.value)
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match="is no JSON"):
        read_transforms(path)


def test_damaged_files_are_read_or_refused(folder):
    path = write(folder, TOP | BEND)
    path.write_text(json.dumps(json.loads(path.read_text()), indent=1))
    assert refusals(read_transforms, folder, [path]) > 100
