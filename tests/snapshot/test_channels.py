"""The channel table: every row's conversions are inverses within half a storage step, and resizing obeys its rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wsm_jax.snapshot import (
    CAMERA_CHANNELS,
    CHANNELS,
    STORED,
    camera_channels,
    channel,
    crop_box,
    decode,
    encode,
    look_at,
    resize,
    restore,
    store,
)
from wsm_jax.snapshot.channels import NEAR_M

every = pytest.mark.parametrize("name", CHANNELS)

NO_LIMITS = {  # rows whose codes are not a map of one interval
    "depth": (NEAR_M, 59),
    "instance": (0, 15),
    "semantic": (0, CHANNELS["semantic"].encoded - 1),
}


def samples(name, rng, lead=(5, 6, 7)):
    """Physical values that a model sees without clipping."""
    row = CHANNELS[name]
    low, high = NO_LIMITS[name] if name in NO_LIMITS else (float(row.decode(jnp.float32(end))) for end in (-1, 1))
    values = rng.uniform(low, high, (*lead, row.components)).astype(np.float32)
    return np.rint(values) if row.step == 1 else values


def test_the_table_is_keyed_by_name():
    for name, row in CHANNELS.items():
        assert row.name == name
        assert channel(name) is row
        assert row.resize in ("area", "nearest")
    with pytest.raises(KeyError, match=r"unknown channel 'colour'.*base_colour"):
        channel("colour")


def test_channels_are_stored_or_determined_by_the_camera():
    assert (*STORED, *CAMERA_CHANNELS) == tuple(CHANNELS)
    camera = look_at(np.array([1.0, -5.0, 2.1]), np.array([0.0, 0.0, 0.4]))
    assert camera_channels(camera, 6, 9, STORED) == {}
    for name, values in camera_channels(camera, 6, 9).items():
        row = CHANNELS[name]
        assert values.shape == (6, 9, row.components)
        if row.to_camera is not None:
            like = look_at(np.array([1.0, -5.0, 1.0]), np.array([0.0, 0.0, 1.5]))
            np.testing.assert_allclose(row.to_camera(values, like).position, camera.position, atol=1e-3)


@every
def test_store_then_restore_is_within_half_a_step(name):
    row = CHANNELS[name]
    x = samples(name, np.random.default_rng(0))
    stored = store(name, x)
    assert stored.dtype == row.dtype
    back = restore(name, stored)
    assert back.dtype == np.float32
    assert np.abs(back - x).max() <= 0.5 * row.step + 2e-7 * np.abs(x).max()


@every
def test_restore_then_store_is_the_identity_on_every_stored_value(name):
    row = CHANNELS[name]
    limits = np.iinfo(row.dtype)
    stored = np.arange(limits.min, limits.max + 1).astype(row.dtype)
    np.testing.assert_array_equal(store(name, restore(name, stored)), stored)
    np.testing.assert_array_equal(store(name, restore(name, jnp.asarray(stored[::97]))), stored[::97])


@every
def test_store_clips_to_its_type(name):
    limits = np.iinfo(CHANNELS[name].dtype)
    np.testing.assert_array_equal(store(name, np.array([-1e9, 1e9])), [limits.min, limits.max])


@every
def test_encode_then_decode_is_within_half_a_step(name):
    row = CHANNELS[name]
    x = samples(name, np.random.default_rng(1))
    code = encode(name, x)
    assert code.shape == (*x.shape[:-1], row.encoded)
    assert code.min() >= -1
    assert code.max() <= 1
    assert np.abs(decode(name, code) - x).max() <= 0.5 * row.step


@every
def test_whatever_is_stored_encodes_to_minus_one_to_one(name):
    row = CHANNELS[name]
    limits = np.iinfo(row.dtype)
    stored = np.linspace(limits.min, limits.max, 999).astype(row.dtype)[:, None]
    code = encode(name, restore(name, np.repeat(stored, row.components, 1)))
    assert np.abs(code).max() <= 1


@every
@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), noise=st.floats(0, 0.2))
def test_decode_of_noisy_codes_is_finite_and_labels_survive(name, seed, noise):
    """A model's output is never exactly a code: labels must be read past the noise, and nothing may overflow."""
    rng = np.random.default_rng(seed)
    x = samples(name, rng, (3, 4))
    code = np.asarray(encode(name, x))
    back = decode(name, code + noise * rng.uniform(-1, 1, code.shape))
    assert back.shape == x.shape
    assert np.isfinite(back).all()
    if name in ("instance", "semantic"):
        np.testing.assert_array_equal(back, x)


@every
def test_numpy_stays_numpy_and_gives_what_jax_gives(name):
    x = samples(name, np.random.default_rng(3))
    code = encode(name, x)
    there = encode(name, jnp.asarray(x))
    assert type(code) is np.ndarray and code.dtype == there.dtype == np.float32 and isinstance(there, jax.Array)
    np.testing.assert_allclose(code, there, rtol=0, atol=3e-7)
    back, there = decode(name, code), decode(name, jnp.asarray(code))
    assert type(back) is np.ndarray and back.dtype == there.dtype == np.float32 and isinstance(there, jax.Array)
    np.testing.assert_allclose(back, there, rtol=3e-6, atol=1e-6)


def test_no_surface_is_depth_zero_is_the_code_minus_one():
    np.testing.assert_array_equal(encode("depth", np.float32([[0.0], [np.inf]])), [[-1.0], [-1.0]])
    np.testing.assert_array_equal(decode("depth", np.float32([[-1.0], [-1.3]])), [[0.0], [0.0]])


def test_depth_has_finite_gradients_everywhere():
    depth = jnp.float32([[0.0], [1e-6], [NEAR_M], [5.0], [1e6]])
    assert np.isfinite(jax.grad(lambda d: encode("depth", d).sum())(depth)).all()
    assert np.isfinite(jax.grad(lambda c: decode("depth", c).sum())(jnp.linspace(-1.5, 1.5, 31)[:, None])).all()


@every
def test_pictures_are_colours(name):
    row = CHANNELS[name]
    rng = np.random.default_rng(2)
    wild = np.concatenate([samples(name, rng), np.zeros((1, 6, 7, row.components), np.float32)])
    picture = row.picture(wild)
    assert picture.shape == (*wild.shape[:-1], 3)
    assert picture.min() >= 0
    assert picture.max() <= 1


@every
@pytest.mark.parametrize("size", [(3, 5), (24, 40), (7, 11), (24, 10)], ids=str)
def test_resize_keeps_type_axes_and_range(name, size):
    x = store(name, samples(name, np.random.default_rng(3), (2, 12, 20)))
    small = resize(name, x, *size)
    assert small.shape == (2, *size, x.shape[-1])
    assert small.dtype == x.dtype
    assert small.min() >= x.min()
    assert small.max() <= x.max()
    if CHANNELS[name].resize == "nearest":
        assert set(map(tuple, small.reshape(-1, x.shape[-1]))) <= set(map(tuple, x.reshape(-1, x.shape[-1])))


@every
def test_resize_to_its_own_size_is_the_identity(name):
    x = samples(name, np.random.default_rng(4), (12, 20))
    np.testing.assert_array_equal(resize(name, x, 12, 20), x)


@every
def test_resize_of_an_even_picture_is_even(name):
    x = np.full((9, 10, CHANNELS[name].components), 1.0, np.float32)
    for size in [(4, 5), (13, 6), (20, 20)]:
        np.testing.assert_allclose(resize(name, x, *size), 1.0, rtol=1e-6)


def test_area_takes_the_mean_of_the_covered_pixels():
    x = np.random.default_rng(5).random((3, 12, 20, 3), np.float32)
    blocks = x.reshape(3, 4, 3, 4, 5, 3).mean((2, 4))
    np.testing.assert_allclose(resize("rgb", x, 4, 4), blocks, rtol=1e-5)
    np.testing.assert_allclose(resize("rgb", x, 5, 7).mean((1, 2)), x.mean((1, 2)), rtol=1e-5)  # also when cells overlap


def test_nearest_takes_the_pixel_under_the_centre():
    x = np.arange(6.0, dtype=np.float32).reshape(6, 1, 1)
    np.testing.assert_array_equal(resize("depth", x, 2, 1).ravel(), [1, 4])
    np.testing.assert_array_equal(resize("depth", x, 12, 1).ravel(), np.repeat(np.arange(6), 2))


def test_enlarging_by_area_reproduces_a_ramp_inside():
    x = np.linspace(0, 1, 8, dtype=np.float32)[:, None, None] * np.ones((1, 1, 3), np.float32)
    big = resize("rgb", x, 32, 1)[2:-2, 0, 0]
    np.testing.assert_allclose(np.diff(big), 1 / 28, rtol=1e-4)


@pytest.mark.parametrize("pixel_aspect", [1.0, 4 / 3, 0.5])
def test_a_crop_box_is_the_largest_of_its_aspect_and_goes_anywhere_within(pixel_aspect):
    rng = np.random.default_rng(0)
    for _ in range(200):
        rows, columns, height, width = (int(n) for n in rng.integers(1, 60, 4))
        top, left, high, wide = crop_box((rows, columns), height, width, pixel_aspect)
        assert 1 <= high <= rows and 1 <= wide <= columns and (high == rows or wide == columns)
        ratio = width / height / pixel_aspect
        assert abs(wide - ratio * high) <= 0.5 or abs(high - wide / ratio) <= 0.5 or 1 in (high, wide)
        assert abs(2 * top + high - rows) <= 1 and abs(2 * left + wide - columns) <= 1  # in the middle
        boxes = [
            crop_box((rows, columns), height, width, pixel_aspect, place) for place in map(tuple, rng.random((40, 2)).tolist())
        ]
        assert all(box[2:] == (high, wide) for box in boxes)
        assert all(0 <= t <= rows - high and 0 <= k <= columns - wide for t, k, _, _ in boxes)
        ends = [crop_box((rows, columns), height, width, pixel_aspect, place) for place in ((0.0, 0.0), (1 - 1e-12, 1 - 1e-12))]
        assert [box[:2] for box in ends] == [(0, 0), (rows - high, columns - wide)]
    with pytest.raises(ValueError, match="picture size 0 x 4"):
        crop_box((3, 3), 0, 4)
