"""Depth cameras: intrinsics project as OpenCV's do, and depth is stored in mm for every step."""

import numpy as np
import pytest
from PIL import Image

from data_pipelines.recording.depth_camera import (
    FrameFiles,
    OpenCVIntrinsics,
    RGBDPictures,
    checked_size,
    checked_unit,
)
from wsm_jax.snapshot import project

SIZE = (48, 64)


def test_cameras_project_as_opencv_does():
    """x = fx X/Z + cx, y = fy Y/Z + cy, whole numbers are pixel centres; the middle of the picture is (0.5, 0.5)."""
    lens = OpenCVIntrinsics.from_numbers((50.0, 60.0, 30.5, 20.25), SIZE, "x")
    camera = lens.cameras(np.zeros((1, 3)), np.array([[1.0, 0, 0, 0]]), SIZE)
    points = np.random.default_rng(0).uniform((-0.4, -0.3, 1.0), (0.4, 0.3, 3.0), (20, 3)).astype(np.float32)
    canvas = np.asarray(project(camera[0], points)[0])
    x, y = 50 * points[:, 0] / points[:, 2] + 30.5, 60 * points[:, 1] / points[:, 2] + 20.25
    wanted = np.stack([(x + 0.5 - 32) * lens.pixel_aspect, y + 0.5 - 24], -1) / 48 + 0.5
    np.testing.assert_allclose(canvas, wanted, atol=1e-5)


@pytest.mark.parametrize("numbers", [(50, 50, 32), (50, 200, 32, 24), (-1, -1, 32, 24), (50, 50, 65, 24), (50, 50, 32, np.nan)])
def test_numbers_that_are_no_intrinsics_are_refused(numbers):
    with pytest.raises(ValueError, match="source: "):
        OpenCVIntrinsics.from_numbers(numbers, SIZE, "source")


def test_depth_is_in_millimetres_and_out_of_range_is_unknown(tmp_path):
    steps = np.array([[0, 1, 5000, 65535]], np.uint16).repeat(4, 0)
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "c.png")
    Image.fromarray(steps).save(tmp_path / "d.png")
    frames = (FrameFiles(tmp_path / "c.png", tmp_path / "d.png"),)
    assert checked_size(frames, []) == (4, 4)
    (frame,) = RGBDPictures(frames, (4, 4), 1 / 5000)([0])
    np.testing.assert_array_equal(frame["depth"][0, :, 0], [0, 0, 1000, 13107])
    (frame,) = RGBDPictures(frames, (4, 4), 0.01)([0])
    np.testing.assert_array_equal(frame["depth"][0, :, 0], [0, 10, 50000, 0])
    notes = []
    assert checked_unit(frames, (4, 4), 1 / 5000, notes) == 1 / 5000 and notes == ["depth is rounded to 1 mm"]
    with pytest.raises(ValueError, match=r"d\.png: a median depth of .*as with unit_m = "):
        checked_unit(frames, (4, 4), 10.0, [])
    with pytest.raises(ValueError, match=r"must not decrease and lie in 0\.\.0"):
        next(RGBDPictures(frames, (4, 4), 1e-3)([1]))
