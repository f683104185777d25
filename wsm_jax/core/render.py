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
import numpy as np
from jax.core import Tracer

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
_PAIRWISE = 27  # up to so many waves a ray, comparing all pairs is cheaper than sorting
_FEW = 9  # up to so many waves a ray, loops over them are written out


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
    place = jnp.arange(count)[:, None]

    def behind(weight: Array, j: Array | int) -> tuple[Array, None]:
        """Weights behind wave j."""
        other, opaque = (jax.lax.dynamic_slice_in_dim(x, j, 1, -2) for x in (depth, alpha))
        nearer = (other < depth) | ((other == depth) & (place > j))
        return weight * jnp.where(nearer, 1.0 - opaque, 1.0), None

    return jax.lax.scan(behind, alpha, jnp.arange(count), unroll=count <= _FEW)[0]


class _View(NamedTuple):
    """Everything but the rays that a picture depends on."""

    waves: Array
    """One row for each wave (`_rows`)."""
    camera: Camera
    later: Camera
    dt: NpOrJax | float


_COLUMNS = {
    "centre": 3, "scale": 3, "exponents": 2, "turn": 9, "presence": 1, "colour": 3, "slot": 1, "semantic": 1,
    "velocity": 3, "angular_velocity": 3,
}  # fmt: skip
"""What a row says of a wave -> numbers. `turn` is wave to world, by rows. Labels are exact up to 2^24."""


def _rows(waves: Waves) -> Float[Array, "N columns"]:
    """Everything about each wave in one row: one gather fetches it."""
    count = waves.count
    turn, slot = quaternion_to_matrix(waves.rotation), jnp.arange(count)
    parts = [getattr(waves, name, {"turn": turn, "slot": slot}.get(name)) for name in _COLUMNS]
    dtype = jnp.result_type(float, *parts)
    return jnp.concatenate([jnp.asarray(part).astype(dtype).reshape(count, -1) for part in parts], 1)


def _columns(rows: Float[Array, "columns ..."]) -> dict[str, list[Array]]:
    """The numbers of each name, of rows that lie along the first axis."""
    # the derivative of a split is one concatenation, and that of slices a sum of as many padded arrays
    parts = iter(jax.lax.split(rows, [1] * rows.shape[0]))
    return {name: [next(parts)[0] for _ in range(size)] for name, size in _COLUMNS.items()}


def _alpha_and_depth(wave: dict[str, list[Array]], rays: ray.LocalRays, filled: Array, softness: float) -> tuple[Array, Array]:
    """Coverage by each wave alone and depth of its surface (closest approach where a soft edge misses it), [M K R]."""
    presence = jnp.where(filled[..., None], wave["presence"][0], 0.0)
    depth = ray.entry(rays, NEAR_M)
    hit = depth < MISS
    if softness == 0.0:
        return jnp.where(hit, presence, 0.0), depth
    t, log_g = ray.closest(rays, NEAR_M)
    alpha = superquadric.occupancy(log_g, jnp.stack(wave["scale"], -1), presence, softness)
    return alpha, jnp.where(hit, depth, t)


class _Hit(NamedTuple):
    """What each of M tiles of R rays meets: all that the channels are made of."""

    coverage: Array
    nearness: Array
    """1 / depth, averaged by weight, 1/m."""
    colour: Array
    """Averaged by weight, times coverage."""
    t: Array
    """Depth of the wave that weighs most, m."""
    wave: Array
    """The row of that wave, [columns M R]."""


def _hit(view: _View, seen: Array, origin: Array, direction: Array, count: int, softness: float) -> _Hit:
    """Casts rays [3 M R] against the waves that their tiles see, [M N], at most `count` of each."""
    slots, filled = tile.chosen(seen, count)
    rows = jnp.moveaxis(view.waves[slots], -1, 0)[..., None]
    wave = _columns(rows)
    frames = ray.Frames(wave["centre"], wave["scale"], wave["exponents"], wave["turn"])
    alpha, depth = _alpha_and_depth(wave, ray.in_frames(frames, origin[:, :, None], direction[:, :, None]), filled, softness)
    weight = _weights(depth, alpha)
    coverage = _total(weight)
    share = weight / jnp.maximum(coverage, 1e-6)[..., None, :]
    first = jnp.argmax(weight, -2)
    nearness, colour = _total(share / jnp.maximum(depth, NEAR_M)), jnp.stack([_total(share * x) for x in wave["colour"]])
    return _Hit(coverage, nearness, colour, _of(depth, first), _of(rows, first))


def _total(values: Array) -> Array:
    """Sum over the waves, [M K R] -> [M R]. XLA's reduction over few terms of an inner axis costs many times the plain sum."""
    count = values.shape[-2]
    terms = [values[..., k, :] for k in range(count)]
    return functools.reduce(jnp.add, terms) if count <= _PAIRWISE else jnp.sum(values, -2)


def _of(values: Array, first: Array) -> Array:
    """Of wave `first` of each ray, [... M K R] or [... M K 1] -> [... M R]. To choose among few costs less than to gather."""
    count = values.shape[-2]
    if count > _FEW:
        if values.shape[-1] == 1:
            return jnp.take_along_axis(values[..., 0], first.reshape(*[1] * (values.ndim - 3), *first.shape), -1)
        return jnp.take_along_axis(values, first[..., None, :], -2)[..., 0, :]
    found = jnp.broadcast_to(values[..., 0, :], (*values.shape[:-3], *first.shape))
    for k in range(1, count):
        found = jnp.where(first == k, values[..., k, :], found)
    return found


def _channels_of(view: _View, hit: _Hit, origin: Array, direction: Array, channels: Sequence[str]) -> dict[str, Array]:
    """The channels of rays [3 M R], [M R C] each, physical units."""
    mask, wave = hit.coverage > 0.5, _columns(hit.wave)
    turn, scale = wave["turn"], wave["scale"]
    point = [origin[i] + hit.t * direction[i] for i in range(3)]
    arm = [point[i] - wave["centre"][i] for i in range(3)]
    local = [ray.dot(turn[j::3], arm) for j in range(3)]
    own = superquadric.normal_components(local, scale, wave["exponents"])
    normal = [ray.dot(turn[3 * i : 3 * i + 3], own) for i in range(3)]
    to_camera = quaternion_to_matrix(view.camera.rotation)

    def turned(values: list[Array]) -> list[Array]:
        return [ray.dot(to_camera[:, j], values) for j in range(3)]

    found = {
        "depth": [jnp.where(hit.coverage > 1e-4, 1.0 / jnp.maximum(hit.nearness, 1e-6), 0.0)],
        "normal": turned(normal),
        "instance": [wave["slot"][0] + 1.0],
        "semantic": wave["semantic"],
        "motion": _motion(view, origin, direction, point, arm, mask, wave) if "motion" in channels else [],
        "coverage": [hit.coverage],
        "base_colour": [hit.colour[i] * (hit.coverage > 1e-4) for i in range(3)],
        "local": [local[i] / scale[i] for i in range(3)],
        "extent": scale,
        "centre": turned([-x for x in arm]),
    }
    soft = ("coverage", "base_colour")  # what a ray that is mostly sky still has
    return {name: jnp.stack([x if name in soft else jnp.where(mask, x, 0.0) for x in found[name]], -1) for name in channels}


def _motion(view: _View, origin: Array, direction: Array, point: list, arm: list, mask: Array, wave: dict) -> list[Array]:
    """Motion of the seen points on the canvas, image heights per second, [M R] each."""
    drift, spin = wave["velocity"], wave["angular_velocity"]
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

    A size threefold the last costs at most a threefold of what is needed, and keeps compilation short. Most tiles of most
    pictures see one wave, or none, which needs no program.
    """
    return [*(n for n in (1, 3, 9, 27, 81) if n < slots), slots]


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

    Raises ValueError for a channel that is no surface channel, more than one instant or camera, no wave, no pixel, and a
    softness that is negative or traced (it chooses the program).
    """
    if np.ndim(waves.presence) != 1 or not waves.count or np.ndim(camera.focal) or min(height, width) < 1:
        raise ValueError(
            f"surface: waves of shape {np.shape(waves.presence)}, cameras of shape {np.shape(camera.focal)}, {height} x "
            f"{width} pixels; needed one wave or more at one instant, (N,), one camera, and one pixel or more (or jax.vmap)"
        )
    if isinstance(softness, Tracer) or not 0 <= softness < np.inf:
        raise ValueError(f"surface: softness={softness}; needed a plain number from 0 (m), not one that jit traces")
    if isinstance(channels, str):
        raise ValueError(f"surface: channels={channels!r}; needed a list of names")
    names = [*SURFACE, "ground"] if channels is None else list(channels)
    if unknown := [name for name in names if name not in SURFACE and name != "ground"]:
        raise ValueError(f"surface: channels {unknown}; needed some of {[*SURFACE, 'ground']}")
    wanted = [name for name in names if name in SURFACE]
    out = {}
    if wanted:
        view = _View(_rows(waves), camera, camera if later is None else later, dt)
        out = _picture(waves, view, height, width, softness, rays_per_chunk, wanted, cull)
    return out | ({"ground": jnp.asarray(ground(camera, height, width))} if "ground" in names else {})


def _rays(camera: Camera, x: Array, y: Array) -> tuple[Array, Array]:
    """World origins and directions [3 M R] of rays at (x, y) [M R] of the camera frame, as `snapshot.rays` has them."""
    turn, position = quaternion_to_matrix(camera.rotation), jnp.asarray(camera.position)
    across = [turn[i, 0] * x + turn[i, 1] * y for i in range(3)]
    ahead = jnp.stack([jnp.broadcast_to(turn[i, 2], x.shape) for i in range(3)])
    if camera.orthographic:
        return jnp.stack([position[i] + across[i] for i in range(3)]), ahead
    return jnp.broadcast_to(position[:, None, None], (3, 1, 1)), jnp.stack(across) + ahead


def _picture(
    waves: Waves, view: _View, height: int, width: int, softness: float, limit: int, wanted: list[str], cull: bool
) -> dict[str, Float[Array, "H W C"]]:
    """The wanted channels."""
    grid = tile.grid(height, width)
    x, y = tile.separable(view.camera, *(jnp.asarray(values) for values in pixel_plane(view.camera, height, width)))
    slots = waves.count
    seen = tile.candidates(waves, view.camera, x, y, grid.side, softness) if cull else grid.everything(slots)
    sizes = _sizes(slots) if cull else [slots]
    tiles = grid.rows * grid.columns
    chunk = min(max(limit // grid.side**2, 1), tiles)

    # of a loop body that is cast anew for the gradient nothing is kept but its inputs: without, every chunk keeps all rays;
    # and of a branch: without, each hands on what all others would have kept
    again = functools.partial(jax.checkpoint, prevent_cse=False)

    def program(count: int):
        @again
        def run(view: _View, seen: Array, origin: Array, direction: Array) -> _Hit:
            return _hit(view, seen, origin, direction, count, softness)

        return run

    programs = [program(count) for count in sizes]

    @again
    def cast_chunk(level: Array, pick: Array) -> dict[str, Array]:
        """Of tiles that see something."""
        origin, direction = _rays(view.camera, *(grid.pixels(values, pick) for values in (x, y)))
        hit = jax.lax.switch(level - 1, programs, view, seen.by(pick), origin, direction)
        return _channels_of(view, hit, origin, direction, wanted)

    def place_tile(pictures: dict[str, Array], inputs: tuple[dict[str, Array], Array]) -> tuple[dict[str, Array], None]:
        values, pick = inputs
        return {name: grid.placed(pictures[name], values[name], pick) for name in wanted}, None

    def draw(pictures: dict[str, Array], level: Array, pick: Array, fresh: Array) -> dict[str, Array]:
        values = cast_chunk(level, pick)
        # a tile that fills up the last chunk is written again, but has only one derivative
        values = {name: jnp.where(fresh[:, None, None], x, jax.lax.stop_gradient(x)) for name, x in values.items()}
        return jax.lax.scan(place_tile, pictures, (values, pick))[0]

    def draw_chunk(pictures: dict[str, Array], inputs: tuple[Array, Array, Array]) -> tuple[dict[str, Array], None]:
        return jax.lax.cond(inputs[0] > 0, draw, lambda given, *_: given, pictures, *inputs), None

    def draw_group(pictures: dict[str, Array], inputs: tuple[Array, Array, Array]) -> tuple[dict[str, Array], None]:
        """Several chunks; a group that sees nothing costs as little as one chunk would."""
        some = functools.partial(jax.lax.scan, draw_chunk, xs=inputs)
        return jax.lax.cond(jnp.any(inputs[0] > 0), lambda given: some(given)[0], lambda given: given, pictures), None

    level = jnp.sum(seen.counts()[:, None] > jnp.asarray([0, *sizes[:-1]]), -1)
    grouped = cull and tiles > _GROUP * chunk
    work = tile.chunks(level, chunk, _GROUP if grouped else 1)
    if not grouped:
        work = jax.tree.map(lambda x: x[:, 0], work)
    pictures = {name: grid.blank(SURFACE[name], view.waves.dtype) for name in wanted}
    pictures, _ = jax.lax.scan(draw_group if grouped else draw_chunk, pictures, work)
    return {name: grid.finished(pictures[name]) for name in wanted}
