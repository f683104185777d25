"""RGB-D in TUM's layout: lists are paired in time, poses interpolated, and what is missing is said or refused."""

import pickle
import shutil

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from data_pipelines.recording.depth_camera import OpenCVIntrinsics
from data_pipelines.recording.tum import LENSES, read_tum
from tests.core.exchange.test_scene_file import damaged
from wsm_jax.snapshot import project
from wsm_jax.snapshot.camera import pixel_plane, rays

LENS = (50.0, 50.0, 31.0, 22.5)
START = 1305031102.175304
COLOURS, DEPTHS = (0.0, 0.035, 0.07, 0.105), (0.011, 0.03, 0.075, 0.12)


def turn_at(s):
    """Rotation at s seconds, and below the place: both of constant speed, so that between two poses they are exact."""
    return Rotation.from_euler("xyz", (0.3, 0.1, 0.2)) * Rotation.from_rotvec(np.array([0.2, -0.5, 0.4]) * s)


def place_at(s):
    return np.array([1.0 + s, 2 - 3 * s, 0.5])


def write(folder, colours=COLOURS, depths=DEPTHS, poses=(-0.02, 0.03, 0.08, 0.13), size=(48, 64), step=5):
    """A wall 2 m ahead with one pixel at 1 m + 1 cm a frame; `step` steps a mm. Times are seconds after START."""
    for name in ("rgb", "depth"):
        (folder / name).mkdir(parents=True)
    lists = {"rgb": ["# color images"], "depth": ["# depth maps", "# timestamp filename"]}
    for k, s in enumerate(colours):
        name = f"rgb/{START + s:.6f}.png"
        Image.fromarray(np.full((*size, 3), 10 * k + 50, np.uint8)).save(folder / name)
        lists["rgb"].append(f"{START + s:.6f} {name}")
    for k, s in enumerate(depths):
        name, depth = f"depth/{START + s:.6f}.png", np.full(size, round(2000 * step), np.uint16)
        depth[20, 40], depth[0] = round((1000 + 10 * k) * step), 0
        Image.fromarray(depth).save(folder / name)
        lists["depth"].append(f"{START + s:.6f} {name}")
    lists["groundtruth"] = ["# ground truth trajectory", "# timestamp tx ty tz qx qy qz qw"]
    for s in poses:
        numbers = [START + s, *place_at(s), *turn_at(s).as_quat()]
        lists["groundtruth"].append(" ".join(f"{x:.7f}" for x in numbers))
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return folder


def said(recording, words):
    return any(words in note for note in recording.notes)


def test_a_pixel_lies_where_depth_and_pose_say_at_the_time_of_its_colour(tmp_path):
    found = read_tum(write(tmp_path / "desk"), intrinsics=LENS)
    assert (found.name, found.kind, found.channels, found.pixel_aspect) == ("desk", "video", ("rgb", "depth"), 1.0)
    np.testing.assert_allclose(found.time, COLOURS, atol=1e-6)
    assert found.seconds == pytest.approx(0.14) and found.size.tolist() == [[48, 64]] * 4
    for k, frame in enumerate(pickle.loads(pickle.dumps(found)).pictures(range(4))):
        depth, s = frame["depth"], COLOURS[k]
        assert depth.dtype == np.uint16 and depth.shape == (48, 64, 1) and "jpeg" not in frame
        assert depth[20, 40] == 1000 + 10 * k and depth[30, 30] == 2000 and not depth[0].any()
        assert (frame["rgb"] == 10 * k + 50).all() and frame["rgb"].shape == (48, 64, 3)
        away = 1.0 + 0.01 * k
        wanted = place_at(s) + turn_at(s).apply([away * (40 - 31) / 50, away * (20 - 22.5) / 50, away])
        origin, direction = rays(found.camera[k], 48, 64)
        np.testing.assert_allclose(origin + direction[20, 40] * depth[20, 40] * 1e-3, wanted, atol=3e-6)
        canvas, seen = project(found.camera[k], wanted[None].astype(np.float32), 64 / 48)
        np.testing.assert_allclose(np.append(canvas * 48, seen), [40.5, 20.5, away], atol=5e-4)
    assert (
        said(found, "1/5000 m, by the layout")
        and said(found, "up to 15.0 ms")
        and said(found, "z of its world is taken for up")
    )
    assert {file.name for file in found.files} >= {"rgb.txt", "depth.txt", "groundtruth.txt"} and len(found.files) == 3 + 8


def test_at_the_time_of_a_pose_the_camera_is_that_pose_whatever_the_sign_of_its_quaternion(tmp_path):
    write(tmp_path, poses=COLOURS)
    truth = tmp_path / "groundtruth.txt"
    lines = truth.read_text().splitlines()
    words = lines[3].split()
    lines[3] = " ".join([*words[:4], *(str(-float(x)) for x in words[4:])])
    truth.write_text("\n".join(lines))
    found = read_tum(tmp_path, intrinsics=LENS)
    for k, s in enumerate(COLOURS):
        np.testing.assert_allclose(found.camera.position[k], place_at(s), atol=1e-6)
        turned = Rotation.from_quat(found.camera.rotation[k], scalar_first=True) * turn_at(s).inv()
        assert turned.magnitude() < 1e-6


def test_frames_without_depth_or_poses_nearby_are_left_out_and_counted(tmp_path):
    # of colours at 0, .035, .07 and .105: the first has no depth; the last lies where poses are .11 s apart
    write(tmp_path / "a", depths=DEPTHS[1:], poses=(-0.05, 0.0, 0.05, 0.1, 0.21))
    found = read_tum(tmp_path / "a", intrinsics=LENS)
    np.testing.assert_allclose(found.time, [0, 0.035], atol=1e-6)
    assert said(found, "1 of 4 colour pictures have no depth within 0.02 s")
    assert said(found, "1 of 4 frames are not between two poses within 0.1 s")
    assert [int(next(found.pictures([k]))["rgb"].max()) for k in (0, 1)] == [60, 70]
    # poses exactly .1 s apart do; before the first and after the last there is none
    write(tmp_path / "b", poses=(0.01, 0.11))
    np.testing.assert_allclose(read_tum(tmp_path / "b", intrinsics=LENS).time, [0, 0.035, 0.07], atol=1e-6)
    # at the very time of a pose its neighbours may be far
    write(tmp_path / "e", (0.0, 0.2, 0.3, 0.4), (0.0, 0.2, 0.3, 0.4), (0.0, 0.2, 0.4))
    np.testing.assert_allclose(read_tum(tmp_path / "e", intrinsics=LENS).time, [0, 0.2, 0.4], atol=1e-6)
    write(tmp_path / "c", poses=(-0.1, 0.1))
    with pytest.raises(ValueError, match="c: 0 frames with colour, depth and pose"):
        read_tum(tmp_path / "c", intrinsics=LENS)
    write(tmp_path / "d", colours=(0.0, 0.1), depths=(0.02, 0.079))  # .02 s apart, and .021 s
    with pytest.raises(ValueError, match="d: 1 frames"):
        read_tum(tmp_path / "d", intrinsics=LENS)


def test_lists_out_of_order_and_with_duplicates_are_put_right_and_said(tmp_path):
    whole = read_tum(write(tmp_path), intrinsics=LENS)
    assert not said(whole, "sorted") and not said(whole, "left out")
    for name in ("rgb", "depth", "groundtruth"):
        file = tmp_path / f"{name}.txt"
        lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
        twin = lines[0].split()[0] + (" rgb/none.png" if name != "groundtruth" else " 9 9 9 0 0 0 1")
        lines = [lines[i] for i in (2, 0, 3, 1)] + [twin]
        file.write_text("\r\n".join([lines[0].replace(" ", "\t"), "", "# more", *lines[1:]]) + "\r\n")
    found = read_tum(tmp_path, intrinsics=LENS)
    np.testing.assert_array_equal(found.time, whole.time)
    np.testing.assert_array_equal(found.camera.position, whole.camera.position)
    np.testing.assert_array_equal(found.camera.rotation, whole.camera.rotation)
    assert found.pictures == whole.pictures
    for name in ("rgb", "depth", "groundtruth"):
        assert said(found, f"{name}.txt was not in order of time") and said(found, f"{name}.txt has 1 lines")


def test_the_step_of_depth_is_tums_only_where_the_folder_is(tmp_path):
    write(tmp_path, step=1)
    with pytest.raises(ValueError, match=r"a median depth of 0\.16 m .*unit_m = 0\.001 \(millimetres: 0\.8 m\)"):
        read_tum(write(tmp_path / "near", step=0.4), intrinsics=LENS)
    found = read_tum(tmp_path, unit_m=1e-3, intrinsics=LENS)
    assert next(found.pictures([0]))["depth"][9, 9] == 2000 and not said(found, "1/5000")
    (tmp_path / "groundtruth.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"groundtruth\.txt: no such file, so the depth may not be TUM's"):
        read_tum(tmp_path, intrinsics=LENS)
    found = read_tum(tmp_path, unit_m=1e-3, intrinsics=LENS)
    assert found.camera is None and said(found, "no camera") and len(found.time) == 4


@pytest.mark.parametrize(
    ("name", "numbers", "words"),
    [
        ("rgbd_dataset_freiburg1_xyz", LENSES["freiburg1"], "documented for freiburg1"),
        ("rgbd_dataset_freiburg2_desk", LENSES["freiburg2"], "documented for freiburg2"),
        ("rgbd_dataset_freiburg3_office", LENSES["freiburg3"], "documented for freiburg3"),
        ("mine", (525.0, 525.0, 319.5, 239.5), "default of ROS"),
    ],
)
def test_intrinsics_go_by_the_name_of_the_folder(tmp_path, name, numbers, words):
    found = read_tum(write(tmp_path / name, size=(480, 640)))
    assert said(found, words)
    fx, fy, cx, cy = numbers[:4]
    assert found.pixel_aspect == pytest.approx(fy / fx)
    assert (found.camera.distortion is None) == (len(numbers) == 4)
    if len(numbers) == 9:
        np.testing.assert_allclose(found.camera.distortion[0], numbers[4:], rtol=1e-6)
    # rays by columns of the recording, once the pixels are square
    camera = found.camera[0].replace(distortion=None)
    u = (np.arange(640) + 0.5) * found.pixel_aspect / 480
    x = (u - 640 * found.pixel_aspect / 960 - camera.offset[0]) / camera.focal
    np.testing.assert_allclose(x, (np.arange(640) - cx) / fx, atol=1e-6)
    np.testing.assert_allclose(pixel_plane(camera, 480, 640)[1][:, 0], (np.arange(480) - cy) / fy, atol=1e-6)


def test_a_lens_sees_a_known_point_at_the_pixel_that_opencvs_equations_give():
    fx, fy, cx, cy, k1, k2, p1, p2, k3 = LENSES["freiburg1"]
    lens = OpenCVIntrinsics.from_numbers(LENSES["freiburg1"], (480, 640), "test")
    camera = lens.cameras(np.zeros((1, 3)), np.array([[1.0, 0, 0, 0]]), (480, 640))[0]
    point = np.array([0.3, -0.2, 1.0])
    x, y = point[:2]
    s = x * x + y * y
    radial = 1 + k1 * s + k2 * s**2 + k3 * s**3
    bent_x = x * radial + 2 * p1 * x * y + p2 * (s + 2 * x * x)
    bent_y = y * radial + p1 * (s + 2 * y * y) + 2 * p2 * x * y
    canvas, _ = project(camera, point[None].astype(np.float32), 640 * lens.pixel_aspect / 480)
    pixel = np.asarray(canvas)[0] * 480 / [lens.pixel_aspect, 1] - 0.5
    np.testing.assert_allclose(pixel, [fx * bent_x + cx, fy * bent_y + cy], atol=2e-3)


def changed(folder, name, line, text):
    file = folder / name
    lines = file.read_text().splitlines()
    lines[line - 1] = text
    file.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("name", "line", "text", "words"),
    [
        ("rgb.txt", 2, "yesterday rgb/a.png", r"rgb\.txt: line 2 begins with 'yesterday'"),
        ("rgb.txt", 2, "nan rgb/a.png", r"line 2 begins with 'nan'"),
        ("depth.txt", 4, "1305031102.2", r"depth\.txt: line 4 holds 1 words"),
        ("depth.txt", 4, "1305031102.2 a b", "line 4 holds 3 words"),
        ("rgb.txt", 3, f"{START} ../../secret.png", "a file inside the folder"),
        ("rgb.txt", 3, f"{START} /secret.png", "a file inside the folder"),
        ("groundtruth.txt", 3, f"{START} 1 2 3 0 0 0", r"groundtruth\.txt: line 3 holds no pose"),
        ("groundtruth.txt", 3, f"{START} 1 2 3 0 0 0 0", "unit quaternion"),
        ("groundtruth.txt", 3, f"{START} 1 2 nan 0 0 0 1", "line 3 holds no pose"),
        ("groundtruth.txt", 3, f"{START} 1 2 1e9 0 0 0 1", "line 3 holds no pose"),
        ("groundtruth.txt", 3, f"{START} 1 2 x 0 0 0 1", "line 3 holds no pose"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path, name, line, text, words):
    changed(write(tmp_path), name, line, text)
    with pytest.raises(ValueError, match=words):
        read_tum(tmp_path, intrinsics=LENS)


def test_what_is_missing_or_does_not_fit_is_named(tmp_path):
    for name in ("rgb.txt", "depth.txt"):
        write(tmp_path / name)
        (tmp_path / name / name).unlink()
        with pytest.raises(FileNotFoundError, match=rf"{name}: no such file; needed the layout"):
            read_tum(tmp_path / name, intrinsics=LENS)
    write(tmp_path / "a")
    with pytest.raises(ValueError, match="48 x 64 pixels; needed their intrinsics"):
        read_tum(tmp_path / "a")
    (tmp_path / "a" / "rgb.txt").write_text("# nothing\n")
    with pytest.raises(ValueError, match="no line of data"):
        read_tum(tmp_path / "a", intrinsics=LENS)
    write(tmp_path / "b", poses=(0.0,))
    with pytest.raises(ValueError, match="one pose; needed 2"):
        read_tum(tmp_path / "b", intrinsics=LENS)
    picture = next((write(tmp_path / "c") / "depth").iterdir())
    Image.fromarray(np.full((24, 32), 9000, np.uint16)).save(picture)
    with pytest.raises(ValueError, match=r"24 x 32 pixels, the first .* 48 x 64; needed one size"):
        read_tum(tmp_path / "c", intrinsics=LENS)
    picture.unlink()
    with pytest.raises(FileNotFoundError, match=rf"{picture.name}: no such file"):
        read_tum(tmp_path / "c", intrinsics=LENS)


@pytest.mark.filterwarnings("ignore")
def test_damaged_folders_are_read_or_refused(tmp_path):
    folder = write(tmp_path / "case")
    files = [*sorted(folder.glob("*.txt")) * 2, *sorted(folder.rglob("*.png"))]
    refused = 0
    for n in range(400):
        file, rng = files[n % len(files)], np.random.default_rng(n)
        whole = file.read_bytes()
        if file.suffix == ".txt" and n % 5 == 0:
            lines = whole.splitlines(True)
            file.write_bytes(b"".join(lines[i] for i in rng.permutation(len(lines))[1:]))
        else:
            file.write_bytes(damaged(rng, whole, n // len(files) % 4))
        message = None
        try:
            found = read_tum(folder, intrinsics=LENS)
            frames = list(found.pictures(range(len(found.time))))
            assert 2 <= len(frames) <= 4 and all(frame["depth"].shape == (48, 64, 1) for frame in frames)
        except (ValueError, OSError) as error:
            message = str(error)
        assert message is None or "case" in message, message
        refused += message is not None
        file.write_bytes(whole)
    assert refused > 150


def test_real_frames_in_tums_layout_are_those_of_redwoods(tmp_path, real_data):
    from data_pipelines.recording.redwood import read_redwood

    given = read_redwood(real_data / "rgbd", rate_hz=30)
    lists = {"rgb": [], "depth": [], "groundtruth": []}
    for k, shot in enumerate(given.pictures.shots):
        for name, file in (("rgb", shot.colour), ("depth", shot.depth)):
            (tmp_path / name).mkdir(exist_ok=True)
            shutil.copy(file, tmp_path / name)
            lists[name].append(f"{START + k / 30:.6f} {name}/{file.name}")
        quaternion = np.roll(given.camera.rotation[k], -1)
        lists["groundtruth"].append(" ".join(map(str, [f"{START + k / 30:.6f}", *given.camera.position[k], *quaternion])))
    for name, lines in lists.items():
        (tmp_path / f"{name}.txt").write_text("\n".join(lines))
    found = read_tum(tmp_path, unit_m=1e-3)
    np.testing.assert_allclose(found.time, given.time, atol=1e-6)
    np.testing.assert_allclose(found.camera.position, given.camera.position, atol=1e-6)
    np.testing.assert_allclose(found.camera.rotation, given.camera.rotation, atol=1e-6)
    np.testing.assert_array_equal(found.camera.focal, given.camera.focal)
    for one, other in zip(found.pictures([0, 4]), given.pictures([0, 4]), strict=True):
        np.testing.assert_array_equal(one["depth"], other["depth"])
        assert one["jpeg"] == other["jpeg"]
