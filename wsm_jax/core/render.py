"""The surface that a camera sees of a set of waves: exact, differentiable, at any resolution.

Along a ray o + t d the gauge of a wave is convex, so Newton's iteration on g = 1 started in front of the wave,

    t <- t - (g - 1) / (dg/dt)                                                                                          (1)

grows monotonically to the entry and never steps past it; a slope that turns positive while g > 1 proves a miss. There is
no step size and no tunnelling. t is depth along the optical axis (m), since `rays` have unit depth. Gradients do not run
through the iteration: one last step of (1) with a frozen slope carries the exact implicit derivative of the entry.
"""

import jax
import jax.numpy as jnp

from wsm_jax.core import superquadric
from wsm_jax.snapshot import Camera, Waves, ground, project, quaternion_to_matrix, rays
from wsm_jax.typing import Array, Float, NpOrJax

NEAR_M = 0.05
_MISS = 1e6
_ITERATIONS = 32
_EXACT = "highest"  # geometry in metres: accelerators by default multiply float32 matrices in 8 to 11 bits


def _local_rays(waves: Waves, origin: Array, direction: Array) -> tuple[Array, Array]:
    """Rays in the frame of each wave, components first: origins and directions, [3 N R]."""
    matrix = quaternion_to_matrix(waves.rotation)
    start = jnp.einsum("nij,rni->jnr", matrix, origin[:, None, :] - jnp.asarray(waves.centre)[None], precision=_EXACT)
    return start, jnp.einsum("nij,ri->jnr", matrix, direction, precision=_EXACT)


def _shape(waves: Waves) -> tuple[Array, Array]:
    """1/a and (2/e1, 2/e2), components first, with a ray axis to broadcast: [3 N 1] and [2 N 1]."""
    return (1.0 / jnp.asarray(waves.scale)).T[..., None], (2.0 / jnp.asarray(waves.exponents)).T[..., None]


def _log_gauge_and_gradient(point: Array, shape: tuple[Array, Array]) -> tuple[Array, Array]:
    """log g [N R] and its spatial gradient [3 N R] at wave-local points [3 N R]."""
    log_g, weights = superquadric.log_gauge_weights(point, *shape)
    return log_g, jnp.stack(weights) * point / (point * point + 1e-12 / (shape[0] * shape[0]))


def _log_gauge_and_slope(start: Array, direction: Array, t: Array, shape: tuple[Array, Array]) -> tuple[Array, Array]:
    """log g and d(log g)/dt at parameter t of every ray, [N R]."""
    log_g, gradient = _log_gauge_and_gradient(start + t * direction, shape)
    return log_g, jnp.sum(gradient * direction, 0)


def _entry(start: Array, direction: Array, shape: tuple[Array, Array], near: float) -> Array:
    """Parameter of the first surface point of each wave on each ray, [N R]; _MISS where there is none."""

    def advance(state):
        i, t, log_g, slope, missed = state
        missed = missed | ((slope >= -1e-7) & (log_g > 0))
        step = jnp.where(log_g > 0, -jnp.expm1(-log_g) / jnp.minimum(slope, -1e-7), 0.0)
        t = jnp.where(missed, t, jnp.minimum(t - step, _MISS))
        return i + 1, t, *_log_gauge_and_slope(start, direction, t, shape), missed

    def unfinished(state):
        i, t, log_g, _, missed = state
        return (i < _ITERATIONS) & jnp.any(~missed & (log_g > 1e-5) & (t < _MISS))

    t = jnp.full(start.shape[1:], near, start.dtype)
    log_g, slope = _log_gauge_and_slope(start, direction, t, shape)
    _, t, log_g, _, missed = jax.lax.while_loop(unfinished, advance, (0, t, log_g, slope, log_g < 0))
    return jnp.where(missed | (log_g > 2e-3), _MISS, t)


def _closest(start: Array, direction: Array, shape: tuple[Array, Array], near: float) -> Array:
    """Parameter where the gauge is least on each ray, [N R], by bisection of the sign of its slope.

    The gauge is a norm, so g(t d) <= g(o + t d) + g(o) <= 2 g(o) at the least point, which bounds t by 2 g(o) / g(d).
    """
    start, direction, shape = jax.lax.stop_gradient((start, direction, shape))
    log_start, _ = superquadric.log_gauge_weights(start, *shape)
    log_way, _ = superquadric.log_gauge_weights(direction, *shape)
    reach = 2.0 * jnp.exp(log_start - log_way) + near

    def halve(_, bounds):
        low, high = bounds
        middle = 0.5 * (low + high)
        _, slope = _log_gauge_and_slope(start, direction, middle, shape)
        return jnp.where(slope < 0, middle, low), jnp.where(slope < 0, high, middle)

    low, high = jax.lax.fori_loop(0, 24, halve, (jnp.full_like(reach, near), reach))
    return 0.5 * (low + high)


def cast(
    waves: Waves, origin: Float[NpOrJax, "R 3"], direction: Float[NpOrJax, "R 3"], near: float = NEAR_M
) -> Float[Array, "N R"]:
    """Depth at which each ray enters each wave, in units of the direction's length; 1e6 where it does not.

    A wave that holds the ray's start is not entered. Absent waves (presence < 1/2) are entered too: weigh by presence.
    Differentiable in the waves, the origin and the direction by the implicit function theorem. The entry of a ray that grazes
    the surface moves without bound; its derivative is held to what the ray would have at an incidence of cosine 1e-3.
    """
    start, way = _local_rays(waves, jnp.asarray(origin), jnp.asarray(direction))
    shape = _shape(waves)
    frozen = jax.lax.stop_gradient
    t = _entry(frozen(start), frozen(way), jax.tree.map(frozen, shape), near)
    log_g, gradient = _log_gauge_and_gradient(start + t * way, shape)
    grazing = -1e-3 * jnp.linalg.norm(gradient, axis=0) * jnp.linalg.norm(way, axis=0)
    refined = t - log_g / frozen(jnp.minimum(jnp.sum(gradient * way, 0), grazing))
    return jnp.where(t < _MISS, refined, _MISS)


def visible(waves: Waves, points: Float[NpOrJax, "R 3"], direction: Float[NpOrJax, "3"]) -> Float[Array, " R"]:
    """1 where no wave lies between a point and a light infinitely far along `direction`, else 1 - presence of the blockers.

    Start the points a little off their own surface.
    """
    way = jnp.broadcast_to(jnp.asarray(direction), jnp.shape(points))
    hit = cast(waves, points, way, near=1e-4) < _MISS
    return jnp.prod(jnp.where(hit, 1.0 - jnp.asarray(waves.presence)[:, None], 1.0), 0)


def _weights(depth: Array, alpha: Array) -> Array:
    """Front-to-back compositing weights [N R]: alpha_i times the transmittance of everything nearer."""
    nearer = (depth[None] < depth[:, None]) | (
        (depth[None] == depth[:, None]) & (jnp.arange(len(depth))[None] < jnp.arange(len(depth))[:, None])[..., None]
    )
    through = jnp.prod(jnp.where(nearer, 1.0 - alpha[None], 1.0), 1)
    return alpha * through


def _alpha_and_depth(waves: Waves, origin: Array, direction: Array, softness: float) -> tuple[Array, Array]:
    """Coverage by each wave alone and depth of its surface (closest approach where a soft edge misses it), [N R]."""
    presence = jnp.asarray(waves.presence)[:, None]
    depth = cast(waves, origin, direction)
    hit = depth < _MISS
    if softness == 0.0:
        return jnp.where(hit, presence, 0.0), depth
    start, way = _local_rays(waves, origin, direction)
    shape = _shape(waves)
    t = _closest(start, way, shape, NEAR_M)
    log_g, _ = _log_gauge_and_slope(start, way, t, shape)
    alpha = superquadric.occupancy(log_g, jnp.asarray(waves.scale)[:, None], presence, softness)
    return alpha, jnp.where(hit, depth, t)


def _surface_of_rays(
    waves: Waves, origin: Array, direction: Array, camera: Camera, later: Camera, dt: NpOrJax | float, softness: float
) -> dict[str, Array]:
    """Every surface channel for R rays of one camera, [R C], physical units."""
    alpha, depth = _alpha_and_depth(waves, origin, direction, softness)
    weight = _weights(depth, alpha)
    coverage = jnp.sum(weight, 0)
    share = weight / jnp.maximum(coverage, 1e-6)
    seen = coverage > 0.5
    first = jnp.argmax(weight, 0)
    ray = jnp.arange(len(first))
    near = jnp.sum(share / jnp.maximum(depth, NEAR_M), 0)
    z = jnp.where(coverage > 1e-4, 1.0 / jnp.maximum(near, 1e-6), 0.0)
    point = origin + depth[first, ray][:, None] * direction

    def of(values: NpOrJax) -> Array:
        return jnp.asarray(values)[first]

    turn = quaternion_to_matrix(waves.rotation)[first]
    local = jnp.einsum("rij,ri->rj", turn, point - of(waves.centre), precision=_EXACT)
    normal = superquadric.normal(local, of(waves.scale), of(waves.exponents))
    normal = jnp.einsum("rij,rj->ri", turn, normal, precision=_EXACT)

    def to_camera(vectors: Array) -> Array:
        return jnp.matmul(vectors, quaternion_to_matrix(camera.rotation), precision=_EXACT)

    velocity = of(waves.velocity) + jnp.cross(of(waves.angular_velocity), point - of(waves.centre))
    # an unseen pixel has its "point" at the miss distance: bring it near before anything is projected
    safe = jnp.where(seen[:, None], point, origin + direction)
    here, _ = project(camera, safe)
    there, _ = project(later, safe + dt * jnp.where(seen[:, None], velocity, 0.0))
    mask = seen[:, None]
    return {
        "depth": z[:, None] * mask,
        "normal": jnp.where(mask, to_camera(normal), 0.0),
        "instance": jnp.where(mask, (first[:, None] + 1).astype(jnp.float32), 0.0),
        "semantic": jnp.where(mask, of(waves.semantic)[:, None].astype(jnp.float32), 0.0),
        "motion": jnp.where(mask, (there - here) / dt, 0.0),
        "coverage": coverage[:, None],
        "base_colour": jnp.einsum("nr,nc->rc", share, jnp.asarray(waves.colour), precision=_EXACT) * (coverage > 1e-4)[:, None],
        "local": jnp.where(mask, local / of(waves.scale), 0.0),
        "extent": jnp.where(mask, of(waves.scale), 0.0),
        "centre": jnp.where(mask, to_camera(of(waves.centre) - point), 0.0),
    }


def surface(
    waves: Waves,
    camera: Camera,
    height: int,
    width: int,
    *,
    later: Camera | None = None,
    dt: NpOrJax | float = 1e-2,
    softness: float = 0.0,
    rays_per_chunk: int = 65536,
) -> dict[str, Float[Array, "H W C"]]:
    """The surface channels of one instant seen by one camera, and its "ground", in physical units (see the channel table).

    `softness` 0 gives hard edges (for data); > 0 (m) gives edges with coverage gradients (for learning). `later` is the camera
    `dt` seconds on, for the `motion` channel of a moving camera. The instance channel holds slot + 1. Memory is bounded by
    `rays_per_chunk` * N. Differentiable in waves and camera; labels are constant, and so is the depth of a soft edge where the
    ray passes its wave by.
    """
    origin, direction = rays(camera, height, width)
    flat = direction.reshape(-1, 3)
    later = camera if later is None else later

    def chunk(part: Array) -> dict[str, Array]:
        start = jnp.broadcast_to(origin, part.shape)
        return _surface_of_rays(waves, start, part, camera, later, dt, softness)

    count = flat.shape[0]
    if count <= rays_per_chunk:
        out = chunk(flat)
    else:
        padding = -count % rays_per_chunk
        parts = jnp.pad(flat, ((0, padding), (0, 0)), mode="edge").reshape(-1, rays_per_chunk, 3)
        out = jax.tree.map(lambda x: x.reshape(-1, x.shape[-1])[:count], jax.lax.map(chunk, parts))
    channels = {name: values.reshape(height, width, -1) for name, values in out.items()}
    return channels | {"ground": jnp.asarray(ground(camera, height, width))}
