"""Pictures inside larger files: upright, in colour, and with their bytes only where these show the same."""

import io

import numpy as np
import pytest
from PIL import Image

from data_pipelines.recording.encoded import Header, decoded, header
from tests.core.exchange.test_scene_file import damaged

RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def saved(picture, kind: str = "png", **options) -> bytes:
    buffer = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(buffer, kind, **options)
    return buffer.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(RGB, "jpeg", exif=exif)


def test_png_is_exact_grey_repeated_and_alpha_dropped_and_said():
    assert header(saved(RGB), "a") == Header(4, 6, False)
    np.testing.assert_array_equal(decoded(saved(RGB), "a")["rgb"], RGB)
    np.testing.assert_array_equal(decoded(saved(RGB[..., 0]), "a")["rgb"], RGB[..., :1].repeat(3, -1))
    clear = np.concatenate([RGB, np.zeros((4, 6, 1), np.uint8)], -1)
    assert header(saved(clear), "a").alpha
    np.testing.assert_array_equal(decoded(saved(clear), "a")["rgb"], RGB)


@pytest.mark.parametrize("orientation", range(9))
def test_photos_stand_upright(orientation):
    data = turned(orientation)
    stored = np.asarray(Image.open(io.BytesIO(data)))
    # EXIF 2.3, tag 274: where the stored first row and column are shown
    upright = {
        2: stored[:, ::-1], 3: stored[::-1, ::-1], 4: stored[::-1], 5: stored.swapaxes(0, 1), 6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(stored),
    }.get(orientation, stored)  # fmt: skip
    picture, head = decoded(data, "a"), header(data, "a")
    np.testing.assert_array_equal(picture["rgb"], upright)
    assert (head.rows, head.columns) == upright.shape[:2]
    assert picture.get("jpeg") == (data if orientation < 2 else None)


def test_bytes_are_given_only_of_plain_jpegs():
    plain = saved(RGB, "jpeg")
    assert decoded(plain, "a")["jpeg"] == plain
    for options in ({"progressive": True}, {"icc_profile": b"profile"}):
        assert set(decoded(saved(RGB, "jpeg", **options), "a")) == {"rgb"}
    for picture in (Image.fromarray(RGB[..., 0]), Image.fromarray(RGB).convert("CMYK")):
        assert set(decoded(saved(picture, "jpeg"), "a")) == {"rgb"}


def test_what_is_no_picture_is_said():
    for data, words in (
        (b"", "here is no jpg or png picture, but 0 bytes"),
        (saved(RGB, "bmp"), "here is no jpg or png picture"),
        (saved(np.zeros((4, 6), np.uint16)), r"here has I;16 pixels"),
        (saved(RGB)[:-30], "here cannot be decoded"),
        (saved(Image.new("L", (9000, 9000))), "here has 9000 x 9000 pixels; needed at most"),
    ):
        with pytest.raises(ValueError, match=words):
            decoded(data, "here")


@pytest.mark.filterwarnings("ignore")
def test_damaged_pictures_are_read_or_refused():
    noise, refused = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8), 0
    whole = (saved(noise), saved(noise, "jpeg"), turned(6))
    for n in range(600):
        data, message = damaged(np.random.default_rng(n), whole[n % 3], n // 3 % 4), None
        try:
            head = header(data, "here")
            picture = decoded(data, "here")["rgb"]
            assert picture.shape == (head.rows, head.columns, 3) and picture.dtype == np.uint8
        except ValueError as error:
            message = str(error)
        assert message is None or message.startswith("here ")
        refused += message is not None
    assert refused > 100
