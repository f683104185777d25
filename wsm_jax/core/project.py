"""Projection of a generated or perceived core onto valid ones: rigid objects, above the floor, in canonical slots."""

import jax
import numpy as np

from wsm_jax.core.superquadric import support
from wsm_jax.snapshot import FIELDS, SEMANTIC_CLASSES, TICK_HZ, Waves, quaternion_to_matrix
from wsm_jax.typing import Array, Float, NpOrJax

_OBJECT = SEMANTIC_CLASSES.index("ball")
_CONSTANT = ("scale", "exponents", "colour", "material")


def project(core: Waves, floor_height: float = 0.0) -> Waves:
    """Project a core [K N] onto worlds of rigid objects.

    Shape, colour and material are constant over the ticks (their median), presence and class decided by vote; no object
    reaches below the floor: exact by the support function h, centre_z >= floor + h(R^T (-z)). Velocities stay as they are.
    """
    fields = {name: np.array(getattr(core, name)) for name in FIELDS}
    for name in _CONSTANT:
        fields[name][:] = np.median(fields[name], axis=0)
    fields["presence"][:] = (fields["presence"].mean(0) >= 0.5).astype(np.float32)
    for slot in range(core.count):
        votes = np.bincount(fields["semantic"][:, slot], minlength=len(SEMANTIC_CLASSES))
        fields["semantic"][:, slot] = int(np.argmax(votes))
    fields["presence"] *= fields["semantic"] > 0
    slots = np.arange(1, core.count + 1, dtype=np.int32)
    is_object = (fields["semantic"] >= _OBJECT) & (fields["presence"] > 0)
    fields["instance"] = np.where(is_object, slots, 0).astype(np.int32)
    reach = np.asarray(_reach(fields["rotation"], fields["scale"], fields["exponents"]))
    lowest = floor_height + reach
    lift = is_object & (fields["centre"][..., 2] < lowest)
    fields["centre"][..., 2] = np.where(lift, lowest, fields["centre"][..., 2])
    return Waves(**fields)


@jax.jit
def _reach(rotation: NpOrJax, scale: NpOrJax, exponents: NpOrJax) -> Float[Array, "K N"]:
    """Extent of waves below their centres, m."""
    return support(-quaternion_to_matrix(rotation)[..., 2, :], scale, exponents)


def canonical(core: Waves, key: Float[np.ndarray, " N"]) -> tuple[Waves, np.ndarray]:
    """Sort objects by (class, key) into the slots after floor and screen, empty slots last; also returns the order.

    Raises ValueError if the objects leave no slot for the floor and the screen.
    """
    semantic, present = np.asarray(core.semantic)[0], np.asarray(core.presence)[0] > 0.5
    objects = [i for i in range(core.count) if present[i] and semantic[i] >= _OBJECT]
    objects.sort(key=lambda i: (semantic[i], key[i]))
    scenery = [next((i for i in range(core.count) if present[i] and semantic[i] == kind), None) for kind in (1, 2)]
    used = set(objects) | {i for i in scenery if i is not None}
    spare = [i for i in range(core.count) if i not in used]
    if len(objects) > core.count - 2:
        raise ValueError(f"{len(objects)} objects in {core.count} slots; slots 0 and 1 are reserved for floor and screen")
    order = [i if i is not None else spare.pop() for i in scenery] + objects
    order = np.asarray(order + spare)[: core.count]
    return Waves(**{name: np.asarray(getattr(core, name))[:, order] for name in FIELDS}), order


def motion_from_poses(core: Waves, tick_hz: float = TICK_HZ) -> Waves:
    """The same core with velocities (m/s) and angular velocities (rad/s) from central differences of its poses."""
    from scipy.spatial.transform import Rotation

    centre = np.asarray(core.centre)
    ticks, count = centre.shape[:2]
    if ticks < 2:
        return core
    velocity = np.gradient(centre, 1.0 / tick_hz, axis=0)
    quaternion = np.asarray(core.rotation, np.float64).reshape(-1, 4)
    turn = Rotation.from_quat(quaternion, scalar_first=True)
    index = np.arange(ticks * count).reshape(ticks, count)
    spin = (turn[index[1:].ravel()] * turn[index[:-1].ravel()].inv()).as_rotvec().reshape(ticks - 1, count, 3) * tick_hz
    spin = np.concatenate([spin[:1], 0.5 * (spin[1:] + spin[:-1]), spin[-1:]])
    return core.replace(velocity=velocity.astype(np.float32), angular_velocity=spin.astype(np.float32))  # type: ignore[attr-defined]
