"""Images cut in square patches, and patches resized."""

import jax

from wsm_jax.typing import Array, Float, Shaped


def patches(x: Shaped[Array, "B H W C"], rows: int) -> Shaped[Array, "B gh gw p C"]:
    """Cuts an image in `rows` rows of square patches: [B rows columns pixels C], pixels in row-major order.

    Raises ValueError when rows or columns of pixels do not divide into such patches.
    """
    batch, height, width, channels = x.shape
    side = height // rows
    if side * rows != height or width % side:
        raise ValueError(f"an image of {height} x {width} does not divide into {rows} rows of square patches")
    x = x.reshape(batch, rows, side, width // side, side, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(batch, rows, width // side, side * side, channels)


def unpatch(x: Float[Array, "B gh gw p C"]) -> Float[Array, "B H W C"]:
    """Inverse of `patches`."""
    batch, rows, columns, pixels, channels = x.shape
    side = round(pixels**0.5)
    x = x.reshape(batch, rows, columns, side, side, channels).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(batch, rows * side, columns * side, channels)


def resample(x: Float[Array, "B gh gw p C"], side: int) -> Float[Array, "B gh gw q C"]:
    """Resizes every patch to side x side pixels: the mean of whole blocks where they fit, else linear with antialiasing."""
    old = round(x.shape[3] ** 0.5)
    if old == side:
        return x
    if old % side == 0:
        blocks = x.reshape(*x.shape[:3], side, old // side, side, old // side, x.shape[-1])
        return blocks.mean((4, 6)).reshape(*x.shape[:3], side * side, x.shape[-1])
    grid = x.reshape(*x.shape[:3], old, old, x.shape[-1])
    grid = jax.image.resize(grid, (*x.shape[:3], side, side, x.shape[-1]), "linear")
    return grid.reshape(*x.shape[:3], side * side, x.shape[-1])
