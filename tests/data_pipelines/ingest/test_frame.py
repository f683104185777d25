"""Frames of a clip: a point of the world stays on its pixel through cut and resize, labels are not mixed, JPEG bytes stay."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from data_pipelines.ingest.bucket import Bucket
from data_pipelines.ingest.frame import crop_signal, cut_clip, derivable
from data_pipelines.recording.recording import Recording
from wsm_jax.snapshot import Camera, Signal, crop_box, project, resize

LENS = np.float32([-0.2, 0.05, 0.001, -0.002, 0.01])


def cameras(count: int, lens: bool, offset=(0.03, -0.05)) -> Camera:
    quaternion = np.float32([[np.cos(0.1 * i), 0.1, np.sin(0.1 * i), 0.05] for i in range(count)])
    quaternion /= np.linalg.norm(quaternion, axis=-1, keepdims=True)
    return Camera(
        np.float32([[0.1 * i, -0.2, 0.3] for i in range(count)]),
        quaternion,
        np.full(count, 0.9, np.float32),
        np.tile(np.float32(offset), (count, 1)),
        np.tile(LENS, (count, 1)) if lens else None,
    )


def recording(pictures: list[dict], *, camera=None, pixel_aspect=1.0, kind="video", signals=None) -> Recording:
    def given(indices):
        yield from (pictures[i] for i in indices)

    size = np.asarray([found["rgb"].shape[:2] for found in pictures])
    channels = tuple(name for name in pictures[0] if name != "jpeg")
    time = np.arange(len(pictures)) / (10.0 if kind == "video" else 1.0)
    return Recording(
        *("a", kind, time, len(pictures) / (10 if kind == "video" else 1), size, channels, given, ()),
        camera=camera, pixel_aspect=pixel_aspect, signals=signals or {},
    )  # fmt: skip


def made(of: Recording, height: int, width: int, frames=(0, 1), *, start=0.0, extra=(), keep=True):
    return cut_clip(of, of.pictures(frames), tuple(frames), start, Bucket(height, width, 10, len(frames) / 10), extra, keep)


def dots(size, places, radius: float, pixel_aspect: float) -> np.ndarray:
    """A picture with a soft white dot at each place (x, y), in stored pixels from the corner; round as it is shown."""
    y, x = np.mgrid[: size[0], : size[1]] + 0.5
    picture = np.zeros(size)
    for u, v in places:
        picture += np.exp(-(((x - u) * pixel_aspect) ** 2 + (y - v) ** 2) / (2 * radius**2))
    return np.repeat(np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)[..., None], 3, -1)


@pytest.mark.parametrize("lens", [False, True])
@pytest.mark.parametrize("pixel_aspect", [1.0, 4 / 3, 0.5])
@pytest.mark.parametrize(("height", "width"), [(48, 48), (32, 80), (60, 30)])
def test_a_point_stays_on_its_pixel(lens, pixel_aspect, height, width):
    size = (120, 160)
    shown = size[1] * pixel_aspect / size[0]  # width over height of the whole picture
    camera = cameras(2, lens)
    top, left, rows, cols = crop_box(size, height, width, pixel_aspect)
    # a point of the world that the second camera sees near the middle of what is kept
    canvas = np.float32([(left + 0.55 * cols) * pixel_aspect / size[0], (top + 0.4 * rows) / size[0]])
    plane = (canvas - np.float32([0.5 * shown, 0.5]) - camera.offset[1]) / 0.9
    turn = Rotation.from_quat(camera.rotation[1], scalar_first=True).as_matrix()
    point = (camera.position[1] + turn @ (3.0 * np.array([*plane, 1.0]))).astype(np.float32)
    uv = np.asarray(project(camera[1], point[None], shown)[0])[0]
    place = (uv[0] * size[0] / pixel_aspect, uv[1] * size[0])
    picture = {"rgb": dots(size, [place], 4.0, pixel_aspect)}
    found = made(recording([picture, picture], camera=camera, pixel_aspect=pixel_aspect), height, width)
    grey = found.channels["rgb"][1, ..., 0].astype(float)
    y, x = np.mgrid[:height, :width] + 0.5
    centre = np.array([(grey * x).sum(), (grey * y).sum()]) / grey.sum()
    expected = np.asarray(project(found.camera[1], point[None], width / height)[0])[0] * height
    assert np.abs(centre - expected).max() < 0.35, (centre, expected)  # the cut is of whole source pixels
    assert 0.2 * width < expected[0] < 0.8 * width
    assert (found.camera.distortion is not None) == lens
    np.testing.assert_array_equal(found.camera.position, camera.position)


def test_labels_and_depth_are_of_pixels_that_were_there():
    rng = np.random.default_rng(0)
    picture = {
        "rgb": rng.integers(0, 256, (45, 80, 3), dtype=np.uint8),
        "depth": rng.choice(np.uint16([0, 1000, 5000]), (45, 80, 1)),
        "instance": rng.choice(np.uint16([0, 3, 900]), (45, 80, 1)),
    }
    found = made(recording([picture]), 16, 16, (0,))
    assert set(np.unique(found.channels["depth"])) <= {0, 1000, 5000}
    assert set(np.unique(found.channels["instance"])) <= {0, 3, 900}
    cut = {name: values[:, 17:62] for name, values in picture.items()}
    for name, values in found.channels.items():
        assert values.dtype == picture[name].dtype
        np.testing.assert_array_equal(values[0], resize(name, cut[name], 16, 16))


def jpeg(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def load_picture(size, count=3) -> list[dict]:
    rng = np.random.default_rng(1)
    raw = [jpeg(rng.integers(0, 256, (*size, 3), dtype=np.uint8)) for _ in range(count)]
    return [{"rgb": np.asarray(Image.open(io.BytesIO(data))), "jpeg": data} for data in raw]


def test_jpeg_bytes_are_kept_only_where_nothing_is_changed():
    pictures = load_picture((24, 32))
    whole = made(recording(pictures), 24, 32, (0, 2, 2))
    assert whole.pictures == [pictures[i]["jpeg"] for i in (0, 2, 2)]
    assert "rgb" not in whole.channels
    for size in ((24, 30), (12, 16), (48, 64), (32, 24)):
        assert made(recording(pictures), *size).pictures is None
    assert made(recording(pictures), 24, 32, keep=False).pictures is None
    assert made(recording(pictures, pixel_aspect=2.0), 24, 32).pictures is None
    mixed = [pictures[0], {"rgb": pictures[1]["rgb"]}, pictures[2]]
    found = made(recording(mixed), 24, 32, (0, 1, 2))
    assert found.pictures is None
    np.testing.assert_array_equal(found.channels["rgb"], [one["rgb"] for one in pictures])


def test_views_of_several_sizes_come_to_one():
    sizes = [(30, 40), (40, 30), (20, 20)]
    camera = cameras(3, False)
    views = recording(
        [{"rgb": np.full((*size, 3), 9 * i, np.uint8)} for i, size in enumerate(sizes)], camera=camera, kind="views"
    )
    found = made(views, 16, 16, (0, 1, 2))
    assert found.channels["rgb"].shape == (3, 16, 16, 3)
    np.testing.assert_array_equal(found.frame_time, [0, 1, 2])
    # whole pictures 30, 40, 20 high; parts 30, 30, 20 high: focal lengths in their heights
    np.testing.assert_allclose(found.camera.focal, np.float32([0.9, 0.9 * 40 / 30, 0.9]), rtol=1e-6)


def test_a_picture_that_is_not_what_was_scanned_is_named():
    good = {"rgb": np.zeros((20, 20, 3), np.uint8)}
    of = recording([good, good])
    other = iter([good, {"rgb": np.zeros((20, 24, 3), np.uint8)}])
    with pytest.raises(ValueError, match=r"a: frame 1 has pictures of \[\(20, 24, 3\)\], needed 20 x 20"):
        cut_clip(of, other, (0, 1), 0.0, Bucket(8, 8, 10, 0.2), (), True)
    with pytest.raises(ValueError, match="a: frame 1 has no picture"):
        cut_clip(of, iter([good]), (0, 1), 0.0, Bucket(8, 8, 10, 0.2), (), True)


def test_signals_are_cut_to_the_window_with_times_from_its_start():
    time = np.arange(20) * 0.1 + 0.05
    signal = Signal(time, np.arange(40, dtype=np.float32).reshape(20, 2))
    cut = crop_signal(signal, 0.5, 1.0)
    # the one of 0.45 s still holds at 0.5 s; that of 1.05 s is beyond
    np.testing.assert_allclose(cut.time, [-0.05, 0.05, 0.15, 0.25, 0.35, 0.45], atol=1e-9)
    np.testing.assert_array_equal(cut.values, signal.values[4:10])
    exact = crop_signal(Signal(np.arange(10) / 10, signal.values[:10]), 0.3, 0.6)
    np.testing.assert_allclose(exact.time, [0, 0.1, 0.2], atol=1e-9)
    assert len(crop_signal(signal, 0.0, 0.05).time) == 0
    np.testing.assert_allclose(crop_signal(signal, 5.0, 6.0).time, [-3.05])
    pictures = [{"rgb": np.zeros((8, 8, 3), np.uint8)}] * 8
    found = made(recording(pictures, signals={"pose": signal}), 8, 8, (3, 4, 5), start=0.3)
    np.testing.assert_allclose(found.signals["pose"].time, [-0.05, 0.05, 0.15, 0.25], atol=1e-9)
    np.testing.assert_array_equal(found.frame_time, [0, 0.1, 0.2])


def test_what_is_derived_needs_depth_and_cameras():
    both = ("normal", "motion")
    assert derivable(("rgb", "depth"), "video", True, both) == both
    assert derivable(("rgb", "depth"), "views", True, both) == ("normal",)
    assert derivable(("rgb", "depth"), "video", False, both) == ()
    assert derivable(("rgb",), "video", True, both) == ()
    assert derivable(("rgb", "depth"), "video", True, ("motion",)) == ("motion",)
