"""The loss on held-out batches, while a model trains."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from wsm_jax.runtime import mesh as meshes
from wsm_jax.runtime import random
from wsm_jax.training.stage import Context, Data, Results, select
from wsm_jax.typing import Array, PyTree


@dataclasses.dataclass(frozen=True)
class Validation:
    """Mean loss of the averaged weights on the first `batches` batches of `data`, with the same random numbers every time.

    Raises ValueError for numbers below 1.
    """

    data: Data
    batches: int
    rows: int
    """Rows of a batch."""
    every: int
    """Updates between two validations."""

    def __post_init__(self) -> None:
        for name in ("batches", "rows", "every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: needed 1 or more")

    def datasets(self, workdir: Path) -> Sequence[Any]:
        """The datasets of its batches. Raises what the data raise."""
        return self.data.datasets(workdir)

    def open(self, context: Context) -> Callable[[int, PyTree], Results]:
        """Reads the batches once; the function compiles at its first call."""
        objective, spec = context.objective, context.objective.batch(self.rows)
        source = self.data.open(
            context.workdir, rows=self.rows, seed=context.seed, host=jax.process_index(), hosts=jax.process_count()
        )
        batches = [jax.tree.map(lambda _, x: np.array(x), spec, select(next(source), spec)) for _ in range(self.batches)]
        root = random.key(jax.random.key(context.seed), "validation", 0)

        @jax.jit
        def loss(params: PyTree, batch: PyTree, index: Array | int, frozen: PyTree) -> dict[str, Array]:
            with meshes.logical_axes(context.mesh):
                value, terms = objective.loss(params, batch, jax.random.fold_in(root, index), frozen)
            return {**terms, "loss": value}

        def measure(step: int, params: PyTree) -> Results:
            rows = [
                jax.device_get(loss(params, meshes.global_batch(context.mesh, batch), index, context.frozen))
                for index, batch in enumerate(batches)
            ]
            return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}

        return measure
