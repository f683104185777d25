"""Events that change what there is: a wave breaks into several, a set comes apart into its waves, several merge into one.

Breaking and merging conserve mass, momentum, angular momentum and volume. Pieces i of a wave (mass M, momentum P, angular
momentum L about its centre c) have masses in proportion to their volumes, are shifted so that their common centre is c, and
move as

    v_i = P/M + (w + u) x (x_i - c) + d_i ,   w_i = w + u                                                                  (1)

with w the wave's angular velocity, d_i extra velocities less their common mean, and the one u for which the total angular
momentum is L. The interpolated core shows a change as presence that goes from one to the other between two ticks.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from wsm_jax.core import superquadric
from wsm_jax.core.geometry import Geometry
from wsm_jax.core.physics.change import (
    Change,
    Vector,
    check_empty,
    check_present,
    columns_of,
    fields_of,
    inertia_about,
    own_part,
    triple,
)
from wsm_jax.core.physics.matter import Matter
from wsm_jax.snapshot import FIELDS, Waves
from wsm_jax.typing import Float, NpOrJax


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
            check_empty(waves, target, "break_apart")
        if len(set(slots)) != len(slots) or len(slots) != len(np.asarray(pieces.centre)) or not slots:
            raise ValueError(
                f"break_apart: {len(np.asarray(pieces.centre))} pieces for slots {list(slots)}; needed one slot each"
            )
        extra = _velocities(apart, len(slots), "break_apart")
        fields, columns = fields_of(waves), columns_of(matter)
        parent = {name: np.array(values[slot]) for name, values in fields.items()}
        whole = float(superquadric.volume(np.asarray(parent["scale"]), np.asarray(parent["exponents"])))
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
            for column in columns.values():
                column[target] = column[slot]
            own_part(columns["part"], target)
            columns["mass"][target] = share[i] * float(np.asarray(matter.mass)[slot])
        fields["presence"][slot] = 0.0
        after = Waves(**fields)
        _move_as(after, list(slots), columns["mass"], _momenta(waves, [slot], np.asarray(matter.mass)), parent, extra, impulse)
        return after, Matter(**columns)

    return Change("breaks", (slot,), change, triple(impulse))


def come_apart(
    slots: Sequence[int], *, apart: Float[NpOrJax, "n 3"] | None = None, impulse: Vector = (0.0, 0.0, 0.0)
) -> Change:
    """The n waves of one rigid part become parts and objects of their own, where they are and as they are; see (1).

    `slots` are all of them; `apart` [n 3] and `impulse` as for `break_apart`. The first keeps the instance. Raises ValueError
    for waves that are not there, are not all of one part, or are fewer than two.
    """

    def change(waves: Waves, matter: Matter) -> tuple[Waves, Matter]:
        members = list(slots)
        for slot in members:
            check_present(waves, slot, "come_apart")
        part = np.asarray(matter.part)
        whole = np.flatnonzero((part == part[members[0]]) & (np.asarray(waves.presence) > 0.5)) if members else []
        if len(members) < 2 or sorted(members) != list(whole):
            raise ValueError(f"come_apart: waves {members}; needed two or more, and all of one part: that has {list(whole)}")
        extra = _velocities(apart, len(members), "come_apart")
        fields, columns = fields_of(waves), columns_of(matter)
        momenta = _momenta(waves, members, np.asarray(matter.mass))
        parent = {"angular_velocity": np.array(fields["angular_velocity"][members[0]])}
        fields["instance"][members[1:]] = np.asarray(waves.instance).max() + np.arange(1, len(members))
        columns["part"][members] = members
        after = Waves(**fields)
        _move_as(after, members, columns["mass"], momenta, parent, extra, impulse)
        return after, Matter(**columns)

    return Change("breaks", tuple(slots), change, triple(impulse))


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
            check_empty(waves, slot, "merge")
        if shape is not None and np.shape(shape.centre) != (3,):
            raise ValueError(f"merge: shape with centres {np.shape(shape.centre)}; needed one wave without axes, (3,)")
        sources = list(slots)
        fields, columns = fields_of(waves), columns_of(matter)
        mass = np.asarray(matter.mass, np.float64)[sources]
        share = mass / mass.sum()
        heaviest = sources[int(np.argmax(mass))]
        volume = float(np.sum(np.asarray(superquadric.volume(waves.scale, waves.exponents), np.float64)[sources]))
        scale = np.ones(3) if shape is None else np.asarray(shape.scale, np.float64)
        exponents = np.ones(2) if shape is None else np.asarray(shape.exponents, np.float64)
        rotation = np.asarray([1.0, 0, 0, 0]) if shape is None else np.asarray(shape.rotation, np.float64)
        own = float(superquadric.volume(scale.astype(np.float32), exponents.astype(np.float32)))
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
        fields["presence"][slot], columns["mass"][slot] = 1.0, mass.sum()
        own_part(columns["part"], slot)
        after = Waves(**fields)
        still = {"centre": momenta[0], "angular_velocity": np.zeros(3)}
        _move_as(after, [slot], columns["mass"], momenta, still, np.zeros((1, 3)), (0.0, 0.0, 0.0))
        return after, Matter(**columns)

    return Change("merges", tuple(slots), change)


def _momenta(waves: Waves, slots: list[int], mass: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Common centre (m), momentum (kg m/s) and angular momentum about that centre (kg m^2/s) of waves, float64."""
    m = np.asarray(mass, np.float64)[slots]
    x, v = (np.asarray(y, np.float64)[slots] for y in (waves.centre, waves.velocity))
    w = np.asarray(waves.angular_velocity, np.float64)[slots]
    centre = m @ x / m.sum()
    own = np.asarray([inertia_about(waves, [slot], m[i : i + 1], x[i]) for i, slot in enumerate(slots)])
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
    tensor = inertia_about(waves, slots, m, centre)
    got = tensor @ spin + (m[:, None] * np.cross(x - centre, extra)).sum(0)
    spin = spin + np.linalg.solve(tensor, angular - got)
    waves.velocity[slots] = velocity + np.cross(spin, x - centre) + extra
    waves.angular_velocity[slots] = spin


def _velocities(apart: Float[NpOrJax, "n 3"] | None, count: int, what: str) -> np.ndarray:
    """The velocities `apart` (m/s), or none. Raises ValueError, naming `what`."""
    extra = np.zeros((count, 3)) if apart is None else np.asarray(apart, np.float64)
    if extra.shape != (count, 3) or not np.isfinite(extra).all():
        raise ValueError(f"{what}: apart of shape {extra.shape}; needed finite velocities ({count}, 3), m/s")
    return extra


def _matrix(rotation: NpOrJax) -> np.ndarray:
    return Rotation.from_quat(np.asarray(rotation, np.float64), scalar_first=True).as_matrix()


def _product(a: NpOrJax, b: NpOrJax) -> np.ndarray:
    first, second = (Rotation.from_quat(np.asarray(q, np.float64), scalar_first=True) for q in (a, b))
    return (first * second).as_quat(scalar_first=True)


def _alone(waves: Waves, matter: Matter, slot: int, what: str) -> None:
    check_present(waves, slot, what)
    part = np.asarray(matter.part)
    if np.sum((part == part[slot]) & (np.asarray(waves.presence) > 0.5)) > 1:
        raise ValueError(
            f"{what}: wave {slot} is one of several of part {part[slot]}; take the part to pieces (come_apart) first"
        )
