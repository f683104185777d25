"""Text edits of a core: SLOT.FIELD=VALUE, at all ticks.     2.colour=0.1,0.2,0.9   2.color=blue   1.semantic=box

Setting the centre of a wave sets its velocity to 0, and setting its rotation its angular velocity, unless these are set too.
"""

from collections.abc import Sequence

import numpy as np

from wsm_jax.snapshot import FIELDS, SEMANTIC_CLASSES, Waves
from wsm_jax.snapshot.waves import COLOURS

RANGES: dict[str, tuple[float, float]] = {
    "presence": (0.0, 1.0),
    "scale": (1e-3, 1e3),
    "exponents": (0.1, 1.9),
    "colour": (0.0, 1.0),
    "material": (0.0, 1.0),
    "semantic": (0, len(SEMANTIC_CLASSES) - 1),
    "instance": (0, 65535),
}
"""Field -> minimum and maximum of a component; other fields accept any finite number."""
LABELS = ("semantic", "instance")
SPELLINGS = {"color": "colour", "center": "centre"}
"""American spelling of a field -> its name."""
VELOCITY_OF = {"centre": "velocity", "rotation": "angular_velocity"}
"""Pose field -> velocity field that becomes 0 when the pose is set."""

Edit = tuple[int, str, np.ndarray]
"""(slot, field, components)."""


def parse(texts: Sequence[str]) -> list[Edit]:
    """["2.colour=0.1,0.2,0.9"] -> [(2, "colour", [0.1 0.2 0.9])]. Raises ValueError for a bad edit."""
    return [_parse(text) for text in texts]


def _parse(text: str) -> Edit:
    target, equals, value = text.partition("=")
    slot, dot, field = target.partition(".")
    if not equals or not dot or not slot.isdecimal():
        raise ValueError(f"{text}; needed SLOT.FIELD=VALUE, as 2.colour=0.1,0.2,0.9")
    field = SPELLINGS.get(field, field)
    if field not in FIELDS:
        raise ValueError(f"{text}: unknown field {field!r}; the fields are {', '.join(FIELDS)}")
    count = max(FIELDS[field], 1)
    try:
        numbers = np.asarray(_named(field, value) or [float(part) for part in value.split(",")])
    except ValueError as error:
        raise ValueError(f"{text}: {error}; needed {count} number{'s' * (count > 1)}") from error
    low, high = RANGES.get(field, (-np.inf, np.inf))
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise ValueError(f"{text}: got {value}; {field} needs {count} finite number{'s' * (count > 1)}, separated by commas")
    if np.any(numbers < low) or np.any(numbers > high):
        raise ValueError(f"{text}: got {value}; {field} lies in {low:g}..{high:g}")
    if field in LABELS and np.any(numbers != np.rint(numbers)):
        raise ValueError(f"{text}: got {value}; {field} is an integer")
    if field == "rotation":
        if not np.linalg.norm(numbers) > 1e-6:
            raise ValueError(f"{text}: a quaternion of length 0; 1,0,0,0 is no rotation")
        numbers = numbers / np.linalg.norm(numbers)
    return int(slot), field, numbers


def _named(field: str, value: str) -> Sequence[float] | None:
    """Numbers of a named colour or class; None for other values."""
    if field == "colour" and value in COLOURS:
        return COLOURS[value]
    return [float(SEMANTIC_CLASSES.index(value))] if field == "semantic" and value in SEMANTIC_CLASSES else None


def apply(core: Waves, edits: Sequence[Edit], source: str) -> Waves:
    """Apply edits to a core, in order. Raises ValueError, naming `source`, for a slot out of range."""
    fields = {name: np.array(getattr(core, name)) for name in FIELDS}
    edited = {(slot, name) for slot, name, _ in edits}
    for slot, name, numbers in edits:
        if slot >= core.count:
            raise ValueError(f"{slot}.{name}: {source} has the slots 0..{core.count - 1}")
        if FIELDS[name]:
            fields[name][..., slot, :] = numbers
        else:
            fields[name][..., slot] = numbers[0]
        follower = VELOCITY_OF.get(name)
        if follower is not None and (slot, follower) not in edited:
            fields[follower][..., slot, :] = 0.0
    return Waves(**fields)
