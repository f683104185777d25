"""Every shipped experiment is imported, validated and shape-checked; configs are strict."""

from pathlib import Path

import jax
import numpy as np
import pytest

from wsm_jax import experiment
from wsm_jax.core.vector import SIZE
from wsm_jax.snapshot import CHANNELS
from wsm_jax.snapshot.waves import FIELDS

FILES = sorted(path for path in (Path(__file__).parents[2] / "experiments").glob("*.py") if path.name != "__init__.py")
QUICKSTART = next(path for path in FILES if path.stem == "quickstart")


def abstract(shape, dtype):
    return jax.ShapeDtypeStruct(shape, dtype)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_shapes_of_both_stages(path):
    config = experiment.load(path)
    bridge, world = experiment.bridge_objective(config), experiment.world_objective(config)
    b, t = config.bridge.run.batch_size // config.bridge.run.accumulate, config.bridge.frames
    size = (b, t, config.bridge.height, config.bridge.width)
    channels = {n: abstract((*size, CHANNELS[n].components), CHANNELS[n].dtype) for n in CHANNELS}
    known = {n: abstract((b,), bool) for n in channels}
    out = jax.eval_shape(_loss(bridge), {"channels": channels, "known": known})
    assert out[0].shape == () and all(x.shape == () for x in out[1].values())
    b, k, n = config.world.run.batch_size // config.world.run.accumulate, config.world.ticks, config.bridge.layout.waves
    ints = ("semantic", "instance")
    core = {f: abstract((b, k, n, *([c] if c else [])), np.int32 if f in ints else np.float32) for f, c in FIELDS.items()}
    shapes = world.shapes(b)
    assert shapes["core"] == (b, k, n, SIZE)
    batch = {
        "tokens": abstract((b, config.world.text_length), np.int32),
        "core": core,
        "style": abstract(shapes["style"], np.float32),
        "known": {name: abstract((b,), bool) for name in ("text", "core", "style")},
    }
    out = jax.eval_shape(_loss(world), batch)
    assert out[0].shape == ()


def _loss(objective):
    from flax.linen import meta

    def run(batch):
        params = meta.unbox(objective.init(jax.random.key(0)))
        return objective.loss(params, batch, jax.random.key(1))

    return run


@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        ({"bridge.run.stpes": 3}, KeyError, "nearest is 'steps'"),
        ({"brdige.run.steps": 3}, KeyError, "nearest is 'bridge'"),
        ({"bridge": 3}, KeyError, "is a section"),
        ({"bridge.run.steps": "many"}, ValueError, "needed int"),
        ({"bridge.height": 50}, ValueError, "do not divide"),
        ({"bridge.network.heads": 3}, ValueError, "does not divide by heads"),
        ({"world.ticks": 20}, ValueError, "multiple of world.network.tick_patch"),
        ({"world.objective.tasks": (("dance", 1.0),)}, ValueError, "dance"),
        ({"world.objective.tasks": (("imagine", 0.5),)}, ValueError, "sum to 1"),
        ({"sampling.world_method": "rk9"}, ValueError, "rk9"),
        ({"bridge.layout.channels": ("depth",)}, ValueError, "local"),
        ({"mesh.data": 0}, ValueError, "mesh.data = 0"),
        ({"bridge.run.steps": 10}, ValueError, "warmup 50 must lie below"),
    ],
)
def test_wrong_keys_and_values_are_named(overrides, error, words):
    with pytest.raises(error) as caught:
        experiment.load(QUICKSTART, overrides)
    assert words in str(caught.value)


def test_a_missing_key_and_a_missing_file_are_named(tmp_path):
    config = experiment.load(QUICKSTART)
    with config.unlocked():
        del config.bridge.run["steps"]
    with pytest.raises(KeyError, match=r"bridge\.run\.steps"):
        experiment.validate(config)
    with pytest.raises(FileNotFoundError, match=r"nowhere\.py"):
        experiment.load(tmp_path / "nowhere.py")
    empty = tmp_path / "empty.py"
    empty.write_text("x = 1\n")
    with pytest.raises(ValueError, match="no get_config"):
        experiment.load(empty)


def test_batches_that_do_not_divide_over_the_mesh_are_refused():
    with pytest.raises(ValueError, match="choose a multiple of 3"):
        experiment.load(QUICKSTART, {"mesh.data": 3})
    with pytest.raises(ValueError, match="choose a multiple of 5"):
        experiment.check_devices(experiment.load(QUICKSTART), 5)


def test_a_resolved_config_survives_json():
    import json

    config = experiment.load(QUICKSTART)
    again = experiment.resolved(json.loads(json.dumps(config.to_dict())))
    assert again.to_dict() == config.to_dict()
