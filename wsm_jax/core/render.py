"""The surface that a camera sees of a set of waves: exact, differentiable, at any resolution.

Every ray meets the waves that its tile of the picture can see (`tile`), by Newton's iteration on the convex gauge (`ray`), and
what it meets is composited front to back: wave i, in order of depth, weighs

    w_i = alpha_i prod_{j < i} (1 - alpha_j)                                                                            (1)

with alpha its presence where the ray enters it (hard, for data) or its occupancy at the closest approach (soft, for learning).
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from wsm_jax.core import ray, superquadric, tile
from wsm_jax.core.ray import MISS, NEAR_M, cast
from wsm_jax.snapshot import Camera, Waves, ground, project, quaternion_to_matrix
from wsm_jax.snapshot.camera import pixel_plane
from wsm_jax.typing import Array, Float, NpOrJax

SURFACE = {
    "depth": 1, "normal": 3, "instance": 1, "semantic": 1, "motion": 2, "coverage": 1, "base_colour": 3, "local": 3,
    "extent": 3, "centre": 3,
}  # fmt: skip
"""What a ray can tell of the surface -> components."""

_GROUP = 16  # chunks that are skipped at once where none of them sees a wave
_PAIRWISE = 8  # up to so many waves a ray, comparing all pairs is cheaper than sorting


def visible(waves: Waves, points: Float[NpOrJax, "R 3"], direction: Float[NpOrJax, "3"]) -> Float[Array, " R"]:
    """1 where no wave lies between a point and a light infinitely far along `direction`, else 1 - presence of the blockers.

    Start the points a little off their own surface.
    """
    way = jnp.broadcast_to(jnp.asarray(direction), jnp.shape(points))
    hit = cast(waves, points, way, near=1e-4) < MISS
    return jnp.prod(jnp.where(hit, 1.0 - jnp.asarray(waves.presence)[:, None], 1.0), 0)


def _weights(depth: Array, alpha: Array) -> Array:
    """Front-to-back compositing weights of eq. (1), [... K R]; of waves at one depth the first comes first."""
    count = depth.shape[-2]
    if count > _PAIRWISE:
        order = jnp.argsort(jax.lax.stop_gradient(depth), axis=-2, stable=True)
        sorted_alpha = jnp.take_along_axis(alpha, order, -2)
        clear = jnp.concatenate([jnp.ones_like(alpha[..., :1, :]), 1.0 - sorted_alpha[..., :-1, :]], -2)
        weight = sorted_alpha * jnp.cumprod(clear, -2)
        return jnp.take_along_axis(weight, jnp.argsort(order, axis=-2), -2)
    weight, place = alpha, jnp.arange(count)[:, None]
    for j in range(count):
        other = depth[..., j : j + 1, :]
        nearer = (other < depth) | ((other == depth) & (place > j))
        weight = weight * jnp.where(nearer, 1.0 - alpha[..., j : j + 1, :], 1.0)
    return weight


class _View(NamedTuple):
    """Everything but the rays that a picture depends on."""

    waves: Waves
    camera: Camera
    later: Camera
    dt: NpOrJax | float


def _alpha_and_depth(waves: Waves, rays_: ray.LocalRays, filled: Array, softness: float) -> tuple[Array, Array]:
    """Coverage by each wave alone and depth of its surface (closest approach where a soft edge misses it), [M K R]."""
    presence = jnp.where(filled, jnp.asarray(waves.presence), 0.0)[..., None]
    depth = ray.entry(rays_, NEAR_M)
    hit = depth < MISS
    if softness == 0.0:
        return jnp.where(hit, presence, 0.0), depth
    t, log_g = ray.closest(rays_, NEAR_M)
    alpha = superquadric.occupancy(log_g, jnp.asarray(waves.scale)[..., None, :], presence, softness)
    return alpha, jnp.where(hit, depth, t)


def _surface_of_tiles(
    view: _View, seen: Array, origin: Array, direction: Array, count: int, softness: float, channels: Sequence[str]
) -> Array:
    """The channels of M tiles of R rays that see at most `count` waves each, one after the other, [M C R], physical units.

    `seen` [M N] says which; `origin` and `direction` are [3 M R].
    """
    slots, filled = tile.chosen(seen, count)
    waves = jax.tree.map(lambda x: jnp.asarray(x)[slots], view.waves)
    local_rays = ray.local_rays(waves, origin[:, :, None], direction[:, :, None])
    alpha, depth = _alpha_and_depth(waves, local_rays, filled, softness)
    weight = _weights(depth, alpha)
    coverage = jnp.sum(weight, -2)
    share = weight / jnp.maximum(coverage, 1e-6)[..., None, :]
    mask = coverage > 0.5
    first = jnp.argmax(weight, -2)[..., None, :] == jnp.arange(count)[:, None]

    def of(values: Array) -> Array:
        """Of the first wave of each ray: [M K] -> [M R]. A sum of one term costs less than a gather."""
        return jnp.sum(jnp.where(first, values[..., None] if values.ndim == 2 else values, 0), -2)

    def vector(values: Array) -> list[Array]:
        return [of(values[..., i]) for i in range(values.shape[-1])]

    nearness = jnp.sum(share / jnp.maximum(depth, NEAR_M), -2)
    t = of(depth)
    point = [origin[i] + t * direction[i] for i in range(3)]
    centre, scale = vector(waves.centre), vector(waves.scale)
    matrix = quaternion_to_matrix(waves.rotation)
    turn = [[of(matrix[..., i, j]) for j in range(3)] for i in range(3)]
    arm = [point[i] - centre[i] for i in range(3)]
    local = [sum(turn[i][j] * arm[i] for i in range(3)) for j in range(3)]
    own = superquadric.normal(jnp.stack(local, -1), jnp.stack(scale, -1), jnp.stack(vector(waves.exponents), -1))
    normal = [turn[i][0] * own[..., 0] + turn[i][1] * own[..., 1] + turn[i][2] * own[..., 2] for i in range(3)]
    to_camera = quaternion_to_matrix(view.camera.rotation)
    rate = vector(waves.velocity), vector(waves.angular_velocity)

    def turned(values: list[Array]) -> list[Array]:
        x, y, z = values
        return [to_camera[0, j] * x + to_camera[1, j] * y + to_camera[2, j] * z for j in range(3)]

    found = {
        "depth": [jnp.where(coverage > 1e-4, 1.0 / jnp.maximum(nearness, 1e-6), 0.0)],
        "normal": turned(normal),
        "instance": [of((slots + 1).astype(depth.dtype))],
        "semantic": [of(waves.semantic.astype(depth.dtype))],
        "motion": _motion(view, origin, direction, point, arm, mask, rate) if "motion" in channels else [],
        "coverage": [coverage],
        "base_colour": [jnp.sum(share * waves.colour[..., i, None], -2) * (coverage > 1e-4) for i in range(3)],
        "local": [local[i] / scale[i] for i in range(3)],
        "extent": scale,
        "centre": turned([-x for x in arm]),
    }
    soft = ("coverage", "base_colour")  # what a ray that is mostly sky still has
    return jnp.stack([x if name in soft else jnp.where(mask, x, 0.0) for name in channels for x in found[name]], 1)


def _motion(view: _View, origin: Array, direction: Array, point: list, arm: list, mask: Array, rate: tuple) -> list[Array]:
    """Motion of the seen points on the canvas, image heights per second, [M R] each."""
    drift, spin = rate
    moved = [drift[i] + spin[(i + 1) % 3] * arm[(i + 2) % 3] - spin[(i + 2) % 3] * arm[(i + 1) % 3] for i in range(3)]
    # an unseen pixel has its "point" at the miss distance: bring it near before anything is projected
    safe = jnp.stack([jnp.where(mask, point[i], origin[i] + direction[i]) for i in range(3)], -1).reshape(-1, 3)
    speed = jnp.stack([jnp.where(mask, x, 0.0) for x in moved], -1).reshape(-1, 3)
    here, _ = project(view.camera, safe)
    there, _ = project(view.later, safe + view.dt * speed)
    motion = ((there - here) / view.dt).reshape(*mask.shape, 2)
    return [motion[..., 0], motion[..., 1]]


def _sizes(slots: int) -> list[int]:
    """Numbers of candidates for which a tile's program is compiled: the least that holds all of a chunk's is run.

    A size fourfold the last costs at most a fourfold of what is needed, and keeps compilation short.
    """
    return [0, *(n for n in (2, 8, 32, 128) if 2 * n < slots), slots]


def surface(
    waves: Waves,
    camera: Camera,
    height: int,
    width: int,
    *,
    later: Camera | None = None,
    dt: NpOrJax | float = 1e-2,
    softness: float = 0.0,
    rays_per_chunk: int = 1024,
    channels: Sequence[str] | None = None,
    cull: bool = True,
) -> dict[str, Float[Array, "H W C"]]:
    """The surface channels of one instant seen by one camera, and its "ground", in physical units (see the channel table).

    `softness` 0 gives hard edges (for data); > 0 (m) gives edges with coverage gradients (for learning). `later` is the camera
    `dt` seconds on, for the `motion` channel of a moving camera. The instance channel holds slot + 1. `channels` names those
    that are wanted; without it, all. Differentiable in waves and camera; labels are constant, and so is the depth of a soft
    edge where the ray passes its wave by.

    Tiles of the picture are cast in chunks, those that see equally many waves together, against these waves alone; the time
    grows with the pixels that waves cover, and memory is bounded by `rays_per_chunk` * N, also for gradients, which cast anew.
    Without `cull` every ray meets every wave: the same picture, and the form for `vmap`, under which XLA runs every branch.

    Raises ValueError for a channel that is no surface channel.
    """
    names = [*SURFACE, "ground"] if channels is None else list(channels)
    if unknown := [name for name in names if name not in SURFACE and name != "ground"]:
        raise ValueError(f"surface: channels {unknown}; needed some of {[*SURFACE, 'ground']}")
    wanted = [name for name in names if name in SURFACE]
    out = {}
    if wanted:
        view = _View(waves, camera, camera if later is None else later, dt)
        picture = _picture(view, height, width, softness, rays_per_chunk, wanted, cull)
        first = 0
        for name in wanted:
            out[name] = picture[..., first : first + SURFACE[name]]
            first += SURFACE[name]
    return out | ({"ground": jnp.asarray(ground(camera, height, width))} if "ground" in names else {})


def _rays(camera: Camera, plane: Array) -> tuple[Array, Array]:
    """World origins and directions [3 M R] of rays at (x, y) of the camera frame [2 M R], as `snapshot.rays` has them."""
    turn, position = quaternion_to_matrix(camera.rotation), jnp.asarray(camera.position)
    x, y = plane
    across = [turn[i, 0] * x + turn[i, 1] * y for i in range(3)]
    ahead = jnp.stack([jnp.broadcast_to(turn[i, 2], x.shape) for i in range(3)])
    if camera.orthographic:
        return jnp.stack([position[i] + across[i] for i in range(3)]), ahead
    return jnp.broadcast_to(position[:, None, None], (3, 1, 1)), jnp.stack(across) + ahead


def _picture(view: _View, height: int, width: int, softness: float, limit: int, wanted: list[str], cull: bool) -> Array:
    """The wanted channels side by side, [H W C]."""
    side = tile.side_of(height, width)
    x, y = (jnp.asarray(values) for values in pixel_plane(view.camera, height, width))
    slots = view.waves.count
    plane = tile.to_tiles(jnp.stack([x, y]), side)
    tiles = plane.shape[1]
    everything = jnp.ones((tiles, slots), bool)
    seen = tile.candidates(view.waves, view.camera, x, y, side, softness) if cull else everything
    sizes = _sizes(slots) if cull else [slots]
    chunk = min(max(limit // side**2, 1), tiles)
    components = sum(SURFACE[name] for name in wanted)

    def program(count: int):
        def run(view: _View, seen: Array, plane: Array, pick: Array) -> Array:
            if count == 0:
                return jnp.zeros((chunk, components, side**2), plane.dtype)
            return _surface_of_tiles(view, seen[pick], *_rays(view.camera, plane[:, pick]), count, softness, wanted)

        return run

    programs = [program(count) for count in sizes]

    # of a loop body that is cast anew for the gradient nothing is kept but its inputs: without, every chunk keeps all rays
    again = functools.partial(jax.checkpoint, prevent_cse=False)

    @again
    def cast_chunk(inputs: tuple[Array, Array]) -> Array:
        level, pick = inputs
        return jax.lax.switch(level, programs, view, seen, plane, pick)

    @again
    def cast_group(inputs: tuple[Array, Array]) -> Array:
        """Several chunks; a group that sees nothing costs as little as one chunk would."""
        levels, picks = inputs
        nothing = jnp.zeros((len(levels), chunk, components, side**2), plane.dtype)
        return jax.lax.cond(jnp.any(levels > 0), lambda: jax.lax.map(cast_chunk, (levels, picks)), lambda: nothing)

    # fewest candidates first; the last chunks are filled up with the last tile
    counts = jnp.sum(seen, -1)
    order = jnp.argsort(counts, stable=True)
    chunks = -(-tiles // chunk)
    group = _GROUP if cull else 1
    groups = -(-chunks // group)
    total = groups * group if groups > 1 else chunks
    picks = jnp.pad(order, (0, total * chunk - tiles), mode="edge").reshape(total, chunk)
    levels = jnp.sum(counts[picks[:, -1:]] > jnp.asarray(sizes), -1)
    if groups > 1 and cull:
        parts = jax.lax.map(cast_group, (levels.reshape(groups, group), picks.reshape(groups, group, chunk)))
    else:
        parts = jax.lax.map(cast_chunk, (levels, picks)) if chunks > 1 else cast_chunk((levels[0], picks[0]))[None]
    place = jnp.zeros(tiles, order.dtype).at[order].set(jnp.arange(tiles, dtype=order.dtype))
    parts = parts.reshape(total * chunk, components, side**2)[place]
    return tile.from_tiles(parts, side, height, width)
