"""Simulated datasets: exact, the same however they are built, resumable, and in agreement with MuJoCo's own renderer."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.simulation import mujoco_renderer, simulate
from data_pipelines.simulation.camera_path import CAMERA_KINDS
from data_pipelines.simulation.captions import named, parse
from data_pipelines.simulation.simulate import Recipe, make_clip, make_scene, record
from data_pipelines.wsv import Dataset, repair, verify
from wsm_jax.snapshot import STORED, WSV, store

SMALL = {"seed": 5, "height": 16, "width": 16, "seconds": 0.5, "workers": 1, "clips_per_shard": 2, "progress": False}
RECIPE = Recipe(5, seconds=0.5)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("simulated") / "three"
    simulate.simulate(path, scenes=3, **SMALL)
    return path


@pytest.fixture(scope="module")
def clip(built) -> WSV:
    return Dataset(built).clip(0)


def test_times():
    assert np.array_equal(Recipe(0).core_time, np.arange(24) / 8)
    assert np.array_equal(Recipe(0).frame_time, Recipe(0).core_time)
    fast = Recipe(0, seconds=1.0, frame_hz=24.0).frame_time
    assert np.array_equal(fast, np.arange(22) / 24), "no frame lies outside the core"


def test_everything_is_there_and_sound(built):
    dataset = Dataset(built)
    assert verify(built, progress=False) == []
    assert dataset.layout.channels == STORED and len(dataset) == 3
    for index in range(3):
        core, core_time = dataset.core(index)
        assert core.presence.shape == (4, 6) and np.array_equal(core_time, np.arange(4) / 8)
        objects = {(one.shape, one.colour) for one in named(core[0])}
        for text in dataset.captions(index):
            assert {(one.shape, one.colour) for one in parse(text)} == objects


def test_so_many_frames_are_kept_together_as_are_asked_for(built, clip, tmp_path):
    simulate.simulate(tmp_path / "short", scenes=1, frames_per_chunk=3, **SMALL)
    short = Dataset(tmp_path / "short")
    assert short.layout.frames_per_chunk == 3 and Dataset(built).layout.frames_per_chunk == 8
    np.testing.assert_array_equal(short.clip(0).channels["rgb"], clip.channels["rgb"])


def test_a_manifest_tells_how_its_clips_are_made_again(built, tmp_path):
    copy = Path(shutil.copytree(built, tmp_path / "three"))
    keys = [str(path.relative_to(copy)) for path in copy.rglob("*") if path.name.startswith(("c.0", "000000"))]
    for key in keys:
        (copy / key).unlink()
    make = simulate.maker(Dataset(built).manifest)
    assert len(repair(copy, make, progress=False)) == len(keys) > 10
    assert all((copy / key).read_bytes() == (built / key).read_bytes() for key in keys)
    manifest = Dataset(built).manifest
    for changes in ({"command": "film"}, {"renderer": "paint"}, {"seconds": 0.0}, {"wind": 3}):
        with pytest.raises(ValueError, match="three: its scenes cannot be made again"):
            simulate.maker({**manifest, "build": {**manifest["build"], **changes}})


def test_a_scene_does_not_depend_on_its_neighbours_or_on_the_pixels(built, tmp_path):
    simulate.simulate(tmp_path / "cores", scenes=2, first_scene=1, pixels=False, **SMALL)
    cores, dataset = Dataset(tmp_path / "cores"), Dataset(built)
    assert cores.layout.channels == ()
    for index in range(2):
        new, old = cores.core(index)[0], dataset.core(index + 1)[0]
        assert all(np.array_equal(getattr(new, name), getattr(old, name)) for name in vars(new))
        assert cores.captions(index) == dataset.captions(index + 1)
        assert cores.events(index) == dataset.events(index + 1)
        assert np.array_equal(cores.camera(index, None).rotation, dataset.camera(index + 1, None).rotation)


def test_channels_agree_with_the_core(clip):
    """At every seen pixel: the slot's class and colour, a point on its surface, and nothing where nothing is."""
    channels, core = clip.channels, clip.core
    slot = np.rint(channels["instance"][..., 0]).astype(int) - 1
    seen = slot >= 0
    assert set(np.unique(slot)) - {-1} <= set(np.flatnonzero(core.presence[0] > 0.5))
    assert np.array_equal(seen, channels["depth"][..., 0] > 0) and np.array_equal(seen, channels["coverage"][..., 0] > 0.5)
    t = np.broadcast_to(np.arange(len(slot))[:, None, None], slot.shape)
    assert np.array_equal(channels["semantic"][..., 0][seen], core.semantic[t, slot][seen])
    assert np.allclose(channels["base_colour"][seen], core.colour[t, slot][seen], atol=1 / 255)
    assert np.allclose(np.linalg.norm(channels["normal"][seen], axis=-1), 1.0, atol=0.02)
    assert np.abs(channels["local"][seen]).max() <= 1.01
    assert all(np.all(channels[name][~seen] == 0) for name in ("instance", "semantic", "motion", "local", "centre", "normal"))
    assert 0.1 < channels["rgb"].mean() < 0.9 and channels["rgb"].std() > 0.02


def test_a_return_sees_the_same_picture_again():
    recipe = Recipe(1, seconds=0.5, stories=("rest",), cameras=("pan_return", "orbit_return"))
    rgb = make_clip(recipe, 0, 16, 16, "wsm").channels["rgb"]
    assert np.abs(store("rgb", rgb[0]).astype(int) - store("rgb", rgb[-1]).astype(int)).max() <= 1
    assert np.abs(rgb[0] - rgb[2]).max() > 0.2


def test_recorded_scenes_keep_to_the_rules():
    for index in range(6):
        scene, trajectory, clip = record(RECIPE, index)
        assert simulate.rejection(scene, trajectory, RECIPE) is None
        centre = clip.core.centre[:, list(scene.objects)]
        assert np.abs(centre[..., :2]).max() <= 1.8 and centre[..., 2].min() > 0 and centre[..., 2].max() <= 1.8
        assert 1 <= len(clip.text) <= 4


def test_screens_and_cameras_have_the_shares_that_were_asked():
    """Rejection does not skew them: 0.4 and 1/5 within four standard deviations of 40 draws."""
    made = [make_scene(Recipe(2, seconds=0.25), index)[0] for index in range(40)]
    assert abs(np.mean([scene.has_screen for scene in made]) - 0.4) < 0.31
    counts = [sum(scene.camera.kind == kind for scene in made) for kind in CAMERA_KINDS]
    assert min(counts) >= 1 and max(counts) <= 18


def test_scenes_that_leave_are_rejected():
    scene, trajectory, _ = make_scene(RECIPE, 0)
    slot = scene.objects[0]
    trajectory.centre[-1, slot, 0] = 1.9
    assert simulate.rejection(scene, trajectory, RECIPE) == f"slot {slot} leaves the arena"
    trajectory.centre[-1, slot, 0] = 0.0
    elsewhere = dataclasses.replace(scene, camera=dataclasses.replace(scene.camera, target=(30.0, 0.0, 0.3)))
    assert "first picture" in (simulate.rejection(elsewhere, trajectory, RECIPE) or "")


def test_a_stopped_build_goes_on_and_equals_an_unbroken_one(built, tmp_path, monkeypatch):
    """Stopped after its first shard, resumed: every file of data has the checksum of the build that ran through."""
    real, calls = simulate.make_clip, []

    def stopping(*arguments):
        calls.append(arguments[1])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(simulate, "make_clip", stopping)
    path = tmp_path / "three"
    with pytest.raises(KeyboardInterrupt):
        simulate.simulate(path, scenes=3, **SMALL)
    with pytest.raises(ValueError, match="unfinished"):
        Dataset(path)
    simulate.simulate(path, scenes=3, **SMALL)
    assert calls == [0, 1, 2, 2], "the finished shard is not made again"
    old, new = (json.loads((folder / "manifest.json").read_text())["files"] for folder in (built, path))
    arrays = [name for name in old if name.split("/")[0] in ("channels", "core", "camera", "text")]
    assert len(arrays) > 20 and all(old[name]["sha256"] == new[name]["sha256"] for name in arrays)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"renderer": "blender"}, "blender.*wsm, mujoco"),
        ({"width": 32}, "square"),
        ({"seconds": 0.1}, "two ticks"),
        ({"scenes": 0}, "scenes 0"),
        ({"cameras": ("crane",)}, "crane"),
        ({"stories": ("fly",)}, "fly"),
        ({"stories": ("behind",)}, "screen 0.4.*1"),
        ({"screen": 1.5}, "screen 1.5"),
    ],
)
def test_bad_arguments_write_nothing(tmp_path, changes, match):
    with pytest.raises(ValueError, match=match):
        simulate.simulate(tmp_path / "bad", **({"scenes": 1} | SMALL | changes))
    assert not (tmp_path / "bad").exists()


def test_without_a_graphics_library_the_error_names_the_packages(tmp_path, monkeypatch):
    monkeypatch.setattr(mujoco_renderer, "_LIBRARIES", {"egl": ("libNoSuchThing.so",), "osmesa": ("libNoneEither.so",)})
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    with pytest.raises(ValueError, match=r"libegl1.*libosmesa6"):
        simulate.simulate(tmp_path / "bad", scenes=1, renderer="mujoco", **SMALL)
    assert not (tmp_path / "bad").exists()


def test_depth_and_masks_agree_with_mujocos_renderer(tmp_path):
    """The same scenes through OpenGL, in a spawned worker: another pixel only at edges, the same depth elsewhere."""
    try:
        mujoco_renderer.gl_library()
    except ValueError as error:
        pytest.skip(str(error))
    larger = SMALL | {"height": 48, "width": 48, "seconds": 0.25}
    try:
        simulate.simulate(tmp_path / "gl", scenes=2, renderer="mujoco", **larger)
    except ValueError as error:
        if "OpenGL does not start" not in str(error):
            raise
        pytest.skip(str(error))
    dataset, recipe = Dataset(tmp_path / "gl"), Recipe(5, seconds=0.25)
    for index in range(2):
        theirs, ours = dataset.clip(index).channels, make_clip(recipe, index, 48, 48, "wsm").channels
        same = theirs["instance"] == ours["instance"]
        assert same.mean() > 0.985
        apart = np.argwhere(~same[..., 0])
        for t, i, j in apart:
            around = ours["instance"][t, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            assert len(np.unique(around)) > 1, "labels differ at edges alone"
        both = same & (ours["instance"] > 0)
        error = np.abs(theirs["depth"] - ours["depth"])[both] / ours["depth"][both]
        assert np.median(error) < 1e-3 and np.quantile(error, 0.99) < 0.01
        assert np.abs(theirs["rgb"].mean() - ours["rgb"].mean()) < 0.15
