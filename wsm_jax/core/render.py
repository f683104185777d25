"""Rendering of waves to surface channels: exact, differentiable, at any resolution.

Every ray is tested against the waves visible to its tile of the picture (`tile`), by Newton's iteration on the convex gauge
(`ray`). The hits are composited front to back (`composite`), or, for hard edges, cast from the front (`front`).
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from wsm_jax.core import ray, superquadric, tile
from wsm_jax.core.composite import Hit, columns, composite, wave_rows
from wsm_jax.core.front import front
from wsm_jax.core.ray import MISS, cast
from wsm_jax.snapshot import CAMERA_CHANNELS, Camera, Waves, camera_channels, project, quaternion_to_matrix
from wsm_jax.snapshot.camera import pixel_plane
from wsm_jax.typing import Array, Float, NpOrJax

SURFACE = {
    "depth": 1, "normal": 3, "instance": 1, "semantic": 1, "motion": 2, "coverage": 1, "base_colour": 3, "local": 3,
    "extent": 3, "centre": 3,
}  # fmt: skip
"""Surface channel -> number of components."""

_GROUP = 16  # chunks that are skipped together if none of them sees a wave


def visible(waves: Waves, points: Float[NpOrJax, "R 3"], direction: Float[NpOrJax, "3"]) -> Float[Array, " R"]:
    """Visibility of a light infinitely far along `direction`: the product of 1 - presence of the waves before it.

    The points must lie slightly off their own surface.
    """
    way = jnp.broadcast_to(jnp.asarray(direction), jnp.shape(points))
    hit = cast(waves, points, way, near=1e-4) < MISS
    return jnp.prod(jnp.where(hit, 1.0 - jnp.asarray(waves.presence)[:, None], 1.0), 0)


class _View(NamedTuple):
    """All inputs of a picture except the rays."""

    waves: Array
    """One row for each wave (`composite.wave_rows`)."""
    camera: Camera
    later: Camera
    dt: NpOrJax | float


def _channels_of(view: _View, hit: Hit, origin: Array, direction: Array, channels: Sequence[str]) -> dict[str, Array]:
    """The channels of rays [3 M R], [M R C] each, physical units."""
    mask, wave = hit.coverage > 0.5, columns(hit.wave)
    turn, scale = wave["turn"], wave["scale"]
    point = [origin[i] + hit.t * direction[i] for i in range(3)]
    arm = [point[i] - wave["centre"][i] for i in range(3)]
    local = [ray.dot(turn[j::3], arm) for j in range(3)]
    own = superquadric.normal_components(local, scale, wave["exponents"])
    normal = [ray.dot(turn[3 * i : 3 * i + 3], own) for i in range(3)]
    to_camera = quaternion_to_matrix(view.camera.rotation)

    def turned(values: list[Array]) -> list[Array]:
        return [ray.dot(to_camera[:, j], values) for j in range(3)]

    values = {
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
    soft = ("coverage", "base_colour")  # also defined for rays that are mostly sky
    return {name: jnp.stack([x if name in soft else jnp.where(mask, x, 0.0) for x in values[name]], -1) for name in channels}


def _motion(view: _View, origin: Array, direction: Array, point: list, arm: list, mask: Array, wave: dict) -> list[Array]:
    """Motion of the seen points on the canvas, image heights per second, [M R] each."""
    drift, spin = wave["velocity"], wave["angular_velocity"]
    moved = [drift[i] + spin[(i + 1) % 3] * arm[(i + 2) % 3] - spin[(i + 2) % 3] * arm[(i + 1) % 3] for i in range(3)]
    # pixels without a hit have their point at the miss distance: replace it before projection
    safe = jnp.stack([jnp.where(mask, point[i], origin[i] + direction[i]) for i in range(3)], -1).reshape(-1, 3)
    speed = jnp.stack([jnp.where(mask, x, 0.0) for x in moved], -1).reshape(-1, 3)
    now, _ = project(view.camera, safe)
    later, _ = project(view.later, safe + view.dt * speed)
    motion = ((later - now) / view.dt).reshape(*mask.shape, 2)
    return [motion[..., 0], motion[..., 1]]


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
    """The surface and camera channels of one instant seen by one camera, in physical units (see the channel table).

    `softness` 0 gives hard edges (for data); > 0 (m) gives edges with coverage gradients (for learning). `later` is the camera
    `dt` seconds on, for the `motion` channel of a moving camera. The instance channel holds slot + 1. `channels` selects
    channels; None: all. Differentiable in waves and camera; labels are constant, and so is the depth of a soft edge where the
    ray misses its wave.

    Tiles of the picture are cast in chunks, grouped by their number of visible waves; the time grows with the covered pixels,
    and memory is bounded by `rays_per_chunk`, times N for soft edges and for gradients, which cast again. A grazing ray may hit
    a wave in a picture and miss it in the gradient, or vice versa. Without `cull` every ray is tested against every wave: the
    same picture, for use under `vmap`, where XLA runs every branch.

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
    known = [*SURFACE, *CAMERA_CHANNELS]
    names = known if channels is None else list(channels)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"surface: channels {unknown}; needed some of {known}")
    wanted = [name for name in names if name in SURFACE]
    out = {}
    if wanted:
        view = _View(wave_rows(waves), camera, camera if later is None else later, dt)
        if cull and softness == 0:
            out = _hard(waves, view, height, width, rays_per_chunk, wanted)
        else:
            out = _picture(waves, view, height, width, softness, rays_per_chunk, wanted, cull)
    return out | {name: jnp.asarray(values) for name, values in camera_channels(camera, height, width, names).items()}


def _rays(camera: Camera, x: Array, y: Array) -> tuple[Array, Array]:
    """World origins and directions [3 M R] of rays at (x, y) [M R] of the camera frame, as `snapshot.rays` has them."""
    turn, position = quaternion_to_matrix(camera.rotation), jnp.asarray(camera.position)
    across = [turn[i, 0] * x + turn[i, 1] * y for i in range(3)]
    ahead = jnp.stack([jnp.broadcast_to(turn[i, 2], x.shape) for i in range(3)])
    if camera.orthographic:
        return jnp.stack([position[i] + across[i] for i in range(3)]), ahead
    return jnp.broadcast_to(position[:, None, None], (3, 1, 1)), jnp.stack(across) + ahead


class _Plan(NamedTuple):
    """Plan of a picture: its tiles, the waves visible to each, and the number of tiles per chunk."""

    grid: tile.TileGrid
    x: Array
    y: Array
    seen: tile.TileVisibility
    chunk: int


def _plan(waves: Waves, camera: Camera, height: int, width: int, softness: float, limit: int, cull: bool) -> _Plan:
    """The plan of a picture; `limit` is in rays."""
    grid = tile.grid(height, width)
    x, y = tile.separable(camera, *(jnp.asarray(values) for values in pixel_plane(camera, height, width)))
    seen = tile.candidates(waves, camera, x, y, grid.side, softness) if cull else grid.everything(waves.count)
    return _Plan(grid, x, y, seen, min(max(limit // grid.side**2, 1), grid.rows * grid.columns))


def _blank(plan: _Plan, view: _View, wanted: list[str]) -> dict[str, Array]:
    return {name: plan.grid.blank(SURFACE[name], view.waves.dtype) for name in wanted}


def _with_tiles(plan: _Plan, pictures: dict[str, Array], values: dict[str, Array], picks: Array) -> dict[str, Array]:
    """Write tiles into the pictures."""

    def place(pictures: dict[str, Array], inputs: tuple[dict[str, Array], Array]) -> tuple[dict[str, Array], None]:
        values, pick = inputs
        return {name: plan.grid.placed(pictures[name], values[name], pick) for name in pictures}, None

    return jax.lax.scan(place, pictures, (values, picks))[0]


def _finished(plan: _Plan, pictures: dict[str, Array]) -> dict[str, Float[Array, "H W C"]]:
    return {name: plan.grid.finished(picture) for name, picture in pictures.items()}


def _hard(waves: Waves, view: _View, height: int, width: int, limit: int, wanted: list[str]) -> dict[str, Array]:
    """The wanted channels with hard edges; their derivatives are those of `_picture`."""

    @jax.custom_jvp
    def picture(waves: Waves, view: _View) -> dict[str, Array]:
        # needs one wave per ray at a time, not all waves of the tile, so twice the rays fit into memory
        plan = _plan(waves, view.camera, height, width, 0.0, 2 * limit, True)
        present = plan.seen._replace(rows=plan.seen.rows & (jnp.asarray(waves.presence) > 0))
        levels, picks, _ = tile.chunks(present.counts(), plan.chunk, 1)

        def draw(place: Array, pictures: dict[str, Array]) -> dict[str, Array]:
            pick = picks[place, 0]
            origin, direction = _rays(view.camera, *(plan.grid.pixels(values, pick) for values in (plan.x, plan.y)))
            hit = front(view.waves, present.by(pick), origin, direction)
            return _with_tiles(plan, pictures, _channels_of(view, hit, origin, direction, wanted), pick)

        empty = jnp.sum(levels[:, 0] == 0)
        return _finished(plan, jax.lax.fori_loop(empty, len(levels), draw, _blank(plan, view, wanted)))

    exact = functools.partial(_picture, height=height, width=width, softness=0.0, limit=limit, wanted=wanted, cull=True)
    picture.defjvp(lambda primals, tangents: jax.jvp(exact, primals, tangents))
    return picture(waves, view)


def _sizes(slots: int) -> list[int]:
    """Numbers of candidate waves for which a program is compiled; a chunk uses the smallest sufficient one.

    Steps of three waste at most a factor of three and keep compilation short. Most tiles see one wave, or none, which needs no
    program.
    """
    return [*(n for n in (1, 3, 9, 27, 81) if n < slots), slots]


def _picture(
    waves: Waves, view: _View, height: int, width: int, softness: float, limit: int, wanted: list[str], cull: bool
) -> dict[str, Float[Array, "H W C"]]:
    """The wanted channels, in a form that has derivatives."""
    plan = _plan(waves, view.camera, height, width, softness, limit, cull)
    sizes = _sizes(waves.count) if cull else [waves.count]

    # recompute loop bodies for the gradient, else every chunk keeps all its rays; also branches, else each keeps the residuals
    # of all others
    again = functools.partial(jax.checkpoint, prevent_cse=False)
    programs = [again(functools.partial(composite, count=count, softness=softness)) for count in sizes]

    @again
    def cast_chunk(level: Array, pick: Array) -> dict[str, Array]:
        """Channels of tiles that see a wave."""
        origin, direction = _rays(view.camera, *(plan.grid.pixels(values, pick) for values in (plan.x, plan.y)))
        hit = jax.lax.switch(level - 1, programs, view.waves, plan.seen.by(pick), origin, direction)
        return _channels_of(view, hit, origin, direction, wanted)

    def draw(pictures: dict[str, Array], level: Array, pick: Array, fresh: Array) -> dict[str, Array]:
        values = cast_chunk(level, pick)
        # the padding of the last chunk repeats a tile, which must have only one derivative
        values = {name: jnp.where(fresh[:, None, None], x, jax.lax.stop_gradient(x)) for name, x in values.items()}
        return _with_tiles(plan, pictures, values, pick)

    def draw_chunk(pictures: dict[str, Array], inputs: tuple[Array, Array, Array]) -> tuple[dict[str, Array], None]:
        return jax.lax.cond(inputs[0] > 0, draw, lambda given, *_: given, pictures, *inputs), None

    def draw_group(pictures: dict[str, Array], inputs: tuple[Array, Array, Array]) -> tuple[dict[str, Array], None]:
        """Draw several chunks; a group without visible waves costs as little as one chunk."""
        some = functools.partial(jax.lax.scan, draw_chunk, xs=inputs)
        return jax.lax.cond(jnp.any(inputs[0] > 0), lambda given: some(given)[0], lambda given: given, pictures), None

    level = jnp.sum(plan.seen.counts()[:, None] > jnp.asarray([0, *sizes[:-1]]), -1)
    grouped = cull and len(level) > _GROUP * plan.chunk
    work = tile.chunks(level, plan.chunk, _GROUP if grouped else 1)
    if not grouped:
        work = jax.tree.map(lambda x: x[:, 0], work)
    pictures, _ = jax.lax.scan(draw_group if grouped else draw_chunk, _blank(plan, view, wanted), work)
    return _finished(plan, pictures)
