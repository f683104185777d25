"""The discrete action of a trajectory and its stationarity residual: a measure of how well ticks obey mechanics.

Between ticks k and k+1, h seconds apart, a rigid part of mass m and inertia I has the discrete Lagrangian

    L_k = h (m/2 |v|^2 + 1/2 W . I W) + h m g . (x_k + x_k+1)/2 ,   v = (x_k+1 - x_k)/h ,   W = 2 vec(q_k^-1 q_k+1)/h     (1)

(W in the frame of the part, I likewise). A motion under gravity alone makes the sum of L_k stationary (Marsden and West 2001):

    d/dq_k (L_k-1 + L_k) = 0                                                                                              (2)

The left side of (2), for translations and rotations of tick k, is the impulse (N s, N m s) that the trajectory needs beyond
gravity. For the free flight of a centre of mass it is exactly 0 for any h; for a rotating body up to order h^3. If a part is in
contact within one of the two intervals, or a joint acts on it, the impulse comes from there: those ticks are excluded, as are
ticks next to the appearance or the end of a part.

The residual of *observed* positions grows with noise as 1/h (research: 5 mm at 8 Hz make 11 % of gravity): use it on
predicted states.
"""

import jax
import jax.numpy as jnp
import numpy as np

from wsm_jax.core.geometry import Geometry
from wsm_jax.core.physics.contact import contact
from wsm_jax.core.physics.dynamics import GRAVITY_M_S2, Gravity, bodies
from wsm_jax.core.physics.matter import Joints, Matter, acting
from wsm_jax.core.rotation import conjugate, multiply, turned
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
    """Impulse beyond gravity at each inner tick of a core [K N ...]: minus the left side of (2), one row per part.

    Three components along the world axes (N s), three about the axes of the part, which at its first tick are the world axes
    (N m s). Zero for parts that are held or never present.

    Raises ValueError for fewer than three ticks.
    """
    ticks = core.presence.shape[0]
    if ticks < 3:
        raise ValueError(f"residual: a core of {ticks} ticks; the action needs three")
    mass, inertia, centre, rotation = _path(core, matter)
    pull = jnp.asarray(gravity)

    def action(moved: Array) -> Array:
        x, angle = centre + moved[..., :3], moved[..., 3:]
        # a small rotation in the frame of the part, exact to first order, which suffices for the derivative at 0
        q = multiply(rotation, jnp.concatenate([jnp.ones_like(angle[..., :1]), 0.5 * angle], -1))
        v = (x[1:] - x[:-1]) / tick_s
        change = multiply(conjugate(q[:-1]), q[1:])
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
    """Mean square of the unexplained acceleration (m^2/s^4): |residual|^2 / (m h)^2 in the metric of kinetic energy.

        mean of (J . J / m + H . I^-1 H) / (m h^2)     over the ticks and parts whose two intervals are `free`

    (see `free_intervals`; None: all), except at ticks next to the appearance or the end of a wave of the part. A differentiable
    loss for predicted cores; its root is a score (without a gradient at 0). 0 if no tick counts. Raises ValueError as
    `residual`.
    """
    with jax.default_matmul_precision(_EXACT):
        impulse = residual(core, matter, tick_s=tick_s, gravity=gravity)
        mass, inertia, _, _ = _path(core, matter)
        counts = mass > 0
        unit = jnp.where(counts, mass, 1.0)
        tensor = jnp.where(counts[:, None, None], inertia, jnp.eye(3))
        spin = jnp.linalg.solve(tensor, impulse[..., 3:, None])[..., 0]
        square = jnp.sum(jnp.square(impulse[..., :3]), -1) / unit + jnp.sum(impulse[..., 3:] * spin, -1)
        weight = jnp.broadcast_to(counts, square.shape).astype(square.dtype)
        if free is not None:
            weight = weight * (jnp.asarray(free)[1:] & jnp.asarray(free)[:-1])
        whole = _unchanged(core, matter)
        weight = weight * (whole[:-2] & whole[1:-1] & whole[2:])
        return jnp.sum(weight * square / unit) / jnp.maximum(jnp.sum(weight), 1.0) / tick_s**2


def free_intervals(
    core: Waves,
    matter: Matter,
    joints: Joints | None = None,
    *,
    tick_s: float | Array = 1.0 / TICK_HZ,
    gravity: Gravity = GRAVITY_M_S2,
    margin: float = 5e-3,
    samples: int = 8,
) -> Bool[Array, "intervals N"]:
    """Mask of the intervals between ticks k and k+1 in which a part has no contact and no joint acts on it.

    From tick k every wave is extrapolated in free flight, to `samples` instants and the end of the interval. Two present waves
    of different parts that come closer than `margin` (m) are in contact. Parts that rest, slide or hang are never free. Runs
    under jit.
    """
    ticks, count = core.presence.shape
    pairs = np.stack(np.triu_indices(count, 1), -1)
    part, held = jnp.asarray(matter.part), jnp.asarray(matter.held)
    pull = jnp.where(held[:, None], 0.0, jnp.asarray(gravity, jnp.float32))
    times = jnp.linspace(0.0, tick_s, samples + 1)
    touching = _nearest(core[:-1], pull, times, pairs) < margin
    a, b = pairs[:, 0], pairs[:, 1]
    present = jnp.asarray(core.presence) > 0.5
    there = present[:-1] | present[1:]
    near = touching & (part[a] != part[b]) & ~(held[a] & held[b]) & there[:, a] & there[:, b]
    free = jnp.ones((ticks - 1, count), bool).at[:, part[a]].min(~near).at[:, part[b]].min(~near)
    if joints is None:
        return free
    acts = acting(there, joints)
    return free.at[:, part[joints.a]].min(~acts).at[:, part[joints.b]].min(~acts)


@jax.jit
def _nearest(core: Waves, pull: NpOrJax, times: NpOrJax, pairs: NpOrJax) -> Array:
    """Minimum separation of pairs of waves in free flight from each tick, [K P], m."""

    def at(time: Array) -> Array:
        flown = core.replace(  # type: ignore[attr-defined]
            centre=core.centre + time * core.velocity + 0.5 * time**2 * pull,
            rotation=turned(jnp.asarray(core.rotation), time * core.angular_velocity),
        )
        a, b = (jax.tree.map(lambda x, side=side: x[:, pairs[:, side]], Geometry.of(flown)) for side in (0, 1))
        return jax.vmap(jax.vmap(contact))(a, b).separation

    return jnp.min(jax.lax.map(at, jnp.asarray(times)), 0)


def _first(core: Waves, matter: Matter) -> Waves:
    """The waves of each part at the first tick with one of them present, [N ...]."""
    part = jnp.asarray(matter.part)
    alive = (jnp.asarray(core.presence) > 0.5).astype(jnp.int32)
    begin = jnp.argmax(jnp.zeros_like(alive).at[:, part].max(alive), 0)[part]
    return jax.tree.map(lambda x: jnp.asarray(x)[begin, jnp.arange(len(part))], core)


def _unchanged(core: Waves, matter: Matter) -> Bool[Array, "K N"]:
    """Mask of the ticks at which a part consists of the same present waves as in `_first`."""
    present = jnp.asarray(core.presence) > 0.5
    same = present == (jnp.asarray(_first(core, matter).presence) > 0.5)
    return jnp.ones_like(same).at[:, jnp.asarray(matter.part)].min(same)


def _path(core: Waves, matter: Matter) -> tuple[Array, Array, Array, Array]:
    """Mass [N], inertia [N 3 3], centre [K N 3] and rotation [K N 4] of the parts; mass 0 for held or empty parts."""
    first = _first(core, matter)
    model, _ = bodies(first, matter)
    present = jnp.asarray(first.presence) > 0.5
    weight = jnp.where(present, jnp.asarray(matter.mass), 0.0)
    part = jnp.asarray(matter.part)
    total = jnp.zeros_like(weight).at[part].add(weight)
    moment = jnp.zeros(core.centre.shape).at[:, part].add(weight[:, None] * jnp.asarray(core.centre))
    centre = moment / jnp.maximum(total, 1e-12)[:, None]
    mass = jnp.where(model.inverse_mass > 0, total, 0.0)
    inverse = jnp.broadcast_to(conjugate(first.rotation), core.rotation.shape)
    rotation = multiply(core.rotation, inverse)
    return mass, model.inertia * (mass > 0)[:, None, None], centre, rotation
