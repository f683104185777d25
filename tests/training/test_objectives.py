"""The real objectives, shrunk: on every axis of the mesh the loss and the gradient are those of one device."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from tests.conftest import FEWER_WAVES, TINY
from wsm_jax.config import load
from wsm_jax.core.vector import from_vector
from wsm_jax.runtime import global_batch, make_mesh
from wsm_jax.training import init_state, make_train_step
from wsm_jax.training.experiment import check_stage, open_experiment

QUICKSTART = Path(__file__).parents[2] / "experiments" / "quickstart.py"
TEXT = {"stages.world.objective.model.layout.text.length": 15}
STAGES = open_experiment(load(QUICKSTART, TINY | FEWER_WAVES | TEXT)).stages


def bridge_batch(objective, rng, rows=8):
    """Noise in the types that the loader hands out, objects 2 to 6 m away; channels are known in some rows."""
    ranges = {"instance": (0, objective.layout.waves), "semantic": (0, 5), "depth": (2000, 6000)}
    spec = objective.batch(rows)
    channels = {
        name: rng.integers(*ranges.get(name, (50, 120)), leaf.shape).astype(leaf.dtype)
        for name, leaf in spec["channels"].items()
    }
    return {"channels": channels, "known": {name: rng.random(rows) < 0.8 for name in spec["known"]}}


def world_batch(objective, rng, rows=8):
    """Random tokens, cores and styles, partly known."""
    shapes = objective.layout.shapes(rows)
    core = from_vector(rng.normal(size=shapes["core"]).astype(np.float32))
    return {
        "tokens": rng.integers(0, 300, (rows, objective.layout.text.length)).astype(np.int32),
        "core": {name: np.asarray(value) for name, value in vars(core).items()},
        "latents": {"style": rng.normal(size=shapes["style"]).astype(np.float32)},
        "known": {name: rng.random(rows) < 0.8 for name in ("text", "core", "style")},
    }


def structure(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, np.dtype(leaf.dtype)), tree)


def stepped(objective, batch, mesh):
    """(loss, gradient norm, parameters before, parameters after) of one step of plain gradient descent."""
    optimizer = optax.sgd(0.1)
    step = make_train_step(objective, optimizer, mesh, ema_decay=0.9, seed=3, accumulate=1)
    state = init_state(objective, optimizer, mesh, 3)
    before = jax.tree.map(np.array, state.params)
    state, metrics = step(state, global_batch(mesh, batch), {})
    return float(metrics["loss"]), float(metrics["grad_norm"]), before, state.params


@pytest.mark.parametrize(("stage", "sizes"), [("bridge", (2, 2, 2, 1)), ("world", (1, 2, 2, 2))])
def test_every_axis_of_the_mesh_gives_what_one_device_gives(stage, sizes):
    rng = np.random.default_rng(4)
    objective = STAGES[stage].objective
    batch = {"bridge": bridge_batch, "world": world_batch}[stage](objective, rng)
    assert structure(batch) == structure(objective.batch(8))
    loss, norm, before, after = stepped(objective, batch, make_mesh(1, 1, 1, 1, jax.devices()[:1]))
    there = stepped(objective, batch, make_mesh(*sizes))
    assert norm > 1e-3
    np.testing.assert_allclose(there[0], loss, rtol=1e-5)
    np.testing.assert_allclose(there[1], norm, rtol=1e-5)
    leaves = zip(jax.tree_util.tree_leaves_with_path(before), *map(jax.tree.leaves, (after, there[3])), strict=True)
    for (path, start), here, split_over in leaves:
        moved = np.asarray(here) - start
        tolerance = 1e-4 * max(np.abs(moved).max(), 1e-5 * norm)
        where = jax.tree_util.keystr(path)
        np.testing.assert_allclose(np.asarray(split_over) - start, moved, rtol=0, atol=tolerance, err_msg=where)
    split = {axis for leaf in jax.tree.leaves(there[3]) for axes in leaf.sharding.spec for axis in np.atleast_1d(axes or [])}
    assert split >= {"fsdp", "tensor"}, "the weights lie whole on every device"


def test_tokens_that_do_not_divide_over_the_context_are_named():
    stage = open_experiment(load(QUICKSTART, {"stages.world.evaluators": {}})).stages["world"]
    with pytest.raises(ValueError, match=r"stages\.world: the 69 tokens of its network do not divide over mesh\.context = 2"):
        check_stage("world", stage, make_mesh(1, 1, 1, 2, jax.devices()[:2]))


@pytest.mark.parametrize("stage", ["bridge", "world"])
def test_flops_are_linear_in_the_rows_and_grow_with_the_depth(stage):
    objective = STAGES[stage].objective
    one, two = objective.flops(4), objective.flops(8)
    assert one > 0 and two == pytest.approx(2 * one, rel=0.02)
    part = "bridge" if stage == "bridge" else "model"
    deeper = dataclasses.replace(objective, **{part: getattr(objective, part).clone(depth=2)})
    assert deeper.flops(4) > 1.1 * one
