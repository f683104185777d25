"""Recordings with geometry: poses, intrinsics at any thinning, and refusals that name the file."""

import numpy as np
import pytest
from PIL import Image

from data_pipelines.recording.rgbd import read_frames, read_points, read_trajectory
from tests.core.exchange.test_scene_file import damaged
from wsm_jax.core.fitting.observations import world_points
from wsm_jax.snapshot import project

LENS = (50.0, 50.0, 31.0, 22.5)
TURN = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])


@pytest.fixture
def folder(tmp_path):
    """Two frames of 48 x 64 pixels: a wall 2 m away with one pixel at 1 m; the second camera is turned and moved."""
    for name in ("color", "depth"):
        (tmp_path / name).mkdir()
    for k in range(2):
        depth = np.full((48, 64), 2000, np.uint16)
        depth[20, 40] = 1000
        depth[0] = 0
        Image.fromarray(depth).save(tmp_path / "depth" / f"{k}.png")
        Image.fromarray(np.full((48, 64, 3), 100 + k, np.uint8)).save(tmp_path / "color" / f"{k}.jpg")
    poses = [np.eye(4), np.eye(4)]
    poses[1][:3, :3], poses[1][:3, 3] = TURN, (1, 2, 3)
    lines = [f"{k} {k} {k + 1}\n" + "\n".join(" ".join(map(str, row)) for row in pose) for k, pose in enumerate(poses)]
    (tmp_path / "trajectory.log").write_text("\n".join(lines) + "\n")
    return tmp_path


@pytest.mark.parametrize("shrink", [1, 2, 4])
def test_a_pixel_lies_where_the_pinhole_says_at_any_thinning(folder, shrink):
    frames = read_frames(folder, LENS, shrink=shrink)
    assert len(frames) == 2 and frames[0].depth.shape == frames[0].rgb.shape[:2] == (48 // shrink, 64 // shrink)
    assert frames[1].rgb.mean() == pytest.approx(101 / 255, abs=0.01)
    local = np.array([(40 - LENS[2]) / LENS[0], (20 - LENS[3]) / LENS[1], 1.0])
    for frame, wanted in zip(frames, (local, TURN @ local + [1, 2, 3]), strict=True):
        points = world_points(frame.depth, frame.camera)
        np.testing.assert_allclose(points[20 // shrink, 40 // shrink], wanted, atol=1e-5)
        assert frame.depth[0, 0] == 0 and frame.depth[20 // shrink, 40 // shrink] == 1.0
    assert len(read_frames(folder, LENS, most=1)) == 1


def test_masks_are_read_where_they_are_and_refused_where_they_are_none(folder):
    assert read_frames(folder, LENS)[0].mask is None
    (folder / "mask").mkdir()
    for k in range(2):
        mask = np.zeros((48, 64), np.uint16)
        mask[20, 40] = 300 + k
        Image.fromarray(mask).save(folder / "mask" / f"{k}.png")
    for k, frame in enumerate(read_frames(folder, LENS, shrink=4)):
        assert frame.mask.shape == (12, 16) and frame.mask[5, 10] == 300 + k and frame.mask.sum() == 300 + k
    Image.fromarray(np.zeros((48, 60), np.uint8)).save(folder / "mask" / "1.png")
    with pytest.raises(ValueError, match=r"1.png: uint8 \(48, 60\); needed one channel .* as large as the depth"):
        read_frames(folder, LENS)
    (folder / "mask" / "1.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"mask: no picture 1\.\*"):
        read_frames(folder, LENS)


def test_what_is_wrong_is_named(folder, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match="none: needed the folders depth and one of color"):
        read_frames(tmp_path / "none")
    with pytest.raises(ValueError, match="needed square pixels"):
        read_frames(folder, (50, 60, 32, 24))
    with pytest.raises(ValueError, match=r"0.png: .*is it mm or inverse"):
        read_frames(folder, LENS, unit_m=1.0)
    (folder / "color" / "1.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"no picture 1\.\*"):
        read_frames(folder, LENS)
    (folder / "depth" / "0.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"0.png .* no picture that can be read"):
        read_frames(folder, LENS)
    log = folder / "trajectory.log"
    for text, words in (
        ("1 2 3\n", "1 lines"),
        ("0 0 1\n" + "1 0 0 0\n" * 4, "no rigid motion"),
        ("0\n" + "a b\n" * 4, "lines 2 to 5"),
    ):
        log.write_text(text)
        with pytest.raises(ValueError, match=words):
            read_trajectory(log)
    with pytest.raises(FileNotFoundError, match="camera poses"):
        read_trajectory(folder / "no.log")


def test_points_and_their_cameras(tmp_path):
    points, colours = np.float32([[0, 0, 2], [0.2, -0.1, 4]]), np.uint8([[255, 0, 0], [0, 0, 51]])
    view = np.eye(4)[None].repeat(2, 0)
    view[1, :3, :3], view[1, :3, 3] = TURN.T, (0.5, 0, 1)
    lens = np.array([[40.0, 0, 33], [0, 40, 20], [0, 0, 1]])[None].repeat(2, 0)
    np.savez(tmp_path / "a.npz", means3d=points, colors=colours, viewmats=view, Ks=lens, height=48, width=64)
    given = read_points(tmp_path / "a.npz")
    np.testing.assert_allclose(given.colours[1], [0, 0, 0.2])
    assert given.cameras is not None
    for k in range(2):
        canvas, depth = project(given.cameras[k], given.points, 64 / 48)
        local = points @ view[k, :3, :3].T + view[k, :3, 3]
        np.testing.assert_allclose(depth, local[:, 2], rtol=1e-5)
        np.testing.assert_allclose(np.asarray(canvas) * 48, 40 * local[:, :2] / local[:, 2:] + [33, 20], rtol=1e-4, atol=1e-3)
    np.savez(tmp_path / "b.npz", means3d=points, colors=colours)
    assert read_points(tmp_path / "b.npz").cameras is None
    np.savez(tmp_path / "c.npz", means3d=points)
    (tmp_path / "d.npz").write_bytes(b"PK")
    for name, words in (("c", "needed means3d and colors"), ("d", "cannot be read")):
        with pytest.raises(ValueError, match=words):
            read_points(tmp_path / f"{name}.npz")


GOOD = {"viewmats": np.eye(4)[None], "Ks": np.diag([40.0, 40, 1])[None], "height": 48, "width": 64}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"viewmats": np.eye(4)}, r"viewmats \(4, 4\)"),
        ({"height": np.array([48, 48])}, "two whole numbers"),
        ({"height": 0}, "two whole numbers"),
        ({"Ks": np.zeros((1, 3, 3))}, "focal lengths 0"),
        ({"viewmats": np.zeros((1, 4, 4))}, "no rigid motions"),
        ({"means3d": np.full((2, 3), np.nan)}, "means3d"),
        ({"colors": np.full((2, 3), np.nan)}, "colors"),
        ({"colors": np.full((2, 3), 300.0)}, "needed 0..255"),
        ({"means3d": np.zeros((2, 2))}, "points of shape"),
    ],
)
def test_points_that_are_none_are_refused_by_file_and_field(fields, words, tmp_path):
    path = tmp_path / "p.npz"
    np.savez(path, **({"means3d": np.ones((2, 3)), "colors": np.zeros((2, 3), np.uint8)} | GOOD | fields))
    with pytest.raises(ValueError, match=words) as caught:
        read_points(path)
    assert str(path) in str(caught.value)


def test_a_file_of_another_kind_is_told_where_to_go(tmp_path):
    with pytest.raises(ValueError, match=r"launch\.convert"):
        read_points(tmp_path / "box.obj")


def test_damaged_points_are_read_or_refused(tmp_path):
    rng = np.random.default_rng(0)
    many = {"means3d": rng.normal(size=(50, 3)), "colors": rng.integers(0, 255, (50, 3), np.uint8)} | GOOD
    path, refused = tmp_path / "p.npz", 0
    for n in range(400):
        (np.savez_compressed if n % 2 else np.savez)(path, **many)
        path.write_bytes(damaged(np.random.default_rng(n), path.read_bytes(), n // 2 % 4))
        message = None
        try:
            read_points(path)
        except ValueError as error:
            message = str(error)
        assert message is None or str(path) in message
        refused += message is not None
    assert refused > 100
