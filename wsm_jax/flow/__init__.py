"""Flows between the domains: the path of levels, and the solvers that follow it with any velocity function."""

from wsm_jax.flow.path import (
    Level,
    LevelMix,
    block_loss,
    expand,
    interpolate,
    velocity,
    velocity_from_target,
)
from wsm_jax.flow.solver import (
    EULER,
    HEUN,
    METHODS,
    MIDPOINT,
    REVERSIBLE,
    Method,
    Reversible,
    ReversibleState,
    Velocity,
    advance,
    integrate,
    invert,
)

__all__ = [
    "EULER",
    "HEUN",
    "METHODS",
    "MIDPOINT",
    "REVERSIBLE",
    "Level",
    "LevelMix",
    "Method",
    "Reversible",
    "ReversibleState",
    "Velocity",
    "advance",
    "block_loss",
    "expand",
    "integrate",
    "interpolate",
    "invert",
    "velocity",
    "velocity_from_target",
]
