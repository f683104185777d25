"""Changes of a world other than its motion: interventions, and events that break, merge, add or remove waves.

A change is a pure function of the world at a tick, (waves [N], matter) -> (waves, matter): `play` applies it at its tick, and
`dynamics.step` simulates the rest. Slots that a change does not name keep their bits, and a step has no influence between waves
that do not interact, so everything that is not downstream of a change stays bitwise the same.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from wsm_jax.core.geometry import Geometry, inertia
from wsm_jax.core.physics.dynamics import GRAVITY_M_S2, SUBSTEPS, joint_gap, step
from wsm_jax.core.physics.matter import Joints, Matter, checked_world
from wsm_jax.core.superquadric import EXPONENT_RANGE
from wsm_jax.snapshot import FIELDS, TICK_HZ, Waves
from wsm_jax.snapshot.waves import stack
from wsm_jax.typing import NpOrJax

TORN_M = 0.01
"""Maximum gap of a joint after a step, m."""

JOINT_BREAKING = ("breaks", "merges", "vanishes")
"""Kinds of changes that end the joints of their waves."""

VectorLike = Sequence[float | int] | NpOrJax


@dataclasses.dataclass(frozen=True)
class Change:
    """A change of the world at a tick: its kind, slots, function and impulse."""

    kind: str
    """"breaks", "merges", "appears", "vanishes", "is pushed", "is put", "is held" or "is let go"."""
    slots: tuple[int, ...]
    """Affected waves."""
    apply: Callable[[Waves, Matter], tuple[Waves, Matter]]
    """World before -> world after the change; raises ValueError if the change is impossible."""
    impulse: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """N s, world."""


def play(
    waves: Waves,
    matter: Matter,
    joints: Joints | None = None,
    *,
    ticks: int,
    changes: Mapping[int, Sequence[Change]] | None = None,
    tick_s: float = 1.0 / TICK_HZ,
    substeps: int = SUBSTEPS,
    gravity: tuple[float, float, float] = GRAVITY_M_S2,
) -> tuple[Waves, tuple[dict[str, Any], ...], Matter]:
    """Simulate `ticks` ticks with changes at ticks 0 .. `ticks`: waves [K+1 N ...] (NumPy), events, and final matter.

    A tick is recorded after its changes. A joint ends when one of its waves breaks, merges or vanishes. An event is
    {"kind", "time" (s), "place" (m), "impulse" (N s), "instances"}. Raises ValueError for a tick out of range, as `step` and
    the changes do, and if a step tears a joint because it has too few substeps.
    """
    changes = {} if changes is None else changes
    if ticks < 0:
        raise ValueError(f"play: ticks={ticks}; needed 0 or more")
    tied = checked_world(waves, matter, joints, "play")
    outside = [k for k in changes if not 0 <= k <= ticks]
    if outside:
        raise ValueError(f"play: changes at ticks {outside}; needed 0 to {ticks}")
    record, events = [], []
    for k in range(ticks + 1):
        if k > 0:
            gap_before = float(joint_gap(waves, matter, tied))
            waves = step(waves, matter, tied, tick_s=tick_s, substeps=substeps, gravity=gravity)
            _check_step(waves, matter, tied, gap_before, k, substeps)
        for change in changes.get(k, ()):
            before = waves
            waves, matter = change.apply(waves, matter)
            if change.kind in JOINT_BREAKING:
                ended = np.isin(tied.a, change.slots) | np.isin(tied.b, change.slots)
                tied = tied.replace(holds=np.where(ended[:, None], 0.0, tied.holds))  # type: ignore[attr-defined]
            events.append(_event(change, k * tick_s, waves if change.kind == "appears" else before))
        record.append(waves)
    return stack(record), tuple(events), matter


def _check_step(waves: Waves, matter: Matter, joints: Joints, gap_before: float, tick: int, substeps: int) -> None:
    """Raises ValueError where the step to a tick left numbers that are none, or opened a joint wider than `gap_before` (m)."""
    gap = float(joint_gap(waves, matter, joints))
    moving = np.asarray(waves.presence) > 0.5
    finite = all(np.isfinite(np.asarray(getattr(waves, name))[moving]).all() for name in ("centre", "velocity"))
    if not finite or not gap <= max(gap_before, TORN_M):
        what = f"a joint is {gap:.3g} m apart" if finite else "a position is not finite"
        raise ValueError(
            f"play: {what} at tick {tick}: substeps={substeps} do not follow these masses and joints; needed more, say "
            f"{4 * substeps}, or a lighter load"
        )


def _event(change: Change, time: float, waves: Waves) -> dict[str, Any]:
    """The event record of a change."""
    slots = list(change.slots)
    place = np.asarray(waves.centre, np.float64)[slots].mean(0)
    instances = list(dict.fromkeys(int(i) for i in np.asarray(waves.instance)[slots]))
    values = {"place": [round(float(x), 6) for x in place], "impulse": [float(x) for x in change.impulse]}
    return {"kind": change.kind, "time": time, **values, "instances": instances}


_RANGES = {"scale": (1e-6, 1e6), "exponents": EXPONENT_RANGE, "presence": (0.0, 1.0), "colour": (0.0, 1.0)}


def push(slot: int, impulse: VectorLike, point: VectorLike | None = None) -> Change:
    """Apply an impulse (N s, world) to the part of a wave, at a world `point` (m; default: the centre of the wave)."""

    def change(waves: Waves, matter: Matter) -> tuple[Waves, Matter]:
        check_present(waves, slot, "push")
        part = np.asarray(matter.part)
        members = np.flatnonzero((part == part[slot]) & (np.asarray(waves.presence) > 0.5))
        mass, x = np.asarray(matter.mass, np.float64)[members], np.asarray(waves.centre, np.float64)[members]
        centre = (mass[:, None] * x).sum(0) / mass.sum()
        at = np.asarray(waves.centre[slot] if point is None else point, np.float64)
        velocity = np.asarray(impulse, np.float64) / mass.sum()
        spin = np.linalg.solve(inertia_about(waves, members, mass, centre), np.cross(at - centre, impulse))
        fields = fields_of(waves)
        fields["velocity"][members] += velocity + np.cross(spin, x - centre)
        fields["angular_velocity"][members] += spin
        return Waves(**fields), matter

    return Change("is pushed", (slot,), change, triple(impulse))


def put(slot: int, **values: VectorLike | float) -> Change:
    """Set fields of one wave: `centre`, `rotation`, `velocity`, `angular_velocity`, `scale`, `colour`, ... as in `Waves`.

    Its mass stays; a rotation is normalised. Raises ValueError for an unknown field, values of a wrong shape or not finite, a
    rotation of length 0, semi-axes of 0 or less, and exponents, presence or colour out of their ranges.
    """
    unknown = sorted(set(values) - set(FIELDS))
    if unknown:
        raise ValueError(f"put: fields {unknown}; needed some of {sorted(FIELDS)}")

    def change(waves: Waves, matter: Matter) -> tuple[Waves, Matter]:
        check_slot(waves, slot, "put")
        fields = fields_of(waves)
        for name, value in values.items():
            array = np.asarray(value, np.float64)
            if array.shape != fields[name][slot].shape or not np.isfinite(array).all():
                raise ValueError(f"put: {name}={value}; needed finite numbers of shape {fields[name][slot].shape}")
            low, high = _RANGES.get(name, (-np.inf, np.inf))
            if np.any(array < low) or np.any(array > high):
                raise ValueError(f"put: {name}={value}; needed {low:g} to {high:g}")
            if name == "rotation":
                if not np.linalg.norm(array) > 1e-6:
                    raise ValueError(f"put: rotation={value}; needed a quaternion (w, x, y, z) of length 1")
                array = array / np.linalg.norm(array)
            fields[name][slot] = array
        return Waves(**fields), matter

    return Change("is put", (slot,), change)


def remove(slot: int) -> Change:
    """Remove a wave: its slot is empty from this tick on. The change raises ValueError for an absent wave."""

    def change(waves: Waves, matter: Matter) -> tuple[Waves, Matter]:
        check_present(waves, slot, "remove")
        fields = fields_of(waves)
        fields["presence"][slot] = 0.0
        return Waves(**fields), matter

    return Change("vanishes", (slot,), change)


def hold(slot: int, held: bool = True) -> Change:
    """Fix the part of a wave in place; `held=False` releases it. The change raises ValueError for an absent wave."""

    def change(waves: Waves, matter: Matter) -> tuple[Waves, Matter]:
        check_present(waves, slot, "hold")
        part = np.asarray(matter.part)
        members = part == part[slot]
        fields = fields_of(waves)
        if held:
            fields["velocity"][members] = 0.0
            fields["angular_velocity"][members] = 0.0
        return Waves(**fields), matter.replace(held=np.where(members, held, matter.held))  # type: ignore[attr-defined]

    return Change("is held" if held else "is let go", (slot,), change)


def add(slot: int, wave: Waves, properties: Matter) -> Change:
    """Add a wave (row 0 of `wave` [1 ...], with row 0 of `properties`) to an empty slot, as a separate part.

    The change raises ValueError for an occupied slot.
    """

    def change(waves: Waves, matter: Matter) -> tuple[Waves, Matter]:
        check_empty(waves, slot, "add")
        fields = fields_of(waves)
        for name in FIELDS:
            fields[name][slot] = np.asarray(getattr(wave, name))[0]
        columns = columns_of(matter)
        for name, column in columns.items():
            column[slot] = np.asarray(getattr(properties, name))[0]
        separate_part(columns["part"], slot)
        return Waves(**fields), Matter(**columns)

    return Change("appears", (slot,), change)


def inertia_about(waves: Waves, slots: Any, mass: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Inertia tensor of waves about a point (world), kg m^2, float64."""
    geometry = Geometry(*(np.asarray(x)[slots] for x in vars(Geometry.of(waves)).values()))
    own = np.asarray(inertia(geometry, np.asarray(mass, np.float32)), np.float64)
    arm = np.asarray(waves.centre, np.float64)[slots] - centre
    steiner = (arm * arm).sum(-1)[:, None, None] * np.eye(3) - arm[:, :, None] * arm[:, None, :]
    return (own + np.asarray(mass)[:, None, None] * steiner).sum(0)


def fields_of(waves: Waves) -> dict[str, np.ndarray]:
    return {name: np.array(getattr(waves, name)) for name in FIELDS}


def columns_of(matter: Matter) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in vars(matter).items()}


def separate_part(part: np.ndarray, slot: int) -> None:
    """Make a wave a separate part, in place; other waves of the part with its number get the number of the first of them."""
    part[slot] = -1
    others = np.flatnonzero(part == slot)
    part[others] = others[0] if len(others) else slot
    part[slot] = slot


def triple(values: VectorLike) -> tuple[float, float, float]:
    """Convert an impulse to three finite floats. Raises ValueError for anything else."""
    x = np.asarray(values, np.float64)
    if x.shape != (3,) or not np.isfinite(x).all():
        raise ValueError(f"change: impulse {values}; needed three finite numbers (N s)")
    return float(x[0]), float(x[1]), float(x[2])


def check_slot(waves: Waves, slot: int, what: str) -> None:
    """Raises ValueError, naming `what`, for a slot that the state does not have."""
    if not 0 <= slot < waves.count:
        raise ValueError(f"{what}: slot {slot}; the core has slots 0 to {waves.count - 1}")


def check_present(waves: Waves, slot: int, what: str) -> None:
    """Raises ValueError, naming `what`, for a slot that holds no wave at this tick."""
    check_slot(waves, slot, what)
    if not waves.presence[slot] > 0.5:
        raise ValueError(f"{what}: no wave in slot {slot} at this tick")


def check_empty(waves: Waves, slot: int, what: str) -> None:
    """Raises ValueError, naming `what`, for a slot that holds a wave at this tick."""
    check_slot(waves, slot, what)
    if waves.presence[slot] > 0.5:
        raise ValueError(f"{what}: slot {slot} is taken; needed an empty one")
