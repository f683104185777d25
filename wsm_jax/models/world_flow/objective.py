"""The training objective of the world flow: points on the paths of its tasks, one task per row."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.core import meta

from wsm_jax.core import vector
from wsm_jax.flow import LevelMix, interpolate
from wsm_jax.layers.flops import training_flops
from wsm_jax.models.world_flow import tasks as flow
from wsm_jax.models.world_flow.network import WorldFlow
from wsm_jax.models.world_flow.state import GROUPS, WorldLayout
from wsm_jax.snapshot import Waves
from wsm_jax.text import PAD, codebook
from wsm_jax.typing import Array, Key, PyTree


@dataclasses.dataclass(frozen=True)
class WorldObjective:
    """Trains the world flow on batches {"tokens", "core", "latents", "known"}.

    Raises ValueError for unknown tasks or fields, and shares that do not sum to 1.
    """

    model: WorldFlow
    tasks: tuple[tuple[str, float], ...]
    """(name of a row of `flow.world.TASKS`, share); the shares sum to 1."""
    levels: LevelMix
    cube: float
    """Share of rows whose groups are at independent levels instead of on the path of a task."""
    weights: tuple[float, float, float]
    """Weights of the losses of text (cross entropy, nats), core and style (mean squared error)."""
    field_weights: Mapping[str, float]
    """Loss weight of fields of a wave, 1 where none is given: in a plain mean the three numbers of a colour count little."""
    absent_weight: float = 0.02
    """Loss weight of the fields of a wave that is not present."""
    pad_weight: float = 0.1
    """Loss weight of padding in the text."""

    def __post_init__(self) -> None:
        unknown = [name for name, _ in self.tasks if name not in flow.TASKS]
        if unknown:
            raise ValueError(f"tasks {unknown}; the tasks are {', '.join(sorted(flow.TASKS))}")
        total = sum(share for _, share in self.tasks)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"tasks: the shares sum to {total}; needed 1")
        unknown = sorted(set(self.field_weights) - set(vector.LAYOUT))
        if unknown:
            raise ValueError(f"field_weights of {unknown}; the fields are {', '.join(vector.LAYOUT)}")

    @property
    def layout(self) -> WorldLayout:
        """Sizes of the groups."""
        return self.model.layout

    @property
    def tokens(self) -> int:
        """Tokens of a window."""
        return self.layout.tokens

    def batch(self, rows: int) -> PyTree:
        """Tokens, core, style codes as latents, and what is known of them."""
        return self.layout.batch(rows)

    def flops(self, rows: int) -> int:
        """Model FLOPs of a training step."""
        key = jax.random.key(0)
        params = jax.eval_shape(lambda: meta.unbox(self.init(key)))
        return training_flops(lambda p, b: self.loss(p, b, key, {})[0], params, self.batch(rows))

    def init(self, key: Key) -> PyTree:
        """Parameters in Linen's boxes of logical axes."""
        shapes = self.layout.shapes(1)
        state = {name: jnp.zeros(shape) for name, shape in shapes.items()}
        levels = {name: jnp.zeros(shape[:-1]) for name, shape in shapes.items()}
        return self.model.init(key, *(state[name] for name in GROUPS), levels)["params"]

    def loss(self, params: PyTree, batch: PyTree, key: Key, frozen: Mapping[str, PyTree]) -> tuple[Array, dict[str, Array]]:
        """Weighted sum of the errors of the predicted data ends, over the tokens that are sampled."""
        keys = jax.random.split(key, 5)
        tokens = batch["tokens"]
        core = vector.to_vector(Waves(**batch["core"]))
        codes = jnp.asarray(codebook(self.layout.text.size, self.layout.text_code))
        data = {"text": codes[tokens], "core": core, "style": batch["latents"]["style"]}
        level, sampled = self._levels(keys[0], batch["known"])
        noise = {name: jax.random.normal(keys[i + 1], x.shape) for i, (name, x) in enumerate(data.items())}
        state = interpolate(noise, data, level)
        out: Any = self.model.apply({"params": params}, *(state[name] for name in GROUPS), level)
        predicted, logits = out
        present = core[..., :1] > 0
        there = jnp.where(present, 1.0, self.absent_weight)
        emphasis = jnp.asarray([self.field_weights.get(name, 1.0) for name, size in vector.LAYOUT.items() for _ in range(size)])
        core_weight = jnp.concatenate([jnp.ones_like(there), jnp.repeat(there, vector.SIZE - 1, -1)], -1)
        core_weight = sampled["core"][..., None] * core_weight * emphasis
        wave_there = jnp.concatenate([present[:, 0], jnp.ones_like(present[:, 0, :1])], 1)
        text_weight = sampled["text"] * jnp.where(tokens == PAD, self.pad_weight, 1.0)
        terms = {
            "text": _mean(optax.softmax_cross_entropy_with_integer_labels(logits, tokens), text_weight),
            "core": _mean(jnp.square(predicted["core"] - core), core_weight),
            "style": _mean(jnp.square(predicted["style"] - data["style"]), sampled["style"][..., None] * wave_there),
        }
        return sum(w * terms[name] for w, name in zip(self.weights, GROUPS, strict=True)), terms  # type: ignore[return-value]

    def _levels(self, key: Key, known: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Level of every token, and 1 where it is sampled and its data known."""
        keys = jax.random.split(key, 6)
        rows = known["text"].shape[0]
        starts, stops = [], []
        for i, (name, _) in enumerate(self.tasks):
            task = flow.TASKS[name]
            part_keys = jax.random.split(jax.random.fold_in(keys[0], i), rows)
            sizes = self.layout.ticks, self.layout.waves, self.layout.tick_patch
            parts = jax.vmap(lambda k, t=task, n=sizes: flow.random_part(k, t.part, *n))(part_keys)
            starts.append(flow.start_levels(task, parts, self.layout.text.length, self.layout.waves + 1))
            stops.append(flow.end_levels(task, starts[-1]))
        choice = jax.random.choice(keys[1], len(self.tasks), (rows,), p=jnp.asarray([share for _, share in self.tasks]))
        start, stop = (jax.tree.map(lambda *x: jnp.stack(x)[choice, jnp.arange(rows)], *side) for side in (starts, stops))
        progress = self.levels.sample(keys[2], (rows,))
        free = jax.random.bernoulli(keys[3], self.cube, (rows,))
        own = dict(zip(GROUPS, jax.random.uniform(keys[4], (3, rows)), strict=True))
        level, sampled = {}, {}
        for name in GROUPS:
            wide = (rows,) + (1,) * (start[name].ndim - 1)
            path = start[name] + progress.reshape(wide) * (stop[name] - start[name])
            have = known[name].astype(jnp.float32).reshape(wide)
            level[name] = jnp.where(free.reshape(wide), own[name].reshape(wide), path) * have
            sampled[name] = jnp.where(free.reshape(wide), 1.0, stop[name] - start[name]) * have
        return level, sampled


def _mean(error: Array, weight: Array) -> Array:
    weight = jnp.broadcast_to(weight, error.shape)
    return jnp.sum(error * weight) / (jnp.sum(weight) + 1.0)
