"""Windows hold what they say: nearest frames, true times, one clip; and they say what does not fit."""

import numpy as np
import pytest

from data_pipelines.loading.batch import fit_waves
from data_pipelines.loading.window import Window, choices, overlaps
from wsm_jax.snapshot import FIELDS, TICK_HZ, Waves
from wsm_jax.snapshot.waves import empty


def all_of(*arguments):
    """Every window: (frames, tick, start)."""
    found = choices(*arguments)
    return list(zip(found.frames, found.tick.tolist(), found.start.tolist(), strict=True))


def window(frames: int, frame_hz: float | None, ticks: int = 0, waves: int = 4) -> Window:
    return Window(("rgb",), frames, frame_hz, 8, 8, ticks, waves)


@pytest.mark.parametrize(
    ("stored", "asked"), [(24, 24), (24, 12), (24, 16), (24, 7.3), (30, 29.97), (29.97, 30), (12, 12), (16, 8)]
)
@pytest.mark.parametrize("core", [True, False])
def test_frames_are_the_nearest_stored_ones_after_the_start(stored: float, asked: float, core: bool):
    frame_time = (np.arange(60) / stored).astype(np.float32)
    core_time = (np.arange(int(60 / stored * TICK_HZ)) / TICK_HZ).astype(np.float32) if core else None
    for index, tick, start in all_of("d", window(6, asked, 4), frame_time, core_time, stored):
        times = frame_time[index].astype(np.float64)
        requested = times[0] + np.arange(6) / asked
        assert np.all(np.diff(index) >= 1)
        assert np.all(np.abs(times - requested) <= np.abs(frame_time[:, None] - requested).min(0) + 1e-3 / stored + 1e-6)
        assert -1e-3 / stored <= times[0] - start < 1.001 / stored
        np.testing.assert_allclose(start, (frame_time if core_time is None else core_time)[tick])
        if core_time is not None:
            assert tick + 4 <= len(core_time)


def test_every_start_that_fits_is_drawn_and_no_other():
    frame_time, core_time = np.arange(24) / 24.0, np.arange(8) / TICK_HZ
    drawn = {start for _, _, start in all_of("d", window(5, 12.0), frame_time, None, 24.0)}
    np.testing.assert_allclose(sorted(drawn), np.arange(24 - 8) / 24)
    drawn = {tick for _, tick, _ in all_of("d", window(5, 12.0, 3), frame_time, core_time, 24.0)}
    assert drawn == set(range(6))
    drawn = {tick for _, tick, _ in all_of("d", window(10, 12.0, 3), frame_time, core_time, 24.0)}
    assert drawn == {0, 1}  # here the frames, not the ticks, are what ends
    drawn = {tick for _, tick, _ in all_of("d", window(5, 12.0, 3), None, core_time, 24.0)}
    assert drawn == set(range(6))


def test_a_core_beside_misaligned_frames_keeps_true_times():
    frame_time, core_time = 0.01 + np.arange(40) / 10.0, np.arange(32) / TICK_HZ
    for index, tick, start in all_of("d", window(4, 10.0, 8), frame_time, core_time, 10.0):
        assert start == core_time[tick]
        assert np.array_equal(np.diff(index), [1, 1, 1])
        assert 0 <= frame_time[index[0]] - start < 0.1


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (window(9, 4.0), ["24 frames at 24 Hz", "0.958 s", "9 frames at 4 Hz", "2.000 s"]),
        (window(2, 30.0), ["stored at 24 Hz", "at 30 Hz"]),
        (window(2, 24.0, 9), ["8 ticks", "9 ticks"]),
        (window(24, 24.0, 8), None),
        (window(25, 24.0, 8), ["24 frames", "25 frames"]),
    ],
)
def test_what_cannot_be_done_is_named_with_its_numbers(asked: Window, words: list[str] | None):
    def draw():
        return all_of("some/where clip 3", asked, np.arange(24) / 24.0, np.arange(8) / TICK_HZ, 24.0)[0]

    if words is None:
        assert np.array_equal(draw()[0], np.arange(24))
        return
    with pytest.raises(ValueError, match="some/where clip 3") as error:
        draw()
    assert all(word in str(error.value) for word in words), error.value


def test_uneven_frame_times_are_refused_where_one_frame_would_stand_for_two():
    frame_time = np.float32([0, 0.1, 0.2, 0.3, 1.0, 1.1])
    with pytest.raises(ValueError, match="uneven"):
        choices("d", window(6, 10.0), frame_time, None, 10.0)


def core(present: list[bool]) -> Waves:
    waves = empty(len(present), (3,))
    waves.presence[:] = np.float32(present)
    waves.centre[..., 0] = np.arange(len(present))
    return waves


def test_waves_keep_their_slots_whether_empty_ones_come_or_go():
    grown = fit_waves(core([True, False, True]), 5, "d")
    assert np.array_equal(grown.centre[1, :3, 0], [0, 1, 2])
    for name in FIELDS:
        assert np.array_equal(getattr(grown, name)[:, 3:], getattr(empty(2, (3,)), name))
        assert getattr(grown, name).dtype == getattr(empty(1), name).dtype
    shrunk = fit_waves(core([True, False, True, False]), 3, "d")
    assert np.array_equal(shrunk.centre[:, :, 0], [[0, 1, 2]] * 3)
    assert np.array_equal(shrunk.presence, [[1, 0, 1]] * 3)
    late = core([True, False, True])
    late.presence[0] = 0.0  # a slot that fills later is not empty
    for waves in (late, core([True, True, True])):
        with pytest.raises(ValueError, match=r"x clip 2: a wave is present in slot 2; the loader has the slots 0\.\.1"):
            fit_waves(waves, 2, "x clip 2")


@pytest.mark.parametrize(
    ("span", "found"),
    [
        ((0.0, 10.0), True),  # all of the window
        ((2.5, 2.75), True),  # all of the span
        ((0.0, 3.0), True),  # half of the window, a third of the span
        ((0.0, 2.99), False),
        ((3.0, 9.0), True),
        ((3.01, 9.0), False),
        ((1.8, 2.2), True),  # half of the span, a tenth of the window
        ((1.79, 2.2), False),
        ((3.9, 4.1), True),
        ((3.91, 4.12), False),
        ((0.0, 2.0), False),  # it ends where the window begins
        ((4.0, 5.0), False),
        ((40.0, 50.0), False),
    ],
)
def test_a_span_needs_half_of_itself_or_of_the_window_in_common_with_it(span: tuple[float, float], found: bool):
    assert overlaps(span, 2.0, 4.0) == found
    assert overlaps(span, 0.0, np.inf), "of a window that is the whole clip"
    shifted = (span[0] + 0.1, span[1] + 0.1)
    assert overlaps(shifted, 2.1, 4.1) == found, "times are not exact in binary"
