"""Plans: clips stay within shots, every second is in a clip or left out with a reason, and filters leave out what they say."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.ingest.bucket import Bucket
from data_pipelines.ingest.frame import crop_signal
from data_pipelines.ingest.measure import shot_starts as shots
from data_pipelines.ingest.plan import Filters, ScannedRecording, plan_clips, steps_per_bin
from wsm_jax.snapshot import Signal


def found(time, seconds=None, *, change=None, sharpness=None, name="a.mp4", **changes) -> ScannedRecording:
    time = tuple(float(t) for t in time)
    count = len(time)
    seconds = time[-1] + (time[-1] / (count - 1) if count > 1 else 1.0) if seconds is None else seconds
    return ScannedRecording(
        **{
            **{"candidate": 0, "number": 0, "name": name, "kind": "video", "time": time, "seconds": float(seconds)},
            **{"size": ((480, 640),), "channels": ("rgb",), "camera": False, "lens": False, "pixel_aspect": 1.0},
            **{"signals": (), "text": (), "spans": (), "notes": (), "sha256": name},
            "sharpness": tuple(np.full(count, 100.0) if sharpness is None else sharpness),
            "change": tuple(np.where(np.arange(count) > 0, 3.0, 0.0) if change is None else change),
            **changes,
        }
    )


def planned(recording: ScannedRecording, *buckets: str, **filters):
    return plan_clips([recording], tuple(Bucket.parse(text) for text in buckets), Filters(**filters).check())


RECORDINGS = st.builds(
    lambda gaps, cuts, tail: (np.concatenate([[0.0], np.cumsum(gaps)]), cuts, tail),
    st.lists(st.sampled_from([1 / 60, 1 / 30, 1 / 24, 0.05, 0.2]), min_size=3, max_size=250),
    st.sets(st.integers(1, 250), max_size=6),
    st.floats(0.01, 0.1),
)


@settings(max_examples=150, deadline=None)
@given(
    RECORDINGS, st.sampled_from([("64x64@4x1",), ("64x64@4x2", "64x64@4x0.5"), ("64x64@60x0.5",), ("64x64@8x2", "64x64@2x5")])
)
def test_every_second_is_in_a_clip_or_left_out(drawn, texts):
    """To within a step a shot: a last frame on screen for 5 % of a step is a frame, and less than half a step no loss."""
    time, cuts, tail = drawn
    change = np.full(len(time), 3.0)
    begins = sorted(i for i in cuts if i < len(time))
    change[begins] = 200.0
    recording = found(time, time[-1] + tail, change=change)
    clips, rejected = planned(recording, *texts)
    assert clips or rejected
    if rejected and "frames a second" in rejected[0].reason:
        assert (clips, len(rejected), rejected[0].seconds) == ([], 1, recording.seconds)
        return
    spans = [(clip.start, clip.bucket.seconds) for clip in clips]
    spans += [(one.start or 0.0, one.seconds) for one in rejected]
    spans.sort()
    step = 1 / min(bucket.frame_hz for bucket in {clip.bucket for clip in clips} | {Bucket.parse(text) for text in texts})
    assert sum(seconds for _, seconds in spans) == pytest.approx(recording.seconds, abs=(len(begins) + 1) * step)
    for (start, seconds), (following, _) in itertools.pairwise(spans):
        assert following >= start + seconds - step, "nothing is in two places"
        assert following <= start + seconds + step, "nothing is in none"


@settings(max_examples=150, deadline=None)
@given(RECORDINGS, st.sampled_from(["64x64@4x1", "64x64@8x0.5", "64x64@24x0.5", "64x64@60x0.1"]))
def test_no_clip_crosses_a_shot_and_frames_are_those_on_screen(drawn, text):
    time, cuts, tail = drawn
    change = np.full(len(time), 3.0)
    begins = sorted(i for i in cuts if i < len(time))
    change[begins] = 200.0
    recording = found(time, time[-1] + tail, change=change)
    clips, _ = planned(recording, text)
    seen = np.flatnonzero(shots(change))
    for clip in clips:
        assert len(clip.frames) == clip.bucket.frames
        assert list(clip.frames) == sorted(clip.frames)
        assert len({int(np.searchsorted(seen, i, side="right")) for i in clip.frames}) == 1
        for k, i in enumerate(clip.frames):
            instant = clip.start + k / clip.bucket.frame_hz
            assert time[i] <= instant + 1.1e-3
            assert i + 1 == len(time) or time[i + 1] > instant - 1e-9 or i + 1 in seen
    assert planned(recording, text)[0] == clips


def test_a_frame_that_is_just_not_of_the_shot_is_not_taken():
    """Its clip has its sixth frame on screen for 0.9 ms, less than by how much a frame may be late."""
    time = np.concatenate([np.arange(6), 5.055 + np.arange(8)]) / 60
    clips, _ = planned(found(time, change=np.where(np.arange(14) == 6, 200.0, 3.0)), "64x64@60x0.1")
    assert [clip.frames for clip in clips] == [tuple(range(6)), tuple(range(6, 12))]


def test_one_shot_or_all_with_noshots():
    time = np.arange(48) / 24
    change = np.where(np.arange(48) == 20, 200.0, 3.0)
    clips, rejected = planned(found(time, change=change), "64x64@8x0.5")
    assert [clip.start for clip in clips] == pytest.approx([0.0, 20 / 24, 20 / 24 + 0.5])
    assert [one.reason for one in rejected] == ["what is left is shorter than a clip"] * 2
    clips, rejected = planned(found(time, change=change), "64x64@8x0.5", shots=False)
    assert [clip.start for clip in clips] == pytest.approx([0.0, 0.5, 1.0, 1.5])
    assert rejected == []


def test_long_windows_first_and_shorter_ones_after():
    clips, rejected = planned(found(np.arange(90) / 10), "64x64@5x4", "64x64@5x1", "64x64@5x0.4")
    assert [(clip.start, clip.bucket.seconds) for clip in clips] == [(0, 4), (4, 4), (8, 1.0)]
    assert rejected == []
    clips, rejected = planned(found(np.arange(88) / 10), "64x64@5x4", "64x64@5x0.4")
    assert [clip.bucket.seconds for clip in clips] == [4, 4, 0.4, 0.4]


def test_still_blurred_and_repeated_clips_are_left_out_and_counted():
    count = 96  # 4 s at 24 Hz: moves, stands still, is blurred, repeats each frame
    change = np.full(count, 3.0)
    change[25:48] = 0.01
    change[72:] = np.where(np.arange(24) % 6 < 3, 0.0, 4.0)
    sharpness = np.full(count, 100.0)
    sharpness[48:72] = 2.0
    recording = found(np.arange(count) / 24, change=change, sharpness=sharpness)
    clips, rejected = planned(recording, "64x64@24x1", sharpness=10, change=5, duplicates=0.3)
    assert [clip.start for clip in clips] == [0.0]
    assert clips[0].measures == pytest.approx({"seconds": 1.0, "sharpness": 100.0, "change": 69.0})
    assert [(one.start, one.seconds, one.reason.split(":")[0]) for one in rejected] == [
        (1.0, 1.0, "still"),
        (2.0, 1.0, "blurred"),
        (3.0, 1.0, "48% of its frames repeat the one before; at most 30% may"),
    ]
    assert len(planned(recording, "64x64@24x1")[0]) == 4, "filters are off unless asked for"


@pytest.mark.parametrize(
    "bad", [{"sharpness": -1}, {"change": -1}, {"duplicates": -0.1}, {"duplicates": 1.5}, {"sharpness": float("nan")}]
)
def test_limits_that_nothing_keeps_are_refused(bad):
    with pytest.raises(ValueError, match="needed limits of 0 or more"):
        Filters(**bad).check()


def test_too_short_too_slow_and_twins_are_named():
    reasons = [planned(found(np.arange(n) / 24), "64x64@8x2")[1] for n in (5, 47)]
    assert "lasts 0.208 s, 2 frames at 8 Hz; needed 16 frames (2 s) for one clip" in reasons[0][0].reason
    assert reasons[0][0].start is None
    assert reasons[1] == [], "the last frame is on screen for a part of its step"
    assert "has 5 frames a second; needed at least the 8" in planned(found(np.arange(50) / 5), "64x64@8x2")[1][0].reason
    one, two = found(np.arange(96) / 24, name="a.mp4"), found(np.arange(96) / 24, name="b.mp4", sha256="a.mp4")
    clips, rejected = plan_clips([one, two, dataclasses.replace(one, number=1)], (Bucket(64, 64, 8, 2),), Filters())
    assert [clip.recording for clip in clips] == [0, 0, 2, 2], "two episodes of one file are no twins"
    assert [(one.name, one.reason, one.seconds) for one in rejected] == [("b.mp4", "is the same recording as a.mp4", 4.0)]


def test_a_gap_of_years_costs_nothing():
    """Damaged times: the mean rate is below every bucket's, so no window is laid out."""
    time = [0, 1 / 24, 2 / 24, 1e9]
    clips, rejected = planned(found(time, 1e9 + 1), "64x64@8x0.5")
    assert clips == []
    assert len(rejected) == 1


def test_views_are_one_clip_each():
    views = found(np.arange(5), 5.0, kind="views", size=((480, 640), (480, 640), (320, 640), (480, 640), (100, 50)))
    clips, rejected = planned(views, "64x64@8x2", "48x64@30x1")
    assert [(clip.frames, clip.bucket.name) for clip in clips] == [((0, 1, 2, 3, 4), "48x64_30hz_1s")]
    assert rejected == []


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.floats(-0.5, 12, allow_nan=False), max_size=80, unique=True).map(sorted),
    st.floats(0, 9),
    st.sampled_from([0.25, 1.0, 2.0]),
)
def test_the_bound_of_steps_holds_and_is_close(times, start, seconds):
    signal = Signal(np.asarray(times), np.zeros((len(times), 2), np.float32))
    recording = found(np.arange(240) / 24, signals=(("imu", 2, steps_per_bin(signal, 10.0)),))
    inside = len(crop_signal(signal, start, start + seconds).time)
    bound = recording.max_steps("imu", start, start + seconds)
    assert inside <= bound <= len(times)
    near = [t for t in times if start - 0.126 <= t <= start + seconds + 0.126 or t < 0.125 or t > 9.875 - 0.125]
    assert bound <= len(near) + 1
