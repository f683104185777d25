"""The real objectives, shrunk: on every axis of the mesh the loss and the gradient are those of one device."""

from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from tests.conftest import TINY
from wsm_jax import experiment
from wsm_jax.core.vector import from_vector
from wsm_jax.runtime import global_batch, make_mesh
from wsm_jax.snapshot import CHANNELS
from wsm_jax.training import init_state, make_train_step

CONFIG = experiment.load(Path(__file__).parents[2] / "experiments" / "quickstart.py", {**TINY, "world.text_length": 15})


def bridge_batch(rng, rows=8):
    """Noise in the types that the loader hands out, objects 2 to 6 m away; channels are known in some rows."""
    section = CONFIG.bridge
    size = (rows, section.frames, section.height, section.width)
    channels = {}
    for name in ("rgb", "base_colour", "instance", *section.layout.channels):
        row = CHANNELS[name]
        low, high = {"instance": (0, section.layout.waves), "semantic": (0, 5), "depth": (2000, 6000)}.get(name, (50, 120))
        channels[name] = rng.integers(low, high, (*size, row.components)).astype(row.dtype)
    return {"channels": channels, "known": {name: rng.random(rows) < 0.8 for name in channels}}


def world_batch(objective, rng, rows=8):
    """Random tokens, cores and styles, partly known."""
    shapes = objective.shapes(rows)
    core = from_vector(rng.normal(size=shapes["core"]).astype(np.float32))
    return {
        "tokens": rng.integers(0, 300, (rows, CONFIG.world.text_length)).astype(np.int32),
        "core": {name: np.asarray(value) for name, value in vars(core).items()},
        "style": rng.normal(size=shapes["style"]).astype(np.float32),
        "known": {name: rng.random(rows) < 0.8 for name in ("text", "core", "style")},
    }


def stepped(objective, batch, mesh):
    """(loss, gradient norm, parameters before, parameters after) of one step of plain gradient descent."""
    optimizer = optax.sgd(0.1)
    step = make_train_step(objective, optimizer, mesh, ema_decay=0.9, seed=3, accumulate=1)
    state = init_state(objective, optimizer, mesh, 3)
    before = jax.tree.map(np.array, state.params)
    state, metrics = step(state, global_batch(mesh, batch))
    return float(metrics["loss"]), float(metrics["grad_norm"]), before, state.params


@pytest.mark.parametrize(("stage", "sizes"), [("bridge", (2, 2, 2, 1)), ("world", (1, 2, 2, 2))])
def test_every_axis_of_the_mesh_gives_what_one_device_gives(stage, sizes):
    rng = np.random.default_rng(4)
    objective = {"bridge": experiment.bridge_objective, "world": experiment.world_objective}[stage](CONFIG)
    batch = bridge_batch(rng) if stage == "bridge" else world_batch(objective, rng)
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
    config = experiment.load(Path(__file__).parents[2] / "experiments" / "quickstart.py", {"mesh.context": 1})
    config.mesh.context = 2
    with pytest.raises(
        ValueError, match=r"69 tokens of the world flow do not divide over mesh\.context = 2.*world\.text_length"
    ):
        experiment.check_devices(config, 2)
