"""A stage of an experiment, and the protocols of its parts: what a model family brings to be trained."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import optax

from wsm_jax.runtime.metrics import LoggedVideo
from wsm_jax.typing import Array, Float, Key, PyTree


@runtime_checkable
class Objective(Protocol):
    """Parameters and loss of a model. `init` and `loss` are pure and traceable."""

    def init(self, key: Key) -> PyTree:
        """Parameters, each in Linen's box of logical axis names."""
        ...

    def loss(
        self, params: PyTree, batch: PyTree, key: Key, frozen: Mapping[str, PyTree]
    ) -> tuple[Float[Array, ""], Mapping[str, Float[Array, ""]]]:
        """Mean loss over the batch, and scalars to log; `params` and `frozen` (the weights of earlier stages) have no boxes."""
        ...

    def batch(self, rows: int) -> PyTree:
        """The batch that `loss` reads, as jax.ShapeDtypeStructs with leading axis `rows`."""
        ...

    @property
    def tokens(self) -> int:
        """Tokens of a row in the network's attention; they must divide over the mesh axis "context"."""
        ...

    def flops(self, rows: int) -> int:
        """Model FLOPs of a training step on `rows` rows."""
        ...


@runtime_checkable
class Batches(Protocol):
    """Endless batches of this host: trees of NumPy arrays [rows, ...], with a position that can be saved."""

    def __next__(self) -> PyTree: ...

    def get_state(self) -> Any:
        """The position after the batches handed out so far: JSON values, or bytes."""
        ...

    def set_state(self, state: Any) -> None:
        """Moves to a position."""
        ...


@runtime_checkable
class Data(Protocol):
    """Source of batches."""

    def datasets(self, workdir: Path) -> Sequence[Any]:
        """The datasets it reads. Raises FileNotFoundError or ValueError, naming the path, for one that is not there."""
        ...

    def spec(self, rows: int) -> PyTree:
        """A batch as jax.ShapeDtypeStructs; it may hold more than the objective reads."""
        ...

    def open(self, workdir: Path, *, rows: int, seed: int, host: int, hosts: int) -> Batches:
        """This host's part of global batches of `rows` rows."""
        ...


@runtime_checkable
class Optimizer(Protocol):
    """Makes the transformation of gradients."""

    def transformation(self, steps: int) -> optax.GradientTransformation:
        """The transformation for a training of `steps` updates. Raises ValueError for steps that do not suit it."""
        ...


@dataclasses.dataclass(frozen=True)
class Context:
    """Inputs of an evaluator that runs during a training."""

    stage: str
    objective: Objective
    workdir: Path
    """Folder of the experiment; relative paths of data start there."""
    seed: int
    mesh: Any
    frozen: Mapping[str, PyTree]
    weights: Mapping[str, PyTree]
    """Averaged weights of the stages that this one needs, by their names."""


Results = Mapping[str, float | np.ndarray | LoggedVideo]
"""Name -> a number, a picture (uint8 [H W 3]) or a video."""


@runtime_checkable
class Evaluator(Protocol):
    """Measures or draws a model while it trains."""

    every: int
    """Updates between two calls; the last update is always followed by one."""

    def datasets(self, workdir: Path) -> Sequence[Any]:
        """The datasets it reads. Raises FileNotFoundError or ValueError, naming the path, for one that is not there."""
        ...

    def open(self, context: Context) -> Callable[[int, PyTree], Results]:
        """A function of (updates done, averaged weights)."""
        ...


@dataclasses.dataclass(frozen=True)
class Stage:
    """One training of an experiment. Raises ValueError for numbers that cannot work."""

    objective: Objective
    data: Data
    optimizer: Optimizer
    steps: int
    """Updates in all."""
    batch_size: int
    """Rows of a global batch."""
    ema_decay: float
    """Decay of the moving average of the weights, which inference uses."""
    checkpoint_every: int
    """Updates between two checkpoints."""
    log_every: int
    """Updates between two rows of metrics."""
    accumulate: int = 1
    """Microbatches of a batch, one after the other."""
    keep: int = 1
    """Newest checkpoints that are kept."""
    frozen: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Name in the `frozen` argument of the loss -> earlier stage whose averaged weights it is."""
    needs: tuple[str, ...] = ()
    """Further earlier stages: their latents are in the data, or evaluators use their weights."""
    encoder: Any = None
    """Makes latents of clips with the trained weights (`launch.data encode`)."""
    encode: tuple[str, ...] = ()
    """Datasets that get these latents when the stage is done; relative paths lie in the workdir."""
    evaluators: Mapping[str, Evaluator] = dataclasses.field(default_factory=dict)
    hang_seconds: float = 900.0
    """Seconds without an update after which the stacks of all threads are written to hang.log."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "checkpoint_every", "keep", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: needed 1 or more")
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size {self.batch_size} does not divide by accumulate {self.accumulate}")
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay = {self.ema_decay}: needed 0 or more, and less than 1")
        if self.encode and self.encoder is None:
            raise ValueError(f"encode = {self.encode}: needed an encoder beside it")
        self.optimizer.transformation(self.steps)

    @property
    def earlier(self) -> tuple[str, ...]:
        """Names of the stages that must be trained before this one."""
        return tuple(dict.fromkeys((*self.frozen.values(), *self.needs)))


def select(batch: PyTree, spec: PyTree) -> PyTree:
    """The arrays of a batch that stand in a spec of nested mappings: what is not read is not sent to the devices."""
    return {name: select(batch[name], part) for name, part in spec.items()} if isinstance(spec, Mapping) else batch
