"""Optimizers and learning-rate schedules, from explicit arguments."""

import jax
import numpy as np
import optax

from wsm_jax.typing import PyTree

SCHEDULES = ("constant", "cosine", "wsd")
WSD_DECAY_FRACTION = 0.2
"""Last part of a "wsd" schedule, in which the rate falls linearly to zero."""


def make_schedule(name: str, peak: float, warmup: int, steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up from peak/warmup over `warmup` steps, then one of

        constant   peak
        cosine     peak (1 + cos(pi t)) / 2,  t from 0 to 1 at `steps`
        wsd        peak, then linearly to 0 over the last 20 % of `steps` (warm-up, stable, decay)

    Raises ValueError for an unknown name or a warm-up that does not end before `steps`.
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule {name!r}: needed one of {SCHEDULES}")
    if not 0 <= warmup < steps:
        raise ValueError(f"schedule: warmup {warmup} must lie in 0..{steps - 1} (steps = {steps})")
    rest = steps - warmup
    if name == "constant":
        after = optax.constant_schedule(peak)
    elif name == "cosine":
        after = optax.cosine_decay_schedule(peak, rest)
    else:
        decay = min(rest, max(1, round(WSD_DECAY_FRACTION * steps)))
        after = optax.linear_schedule(peak, 0.0, decay, transition_begin=rest - decay)
    if warmup == 0:
        return after
    return optax.join_schedules([optax.linear_schedule(peak / warmup, peak, max(1, warmup - 1)), after], [warmup])


def decayed(params: PyTree) -> PyTree:
    """True for the parameters that weight decay applies to: those with two axes or more (no biases, scales, norms)."""
    return jax.tree.map(lambda p: np.ndim(p) >= 2, params)


def make_optimizer(
    name: str, *, peak: float, warmup: int, steps: int, schedule: str, weight_decay: float, clip: float, b2: float
) -> optax.GradientTransformation:
    """Gradient clipping to global norm `clip`, then the optimizer of that name; its only name so far is "adamw" (b1 0.9).

    Weight decay is decoupled (multiplied by the learning rate) and applies to `decayed` parameters.
    Raises ValueError for a name that is not known and for sizes that make no sense.
    """
    if name != "adamw":
        raise ValueError(f"optimizer {name!r}: needed 'adamw'")
    if not clip > 0:
        raise ValueError(f"clip {clip}: needed a positive gradient norm (float('inf') clips nothing)")
    rate = make_schedule(schedule, peak, warmup, steps)
    return optax.chain(
        optax.clip_by_global_norm(clip),
        optax.adamw(rate, b1=0.9, b2=b2, weight_decay=weight_decay, mask=decayed),
    )
