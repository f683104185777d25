"""The state of a training, and the pure step that advances it; the same for every flow."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from wsm_jax.runtime import mesh as meshes
from wsm_jax.runtime import random
from wsm_jax.runtime.compiler import compiler_options
from wsm_jax.training.stage import Objective
from wsm_jax.typing import Array, Int, Key, NpOrJax, PyTree, pytree


@pytree
class TrainState:
    """Everything that a step changes. Randomness is not in it: it is folded from the seed and `step`."""

    step: Int[NpOrJax, ""]
    """Number of updates done."""
    params: PyTree
    opt_state: PyTree
    ema: PyTree
    """Exponential moving average of `params`; what inference uses."""


Step = Callable[[TrainState, PyTree, Mapping[str, PyTree]], tuple[TrainState, dict[str, Array]]]


def _initial(objective: Objective, optimizer: optax.GradientTransformation, key: Key) -> TrainState:
    """The first state, still in boxes: the optimizer's moments take the boxes of their parameters."""
    params = objective.init(key)
    return TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params), jax.tree.map(jnp.copy, params))


def state_shardings(objective: Objective, optimizer: optax.GradientTransformation, mesh: Mesh) -> tuple[TrainState, TrainState]:
    """(abstract state, its shardings) of a training, without memory or work on any device.

    Raises what `wsm_jax.runtime.mesh.shardings` raises for parameters that do not fit the mesh.
    """
    boxed = jax.eval_shape(lambda: _initial(objective, optimizer, jax.random.key(0)))
    # Every parameter has a box; of the optimizer's arrays those that are a parameter's have it, and the rest is small.
    meshes.shardings(mesh, boxed.params)
    placed = meshes.shardings(mesh, boxed, replicate_bare=True)
    return meshes.unbox(boxed), placed


def init_state(objective: Objective, optimizer: optax.GradientTransformation, mesh: Mesh, seed: int) -> TrainState:
    """The state before the first step, created in place on its shards."""
    _, placed = state_shardings(objective, optimizer, mesh)

    def create(root: Key) -> TrainState:
        return meshes.unbox(_initial(objective, optimizer, random.key(root, "init", 0)))

    return jax.jit(create, out_shardings=placed, compiler_options=compiler_options(once=True))(jax.random.key(seed))


def _microbatches(batch: PyTree, accumulate: int) -> PyTree:
    """[rows, ...] -> [accumulate, rows / accumulate, ...]; part k is rows k, k + accumulate, ...: no row changes device."""

    def split(path: Any, leaf: Array) -> Array:
        if leaf.shape[0] % accumulate:
            raise ValueError(
                f"batch{jax.tree_util.keystr(path)}: {leaf.shape[0]} rows do not divide into {accumulate} microbatches"
            )
        return leaf.reshape(leaf.shape[0] // accumulate, accumulate, *leaf.shape[1:]).swapaxes(0, 1)

    return jax.tree_util.tree_map_with_path(split, batch)


def _gradients(
    objective: Objective, params: PyTree, batch: PyTree, key: Key, frozen: Mapping[str, PyTree], accumulate: int
) -> tuple[dict[str, Array], PyTree]:
    """(metrics with "loss", gradients), both means over the microbatches."""

    def value(params: PyTree, batch: PyTree, key: Key) -> tuple[Array, dict[str, Array]]:
        loss, metrics = objective.loss(params, batch, key, frozen)
        return loss, {**metrics, "loss": loss}

    grad = jax.grad(value, has_aux=True)
    if accumulate == 1:
        gradients, metrics = grad(params, batch, key)
        return metrics, gradients

    def one(total: PyTree, part: tuple[Array, PyTree]) -> tuple[PyTree, dict[str, Array]]:
        index, rows = part
        gradients, metrics = grad(params, rows, jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, total, gradients), metrics

    parts = (jnp.arange(accumulate), _microbatches(batch, accumulate))
    total, metrics = jax.lax.scan(one, jax.tree.map(jnp.zeros_like, params), parts)
    return jax.tree.map(jnp.mean, metrics), jax.tree.map(lambda leaf: leaf / accumulate, total)


def make_train_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    ema_decay: float,
    seed: int,
    accumulate: int,
) -> Step:
    """The compiled step (state, batch, frozen) -> (state, metrics); the state passed in is donated, so it is gone afterwards.

    `frozen` are the weights of earlier stages, by name, on their shards; they are arguments, so they are no constants of the
    program.

    Randomness is key(seed, "train", state.step). The average follows the parameters as

        ema <- d ema + (1 - d) params,      d = min(ema_decay, (1 + t) / (10 + t)),  t = updates done

    so that it forgets the initial weights in short trainings too. Metrics are those of the loss, "loss", "grad_norm" and
    "finite": whether loss and gradient are finite numbers. `accumulate` > 1 splits the batch into that many
    microbatches, each with its own key, and averages their gradients.
    """
    _, placed = state_shardings(objective, optimizer, mesh)

    def step(state: TrainState, batch: PyTree, frozen: Mapping[str, PyTree]) -> tuple[TrainState, dict[str, Array]]:
        key = random.key(jax.random.key(seed), "train", state.step)
        with meshes.logical_axes(mesh):
            metrics, gradients = _gradients(objective, state.params, batch, key, frozen, accumulate)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda old, new: (decay * old + (1.0 - decay) * new).astype(old.dtype), state.ema, params)
        norm = optax.tree.norm(gradients)
        metrics = {**metrics, "grad_norm": norm, "finite": jnp.isfinite(metrics["loss"]) & jnp.isfinite(norm)}
        return TrainState(state.step + 1, params, opt_state, ema), metrics

    whole = NamedSharding(mesh, PartitionSpec())
    return jax.jit(
        step,
        donate_argnums=0,
        in_shardings=(placed, meshes.batch_sharding(mesh), None),
        out_shardings=(placed, whole),
        compiler_options=compiler_options(),
    )
