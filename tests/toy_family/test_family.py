"""A family of two files is trained, resumed, sampled and evaluated, and no shared file knows of it."""

import json
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

import wsm_jax
from launch import evaluate, train
from launch.command import status
from tests.training.toy import leaves, signal_after
from wsm_jax.config import load
from wsm_jax.runtime.checkpoint import restore_params
from wsm_jax.training import Preempted
from wsm_jax.training.experiment import check, open_experiment, run_stage

EXPERIMENT = Path(__file__).parent / "experiment.py"
TRUST = ("tests",)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    assert status(train.main, [f"--config={EXPERIMENT}", f"--workdir={folder}", "--noprogress", "--config.mesh.data=8"]) == 0
    return folder


def rows(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_it_learns_and_its_evaluators_ran(workdir):
    for stage in ("first", "second"):
        log = rows(workdir / stage)
        assert [row["step"] for row in log if "validation/loss" in row["values"]] == [20, 40]
        assert [row["step"] for row in log if "scatter/spread" in row["values"]] == [20, 40]
        assert len(list((workdir / stage / "media").rglob("*.png"))) == 2
    first, second = (rows(workdir / stage)[-1]["values"]["validation/loss"] for stage in ("first", "second"))
    assert first < rows(workdir / "first")[0]["values"]["loss"]
    assert second < first + 0.05, "the correction starts from the frozen base"


def test_it_is_sampled(workdir):
    sampler = wsm_jax.load(workdir, trust=TRUST)
    points = sampler.sample(512, seed=1)
    assert np.abs(np.linalg.norm(points, axis=-1) - 2.0).mean() < 0.6
    with pytest.raises(ValueError, match="--trust"):
        wsm_jax.load(workdir)


def test_one_checkpoint_copied_alone_loads(workdir, tmp_path):
    """It carries its config; the stage that is not there has no weights."""
    shutil.copytree(workdir / "first" / "checkpoints" / "40", tmp_path / "alone")
    sampler = wsm_jax.load(tmp_path / "alone", trust=TRUST)
    assert set(sampler.weights) == {"first"}
    jax.tree.map(np.testing.assert_array_equal, sampler.weights["first"], restore_params(workdir / "first")[0])


def test_it_is_evaluated(workdir, capsys):
    assert status(evaluate.main, [f"--workdir={workdir}", "--trust=tests", "--noprogress"]) == 0
    report = json.loads((workdir / "report.json").read_text())
    assert report["radius_error"] < report["radius_error_baseline"] and report["n"] == 256
    assert "radius_error" in (workdir / "report.html").read_text()
    changed = [f"--workdir={workdir}", "--trust=tests", "--noprogress", "--config.evaluators.radius.count=16"]
    assert status(evaluate.main, changed) == 0
    assert json.loads((workdir / "report.json").read_text())["n"] == 16
    assert status(evaluate.main, [f"--workdir={workdir}", "--noprogress"]) == 2
    assert "--trust" in capsys.readouterr().err


def test_a_training_that_was_stopped_goes_on_to_the_same_bits(workdir, tmp_path, monkeypatch):
    config = load(EXPERIMENT, {"mesh.data": 8})
    experiment = open_experiment(config)
    check(experiment, config, experiment.order, tmp_path)
    for name in experiment.order:
        hook = signal_after(13, signal.SIGTERM)
        monkeypatch.setattr("wsm_jax.training.experiment.evaluation_hooks", lambda *_, hook=hook: [hook])
        with pytest.raises(Preempted):
            run_stage(experiment, config, name, tmp_path, lambda *_: None, progress=False)
        monkeypatch.undo()
        state = run_stage(experiment, config, name, tmp_path, lambda *_: None, progress=False)
        whole, _ = restore_params(workdir / name)
        resumed = {path: leaf.tobytes() for path, leaf in leaves(state.ema).items()}
        assert resumed == {path: leaf.tobytes() for path, leaf in leaves(whole).items()}


def test_the_frozen_weights_are_arguments_and_stay(workdir):
    """They are no constants of the program, get no gradient, and are those of the first stage."""
    config = load(EXPERIMENT)
    objective = open_experiment(config).stages["second"].objective
    base, _ = restore_params(workdir / "first")
    params, _ = restore_params(workdir / "second")
    batch = {"x": np.ones((4, 2), np.float32)}
    args = params, batch, jax.random.key(0), {"base": base}
    lowered = jax.jit(lambda *a: objective.loss(*a)[0]).lower(*args)
    assert len(jax.tree.leaves(lowered.in_avals)) == len(jax.tree.leaves(args))
    zeros = jax.tree.map(np.zeros_like, base)
    assert objective.loss(*args)[0] != objective.loss(params, batch, args[2], {"base": zeros})[0]


def test_a_changed_base_is_refused(workdir, capsys):
    command = [f"--config={EXPERIMENT}", f"--workdir={workdir}", "--noprogress", "--config.mesh.data=8", "--stages=second"]
    assert status(train.main, [*command, "--config.stages.first.objective.network.width=16"]) == 2
    assert "network.width: there 32, here 16" in capsys.readouterr().err


def test_no_shared_file_knows_of_it():
    root = Path(wsm_jax.__file__).parents[1]
    files = [
        path for folder in ("wsm_jax", "data_pipelines", "launch", "experiments") for path in (root / folder).rglob("*.py")
    ]
    assert not [path for path in files if "toy_family" in path.read_text() or "PointFlow" in path.read_text()]
