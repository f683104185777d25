"""Rigid dynamics of waves: a pure, differentiable step in SI units.

Waves of one part are a rigid body with position x (its centre of mass), rotation, velocity v and angular momentum L. Between
impulses a body moves by the kick-drift-kick scheme of Stormer and Verlet, with substep h and force f,

    v <- v + h/2 f/m ;   x <- x + h v,   rotation <- exp(h w) rotation ;   v <- v + h/2 f/m                               (1)

with w = I^-1 L at the middle of the drift, which is symplectic, exact for a constant force and keeps L to the bit. Impulses
act before each drift so that its end is admissible, and after it so that its velocities are (RATTLE, Andersen 1983):

    joint:    C(end of the drift) = 0 ,    dC/dt = 0                                                                       (2)
    contact:  u_n >= -gap/h ;   u_n >= 0 where the gap is closed ;   u_n >= -e u_n(before) at an impact                      (3)
    friction: |tangential impulse| <= friction * normal impulse,  |turning impulse| <= rolling * normal impulse              (4)

A body that bounces drifts with its old velocity up to the impact, at a time t within the substep, and with the new one after
it; (3) then stands for the speeds just before and after t, from which those of the scheme differ by the force. (2)-(4) are
solved in turns (solver.py), every body's mass split among the contacts that share it, and all joints at once: impulses are
equal and opposite, so momentum is conserved, and nothing depends on what is not in touch with it.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsm_jax.core.geometry import Geometry, apply, combine, inertia, multiply, product, turned
from wsm_jax.core.physics.body import Body
from wsm_jax.core.physics.contact import Pair, best_normal, normal_near, touch_at
from wsm_jax.core.physics.manifold import POINTS, manifold
from wsm_jax.core.physics.matter import Joints, Matter, acting, checked_world
from wsm_jax.core.physics.solver import Contacts, Impulses, Inverse, Motion, Rows, after, closing, no_impulses, solve, totals
from wsm_jax.core.physics.triple import Matrix, Vector
from wsm_jax.snapshot import FIELDS, TICK_HZ, Waves, quaternion_to_matrix
from wsm_jax.typing import Array, Float, NpOrJax, pytree

Gravity = tuple[float | Array, float | Array, float | Array] | NpOrJax
"""Three numbers, m/s^2."""
GRAVITY_M_S2 = (0.0, 0.0, -9.81)
SUBSTEPS = 40
"""Substeps of a tick: 320 Hz."""
_SWEEPS = (16, 8)
_KEPT = 0.5
_PUSH_OUT_M_S = 0.5
_CLOSED_M = 1e-4
_NEVER_M_S = 1e4
_EXACT = "highest"


@pytree
class Bodies:
    """What stays constant over a rollout, one row a part."""

    inverse_mass: Float[Array, " N"]
    """1/kg; 0: held."""
    inertia: Float[Array, "N 3 3"]
    """About the centre of mass, in the frame of the part, kg m^2."""
    inverse_inertia: Float[Array, "N 3 3"]
    offset: Float[Array, "N 3"]
    """Centre of each wave in the frame of its part, m."""
    turn: Float[Array, "N 4"]
    """Rotation of each wave in the frame of its part."""


@pytree
class State:
    """Where the parts are and how they move, one row a part."""

    centre: Float[Array, "N 3"]
    rotation: Float[Array, "N 4"]
    velocity: Float[Array, "N 3"]
    momentum: Float[Array, "N 3"]
    """Angular momentum about the centre of mass (of a held part: its angular velocity), world."""


def _rotate(rotation: Array, vector: Array) -> Array:
    """Rotates vectors by quaternions."""
    return apply(quaternion_to_matrix(rotation), vector)


def bodies(waves: Waves, matter: Matter) -> tuple[Bodies, State]:
    """The rigid bodies that the waves [N] form, and their state.

    A part has the linear and the angular momentum of its waves, whether or not they move as one.
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
    # a tensor of kg m^2 may be tiny: inverted in units of its own trace
    trace = jnp.trace(tensor, axis1=-2, axis2=-1)[:, None, None]
    inverse = jnp.linalg.inv(tensor / trace) / trace
    free = ~held
    model = Bodies(free / safe, tensor, inverse * free[:, None, None], arm, jnp.asarray(waves.rotation))
    return model, State(centre, upright, velocity, momentum)


def placed(waves: Waves, matter: Matter, model: Bodies, state: State) -> Waves:
    """The waves [N] with poses and velocities of the state."""
    part = jnp.asarray(matter.part)
    rotation = state.rotation[part]
    arm = _rotate(rotation, model.offset)
    spin = _spin(model, state.rotation, state.momentum)[part]
    return Waves(**{name: jnp.asarray(getattr(waves, name)) for name in FIELDS}).replace(  # type: ignore[attr-defined]
        centre=state.centre[part] + arm,
        rotation=multiply(rotation, model.turn),
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
    """The two waves of every pair [P 2]."""
    geometry = Geometry.of(waves)
    a, b = (jax.tree.map(lambda x, side=side: jnp.asarray(x)[pairs[:, side]], geometry) for side in (0, 1))
    return a, b


def _until_touch(pair: Pair, speeds: list[tuple[Vector, Vector]], normal: Vector, h: float | Array) -> Array:
    """Time (s) until the waves of each pair touch along about `normal`; 0 where they do, or do not within `h`."""
    arms = pair.a.farthest_arm(normal), -pair.b.farthest_arm(normal)
    slow, fast = (velocity + spin.cross(arm) for arm, (velocity, spin) in zip(arms, speeds, strict=True))
    gap, speed = normal.dot(pair.offset + arms[1] - arms[0]), normal.dot(slow - fast)
    until = gap / jnp.maximum(speed, 1e-9)
    return jnp.where((gap > 0) & (until < h), until, 0.0)


def _contacts(
    waves: Waves, matter: Matter, state: State, start: Motion, pairs: Array, mask: Array, normals: Vector, h: float | Array
) -> Contacts:
    """The manifolds of `pairs` [P 2] of waves, whose normals were about `normals` [P].

    Waves that meet within the substep `h` (s) have theirs where they meet, for there the impulse acts; the gaps are those now.
    """
    a, b = _sides(waves, pairs)
    part = jnp.asarray(matter.part)[pairs]
    velocity, spin = jnp.asarray(waves.velocity), jnp.asarray(waves.angular_velocity)
    speeds = [(velocity[pairs[:, side]], spin[pairs[:, side]]) for side in (0, 1)]
    here = Pair(Body.of(a), Body.of(b))
    until = _until_touch(here, [(Vector.of(v), Vector.of(w)) for v, w in speeds], normals, h)[:, None]
    a, b = (
        x.replace(centre=x.centre + until * v, rotation=turned(x.rotation, until * w))  # type: ignore[attr-defined]
        for x, (v, w) in zip((a, b), speeds, strict=True)
    )
    there = Pair(Body.of(a), Body.of(b))
    points = manifold(there, touch_at(there, normal_near(there, normals)))
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
) -> tuple[Rows, Array]:
    """The rows of the joints at a pose of the parts, and how far each is off, [J 6] (m, rad)."""
    part = jnp.asarray(matter.part)
    ends = []
    for slot, anchor, frame in ((joints.a, joints.anchor_a, joints.frame_a), (joints.b, joints.anchor_b, joints.frame_b)):
        here, turn = part[slot], model.turn[slot]
        local = model.offset[slot] + _rotate(turn, jnp.asarray(anchor))
        place = centre[here] + _rotate(rotation[here], local)
        ends.append((here, place, multiply(multiply(rotation[here], turn), jnp.asarray(frame))))
    (part_a, place_a, frame_a), (part_b, place_b, frame_b) = ends
    axes = quaternion_to_matrix(frame_a)
    shift = combine(place_b - place_a, axes)
    between = multiply(frame_a * jnp.asarray([1.0, -1.0, -1.0, -1.0]), frame_b)
    turn = 2.0 * jnp.where(between[:, :1] < 0, -1.0, 1.0) * between[:, 1:]
    holds = jnp.where(acting(jnp.asarray(waves.presence) > 0.5, joints)[:, None], jnp.asarray(joints.holds), 0.0)
    rows = Rows(part_a, part_b, place_b - centre[part_a], place_b - centre[part_b], axes, holds)
    return rows, jnp.concatenate([shift, turn], -1)


@jax.jit
def joint_gap(waves: Waves, matter: Matter, joints: Joints) -> Float[Array, ""]:
    """How far apart (m) the two sides of the worst joint are, along what it holds; 0 without joints between present waves."""
    model, state = bodies(waves, matter)
    rows, off = _joint_rows(waves, matter, model, joints, state.centre, state.rotation)
    return jnp.max(jnp.abs(off[:, :3]) * rows.holds[:, :3], initial=0.0)


def _impacts(contacts: Contacts, speed: Array, pull: Array, h: float | Array) -> tuple[Array, Array]:
    """Least normal velocities [Q P] of (3), and the time to each impact that bounces (h where none does).

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
    state, before, behind, normals = carry
    free = (model.inverse_mass > 0)[:, None]
    here = placed(waves, matter, model, state)
    inverse = _inverse(model, state)
    kick = 0.5 * h * jnp.where(free, gravity, 0.0)
    start = _motion(state.velocity + kick, _spin(model, state.rotation, state.momentum))
    contacts = _contacts(here, matter, state, start, pairs, _eligible(waves, matter, joints, pairs), normals, h)
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
    # the share of the substep that a part still moves as before its bounce
    first = jnp.full(parts, h).at[contacts.a].min(jnp.min(until, 0)).at[contacts.b].min(jnp.min(until, 0))
    # (none where a joint pulls: before its impulses the old velocity is not one that the joint lets it have)
    tied = jnp.zeros(parts).at[jnp.concatenate([rows.a, rows.b])].max(jnp.tile(jnp.max(rows.holds, 1, initial=0.0), 2))
    share = jnp.where((first < h) & (tied == 0), first / h, 0.0)[:, None]
    drifting = state.replace(momentum=share * state.momentum + (1 - share) * momentum)  # type: ignore[attr-defined]
    centre, rotation = _drift(model, drifting, share * start.velocity.array() + (1 - share) * velocity, h)
    ended = State(centre, rotation, velocity, momentum)
    state, behind = _settle(waves, matter, joints, model, h, kick, contacts, ended, behind)
    return state, before, behind, jax.lax.stop_gradient(contacts.normal)


def _motion(velocity: Array, spin: Array) -> Motion:
    return Motion(Vector.of(velocity), Vector.of(spin))


def _inverse(model: Bodies, state: State) -> Inverse:
    """Inverse masses and inertias in the world."""
    matrix = quaternion_to_matrix(state.rotation)
    world = product(product(matrix, model.inverse_inertia), jnp.swapaxes(matrix, -1, -2))
    return Inverse(model.inverse_mass, Matrix.of(world))


def _settle(
    waves: Waves,
    matter: Matter,
    joints: Joints,
    model: Bodies,
    h: float | Array,
    kick: Array,
    contacts: Contacts,
    state: State,
    behind: Impulses,
) -> tuple[State, Impulses]:
    """The second half of a substep: kick, and the impulses that make velocities admissible."""
    free = (model.inverse_mass > 0)[:, None]
    inverse = _inverse(model, state)
    start = _motion(state.velocity + kick, _spin(model, state.rotation, state.momentum))
    gap = contacts.gap + h * closing(contacts, Motion(Vector.of(state.velocity), start.spin))
    rows, _ = _joint_rows(waves, matter, model, joints, state.centre, state.rotation)
    target = jnp.where(gap < _CLOSED_M, 0.0, -_NEVER_M_S)
    behind = solve(start, inverse, contacts, target, rows, None, behind, _SWEEPS[1])
    linear, angular = totals(contacts, rows, behind, len(model.inverse_mass))
    velocity = after(start, inverse, linear, angular).velocity.array()
    momentum = state.momentum + jnp.where(free, angular.array(), 0.0)
    return state.replace(velocity=velocity, momentum=momentum), behind  # type: ignore[attr-defined]


def _eligible(waves: Waves, matter: Matter, joints: Joints, pairs: Array) -> Array:
    """Which pairs of waves may touch: both present, of different parts that are not both held nor joined, [P]."""
    present, part, held = jnp.asarray(waves.presence) > 0.5, jnp.asarray(matter.part), jnp.asarray(matter.held)
    a, b = pairs[:, 0], pairs[:, 1]
    joined = jnp.zeros((len(part), len(part)), bool).at[part[joints.a], part[joints.b]].set(True)
    joined = joined | joined.T
    return present[a] & present[b] & (part[a] != part[b]) & ~(held[a] & held[b]) & ~joined[part[a], part[b]]


def _kept(impulses: Impulses, waves: Waves, matter: Matter, joints: Joints, pairs: Array) -> Impulses:
    """Where the next substep begins: half of the impulses of contacts of parts that joints tie.

    A contact that a joint does not let give way never settles; what it presses must not grow without end.
    """
    part, acts = jnp.asarray(matter.part), acting(jnp.asarray(waves.presence) > 0.5, joints)
    tied = jnp.zeros(len(part), bool).at[part[joints.a]].max(acts).at[part[joints.b]].max(acts)
    share = jnp.where(tied[part[pairs]].any(-1), _KEPT, 1.0)
    normal, tangent, turning = jax.tree.map(lambda x: share * x, (impulses.normal, impulses.tangent, impulses.turning))
    return Impulses(normal, tangent, turning, impulses.joint)


def _pairs(count: int, worlds: int) -> np.ndarray:
    """All pairs of waves within each of `worlds` blocks of slots, [P 2]. Raises ValueError where they are not equal blocks."""
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

    A pure function of its arguments, differentiable in waves and matter. Parts that are held move on with the velocities that
    they have. What does not touch a wave, directly or by others, has no influence on it, to the bit. `worlds`:
    the slots are so many separate worlds, one after the other, of equally many slots; faster than `jax.vmap` over them.

    A body that a joint pulls with T newtons at a lever of r metres swings with the frequency sqrt(T r / I), which a substep of
    h seconds follows while h sqrt(T r / I) < 2: light links under a heavy load need more substeps (`play` of change.py says
    so where it sees a joint torn; here nothing can).

    Raises ValueError for slots that are not so many equal worlds, for waves, matter and joints that do not belong together
    (matter.py), and for no substeps.
    """
    joints = checked_world(waves, matter, joints, "step")
    return _step(waves, matter, joints, tick_s, jnp.asarray(gravity), substeps, worlds)


@partial(jax.jit, static_argnums=(5, 6))
def _step(
    waves: Waves, matter: Matter, joints: Joints, tick_s: float | Array, gravity: Array, substeps: int, worlds: int
) -> Waves:
    """`step` of a world that has been checked."""
    if substeps < 1:
        raise ValueError(f"step: substeps={substeps}; needed 1 or more")
    with jax.default_matmul_precision(_EXACT):
        model, state = bodies(waves, matter)
        pairs = jnp.asarray(_pairs(waves.count, worlds))
        substep = partial(_substep, waves, matter, joints, model, pairs, tick_s / substeps, gravity)
        none = no_impulses((POINTS, len(pairs)), len(joints.a))
        first = Pair(*map(Body.of, _sides(waves, pairs)))
        carry = state, none, none, best_normal(first, iterations=6, starts=2)

        # worked out anew for the gradient: what a substep passes through is many times what it hands on
        @partial(jax.checkpoint, prevent_cse=False)
        def advance(carry: Any) -> Any:
            state, before, behind, normals = substep(carry)
            if len(joints.a):
                before, behind = (_kept(impulses, waves, matter, joints, pairs) for impulses in (before, behind))
            return state, before, behind, normals

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
    """The waves [K+1 N ...] at `ticks` ticks from the given ones [N ...] on, those included: `step` after `step`.

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
    """`rollout` of a world that has been checked."""
    first = Waves(**{name: jnp.asarray(getattr(waves, name)) for name in FIELDS})

    def tick(now: Waves, _) -> tuple[Waves, Waves]:
        after_tick = _step(now, matter, joints, tick_s, gravity, substeps, 1)
        return after_tick, after_tick

    _, later = jax.lax.scan(tick, first, None, length=ticks)
    return jax.tree.map(lambda x, y: jnp.concatenate([x[None], y]), first, later)
