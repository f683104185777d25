"""Buckets: parsed or refused by name, and a recording goes to the aspect nearest to its own, never enlarged where avoidable."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.ingest.bucket import Bucket, best_buckets

SIZES = st.integers(1, 4000)
BUCKETS = st.lists(
    st.builds(
        Bucket,
        st.sampled_from([32, 64, 128, 256]),
        st.sampled_from([32, 64, 128, 256, 455]),
        st.sampled_from([2.0, 8.0, 15.0, 30.0]),
        st.sampled_from([1.0, 2.0, 8.0]),
    ),
    min_size=1,
    max_size=12,
).map(tuple)


def off(bucket: Bucket, height: int, width: float) -> float:
    """How far the aspect of a bucket is from that of a picture."""
    return abs(math.log(bucket.width / bucket.height) - math.log(width / height))


@pytest.mark.parametrize(("text", "bucket"), [("256x320@8x2", Bucket(256, 320, 8, 2)), (" 1x1@0.5x4 ", Bucket(1, 1, 0.5, 4))])
def test_buckets_are_parsed(text, bucket):
    assert Bucket.parse(text) == bucket
    assert bucket.frames == round(bucket.frame_hz * bucket.seconds)
    assert Bucket.parse("256x320@12.5x0.8").name == "256x320_12.5hz_0.8s"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needed HEIGHTxWIDTH@HZxSECONDS"),
        ("256x256", "needed HEIGHTxWIDTH@HZxSECONDS"),
        ("256x-2@8x2", "needed HEIGHTxWIDTH@HZxSECONDS"),
        ("256x256@8x2s", "needed HEIGHTxWIDTH@HZxSECONDS"),
        ("256x256@1.2.3x2", "needed HEIGHTxWIDTH@HZxSECONDS"),
        ("256x256@.x2", "needed HEIGHTxWIDTH@HZxSECONDS"),
        ("0x256@8x2", "needed positive numbers"),
        ("256x256@0x2", "needed positive numbers"),
        ("256x256@8x0", "needed positive numbers"),
        ("256x256@8x0.3", "are 2.4 frames; needed a whole number"),
        ("256x256@8x0.125", "are 1 frames; needed a whole number, at least 2"),
    ],
)
def test_what_is_no_bucket_is_named(text, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        Bucket.parse(text)


@settings(max_examples=300, deadline=None)
@given(BUCKETS, SIZES, SIZES, st.floats(0.5, 120))
def test_the_choice_is_the_nearest_the_largest_and_the_fastest(buckets, height, width, rate):
    chosen = best_buckets(buckets, height, width, rate)
    slow = [b for b in buckets if b.frame_hz <= 1.01 * rate]
    assert bool(chosen) == bool(slow), "a recording is left out for its rate alone"
    if not chosen:
        return
    assert {(b.height, b.width, b.frame_hz) for b in chosen} == {(chosen[0].height, chosen[0].width, chosen[0].frame_hz)}
    assert [b.seconds for b in chosen] == sorted((b.seconds for b in chosen), reverse=True), "the longest first"
    one = chosen[0]
    least = min(off(b, height, width) for b in slow)
    near = [b for b in slow if off(b, height, width) <= least + 1e-6]
    assert off(one, height, width) <= least + 1e-6
    fits = [b for b in near if b.height <= height and b.width <= width]
    if fits:
        assert one.height <= height and one.width <= width, "nothing is enlarged that need not be"
        assert one.height == max(b.height for b in fits)
    else:
        assert one.height == min(b.height for b in near), "else as little as may be"
    same = [b for b in slow if (b.height, b.width) == (one.height, one.width)]
    assert one.frame_hz == max(b.frame_hz for b in same)
    assert sorted(chosen) == sorted(b for b in same if b.frame_hz == one.frame_hz)


def test_mixed_rates():
    buckets = tuple(Bucket.parse(text) for text in ("64x64@8x2", "64x64@30x2", "64x64@30x4", "128x128@60x1", "64x128@8x2"))
    assert [b.name for b in best_buckets(buckets, 480, 480, 29.97)] == ["64x64_30hz_4s", "64x64_30hz_2s"]
    assert [b.name for b in best_buckets(buckets, 480, 480, 59.94)] == ["128x128_60hz_1s"]
    assert [b.name for b in best_buckets(buckets, 480, 480, 15)] == ["64x64_8hz_2s"]
    assert [b.name for b in best_buckets(buckets, 480, 960, 59.94)] == ["64x128_8hz_2s"]
    assert best_buckets(buckets, 480, 480, 7) == []
