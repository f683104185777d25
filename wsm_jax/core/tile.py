"""The picture in square tiles, and which waves each of them can see: culling by exact bounds on the screen.

A wave lies wholly outside a plane n . x + b = 0 through the edge of a tile when n . c + b + h(R^T n) < 0, h being its support
function. The planes are those of columns and rows of tiles, and one in front of the camera, so a picture of H W / s^2 tiles
costs H/s + W/s + 1 tests a wave. They run through the outermost pixels of the column, whatever the lens does between. No wave
that a ray of the tile meets is ever left out, so a culled picture is the picture.
"""

import jax
import jax.numpy as jnp

from wsm_jax.core import superquadric
from wsm_jax.core.ray import NEAR_M
from wsm_jax.snapshot import Camera, Waves, quaternion_to_matrix
from wsm_jax.typing import Array, Bool, Float, NpOrJax

_VANISHED = 17.4  # 1 - sigmoid(-17.4) is 1 in float32: a soft edge that far out changes no picture
_SLACK = 1e-5  # for rounding, relative to the numbers that are added


def side_of(height: int, width: int) -> int:
    """Pixels along the side of a tile, for a picture of that size."""
    return 8 if max(height, width) <= 256 else 16


def to_tiles(pixels: Float[Array, "c H W"], side: int) -> Float[Array, "c tiles pixels"]:
    """Tiles in rows from the top left, pixels in rows within each; edges are repeated to fill the last."""
    count, height, width = pixels.shape
    pixels = jnp.pad(pixels, ((0, 0), (0, -height % side), (0, -width % side)), mode="edge")
    rows, columns = pixels.shape[1] // side, pixels.shape[2] // side
    parts = pixels.reshape(count, rows, side, columns, side).transpose(0, 1, 3, 2, 4)
    return parts.reshape(count, rows * columns, side * side)


def from_tiles(tiles: Float[Array, "tiles c pixels"], side: int, height: int, width: int) -> Float[Array, "H W c"]:
    """The picture that the tiles make up."""
    rows, columns = -(-height // side), -(-width // side)
    parts = tiles.reshape(rows, columns, tiles.shape[1], side, side).transpose(0, 3, 1, 4, 2)
    return parts.reshape(rows * side, columns * side, tiles.shape[1])[:height, :width]


def candidates(
    waves: Waves, camera: Camera, x: Float[Array, "H W"], y: Float[Array, "H W"], side: int, softness: NpOrJax | float = 0.0
) -> Bool[Array, "tiles N"]:
    """Which waves may cover some pixel of each tile.

    `x` and `y` place the rays of the pixels in the camera frame (`snapshot.camera.pixel_plane`). With `softness` (m) a wave
    reaches as far as its coverage can be told from 0 in float32.
    """
    waves, camera, x, y = jax.lax.stop_gradient((waves, camera, x, y))
    turn = quaternion_to_matrix(camera.rotation)
    to_world = quaternion_to_matrix(waves.rotation)
    offset = jnp.asarray(waves.centre) - jnp.asarray(camera.position)
    centre = jnp.sum(offset[:, :, None] * turn, 1)  # camera frame, [N 3]
    own = jnp.sum(turn[None, :, :, None] * to_world[:, :, None, :], 1)  # wave to camera frame, [N 3 3]
    radius = jnp.exp(jnp.mean(jnp.log(jnp.asarray(waves.scale)), -1))
    growth = 1.0 + _VANISHED * softness / radius

    def beyond(normal: Array, shift: Array) -> Array:
        """Whether some of each wave lies on the inner side of planes [planes 3]; [planes N]."""
        local = jnp.sum(normal[:, None, :, None] * own, -2)
        reach = growth * superquadric.support(local, waves.scale, waves.exponents)
        parts = normal[:, None] * centre
        slack = _SLACK * (jnp.sum(jnp.abs(parts), -1) + jnp.abs(shift)[:, None] + reach)
        return jnp.sum(parts, -1) + shift[:, None] + reach + slack >= 0

    def between(values: Array, axis: int) -> Array:
        """Whether each wave reaches into bands of pixels whose coordinate `axis` has these least and greatest [bands 2]."""
        inside = []
        for sign, edge in ((1.0, values[:, 0]), (-1.0, values[:, 1])):
            across = jnp.zeros((edge.shape[0], 3)).at[:, axis].set(sign)
            flat = camera.orthographic
            normal = across if flat else across.at[:, 2].set(-sign * edge)
            inside.append(beyond(normal, -sign * edge if flat else jnp.zeros_like(edge)))
        return inside[0] & inside[1]

    if camera.plain or camera.orthographic:  # without distortion one row and one column say it all
        x, y = x[:1], y[:, :1]
    columns, rows = between(_bands(x.T, side), 0), between(_bands(y, side), 1)
    ahead = beyond(jnp.asarray([[0.0, 0.0, 1.0]]), jnp.full(1, -NEAR_M))
    return (rows[:, None] & columns[None] & ahead).reshape(-1, centre.shape[0])


def _bands(values: Array, side: int) -> Array:
    """Least and greatest value in bands of `side` rows, [bands 2]."""
    values = jnp.pad(values, ((0, -values.shape[0] % side), (0, 0)), mode="edge").reshape(-1, side * values.shape[1])
    return jnp.stack([jnp.min(values, -1), jnp.max(values, -1)], -1)


def chosen(seen: Bool[Array, "tiles N"], count: int) -> tuple[Array, Array]:
    """The first `count` candidates of each tile in order of slot, [tiles count], and which of these places are filled."""
    slots = seen.shape[1]
    if count == slots:
        return jnp.broadcast_to(jnp.arange(slots), seen.shape), seen
    found = jnp.cumsum(seen, 1)
    place = jnp.arange(1, count + 1)
    slot = jax.vmap(lambda row: jnp.searchsorted(row, place))(found)
    return jnp.minimum(slot, slots - 1), place <= found[:, -1:]
