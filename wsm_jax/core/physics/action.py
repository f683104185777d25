"""The discrete action of a trajectory, and how far it is from stationary: the physics that ticks obey, as a number.

Between ticks k and k+1, h seconds apart, a rigid part of mass m and inertia I has the discrete Lagrangian

    L_k = h (m/2 |v|^2 + 1/2 W . I W) + h m g . (x_k + x_k+1)/2 ,   v = (x_k+1 - x_k)/h ,   W = 2 vec(q_k^-1 q_k+1)/h     (1)

(W in the frame of the part, I likewise). A motion under gravity alone makes the sum of L_k stationary (Marsden and West 2001):

    d/dq_k (L_k-1 + L_k) = 0                                                                                              (2)

The left side of (2), over shifts and turns of tick k, is the impulse (N s, N m s) that the trajectory needs and gravity does
not give. For the flight of a centre of mass it is 0 exactly, at any h; for a turning body up to order h^3. Where a part touches
another within one of the two intervals the impulse is the contact's, and (2) says nothing: those ticks do not count.

The residual of *observed* positions grows with noise as 1/h (research: 5 mm at 8 Hz make 11 % of gravity): use it on
predicted states.
"""

import jax
import jax.numpy as jnp
import numpy as np

from wsm_jax.core.geometry import Geometry, multiply, turned
from wsm_jax.core.physics.contact import contact
from wsm_jax.core.physics.dynamics import GRAVITY_M_S2, Gravity, bodies
from wsm_jax.core.physics.matter import Matter
from wsm_jax.snapshot import TICK_HZ, Waves
from wsm_jax.typing import Array, Bool, Float, NpOrJax

_EXACT = "highest"


def residual(
    core: Waves,
    matter: Matter,
    *,
    tick_s: float | Array = 1.0 / TICK_HZ,
    gravity: Gravity = GRAVITY_M_S2,
) -> Float[Array, "inner N 6"]:
    """The impulse that each inner tick of a core [K N ...] needs beside gravity: minus the left side of (2), one row a part.

    Three components along the world's axes (N s), three about the axes of the part, which at tick 0 are the world's (N m s).
    Zero for parts that are held or empty.

    Raises ValueError for fewer than three ticks.
    """
    ticks = core.presence.shape[0]
    if ticks < 3:
        raise ValueError(f"residual: a core of {ticks} ticks; the action needs three")
    mass, inertia, centre, rotation = _path(core, matter)
    pull = jnp.asarray(gravity)

    def action(moved: Array) -> Array:
        x, turn = centre + moved[..., :3], moved[..., 3:]
        # a small turn in the frame of the part: exact to first order, which is all that the derivative sees
        q = multiply(rotation, jnp.concatenate([jnp.ones_like(turn[..., :1]), 0.5 * turn], -1))
        v = (x[1:] - x[:-1]) / tick_s
        change = multiply(q[:-1] * jnp.asarray([1.0, -1.0, -1.0, -1.0]), q[1:])
        w = 2.0 * jnp.where(change[..., :1] < 0, -1.0, 1.0) * change[..., 1:] / tick_s
        kinetic = 0.5 * mass * jnp.sum(v * v, -1) + 0.5 * jnp.einsum("kni,nij,knj->kn", w, inertia, w, precision=_EXACT)
        return tick_s * jnp.sum(kinetic + 0.5 * mass * ((x[1:] + x[:-1]) @ pull))

    return -jax.grad(action)(jnp.zeros((ticks, len(mass), 6)))[1:-1]


def stationarity(
    core: Waves,
    matter: Matter,
    free: Bool[NpOrJax, "intervals N"] | None = None,
    *,
    tick_s: float | Array = 1.0 / TICK_HZ,
    gravity: Gravity = GRAVITY_M_S2,
) -> Float[Array, ""]:
    """Mean square of the acceleration (m^2/s^4) that nothing explains: |residual|^2 / (m h)^2 in the metric of kinetic energy.

        mean of (J . J / m + H . I^-1 H) / (m h^2)     over the ticks and parts whose two intervals are `free`

    (see `free_intervals`; all of them, where not given).
    A loss for predicted cores, differentiable; its root is a score. 0 where nothing counts.
    """
    with jax.default_matmul_precision(_EXACT):
        impulse = residual(core, matter, tick_s=tick_s, gravity=gravity)
        mass, inertia, _, _ = _path(core, matter)
        counts = mass > 0
        unit = jnp.where(counts, mass, 1.0)
        tensor = jnp.where(counts[:, None, None], inertia, jnp.eye(3))
        turned = jnp.linalg.solve(tensor, impulse[..., 3:, None])[..., 0]
        square = jnp.sum(jnp.square(impulse[..., :3]), -1) / unit + jnp.sum(impulse[..., 3:] * turned, -1)
        weight = jnp.broadcast_to(counts, square.shape).astype(square.dtype)
        if free is not None:
            weight = weight * (jnp.asarray(free)[1:] & jnp.asarray(free)[:-1])
        return jnp.sum(weight * square / unit) / jnp.maximum(jnp.sum(weight), 1.0) / tick_s**2


def free_intervals(
    core: Waves,
    matter: Matter,
    *,
    tick_s: float = 1.0 / TICK_HZ,
    gravity: Gravity = GRAVITY_M_S2,
    margin: float = 5e-3,
    samples: int = 8,
) -> Bool[np.ndarray, "intervals N"]:
    """Whether each part touches nothing between tick k and k+1: the split at impacts.

    From tick k every wave is carried on as if it flew freely, to `samples` instants of the interval and its end. Where two
    present waves of different parts come nearer than `margin` (m) on that way, they touch: without a contact it is the way
    that they take.
    """
    ticks, count = core.presence.shape
    pairs = np.stack(np.triu_indices(count, 1), -1)
    part, held = np.asarray(matter.part), np.asarray(matter.held)
    pull = np.where(held[:, None], 0.0, np.asarray(gravity, np.float32)).astype(np.float32)
    times = np.linspace(0.0, tick_s, samples + 1).astype(np.float32)
    touching = np.asarray(_nearest(core[:-1], pull, times, pairs)) < margin
    different = (part[pairs[:, 0]] != part[pairs[:, 1]]) & ~(held[pairs[:, 0]] & held[pairs[:, 1]])
    present = np.asarray(core.presence) > 0.5
    free = np.ones((ticks - 1, count), bool)
    for k in range(ticks - 1):
        near = touching[k] & different & (present[k] | present[k + 1])[pairs].all(1)
        free[k, part[np.unique(pairs[near])]] = False
    return free


@jax.jit
def _nearest(core: Waves, pull: NpOrJax, times: NpOrJax, pairs: NpOrJax) -> Array:
    """The least separation of pairs of waves on their free way from each tick, [K P], m."""

    def at(time: Array) -> Array:
        flown = core.replace(  # type: ignore[attr-defined]
            centre=core.centre + time * core.velocity + 0.5 * time**2 * pull,
            rotation=turned(jnp.asarray(core.rotation), time * core.angular_velocity),
        )
        a, b = (jax.tree.map(lambda x, side=side: x[:, pairs[:, side]], Geometry.of(flown)) for side in (0, 1))
        return jax.vmap(jax.vmap(contact))(a, b).separation

    return jnp.min(jax.lax.map(at, jnp.asarray(times)), 0)


def _path(core: Waves, matter: Matter) -> tuple[Array, Array, Array, Array]:
    """Mass [N], inertia [N 3 3], centre [K N 3] and rotation [K N 4] of the parts; mass 0 for what is held or empty."""
    first = jax.tree.map(lambda x: x[0], core)
    model, _ = bodies(first, matter)
    present = jnp.asarray(first.presence) > 0.5
    weight = jnp.where(present, jnp.asarray(matter.mass), 0.0)
    part = jnp.asarray(matter.part)
    total = jnp.zeros_like(weight).at[part].add(weight)
    moment = jnp.zeros(core.centre.shape).at[:, part].add(weight[:, None] * jnp.asarray(core.centre))
    centre = moment / jnp.maximum(total, 1e-12)[:, None]
    mass = jnp.where(model.inverse_mass > 0, total, 0.0)
    back = jnp.asarray(first.rotation) * jnp.asarray([1.0, -1.0, -1.0, -1.0])
    rotation = multiply(jnp.asarray(core.rotation), jnp.broadcast_to(back, core.rotation.shape))
    return mass, model.inertia * (mass > 0)[:, None, None], centre, rotation
