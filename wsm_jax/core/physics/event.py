"""Events that change the set of waves: a wave breaks into several, a part separates into its waves, waves merge into one.

Breaking and merging conserve mass, momentum, angular momentum and volume. Pieces i of a wave (mass M, momentum P, angular
momentum L about its centre c) have masses in proportion to their volumes, are shifted so that their common centre is c, and
move as

    v_i = P/M + (w + u) x (x_i - c) + d_i ,   w_i = w + u                                                                  (1)

with w the wave's angular velocity, d_i extra velocities minus their mean, and u such that the total angular momentum is L. In
the interpolated core, presence fades from the old waves to the new ones between two ticks.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.spatial.transform import Rotation

from wsm_jax.core import superquadric
from wsm_jax.core.geometry import Geometry
from wsm_jax.core.physics.change import (
    Change,
    VectorLike,
    check_empty,
    check_present,
    columns_of,
    fields_of,
    inertia_about,
    separate_part,
    triple,
)
from wsm_jax.core.physics.matter import Matter
from wsm_jax.core.rotation import matrix64
from wsm_jax.snapshot import FIELDS, Waves
from wsm_jax.typing import Float, NpOrJax


def break_apart(
    slot: int,
    slots: Sequence[int],
    pieces: Geometry,
    *,
    apart: Float[NpOrJax, "n 3"] | None = None,
    impulse: VectorLike = (0.0, 0.0, 0.0),
) -> Change:
    """Break a wave into n `pieces` [n ...], with poses in the frame of the wave, in empty `slots`; see (1).

    One scale factor preserves the volume, one shift the centre. `apart` [n 3] are the separation velocities d_i (m/s, world);
    `impulse` (N s, world) acts at the centre. Colour, material, class, friction and restitution are those of the wave; every
    piece is a separate object, and the first keeps the instance. The change raises ValueError for an absent wave, one of
    several of its part, or an occupied slot.
    """

    def change(waves: Waves, matter: Matter) -> tuple[Waves, Matter]:
        _check_single(waves, matter, slot, "break_apart")
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
        matrix = matrix64(parent["rotation"])
        whole_rotation, piece_rotations = (
            Rotation.from_quat(np.asarray(q, np.float64), scalar_first=True) for q in (parent["rotation"], pieces.rotation)
        )
        x = np.asarray(pieces.centre, np.float64) @ matrix.T
        x = x - share @ x
        instances = np.asarray(waves.instance)
        for i, target in enumerate(slots):
            for name in FIELDS:
                fields[name][target] = parent[name]
            fields["centre"][target] = parent["centre"] + x[i]
            fields["scale"][target] = np.asarray(pieces.scale)[i] * (whole / volumes.sum()) ** (1 / 3)
            fields["exponents"][target] = np.asarray(pieces.exponents)[i]
            fields["rotation"][target] = (whole_rotation * piece_rotations[i]).as_quat(scalar_first=True)
            fields["instance"][target] = parent["instance"] if i == 0 else instances.max() + i
            for column in columns.values():
                column[target] = column[slot]
            separate_part(columns["part"], target)
            columns["mass"][target] = share[i] * float(np.asarray(matter.mass)[slot])
        fields["presence"][slot] = 0.0
        after = Waves(**fields)
        _set_velocities(
            after, list(slots), columns["mass"], _momenta(waves, [slot], np.asarray(matter.mass)), parent, extra, impulse
        )
        return after, Matter(**columns)

    return Change("breaks", (slot,), change, triple(impulse))


def come_apart(
    slots: Sequence[int], *, apart: Float[NpOrJax, "n 3"] | None = None, impulse: VectorLike = (0.0, 0.0, 0.0)
) -> Change:
    """Separate the n waves of one rigid part into n parts and objects, without changing their poses; see (1).

    `slots` are all waves of the part; `apart` [n 3] and `impulse` as for `break_apart`. The first keeps the instance. The
    change raises ValueError for absent waves, fewer than two, or not all waves of one part.
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
        _set_velocities(after, members, columns["mass"], momenta, parent, extra, impulse)
        return after, Matter(**columns)

    return Change("breaks", tuple(slots), change, triple(impulse))


def merge(slots: Sequence[int], slot: int, shape: Geometry | None = None) -> Change:
    """Merge waves into one, in `slot` (one of them, or an empty one): mass, momenta and volume are their sums.

    Its shape is `shape` (one wave without leading axes; its centre is ignored), scaled to the volume, or a ball. Colour is the
    mean by mass; other fields are those of the heaviest wave. The change raises ValueError for an absent wave, one of several
    of its part, or a slot occupied by another.
    """

    def change(waves: Waves, matter: Matter) -> tuple[Waves, Matter]:
        if len(slots) < 2 or len(set(slots)) != len(slots):
            raise ValueError(f"merge: waves {list(slots)}; needed two or more, each once")
        for source in slots:
            _check_single(waves, matter, source, "merge")
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
        separate_part(columns["part"], slot)
        after = Waves(**fields)
        still = {"centre": momenta[0], "angular_velocity": np.zeros(3)}
        _set_velocities(after, [slot], columns["mass"], momenta, still, np.zeros((1, 3)), (0.0, 0.0, 0.0))
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


def _set_velocities(
    waves: Waves,
    slots: list[int],
    mass: np.ndarray,
    momenta: tuple[np.ndarray, np.ndarray, np.ndarray],
    parent: Mapping[str, np.ndarray],
    apart: np.ndarray,
    impulse: VectorLike,
) -> None:
    """Set the velocities of waves, in place, by (1)."""
    _, momentum, angular = momenta
    m = np.asarray(mass, np.float64)[slots]
    x = np.asarray(waves.centre, np.float64)[slots]
    centre = m @ x / m.sum()
    velocity = (momentum + np.asarray(impulse, np.float64)) / m.sum()
    extra = apart - m @ apart / m.sum()
    spin = np.asarray(parent["angular_velocity"], np.float64)
    tensor = inertia_about(waves, slots, m, centre)
    momentum_of_spin = tensor @ spin + (m[:, None] * np.cross(x - centre, extra)).sum(0)
    spin = spin + np.linalg.solve(tensor, angular - momentum_of_spin)
    waves.velocity[slots] = velocity + np.cross(spin, x - centre) + extra
    waves.angular_velocity[slots] = spin


def _velocities(apart: Float[NpOrJax, "n 3"] | None, count: int, what: str) -> np.ndarray:
    """Separation velocities (m/s); zeros for None. Raises ValueError, naming `what`, for a bad shape or values."""
    extra = np.zeros((count, 3)) if apart is None else np.asarray(apart, np.float64)
    if extra.shape != (count, 3) or not np.isfinite(extra).all():
        raise ValueError(f"{what}: apart of shape {extra.shape}; needed finite velocities ({count}, 3), m/s")
    return extra


def _check_single(waves: Waves, matter: Matter, slot: int, what: str) -> None:
    """Raise ValueError, naming `what`, unless a wave is present and the only one of its part."""
    check_present(waves, slot, what)
    part = np.asarray(matter.part)
    if np.sum((part == part[slot]) & (np.asarray(waves.presence) > 0.5)) > 1:
        raise ValueError(f"{what}: wave {slot} is one of several of part {part[slot]}; separate the part (come_apart) first")
