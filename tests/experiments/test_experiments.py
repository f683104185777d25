"""Every shipped experiment is imported, built and shape-checked; wrong keys and values are named."""

import json
from pathlib import Path

import jax
import pytest

from wsm_jax.config import from_json, load, to_json
from wsm_jax.runtime import make_mesh
from wsm_jax.training.experiment import check_stage, check_stages, open_experiment

FILES = sorted(path for path in (Path(__file__).parents[2] / "experiments").glob("*.py") if path.name != "__init__.py")
QUICKSTART = next(path for path in FILES if path.stem == "quickstart")


def single():
    return make_mesh(1, 1, 1, 1, jax.devices()[:1])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_stage_fits_its_data_and_has_a_scalar_loss(path):
    experiment = open_experiment(load(path))
    for name in experiment.order:
        stage = experiment.stages[name]
        check_stage(name, stage, single())
        rows = stage.batch_size // stage.accumulate
        loss, terms = jax.eval_shape(_loss(stage.objective), stage.objective.batch(rows))
        assert loss.shape == () and all(x.shape == () for x in terms.values())


def _loss(objective):
    from flax.linen import meta

    def run(batch):
        params = meta.unbox(objective.init(jax.random.key(0)))
        return objective.loss(params, batch, jax.random.key(1), {})

    return run


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_config_survives_json(path):
    config = load(path)
    data = json.loads(json.dumps(to_json(config)))
    assert to_json(from_json(data)) == data
    assert open_experiment(from_json(data)).order == open_experiment(config).order


@pytest.mark.parametrize(
    ("overrides", "error", "words"),
    [
        ({"stages.bridge.stpes": 3}, KeyError, "nearest is 'steps'"),
        ({"stages.brdige.steps": 3}, KeyError, "nearest is 'bridge'"),
        ({"stages.bridge.objective": 3}, KeyError, "is a section"),
        ({"stages.bridge.steps": "many"}, ValueError, "needed int"),
        ({"stages.bridge.steps": 0}, ValueError, "steps = 0: needed 1 or more"),
        ({"stages.bridge.objective.size": (50, 50)}, ValueError, "do not divide into square patches"),
        ({"stages.bridge.objective.bridge.heads": 3}, ValueError, "does not divide by heads"),
        ({"stages.bridge.objective.bridge.rows": 0}, ValueError, "rows = 0: needed at least 1"),
        ({"stages.world.objective.model.layout.ticks": 20}, ValueError, "multiple of tick_patch"),
        ({"stages.world.objective.tasks": (("dance", 1.0),)}, ValueError, "dance"),
        ({"stages.world.objective.tasks": (("imagine", 0.5),)}, ValueError, "sum to 0.5"),
        ({"sampler.flow.method": "rk9"}, ValueError, "rk9"),
        ({"stages.bridge.objective.bridge.layout.channels": ("depth",)}, ValueError, "local"),
        ({"mesh.data": 0}, ValueError, "mesh.data = 0"),
        ({"stages.bridge.steps": 10}, ValueError, "warmup 50 must lie in 0..9"),
        ({"stages.bridge.data.sources": (1.0,)}, ValueError, "stages.bridge.data.sources"),
        ({"stages.bridge.optimizer.peak": float("inf")}, ValueError, "finite"),
        ({"stages.world.needs": ("brige",)}, ValueError, "stage 'world' needs ['brige']"),
    ],
)
def test_wrong_keys_and_values_are_named(overrides, error, words):
    with pytest.raises(error) as caught:
        open_experiment(load(QUICKSTART, overrides))
    assert words in str(caught.value)


def test_a_missing_file_and_a_file_without_a_config_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.py"):
        load(tmp_path / "nowhere.py")
    empty = tmp_path / "empty.py"
    empty.write_text("x = 1\n")
    with pytest.raises(ValueError, match="no get_config"):
        load(empty)


def test_batches_that_do_not_divide_over_the_mesh_are_refused(tmp_path):
    config = load(QUICKSTART, {"mesh.data": 8})
    with pytest.raises(ValueError, match=r"stages\.bridge\.batch_size: 12 rows do not divide over data=8"):
        check_stages(open_experiment(config), config, ["bridge"], tmp_path)


def test_data_that_lack_what_the_objective_reads_are_named():
    stage = open_experiment(load(QUICKSTART, {"stages.bridge.data.channels": ("rgb", "base_colour")})).stages["bridge"]
    with pytest.raises(ValueError, match=r"stages\.bridge: the objective reads channels/centre, int16 .*the data give none"):
        check_stage("bridge", stage, single())


def test_a_shared_node_follows_an_override_everywhere():
    config = load(QUICKSTART, {"stages.bridge.objective.bridge.depth": 2})
    experiment = open_experiment(config)
    assert experiment.sampler.bridge.network is experiment.stages["bridge"].objective.bridge
    assert experiment.sampler.bridge.network.depth == 2
