"""Rigid dynamics of waves: a pure, differentiable step in SI units.

Waves of one part are a rigid body with position x (its centre of mass), rotation, velocity v and angular momentum L. Between
impulses a body moves by the kick-drift-kick scheme of Stormer and Verlet, with substep h and force f,

    v <- v + h/2 f/m ;   x <- x + h v,   rotation <- exp(h w) rotation ;   v <- v + h/2 f/m                               (1)

with w = I^-1 L at the middle of the drift, which is symplectic, exact for a constant force and keeps L to the bit. Impulses
before each drift make its end positions admissible, and impulses after it make its velocities admissible (RATTLE, Andersen
1983):

    joint:    C(end of the drift) = 0 ,    dC/dt = 0                                                                       (2)
    contact:  u_n >= -gap/h ;   u_n >= 0 where the gap is closed ;   u_n >= -e u_n(before) at an impact                      (3)
    friction: |tangential impulse| <= friction * normal impulse,  |turning impulse| <= rolling * normal impulse              (4)

A body that bounces drifts with its old velocity until the impact, at a time t within the substep, and with the new velocity
afterwards; (3) then holds for the speeds just before and after t, which differ from those of the scheme by the force. (2)-(4)
are solved alternately (solver.py): contacts with the mass of every body split among them, and all joints at once. Impulses are
equal and opposite, so momentum is conserved, and bodies without contact do not influence each other.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsm_jax.core.geometry import Geometry, apply, combine, inertia, product
from wsm_jax.core.physics.body import Body
from wsm_jax.core.physics.contact import Pair, best_normal, contact_at, normal_near
from wsm_jax.core.physics.manifold import POINTS, manifold
from wsm_jax.core.physics.matter import Joints, Matter, acting, checked_world
from wsm_jax.core.physics.solver import (
    Contacts,
    Impulses,
    Inverse,
    JointRows,
    Motion,
    after,
    closing,
    no_impulses,
    solve,
    totals,
)
from wsm_jax.core.physics.triple import Matrix, Vector
from wsm_jax.core.rotation import conjugate, multiply, turned
from wsm_jax.snapshot import FIELDS, TICK_HZ, Waves, quaternion_to_matrix
from wsm_jax.typing import Array, Float, NpOrJax, pytree

Gravity = tuple[float | Array, float | Array, float | Array] | NpOrJax
"""Three numbers, m/s^2."""
GRAVITY_M_S2 = (0.0, 0.0, -9.81)
SUBSTEPS = 40
"""Substeps of a tick: 320 Hz."""
_SWEEPS = (16, 8)
_WARM_START_SHARE = 0.5
_PUSH_OUT_M_S = 0.5
_CLOSED_M = 1e-4
_NEVER_M_S = 1e4
_EXACT = "highest"


@pytree
class Bodies:
    """Constants of a rollout, one row per part."""

    inverse_mass: Float[Array, " N"]
    """1/kg; 0 for held parts."""
    inertia: Float[Array, "N 3 3"]
    """About the centre of mass, in the frame of the part, kg m^2."""
    inverse_inertia: Float[Array, "N 3 3"]
    offset: Float[Array, "N 3"]
    """Centre of each wave in the frame of its part, m."""
    rotation: Float[Array, "N 4"]
    """Rotation of each wave in the frame of its part."""


@pytree
class State:
    """Poses and motion of the parts, one row per part."""

    centre: Float[Array, "N 3"]
    rotation: Float[Array, "N 4"]
    velocity: Float[Array, "N 3"]
    momentum: Float[Array, "N 3"]
    """Angular momentum about the centre of mass, world; for a held part its angular velocity."""


def _rotate(rotation: Array, vector: Array) -> Array:
    """Rotate vectors by quaternions."""
    return apply(quaternion_to_matrix(rotation), vector)


def bodies(waves: Waves, matter: Matter) -> tuple[Bodies, State]:
    """Rigid bodies of the waves [N], and their state.

    A part has the total linear and angular momentum of its waves, even if these move differently.
    """
    present = jnp.asarray(waves.presence) > 0.5
    part = jnp.asarray(matter.part)
    mass = jnp.where(present, jnp.asarray(matter.mass), 0.0)

    def total(x: Array) -> Array:
        return jnp.zeros_like(x).at[part].add(x)

    safe = jnp.maximum(total(mass), 1e-12)
    x, v = jnp.asarray(waves.centre), jnp.asarray(waves.velocity)
    used = (total(mass) > 0)[:, None]
    centre = jnp.where(used, total(mass[:, None] * x) / safe[:, None], x)
    velocity = jnp.where(used, total(mass[:, None] * v) / safe[:, None], v)
    arm = x - centre[part]
    own = inertia(Geometry.of(waves), mass)
    steiner = jnp.sum(arm * arm, -1)[:, None, None] * jnp.eye(3) - arm[:, :, None] * arm[:, None, :]
    tensor = total(own + mass[:, None, None] * steiner) + jnp.where(used, 0.0, 1.0)[:, None] * jnp.eye(3)
    spin = jnp.asarray(waves.angular_velocity)
    momentum = mass[:, None] * jnp.cross(arm, v - velocity[part]) + apply(own, spin)
    some, held = (jnp.zeros(part.shape, bool).at[part].max(x) for x in (present, jnp.asarray(matter.held)))
    held = held | ~some
    momentum = jnp.where(held[:, None], spin, total(momentum))
    count = len(part)
    upright = jnp.tile(jnp.asarray([1.0, 0.0, 0.0, 0.0]), (count, 1))
    # a tensor in kg m^2 may be tiny: invert it in units of its trace
    trace = jnp.trace(tensor, axis1=-2, axis2=-1)[:, None, None]
    inverse = jnp.linalg.inv(tensor / trace) / trace
    free = ~held
    model = Bodies(free / safe, tensor, inverse * free[:, None, None], arm, jnp.asarray(waves.rotation))
    return model, State(centre, upright, velocity, momentum)


def placed(waves: Waves, matter: Matter, model: Bodies, state: State) -> Waves:
    """The waves [N] with the poses and velocities of a state."""
    part = jnp.asarray(matter.part)
    rotation = state.rotation[part]
    arm = _rotate(rotation, model.offset)
    spin = _spin(model, state.rotation, state.momentum)[part]
    return Waves(**{name: jnp.asarray(getattr(waves, name)) for name in FIELDS}).replace(  # type: ignore[attr-defined]
        centre=state.centre[part] + arm,
        rotation=multiply(rotation, model.rotation),
        velocity=state.velocity[part] + jnp.cross(spin, arm),
        angular_velocity=spin,
    )


def _spin(model: Bodies, rotation: Array, momentum: Array) -> Array:
    """Angular velocity, rad/s."""
    matrix = quaternion_to_matrix(rotation)
    spin = apply(matrix, apply(model.inverse_inertia, combine(momentum, matrix)))
    return jnp.where((model.inverse_mass > 0)[:, None], spin, momentum)


def _drift(model: Bodies, state: State, velocity: Array, h: Array | float) -> tuple[Array, Array]:
    """Position and rotation after (1) with velocity `velocity` and the momentum of the state."""
    half = turned(state.rotation, 0.5 * h * _spin(model, state.rotation, state.momentum))
    return state.centre + h * velocity, turned(state.rotation, h * _spin(model, half, state.momentum))


def _sides(waves: Waves, pairs: Array) -> tuple[Geometry, Geometry]:
    """First and second wave of every pair [P 2]."""
    geometry = Geometry.of(waves)
    a, b = (jax.tree.map(lambda x, side=side: jnp.asarray(x)[pairs[:, side]], geometry) for side in (0, 1))
    return a, b


def _time_to_touch(pair: Pair, speeds: list[tuple[Vector, Vector]], normal: Vector, h: float | Array) -> Array:
    """Time (s) until the waves of each pair touch along `normal`; 0 if they touch already, or not within `h`."""
    arms = pair.a.farthest_arm(normal), -pair.b.farthest_arm(normal)
    slow, fast = (velocity + spin.cross(arm) for arm, (velocity, spin) in zip(arms, speeds, strict=True))
    gap, speed = normal.dot(pair.offset + arms[1] - arms[0]), normal.dot(slow - fast)
    until = gap / jnp.maximum(speed, 1e-9)
    return jnp.where((gap > 0) & (until < h), until, 0.0)


def _contacts(
    waves: Waves, matter: Matter, state: State, start: Motion, pairs: Array, mask: Array, normals: Vector, h: float | Array
) -> Contacts:
    """Contact manifolds of `pairs` [P 2] of waves; `normals` [P] are those of the last substep.

    For waves that meet within the substep `h` (s), points and normals are those at the impact, where the impulse acts; gaps are
    those at the start of the substep.
    """
    a, b = _sides(waves, pairs)
    part = jnp.asarray(matter.part)[pairs]
    velocity, spin = jnp.asarray(waves.velocity), jnp.asarray(waves.angular_velocity)
    speeds = [(velocity[pairs[:, side]], spin[pairs[:, side]]) for side in (0, 1)]
    now = Pair(Body.of(a), Body.of(b))
    until = _time_to_touch(now, [(Vector.of(v), Vector.of(w)) for v, w in speeds], normals, h)[:, None]
    a, b = (
        x.replace(centre=x.centre + until * v, rotation=turned(x.rotation, until * w))  # type: ignore[attr-defined]
        for x, (v, w) in zip((a, b), speeds, strict=True)
    )
    impact = Pair(Body.of(a), Body.of(b))
    points = manifold(impact, contact_at(impact, normal_near(impact, normals)))
    later = until[:, 0]
    middle = Vector.of(state.centre), start.velocity
    middle_a, middle_b = (
        place + velocity * later for place, velocity in (jax.tree.map(lambda x, k=k: x[part[:, k]], middle) for k in (0, 1))
    )

    def larger(values: NpOrJax) -> Array:
        return jnp.max(jnp.asarray(values)[pairs], -1)

    contacts = Contacts(
        a=part[:, 0],
        b=part[:, 1],
        arm_a=points.point - middle_a,
        arm_b=points.point - middle_b,
        normal=points.normal,
        gap=points.gap,
        friction=larger(matter.friction),
        rolling=larger(matter.rolling),
        restitution=larger(matter.restitution),
        active=mask,
    )
    return contacts.replace(gap=contacts.gap - later * closing(contacts, start))  # type: ignore[attr-defined]


def _joint_rows(
    waves: Waves, matter: Matter, model: Bodies, joints: Joints, centre: Array, rotation: Array
) -> tuple[JointRows, Array]:
    """Constraint rows of the joints at a pose of the parts, and their errors [J 6] (m, rad)."""
    part = jnp.asarray(matter.part)
    ends = []
    for slot, anchor, frame in ((joints.a, joints.anchor_a, joints.frame_a), (joints.b, joints.anchor_b, joints.frame_b)):
        own, wave_rotation = part[slot], model.rotation[slot]
        local = model.offset[slot] + _rotate(wave_rotation, jnp.asarray(anchor))
        position = centre[own] + _rotate(rotation[own], local)
        ends.append((own, position, multiply(multiply(rotation[own], wave_rotation), jnp.asarray(frame))))
    (part_a, position_a, frame_a), (part_b, position_b, frame_b) = ends
    axes = quaternion_to_matrix(frame_a)
    shift = combine(position_b - position_a, axes)
    between = multiply(conjugate(frame_a), frame_b)
    angle = 2.0 * jnp.where(between[:, :1] < 0, -1.0, 1.0) * between[:, 1:]
    holds = jnp.where(acting(jnp.asarray(waves.presence) > 0.5, joints)[:, None], jnp.asarray(joints.holds), 0.0)
    rows = JointRows(part_a, part_b, position_b - centre[part_a], position_b - centre[part_b], axes, holds)
    return rows, jnp.concatenate([shift, angle], -1)


@jax.jit
def joint_gap(waves: Waves, matter: Matter, joints: Joints) -> Float[Array, ""]:
    """Largest gap (m) of a joint, along its held axes; 0 without joints between present waves."""
    model, state = bodies(waves, matter)
    rows, off = _joint_rows(waves, matter, model, joints, state.centre, state.rotation)
    return jnp.max(jnp.abs(off[:, :3]) * rows.holds[:, :3], initial=0.0)


def _impacts(contacts: Contacts, speed: Array, pull: Array, h: float | Array) -> tuple[Array, Array]:
    """Minimum normal velocities [Q P] of (3), and the time until each bouncing impact (h if none).

    `speed` is the normal velocity after the first kick, `pull` [P] the acceleration along the normal, m/s^2.
    """
    slow = 4.0 * h * jnp.abs(pull)
    gap = contacts.gap
    bounces = (speed < -slow) & (gap + h * speed < 0) & (contacts.restitution > 0) & contacts.active
    push_out = jnp.minimum(-0.2 * gap / h, _PUSH_OUT_M_S)
    target = jnp.where(gap > 0, -gap / h, push_out)
    until = jnp.clip(gap / jnp.maximum(-speed, 1e-9), 0.0, h)
    restitution = contacts.restitution
    back = -restitution * speed - (1.0 + restitution) * pull * (until - 0.5 * h)
    return jnp.where(bounces, jnp.maximum(back, 0.0), target), jnp.where(bounces, until, h)


def _substep(
    waves: Waves, matter: Matter, joints: Joints, model: Bodies, pairs: Array, h: float | Array, gravity: Array, carry: Any
) -> Any:
    """One substep: kick, impulses, drift, kick, impulses."""
    state, before, velocity_impulses, normals = carry
    free = (model.inverse_mass > 0)[:, None]
    current = placed(waves, matter, model, state)
    inverse = _inverse(model, state)
    kick = 0.5 * h * jnp.where(free, gravity, 0.0)
    start = _motion(state.velocity + kick, _spin(model, state.rotation, state.momentum))
    contacts = _contacts(current, matter, state, start, pairs, _eligible(waves, matter, joints, pairs), normals, h)
    speed = closing(contacts, start)
    near = contacts.active & jnp.any(contacts.gap + h * jnp.minimum(speed, 0.0) < 1e-3, 0)
    contacts = contacts.replace(active=near)  # type: ignore[attr-defined]
    pull = Vector.of(kick[contacts.b] - kick[contacts.a]).dot(contacts.normal) * (2.0 / h)
    target, until = _impacts(contacts, speed, pull, h)
    rows, _ = _joint_rows(waves, matter, model, joints, state.centre, state.rotation)

    _, apart = _joint_rows(waves, matter, model, joints, *_drift(model, state, start.velocity.array(), h))
    parts = len(model.inverse_mass)
    before = solve(start, inverse, contacts, target, rows, apart / h, before, _SWEEPS[0])
    linear, angular = totals(contacts, rows, before, parts)
    velocity = after(start, inverse, linear, angular).velocity.array()
    momentum = state.momentum + jnp.where(free, angular.array(), 0.0)
    # fraction of the substep before the bounce of a part
    first = jnp.full(parts, h).at[contacts.a].min(jnp.min(until, 0)).at[contacts.b].min(jnp.min(until, 0))
    # (0 for parts with joints: their old velocity, before joint impulses, violates the joint)
    tied = jnp.zeros(parts).at[jnp.concatenate([rows.a, rows.b])].max(jnp.tile(jnp.max(rows.holds, 1, initial=0.0), 2))
    share = jnp.where((first < h) & (tied == 0), first / h, 0.0)[:, None]
    drifting = state.replace(momentum=share * state.momentum + (1 - share) * momentum)  # type: ignore[attr-defined]
    centre, rotation = _drift(model, drifting, share * start.velocity.array() + (1 - share) * velocity, h)
    ended = State(centre, rotation, velocity, momentum)
    state, velocity_impulses = _finish_substep(waves, matter, joints, model, h, kick, contacts, ended, velocity_impulses)
    return state, before, velocity_impulses, jax.lax.stop_gradient(contacts.normal)


def _motion(velocity: Array, spin: Array) -> Motion:
    return Motion(Vector.of(velocity), Vector.of(spin))


def _inverse(model: Bodies, state: State) -> Inverse:
    """Inverse masses and inertias in the world."""
    matrix = quaternion_to_matrix(state.rotation)
    world = product(product(matrix, model.inverse_inertia), jnp.swapaxes(matrix, -1, -2))
    return Inverse(model.inverse_mass, Matrix.of(world))


def _finish_substep(
    waves: Waves,
    matter: Matter,
    joints: Joints,
    model: Bodies,
    h: float | Array,
    kick: Array,
    contacts: Contacts,
    state: State,
    velocity_impulses: Impulses,
) -> tuple[State, Impulses]:
    """The second half of a substep: kick, and impulses that make the velocities admissible."""
    free = (model.inverse_mass > 0)[:, None]
    inverse = _inverse(model, state)
    start = _motion(state.velocity + kick, _spin(model, state.rotation, state.momentum))
    gap = contacts.gap + h * closing(contacts, Motion(Vector.of(state.velocity), start.spin))
    rows, _ = _joint_rows(waves, matter, model, joints, state.centre, state.rotation)
    target = jnp.where(gap < _CLOSED_M, 0.0, -_NEVER_M_S)
    velocity_impulses = solve(start, inverse, contacts, target, rows, None, velocity_impulses, _SWEEPS[1])
    linear, angular = totals(contacts, rows, velocity_impulses, len(model.inverse_mass))
    velocity = after(start, inverse, linear, angular).velocity.array()
    momentum = state.momentum + jnp.where(free, angular.array(), 0.0)
    return state.replace(velocity=velocity, momentum=momentum), velocity_impulses  # type: ignore[attr-defined]


def _eligible(waves: Waves, matter: Matter, joints: Joints, pairs: Array) -> Array:
    """Mask of pairs that can touch, [P]: both waves present, parts different, not both held and not joined."""
    present, part, held = jnp.asarray(waves.presence) > 0.5, jnp.asarray(matter.part), jnp.asarray(matter.held)
    a, b = pairs[:, 0], pairs[:, 1]
    joined = jnp.zeros((len(part), len(part)), bool).at[part[joints.a], part[joints.b]].set(True)
    joined = joined | joined.T
    return present[a] & present[b] & (part[a] != part[b]) & ~(held[a] & held[b]) & ~joined[part[a], part[b]]


def _warm_start(impulses: Impulses, waves: Waves, matter: Matter, joints: Joints, pairs: Array) -> Impulses:
    """Warm start of the next substep: contact impulses, halved for parts with joints.

    A contact that a joint holds in place never settles, and its impulse must not grow without bound.
    """
    part, acts = jnp.asarray(matter.part), acting(jnp.asarray(waves.presence) > 0.5, joints)
    tied = jnp.zeros(len(part), bool).at[part[joints.a]].max(acts).at[part[joints.b]].max(acts)
    share = jnp.where(tied[part[pairs]].any(-1), _WARM_START_SHARE, 1.0)
    normal, tangent, turning = jax.tree.map(lambda x: share * x, (impulses.normal, impulses.tangent, impulses.turning))
    return Impulses(normal, tangent, turning, impulses.joint)


def _pairs(count: int, worlds: int) -> np.ndarray:
    """All pairs of waves within each of `worlds` blocks of slots, [P 2]. Raises ValueError for blocks of unequal size."""
    if worlds < 1 or count % worlds:
        raise ValueError(f"step: {count} waves in worlds={worlds}; needed worlds of equally many slots")
    each = count // worlds
    first = np.arange(worlds)[:, None, None] * each
    return (first + np.stack(np.triu_indices(each, 1), -1)).reshape(-1, 2)


def step(
    waves: Waves,
    matter: Matter,
    joints: Joints | None = None,
    *,
    tick_s: float | Array = 1.0 / TICK_HZ,
    substeps: int = SUBSTEPS,
    gravity: Gravity = GRAVITY_M_S2,
    worlds: int = 1,
) -> Waves:
    """The waves [N ...] one tick of `tick_s` seconds later, by `substeps` substeps; gravity in m/s^2.

    A pure function, differentiable in waves and matter. Held parts keep their velocities. Waves without direct or indirect
    contact do not influence each other, to the bit. With `worlds`, the slots are that number of separate worlds of equal size,
    one after the other; faster than `jax.vmap`.

    A body pulled by a joint with T newtons at a lever of r metres swings with the frequency sqrt(T r / I), and a substep of h
    seconds is stable for h sqrt(T r / I) < 2: light links under a heavy load need more substeps (`play` of change.py detects
    torn joints; this function does not).

    Raises ValueError for worlds of unequal size, inconsistent waves, matter and joints (matter.py), and no substeps.
    """
    joints = checked_world(waves, matter, joints, "step")
    return _step(waves, matter, joints, tick_s, jnp.asarray(gravity), substeps, worlds)


@partial(jax.jit, static_argnums=(5, 6))
def _step(
    waves: Waves, matter: Matter, joints: Joints, tick_s: float | Array, gravity: Array, substeps: int, worlds: int
) -> Waves:
    """`step` of a validated world."""
    if substeps < 1:
        raise ValueError(f"step: substeps={substeps}; needed 1 or more")
    with jax.default_matmul_precision(_EXACT):
        model, state = bodies(waves, matter)
        pairs = jnp.asarray(_pairs(waves.count, worlds))
        substep = partial(_substep, waves, matter, joints, model, pairs, tick_s / substeps, gravity)
        none = no_impulses((POINTS, len(pairs)), len(joints.a))
        first = Pair(*map(Body.of, _sides(waves, pairs)))
        carry = state, none, none, best_normal(first, iterations=6, starts=2)

        # recomputed for the gradient: the intermediate values of a substep are many times its state
        @partial(jax.checkpoint, prevent_cse=False)
        def advance(carry: Any) -> Any:
            state, before, velocity_impulses, normals = substep(carry)
            if len(joints.a):
                before, velocity_impulses = (
                    _warm_start(impulses, waves, matter, joints, pairs) for impulses in (before, velocity_impulses)
                )
            return state, before, velocity_impulses, normals

        state, *_ = jax.lax.fori_loop(0, substeps, lambda _, carry: advance(carry), carry)
        return placed(waves, matter, model, state)


def rollout(
    waves: Waves,
    matter: Matter,
    joints: Joints | None = None,
    *,
    ticks: int,
    tick_s: float | Array = 1.0 / TICK_HZ,
    substeps: int = SUBSTEPS,
    gravity: Gravity = GRAVITY_M_S2,
) -> Waves:
    """The waves [K+1 N ...] after 0 .. `ticks` ticks from waves [N ...], by repeated `step`.

    Raises ValueError as `step` does, and for a negative number of ticks.
    """
    if ticks < 0:
        raise ValueError(f"rollout: ticks={ticks}; needed 0 or more")
    joints = checked_world(waves, matter, joints, "rollout")
    return _rollout(waves, matter, joints, tick_s, jnp.asarray(gravity), ticks, substeps)


@partial(jax.jit, static_argnums=(5, 6))
def _rollout(
    waves: Waves, matter: Matter, joints: Joints, tick_s: float | Array, gravity: Array, ticks: int, substeps: int
) -> Waves:
    """`rollout` of a validated world."""
    first = Waves(**{name: jnp.asarray(getattr(waves, name)) for name in FIELDS})

    def tick(now: Waves, _) -> tuple[Waves, Waves]:
        after_tick = _step(now, matter, joints, tick_s, gravity, substeps, 1)
        return after_tick, after_tick

    _, later = jax.lax.scan(tick, first, None, length=ticks)
    return jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), first, later)
