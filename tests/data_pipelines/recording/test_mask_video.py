"""Masks as a film: what a lossless codec keeps are the instances, wherever reading begins; what may blur them is refused."""

import contextlib
import pickle
import re

import av
import numpy as np
import pytest
from PIL import Image

from data_pipelines.recording.mask_video import read_video_masks
from tests.data_pipelines.recording.label_film import label_film
from tests.data_pipelines.recording.test_mask_picture import png

COUNT, SIZE = 40, (32, 44)


def labels(most: int = 255) -> np.ndarray:
    """[T H W]: a box that moves, its number changes, and the largest label stands still."""
    values = np.zeros((COUNT, *SIZE), np.int64)
    for i in range(COUNT):
        values[i, i % 20 : i % 20 + 9, i : i + 5] = (i + 1) * (most // 64)
    values[:, 0, 0] = most
    return values


@pytest.mark.parametrize(
    ("suffix", "codec", "pixels"),
    [
        (".mkv", "ffv1", "gray"),
        (".mkv", "ffv1", "gray10le"),
        (".mkv", "ffv1", "gray16le"),
        (".mkv", "rawvideo", "gray"),
        (".avi", "ffv1", "gray"),
        (".avi", "rawvideo", "gray"),
        (".avi", "rawvideo", "pal8"),
        (".avi", "zmbv", "pal8"),
        (".avi", "msrle", "pal8"),
        (".avi", "png", "pal8"),
        (".mov", "png", "gray"),
        (".mov", "png", "gray16be"),
        (".mov", "qtrle", "gray"),
        (".mov", "rawvideo", "gray"),
        (".mov", "rawvideo", "pal8"),
        (".mp4", "ffv1", "gray"),
        (".mp4", "png", "gray"),
    ],
)
def test_values_are_instances(tmp_path, suffix, codec, pixels):
    values = labels({"gray10le": 1023, "gray16le": 65535, "gray16be": 65535}.get(pixels, 255))
    masks = read_video_masks(label_film(tmp_path / f"a{suffix}", values, codec, pixels))
    assert (len(masks), masks.head(0)[1], masks.files) == (COUNT, SIZE, (tmp_path / f"a{suffix}",))
    for indices in (range(COUNT), [0], [39], [17, 18, 30], [5, 23, 38], []):
        for again in (masks, pickle.loads(pickle.dumps(masks))):
            found = list(again(indices))
            assert all(one.dtype == np.uint16 for one in found)
            np.testing.assert_array_equal(np.reshape(found, (-1, *SIZE)), values[list(indices)])


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("palette", [False, True])
def test_png_pictures_that_were_put_into_a_film_are_read_as_in_a_folder(tmp_path, depth, palette):
    values = np.random.default_rng(depth).integers(0, 2**depth, (5, 6, 8))
    with av.open(str(tmp_path / "a.mov"), "w") as file:
        stream = file.add_stream("png", rate=8)
        stream.height, stream.width, stream.pix_fmt = 6, 8, "gray"
        for number, picture in enumerate(values):
            packet = av.Packet(png(picture, depth, palette))
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, 1 / stream.codec_context.rate
            file.mux(packet)
    np.testing.assert_array_equal(np.stack(list(read_video_masks(tmp_path / "a.mov")(range(5))))[..., 0], values)


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mp4", "libx264", "gray"),
        ("a.mkv", "libx264rgb", "rgb24"),
        ("a.avi", "mjpeg", "yuvj420p"),
        ("a.mkv", "libvpx", "yuv420p"),
    ],
)
def test_a_lossy_codec_is_refused(tmp_path, name, codec, pixels):
    values = labels().astype(np.uint8)
    with av.open(str(tmp_path / name), "w") as file:
        stream = file.add_stream(codec, rate=8)
        stream.height, stream.width, stream.pix_fmt = *SIZE, pixels
        for picture in values:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray").reformat(format=pixels)))
        file.mux(stream.encode())
    message = r": is of codec \w+, which may blur labels into others; needed masks as a film .* lossless codec .*FOLDER/a\.npz"
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / name)) + message):
        read_video_masks(tmp_path / name)


@pytest.mark.parametrize("pixels", ["bgr0", "yuv420p", "ya8"])
def test_colours_are_refused(tmp_path, pixels):
    with av.open(str(tmp_path / "a.mkv"), "w") as file:
        stream = file.add_stream("ffv1", rate=8)
        stream.height, stream.width, stream.pix_fmt = *SIZE, pixels
        for picture in labels().astype(np.uint8):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="gray").reformat(format=pixels)))
        file.mux(stream.encode())
    with pytest.raises(
        ValueError, match=rf"a\.mkv: its pixels are {pixels}, which are no labels; needed .*gray, gray16 or pal8"
    ):
        read_video_masks(tmp_path / "a.mkv")


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "ffv1"), (".mov", "png")])
def test_a_film_that_became_another_is_named(tmp_path, suffix, codec):
    """One of fewer pictures, or of other times, is not taken for what it was."""
    path = tmp_path / f"a{suffix}"
    masks = read_video_masks(label_film(path, labels(), codec, "gray"))
    label_film(path, labels()[:30], codec, "gray")
    with pytest.raises(ValueError, match=rf"a\{suffix}: picture 30 is damaged or missing"):
        list(masks(range(COUNT)))
    label_film(path, labels(), codec, "gray", 7)
    with pytest.raises(ValueError, match=rf"a\{suffix}: picture 1 is damaged or missing"):
        list(masks(range(COUNT)))


def test_files_that_are_no_film_are_named(tmp_path):
    (tmp_path / "a.mkv").write_bytes(b"no film" * 99)
    (tmp_path / "b.mp4").write_bytes(b"")
    Image.new("L", (8, 8)).save(tmp_path / "c.png")
    (tmp_path / "c.png").rename(tmp_path / "c.mkv")
    for name in ("a.mkv", "b.mp4", "c.mkv"):
        with pytest.raises(ValueError, match=rf"{re.escape(str(tmp_path / name))}.*needed masks as a film"):
            read_video_masks(tmp_path / name)


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "ffv1"), (".avi", "rawvideo"), (".mov", "png"), (".mp4", "ffv1")])
def test_a_film_that_ends_early_gives_no_wrong_mask(tmp_path, suffix, codec):
    """It is refused, or has fewer masks, all of which are right: then their number does not fit the recording."""
    values = labels()
    raw = label_film(tmp_path / f"whole{suffix}", values, codec, "gray").read_bytes()
    path, rng = tmp_path / f"a{suffix}", np.random.default_rng(0)
    for size in rng.integers(1, len(raw) - 1, 25).tolist():
        path.write_bytes(raw[:size])
        with contextlib.suppress(ValueError):
            masks = read_video_masks(path)
            found = list(masks(range(len(masks))))
            np.testing.assert_array_equal(np.reshape(found, (-1, *SIZE)), values[: len(found)])
            continue
        with pytest.raises(ValueError, match=re.escape(str(path))):
            list((masks := read_video_masks(path))(range(len(masks))))
