"""Optimizers, the pure training step, and the one loop that runs it."""

from wsm_jax.training.loop import Batches, Hook, Preempted, train
from wsm_jax.training.optimizer import make_optimizer, make_schedule
from wsm_jax.training.step import Objective, TrainState, init_state, make_train_step, state_shardings

__all__ = [
    "Batches",
    "Hook",
    "Objective",
    "Preempted",
    "TrainState",
    "init_state",
    "make_optimizer",
    "make_schedule",
    "make_train_step",
    "state_shardings",
    "train",
]
