"""Flows between the domains: the path of levels and the solvers that walk it. Knows no network: it takes a velocity function."""

from wsm_jax.flow.path import (
    FLOOR,
    Level,
    LevelMix,
    block_loss,
    expand,
    interpolate,
    shift,
    source_from_velocity,
    target_from_velocity,
    velocity,
    velocity_from_source,
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
    trajectory,
    walk,
)

__all__ = [
    *("EULER", "FLOOR", "HEUN", "METHODS", "MIDPOINT", "REVERSIBLE", "Level", "LevelMix", "Method", "Reversible"),
    *("ReversibleState", "Velocity", "advance", "block_loss", "expand", "integrate", "interpolate", "invert", "shift"),
    *("source_from_velocity", "target_from_velocity", "trajectory", "velocity", "velocity_from_source"),
    *("velocity_from_target", "walk"),
]
