"""RGB-D in Redwood's layout: geometry, units, times and pairs are right or refused, by file; real frames agree."""

import json
import pickle
import shutil

import numpy as np
import pytest
from PIL import Image

from data_pipelines.recording.redwood import read_redwood
from tests.core.exchange.test_scene_file import damaged
from wsm_jax.snapshot import project
from wsm_jax.snapshot.camera import pixel_plane, rays

LENS = (50.0, 50.0, 31.0, 22.5)
TURN = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
JSON = {"width": 64, "height": 48, "intrinsic_matrix": [50.0, 0, 0, 0, 50.0, 0, 31.0, 22.5, 1]}


def write(folder, names=("0", "1"), step=1.0, mask=False):
    """Frames of 48 x 64: a wall 2 m away with one pixel at 1 m, `step` steps a mm; the second camera is turned and moved."""
    for name in ("color", "depth", *["mask"] * mask):
        (folder / name).mkdir(parents=True)
    rng, lines = np.random.default_rng(0), []
    for k, name in enumerate(names):
        depth = np.full((48, 64), round(2000 * step), np.uint16)
        depth[20, 40], depth[0], depth[1] = round(1000 * step), 0, 65535
        Image.fromarray(depth).save(folder / "depth" / f"{name}.png")
        Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).save(folder / "color" / f"{name}.jpg")
        if mask:
            Image.fromarray(np.where(depth == 1000 * step, 300 + k, 0).astype(np.uint16)).save(folder / "mask" / f"{name}.png")
        pose = np.eye(4)
        if k:
            pose[:3, :3], pose[:3, 3] = TURN, (k, 2, 3)
        lines += [f"{k} {k} {k + 1}", *(" ".join(map(str, row)) for row in pose)]
    (folder / "trajectory.log").write_text("\n".join(lines) + "\n")
    return folder


def test_a_pixel_lies_where_depth_and_pose_say(tmp_path):
    found = read_redwood(write(tmp_path / "room"), LENS, rate_hz=10)
    assert (found.name, found.kind, found.channels, found.pixel_aspect) == ("room", "video", ("rgb", "depth"), 1.0)
    np.testing.assert_allclose(found.time, [0, 0.1])
    assert found.seconds == pytest.approx(0.2) and found.size.tolist() == [[48, 64]] * 2
    local = np.array([(40 - LENS[2]) / LENS[0], (20 - LENS[3]) / LENS[1], 1.0])
    frames = list(pickle.loads(pickle.dumps(found)).pictures([0, 1, 1]))
    assert len(frames) == 3
    for k, wanted in ((0, local), (1, TURN @ local + [1, 2, 3])):
        depth = frames[k]["depth"]
        assert depth.shape == (48, 64, 1) and depth.dtype == np.uint16
        assert not depth[0].any() and (depth[1] == 65535).all() and depth[20, 40] == 1000 and depth[30, 30] == 2000
        origin, direction = rays(found.camera[k], 48, 64)
        np.testing.assert_allclose(origin + direction[20, 40] * depth[20, 40] * 1e-3, wanted, atol=1e-5)
        canvas, away = project(found.camera[k], wanted[None].astype(np.float32), 64 / 48)
        np.testing.assert_allclose(np.append(canvas * 48, away), [40.5, 20.5, 1.0], atol=1e-4)
        path = found.pictures.shots[k].colour
        np.testing.assert_array_equal(frames[k]["rgb"], np.asarray(Image.open(path)))
        assert frames[k]["jpeg"] == path.read_bytes()
    assert {file.name for file in found.files} == {
        "trajectory.log",
        *(f"{k}.{kind}" for k in (0, 1) for kind in ("png", "jpg")),
    }
    assert any("up in it is not known" in note for note in found.notes)


def test_unequal_focal_lengths_are_pixels_that_are_not_square(tmp_path):
    found = read_redwood(write(tmp_path), (40, 50, 31, 22.5, 0.1, 0, 0, 0, 0), rate_hz=10)
    assert found.pixel_aspect == pytest.approx(1.25)
    x, y = pixel_plane(found.camera[0].replace(distortion=None), 48, 80)  # 64 columns, 1.25 as wide
    columns = (np.arange(80) + 0.5) / 1.25 - 0.5  # of the recording
    np.testing.assert_allclose(x[0], (columns - 31) / 40, atol=1e-6)
    np.testing.assert_allclose(y[:, 0], (np.arange(48) - 22.5) / 50, atol=1e-6)
    np.testing.assert_allclose(found.camera.distortion, np.tile([0.1, 0, 0, 0, 0], (2, 1)), atol=1e-7)


def test_intrinsics_units_and_rate_of_the_folders_file(tmp_path):
    write(tmp_path, step=5)
    path = tmp_path / "intrinsic.json"
    path.write_text(json.dumps(JSON | {"depth_scale": 5000.0, "fps": 15.0}))
    found, given = read_redwood(tmp_path), read_redwood(tmp_path, LENS, 1 / 5000, 15)
    for one, other in ((found.camera.focal, given.camera.focal), (found.camera.offset, given.camera.offset)):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(found.time, [0, 1 / 15])
    for recording in (found, given):
        depth = next(recording.pictures([0]))["depth"]
        assert depth[20, 40] == 1000 and depth[9, 9] == 2000 and (depth[1] == 13107).all()
        assert any("rounded to 1 mm" in note for note in recording.notes)
    for change, words in (
        ({"width": 65}, "is of 48 x 65 pixels, the pictures 48 x 64"),
        ({"intrinsic_matrix": [50, 0, 31, 0, 50, 22.5, 0, 0, 1]}, "column after column"),
        ({"intrinsic_matrix": [50] * 8}, "nine numbers"),
        ({"intrinsic_matrix": [0, 0, 0, 0, 50, 0, 31, 22, 1]}, "needed a lens"),
        ({"intrinsic_matrix": [50, 0, 0, 0, 50, 0, 310, 22, 1]}, "principal point"),
        ({"height": None}, "needed width, height"),
        ({"depth_scale": 0}, "depth_scale is 0"),
        ({"fps": "30"}, "fps is '30'"),
        ({"fps": 1e9}, "a rate of 1e.09 Hz"),
    ):
        path.write_text(json.dumps(JSON | {"depth_scale": 5000} | change))
        with pytest.raises(ValueError, match=words):
            read_redwood(tmp_path)
    path.write_text('{"width": 64')
    with pytest.raises(ValueError, match=r"intrinsic\.json: no JSON"):
        read_redwood(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"48 x 64 pixels; needed intrinsics"):
        read_redwood(tmp_path, unit_m=2e-4, rate_hz=30)


@pytest.mark.parametrize(("unit_m", "median"), [(1.0, "2000"), (1e-6, "0.002"), (0.05, "100"), (9e-5, "0.18")])
def test_depth_in_an_implausible_unit_is_refused_with_one_that_makes_sense(tmp_path, unit_m, median):
    with pytest.raises(ValueError, match=rf"0\.png: a median depth of {median} m .*unit_m = 0\.001 \(millimetres: 2 m\)"):
        read_redwood(write(tmp_path), LENS, unit_m, 30)


def test_depth_without_any_or_beyond_what_is_stored(tmp_path):
    write(tmp_path)
    depth = next(read_redwood(tmp_path, LENS, 3e-3, 30).pictures([0]))["depth"]
    assert depth[20, 40] == 3000 and not depth[1].any()  # 196 m
    assert any("beyond 65.535 m" in note for note in read_redwood(tmp_path, LENS, 3e-3, 30).notes)
    for unit in (0, -1e-3, np.inf, np.nan):
        with pytest.raises(ValueError, match=r"0\.png: steps of depth of unit_m"):
            read_redwood(tmp_path, LENS, float(unit), 30)
    for k in (0, 1):
        Image.fromarray(np.zeros((48, 64), np.uint16)).save(tmp_path / "depth" / f"{k}.png")
    with pytest.raises(ValueError, match="no depth above 0"):
        read_redwood(tmp_path, LENS, rate_hz=30)


@pytest.mark.parametrize(("scale", "name"), [(1.0, "s"), (1e3, "ms"), (1e6, "microseconds"), (1e9, "ns")])
def test_times_are_read_in_the_one_unit_that_makes_a_rate(tmp_path, scale, name):
    write(tmp_path, ("0", "1", "2"))
    stamps = tmp_path / "timestamps.txt"
    stamps.write_text("\n".join(repr(x * scale) for x in (7.0, 7.04, 7.1)))
    found = read_redwood(tmp_path, LENS)
    np.testing.assert_allclose(found.time, [0, 0.04, 0.1], atol=1e-7)
    assert any(f"is in {name}," in note for note in found.notes) and stamps in found.files
    assert found.seconds == pytest.approx(0.15)
    np.testing.assert_allclose(read_redwood(tmp_path, LENS, rate_hz=5).time, [0, 0.2, 0.4])
    for text, words in (
        ("1 2", "2 numbers for 3 frames"),
        ("1 2 2", "do not increase"),
        ("3 2 1", "do not increase"),
        ("1 nan 3", "do not increase"),
        ("1 2 x", "needed a number for each frame"),
        ("1e-13 2e-13 3e-13", "steps of 1e-13"),
        ("", "0 numbers"),
    ):
        stamps.write_text(text)
        with pytest.raises(ValueError, match=rf"timestamps\.txt: .*{words}"):
            read_redwood(tmp_path, LENS)


def test_names_with_microseconds_tell_times_and_pair_by_frame(tmp_path):
    write(tmp_path, ("0000002-000000033369", "0000010-000000300000"))
    (tmp_path / "depth" / "0000010-000000300000.png").rename(tmp_path / "depth" / "0000010-000000305555.png")
    found = read_redwood(tmp_path, LENS)
    np.testing.assert_allclose(found.time, [0, 0.266631], atol=1e-9)
    assert found.pictures.shots[1].depth.name == "0000010-000000305555.png"
    assert any("microseconds in the names" in note for note in found.notes)
    shutil.copy(tmp_path / "color" / "0000010-000000300000.jpg", tmp_path / "color" / "0000010-000000300001.jpg")
    with pytest.raises(ValueError, match=r"300001\.jpg: is of the same frame"):
        read_redwood(tmp_path, LENS)
    shutil.rmtree(tmp_path)
    write(tmp_path, ("0000001-000000033369", "0000002-000000033369"))
    with pytest.raises(ValueError, match="do not increase"):
        read_redwood(tmp_path, LENS)


def test_frames_are_in_the_order_of_their_numbers_and_rates_are_not_guessed(tmp_path):
    names = [str(k) for k in range(12)]
    write(tmp_path, names)
    with pytest.raises(ValueError, match=r"has no times .* needed rate_hz"):
        read_redwood(tmp_path, LENS)
    for rate in (0, -30, np.nan, 1e6):
        with pytest.raises(ValueError, match="a rate of"):
            read_redwood(tmp_path, LENS, rate_hz=float(rate))
    found = read_redwood(tmp_path, LENS, rate_hz=30)
    assert [shot.depth.stem for shot in found.pictures.shots] == names
    np.testing.assert_allclose(found.camera.position[1:, 0], np.arange(1, 12))
    shutil.copy(tmp_path / "color" / "3.jpg", tmp_path / "color" / "33.jpg")
    assert any("1 colour pictures have no depth" in note for note in read_redwood(tmp_path, LENS, rate_hz=30).notes)


def test_masks_are_instances(tmp_path):
    found = read_redwood(write(tmp_path, mask=True), LENS, rate_hz=30)
    assert found.channels == ("rgb", "depth", "instance")
    for k, frame in enumerate(found.pictures([0, 1])):
        assert frame["instance"].dtype == np.uint16 and frame["instance"].shape == (48, 64, 1)
        assert frame["instance"][20, 40] == 300 + k and frame["instance"].sum() == 300 + k
    (tmp_path / "mask" / "1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"mask: no picture 1\*"):
        read_redwood(tmp_path, LENS, rate_hz=30)


def test_bytes_go_along_only_where_they_show_the_picture(tmp_path):
    write(tmp_path)
    picture = Image.open(tmp_path / "color" / "0.jpg").copy()
    picture.save(tmp_path / "color" / "0.jpg", progressive=True)
    picture.convert("L").save(tmp_path / "color" / "1.jpg")
    frames = list(read_redwood(tmp_path, LENS, rate_hz=30).pictures([0, 1]))
    assert not any("jpeg" in frame for frame in frames)
    assert (frames[1]["rgb"][..., :1] == frames[1]["rgb"]).all()
    (tmp_path / "color" / "0.jpg").unlink()
    picture.putalpha(100)
    picture.save(tmp_path / "color" / "0.png")
    assert any("1 colour pictures are transparent" in note for note in read_redwood(tmp_path, LENS, rate_hz=30).notes)


def spoilt(folder, way):
    exif = Image.Exif()
    exif[0x0112] = 3
    match way:
        case "size":
            Image.new("RGB", (60, 48)).save(folder / "color" / "1.jpg")
        case "turned":
            Image.new("RGB", (64, 48)).save(folder / "color" / "1.jpg", exif=exif)
        case "turned png":
            (folder / "color" / "1.jpg").unlink()
            Image.new("RGB", (64, 48)).save(folder / "color" / "1.png", exif=exif)
        case "bytes":
            Image.new("L", (64, 48)).save(folder / "depth" / "1.png")
        case "colours":
            Image.new("RGB", (64, 48)).save(folder / "depth" / "1.png")
        case "text":
            (folder / "color" / "1.jpg").write_text("no picture")
        case "empty":
            (folder / "depth" / "1.png").write_bytes(b"")
        case "poses":
            log = folder / "trajectory.log"
            log.write_text("".join(log.read_text().splitlines(True)[:5]))
        case "mirror" | "nan":
            log = folder / "trajectory.log"
            log.write_text(
                log.read_text().replace("0.0 0.0 1.0 0.0", "0.0 0.0 -1.0 0.0" if way == "mirror" else "0 0 1 nan", 1)
            )


@pytest.mark.parametrize(
    ("way", "words"),
    [
        ("size", r"1\.jpg: 48 x 60 pixels, the first .* 48 x 64; needed one size"),
        ("turned", r"1\.jpg: is to be turned"),
        ("turned png", r"1\.png: is to be turned"),
        ("bytes", r"1\.png: L pixels; needed one component of 16 bits"),
        ("colours", r"1\.png: RGB pixels"),
        ("text", r"1\.jpg: is no jpg"),
        ("empty", r"1\.png: is empty"),
        ("poses", r"trajectory\.log: 1 poses for 2 depth maps"),
        ("mirror", "no rigid motion"),
        ("nan", "no rigid motion"),
    ],
)
def test_what_is_wrong_is_named_before_anything_is_decoded(tmp_path, way, words):
    spoilt(write(tmp_path), way)
    with pytest.raises(ValueError, match=words):
        read_redwood(tmp_path, LENS, rate_hz=30)


def test_one_frame_no_folder_and_indices_that_decrease(tmp_path):
    with pytest.raises(FileNotFoundError, match="needed the folders depth"):
        read_redwood(tmp_path / "no")
    with pytest.raises(ValueError, match="1 frame; needed 2"):
        read_redwood(write(tmp_path / "one", ("0",)), LENS, rate_hz=30)
    found = read_redwood(write(tmp_path / "two"), LENS, rate_hz=30)
    for indices in ([1, 0], [-1], [2]):
        with pytest.raises(ValueError, match=r"must not decrease and lie in 0\.\.1"):
            next(found.pictures(indices))
    for numbers in ((50, 50, 31), (50, 50, 31, np.nan), (50, 500, 31, 22)):
        with pytest.raises(ValueError, match="two, as given: "):
            read_redwood(tmp_path / "two", tuple(map(float, numbers)), rate_hz=30)


@pytest.mark.filterwarnings("ignore")
def test_damaged_folders_are_read_or_refused(tmp_path):
    write(tmp_path / "whole", mask=True)
    (tmp_path / "whole" / "intrinsic.json").write_text(json.dumps(JSON))
    (tmp_path / "whole" / "timestamps.txt").write_text("0.00\n0.04\n")
    files = [file.relative_to(tmp_path / "whole") for file in sorted((tmp_path / "whole").rglob("*.*"))]
    shutil.copytree(tmp_path / "whole", tmp_path / "case")
    refused = 0
    for n in range(400):
        file = tmp_path / "case" / files[n % len(files)]
        whole = file.read_bytes()
        file.write_bytes(damaged(np.random.default_rng(n), whole, n // len(files) % 4))
        message = None
        try:
            for frame in read_redwood(tmp_path / "case").pictures([0, 1]):
                assert all(frame[name].shape[:2] == (48, 64) for name in ("rgb", "depth", "instance"))
        except (ValueError, OSError) as error:
            message = str(error)
        assert message is None or "case" in message, message
        refused += message is not None
        file.write_bytes(whole)
    assert refused > 150


def test_real_frames_see_one_room(real_data):
    found = read_redwood(real_data / "rgbd", rate_hz=30)
    assert len(found.time) == 5 and found.size[0].tolist() == [480, 640]
    assert any("PrimeSense" in note for note in found.notes) and any("0.001 m" in note for note in found.notes)
    one, two = (frame["depth"][..., 0] * 1e-3 for frame in found.pictures([0, 4]))
    origin, direction = rays(found.camera[0], 480, 640)
    points = (np.asarray(origin) + np.asarray(direction) * one[..., None])[::8, ::8][one[::8, ::8] > 0]
    canvas, away = (np.asarray(x) for x in project(found.camera[4], points, 640 / 480))
    column, row = np.floor(canvas * 480).astype(int).T
    there = (column >= 0) & (column < 640) & (row >= 0) & (row < 480) & (away > 0)
    apart = np.abs(two[row[there], column[there]] - away[there])
    assert there.mean() > 0.7 and np.median(apart) < 0.01
