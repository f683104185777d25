"""The world flow at inference: walks the edge of a task, from noise to data in the sampled groups."""

import functools

import jax
import jax.numpy as jnp

from wsm_jax.flow import METHODS, integrate
from wsm_jax.models.world_flow import tasks
from wsm_jax.models.world_flow.network import WorldFlow
from wsm_jax.typing import Array, Bool, Float, Key, PyTree


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def task_levels(task: str, sampled: Bool[Array, "B K N"], text: int, style: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """Levels of every token at the start and at the end of the path of a task."""
    start = tasks.start_levels(tasks.TASKS[task], sampled, text, style)
    return start, tasks.end_levels(tasks.TASKS[task], start)


@functools.partial(jax.jit, static_argnames=("network", "method", "steps"))
def walk_task(
    network: WorldFlow,
    method: str,
    steps: int,
    params: PyTree,
    state: dict[str, Array],
    start: dict[str, Array],
    end: dict[str, Array],
    key: Key,
) -> dict[str, Array]:
    """The state at the end of the path; tokens that start at level 1 keep their values, all others start as noise."""
    begin = {}
    for i, name in enumerate(tasks.GROUPS):
        noise = jax.random.normal(jax.random.fold_in(key, i), state[name].shape)
        begin[name] = jnp.where(start[name][..., None] == 1.0, state[name], noise)

    def predict(x: dict[str, Array], level: dict[str, Array]) -> dict[str, Array]:
        return network.apply({"params": params}, *(x[name] for name in tasks.GROUPS), level)[0]  # type: ignore[misc]

    return integrate(tasks.along(predict, start, end), begin, _grid(steps), METHODS[method])


def _grid(steps: int) -> Float[Array, " S"]:
    """Levels 0..1, denser near the noise, where what a world is like is decided: (i / steps)^2."""
    return jnp.square(jnp.linspace(0.0, 1.0, steps + 1))
