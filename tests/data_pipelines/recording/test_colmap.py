"""COLMAP: points lie at the pixels that its model says, text and binary agree, what is damaged is named."""

import pickle
import shutil
import struct

import pytest
from scipy.spatial.transform import Rotation

from data_pipelines.recording.colmap import read_colmap
from tests.data_pipelines.recording.posed import (
    BEND,
    COLUMNS,
    LENS,
    NAMES,
    ROWS,
    SHIFTS,
    TURNS,
    VIEWS,
    check,
    pixels,
    refusals,
    write_photos,
)

SQUARE = {"fx": 60.0, "fy": 60.0, "cx": 34.5, "cy": 20.25}
ALL = [*LENS.values(), *(BEND[k] for k in ("k1", "k2", "p1", "p2"))]
MODELS = {
    "SIMPLE_PINHOLE": (0, [60.0, 34.5, 20.25], SQUARE),
    "PINHOLE": (1, list(LENS.values()), LENS),
    "SIMPLE_RADIAL": (2, [60.0, 34.5, 20.25, 0.11], SQUARE | {"k1": 0.11}),
    "RADIAL": (3, [60.0, 34.5, 20.25, 0.11, -0.04], SQUARE | {"k1": 0.11, "k2": -0.04}),
    "OPENCV": (4, ALL, LENS | BEND | {"k3": 0.0}),
    "FULL_OPENCV": (6, [*ALL, 0.02, 0.0, 0.0, 0.0], LENS | BEND),
    "OPENCV_FISHEYE": (5, [60.0, 60.0, 32.0, 24.0, 0, 0, 0, 0], None),
    "FOV": (7, [60.0, 60.0, 32.0, 24.0, 0.5], None),
}
QUATERNIONS = Rotation.from_matrix(TURNS).as_quat(scalar_first=True)


def write_text(folder, model="PINHOLE", params=None, names=NAMES):
    folder.mkdir(parents=True, exist_ok=True)
    params = MODELS[model][1] if params is None else params
    head = "# Camera list with one line of data per camera:\n#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n"
    head += "# Number of cameras: 1\n"
    (folder / "cameras.txt").write_text(head + f"7 {model} {COLUMNS} {ROWS} {' '.join(map(repr, params))}\n")
    lines = [
        "# Image list with two lines of data per image:",
        f"# Number of images: {len(names)}, mean observations per image: 2",
    ]
    for view, name in enumerate(names):
        pose = " ".join(repr(float(x)) for x in (*QUATERNIONS[view], *SHIFTS[view]))
        points = " ".join(f"{x} {y} {n}" for n, (x, y) in enumerate(pixels(view)[:2])) if view else ""
        lines += [f"{view + 5} {pose} 7 {name}", points]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    return folder


def write_binary(folder, model="PINHOLE", params=None, names=NAMES):
    folder.mkdir(parents=True, exist_ok=True)
    params = MODELS[model][1] if params is None else params
    camera = struct.pack(f"<QiiQQ{len(params)}d", 1, 7, MODELS[model][0], COLUMNS, ROWS, *params)
    (folder / "cameras.bin").write_bytes(camera)
    data = struct.pack("<Q", len(names))
    for view, name in enumerate(names):
        data += struct.pack("<I7dI", view + 5, *QUATERNIONS[view], *SHIFTS[view], 7) + name.encode() + b"\0"
        points = pixels(view)[: 2 if view else 0]
        data += struct.pack("<Q", len(points)) + b"".join(struct.pack("<ddQ", x, y, n) for n, (x, y) in enumerate(points))
    (folder / "images.bin").write_bytes(data)
    return folder


WRITERS = {"text": write_text, "binary": write_binary}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("model", [name for name, row in MODELS.items() if row[2]])
def test_points_lie_at_the_pixels_of_the_model(writer, model, tmp_path):
    write_photos(tmp_path / "images")
    WRITERS[writer](tmp_path / "sparse" / "0", model)
    (recording,) = read_colmap(tmp_path)
    check(pickle.loads(pickle.dumps(recording)), [MODELS[model][2]] * VIEWS)
    assert recording.name == tmp_path.name and any("not metric" in note for note in recording.notes)
    assert recording.pixel_aspect == (1.0 if MODELS[model][2]["fx"] == 60.0 == MODELS[model][2]["fy"] else 0.9)
    assert (recording.camera.distortion is None) == ("PINHOLE" in model)


@pytest.mark.parametrize("model", [name for name, row in MODELS.items() if not row[2]])
@pytest.mark.parametrize("writer", WRITERS)
def test_other_lenses_are_refused_by_name(writer, model, tmp_path):
    write_photos(tmp_path)
    WRITERS[writer](tmp_path, model)
    with pytest.raises(ValueError, match=rf"cameras.*camera 7: is {model}; needed one of SIMPLE_PINHOLE"):
        read_colmap(tmp_path)
    WRITERS[writer](tmp_path, "FULL_OPENCV", [*ALL, 0.02, 0.0, 0.3, 0.0])
    with pytest.raises(ValueError, match=r"k4, k5, k6 are 0, 0.3, 0"):
        read_colmap(tmp_path)


@pytest.mark.parametrize("place", [".", "sparse", "sparse/0", "sparse/1"])
@pytest.mark.parametrize("photos", ["images", "."])
def test_where_model_and_photos_may_lie(place, photos, tmp_path):
    write_photos(tmp_path / photos)
    write_text(tmp_path / place)
    check(*read_colmap(tmp_path), [LENS] * VIEWS)
    write_binary(tmp_path / place, "SIMPLE_PINHOLE")  # preferred to text
    check(*read_colmap(tmp_path), [SQUARE] * VIEWS)


def test_several_models_are_several_recordings(tmp_path):
    write_photos(tmp_path / "images")
    for n in (0, 2, 10):
        write_text(tmp_path / "sparse" / str(n), names=NAMES[: 2 if n else 3])
    found = read_colmap(tmp_path)
    assert [recording.name for recording in found] == [f"{tmp_path.name}/{n}" for n in (0, 2, 10)]
    assert [len(recording.time) for recording in found] == [3, 2, 2]


def test_names_may_hold_spaces_and_photos_may_be_missing(tmp_path):
    write_photos(tmp_path / "images")
    shutil.copy(tmp_path / "images" / "a2.png", tmp_path / "images" / "a 3 4.png")
    write_text(tmp_path, names=(NAMES[0], "a 3 4.png", "none.jpg"))
    with pytest.raises(
        FileNotFoundError, match=r"images\.txt: 1 of its 3 photos are not in .*first none\.jpg; .*allow_missing"
    ):
        read_colmap(tmp_path)
    (recording,) = read_colmap(tmp_path, allow_missing=True)
    assert [file.name for file in recording.files[2:]] == ["a10.jpg", "a 3 4.png"]
    assert recording.notes[0] == "1 of 3 views left out, their photos are missing: first none.jpg"
    write_text(tmp_path, names=("none.jpg",))
    with pytest.raises(FileNotFoundError, match="first none"):
        read_colmap(tmp_path, allow_missing=True)


def test_a_name_does_not_lead_out_of_the_folder(tmp_path):
    folder = tmp_path / "scene"
    write_photos(folder / "images")
    write_photos(tmp_path)
    for name in ("../../a2.png", str(tmp_path / "a2.png"), "/nowhere.png"):
        write_binary(folder, names=(name,))
        with pytest.raises(ValueError, match="lies outside"):
            read_colmap(folder, allow_missing=True)
    for name in ("../images/a2.png", str(folder / "images" / "a2.png"), "b/../a2.png"):
        write_binary(folder, names=(name,))
        assert read_colmap(folder)[0].files[-1] == folder / "images" / "a2.png"


def edit(folder, file, old, new):
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("cameras.txt", "7 PINHOLE", "8 PINHOLE", r"images.txt: a10.jpg has camera 7, but cameras.txt has no such number"),
        ("cameras.txt", "60.0 54.0", "60.0", r"3 parameters; PINHOLE needs fx fy cx cy"),
        ("cameras.txt", "60.0 54.0", "nan 54.0", r"images.txt: the camera of .* needed finite numbers"),
        ("cameras.txt", "60.0 54.0", "60.0 -54.0", r"focal lengths above 0"),
        ("cameras.txt", "60.0 54.0", "1e9 1e9", r"no lens is like that"),
        ("cameras.txt", "64 48", "64 90", r"a2.png: is 64 pixels wide, 48 high, in .*images.txt 64 and 90"),
        ("cameras.txt", "64 48", f"{10**40} 48", r"needed pixels"),
        ("cameras.txt", "cameras: 1", "cameras: 2", r"says that it holds 2 records, but has 1"),
        ("images.txt", "images: 3", "images: 30", r"says that it holds 30 records, but has 3"),
        ("images.txt", "4.5 7 a2.png", "x 7 a2.png", r"images.txt: record 2: could not convert"),
        ("images.txt", "4.5 7 a2.png", "1e30 7 a2.png", r"no rigid motions"),
        ("images.txt", "4.5 7 a2.png", "4.5 7 a10.jpg", r"names the photo .*a10.jpg twice"),
        ("images.txt", "a2.png\n", "a2.png\n1 ", r"not followed by a line of X Y POINT3D_ID"),
        ("images.txt", "\n6 -", "\n6 -3", r"a2.png has the quaternion"),
    ],
)
def test_what_is_wrong_is_named(file, old, new, words, tmp_path):
    write_photos(tmp_path)
    write_text(tmp_path)
    edit(tmp_path, file, old, new)
    with pytest.raises(ValueError, match=words) as caught:
        read_colmap(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_what_is_missing_or_cut_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no COLMAP model"):
        read_colmap(tmp_path)
    write_photos(tmp_path)
    write_binary(tmp_path)
    whole = (tmp_path / "images.bin").read_bytes()
    for data in (b"", whole[:-1], whole[:40], whole + b"\0", struct.pack("<Q", 2**63) + whole[8:]):
        (tmp_path / "images.bin").write_bytes(data)
        with pytest.raises(ValueError, match=r"images\.bin: record"):
            read_colmap(tmp_path)
    (tmp_path / "images.bin").write_bytes(struct.pack("<Q", 0))
    with pytest.raises(ValueError, match="holds no view"):
        read_colmap(tmp_path)
    (tmp_path / "cameras.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"has images\.bin but no cameras\.bin"):
        read_colmap(tmp_path)


@pytest.mark.parametrize("writer", WRITERS)
def test_damaged_models_are_read_or_refused(writer, tmp_path):
    write_photos(tmp_path)
    suffix = "txt" if writer == "text" else "bin"
    WRITERS[writer](tmp_path, "OPENCV")
    files = [tmp_path / f"cameras.{suffix}", tmp_path / f"images.{suffix}"]
    assert refusals(read_colmap, tmp_path, files, ways=7 if writer == "text" else 4) > 80
