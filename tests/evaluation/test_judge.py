"""The judge: a perfect world gets perfect scores, and a world with a known fault exactly that fault."""

from types import SimpleNamespace

import numpy as np
import pytest

from tests.evaluation.test_metrics import core
from wsm_jax.evaluation.judge import TARGETS, Scenes, at_rest, judge_pixels, judge_revisit, judge_text
from wsm_jax.evaluation.metrics import PSNR_LIMIT_DB
from wsm_jax.models.wave_bridge.style import Style
from wsm_jax.snapshot import WSV, orbit
from wsm_jax.snapshot.shapes import SHAPES
from wsm_jax.snapshot.waves import COLOURS
from wsm_jax.world import World

FRAMES, SIZE, DIAGONAL_M = 6, 8, 10.0


def clip(i: int) -> WSV:
    """One object, its caption "SHAPE COLOUR", and pictures of noise."""
    shape, colour = list(SHAPES)[i % 4], list(COLOURS)[i % 8]
    rgb = np.random.default_rng(i).random((FRAMES, SIZE, SIZE, 3)).astype(np.float32)
    waves = core((shape, colour, (0.1 * i, 0.0, 1.0)), ticks=7)
    time = np.arange(FRAMES) / 8.0
    return WSV({"rgb": rgb}, time, orbit(FRAMES), waves, np.arange(7) / 8.0, (f"{shape} {colour}",))


class Oracle(World):
    """A world that answers with the truth, but for `shift` (m) in what it perceives and `noise` in what it draws."""

    def __init__(self, clips, shift=0.0, noise=0.0, words=None):
        bridge = SimpleNamespace(surface=self._surface, render=lambda channels, code: channels["rgb"] + noise)
        for name, value in {"clips": clips, "shift": shift, "words": words, "bridge": bridge}.items():
            object.__setattr__(self, name, value)  # a World is frozen

    def imagine_all(self, texts, seed):
        return [next(one.core for one in self.clips if one.text[0] == text) for text in texts]

    def describe_all(self, cores, seed):
        return [self.words or next(one.text[0] for one in self.clips if one.core is given) for given in cores]

    def observe(self, video):
        assert set(video.channels) == {"rgb"}, "perceiving is given more than the pictures"
        found = next(one for one in self.clips if one.channels["rgb"] is video.channels["rgb"])
        centre = found.core.centre + np.float32([0, self.shift, 0])
        return SimpleNamespace(core=found.core.replace(centre=centre), style=Style(np.zeros((2, 3)), np.zeros(3)))

    def look(self, pictures, channels):
        assert len(pictures) == len(channels["rgb"]) == 1, "the style comes from one frame"
        return Style(np.zeros((2, 3)), np.zeros(3))

    def render(self, waves, camera, fps, size, seed):
        return WSV({"rgb": np.abs(np.asarray(camera.position))[:, None, None] / 10 + np.zeros((1, *size, 3))}, np.arange(9.0))

    def _surface(self, waves, core_time, camera, time, size):
        found = next(one for one in self.clips if np.allclose(one.core.centre[0, :, [0, 2]], waves.centre[0, :, [0, 2]]))
        return {"rgb": found.channels["rgb"][np.rint(np.asarray(time) * 8).astype(int)]}


@pytest.fixture(scope="module")
def scenes():
    return Scenes.of([clip(i) for i in range(5)], lambda text: [tuple(text.split())], DIAGONAL_M, seed=0)


def test_a_perfect_world(scenes):
    world = Oracle(scenes.clips)
    text, cores, _ = judge_text(world, scenes, 0)
    pixels, perceived = judge_pixels(world, scenes, 3, lambda: None)
    scores = text | pixels | judge_revisit(world, cores, SIZE, lambda: None)
    assert {*TARGETS, *(f"{name}_baseline" for name in TARGETS)} == set(scores)
    assert len(perceived) == len(scenes.clips)
    for name, (comparison, value, _) in TARGETS.items():
        best = {"<=": 0.0, ">=": PSNR_LIMIT_DB if name.endswith("_db") else 1.0}[comparison]
        assert scores[name] == pytest.approx(best, abs=1e-6), name
        missed = scores[f"{name}_baseline"] < value if comparison == ">=" else scores[f"{name}_baseline"] > 0
        assert missed or name == "perceive_presence_f1", f"{name}: another scene reaches the target"


def test_a_fault_is_measured_as_it_is(scenes):
    pixels, _ = judge_pixels(Oracle(scenes.clips, shift=0.5, noise=0.1), scenes, 3, lambda: None)
    assert pixels["perceive_centre_error"] == pytest.approx(0.5 / DIAGONAL_M, rel=1e-5)
    assert pixels["render_psnr_db"] == pytest.approx(20.0, abs=1e-4)
    assert pixels["honest_cycle_psnr_db"] == pytest.approx(20.0, abs=1e-4)
    far, _ = judge_pixels(Oracle(scenes.clips, shift=0.3 * DIAGONAL_M), scenes, 3, lambda: None)
    assert far["perceive_presence_f1"] == 0.0 and far["perceive_centre_error"] == np.inf
    said, _, _ = judge_text(Oracle(scenes.clips, words="ball pink"), scenes, 0)
    assert said["describe_attribute_accuracy"] == 0.0 and said["imagine_attribute_accuracy"] == 1.0


def test_baselines_are_other_scenes_and_one_clip_has_none(scenes):
    assert sorted(scenes.others) == list(range(5)) and all(i != j for i, j in enumerate(scenes.others))
    with pytest.raises(ValueError, match="1 clips; needed at least 2"):
        Scenes.of(scenes.clips[:1], scenes.parse, DIAGONAL_M, 0)


def test_at_rest_nothing_moves():
    moving = clip(1).core
    moving.velocity[:] = 1.0
    still = at_rest(moving, 4)
    assert still.presence.shape == (4, 2) and not still.velocity.any()
    np.testing.assert_array_equal(still.centre, np.repeat(moving.centre[-1:], 4, 0))
