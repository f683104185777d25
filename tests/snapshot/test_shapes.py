"""The shape table: typical exponents lie in the drawn ranges, and every class that a wave can have is in the table."""

import numpy as np

from wsm_jax.core.superquadric import EXPONENT_RANGE
from wsm_jax.snapshot import SEMANTIC_CLASSES
from wsm_jax.snapshot.shapes import EXPONENTS, SHAPES


def test_typical_exponents_lie_in_the_drawn_ranges():
    for shape in SHAPES.values():
        for typical, (low, high) in zip(shape.exponents, (shape.e1, shape.e2), strict=True):
            assert low <= typical <= high


def test_every_semantic_class_but_nothing_has_exponents_in_range():
    assert tuple(EXPONENTS) == SEMANTIC_CLASSES[1:]
    low, high = EXPONENT_RANGE
    values = np.asarray(list(EXPONENTS.values()))
    assert np.all((values >= low) & (values <= high))
