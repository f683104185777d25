"""Optimizers and learning-rate schedules: frozen dataclasses that an experiment names."""

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import numpy as np
import optax

from wsm_jax.typing import PyTree


@runtime_checkable
class Schedule(Protocol):
    """Shape of the learning rate after its warm-up."""

    def after_warmup(self, peak: float, steps: int, rest: int) -> optax.Schedule:
        """Rate by step, from the end of the warm-up on; `rest` of all `steps` are left."""
        ...


@dataclasses.dataclass(frozen=True)
class Constant:
    """rate = peak."""

    def after_warmup(self, peak: float, steps: int, rest: int) -> optax.Schedule:
        """The peak for ever."""
        return optax.constant_schedule(peak)


@dataclasses.dataclass(frozen=True)
class Cosine:
    """rate = peak (1 + cos(pi t)) / 2, t from 0 to 1 over the steps after the warm-up."""

    def after_warmup(self, peak: float, steps: int, rest: int) -> optax.Schedule:
        """Half a period of a cosine."""
        return optax.cosine_decay_schedule(peak, rest)


@dataclasses.dataclass(frozen=True)
class WarmupStableDecay:
    """rate = peak, then linearly to 0 over the last fraction `decay` of all steps.

    Raises ValueError for a decay outside (0, 1].
    """

    decay: float = 0.2

    def __post_init__(self) -> None:
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay = {self.decay}: needed a fraction of the steps in (0, 1]")

    def after_warmup(self, peak: float, steps: int, rest: int) -> optax.Schedule:
        """A plateau, then a line to 0."""
        decay = min(rest, max(1, round(self.decay * steps)))
        return optax.linear_schedule(peak, 0.0, decay, transition_begin=rest - decay)


def learning_rate(schedule: Schedule, peak: float, warmup: int, steps: int) -> optax.Schedule:
    """Learning rate by step: a line from peak / warmup to peak over `warmup` steps, then the schedule.

    Raises ValueError for a warm-up that does not end before `steps`.
    """
    if not 0 <= warmup < steps:
        raise ValueError(f"warmup {warmup} must lie in 0..{steps - 1} (steps = {steps})")
    after = schedule.after_warmup(peak, steps, steps - warmup)
    if warmup == 0:
        return after
    return optax.join_schedules([optax.linear_schedule(peak / warmup, peak, max(1, warmup - 1)), after], [warmup])


def decayed(params: PyTree) -> PyTree:
    """True for the parameters that weight decay applies to: those with two axes or more (no biases, scales, norms)."""
    return jax.tree.map(lambda p: np.ndim(p) >= 2, params)


@dataclasses.dataclass(frozen=True)
class AdamW:
    """Clip the gradient to global norm `clip`, then Adam with decoupled weight decay (Loshchilov and Hutter 2019).

    Weight decay is multiplied by the learning rate and applies to `decayed` parameters. Raises ValueError for a clip, a peak
    or a warm-up that makes no sense.
    """

    peak: float
    """Highest learning rate."""
    warmup: int
    """Steps of linear warm-up."""
    schedule: Schedule
    weight_decay: float
    clip: float
    """Largest norm of the gradient."""
    b1: float = 0.9
    b2: float = 0.999

    def __post_init__(self) -> None:
        for name in ("clip", "peak"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)}: needed more than 0")
        if self.warmup < 0:
            raise ValueError(f"warmup = {self.warmup}: needed 0 or more")

    def transformation(self, steps: int) -> optax.GradientTransformation:
        """The optimizer of a training of `steps` updates."""
        rate = learning_rate(self.schedule, self.peak, self.warmup, steps)
        return optax.chain(
            optax.clip_by_global_norm(self.clip),
            optax.adamw(rate, b1=self.b1, b2=self.b2, weight_decay=self.weight_decay, mask=decayed),
        )
