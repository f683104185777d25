"""The cube of levels of the world flow, and the tasks that are paths through it.

The state is a dictionary of groups: text [B L E], core [B K N P], style [B N + 1 c]. Every token of every group has its own
level, 0 noise to 1 data. A task says which part of the state is given (level 1 all along), which is sampled (0 -> 1) and
which stays unknown (level 0 all along). Paths run along edges of the cube; a diagonal would lose the pairing.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from wsm_jax.flow import velocity_from_target
from wsm_jax.typing import Array, Bool, Float, Key, PyTree

GIVEN, SAMPLED, UNKNOWN = 1.0, 0.5, 0.0


@dataclasses.dataclass(frozen=True)
class Task:
    """Role of each group: given, sampled or unknown; in a sampled core, `part` may mark ticks and waves that are given."""

    name: str
    text: float
    core: float
    style: float
    part: str = "all"
    """Part of the core that is sampled: "all", "future", "past", "middle" (ticks), or "waves" (some of them)."""


TASKS = {
    task.name: task
    for task in (
        Task("imagine", text=GIVEN, core=SAMPLED, style=UNKNOWN),
        Task("describe", text=SAMPLED, core=GIVEN, style=UNKNOWN),
        Task("sample_style", text=GIVEN, core=GIVEN, style=SAMPLED),
        Task("sample_style_unconditional", text=UNKNOWN, core=GIVEN, style=SAMPLED),
        Task("dream", text=UNKNOWN, core=SAMPLED, style=UNKNOWN),
        Task("continue", text=UNKNOWN, core=SAMPLED, style=UNKNOWN, part="future"),
        Task("continue_with_text", text=GIVEN, core=SAMPLED, style=UNKNOWN, part="future"),
        Task("rewind", text=UNKNOWN, core=SAMPLED, style=UNKNOWN, part="past"),
        Task("infill", text=UNKNOWN, core=SAMPLED, style=UNKNOWN, part="middle"),
        Task("edit", text=GIVEN, core=SAMPLED, style=UNKNOWN, part="waves"),
    )
}
"""The tasks by name; a new one is one new row."""


def random_part(key: Key, part: str, ticks: int, waves: int, patch: int) -> Bool[Array, "K N"]:
    """Random mask of the ticks and waves that are sampled in training, cut at a multiple of `patch` ticks."""
    keys = jax.random.split(key, 3)
    chunks = ticks // patch
    cut = patch * jax.random.randint(keys[0], (), 1, max(chunks, 2))
    second = cut + patch * jax.random.randint(keys[1], (), 1, max(chunks, 2))
    tick = jnp.arange(ticks)[:, None] * jnp.ones((1, waves), jnp.int32)
    chosen = {
        "all": lambda: jnp.ones((ticks, waves), bool),
        "future": lambda: tick >= cut,
        "past": lambda: tick < cut,
        "middle": lambda: (tick >= cut) & (tick < second),
        "waves": lambda: jnp.broadcast_to(jax.random.bernoulli(keys[2], 0.5, (1, waves)), (ticks, waves)),
    }
    return chosen[part]()


def start_levels(task: Task, sampled: Bool[Array, "B K N"], text: int, style: int) -> dict[str, Float[Array, "B ..."]]:
    """Level of every token where the path of `task` starts; `sampled` marks the part of the core that it samples."""
    rows = sampled.shape[0]

    def whole(role: float, count: int) -> Array:
        return jnp.full((rows, count), float(role == GIVEN))

    core = jnp.where(sampled, 0.0, 1.0) if task.core == SAMPLED else jnp.full(sampled.shape, float(task.core == GIVEN))
    return {"text": whole(task.text, text), "core": core, "style": whole(task.style, style)}


def end_levels(task: Task, start: dict[str, Array]) -> dict[str, Array]:
    """Level of every token where the path ends: 1 in the sampled groups, unchanged elsewhere."""
    roles = {"text": task.text, "core": task.core, "style": task.style}
    return {name: jnp.ones_like(x) if roles[name] == SAMPLED else x for name, x in start.items()}


def along(
    predict: Callable[[dict[str, Array], dict[str, Array]], dict[str, Array]],
    start: dict[str, Array],
    end: dict[str, Array],
    floor: float,
) -> Callable[[PyTree, Array], PyTree]:
    """Velocity along an edge, as a function of (state, progress 0..1), for the solvers.

    `predict(state, levels)` gives the data end of every group; with level l = start + s (end - start) of each token,

        dx/ds = (end - start) (x1 - x) / (1 - l)

    which vanishes where a level does not move, so what is given stays as it is, bit for bit.
    """

    def velocity(state: dict[str, Array], progress: Array) -> dict[str, Array]:
        level = {name: start[name] + progress * (end[name] - start[name]) for name in state}
        rate = {name: end[name] - start[name] for name in state}
        return velocity_from_target(state, level, predict(state, level), rate, floor)

    return velocity
