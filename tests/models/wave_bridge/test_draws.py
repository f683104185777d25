"""Draws know what a clip has and no more, have the shares that they state, and lean to the end that is given."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsm_jax.flow import LevelMix
from wsm_jax.models.wave_bridge.draws import BridgeDraws

ORDER = ("rgb", "depth", "local", "ground", "style", "remainder")
CLIPS, FRAMES = 4096, 2
EVEN = LevelMix(1.0, 0.0, 1.0, 0.0, 0.0, 1.0)


def known(**changes):
    names = ("rgb", "base_colour", "depth", "local", "ground")
    return {name: jnp.full(CLIPS, changes.get(name, True)) for name in names}


def draw(mix, channels=None, **changes):
    draws = BridgeDraws(mix=mix, levels=EVEN, at_end=changes.pop("at_end", 0.0), **changes)
    return map(np.asarray, draws.sample(jax.random.key(0), channels or known(), FRAMES, ORDER))


def test_perceiving_is_given_the_picture_and_mostly_the_camera():
    core, pixel, level = draw((1.0, 0.0, 0.0), camera=0.75)
    assert core.shape == pixel.shape == (CLIPS * FRAMES, len(ORDER)) and level.shape == (CLIPS * FRAMES,)
    assert pixel[:, 0].all() and not pixel[:, [1, 2, 4, 5]].any()
    assert abs(pixel[:, 3].mean() - 0.75) < 0.02
    assert core[:, :5].all() and abs(core[:, 5].mean() - 0.4) < 0.02


def test_rendering_is_given_everything():
    core, pixel, _ = draw((0.0, 1.0, 0.0))
    assert core[:, :5].all() and pixel[:, :4].all()


def test_any_has_its_shares():
    core, pixel, _ = draw((0.0, 0.0, 1.0), core_block=0.3, pixel_block=0.9)
    np.testing.assert_allclose(core[:, :4].mean(0), 0.3, atol=0.03)
    np.testing.assert_allclose(pixel[:, :4].mean(0), 0.9, atol=0.02)
    assert core[:, 4].all(), "a code is always known at the core end"


def test_what_a_clip_lacks_is_never_known():
    core, pixel, _ = draw((0.3, 0.4, 0.3), known(depth=False, base_colour=False))
    assert not core[:, 1].any() and not pixel[:, 1].any()
    assert not core[:, 0].any() and pixel[:, 0].any(), "base colour is the core end of rgb"


def test_codes_are_noise_at_the_pixel_end():
    _, pixel, _ = draw((0.3, 0.4, 0.3))
    assert not pixel[:, 4:].any()


def test_levels_lean_to_the_end_that_is_given():
    perceive = list(draw((1.0, 0.0, 0.0), lean_perceive=1.0))[2]
    assert (perceive >= 0.5).all()
    render = list(draw((0.0, 1.0, 0.0), lean_render=1.0))[2]
    assert (render <= 0.5).all()
    ends = list(draw((0.0, 1.0, 0.0), at_end=1.0))[2]
    assert set(np.unique(ends)) == {0.0, 1.0}


@pytest.mark.parametrize(
    ("changes", "words"), [({"mix": (0.5, 0.5, 0.5)}, "sum to 1"), ({"at_end": 1.5}, "at_end"), ({"camera": -0.1}, "camera")]
)
def test_shares_that_are_none_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        BridgeDraws(**{"mix": (0.5, 0.3, 0.2), "levels": EVEN, "at_end": 0.5, **changes})
