"""What happens to a core beside its motion: interventions, and events that break, merge, make or end waves.

A change is a function of the world at a tick, (waves [N], matter) -> (waves, matter), and nothing else: `play` makes it at the
tick that it is listed for, and `dynamics.step` does the rest. Slots that it does not name keep their bits, and since a step
lets nothing act on what it does not touch, all that is not downstream of a change stays bitwise the same.

Breaking and merging conserve mass, momentum, angular momentum and volume. Pieces i of a wave (mass M, momentum P, angular
momentum L about its centre c) have masses in proportion to their volumes, are shifted so that their common centre is c, and move
as

    v_i = P/M + (w + u) x (x_i - c) + d_i ,   w_i = w + u                                                                  (1)

with w the wave's angular velocity, d_i extra velocities from which their common mean is taken, and the one u for which the total
angular momentum is L. The interpolated core shows a change as presence that goes from one to the other between two ticks.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from wsm_jax.core import superquadric
from wsm_jax.core.dynamics import GRAVITY_M_S2, SUBSTEPS, step
from wsm_jax.core.geometry import Geometry, inertia
from wsm_jax.core.matter import Joints, Matter
from wsm_jax.snapshot import FIELDS, TICK_HZ, Waves
from wsm_jax.snapshot.waves import stack
from wsm_jax.typing import Float, NpOrJax

Vector = Sequence[float] | NpOrJax
Change = Callable[[Waves, Matter], tuple[Waves, Matter]]
"""The world at a tick -> the world after it."""


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
) -> tuple[Waves, Matter]:
    """The waves [K+1 N ...] (NumPy) over `ticks` ticks with `changes` made at ticks 0 .. `ticks`, and the matter at the end.

    A tick is recorded after its changes. Raises ValueError for a tick outside the range, and what the changes raise.
    """
    changes = {} if changes is None else changes
    outside = [k for k in changes if not 0 <= k <= ticks]
    if outside:
        raise ValueError(f"play: changes at ticks {outside}; needed 0 to {ticks}")
    record = []
    for k in range(ticks + 1):
        if k > 0:
            waves = step(waves, matter, joints, tick_s=tick_s, substeps=substeps, gravity=gravity)
        for change in changes.get(k, ()):
            waves, matter = change(waves, matter)
        record.append(waves)
    return stack(record), matter


def push(slot: int, impulse: Vector, point: Vector | None = None) -> Change:
    """An impulse (N s, world) on the part of a wave, at a world `point` (m; the centre of the wave where not given)."""

    def change(waves: Waves, matter: Matter) -> tuple[Waves, Matter]:
        _present(waves, slot, "push")
        part = np.asarray(matter.part)
        members = np.flatnonzero((part == part[slot]) & (np.asarray(waves.presence) > 0.5))
        mass, x = np.asarray(matter.mass, np.float64)[members], np.asarray(waves.centre, np.float64)[members]
        centre = (mass[:, None] * x).sum(0) / mass.sum()
        at = np.asarray(waves.centre[slot] if point is None else point, np.float64)
        velocity = np.asarray(impulse, np.float64) / mass.sum()
        spin = np.linalg.solve(_inertia(waves, members, mass, centre), np.cross(at - centre, impulse))
        fields = _fields(waves)
        fields["velocity"][members] += velocity + np.cross(spin, x - centre)
        fields["angular_velocity"][members] += spin
        return Waves(**fields), matter

    return change


def put(slot: int, **values: Vector | float) -> Change:
    """Sets fields of one wave: `centre`, `rotation`, `velocity`, `angular_velocity`, `scale`, `colour`, ... as in `Waves`.

    Its mass stays. Raises ValueError for a field that is none, or values of a wrong shape or that are not finite.
    """
    unknown = sorted(set(values) - set(FIELDS))
    if unknown:
        raise ValueError(f"put: fields {unknown}; needed some of {sorted(FIELDS)}")

    def change(waves: Waves, matter: Matter) -> tuple[Waves, Matter]:
        _slot(waves, slot, "put")
        fields = _fields(waves)
        for name, value in values.items():
            given = np.asarray(value, np.float64)
            if given.shape != fields[name][slot].shape or not np.isfinite(given).all():
                raise ValueError(f"put: {name}={value}; needed finite numbers of shape {fields[name][slot].shape}")
            fields[name][slot] = given
        return Waves(**fields), matter

    return change


def remove(slot: int) -> Change:
    """The wave is gone: its slot is empty from this tick on."""

    def change(waves: Waves, matter: Matter) -> tuple[Waves, Matter]:
        _present(waves, slot, "remove")
        fields = _fields(waves)
        fields["presence"][slot] = 0.0
        return Waves(**fields), matter

    return change


def hold(slot: int, held: bool = True) -> Change:
    """The part of a wave no longer feels forces and stands still; `held=False` lets it go."""

    def change(waves: Waves, matter: Matter) -> tuple[Waves, Matter]:
        _present(waves, slot, "hold")
        part = np.asarray(matter.part)
        members = part == part[slot]
        fields = _fields(waves)
        if held:
            fields["velocity"][members] = 0.0
            fields["angular_velocity"][members] = 0.0
        return Waves(**fields), matter.replace(held=np.where(members, held, matter.held))  # type: ignore[attr-defined]

    return change


def add(slot: int, wave: Waves, properties: Matter) -> Change:
    """A wave (row 0 of `wave` [1 ...], with row 0 of `properties`) is born in an empty slot, as a part of its own.

    Raises ValueError where the slot is taken.
    """

    def change(waves: Waves, matter: Matter) -> tuple[Waves, Matter]:
        _empty(waves, slot, "add")
        fields = _fields(waves)
        for name in FIELDS:
            fields[name][slot] = np.asarray(getattr(wave, name))[0]
        columns = _columns(matter)
        for name, column in columns.items():
            column[slot] = slot if name == "part" else np.asarray(getattr(properties, name))[0]
        return Waves(**fields), Matter(**columns)

    return change


def break_apart(
    slot: int,
    slots: Sequence[int],
    pieces: Geometry,
    *,
    apart: Float[NpOrJax, "n 3"] | None = None,
    impulse: Vector = (0.0, 0.0, 0.0),
) -> Change:
    """One wave becomes n: `pieces` [n ...], whose poses are in the frame of the wave, in the empty `slots`; see (1).

    Their sizes are scaled by one factor so that the volume is that of the wave, their places moved by one shift. `apart` [n 3]
    are the velocities d_i (m/s, world) with which they fly apart; `impulse` (N s, world) is added to the momentum, and acts at
    the centre. Colour, material, class, friction and restitution are the wave's; every piece is an object of its own, the
    first keeps the instance. Raises ValueError for a wave that is not there, one of several of its part, or a slot that is
    taken.
    """

    def change(waves: Waves, matter: Matter) -> tuple[Waves, Matter]:
        _alone(waves, matter, slot, "break_apart")
        for target in slots:
            _empty(waves, target, "break_apart")
        if len(set(slots)) != len(slots) or len(slots) != len(np.asarray(pieces.centre)) or not slots:
            raise ValueError(
                f"break_apart: {len(np.asarray(pieces.centre))} pieces for slots {list(slots)}; needed one slot each"
            )
        fields, columns = _fields(waves), _columns(matter)
        parent = {name: np.array(values[slot]) for name, values in fields.items()}
        whole = float(superquadric.volume(parent["scale"], parent["exponents"]))
        volumes = np.asarray(superquadric.volume(pieces.scale, pieces.exponents), np.float64)
        share = volumes / volumes.sum()
        matrix = _matrix(parent["rotation"])
        x = np.asarray(pieces.centre, np.float64) @ matrix.T
        x = x - share @ x
        instances = np.asarray(waves.instance)
        for i, target in enumerate(slots):
            for name in FIELDS:
                fields[name][target] = parent[name]
            fields["centre"][target] = parent["centre"] + x[i]
            fields["scale"][target] = np.asarray(pieces.scale)[i] * (whole / volumes.sum()) ** (1 / 3)
            fields["exponents"][target] = np.asarray(pieces.exponents)[i]
            fields["rotation"][target] = _product(parent["rotation"], np.asarray(pieces.rotation, np.float64)[i])
            fields["instance"][target] = parent["instance"] if i == 0 else instances.max() + i
            for name, column in columns.items():
                column[target] = target if name == "part" else column[slot]
            columns["mass"][target] = share[i] * float(np.asarray(matter.mass)[slot])
        fields["presence"][slot] = 0.0
        extra = np.zeros((len(slots), 3)) if apart is None else np.asarray(apart, np.float64)
        after = Waves(**fields)
        _move_as(after, list(slots), columns["mass"], _momenta(waves, [slot], np.asarray(matter.mass)), parent, extra, impulse)
        return after, Matter(**columns)

    return change


def merge(slots: Sequence[int], slot: int, shape: Geometry | None = None) -> Change:
    """Waves become one, in `slot` (one of them, or an empty one): mass, momentum, angular momentum and volume are their sums.

    Its shape is that of `shape` (one wave, without axes; its centre does not matter), scaled to the volume, or a ball. Colour
    is the mean by mass; the rest is the heaviest one's. Raises ValueError for a wave that is not there, for one of several of
    its part, or for a slot that is taken by another.
    """

    def change(waves: Waves, matter: Matter) -> tuple[Waves, Matter]:
        if len(slots) < 2 or len(set(slots)) != len(slots):
            raise ValueError(f"merge: waves {list(slots)}; needed two or more, each once")
        for source in slots:
            _alone(waves, matter, source, "merge")
        if slot not in slots:
            _empty(waves, slot, "merge")
        sources = list(slots)
        fields, columns = _fields(waves), _columns(matter)
        mass = np.asarray(matter.mass, np.float64)[sources]
        share = mass / mass.sum()
        heaviest = sources[int(np.argmax(mass))]
        volume = float(np.sum(np.asarray(superquadric.volume(waves.scale, waves.exponents), np.float64)[sources]))
        scale = np.ones(3) if shape is None else np.asarray(shape.scale, np.float64)
        exponents = np.ones(2) if shape is None else np.asarray(shape.exponents, np.float64)
        rotation = np.asarray([1.0, 0, 0, 0]) if shape is None else np.asarray(shape.rotation, np.float64)
        own = float(superquadric.volume(np.float32(scale), np.float32(exponents)))
        momenta = _momenta(waves, sources, np.asarray(matter.mass))
        values = {name: np.array(column[heaviest]) for name, column in fields.items()}
        values |= {"scale": scale * (volume / own) ** (1 / 3), "exponents": exponents, "rotation": rotation}
        values["centre"], values["colour"] = momenta[0], share @ np.asarray(waves.colour, np.float64)[sources]
        properties = {name: column[heaviest] for name, column in columns.items()}
        for source in sources:
            fields["presence"][source] = 0.0
        for name in FIELDS:
            fields[name][slot] = values[name]
        for name, column in columns.items():
            column[slot] = properties[name]
        fields["presence"][slot], columns["part"][slot], columns["mass"][slot] = 1.0, slot, mass.sum()
        after = Waves(**fields)
        still = {"centre": momenta[0], "angular_velocity": np.zeros(3)}
        _move_as(after, [slot], columns["mass"], momenta, still, np.zeros((1, 3)), (0.0, 0.0, 0.0))
        return after, Matter(**columns)

    return change


def _momenta(waves: Waves, slots: list[int], mass: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Common centre (m), momentum (kg m/s) and angular momentum about that centre (kg m^2/s) of waves, float64."""
    m = np.asarray(mass, np.float64)[slots]
    x, v = (np.asarray(y, np.float64)[slots] for y in (waves.centre, waves.velocity))
    w = np.asarray(waves.angular_velocity, np.float64)[slots]
    centre = m @ x / m.sum()
    own = np.asarray([_inertia(waves, [slot], m[i : i + 1], x[i]) for i, slot in enumerate(slots)])
    spin = (m[:, None] * np.cross(x - centre, v)).sum(0) + np.einsum("nij,nj->i", own, w)
    return centre, m @ v, spin


def _move_as(
    waves: Waves,
    slots: list[int],
    mass: np.ndarray,
    momenta: tuple[np.ndarray, np.ndarray, np.ndarray],
    parent: Mapping[str, np.ndarray],
    apart: np.ndarray,
    impulse: Vector,
) -> None:
    """Sets the velocities of waves, in place, by (1)."""
    _, momentum, angular = momenta
    m = np.asarray(mass, np.float64)[slots]
    x = np.asarray(waves.centre, np.float64)[slots]
    centre = m @ x / m.sum()
    velocity = (momentum + np.asarray(impulse, np.float64)) / m.sum()
    extra = apart - m @ apart / m.sum()
    spin = np.asarray(parent["angular_velocity"], np.float64)
    tensor = _inertia(waves, slots, m, centre)
    got = tensor @ spin + (m[:, None] * np.cross(x - centre, extra)).sum(0)
    spin = spin + np.linalg.solve(tensor, angular - got)
    waves.velocity[slots] = velocity + np.cross(spin, x - centre) + extra
    waves.angular_velocity[slots] = spin


def _inertia(waves: Waves, slots: Any, mass: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Inertia tensor of waves about a point (world), kg m^2, float64."""
    geometry = Geometry(*(np.asarray(x)[slots] for x in vars(Geometry.of(waves)).values()))
    own = np.asarray(inertia(geometry, np.asarray(mass, np.float32)), np.float64)
    arm = np.asarray(waves.centre, np.float64)[slots] - centre
    steiner = (arm * arm).sum(-1)[:, None, None] * np.eye(3) - arm[:, :, None] * arm[:, None, :]
    return (own + np.asarray(mass)[:, None, None] * steiner).sum(0)


def _matrix(rotation: NpOrJax) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_quat(np.asarray(rotation, np.float64), scalar_first=True).as_matrix()


def _product(a: NpOrJax, b: NpOrJax) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    first, second = (Rotation.from_quat(np.asarray(q, np.float64), scalar_first=True) for q in (a, b))
    return (first * second).as_quat(scalar_first=True)


def _fields(waves: Waves) -> dict[str, np.ndarray]:
    return {name: np.array(getattr(waves, name)) for name in FIELDS}


def _columns(matter: Matter) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in vars(matter).items()}


def _slot(waves: Waves, slot: int, what: str) -> None:
    if not 0 <= slot < waves.count:
        raise ValueError(f"{what}: slot {slot}; the core has slots 0 to {waves.count - 1}")


def _present(waves: Waves, slot: int, what: str) -> None:
    _slot(waves, slot, what)
    if not waves.presence[slot] > 0.5:
        raise ValueError(f"{what}: no wave in slot {slot} at this tick")


def _empty(waves: Waves, slot: int, what: str) -> None:
    _slot(waves, slot, what)
    if waves.presence[slot] > 0.5:
        raise ValueError(f"{what}: slot {slot} is taken; needed an empty one")


def _alone(waves: Waves, matter: Matter, slot: int, what: str) -> None:
    _present(waves, slot, what)
    part = np.asarray(matter.part)
    if np.sum((part == part[slot]) & (np.asarray(waves.presence) > 0.5)) > 1:
        raise ValueError(f"{what}: wave {slot} is one of several of part {part[slot]}; give it a part of its own first")
