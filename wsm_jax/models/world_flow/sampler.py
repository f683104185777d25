"""The world flow at inference: walks the edge of a task, from noise to data in the sampled groups."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from wsm_jax.config import BOUND_LATER, require
from wsm_jax.flow import METHODS, integrate
from wsm_jax.models.world_flow import tasks
from wsm_jax.models.world_flow.network import WorldFlow
from wsm_jax.models.world_flow.state import GROUPS, WorldLayout
from wsm_jax.typing import Array, Bool, Float, Key, PyTree


@dataclasses.dataclass(frozen=True)
class WorldFlowSampler:
    """A trained world flow. Raises ValueError for an unknown solver."""

    network: WorldFlow
    steps: int
    """Solver steps of a path."""
    method: str
    """Name of a row of `wsm_jax.flow.METHODS`."""
    grid_power: int = 2
    """Levels lie at (i / steps)^power: above 1 denser near the noise, where what a world is like is decided."""
    floor: float = 0.02
    """Smallest 1 - level that a velocity is divided by."""
    stage: str = "world"
    """Stage of the experiment whose weights it takes."""
    params: PyTree = dataclasses.field(default=None, metadata=BOUND_LATER)
    """Averaged weights of that stage; None until they are bound."""

    def __post_init__(self) -> None:
        require(self, 1, "steps", "grid_power")
        if not self.floor > 0:
            raise ValueError(f"floor = {self.floor}: needed more than 0")
        if self.method not in METHODS:
            raise ValueError(f"method {self.method!r}; the methods are {', '.join(sorted(METHODS))}")

    @property
    def layout(self) -> WorldLayout:
        """Sizes of the groups."""
        return self.network.layout

    def sample(
        self, task: str, state: dict[str, np.ndarray], sampled: Bool[np.ndarray, "K N"], seed: int
    ) -> dict[str, np.ndarray]:
        """The state at the end of the path of a task; `sampled` marks the part of the core that may be sampled.

        Groups that are given keep their values, all others start as noise. Raises ValueError without weights.
        """
        if self.params is None:
            raise ValueError(f"{task}: this workdir has no weights of a world flow; train it with --stages={self.stage}")
        rows = state["text"].shape[0]
        part = np.broadcast_to(sampled, (rows, *sampled.shape))
        start, end = _task_levels(task, part, state["text"].shape[1], state["style"].shape[1])
        how = dataclasses.replace(self, params=None)
        return jax.tree.map(np.asarray, _walk(how, self.params, state, start, end, jax.random.key(seed)))


@functools.partial(jax.jit, static_argnums=(0, 2, 3))
def _task_levels(task: str, sampled: Bool[Array, "B K N"], text: int, style: int) -> tuple[dict[str, Array], dict[str, Array]]:
    """Levels of every token at the start and at the end of the path of a task."""
    start = tasks.start_levels(tasks.TASKS[task], sampled, text, style)
    return start, tasks.end_levels(tasks.TASKS[task], start)


@functools.partial(jax.jit, static_argnums=0)
def _walk(
    how: WorldFlowSampler,
    params: PyTree,
    state: dict[str, Array],
    start: dict[str, Array],
    end: dict[str, Array],
    key: Key,
) -> dict[str, Array]:
    begin = {}
    for i, name in enumerate(GROUPS):
        noise = jax.random.normal(jax.random.fold_in(key, i), state[name].shape)
        begin[name] = jnp.where(start[name][..., None] == 1.0, state[name], noise)

    def predict(x: dict[str, Array], level: dict[str, Array]) -> dict[str, Array]:
        return how.network.apply({"params": params}, *(x[name] for name in GROUPS), level)[0]  # type: ignore[misc]

    velocity = tasks.along(predict, start, end, how.floor)
    return integrate(velocity, begin, _grid(how.steps, how.grid_power), METHODS[how.method])


def _grid(steps: int, power: int) -> Float[Array, " S"]:
    """Levels 0..1."""
    return jnp.linspace(0.0, 1.0, steps + 1) ** power
