"""The impulses of contacts and joints: equations (2) to (4) of dynamics.py.

Gauss-Seidel over the points of one contact, Jacobi over contacts and joints with split masses: each of the n that share a
body sees a body of mass m/n of its own, and the impulses of all are added up (Tonge, Benevolenski and Voroshilov 2012).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from wsm_jax.core.geometry import apply
from wsm_jax.typing import Array, pytree


@pytree
class Motion:
    """Velocities of the parts, world frame."""

    velocity: Array
    """[N 3], m/s."""
    spin: Array
    """[N 3], rad/s."""


@pytree
class Inverse:
    """Inverse masses [N] (1/kg) and inertias [N 3 3] (world, 1/(kg m^2)); 0 for what is held."""

    mass: Array
    inertia: Array


@pytree
class Contacts:
    """P contacts of Q points."""

    a: Array
    """Part A, [P]; the normal points from A to B."""
    b: Array
    arm_a: Array
    """From the centre of mass of A to the point, [P Q 3], m."""
    arm_b: Array
    normal: Array
    """[P 3]"""
    gap: Array
    """[P Q], m."""
    friction: Array
    """[P]"""
    rolling: Array
    """[P], m."""
    restitution: Array
    """[P]"""
    active: Array
    """[P]: whether it can take part at all."""


@pytree
class Rows:
    """J joints of 6 rows: three shifts, three turns along the axes of the joint."""

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
    """Accumulated impulses: along the normals [P Q], tangential [P Q 3], turning [P Q 3], of the joints' rows [J 6]."""

    normal: Array
    tangent: Array
    turning: Array
    joint: Array


def no_impulses(contacts: Contacts, rows: Rows) -> Impulses:
    """All zero."""
    points = contacts.gap.shape
    return Impulses(jnp.zeros(points), jnp.zeros((*points, 3)), jnp.zeros((*points, 3)), jnp.zeros((len(rows.a), 6)))


def totals(contacts: Contacts, rows: Rows, impulses: Impulses, parts: int) -> tuple[Array, Array]:
    """The sum of the impulses on each part (kg m/s) and of their moments about its centre of mass, [N 3] each.

    What A gets, B gets with the other sign.
    """
    push = impulses.normal[..., None] * contacts.normal[:, None] + impulses.tangent
    turn_a = jnp.sum(jnp.cross(contacts.arm_a, push) + impulses.turning, 1)
    turn_b = jnp.sum(jnp.cross(contacts.arm_b, push) + impulses.turning, 1)
    push = jnp.sum(push, 1)
    pull = apply(rows.axes, impulses.joint[:, :3])
    twist = apply(rows.axes, impulses.joint[:, 3:])
    linear = jnp.zeros((parts, 3)).at[contacts.a].add(-push).at[contacts.b].add(push)
    linear = linear.at[rows.a].add(-pull).at[rows.b].add(pull)
    angular = jnp.zeros((parts, 3)).at[contacts.a].add(-turn_a).at[contacts.b].add(turn_b)
    angular = angular.at[rows.a].add(-jnp.cross(rows.arm_a, pull) - twist)
    return linear, angular.at[rows.b].add(jnp.cross(rows.arm_b, pull) + twist)


def after(motion: Motion, inverse: Inverse, linear: Array, angular: Array) -> Motion:
    """The motion after impulses and their moments."""
    spin = motion.spin + apply(inverse.inertia, angular)
    return Motion(motion.velocity + inverse.mass[:, None] * linear, spin)


def closing(contacts: Contacts, motion: Motion) -> Array:
    """Velocity of B against A at every contact point, [P Q 3], m/s."""

    def of(part: Array, arm: Array) -> Array:
        return motion.velocity[part][:, None] + jnp.cross(motion.spin[part][:, None], arm)

    return of(contacts.b, contacts.arm_b) - of(contacts.a, contacts.arm_a)


def solve(
    motion: Motion,
    inverse: Inverse,
    contacts: Contacts,
    target: Array,
    rows: Rows,
    error: Callable[[Motion, Array], Array],
    impulses: Impulses,
    sweeps: int,
) -> Impulses:
    """Impulses after which normal velocities at the contacts are at least `target` [P Q] (m/s), and the joints' `error` is 0.

    `error(motion, angular)` gives the velocities [J 6] that the joints should not have, in a motion reached by moments
    `angular`.
    `impulses` is where to begin; `motion` is without them.
    """
    parts = len(inverse.mass)
    sharing = jnp.zeros(parts).at[contacts.a].add(contacts.active).at[contacts.b].add(contacts.active)
    sharing = jnp.maximum(sharing.at[rows.a].add(1.0).at[rows.b].add(1.0), 1.0)
    split = Inverse(sharing * inverse.mass, sharing[:, None, None] * inverse.inertia)
    joined = len(rows.a) > 0
    response = jnp.linalg.inv(jax.vmap(lambda row: _row_stiffness(row, split))(rows)) if joined else None
    softness = jax.vmap(partial(_softness, split))(contacts)

    def sweep(_, impulses: Impulses) -> Impulses:
        linear, angular = totals(contacts, rows, impulses, parts)
        now = after(motion, inverse, linear, angular)
        normal, tangent, turning = jax.vmap(partial(_contact_sweep, now, split))(
            contacts, softness, target, impulses.normal, impulses.tangent, impulses.turning
        )
        if response is None:
            return Impulses(normal, tangent, turning, impulses.joint)
        change = apply(response, error(now, angular) * rows.holds)
        return Impulses(normal, tangent, turning, impulses.joint - change * rows.holds)

    return jax.lax.fori_loop(0, sweeps, sweep, impulses)


def _row_stiffness(row: Rows, inverse: Inverse) -> Array:
    """Velocity along each row per impulse along each row, [6 6]; 1 for rows that are free."""
    total = jnp.zeros((6, 6))
    for part, arm in ((row.a, row.arm_a), (row.b, row.arm_b)):
        lever = jnp.cross(arm[:, None], row.axes, axis=0)  # columns: moment of a unit impulse along each axis
        moments = jnp.concatenate([lever, row.axes], 1)
        forces = jnp.concatenate([row.axes, jnp.zeros((3, 3))], 1)
        total = total + inverse.mass[part] * forces.T @ forces + moments.T @ inverse.inertia[part] @ moments
    held = row.holds[:, None] * row.holds
    scale = jnp.trace(total) / 6 + 1e-30
    return total * held + jnp.diag(jnp.where(row.holds > 0, 1e-7 * scale, scale))


@pytree
class Softness:
    """What impulses do at the Q points of a contact: velocity changes per impulse."""

    normal: Array
    """[Q 3]: the change of the velocity there by an impulse along the normal."""
    across: Array
    """[Q]: the largest that an impulse in any direction makes."""
    turning: Array
    """[]: the largest change of the angular velocity by a moment."""


def _softness(inverse: Inverse, contact: Contacts) -> Softness:
    """Of one contact."""
    inertia_a, inertia_b = inverse.inertia[contact.a], inverse.inertia[contact.b]
    response = jax.vmap(_point_response, (0, None))(contact.arm_a, inertia_a)
    response = response + jax.vmap(_point_response, (0, None))(contact.arm_b, inertia_b)
    response = response + (inverse.mass[contact.a] + inverse.mass[contact.b]) * jnp.eye(3)
    # a symmetric matrix changes no vector by more than its largest row sum
    across = jnp.max(jnp.sum(jnp.abs(response), -1), -1)
    turning = jnp.max(jnp.sum(jnp.abs(inertia_a + inertia_b), -1))
    return Softness(apply(response, contact.normal), jnp.maximum(across, 1e-12), jnp.maximum(turning, 1e-12))


def _contact_sweep(
    motion: Motion,
    inverse: Inverse,
    contact: Contacts,
    softness: Softness,
    target: Array,
    normal: Array,
    tangent: Array,
    turning: Array,
) -> tuple[Array, Array, Array]:
    """One Gauss-Seidel sweep over the points of one contact; the new impulses."""
    mass_a, mass_b = inverse.mass[contact.a], inverse.mass[contact.b]
    inertia_a, inertia_b = inverse.inertia[contact.a], inverse.inertia[contact.b]
    n = contact.normal

    def at_point(moving: tuple[Array, ...], point: tuple[Array, ...]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        va, wa, vb, wb = moving
        ra, rb, pushed, across, wanted, pressing, rubbing, rolling = point
        relative = vb + jnp.cross(wb, rb) - va - jnp.cross(wa, ra)
        stiffness = jnp.sum(pushed * n)
        pressed = jnp.maximum(pressing + (wanted - jnp.sum(relative * n)) / jnp.maximum(stiffness, 1e-12), 0.0) * contact.active
        relative = relative + pushed * (pressed - pressing)
        along = relative - n * jnp.sum(relative * n)
        rubbed = _within(rubbing - along / across, contact.friction * pressed)
        rolled = _within(rolling - (wb - wa) / softness.turning, contact.rolling * pressed)
        push = (pressed - pressing) * n + rubbed - rubbing
        twist = rolled - rolling
        moving = (
            *(va - mass_a * push, wa - apply(inertia_a, jnp.cross(ra, push) + twist)),
            *(vb + mass_b * push, wb + apply(inertia_b, jnp.cross(rb, push) + twist)),
        )
        return moving, (pressed, rubbed, rolled)

    start = tuple(x[part] for part in (contact.a, contact.b) for x in (motion.velocity, motion.spin))
    points = contact.arm_a, contact.arm_b, softness.normal, softness.across, target, normal, tangent, turning
    pressed, rubbed, rolled = jax.lax.scan(at_point, start, points)[1]
    return pressed, rubbed, rolled


def _point_response(arm: Array, inertia: Array) -> Array:
    """Velocity of a point per impulse at it that comes from turning: [r]x^T I^-1 [r]x (r x each row: times [r]x^T)."""
    return jnp.cross(arm, jnp.cross(arm, inertia).T)


def _within(vector: Array, radius: Array) -> Array:
    """The vector, shortened to `radius`."""
    length = jnp.sqrt(jnp.sum(vector * vector) + 1e-24)
    return vector * jnp.minimum(1.0, radius / length)
