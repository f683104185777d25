"""What every drawn scene has in common, and the camera paths."""

import jax
import numpy as np
import pytest

from data_pipelines.simulation.camera_path import CAMERA_KINDS, draw_camera
from data_pipelines.simulation.captions import colour_name
from data_pipelines.simulation.scene import (
    COLOUR_JITTER,
    COLOURS,
    FIRST_OBJECT,
    SIZE_THRESHOLD_M,
    SIZES,
    SLOTS,
    STORIES,
    Scene,
    draw,
)
from wsm_jax.snapshot import SEMANTIC_CLASSES, quaternion_to_matrix
from wsm_jax.snapshot.shapes import SHAPES


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw(np.random.default_rng([7, i])) for i in range(40)]


def test_a_scene_depends_on_its_seed_alone(scenes):
    again = draw(np.random.default_rng([7, 3]))
    for part in ("waves", "style"):
        old, new = jax.tree.leaves(getattr(scenes[3], part)), jax.tree.leaves(getattr(again, part))
        assert all(np.array_equal(a, b) for a, b in zip(old, new, strict=True))
    assert again.camera == scenes[3].camera
    assert not np.array_equal(again.waves.centre, scenes[4].waves.centre)


def test_slots_are_canonical(scenes):
    for scene in scenes:
        waves = scene.waves
        assert waves.count == SLOTS
        assert SEMANTIC_CLASSES[waves.semantic[0]] == "floor"
        assert scene.has_screen == (SEMANTIC_CLASSES[waves.semantic[1]] == "screen")
        assert scene.objects == tuple(range(FIRST_OBJECT, FIRST_OBJECT + len(scene.objects)))
        names = [(int(waves.semantic[i]), list(COLOURS).index(colour_name(waves.colour[i]))) for i in scene.objects]
        assert names == sorted(names), "objects are sorted by class, then colour"
        assert len(set(names)) == len(names), "no two objects have class and colour in common"
        assert list(waves.instance) == [i + 1 if i in scene.objects else 0 for i in range(SLOTS)]
        assert np.all((scene.mass > 0) == (waves.instance > 0))


def test_every_count_shape_colour_and_the_screen_occur(scenes):
    assert {len(scene.objects) for scene in scenes} == {1, 2, 3}
    assert {scene.has_screen for scene in scenes} == {True, False}
    slots = [(scene.waves, slot) for scene in scenes for slot in scene.objects]
    assert {SEMANTIC_CLASSES[waves.semantic[slot]] for waves, slot in slots} == set(SHAPES)
    assert {colour_name(waves.colour[slot]) for waves, slot in slots} == set(COLOURS)


def test_names_survive_the_jitter():
    """No drawn colour is nearer to another name than to its own, no drawn size on the other side of the threshold."""
    palette = np.array(list(COLOURS.values()))
    apart = np.linalg.norm(palette[:, None] - palette[None], axis=-1) + 10 * np.eye(len(palette))
    assert apart.min() > 2 * np.sqrt(3) * COLOUR_JITTER
    for shape in SHAPES.values():
        mean = np.prod(shape.axes) ** (1 / 3)
        assert SIZES["small"] * 1.1 * 1.04 * mean < SIZE_THRESHOLD_M < SIZES["large"] * 0.9 * 0.96 * mean


def test_objects_start_clear_of_each_other(scenes):
    for scene in scenes:
        centre, scale = scene.waves.centre, scene.waves.scale
        for a in scene.objects:
            for b in scene.objects:
                if a < b:
                    assert np.linalg.norm(centre[a] - centre[b]) > max(scale[a].min() + scale[b].min(), 0.4)


@pytest.mark.parametrize(
    "arguments", [{"stories": ("fly",)}, {"stories": ()}, {"stories": ("hit",)}, {"objects": (0, 2)}, {"objects": (2, 9)}]
)
def test_impossible_scenes_are_refused(arguments):
    with pytest.raises(ValueError, match=r"stories|objects"):
        draw(np.random.default_rng(0), **arguments)


@pytest.mark.parametrize("kind", CAMERA_KINDS)
def test_camera_paths(kind):
    """A still camera stands; a return looks away by more than 40 degrees and ends in the first pose, bit for bit."""
    time = np.arange(25) / 8
    for seed in range(5):
        path = draw_camera(np.random.default_rng(seed), (kind,))
        camera = path.cameras(time, float(time[-1]))
        view = np.asarray(quaternion_to_matrix(camera.rotation))[..., 2]
        turned = np.rad2deg(np.arccos(np.clip(view @ view[0], -1, 1)))
        moved = np.linalg.norm(camera.position - camera.position[0], axis=-1)
        if kind == "still":
            assert moved.max() == 0 and turned.max() < 0.1
        elif kind.endswith("return"):
            assert turned.max() > 40
            assert np.array_equal(camera.position[0], camera.position[-1])
            assert np.array_equal(camera.rotation[0], camera.rotation[-1])
        else:
            assert moved[-1] == moved.max() >= 0.0
            assert turned.max() < 41
        assert -110 < np.rad2deg(path.azimuth) < -70
        assert np.all(camera.position[:, 2] > 1.5)


def test_unknown_camera_is_refused():
    with pytest.raises(ValueError, match=r"crane.*still"):
        draw_camera(np.random.default_rng(0), ("crane",))


def test_every_story_can_be_told():
    for story in STORIES:
        if story != "hit":
            draw(np.random.default_rng(1), stories=(story,), screen=1.0)
    draw(np.random.default_rng(1), stories=("hit", "rest"), objects=(2, 2))
