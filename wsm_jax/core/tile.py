"""Square tiles of a picture and the waves visible to each: culling by exact screen bounds.

A wave lies wholly outside a plane n . x + b = 0 through the edge of a tile when n . c + b + h(R^T n) < 0, h being its support
function. The planes are those of columns and rows of tiles, and one in front of the camera, so a picture of H W / s^2 tiles
costs H/s + W/s + 1 tests a wave. They run through the outermost pixels of the column, for any lens. No wave that a ray of the
tile meets is ever culled, so culling does not change the picture.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from wsm_jax.core import superquadric
from wsm_jax.core.ray import NEAR_M, dot
from wsm_jax.snapshot import Camera, Waves, quaternion_to_matrix
from wsm_jax.typing import Array, Bool, Float, Int, NpOrJax

_VANISHED = 17.4  # 1 - sigmoid(-17.4) is 1 in float32: a soft edge has no influence beyond it
_SLACK = 1e-5  # rounding tolerance, relative to the summands


class TileVisibility(NamedTuple):
    """Masks of the waves that reach each row and each column of tiles; a tile sees the waves that reach both."""

    rows: Bool[Array, "rows N"]
    columns: Bool[Array, "columns N"]

    def counts(self) -> Int[Array, " tiles"]:
        """Number of waves visible to each tile."""
        product = jnp.matmul(self.rows.astype(jnp.float32), self.columns.astype(jnp.float32).T, precision="highest")
        return product.astype(jnp.int32).reshape(-1)

    def by(self, tiles: Int[Array, " M"]) -> Bool[Array, "M N"]:
        """Mask of the waves visible to the given tiles."""
        width = self.columns.shape[0]
        return self.rows[tiles // width] & self.columns[tiles % width]


class TileGrid(NamedTuple):
    """Square tiles of a picture, row-major from the top left, as are their pixels; the last may extend beyond the picture."""

    height: int
    width: int
    side: int
    """Pixels along the side of a tile."""

    @property
    def rows(self) -> int:
        return -(-self.height // self.side)

    @property
    def columns(self) -> int:
        return -(-self.width // self.side)

    def everything(self, slots: int) -> TileVisibility:
        """Visibility of every wave to every tile."""
        return TileVisibility(jnp.ones((self.rows, slots), bool), jnp.ones((self.columns, slots), bool))

    def pixels(self, values: Float[Array, "H W"], tiles: Int[Array, " M"]) -> Float[Array, "M R"]:
        """Pixel values of the given tiles; beyond the edges of the picture, and along an axis of 1, the last value."""
        step = jnp.arange(self.side)
        row, column = (first[:, None] * self.side + step for first in (tiles // self.columns, tiles % self.columns))
        row, column = (jnp.minimum(place, size - 1) for place, size in zip((row, column), values.shape, strict=True))
        return values[row[:, :, None], column[:, None, :]].reshape(tiles.shape[0], self.side**2)

    def blank(self, channels: int, dtype: DTypeLike = jnp.float32) -> Float[Array, "Y XC"]:
        """A zero picture of whole tiles, for `placed`."""
        return jnp.zeros((self.rows * self.side, self.columns * self.side * channels), dtype)

    def placed(self, picture: Float[Array, "Y XC"], values: Float[Array, "R C"], tile: Int[Array, ""]) -> Float[Array, "Y XC"]:
        """Write one tile into the picture. Each tile must be written once, over zeros: the derivative adds."""
        block = values.reshape(self.side, self.side * values.shape[1]).astype(picture.dtype)
        return _placed(picture, block, tile // self.columns * self.side, tile % self.columns * block.shape[1])

    def finished(self, picture: Float[Array, "Y XC"]) -> Float[Array, "H W C"]:
        """Crop the padding of whole tiles from a picture."""
        return picture.reshape(picture.shape[0], self.columns * self.side, -1)[: self.height, : self.width]


def grid(height: int, width: int) -> TileGrid:
    """Tiles of 4 pixels for pictures up to 256 pixels (they follow outlines closely), of 8 for larger ones (fewer)."""
    return TileGrid(height, width, 4 if max(height, width) <= 256 else 8)


@jax.custom_jvp
def _placed(picture: Array, block: Array, row: Array, column: Array) -> Array:
    return jax.lax.dynamic_update_slice(picture, block, (row, column))


@_placed.defjvp
def _placed_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """Writing over zeros is addition, whose derivative does not copy the picture for every tile."""
    picture, _, *place = primals
    change, block, *_ = tangents
    return _placed(*primals), change + _placed(jnp.zeros_like(picture), block, *place)


def separable(camera: Camera, x: Array, y: Array) -> tuple[Array, Array]:
    """Pixel coordinates without redundancy: x [1 W] and y [H 1] for a camera without distortion, else [H W]."""
    return (x[:1], y[:, :1]) if camera.pinhole or camera.orthographic else (x, y)


def candidates(waves: Waves, camera: Camera, x: Array, y: Array, side: int, softness: NpOrJax | float = 0.0) -> TileVisibility:
    """Visibility of the waves that may cover a pixel of each tile.

    `x` and `y` place the rays of the pixels in the camera frame (`separable`). With `softness` (m) a wave reaches as far as its
    coverage can be told from 0 in float32.
    """
    waves, camera, x, y = jax.lax.stop_gradient((waves, camera, x, y))
    look, turn = quaternion_to_matrix(camera.rotation), quaternion_to_matrix(waves.rotation)
    offset = jnp.asarray(waves.centre) - jnp.asarray(camera.position)
    centre = [dot(offset.T, look[:, j]) for j in range(3)]  # in the camera frame, as are the axes of the waves
    own = [[dot(turn[:, :, k].T, look[:, j]) for k in range(3)] for j in range(3)]
    scale, exponents = (jnp.moveaxis(jnp.asarray(x), -1, 0) for x in (waves.scale, waves.exponents))
    growth = 1.0 + _VANISHED * softness / jnp.exp(jnp.mean(jnp.log(scale), 0))

    def reached(axis: int, across: Array, ahead: Array, shift: Array) -> Array:
        """Mask of waves with a part on the inner side of the planes across x[axis] + ahead x[2] + shift = 0; [... N]."""
        local = [across * own[axis][k] + ahead * own[2][k] for k in range(3)]
        log_h, _ = superquadric.log_gauge_gradient(local, scale, 2.0 / (2.0 - exponents))
        a, b, c = across * centre[axis], ahead * centre[2], shift + growth * jnp.exp(log_h)
        return a + b + c + _SLACK * (jnp.abs(a) + jnp.abs(b) + jnp.abs(c) + jnp.abs(shift)) >= 0

    def between(axis: int, values: Array) -> Array:
        """Mask of waves that reach bands of pixels with these minima and maxima [bands 2] of coordinate `axis`."""
        sign, edge = jnp.asarray([1.0, -1.0]), values[..., None]
        across, limit = sign[:, None], -sign[:, None] * edge
        ahead, shift = (zero, limit) if camera.orthographic else (limit, zero)
        return jnp.all(reached(axis, across, ahead, shift), 1)

    zero, near = jnp.zeros(()), jnp.asarray(-NEAR_M)
    return TileVisibility(between(1, _bands(y, side)), between(0, _bands(x.T, side)) & reached(2, zero, jnp.ones(()), near))


def _bands(values: Array, side: int) -> Array:
    """Minimum and maximum in bands of `side` rows, [bands 2]."""
    values = jnp.pad(values, ((0, -values.shape[0] % side), (0, 0)), mode="edge").reshape(-1, side * values.shape[1])
    return jnp.stack([jnp.min(values, -1), jnp.max(values, -1)], -1)


def chunks(level: Int[Array, " tiles"], size: int, group: int) -> tuple[Array, Array, Array]:
    """Tiles sorted by level (stable, ascending), in groups of chunks of `size`.

    Returns the maximum level of each chunk [groups group], its tiles [groups group size], and a mask of the tiles that are not
    padding: the last chunks are padded with the last tile.
    """
    tiles = level.shape[0]
    order = jnp.sort(level * tiles + jnp.arange(tiles)) % tiles
    places = jnp.arange(-(-tiles // (size * group)) * size * group).reshape(-1, group, size)
    picks = order[jnp.minimum(places, tiles - 1)]
    return level[picks[..., -1]], picks, places < tiles


def chosen(seen: Bool[Array, "tiles N"], count: int) -> tuple[Array, Array]:
    """The first `count` visible waves of each tile in slot order, [tiles count], and a mask of the valid entries."""
    slots = seen.shape[1]
    if count == slots:
        return jnp.broadcast_to(jnp.arange(slots), seen.shape), seen
    # the first slots have the largest of these values; float32 is exact up to 2^24 and has a fast top_k in XLA
    last, _ = jax.lax.top_k(jnp.where(seen, slots - jnp.arange(slots, dtype=jnp.float32), 0.0), count)
    return jnp.minimum(slots - last.astype(jnp.int32), slots - 1), last > 0
