"""The shapes that objects have, and the exponents (e1, e2) that stand for each semantic class."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Shape:
    """One shape that simulations draw and texts name."""

    exponents: tuple[float, float]
    """(e1, e2) of a typical object."""
    axes: tuple[float, float, float]
    """Semi-axes over the radius."""
    e1: tuple[float, float]
    """Range of e1 in simulations."""
    e2: tuple[float, float]
    """Range of e2 in simulations."""


SHAPES: dict[str, Shape] = {
    #                exponents     axes               e1            e2
    "ball": Shape((1.0, 1.0), (1.0, 1.0, 1.0), (1.0, 1.0), (1.0, 1.0)),
    "box": Shape((0.18, 0.18), (0.92, 0.92, 0.92), (0.1, 0.25), (0.1, 0.25)),
    "cylinder": Shape((0.15, 1.0), (0.9, 0.9, 1.05), (0.13, 0.17), (1.0, 1.0)),
    "cushion": Shape((0.68, 0.68), (1.15, 1.15, 0.62), (0.6, 0.75), (0.6, 0.75)),
}
"""Name -> row; the names are semantic classes."""

EXPONENTS: dict[str, tuple[float, float]] = {
    "floor": (0.1, 0.1),
    "screen": (0.1, 0.1),
    **{name: shape.exponents for name, shape in SHAPES.items()},
    "thing": (0.7, 0.7),
}
"""Semantic class -> (e1, e2)."""

FLOOR_HALF_M = (6.0, 6.0, 0.25)
"""Semi-axes of the floor, m; its top is z = 0."""
