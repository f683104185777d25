"""WSG, WSV and WSF: what `check` keeps out, and that taking apart and joining are inverses."""

import dataclasses

import jax
import numpy as np
import pytest

from wsm_jax.snapshot import CHANNELS, WSF, WSG, WSV, from_snapshots, orbit
from wsm_jax.snapshot.waves import empty

T, H, W = 3, 4, 6


def channels(*lead, names=tuple(CHANNELS)):
    rng = np.random.default_rng(0)
    return {name: rng.random((*lead, H, W, CHANNELS[name].components), np.float32) for name in names}


@pytest.fixture
def video():
    return WSV(
        channels(T),
        np.arange(T) / 24,
        orbit(T),
        empty(2, (5,)),
        np.arange(5) / 8,
        ("a ball rolls",),
        ({"kind": "hit", "time": 0.1},),
    )


def with_channel(container, name, values):
    return dataclasses.replace(container, channels={**container.channels, name: values})


def test_good_containers_pass_and_return_themselves(video):
    snapshot = WSG(channels(), orbit(1)[0], 0.0, empty(2))
    field = WSF(channels(T), orbit(T))
    for container in (snapshot, video, field):
        assert container.check() is container
    WSG({}).check()
    WSV({}, np.zeros(0)).check()


@pytest.mark.parametrize("kind", ["WSG", "WSV", "WSF"])
def test_channels_must_be_known_complete_and_aligned(kind, video):
    container, lead = {"WSG": (WSG(channels()), ()), "WSV": (video, (T,)), "WSF": (WSF(channels(T), orbit(T)), (T,))}[kind]
    with pytest.raises(KeyError, match="unknown channel 'thermal'"):
        with_channel(container, "thermal", np.zeros((*lead, H, W, 1))).check()
    with pytest.raises(ValueError, match=f"{kind}: channel 'rgb' has shape"):
        with_channel(container, "rgb", np.zeros((*lead, H, W, 4))).check()
    with pytest.raises(ValueError, match=f"{kind}: channel 'rgb' has shape"):
        with_channel(container, "rgb", np.zeros((7, *lead, H, W, 3))).check()
    with pytest.raises(ValueError, match=f"{kind}: channel 'centre' is .*aligned"):
        with_channel(container, "centre", np.zeros((*lead, H, W + 1, 3))).check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame_time": np.arange(T + 1.0)}, "channel 'rgb' has shape"),
        ({"frame_time": np.array([0.0, 0.1, 0.1])}, "frame_time must increase"),
        ({"frame_time": np.array([0.0, np.nan, 0.2])}, "frame_time must increase"),
        ({"camera": orbit(T + 1)}, r"cameras \(4,\) for 3 frames"),
        ({"camera": orbit(1)[0]}, r"cameras \(\) for 3 frames"),
        ({"core_time": None}, "one core_time a tick"),
        ({"core_time": np.arange(4.0)}, r"ticks \(5,\); needed one core_time a tick"),
        ({"core_time": np.zeros(5)}, "core_time must increase"),
        ({"spans": (None, (0.0, 1.0))}, "2 spans for 1 texts; needed one a text"),
        ({"spans": ((1.0, 1.0),)}, r"a text from 1\.0 to 1\.0 s; needed numbers, start < end"),
        ({"spans": ((0, np.inf),)}, "a text from 0 to inf s"),
        ({"spans": ((np.nan, 1.0),)}, "a text from nan to"),
        ({"core": empty(5)}, r"ticks \(\); needed one core_time a tick"),
    ],
)
def test_times_cameras_and_core_must_fit(video, change, message):
    with pytest.raises(ValueError, match=f"WSV: .*{message}"):
        dataclasses.replace(video, **change).check()


def test_a_field_needs_one_camera_a_view():
    with pytest.raises(ValueError, match="WSF: channel"):
        WSF(channels(T), orbit(T + 1)).check()
    with pytest.raises(ValueError, match=r"WSF: cameras of leading shape \(\)"):
        WSF(channels(T), orbit(1)[0]).check()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_frames_joined_again_are_the_video(video, dtype):
    video = dataclasses.replace(video, frame_time=video.frame_time.astype(dtype))
    frames = [video.frame(t).check() for t in range(T)]
    assert frames[1].time == pytest.approx(1 / 24)
    assert frames[1].text == "a ball rolls"
    joined = from_snapshots(frames)
    bare = dataclasses.replace(video, core=None, core_time=None, events=())
    assert joined.text == video.text
    jax.tree.map(np.testing.assert_array_equal, jax.tree.leaves(joined), jax.tree.leaves(bare))


def test_a_frame_has_the_first_text_that_holds_then(video):
    """From the start of a span to before its end."""
    texts, spans = ("second", "third", "any"), ((1 / 24, 2 / 24), (2 / 24, 9.0), None)
    video = dataclasses.replace(video, text=texts, spans=spans).check()
    assert [video.frame(t).text for t in range(T)] == ["any", "second", "third"]
    video = dataclasses.replace(video, text=texts[:2], spans=spans[:2])
    assert [video.frame(t).text for t in range(T)] == [None, "second", "third"]


def test_joining_keeps_what_all_snapshots_have():
    camera = orbit(2)
    one = WSG(channels(names=("rgb", "depth")), camera[0], 0.0)
    two = WSG(channels(names=("depth", "normal", "rgb")), None, 0.5)
    joined = from_snapshots([one, two])
    assert list(joined.channels) == ["rgb", "depth"]
    assert joined.camera is None
    assert joined.text == ()


def test_joining_refuses_nothing_and_disorder():
    with pytest.raises(ValueError, match="no snapshots"):
        from_snapshots([])
    with pytest.raises(ValueError, match="frame_time must increase"):
        from_snapshots([WSG(channels(), time=1.0), WSG(channels(), time=0.5)])


def test_views_of_a_field():
    field = WSF(channels(T), orbit(T), empty(2))
    view = field.view(1).check()
    np.testing.assert_array_equal(view.channels["normal"], field.channels["normal"][1])
    assert view.camera is not None
    np.testing.assert_array_equal(view.camera.position, field.camera.position[1])
    assert view.core is field.core


def test_containers_are_trees_that_jit_takes(video):
    """Text and events are structure; everything else is a leaf that can be traced and mapped."""
    shifted = jax.jit(lambda v: jax.tree.map(lambda x: x + 1, v))(video)
    assert shifted.text == video.text
    assert shifted.events == video.events
    np.testing.assert_array_equal(shifted.core.semantic, video.core.semantic + 1)
    np.testing.assert_allclose(shifted.channels["rgb"], video.channels["rgb"] + 1, rtol=1e-6)
