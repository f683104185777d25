"""Stories of waves that come and go: reproducible, with their event, and nothing lost or made."""

import numpy as np
import pytest

from data_pipelines.simulation.simulate import Recipe, record, simulate
from data_pipelines.wsv import Dataset
from wsm_jax.core import superquadric

RECIPE = Recipe(seed=3, seconds=2.0, stories=("shatters", "merges"))
WORDS = {"breaks": "breaks into pieces", "merges": "merge into one", "appears": "appears", "vanishes": "vanishes"}


def test_a_story_has_its_event_and_keeps_its_volume():
    kinds = set()
    for index in range(4):
        _, told, clip = record(RECIPE, index)
        (event,) = clip.events
        cup = "cup" in clip.text[0]  # its pieces are its waves
        kinds.add(event["kind"])
        tick = round(event["time"] * 8)
        there = np.asarray(clip.core.presence)[:, 1:] > 0.5
        volume = np.sum(np.asarray(superquadric.volume(clip.core.scale, clip.core.exponents))[:, 1:] * there, 1)
        np.testing.assert_allclose(volume, volume[0], rtol=1e-5)
        assert (
            (cup or (there[tick] != there[tick - 1]).any())
            and (there[:tick] == there[0]).all()
            and (there[tick:] == there[tick]).all()
        )
        assert np.abs(np.asarray(event["place"])[:2]).max() < 1.8
        assert WORDS[event["kind"]] in clip.text[0] and (event["kind"] == "breaks" and not cup) == (
            there[tick].sum() > there[0].sum()
        )
        np.testing.assert_array_equal(told.waves.presence[1:], there.any(0))
    assert kinds == {"breaks", "merges"}
    again = record(RECIPE, 2)[2]
    first = record(RECIPE, 2)[2]
    for name in ("centre", "rotation", "velocity"):
        np.testing.assert_array_equal(getattr(again.core, name), getattr(first.core, name))


def test_a_cup_is_a_set_of_waves_and_its_waves_are_the_sherds():
    for index in range(20):
        _, _, clip = record(Recipe(seed=3, seconds=2.0, stories=("shatters",)), index)
        if "cup" in clip.text[0]:
            break
    (event,) = clip.events
    tick = round(event["time"] * 8)
    waves = np.asarray(clip.core.presence) > 0.5
    assert clip.core.count == 9 and waves[:, 2:].all(), "a bottom and six sides, before and after"
    instance = np.asarray(clip.core.instance)[:, 2:]
    assert event["instances"] == [3] and (instance[:tick] == 3).all() and len(set(instance[-1])) == 7
    # until it breaks it is rigid, after that it is not
    centre = np.asarray(clip.core.centre, np.float64)[:, 2:]
    apart = np.linalg.norm(centre[:, :, None] - centre[:, None], axis=-1)
    np.testing.assert_allclose(apart[:tick], np.broadcast_to(apart[0], apart[:tick].shape), atol=2e-4)
    assert np.abs(apart[-1] - apart[0]).max() > 0.2


def test_things_appear_and_vanish():
    kinds = set()
    for index in range(4):
        _, _, clip = record(Recipe(seed=1, seconds=2.0, stories=("appears", "vanishes")), index)
        (event,) = clip.events
        kinds.add(event["kind"])
        tick, count = round(event["time"] * 8), (np.asarray(clip.core.presence) > 0.5).sum(1)
        assert WORDS[event["kind"]] in clip.text[0] and 1 <= tick <= 14
        assert (count[tick:] - count[0] == {"appears": 1, "vanishes": -1}[event["kind"]]).all() and (
            count[:tick] == count[0]
        ).all()
    assert kinds == {"appears", "vanishes"}


def test_stories_of_more_slots_stand_beside_others(tmp_path):
    stories = ("shatters", "rest")
    simulate(tmp_path / "a", scenes=4, seed=0, seconds=1.5, pixels=False, workers=1, stories=stories, progress=False)
    clips = [Dataset(tmp_path / "a").clip(i) for i in range(4)]
    assert {clip.core.count for clip in clips} == {9}
    assert {"breaks"} < {event["kind"] for clip in clips for event in clip.events}


def test_stories_become_a_dataset(tmp_path):
    simulate(tmp_path / "a", scenes=2, seed=3, seconds=2.0, pixels=False, workers=1, stories=RECIPE.stories, progress=False)
    clip = Dataset(tmp_path / "a").clip(0)
    assert clip.events[0]["kind"] in ("breaks", "merges") and len(clip.events[0]["place"]) == 3
    with pytest.raises(ValueError, match="stories shatters, merges: waves come and go in them; needed renderer 'wsm'"):
        simulate(tmp_path / "b", scenes=1, seed=0, renderer="mujoco", stories=RECIPE.stories)
    assert not (tmp_path / "b").exists()
