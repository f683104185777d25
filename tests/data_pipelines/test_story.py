"""Stories of waves that come and go: reproducible, with their event, and nothing lost or made."""

import numpy as np
import pytest

from data_pipelines.format import Dataset
from data_pipelines.simulate import Recipe, record, simulate
from wsm_jax.core import superquadric

RECIPE = Recipe(seed=3, seconds=2.0, stories=("shatters", "merges"))


def test_a_story_has_its_event_and_keeps_its_volume():
    kinds = set()
    for index in range(4):
        _, told, clip = record(RECIPE, index)
        (event,) = clip.events
        kinds.add(event["kind"])
        tick = round(event["time"] * 8)
        there = np.asarray(clip.core.presence)[:, 1:] > 0.5
        volume = np.sum(np.asarray(superquadric.volume(clip.core.scale, clip.core.exponents))[:, 1:] * there, 1)
        np.testing.assert_allclose(volume, volume[0], rtol=1e-5)
        assert (
            (there[tick] != there[tick - 1]).any() and (there[:tick] == there[0]).all() and (there[tick:] == there[tick]).all()
        )
        assert np.abs(np.asarray(event["place"])[:2]).max() < 1.8
        assert ("breaks" in clip.text[0]) == (event["kind"] == "breaks") == (there[tick].sum() > there[0].sum())
        np.testing.assert_array_equal(told.waves.presence[1:], there.any(0))
    assert kinds == {"breaks", "merges"}
    again = record(RECIPE, 2)[2]
    first = record(RECIPE, 2)[2]
    for name in ("centre", "rotation", "velocity"):
        np.testing.assert_array_equal(getattr(again.core, name), getattr(first.core, name))


def test_stories_become_a_dataset(tmp_path):
    simulate(tmp_path / "a", scenes=2, seed=3, seconds=2.0, pixels=False, workers=1, stories=RECIPE.stories, progress=False)
    clip = Dataset(tmp_path / "a").clip(0)
    assert clip.events[0]["kind"] in ("breaks", "merges") and len(clip.events[0]["place"]) == 3
    with pytest.raises(ValueError, match="stories shatters, merges: waves come and go in them; needed renderer 'wsm'"):
        simulate(tmp_path / "b", scenes=1, seed=0, renderer="mujoco", stories=RECIPE.stories)
    assert not (tmp_path / "b").exists()
