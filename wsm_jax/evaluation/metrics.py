"""Measures of a world, all from ground truth: pictures, waves, and the objects that words name."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

from wsm_jax.snapshot import SEMANTIC_CLASSES, Waves
from wsm_jax.snapshot.shapes import SHAPES
from wsm_jax.snapshot.waves import COLOURS
from wsm_jax.typing import Float, NpOrJax

OBJECT = SEMANTIC_CLASSES.index("ball")
PSNR_LIMIT_DB = 99.0
"""Reported for equal pictures, whose PSNR is infinite."""


def psnr(a: Float[NpOrJax, "..."], b: Float[NpOrJax, "..."]) -> float:
    """Peak signal-to-noise ratio of pictures in 0..1, dB: -10 log10 mean (a - b)^2, at most PSNR_LIMIT_DB."""
    error = float(np.mean(np.square(np.asarray(a, np.float64) - np.asarray(b, np.float64))))
    return min(PSNR_LIMIT_DB, -10.0 * np.log10(max(error, 1e-30)))


def shape_name(exponents: Float[NpOrJax, "2"]) -> str:
    """The shape whose exponents are nearest: geometry, not the class label, decides what an object is."""
    table = np.asarray([shape.exponents for shape in SHAPES.values()])
    return list(SHAPES)[int(np.argmin(np.linalg.norm(table - np.asarray(exponents), axis=1)))]


def colour_name(colour: Float[NpOrJax, "3"]) -> str:
    """The nearest named colour, in sRGB."""
    table = np.asarray(list(COLOURS.values()))
    return list(COLOURS)[int(np.argmin(np.linalg.norm(table - np.asarray(colour), axis=1)))]


def attributes(core: Waves) -> list[tuple[str, str]]:
    """(shape, colour) of every object of a core [K N], read off exponents and colour at the middle tick."""
    state = core[core.presence.shape[0] // 2]
    slots = np.flatnonzero((np.asarray(state.presence) >= 0.5) & (np.asarray(state.semantic) >= OBJECT))
    return [(shape_name(state.exponents[i]), colour_name(state.colour[i])) for i in slots]


def attribute_hits(wanted: Sequence[tuple[str, str]], found: Sequence[tuple[str, str]]) -> float:
    """Share of the wanted (shape, colour) pairs that are found, one found object serving one wanted; surplus finds count
    against it: hits / max(number wanted, number found)."""
    left = list(found)
    hits = 0
    for pair in wanted:
        if pair in left:
            left.remove(pair)
            hits += 1
    return hits / max(len(wanted), len(found), 1)


@dataclasses.dataclass(frozen=True)
class Recovery:
    """Comparison of a perceived core with the true one."""

    centre_error_m: tuple[float, ...]
    """Distance of every matched pair at every tick, m."""
    matched: int
    found: int
    true: int

    @property
    def f1(self) -> float:
        """2 matched / (found + true)."""
        return 2 * self.matched / max(self.found + self.true, 1)


def recover(true: Waves, found: Waves, gate_m: float) -> Recovery:
    """Matches waves of objects and screens (not the floor) by mean distance over the ticks (Hungarian; farther than `gate_m`
    is no match)."""
    ticks = min(true.presence.shape[0], found.presence.shape[0])
    slots = [
        np.flatnonzero((np.asarray(core.presence)[0] >= 0.5) & (np.asarray(core.semantic)[0] >= OBJECT - 1))
        for core in (true, found)
    ]
    centres = [np.asarray(core.centre)[:ticks, chosen] for core, chosen in zip((true, found), slots, strict=True)]
    distance = np.linalg.norm(centres[0][:, :, None] - centres[1][:, None], axis=-1)
    cost = np.where(distance.mean(0) <= gate_m, distance.mean(0), 1e6)
    rows, columns = linear_sum_assignment(cost)
    pairs = [(i, j) for i, j in zip(rows, columns, strict=True) if cost[i, j] < 1e6]
    errors = tuple(float(e) for i, j in pairs for e in distance[:, i, j])
    return Recovery(errors, len(pairs), len(slots[1]), len(slots[0]))
