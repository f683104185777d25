"""The verbs keep what they are told to keep, whatever the weights: these hold for an untrained world as for a trained one."""

import shutil

import numpy as np
import pytest

from wsm_jax.evaluation.judge import at_rest
from wsm_jax.models.wave_bridge import style
from wsm_jax.snapshot import FIELDS, WSV, default_camera, ground, level_with, orbit
from wsm_jax.world import World

TEXT = "a red ball rolls."


@pytest.fixture(scope="module")
def world(tiny_workdir):
    return World.load(tiny_workdir)


@pytest.fixture(scope="module")
def core(world):
    return world.imagine(TEXT)


@pytest.fixture(scope="module")
def seen(core):
    """A core in which there is something to see: balls in a row."""
    place = np.broadcast_to(np.linspace([-1.2, -0.5, 0.4], [1.2, 0.8, 0.4], 4, dtype=np.float32), core.centre.shape)
    ones = np.ones_like(core.presence)
    return core.replace(presence=ones, centre=place, scale=np.full_like(core.scale, 0.4), semantic=3 * ones.astype(np.int32))


def equal(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in FIELDS)


def test_imagine_is_a_function_of_text_and_seed(world, core):
    assert equal(core, world.imagine(TEXT))
    assert not equal(core, world.imagine(TEXT, seed=1))
    assert not equal(core, world.imagine("a blue box falls."))
    assert core.presence.shape == (8, 4)
    assert world.imagine(TEXT, seconds=0.5).presence.shape[0] == 4


def test_unlimited_time_keeps_the_past(world, core):
    longer = world.continue_(core, 2.0)
    assert longer.presence.shape[0] == 8 + 16
    assert equal(longer[:8], core)
    for name in ("colour", "scale", "exponents", "semantic", "presence"):
        values = np.asarray(getattr(longer, name))
        np.testing.assert_array_equal(values, np.broadcast_to(values[:1], values.shape), err_msg=name)


def test_rewind_keeps_the_future(world, core):
    earlier = world.rewind(core, 1.0)
    assert earlier.presence.shape[0] == 8 + 8
    assert equal(earlier[8:], core)


def test_edit_keeps_the_waves_it_is_told_to_keep(world, core):
    out = world.edit(core, keep=[0, 2], text="a blue box falls.")
    for name in FIELDS:
        np.testing.assert_array_equal(np.asarray(getattr(out, name))[:, [0, 2]], np.asarray(getattr(core, name))[:, [0, 2]])
    assert not np.array_equal(np.asarray(out.centre)[:, [1, 3]], np.asarray(core.centre)[:, [1, 3]])
    with pytest.raises(ValueError, match=r"slots \[9\]; this world has slots 0\.\.3"):
        world.edit(core, keep=[9], text=TEXT)


def test_describe_gives_text(world, core):
    text = world.describe(core)
    assert isinstance(text, str) and text == world.describe(core)


def test_a_camera_that_comes_back_sees_the_same(world, seen):
    there = orbit(3, radius=5.0, height=2.1, sweep=0.8)
    video = world.render(at_rest(seen, 5), there[np.asarray([0, 1, 2, 1, 0])], fps=8.0, size=(16, 16))
    for name, values in video.channels.items():
        np.testing.assert_array_equal(values[0], values[4], err_msg=name)
        np.testing.assert_array_equal(values[1], values[3], err_msg=name)
    assert np.abs(video.channels["depth"][0] - video.channels["depth"][2]).max() > 0.1


def test_any_rate_and_size(world, core):
    """Frames at times that two rates share are the same frames; sizes are what was asked for."""
    code = world.dress(core)
    slow, fast = (world.render(core, default_camera(n), fps, (16, 24), code) for n, fps in ((3, 8.0), (5, 16.0)))
    np.testing.assert_allclose(slow.channels["rgb"], fast.channels["rgb"][::2], atol=1e-5)
    odd = world.render(core, default_camera(1), 8.0, (15, 21), code)
    assert {x.shape[:3] for x in odd.channels.values()} == {(1, 15, 21)}
    assert np.isfinite(odd.channels["rgb"]).all()
    with pytest.raises(ValueError, match="3 x 30: needed a height of at least 4"):
        world.render(core, default_camera(1), 8.0, (3, 30), code)


def test_surfaces_late_in_a_long_world_are_those_of_its_first_minute(world, seen):
    """Times count from the first tick, in float64: at 1e6 s a float32 would be off by a frame of 16 Hz."""
    ticks, frames, camera = np.arange(8) / 8, np.arange(13) / 16 + 0.01, default_camera(13)
    early, late = (world.bridge.surface(seen, ticks + t, camera, frames + t, (8, 8)) for t in (0.0, 1e6))
    for name, values in early.items():
        np.testing.assert_allclose(late[name], values, rtol=0, atol=1e-5, err_msg=name)
    assert np.abs(np.diff(early["depth"], axis=0)).max() > 1e-3, "nothing moves"


def test_a_picture_that_whole_patches_do_not_fill_is_the_one_that_they_do_with_its_edge_cut(world, core):
    code, channels = world.dress(core), {}
    surface = world.bridge.surface(core, np.arange(8) / 8, default_camera(1), np.zeros(1), (14, 16))
    for name, values in surface.items():
        channels[name] = np.pad(values, ((0, 0), (0, 2), (0, 0), (0, 0)), mode="edge")
    whole = world.bridge.render(channels, code)
    np.testing.assert_allclose(world.bridge.render(surface, code), whole[:, :14], atol=1e-5)


def test_pictures_do_not_depend_on_their_neighbours_in_a_batch(world, core):
    code, camera = world.dress(core), orbit(11, radius=5.0, height=2.0, sweep=0.5)
    whole = world.render(core, camera, 8.0, (16, 16), code).channels["rgb"]
    part = world.render(core, camera[np.arange(3)], 8.0, (16, 16), code).channels["rgb"]
    np.testing.assert_allclose(whole[:3], part, atol=1e-5)


def test_style_file_round_trip(world, core, tmp_path):
    code = world.dress(core)
    path = tmp_path / "style.json"
    path.write_text(style.to_json(code))
    np.testing.assert_allclose(style.load(path).waves, code.waves, rtol=1e-3, atol=1e-4)
    for text in (
        "{}",
        "[",
        '{"format": "wsm_style", "version": 2}',
        '{"format": "wsm_style", "version": 1, "waves": [1], "scene": [1]}',
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"style\.json"):
            style.load(path)
    path.write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(ValueError, match=r"style\.json"):
        style.load(path)
    with pytest.raises(FileNotFoundError, match="gone"):
        style.load(tmp_path / "gone.json")


def test_observe_gives_every_channel_at_the_size_of_the_canvas(world):
    video = WSV({"rgb": np.random.default_rng(0).uniform(size=(5, 20, 28, 3)).astype(np.float32)}, np.arange(5) / 8)
    seen = world.observe(video)
    for name in (*world.bridge.layout.channels, "base_colour"):
        assert seen.channels[name].shape[:3] == (5, 16, 24), name
        assert np.isfinite(seen.channels[name]).all()
    assert seen.core.presence.shape == (5, 4) and seen.style.waves.shape == (4, 8)


def test_a_given_camera_is_kept_and_a_missing_one_is_read_off_the_ground(world):
    rgb = np.random.default_rng(0).uniform(size=(3, 16, 16, 3)).astype(np.float32)
    given = orbit(3, height=1.5)
    seen = world.observe(WSV({"rgb": rgb}, np.arange(3) / 8), given)
    np.testing.assert_array_equal(seen.camera.position, given.position)
    np.testing.assert_allclose(seen.channels["ground"], np.clip(ground(given, 16, 16), -1, 1), atol=1e-5)
    alone = world.observe(WSV({"rgb": rgb}, np.arange(3) / 8))
    told = level_with(np.median(alone.channels["ground"], axis=0), default_camera()[0])
    np.testing.assert_allclose(alone.camera.position, np.broadcast_to(told.position, (3, 3)), rtol=1e-6)
    np.testing.assert_allclose(alone.camera.rotation, np.broadcast_to(told.rotation, (3, 4)), rtol=1e-6)


def test_any_subset_of_channels_makes_a_picture(world, core):
    import jax

    video = world.render(core, default_camera(2), 8.0, (16, 16))
    for names in (("depth",), ("semantic", "base_colour"), tuple(world.bridge.layout.channels)):
        given = {name: video.channels[name] for name in names}
        picture = np.asarray(world.bridge.imagine_picture(given, jax.random.key(0)))
        assert picture.shape == (2, 16, 16, 3) and np.isfinite(picture).all()


def test_a_workdir_without_world_flow_still_sees(tiny_workdir, tmp_path):
    shutil.copytree(tiny_workdir / "bridge", tmp_path / "bridge")
    blind = World.load(tmp_path)
    with pytest.raises(ValueError, match="no world flow"):
        blind.imagine(TEXT)
    assert blind.perceive(WSV({"rgb": np.zeros((3, 16, 16, 3), np.float32)}, np.arange(3) / 8)).count == 4


def test_an_empty_workdir_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        World.load(tmp_path)


@pytest.mark.parametrize(
    ("call", "words"), [(lambda w, c: w.imagine(" "), "empty"), (lambda w, c: w.continue_(c, -1.0), "more than 0")]
)
def test_bad_input(world, core, call, words):
    with pytest.raises(ValueError, match=words):
        call(world, core)


def test_a_core_of_another_size_is_refused(world, core):
    from wsm_jax.snapshot.waves import empty

    with pytest.raises(ValueError, match="7 slots; this world was trained with 4"):
        world.describe(empty(7, (8,)))
