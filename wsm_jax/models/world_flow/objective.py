"""What the world flow is trained on: points on the paths of its tasks, one task a row."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from wsm_jax.core import vector
from wsm_jax.flow import LevelMix, interpolate
from wsm_jax.models.world_flow import tasks as flow
from wsm_jax.models.world_flow.network import WorldFlow
from wsm_jax.snapshot import Waves
from wsm_jax.text import PAD, codebook
from wsm_jax.typing import Array, Float, Int, Key, PyTree

EMPHASIS = {"colour": 8.0, "exponents": 3.0, "scale": 2.0, "semantic": 2.0}
"""Weight of the fields that words name; in a plain mean the three numbers of a colour starve among 34."""


@dataclasses.dataclass(frozen=True)
class WorldObjective:
    """Trains the world flow on batches {"tokens", "core", "style", "known"}."""

    model: WorldFlow
    tasks: tuple[tuple[str, float], ...]
    """(name of a row of `flow.world.TASKS`, share); the shares sum to 1."""
    levels: LevelMix
    cube: float
    """Share of rows whose groups are at independent levels instead of on the path of a task."""
    text_length: int
    ticks: int
    waves: int
    style_code: int
    weights: tuple[float, float, float]
    """Of the losses of text (cross entropy, nats), core and style (mean squared error)."""

    def init(self, key: Key) -> PyTree:
        """Parameters in Linen's boxes of logical axes."""
        shapes = self.shapes(1)
        state = {name: jnp.zeros(shape) for name, shape in shapes.items()}
        levels = {name: jnp.zeros(shape[:-1]) for name, shape in shapes.items()}
        return self.model.init(key, *(state[name] for name in flow.GROUPS), levels)["params"]

    def shapes(self, rows: int) -> dict[str, tuple[int, ...]]:
        """Shape of every group of the state."""
        return {
            "text": (rows, self.text_length, self.model.text_code),
            "core": (rows, self.ticks, self.waves, vector.SIZE),
            "style": (rows, self.waves + 1, self.style_code),
        }

    def loss(self, params: PyTree, batch: PyTree, key: Key) -> tuple[Array, dict[str, Array]]:
        """Weighted sum of the errors of the predicted data ends, over the tokens that are sampled."""
        keys = jax.random.split(key, 5)
        tokens = batch["tokens"]
        core = vector.to_vector(Waves(**batch["core"]))
        codes = jnp.asarray(codebook(self.model.vocabulary, self.model.text_code))
        data = {"text": codes[tokens], "core": core, "style": batch["style"]}
        level, sampled = self._levels(keys[0], batch["known"])
        noise = {name: jax.random.normal(keys[i + 1], x.shape) for i, (name, x) in enumerate(data.items())}
        state = interpolate(noise, data, level)
        out: Any = self.model.apply({"params": params}, *(state[name] for name in flow.GROUPS), level)
        predicted, logits = out
        present = core[..., :1] > 0
        there = jnp.where(present, 1.0, 0.02)
        emphasis = jnp.asarray([EMPHASIS.get(name, 1.0) for name, size in vector.LAYOUT.items() for _ in range(size)])
        core_weight = jnp.concatenate([jnp.ones_like(there), jnp.repeat(there, vector.SIZE - 1, -1)], -1)
        core_weight = sampled["core"][..., None] * core_weight * emphasis
        wave_there = jnp.concatenate([present[:, 0], jnp.ones_like(present[:, 0, :1])], 1)
        terms = {
            "text": _mean(_cross_entropy(logits, tokens), sampled["text"] * jnp.where(tokens == PAD, 0.1, 1.0)),
            "core": _mean(jnp.square(predicted["core"] - core), core_weight),
            "style": _mean(jnp.square(predicted["style"] - batch["style"]), sampled["style"][..., None] * wave_there),
        }
        return sum(w * terms[name] for w, name in zip(self.weights, flow.GROUPS, strict=True)), terms  # type: ignore[return-value]

    def _levels(self, key: Key, known: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Level of every token, and 1 where it is sampled and its data known."""
        keys = jax.random.split(key, 6)
        rows = known["text"].shape[0]
        starts, stops = [], []
        for i, (name, _) in enumerate(self.tasks):
            task = flow.TASKS[name]
            part_keys = jax.random.split(jax.random.fold_in(keys[0], i), rows)
            parts = jax.vmap(lambda k, t=task: flow.random_part(k, t.part, self.ticks, self.waves, self.model.tick_patch))(
                part_keys
            )
            starts.append(flow.start_levels(task, parts, self.text_length, self.waves + 1))
            stops.append(flow.end_levels(task, starts[-1]))
        choice = jax.random.choice(keys[1], len(self.tasks), (rows,), p=jnp.asarray([share for _, share in self.tasks]))
        start, stop = (jax.tree.map(lambda *x: jnp.stack(x)[choice, jnp.arange(rows)], *side) for side in (starts, stops))
        progress = self.levels.sample(keys[2], (rows,))
        free = jax.random.bernoulli(keys[3], self.cube, (rows,))
        own = dict(zip(flow.GROUPS, jax.random.uniform(keys[4], (3, rows)), strict=True))
        level, sampled = {}, {}
        for name in flow.GROUPS:
            wide = (rows,) + (1,) * (start[name].ndim - 1)
            path = start[name] + progress.reshape(wide) * (stop[name] - start[name])
            have = known[name].astype(jnp.float32).reshape(wide)
            level[name] = jnp.where(free.reshape(wide), own[name].reshape(wide), path) * have
            sampled[name] = jnp.where(free.reshape(wide), 1.0, stop[name] - start[name]) * have
        return level, sampled


def _mean(error: Array, weight: Array) -> Array:
    weight = jnp.broadcast_to(weight, error.shape)
    return jnp.sum(error * weight) / (jnp.sum(weight) + 1.0)


def _cross_entropy(logits: Float[Array, "B L V"], tokens: Int[Array, "B L"]) -> Float[Array, "B L"]:
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), tokens[..., None], -1)[..., 0]
