"""Experiments and their stages, optimizers, the pure training step, and the one loop that runs it."""

from wsm_jax.training.experiment import Experiment
from wsm_jax.training.loop import Hook, Preempted, train
from wsm_jax.training.optimizer import AdamW, Constant, Cosine, WarmupStableDecay
from wsm_jax.training.stage import Batches, Context, Data, Evaluator, Objective, Optimizer, Stage
from wsm_jax.training.step import TrainState, init_state, make_train_step, state_shardings
from wsm_jax.training.validation import Validation

__all__ = [
    "AdamW",
    "Batches",
    "Constant",
    "Context",
    "Cosine",
    "Data",
    "Evaluator",
    "Experiment",
    "Hook",
    "Objective",
    "Optimizer",
    "Preempted",
    "Stage",
    "TrainState",
    "Validation",
    "WarmupStableDecay",
    "init_state",
    "make_train_step",
    "state_shardings",
    "train",
]
