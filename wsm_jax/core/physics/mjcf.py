"""Export of waves to MuJoCo (MJCF), and simulation by MuJoCo.

A wave becomes a sphere or an ellipsoid if its exponents are 1, else the convex mesh of points on its surface. A contact in
MuJoCo is a spring and damper of natural frequency w and damping ratio zeta that cannot pull, so it ends when its force is zero,
and the restitution is

    e = exp(-(pi - 2 asin zeta) zeta / sqrt(1 - zeta^2))          (from 1 at zeta = 0 down to exp(-2) at zeta = 1)       (1)
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo's compiled modules have no type annotations)

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import brentq

from wsm_jax.core.mesh import surface_points
from wsm_jax.core.physics.dynamics import GRAVITY_M_S2, Bodies, bodies
from wsm_jax.core.physics.matter import JOINTS, Joints, Matter, acting, checked_world
from wsm_jax.snapshot import TICK_HZ, Waves, quaternion_to_matrix
from wsm_jax.snapshot.waves import stack
from wsm_jax.typing import Float, NpOrJax

CONTACT_OMEGA = 200.0
"""Natural frequency of a contact, rad/s."""
_KINDS: dict[tuple[int, ...], str] = {holds: name for name, holds in JOINTS.items()}


def damping_ratio(restitution: float) -> float:
    """zeta of eq. (1) for a restitution in exp(-2) .. 1, clipped to it."""
    wanted = float(np.clip(restitution, 0.14, 0.99))

    def excess(zeta: float) -> float:
        return (np.pi - 2 * np.arcsin(zeta)) * zeta / np.sqrt(1 - zeta * zeta) + np.log(wanted)

    return float(np.asarray(brentq(excess, 1e-6, 1 - 1e-9)))


def numbers(values: NpOrJax | Sequence[Any]) -> str:
    """Numbers in MJCF format."""
    return " ".join(f"{x:.9g}" for x in np.ravel(values))


def geom_shape(name: str, scale: Float[NpOrJax, "3"], exponents: Float[NpOrJax, "2"]) -> tuple[str, str]:
    """Mesh asset of a wave ("" if none is needed), and the shape attributes of its geom."""
    if np.all(np.asarray(exponents) == 1.0):
        if np.ptp(scale) == 0.0:
            return "", f'type="sphere" size="{scale[0]:.9g}"'
        return "", f'type="ellipsoid" size="{numbers(scale)}"'
    return f'<mesh name="{name}" vertex="{numbers(surface_points(scale, exponents))}"/>', f'type="mesh" mesh="{name}"'


def to_mjcf(
    waves: Waves,
    matter: Matter,
    joints: Joints | None = None,
    *,
    gravity: tuple[float, float, float] = GRAVITY_M_S2,
    timestep: float = 1 / 960,
) -> str:
    """The MJCF text of waves [N]: one body per part, named "part<slot>", one geom per wave, named "wave<slot>".

    A jointed part is a child of the part at the other side of its joint; other parts move freely; held parts are static; joints
    with absent waves are omitted. Raises ValueError for joints that close a loop, a fixed joint (give its waves one part
    instead), a held part that moves, and as `step` of dynamics.py does.
    """
    joints = _acting(waves, checked_world(waves, matter, joints, "to_mjcf"))
    tree = _tree(waves, matter, joints)
    model, state = jax.device_get(bodies(waves, matter))
    part, present = np.asarray(matter.part), np.asarray(waves.presence) > 0.5
    assets, texts = [], dict.fromkeys({int(p) for p in part[present]}, "")
    for n in np.flatnonzero(present):
        asset, shape = geom_shape(f"wave{n}", np.asarray(waves.scale[n]), np.asarray(waves.exponents[n]))
        assets.append(asset)
        zeta = damping_ratio(float(matter.restitution[n]))
        rolling = float(matter.rolling[n])
        scenery = bool(matter.held[n])
        texts[int(part[n])] += (
            f'<geom name="wave{n}" {shape} pos="{numbers(model.offset[n])}" quat="{numbers(model.rotation[n])}" '
            f'mass="{0.0 if scenery else float(matter.mass[n]):.9g}" condim="{6 if rolling else 3}" '
            f'friction="{float(matter.friction[n]):.9g} {rolling:.9g} {rolling:.9g}" '
            + ('solmix="1e-9"/>' if scenery else f'solref="{1 / (zeta * CONTACT_OMEGA):.9g} {zeta:.9g}"/>')
        )

    def body(p: int, origin: np.ndarray, inside: str) -> str:
        if model.inverse_mass[p] == 0.0:
            held = inside + texts[p] + "".join(body(child, state.centre[p], hinge) for child, hinge in tree.get(p, []))
            return f'<body name="part{p}" pos="{numbers(state.centre[p] - origin)}">{held}</body>'
        i = model.inertia[p]
        inertial = (
            f'<inertial pos="0 0 0" mass="{1 / model.inverse_mass[p]:.9g}" '
            f'fullinertia="{numbers([i[0, 0], i[1, 1], i[2, 2], i[0, 1], i[0, 2], i[1, 2]])}"/>'
        )
        children = "".join(body(child, state.centre[p], hinge) for child, hinge in tree.get(p, []))
        return f'<body name="part{p}" pos="{numbers(state.centre[p] - origin)}">{inside}{inertial}{texts[p]}{children}</body>'

    below = {child for children in tree.values() for child, _ in children}
    roots = [p for p in sorted(texts) if p not in below]
    for p in roots:
        moving = np.abs(np.concatenate([state.velocity[p], state.momentum[p]])).max()
        if model.inverse_mass[p] == 0.0 and moving > 0:
            raise ValueError(f"to_mjcf: part {p} is held and moves at {moving:.3g}; static bodies in MuJoCo do not move")
    free = "".join(body(p, np.zeros(3), "<freejoint/>" if model.inverse_mass[p] > 0 else "") for p in roots)
    joined = {(int(part[a]), int(part[b])) for a, b in zip(np.asarray(joints.a), np.asarray(joints.b), strict=True)}
    apart = "".join(f'<exclude body1="part{a}" body2="part{b}"/>' for a, b in sorted(joined))
    return (
        f'<mujoco><option timestep="{timestep:.10g}" gravity="{numbers(gravity)}" cone="elliptic" integrator="implicitfast"/>'
        f'<default><geom solimp=".95 .99 .001"/></default><asset>{"".join(assets)}</asset>'
        f"<worldbody>{free}</worldbody><contact>{apart}</contact></mujoco>"
    )


def _acting(waves: Waves, joints: Joints) -> Joints:
    """The joints that hold an axis and connect present waves."""
    acts = np.asarray(acting(jnp.asarray(waves.presence) > 0.5, joints))
    return jax.tree.map(lambda x: np.asarray(x)[acts], joints)


def _tree(waves: Waves, matter: Matter, joints: Joints) -> dict[int, list[tuple[int, str]]]:
    """Part -> its child parts, each with its joint element. Held parts come first as parents."""
    model, state = jax.device_get(bodies(waves, matter))
    part = np.asarray(matter.part)
    edges = []
    for j in range(len(joints.a)):
        kind = _KINDS.get(tuple(int(x) for x in joints.holds[j]))
        if kind in (None, "fixed"):
            raise ValueError(f"to_mjcf: joint {j} is {kind or 'of no known kind'}; needed a hinge, ball or slide (or one part)")
        a = int(joints.a[j])
        anchor = np.asarray(waves.centre[a]) + np.asarray(quaternion_to_matrix(waves.rotation[a])) @ joints.anchor_a[j]
        axes = np.asarray(quaternion_to_matrix(waves.rotation[a])) @ np.asarray(quaternion_to_matrix(joints.frame_a[j]))
        edges.append((int(part[a]), int(part[joints.b[j]]), kind, anchor, axes[:, 2]))
    held = model.inverse_mass == 0.0
    tree: dict[int, list[tuple[int, str]]] = {}
    reached = {p for a, b, *_ in edges for p in (a, b) if held[p]} or ({edges[0][0]} if edges else set())
    while edges:
        edge = next((e for e in edges if (e[0] in reached) != (e[1] in reached)), None)
        if edge is None:
            if any(e[0] in reached for e in edges):
                raise ValueError("to_mjcf: the joints close a loop; MuJoCo's bodies form a tree")
            reached.add(edges[0][0])
            continue
        edges.remove(edge)
        parent, child = edge[:2] if edge[0] in reached else edge[1::-1]
        position = f'pos="{numbers(edge[3] - state.centre[child])}"'
        axis = "" if edge[2] == "ball" else f' axis="{numbers(edge[4])}"'
        tree.setdefault(parent, []).append((child, f'<joint name="joint{child}" type="{edge[2]}" {position}{axis}/>'))
        reached.add(child)
    return tree


def simulate(
    waves: Waves,
    matter: Matter,
    joints: Joints | None = None,
    *,
    ticks: int,
    tick_s: float = 1 / TICK_HZ,
    substeps: int = 120,
    gravity: tuple[float, float, float] = GRAVITY_M_S2,
) -> Waves:
    """The waves [K+1 N ...] at every tick, simulated by MuJoCo in place of `dynamics.rollout`; NumPy.

    Raises ValueError for worlds that MuJoCo does not support: see `to_mjcf`.
    """
    import mujoco

    model = mujoco.MjModel.from_xml_string(to_mjcf(waves, matter, joints, gravity=gravity, timestep=tick_s / substeps))
    data = mujoco.MjData(model)
    _set_velocities(mujoco, model, data, waves, matter)
    local = jax.device_get(bodies(waves, matter)[0])
    states = [_state(mujoco, model, data, waves, matter, local)]
    for _ in range(ticks):
        mujoco.mj_step(model, data, nstep=substeps)
        states.append(_state(mujoco, model, data, waves, matter, local))
    return stack(states)


def _set_velocities(mujoco, model, data, waves: Waves, matter: Matter) -> None:
    """Set generalised velocities to match the motion of the waves (least squares, for motion that joints prevent)."""
    mujoco.mj_forward(model, data)
    rows, wanted = [], []
    bodies_of, state = jax.device_get(bodies(waves, matter))
    for p in {int(p) for p in np.asarray(matter.part)[np.asarray(waves.presence) > 0.5]}:
        if bodies_of.inverse_mass[p] == 0.0:
            continue
        linear, angular = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        mujoco.mj_jacBody(model, data, linear, angular, model.body(f"part{p}").id)
        rows += [linear, angular]
        wanted += [state.velocity[p], np.linalg.solve(bodies_of.inertia[p].astype(np.float64), state.momentum[p])]
    if rows:
        data.qvel[:] = np.linalg.lstsq(np.concatenate(rows), np.concatenate(wanted), rcond=None)[0]


def _state(mujoco, model, data, waves: Waves, matter: Matter, local: Bodies) -> Waves:
    """The waves in the current state of MuJoCo."""
    mujoco.mj_forward(model, data)
    fields = {name: np.array(getattr(waves, name)) for name in ("centre", "rotation", "velocity", "angular_velocity")}
    for n in np.flatnonzero((np.asarray(waves.presence) > 0.5) & ~np.asarray(matter.held)):
        geom = model.geom(f"wave{n}").id
        linear, angular = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        body = model.geom_bodyid[geom]
        fields["centre"][n] = data.xpos[body] + data.xmat[body].reshape(3, 3) @ local.offset[n]
        rotation = np.zeros(4)
        mujoco.mju_mulQuat(rotation, data.xquat[body], np.asarray(local.rotation[n], np.float64))
        fields["rotation"][n] = rotation
        mujoco.mj_jac(model, data, linear, angular, np.asarray(fields["centre"][n], np.float64), body)
        fields["velocity"][n], fields["angular_velocity"][n] = linear @ data.qvel, angular @ data.qvel
    return waves.replace(**fields)  # type: ignore[attr-defined]
