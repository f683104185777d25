"""What frames are measured by: shots begin at hard cuts and nowhere else, blur lowers sharpness, sizes do not matter."""

import itertools

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from data_pipelines.ingest.measure import FrameStatistics, shot_starts
from data_pipelines.recording.video import scan
from wsm_jax.visualise.video import write_video

SIZE = (48, 64)


def texture(seed: int, size=(200, 400), detail: float = 3.0) -> np.ndarray:
    """A smooth random picture, float 0..255, [H W 3]."""
    noise = np.random.default_rng(seed).normal(size=(*size, 3))
    smooth = gaussian_filter(noise, (detail, detail, 0))
    return np.clip(128 + 55 * smooth / smooth.std() + np.random.default_rng(seed + 99).uniform(-40, 40, 3), 0, 255)


def pan(seed: int, count: int, step: float) -> list[np.ndarray]:
    """A camera that turns over a large picture, `step` columns a frame."""
    wide = texture(seed, detail=6.0)
    starts = [round(i * step) % (wide.shape[1] - SIZE[1]) for i in range(count)]
    return [wide[10 : 10 + SIZE[0], s : s + SIZE[1]] for s in starts]


def measured(pictures) -> FrameStatistics:
    measure = FrameStatistics()
    for picture in pictures:
        measure.add(np.rint(picture).astype(np.uint8))
    return measure


def shots(pictures) -> list[int]:
    return np.flatnonzero(shot_starts(np.asarray(measured(pictures).change))).tolist()


def fade(one: np.ndarray, other: np.ndarray, count: int) -> list[np.ndarray]:
    return [one + (other - one) * (i + 1) / (count + 1) for i in range(count)]


def test_shots_begin_exactly_at_hard_cuts():
    lengths = [14, 9, 20, 5, 12]
    film = [picture for seed, count in enumerate(lengths) for picture in pan(seed, count, 0.5 + 0.3 * seed)]
    assert shots(film) == np.cumsum(lengths)[:-1].tolist()


def test_shots_of_an_encoded_film(tmp_path):
    """As decoded: the encoder smears a little over a cut, and the luma is that of the codec."""
    lengths = [14, 9, 20]
    film = [np.rint(picture).astype(np.uint8) for seed, count in enumerate(lengths) for picture in pan(seed, count, 1.5)]
    write_video(tmp_path / "a.mp4", np.stack(film), 24)
    measure = FrameStatistics()
    scan(tmp_path / "a.mp4", watch=measure.add)
    assert np.flatnonzero(shot_starts(np.asarray(measure.change))).tolist() == [14, 23]
    from_array = measured(film)
    np.testing.assert_allclose(measure.change, from_array.change, atol=1.5)


@pytest.mark.parametrize("step", [4.0, 9.0, 16.0])
def test_a_fast_pan_is_one_shot(step):
    wide = texture(3, (60, 1000))
    film = [wide[:48, round(i * step) : round(i * step) + 64] for i in range(40)]
    change = np.asarray(measured(film).change)
    assert change.max() > 8, "it is fast"
    assert shots(film) == []


def test_a_pan_that_starts_and_stops_is_one_shot():
    wide = texture(4, (60, 1000))
    speed = np.concatenate([np.zeros(10), np.linspace(0, 16, 8), np.full(10, 16.0), np.linspace(16, 0, 8), np.zeros(10)])
    at = np.rint(np.cumsum(speed)).astype(int)
    assert shots([wide[:48, s : s + 64] for s in at]) == []


@pytest.mark.parametrize("count", [8, 16, 30])
def test_a_fade_is_no_cut(count):
    one, other = texture(5)[: SIZE[0], : SIZE[1]], texture(6)[: SIZE[0], : SIZE[1]]
    assert shots([one] * 10 + fade(one, other, count) + [other] * 10) == []
    black = np.zeros_like(one)
    assert shots([one] * 10 + fade(one, black, count) + [black] * 4 + fade(black, other, count) + [other] * 10) == []


def test_a_picture_of_another_size_is_another_shot():
    film = [texture(1)[:48, :64]] * 5 + [texture(1)[:40, :64]] * 5
    assert shots(film) == [5]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 255), min_size=1, max_size=60))
def test_a_cut_changes_much_and_more_than_its_surroundings(change):
    values = np.asarray(change)
    found = np.flatnonzero(shot_starts(values))
    for i in found:
        assert i > 0
        assert values[i] > 24
    assert not shot_starts(np.full(len(values), 200.0))[1:].any() or len(values) == 2, "an even change is no cut"
    alone = np.where(np.arange(len(values)) == len(values) // 2, 100.0, 0.0)
    assert np.flatnonzero(shot_starts(alone)).tolist() == ([len(values) // 2] if len(values) > 1 else [])


def test_sharpness_falls_with_blur():
    sharp = texture(7, detail=1.0)
    values = [float(np.mean(measured([gaussian_filter(sharp, (s, s, 0))]).sharpness)) for s in (0.0, 0.5, 1.0, 2.0, 4.0)]
    assert all(a > 1.3 * b for a, b in itertools.pairwise(values))
    flat = measured([np.full((20, 20, 3), 77.0)])
    assert (flat.sharpness, flat.change) == ([0.0], [0.0])


def test_measures_do_not_depend_on_the_resolution():
    """Large pictures are measured at 144 rows; of the same scene, twice and four times as large."""
    small = texture(8, (144, 256), 2.0)
    found = []
    for scale in (1, 2, 4):
        large = [np.kron(picture, np.ones((scale, scale, 1))) for picture in (small, np.roll(small, 1, 1))]
        measure = measured(large)
        found.append((*measure.sharpness, measure.change[1]))
    np.testing.assert_allclose(found, [found[0]] * 3, rtol=1e-6)


def test_change_is_the_mean_difference_of_luma():
    one, other = np.full((30, 40, 3), 50.0), np.full((30, 40, 3), 50.0)
    other[:, :10] = 90
    assert measured([one, other, other]).change == pytest.approx([0, 10, 0], abs=0.2)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 300), (300, 1), (3, 5), (145, 3)])
def test_odd_sizes_are_measured(size):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*size, 3)).astype(np.uint8) for _ in range(2)]
    frames = [av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in pictures]
    for given_ in (pictures, frames):
        measure = FrameStatistics()
        for picture in given_:
            measure.add(picture)
        assert len(measure.sharpness) == len(measure.change) == 2
        assert np.isfinite([*measure.sharpness, *measure.change]).all()
