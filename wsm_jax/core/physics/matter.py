"""Physical properties of waves and the joints between them: the data of physics that a snapshot does not contain."""

from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from wsm_jax.core import superquadric
from wsm_jax.snapshot import Waves, quaternion_to_matrix
from wsm_jax.snapshot.camera import matrix_to_quaternion
from wsm_jax.typing import Array, Bool, Float, Int, NpOrJax, pytree

JOINTS = {
    "fixed": (1, 1, 1, 1, 1, 1),
    "hinge": (1, 1, 1, 1, 1, 0),
    "ball": (1, 1, 1, 0, 0, 0),
    "slide": (1, 1, 0, 1, 1, 1),
}
"""Kind of joint -> mask of held translations and rotations along x, y, z in its own frame; z is its axis."""


@pytree
class Matter:
    """Physical properties, one entry per wave. Two waves in contact take the larger of each coefficient, as in MuJoCo."""

    mass: Float[NpOrJax, " N"]
    """kg."""
    friction: Float[NpOrJax, " N"]
    """Coulomb's coefficient."""
    rolling: Float[NpOrJax, " N"]
    """Rolling and spinning friction: the largest torque over the normal force, m."""
    restitution: Float[NpOrJax, " N"]
    """Speed after an impact over speed before it, 0..1."""
    part: Int[NpOrJax, " N"]
    """Waves with equal numbers form one rigid body; the number is the slot of one of them."""
    held: Bool[NpOrJax, " N"]
    """True for waves without forces: at rest, or in constant motion."""


@pytree
class Joints:
    """J joints between two waves each; the frames are local to the waves."""

    a: Int[NpOrJax, " J"]
    """Wave A (its slot)."""
    b: Int[NpOrJax, " J"]
    """Wave B."""
    holds: Float[NpOrJax, "J 6"]
    """Mask of held translations and rotations, 0 or 1, as in JOINTS."""
    anchor_a: Float[NpOrJax, "J 3"]
    """Position of the joint in the frame of A, m."""
    anchor_b: Float[NpOrJax, "J 3"]
    frame_a: Float[NpOrJax, "J 4"]
    """Joint frame to the frame of A, quaternion."""
    frame_b: Float[NpOrJax, "J 4"]


def matter(
    waves: Waves,
    joints: Joints | None = None,
    *,
    density: float = 500.0,
    friction: float = 0.4,
    rolling: float = 0.0,
    restitution: float = 0.3,
) -> Matter:
    """Uniform matter for waves [N]: mass from volume and density (kg/m^3), one rigid part per object.

    Scenery (instance 0) and empty slots are held and have coefficients 0. An object with `joints` between its waves has several
    parts: one for each jointed wave, with the other waves whose centres are nearest to it.

    Raises ValueError for a density that is not positive, or a negative coefficient.
    """
    if not density > 0 or min(friction, rolling, restitution) < 0 or restitution > 1:
        raise ValueError(
            f"matter: density={density}, friction={friction}, rolling={rolling}, restitution={restitution}; "
            "needed a positive density (kg/m^3), coefficients from 0, restitution up to 1"
        )
    if np.ndim(waves.presence) != 1:
        raise ValueError(f"matter: waves of shape {np.shape(waves.presence)}; needed one instant, (N,): take waves[k]")
    instance = np.asarray(waves.instance)
    free = (instance > 0) & (np.asarray(waves.presence) > 0.5)
    slots = np.arange(len(free))
    first = np.array([np.flatnonzero(free & (instance == i))[0] if free[n] else n for n, i in enumerate(instance)])
    if joints is not None:
        first = _by_joints(waves, joints, instance, free, first)
    each = np.where(free, 1.0, 0.0).astype(np.float32)
    return Matter(
        mass=density * np.asarray(superquadric.volume(waves.scale, waves.exponents)),
        friction=friction * each,
        rolling=rolling * each,
        restitution=restitution * each,
        part=np.where(free, first, slots).astype(np.int32),
        held=~free,
    )


def _by_joints(waves: Waves, joints: Joints, instance: np.ndarray, free: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Part of every wave, with objects split at their internal joints."""
    part, centre = part.copy(), np.asarray(waves.centre, np.float64)
    a, b = np.asarray(joints.a), np.asarray(joints.b)
    inside = (instance[a] == instance[b]) & (a != b) & np.any(np.asarray(joints.holds) > 0, 1)
    for i in np.unique(instance[a[inside]]):
        ends = np.unique(np.concatenate([side[inside & (instance[a] == i)] for side in (a, b)]))
        ends = ends[free[ends]]
        members = np.flatnonzero((instance == i) & free)
        apart = np.linalg.norm(centre[members, None] - centre[ends], axis=-1)
        part[members] = ends[np.argmin(apart, 1)]
    return part


def acting(present: Bool[Array, "*lead N"], joints: Joints) -> Bool[Array, "*lead J"]:
    """Mask of joints that hold an axis and connect present waves."""
    return jnp.any(jnp.asarray(joints.holds) > 0, -1) & present[..., joints.a] & present[..., joints.b]


def checked_world(waves: Waves, matter: Matter, joints: Joints | None, what: str) -> Joints:
    """Validate a world and return its joints (possibly none). Raises ValueError, naming `what`, for inconsistent inputs.

    For traced values only the shapes are checked.
    """
    joints = no_joints() if joints is None else joints
    shape = np.shape(waves.presence)
    if len(shape) != 1 or not shape[0]:
        raise ValueError(f"{what}: waves of shape {shape}; needed one instant of one wave or more, (N,): take waves[k]")
    for name, column in vars(matter).items():
        if np.shape(column) != shape:
            raise ValueError(f"{what}: matter.{name} of shape {np.shape(column)} for {shape[0]} waves; needed {shape}")
    if any(isinstance(x, Tracer) for x in (joints.a, joints.b, joints.holds, matter.part)):
        return joints
    a, b, part = (np.asarray(x) for x in (joints.a, joints.b, matter.part))
    acts = np.any(np.asarray(joints.holds) > 0, -1)
    outside = acts & ((np.minimum(a, b) < 0) | (np.maximum(a, b) >= shape[0]))
    if outside.any():
        j = int(np.argmax(outside))
        raise ValueError(f"{what}: joint {j} ties waves {a[j]} and {b[j]}; the core has slots 0 to {shape[0] - 1}")
    inert = acts & (part[a] == part[b])
    if inert.any():
        j = int(np.argmax(inert))
        raise ValueError(
            f"{what}: joint {j} ties waves {a[j]} and {b[j]} of one rigid part; needed two parts: matter(waves, joints) parts "
            "the waves of an object at its joints"
        )
    return joints


def side_by_side(worlds: Sequence[tuple[Waves, Matter]]) -> tuple[Waves, Matter]:
    """Concatenate separate worlds with the same number of slots, for `worlds` of dynamics.step.

    Raises ValueError for worlds of different numbers of slots.
    """
    counts = {waves.count for waves, _ in worlds}
    if len(counts) != 1:
        raise ValueError(f"side_by_side: worlds of {sorted(counts)} slots; needed equally many in each")
    count = counts.pop()
    waves, columns = (
        {name: np.concatenate([np.asarray(getattr(x, name)) for x in some]) for name in vars(some[0])}
        for some in ([waves for waves, _ in worlds], [matter for _, matter in worlds])
    )
    columns["part"] += np.repeat(np.arange(len(worlds), dtype=np.int32) * count, count)
    return Waves(**waves), Matter(**columns)


def joint(
    waves: Waves,
    kind: Literal["fixed", "hinge", "ball", "slide"],
    a: int,
    b: int,
    anchor: Sequence[float | int] | NpOrJax,
    axis: Sequence[float | int] | NpOrJax = (0.0, 0.0, 1.0),
) -> Joints:
    """One joint of waves [N] between slots `a` and `b`, at the world point `anchor` (m) about (or along) a world `axis`.

    Several: `join(...)`. Raises ValueError for an unknown kind, a slot out of range, equal slots, or a bad axis or anchor.
    """
    if kind not in JOINTS:
        raise ValueError(f"joint: kind {kind!r}; needed one of {sorted(JOINTS)}")
    count = np.shape(waves.presence)[-1]
    if not (0 <= a < count and 0 <= b < count) or a == b:
        raise ValueError(f"joint: waves {a} and {b} of {count}; needed two different slots")
    z = np.asarray(axis, np.float64)
    if z.shape != (3,) or not np.isfinite(z).all() or np.linalg.norm(z) < 1e-9:
        raise ValueError(f"joint: axis {axis}; needed a direction: three numbers")
    z = z / np.linalg.norm(z)
    position = np.asarray(anchor, np.float64)
    if position.shape != (3,) or not np.isfinite(position).all():
        raise ValueError(f"joint: anchor {anchor}; needed three finite numbers (m)")
    x = np.cross(z, np.eye(3)[np.argmin(np.abs(z))])
    x = x / np.linalg.norm(x)
    frame = np.stack([x, np.cross(z, x), z], -1)
    sides: dict[str, np.ndarray] = {}
    for name, slot in (("a", a), ("b", b)):
        matrix = np.asarray(quaternion_to_matrix(waves.rotation[slot]), np.float64)
        local = matrix.T @ (position - np.asarray(waves.centre[slot]))
        sides[f"anchor_{name}"] = local.astype(np.float32)[None]
        sides[f"frame_{name}"] = matrix_to_quaternion(matrix.T @ frame)[None]
    slots = {name: np.asarray([slot], np.int32) for name, slot in (("a", a), ("b", b))}
    return Joints(holds=np.asarray([JOINTS[kind]], np.float32), **slots, **sides)


def join(*joints: Joints) -> Joints:
    """Concatenate joints."""
    names = ("a", "b", "holds", "anchor_a", "anchor_b", "frame_a", "frame_b")
    return Joints(**{name: np.concatenate([np.asarray(getattr(j, name)) for j in joints]) for name in names})


def no_joints() -> Joints:
    """Joints of length 0."""
    return Joints(
        *(np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros((0, 6), np.float32)),
        *(np.zeros((0, width), np.float32) for width in (3, 3, 4, 4)),
    )
