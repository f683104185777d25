"""Impulses of contacts and joints: equations (2) to (4) of dynamics.py.

Gauss-Seidel over the points of one contact, Jacobi over contacts with split masses: each of the n contacts of a body acts on a
separate body of mass m/n, and their impulses are summed (Tonge, Benevolenski and Voroshilov 2012). Alternating with the
contacts, all joints are solved at once by their full matrix, so a chain is stiff at any mass ratio.
"""

import jax
import jax.numpy as jnp

from wsm_jax.core.geometry import apply, combine
from wsm_jax.core.physics.triple import Matrix, Vector
from wsm_jax.typing import Array, pytree


@pytree
class Motion:
    """Velocities of the parts, world frame, [N]."""

    velocity: Vector
    """m/s."""
    spin: Vector
    """rad/s."""


@pytree
class Inverse:
    """Inverse masses (1/kg) and inertias (world, 1/(kg m^2)) of the parts, [N]; 0 for held parts."""

    mass: Array
    inertia: Matrix


@pytree
class Contacts:
    """P contacts of Q points."""

    a: Array
    """Part A, [P]; the normal points from A to B."""
    b: Array
    arm_a: Vector
    """From the centre of mass of A to the point, [Q P], m."""
    arm_b: Vector
    normal: Vector
    """[P]"""
    gap: Array
    """[Q P], m."""
    friction: Array
    """[P]"""
    rolling: Array
    """[P], m."""
    restitution: Array
    """[P]"""
    active: Array
    """[P], mask of contacts that can have impulses."""


@pytree
class JointRows:
    """J joints of 6 constraint rows: three translations, three rotations along the axes of the joint."""

    a: Array
    b: Array
    arm_a: Array
    """[J 3], m."""
    arm_b: Array
    axes: Array
    """Columns: the axes of the joint, world, [J 3 3]."""
    holds: Array
    """[J 6], 0 or 1."""


@pytree
class Impulses:
    """Accumulated impulses: along the normals, tangential and angular, [Q P], and of the joint rows, [J 6]."""

    normal: Array
    tangent: Vector
    turning: Vector
    joint: Array


def no_impulses(points: tuple[int, int], joints: int) -> Impulses:
    """All zero, for [Q P] points and J joints."""
    return Impulses(jnp.zeros(points), Vector.zeros(points), Vector.zeros(points), jnp.zeros((joints, 6)))


def totals(contacts: Contacts, rows: JointRows, impulses: Impulses, parts: int) -> tuple[Vector, Vector]:
    """Sum of the impulses on each part (kg m/s) and of their moments about its centre of mass, [N].

    A and B get opposite impulses.
    """
    push = contacts.normal * impulses.normal + impulses.tangent
    turn_a = (contacts.arm_a.cross(push) + impulses.turning).map(_over_points)
    turn_b = (contacts.arm_b.cross(push) + impulses.turning).map(_over_points)
    push = push.map(_over_points)
    on_a, on_b = (jnp.stack([*vars(push).values(), *vars(turn).values()], -1) for turn in (turn_a, turn_b))
    sums = jnp.zeros((parts, 6)).at[contacts.a].add(-on_a).at[contacts.b].add(on_b)
    if len(rows.a):
        pull, twist = apply(rows.axes, impulses.joint[:, :3]), apply(rows.axes, impulses.joint[:, 3:])
        at_a, at_b = (jnp.concatenate([pull, jnp.cross(arm, pull) + twist], -1) for arm in (rows.arm_a, rows.arm_b))
        sums = sums.at[rows.a].add(-at_a).at[rows.b].add(at_b)
    return Vector.of(sums[:, :3]), Vector.of(sums[:, 3:])


def _over_points(x: Array) -> Array:
    return jnp.sum(x, 0)


def after(motion: Motion, inverse: Inverse, linear: Vector, angular: Vector) -> Motion:
    """The motion after impulses and their moments."""
    return Motion(motion.velocity + linear * inverse.mass, motion.spin + inverse.inertia.apply(angular))


def closing(contacts: Contacts, motion: Motion) -> Array:
    """Velocity of B against A along the normal at every contact point, [Q P], m/s."""

    def of(part: Array, arm: Vector) -> Vector:
        velocity, spin = (vector.map(lambda x: x[part]) for vector in (motion.velocity, motion.spin))
        return velocity + spin.cross(arm)

    return contacts.normal.dot(of(contacts.b, contacts.arm_b) - of(contacts.a, contacts.arm_a))


def solve(
    motion: Motion,
    inverse: Inverse,
    contacts: Contacts,
    target: Array,
    rows: JointRows,
    off: Array | None,
    impulses: Impulses,
    sweeps: int,
) -> Impulses:
    """Impulses that make the normal velocities at contacts at least `target` [Q P] (m/s) and keep the joints closed.

    `motion` is without impulses. `off` [J 6] are the velocities (m/s, rad/s) that the joints must remove; None: those of
    `motion`. Impulses change them linearly, as they change velocities, so the problem is convex and the sweeps are stable.
    `impulses` is the warm start.
    """
    parts = len(inverse.mass)
    sharing = jnp.zeros(parts).at[contacts.a].add(contacts.active).at[contacts.b].add(contacts.active)
    split = jax.tree.map(lambda x: jnp.maximum(sharing, 1.0) * x, inverse)
    response = _joint_responses(rows, inverse) if len(rows.a) else None
    of_a, of_b = (jax.tree.map(lambda x, part=part: x[part], split) for part in (contacts.a, contacts.b))
    compliance = _compliance(contacts, of_a, of_b)

    bias = 0.0 if off is None else off - _row_speeds(rows, motion)

    def sweep(_, impulses: Impulses) -> Impulses:
        linear, angular = totals(contacts, rows, impulses, parts)
        now = after(motion, inverse, linear, angular)
        normal, tangent, turning = _contact_sweep(now, of_a, of_b, contacts, compliance, target, impulses)
        pressed = Impulses(normal, tangent, turning, impulses.joint)
        if response is None:
            return pressed
        linear, angular = totals(contacts, rows, pressed, parts)
        error = _row_speeds(rows, after(motion, inverse, linear, angular)) + bias
        change = apply(response, error.reshape(-1)).reshape(error.shape)
        return pressed.replace(joint=pressed.joint - change)  # type: ignore[attr-defined]

    return jax.lax.fori_loop(0, sweeps, sweep, impulses)


def _row_speeds(rows: JointRows, motion: Motion) -> Array:
    """Velocity of B against A along the rows, [J 6]."""
    velocity, spin = motion.velocity.array(), motion.spin.array()
    at_b = velocity[rows.b] + jnp.cross(spin[rows.b], rows.arm_b)
    at_a = velocity[rows.a] + jnp.cross(spin[rows.a], rows.arm_a)
    both = jnp.stack([at_b - at_a, spin[rows.b] - spin[rows.a]], 1)
    return combine(both, rows.axes[:, None]).reshape(-1, 6)


def _joint_responses(rows: JointRows, inverse: Inverse) -> Array:
    """Impulses along all rows of all joints per velocities along them, [6J 6J]: the inverse of J M^-1 J^T; 0 for free rows.

    In float32 with a relative softness of 1e-5, so that redundant joints (a closed loop) do not make it singular; the sweeps of
    `solve` correct the remaining error.
    """
    inertia = jnp.stack([row.array() for row in vars(inverse.inertia).values()], -2)
    part = jnp.concatenate([rows.a, rows.b])
    sides = [(-1.0, rows.arm_a), (1.0, rows.arm_b)]
    along = jnp.swapaxes(rows.axes, -1, -2)
    forces = jnp.concatenate([sign * jnp.concatenate([along, jnp.zeros_like(along)], 1) for sign, _ in sides])
    moments = jnp.concatenate([sign * jnp.concatenate([jnp.cross(arm[:, None], along), along], 1) for sign, arm in sides])
    pushed = jnp.einsum("iak,i,jbk->iajb", forces, inverse.mass[part], forces)
    twisted = jnp.einsum("iak,ikl,jbl->iajb", moments, inertia[part], moments)
    shared = (part[:, None] == part)[:, None, :, None]
    count = len(rows.a)
    ends = jnp.where(shared, pushed + twisted, 0.0).reshape(2, count, 6, 2, count, 6)
    stiffness = jnp.sum(ends, (0, 3)).reshape(6 * count, 6 * count)
    held = rows.holds.reshape(-1) > 0
    diagonal = jnp.diagonal(stiffness)
    unit = jnp.where(held & (diagonal > 0), jax.lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1.0)), 0.0)
    scaled = unit[:, None] * stiffness * unit + jnp.diag(jnp.where(unit > 0, 1e-5, 1.0))
    factor = jax.scipy.linalg.cho_factor(scaled)
    return unit[:, None] * jax.scipy.linalg.cho_solve(factor, jnp.eye(6 * count)) * unit


@pytree
class Compliance:
    """Velocity changes per impulse at contact points."""

    normal: Vector
    """[Q P], change of the point velocity by an impulse along the normal."""
    across: Array
    """[Q P], upper bound of the change by an impulse in any direction."""
    turning: Array
    """[P], upper bound of the change of the angular velocity by a moment."""


def _compliance(contacts: Contacts, of_a: Inverse, of_b: Inverse) -> Compliance:
    rows = [
        one + other
        for one, other in zip(
            _point_response(contacts.arm_a, of_a.inertia), _point_response(contacts.arm_b, of_b.inertia), strict=True
        )
    ]
    mass = of_a.mass + of_b.mass
    n, zero = contacts.normal, jnp.zeros_like(mass)
    rows = [row + Vector(*(mass if i == j else zero for j in range(3))) for i, row in enumerate(rows)]
    inertia = [one + other for one, other in zip(vars(of_a.inertia).values(), vars(of_b.inertia).values(), strict=True)]
    # the largest row sum bounds the norm of a symmetric matrix
    across, turning = (_largest([_size(row) for row in some]) for some in (rows, inertia))
    return Compliance(Vector(*(row.dot(n) for row in rows)), jnp.maximum(across, 1e-12), jnp.maximum(turning, 1e-12))


def _size(vector: Vector) -> Array:
    """L1 norm."""
    return jnp.abs(vector.x) + jnp.abs(vector.y) + jnp.abs(vector.z)


def _largest(values: list[Array]) -> Array:
    return jnp.maximum(jnp.maximum(values[0], values[1]), values[2])


def _point_response(arm: Vector, inertia: Matrix) -> list[Vector]:
    """JointRows of the velocity of a point per impulse at it that comes from turning: [r]x^T I^-1 [r]x."""
    # r x each row of a matrix is its product with [r]x^T
    half = Matrix(*(arm.cross(row) for row in vars(inertia).values())).transposed
    return [arm.cross(row) for row in vars(half).values()]


def _contact_sweep(
    motion: Motion, of_a: Inverse, of_b: Inverse, contacts: Contacts, compliance: Compliance, target: Array, impulses: Impulses
) -> tuple[Array, Vector, Vector]:
    """One Gauss-Seidel sweep over the points of each contact; the new impulses."""
    n = contacts.normal

    def at_point(moving: tuple[Vector, ...], point: tuple) -> tuple[tuple[Vector, ...], tuple[Array, Vector, Vector]]:
        va, wa, vb, wb = moving
        ra, rb, pushed, across, wanted, pressing, rubbing, rolling = point
        relative = vb + wb.cross(rb) - va - wa.cross(ra)
        stiffness = jnp.maximum(pushed.dot(n), 1e-12)
        pressed = jnp.maximum(pressing + (wanted - relative.dot(n)) / stiffness, 0.0) * contacts.active
        relative = relative + pushed * (pressed - pressing)
        along = relative - n * relative.dot(n)
        rubbed = _within(rubbing - along * (1.0 / across), contacts.friction * pressed)
        rolled = _within(rolling - (wb - wa) * (1.0 / compliance.turning), contacts.rolling * pressed)
        push = n * (pressed - pressing) + rubbed - rubbing
        twist = rolled - rolling
        moving = (
            *(va - push * of_a.mass, wa - of_a.inertia.apply(ra.cross(push) + twist)),
            *(vb + push * of_b.mass, wb + of_b.inertia.apply(rb.cross(push) + twist)),
        )
        return moving, (pressed, rubbed, rolled)

    start = tuple(
        vector.map(lambda x, part=part: x[part])
        for part in (contacts.a, contacts.b)
        for vector in (motion.velocity, motion.spin)
    )
    points = contacts.arm_a, contacts.arm_b, compliance.normal, compliance.across, target
    return jax.lax.scan(at_point, start, (*points, impulses.normal, impulses.tangent, impulses.turning))[1]


def _within(vector: Vector, radius: Array) -> Vector:
    """The vector, limited to length `radius`."""
    return vector * jnp.minimum(1.0, radius * jax.lax.rsqrt(vector.dot(vector) + 1e-24))
