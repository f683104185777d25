"""Pictures, as files or inside larger ones: upright, in colour, and with their bytes only where these show the same."""

import io

import numpy as np
import pytest
from PIL import Image

from data_pipelines.recording.stills import load_picture, read_colour_head, read_picture_head
from tests.core.exchange.test_scene_file import damaged

RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def saved(picture, kind: str = "png", **options) -> bytes:
    buffer = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(buffer, kind, **options)
    return buffer.getvalue()


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def turned(orientation: int) -> bytes:
    return saved(RGB, "jpeg", exif=exif_of(orientation))


def test_png_is_exact_grey_repeated_and_what_is_transparent_black_and_said():
    assert read_picture_head(saved(RGB)).upright_size == (4, 6) and not read_picture_head(saved(RGB)).alpha
    np.testing.assert_array_equal(load_picture(saved(RGB), "a")["rgb"], RGB)
    np.testing.assert_array_equal(load_picture(saved(RGB[..., 0]), "a")["rgb"], RGB[..., :1].repeat(3, -1))
    clear = np.concatenate([RGB, np.zeros((4, 6, 1), np.uint8)], -1)
    clear[:, :3, 3] = 255
    assert read_picture_head(saved(clear)).alpha
    np.testing.assert_array_equal(load_picture(saved(clear))["rgb"], RGB * (np.arange(6) < 3)[:, None])
    deep = np.uint16([[0, 257, 65535]])
    np.testing.assert_array_equal(load_picture(saved(deep))["rgb"][0, :, 1], [0, 1, 255])
    assert read_colour_head(saved(clear), "here") == read_picture_head(saved(clear))
    with pytest.raises(ValueError, match="here: is one component of I;16"):
        read_colour_head(saved(deep), "here")


def test_a_file_and_its_bytes_are_one_picture(tmp_path):
    for name, data in (("a.png", saved(RGB)), ("a.jpg", saved(RGB, "jpeg"))):
        (tmp_path / name).write_bytes(data)
        one, other = load_picture(tmp_path / name), load_picture(data, "a")
        assert set(one) == set(other) and one.get("jpeg") == other.get("jpeg")
        np.testing.assert_array_equal(one["rgb"], other["rgb"])
    with pytest.raises(FileNotFoundError, match=r"gone\.png: no such file"):
        load_picture(tmp_path / "gone.png")


@pytest.mark.parametrize("orientation", range(9))
def test_photos_stand_upright(orientation):
    data = turned(orientation)
    stored = np.asarray(Image.open(io.BytesIO(data)))
    # EXIF 2.3, tag 274: where the stored first row and column are shown
    upright = {
        2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.swapaxes(0, 1), 6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(stored),
    }.get(orientation, stored)  # fmt: skip
    picture, head = load_picture(data, "a"), read_picture_head(data, "a")
    np.testing.assert_array_equal(picture["rgb"], upright)
    assert head.upright_size == upright.shape[:2]
    assert picture.get("jpeg") == (data if orientation < 2 else None)


def test_bytes_are_given_only_of_plain_jpegs():
    plain = saved(RGB, "jpeg")
    assert load_picture(plain, "a")["jpeg"] == plain
    for options in ({"progressive": True}, {"exif": exif_of(6)}):
        assert set(load_picture(saved(RGB, "jpeg", **options), "a")) == {"rgb"}
    for picture in (Image.fromarray(RGB[..., 0]), Image.fromarray(RGB).convert("CMYK")):
        assert set(load_picture(saved(picture, "jpeg"), "a")) == {"rgb"}


def test_what_is_no_picture_is_said():
    for data, words in (
        (b"", "here: is empty"),
        (saved(RGB, "bmp"), "here: is no jpg, png or webp picture"),
        (saved(RGB)[:-30], "here: cannot be read as a picture"),
        (saved(Image.new("1", (12000, 12000))), "here: cannot be .*has 12000 x 12000 pixels; needed at most"),
    ):
        with pytest.raises(ValueError, match=words):
            load_picture(data, "here")


@pytest.mark.filterwarnings("ignore")
def test_damaged_pictures_are_read_or_refused():
    noise, refused = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8), 0
    whole = (saved(noise), saved(noise, "jpeg"), turned(6))
    for n in range(600):
        data, message = damaged(np.random.default_rng(n), whole[n % 3], n // 3 % 4), None
        try:
            head = read_picture_head(data, "here")
            picture = load_picture(data, "here")["rgb"]
            assert picture.shape == (*head.upright_size, 3) and picture.dtype == np.uint8
        except ValueError as error:
            message = str(error)
        assert message is None or message.startswith("here: ")
        refused += message is not None
    assert refused > 100
