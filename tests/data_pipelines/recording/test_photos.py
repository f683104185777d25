"""Photos with cameras: a marked pixel stays under its point however the photo is stored, and pictures keep their values."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from data_pipelines.recording.photos import PhotoIntrinsics, PosedPhoto, photo_recording
from data_pipelines.recording.stills import load_rgb, read_picture_head
from tests.core.exchange.test_scene_file import damaged
from tests.data_pipelines.recording.posed import BEND, LENS, POINTS, SHIFTS, TURNS, pixels, shown
from wsm_jax.snapshot import project

ROWS, COLUMNS = 48, 64
POSE = np.eye(4)
POSE[:3, :3], POSE[:3, 3] = TURNS[0].T, -TURNS[0].T @ SHIFTS[0]


def save(path, array, orientation=1, **options):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(array).save(path, exif=exif, **options)
    return path


def view(path, distortion=BEND, lens=LENS, width=COLUMNS, height=ROWS, **layers):
    return PosedPhoto(
        path.name, path, PhotoIntrinsics(width, height, **lens, distortion=tuple(distortion.values())), POSE, **layers
    )


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_camera_turns_with_the_photo(orientation, tmp_path):
    """Where the stored photo shows a point it is white; upright, the white pixel is where the upright camera sees the point."""
    places = pixels(0, **LENS, **BEND)
    inside = (places > 2).all(1) & (places < [COLUMNS - 2, ROWS - 2]).all(1)
    assert inside.sum() > 20
    x, y = places.T
    turned = {1: (x, y), 3: (COLUMNS - x, ROWS - y), 6: (ROWS - y, x), 8: (y, COLUMNS - x)}[orientation]
    for n in np.flatnonzero(inside)[::7]:
        stored, depth = np.zeros((ROWS, COLUMNS, 3), np.uint8), np.zeros((ROWS, COLUMNS), np.uint16)
        column, row = np.floor(places[n]).astype(int)
        stored[row, column], depth[row, column] = 255, 1234
        photo = save(tmp_path / "p.png", stored, orientation)
        files = {"depth": save(tmp_path / "d.png", depth), "mask": save(tmp_path / "m.png", stored[..., 0])}
        recording = photo_recording("r", photo, (), [view(photo, **files)], ())
        (picture,) = recording.pictures([0])
        assert picture["rgb"].shape[:2] == tuple(recording.size[0]) == ((48, 64) if orientation < 5 else (64, 48))
        np.testing.assert_allclose(shown(recording, 0), np.stack(turned, -1), atol=2e-3)
        seen = np.floor(shown(recording, 0)[n]).astype(int)
        for values in (picture["rgb"] == 255, picture["depth"] == 1234, picture["instance"] == 1):
            assert np.argwhere(values[..., 0]).tolist() == [seen[::-1].tolist()]
        assert picture["depth"].sum() == 1234 and picture["instance"].sum() == 1
        assert any("turned upright" in note for note in recording.notes) == (orientation != 1)
        assert recording.pixel_aspect == pytest.approx(0.9 if orientation < 5 else 1 / 0.9)


def test_a_model_of_the_upright_photo_is_known_by_its_size(tmp_path):
    photo = save(tmp_path / "p.png", np.zeros((COLUMNS, ROWS, 3), np.uint8), 6)
    mask = save(tmp_path / "m.png", np.eye(ROWS, COLUMNS, dtype=np.uint8))
    recording = photo_recording("r", photo, (), [view(photo, mask=mask)], ())
    np.testing.assert_allclose(shown(recording, 0), pixels(0, **LENS, **BEND), atol=2e-3)
    (picture,) = recording.pictures([0])
    np.testing.assert_array_equal(picture["instance"][..., 0], np.eye(ROWS, COLUMNS))


@pytest.mark.parametrize("orientation", [2, 4, 5, 7])
def test_mirrored_photos_are_refused(orientation, tmp_path):
    photo = save(tmp_path / "p.png", np.zeros((ROWS, COLUMNS, 3), np.uint8), orientation)
    with pytest.raises(ValueError, match=rf"p\.png: EXIF orientation {orientation} mirrors it"):
        photo_recording("r", photo, (), [view(photo)], ())


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_that_of_pillow(orientation, tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    path = save(tmp_path / "p.png", picture, orientation)
    np.testing.assert_array_equal(load_rgb(path), np.array(ImageOps.exif_transpose(Image.open(path))))


def test_pictures_keep_their_values(tmp_path):
    grey = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    Image.fromarray(grey).save(tmp_path / "deep.png")
    np.testing.assert_array_equal(load_rgb(tmp_path / "deep.png"), np.repeat((grey // 257)[..., None], 3, -1))
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(load_rgb(tmp_path / "grey.png"), np.repeat(grey.astype(np.uint8)[..., None], 3, -1))
    clear = np.full((4, 4, 4), 200, np.uint8)
    clear[0, :, 3], clear[1, :, 3] = 0, 51
    Image.fromarray(clear).save(tmp_path / "clear.png")
    assert load_rgb(tmp_path / "clear.png")[:3, 0, 0].tolist() == [0, 40, 157]
    views = [view(tmp_path / f"{name}.png", width=16, height=16) for name in ("deep", "grey", "clear")]
    recording = photo_recording("r", tmp_path, (), views, ())
    assert {
        "1 of 3 photos are transparent in places: shown on black",
        "1 of 3 photos have more than 8 bits a component: scaled to 8",
    } <= {*recording.notes}


def test_jpeg_files_come_along_where_they_show_the_picture(tmp_path):
    rgb = np.random.default_rng(0).integers(0, 256, (ROWS, COLUMNS, 3), np.uint8)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # of another name, and its red is what is blue otherwise
    other = srgb.replace("sRGB".encode("utf-16-be"), "BGR ".encode("utf-16-be"))
    other = other.replace(b"rXYZ", b"XXXX").replace(b"bXYZ", b"rXYZ").replace(b"XXXX", b"bXYZ")
    cases = {
        "plain": (save(tmp_path / "a.jpg", rgb), True),
        "srgb": (save(tmp_path / "b.jpg", rgb, icc_profile=srgb), True),
        "foreign": (save(tmp_path / "c.jpg", rgb, icc_profile=other), False),
        "unreadable profile": (save(tmp_path / "d.jpg", rgb, icc_profile=b"none"), True),
        "progressive": (save(tmp_path / "e.jpg", rgb, progressive=True), False),
        "turned": (save(tmp_path / "f.jpg", rgb, 3), False),
        "grey": (save(tmp_path / "g.jpg", rgb[..., 0]), False),
        "png": (save(tmp_path / "h.png", rgb), False),
    }
    for path, along in cases.values():
        recording = photo_recording("r", path, (), [view(path)], ())
        (picture,) = recording.pictures([0])
        assert ("jpeg" in picture) == along
        if along:
            np.testing.assert_array_equal(np.array(Image.open(io.BytesIO(picture["jpeg"]))), picture["rgb"])
        assert any("colour space" in note for note in recording.notes) == (path.name == "c.jpg")
    np.testing.assert_allclose(load_rgb(tmp_path / "c.jpg").astype(int), load_rgb(tmp_path / "b.jpg")[..., ::-1], atol=3)


def test_heads_are_read_without_decoding(tmp_path):
    """Opening a recording does not read the body of a photo: cut off, it is only missed when pictures are wanted."""
    rgb = np.random.default_rng(0).integers(0, 256, (ROWS, COLUMNS, 3), np.uint8)
    for name in ("a.jpg", "a.png"):
        path = save(tmp_path / name, rgb)
        path.write_bytes(path.read_bytes()[:-1500])
        recording = photo_recording("r", path, (), [view(path)], ())
        with pytest.raises(ValueError, match=rf"{name}: cannot be read as a picture"):
            list(recording.pictures([0]))


def test_views_that_do_not_fit_are_refused(tmp_path):
    path = save(tmp_path / "a.png", np.zeros((ROWS, COLUMNS, 3), np.uint8))
    recording = photo_recording("r", path, (), [view(path)], ())
    for bad in ([1, 0], [1], [-1]):
        with pytest.raises(ValueError, match=r"a\.png: indices of views must not decrease and lie in 0\.\.0"):
            list(recording.pictures(bad))
    save(path, np.zeros((ROWS, COLUMNS + 1, 3), np.uint8))
    with pytest.raises(ValueError, match=r"a\.png: has 48 x 65 pixels, had 48 x 64; it changed meanwhile"):
        list(recording.pictures([0]))
    with pytest.raises(ValueError, match="holds no view"):
        photo_recording("r", path, (), [], ())


def test_a_lens_that_folds_within_the_picture_is_noted(tmp_path):
    path = save(tmp_path / "a.png", np.zeros((ROWS, COLUMNS, 3), np.uint8))
    for k1, folds in ((0.1, False), (-0.1, False), (-0.9, True)):
        recording = photo_recording("r", path, (), [view(path, {"k1": k1, "k2": 0.0, "p1": 0.0, "p2": 0.0, "k3": 0.0})], ())
        assert any("folds" in note for note in recording.notes) == folds


def test_the_canvas_of_square_pixels_is_that_of_camera(tmp_path):
    """With wide pixels the camera describes the picture stretched to square ones: x counts in them, y as before."""
    path = save(tmp_path / "a.png", np.zeros((ROWS, COLUMNS, 3), np.uint8))
    recording = photo_recording("r", path, (), [view(path, dict.fromkeys(BEND, 0.0))], ())
    assert recording.pixel_aspect == pytest.approx(54 / 60) and recording.camera.distortion is None
    width = COLUMNS * 54 / 60
    canvas, _ = project(recording.camera[0], POINTS, width / ROWS)
    np.testing.assert_allclose(np.asarray(canvas) * ROWS, pixels(0) * [54 / 60, 1], atol=2e-3)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "deep.png", "a.webp"])
def test_damaged_photos_are_read_or_refused(name, tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (ROWS, COLUMNS, 3), np.uint8)
    path = save(tmp_path / name, array[..., 0].astype(np.uint16) * 250 if name == "deep.png" else array, 6)
    whole, refused = path.read_bytes(), 0
    for n in range(200):
        path.write_bytes(damaged(np.random.default_rng(n), whole, n % 4))
        message = None
        try:
            head = read_picture_head(path)
            assert load_rgb(path).shape[:2] == (
                (head.rows, head.columns) if head.orientation < 5 else (head.columns, head.rows)
            )
        except ValueError as error:
            message = str(error)
        assert message is None or str(path) in message
        refused += message is not None
    assert refused > 50
