"""Pictures show what is in the data: every channel, every panel, every frame, every finite value of a curve."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from wsm_jax.snapshot import CHANNELS, WSV, restore, store
from wsm_jax.visualise.pictures import (
    BACKGROUND,
    GAP,
    SHOWN_HEIGHT,
    STRIP,
    channel_grid,
    enlarge,
    even,
    loss_curves,
    picture,
    side_by_side,
    titled,
)

SVG = "{http://www.w3.org/2000/svg}"


def flat(colour, frames=1, height=4, width=6) -> np.ndarray:
    return np.full((frames, height, width, 3), colour, np.uint8)


def channels(frames=2, height=6, width=10) -> dict[str, np.ndarray]:
    """Every channel with random values that its storage can hold."""
    rng = np.random.default_rng(0)
    shape = (frames, height, width)
    return {n: np.asarray(restore(n, store(n, rng.uniform(0, 2, (*shape, row.components))))) for n, row in CHANNELS.items()}


@pytest.mark.parametrize("name", CHANNELS)
def test_every_channel_has_a_picture_at_any_rank(name):
    values = channels()[name]
    drawn = picture(name, values)
    assert drawn.dtype == np.uint8
    assert drawn.shape == (*values.shape[:-1], 3)
    assert len(np.unique(drawn)) > 1
    np.testing.assert_array_equal(drawn[1], picture(name, values[1]))


def test_stored_colours_are_drawn_exactly():
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, -1)
    np.testing.assert_array_equal(picture("rgb", restore("rgb", stored)), stored)


def test_near_is_bright_and_no_surface_black():
    drawn = picture("depth", np.asarray([0.0, 9.0, 4.0, 2.0, np.inf, np.nan], np.float32).reshape(1, 6, 1))[0, :, 0].astype(int)
    assert drawn[0] == drawn[4] == drawn[5] == 0
    assert 0 < drawn[1] < drawn[2] < drawn[3]


@pytest.mark.parametrize("name", CHANNELS)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_drawn_as_zero(name, value):
    shape = (2, 2, CHANNELS[name].components)
    zero, strange = np.zeros(shape, np.float32), np.full(shape, value, np.float32)
    np.testing.assert_array_equal(picture(name, strange), picture(name, zero))


def test_wrong_channels_are_named():
    with pytest.raises(KeyError, match="hue"):
        picture("hue", np.zeros((2, 2, 3), np.float32))
    with pytest.raises(ValueError, match=r"'depth': got 3 components.*needed 1"):
        picture("depth", np.zeros((2, 2, 3), np.float32))


def test_enlarging_by_a_whole_factor_repeats_pixels():
    small = np.random.default_rng(1).integers(0, 256, (2, 3, 5, 3), np.uint8)
    np.testing.assert_array_equal(enlarge(small, 12), small.repeat(4, 1).repeat(4, 2))
    assert enlarge(small, 3) is small
    assert set(np.unique(enlarge(small, 10))) <= set(np.unique(small))


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 6), (4, 7), (1, 1)])
def test_even_pads_with_background_and_keeps_the_picture(height, width):
    video = flat((9, 8, 7), 2, height, width)
    out = even(video)
    assert out.shape[1] % 2 == out.shape[2] % 2 == 0
    assert max(out.shape[1] - height, out.shape[2] - width) <= 1
    np.testing.assert_array_equal(out[:, :height, :width], video)
    assert (out[:, height:] == BACKGROUND).all()
    assert (out[:, :, width:] == BACKGROUND).all()


def test_titles_are_drawn_above_and_cut_to_fit():
    video = flat((200, 10, 10), 2, 8, 60)
    a, b = titled("depth", video), titled("a title that is much too long for sixty pixels", video)
    for out in (a, b):
        assert out.shape == (2, STRIP + 8, 60, 3)
        np.testing.assert_array_equal(out[:, STRIP:], video)
        assert (out[:, :STRIP] != BACKGROUND).any()
    assert (a[:, :STRIP] != b[:, :STRIP]).any()
    assert (b[:, :STRIP, 58:] == BACKGROUND).all()
    assert (titled("", video)[:, :STRIP] == BACKGROUND).all()


def test_side_by_side_brings_heights_and_lengths_together():
    low = np.stack([np.full((16, 8, 3), (250, 0, 0), np.uint8), np.full((16, 8, 3), (0, 250, 0), np.uint8)])
    high = flat((0, 0, 250), 3, 64, 32)
    out = side_by_side([("low", low), ("high", high)])
    assert out.shape[0] == 3
    assert out.shape[1] % 2 == out.shape[2] % 2 == 0
    top, width = GAP + STRIP, SHOWN_HEIGHT // 2
    left, right = (out[:, top : top + SHOWN_HEIGHT, x : x + width] for x in (GAP, 2 * GAP + width))
    assert [tuple(frame[5, 5]) for frame in left] == [(250, 0, 0), (0, 250, 0), (0, 250, 0)]
    assert (left == left[:, :1, :1]).all()
    assert (right == (0, 0, 250)).all()
    assert (out[:, :, :GAP] == BACKGROUND).all()
    assert (out[:, :, GAP + width : 2 * GAP + width] == BACKGROUND).all()


def test_odd_panels_make_an_even_video():
    out = side_by_side([("odd", flat((1, 2, 3), 1, 193, 33))])
    assert out.shape == (1, GAP + STRIP + 193 + GAP + 1, GAP + 33 + GAP + 1, 3)


@pytest.mark.parametrize(
    "video", [np.zeros((2, 4, 4, 3), np.float32), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4, 4, 3), np.uint8)]
)
def test_what_is_no_video_is_refused(video):
    with pytest.raises(ValueError, match=r"'odd' is .*needed uint8 \(T, H, W, 3\)"):
        side_by_side([("odd", video)])


def test_no_video_is_refused():
    with pytest.raises(ValueError, match="0 videos"):
        side_by_side([])


def test_channel_grid_shows_every_channel_in_order():
    values = channels()
    video = WSV({name: values[name] for name in reversed(CHANNELS)}, np.asarray([0.0, 0.1]))
    out = channel_grid(video)
    columns, height = 4, 6 * 32
    width = 10 * 32
    for index, name in enumerate(CHANNELS):
        top, left = GAP + index // columns * (STRIP + height + GAP) + STRIP, GAP + index % columns * (width + GAP)
        panel = out[:, top : top + height, left : left + width]
        np.testing.assert_array_equal(panel, picture(name, values[name]).repeat(32, 1).repeat(32, 2), err_msg=name)
    with pytest.raises(ValueError, match="no channel"):
        channel_grid(WSV({}, np.asarray([0.0])))


def lines(svg: str) -> dict[str, np.ndarray]:
    """Dash pattern and colour -> vertices of the running means, by the order of the legend."""
    root = ET.fromstring(svg)
    axes = next(g for g in root.iter(f"{SVG}g") if g.get("id") == "axes_1")
    drawn = [g for g in axes if (g.get("id") or "").startswith("line2d_")]
    out = {}
    for number, group in enumerate(drawn):
        path = group.find(f"{SVG}path")
        assert path is not None
        points = np.asarray([[float(x) for x in p.split()[-2:]] for p in path.get("d", "").replace("M", "L").split("L")[1:]])
        out[f"{number} {path.get('style')}"] = points
    return out


def test_loss_curves_draw_finite_values_on_a_log_scale():
    rows = [{"step": 10 * i, "time": 0.0, "loss": 10.0 ** (2 - i), "core": 1.0, "grad_norm": 5.0} for i in range(1, 4)]
    rows[1]["core"] = float("nan")
    drawn = list(lines(loss_curves(rows)).values())
    assert [len(points) for points in drawn] == [3, 2]
    steps = np.diff(drawn[0], axis=0)
    np.testing.assert_allclose(steps[0], steps[1], rtol=1e-4)
    assert (steps > 0).all()


def test_both_ends_of_a_term_share_a_colour_and_level_one_is_dashed():
    svg = loss_curves([{"step": i, "loss": 1.0, "rgb_0": 2.0, "rgb_1": 3.0, "zero": 0.0} for i in range(3)])
    styles = list(lines(svg))
    assert len(styles) == 3
    assert "dasharray" not in styles[1]
    assert "dasharray" in styles[2]
    assert styles[1].split("stroke: ")[1][:7] == styles[2].split("stroke: ")[1][:7] != styles[0].split("stroke: ")[1][:7]
    texts = {node.text for node in ET.fromstring(svg).iter(f"{SVG}text")}
    assert {"loss", "rgb_0", "rgb_1", "step"} <= texts
    assert "zero" not in texts


def test_curves_of_equal_rows_are_equal_and_one_row_shows():
    rows = [{"step": 1, "loss": 0.5}]
    assert loss_curves(rows) == loss_curves(rows)
    assert loss_curves([{"step": 1, "loss": float("nan")}]).rstrip().endswith("</svg>")


@pytest.mark.parametrize("rows", [[], [{"step": 1, "time": 0.0}]])
def test_rows_without_loss_are_refused(rows):
    with pytest.raises(ValueError, match="loss"):
        loss_curves(rows)
