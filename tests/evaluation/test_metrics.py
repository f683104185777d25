"""Measures against closed forms."""

import numpy as np
import pytest

from wsm_jax.evaluation.metrics import (
    PSNR_LIMIT_DB,
    attribute_hits,
    attributes,
    colour_name,
    psnr,
    recover,
    shape_name,
)
from wsm_jax.snapshot import Waves
from wsm_jax.snapshot.shapes import SHAPES
from wsm_jax.snapshot.waves import COLOURS, empty

BALL, BOX = ("ball", "red"), ("box", "blue")


def core(*things, ticks=3) -> Waves:
    """A floor, then objects (shape, colour, centre) at rest."""
    waves = empty(1 + len(things), (ticks,))
    waves.presence[:] = 1.0
    waves.semantic[:, 0] = 1
    for slot, (shape, colour, centre) in enumerate(things, start=1):
        waves.semantic[:, slot], waves.instance[:, slot] = 3, slot
        waves.exponents[:, slot], waves.colour[:, slot] = SHAPES[shape].exponents, COLOURS[colour]
        waves.centre[:, slot] = centre
    return waves


@pytest.mark.parametrize(("error", "db"), [(1.0, 0.0), (0.1, 20.0), (0.01, 40.0), (0.0, PSNR_LIMIT_DB)])
def test_psnr_of_a_constant_error(error, db):
    picture = np.random.default_rng(0).random((4, 5, 3))
    assert psnr(picture, picture + error) == pytest.approx(db, abs=1e-6)


def test_names_are_those_of_the_nearest():
    for name, shape in SHAPES.items():
        assert shape_name(np.float32(shape.exponents) + 0.03) == name
    for name, colour in COLOURS.items():
        assert colour_name(np.float32(colour) - 0.05) == name


def test_attributes_are_read_off_objects_alone():
    seen = core((*BALL, (0, 0, 1)), (*BOX, (1, 0, 1)))
    assert attributes(seen) == [BALL, BOX]
    seen.presence[1, 1] = 0.4  # gone at the middle tick
    assert attributes(seen) == [BOX]


@pytest.mark.parametrize(
    ("wanted", "found", "share"),
    [
        ([BALL], [BALL], 1.0),
        ([BALL, BOX], [BOX, BALL], 1.0),
        ([BALL, BOX], [BALL], 0.5),
        ([BALL], [BALL, BOX], 0.5),  # more than was named counts against it
        ([BALL, BALL], [BALL], 0.5),  # one serves one
        ([BALL], [("ball", "blue")], 0.0),
        ([BALL], [], 0.0),
    ],
)
def test_hits(wanted, found, share):
    assert attribute_hits(wanted, found) == share


def test_matching_finds_each_wave_once_and_the_floor_never():
    true = core((*BALL, (0, 0, 1)), (*BOX, (2, 0, 1)))
    moved = core((*BOX, (2, 0.3, 1)), (*BALL, (0.4, 0, 1)))
    found = recover(true, moved, gate_m=1.0)
    assert (found.matched, found.found, found.true, found.f1) == (2, 2, 2, 1.0)
    np.testing.assert_allclose(sorted(found.centre_error_m), [0.3] * 3 + [0.4] * 3, rtol=1e-6)
    near = recover(true, moved, gate_m=0.35)
    assert (near.matched, near.f1) == (1, 0.5)
    assert recover(true, core(), gate_m=1.0).f1 == 0.0
    one = recover(true, core((*BALL, (0, 0, 1))), gate_m=1.0)
    assert one.f1 == pytest.approx(2 / 3)
