"""The channel table: one row for each quantity that a snapshot can hold per pixel.

A channel has three forms. *Physical*: float32 in the unit of its row. *Stored*: the integer in WSV files,
stored = round(physical / step). *Encoded*: the input of a model, [-1, 1] with a fixed number of components. Each pair of
neighbouring forms converts both ways (`store`/`restore`, `encode`/`decode`), within half a storage step.
A new channel is one new row.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wsm_jax.snapshot.camera import Camera, ground, level_with
from wsm_jax.snapshot.waves import SEMANTIC_CLASSES
from wsm_jax.typing import Float, NpOrJax, Shaped, array_namespace

NEAR_M = 1.0
"""Depth that encodes to +1; nearer surfaces are clipped. Infinity (no surface) encodes to -1."""


@dataclasses.dataclass(frozen=True)
class Channel:
    """One row of the table."""

    name: str
    components: int
    """Components of the physical and of the stored form."""
    unit: str
    dtype: str
    """NumPy dtype on disk."""
    step: float
    """Physical size of one storage step."""
    encoded: int
    """Components of the encoded form."""
    encode: Callable[[NpOrJax], NpOrJax]
    """Physical -> encoded, components last; pure. NumPy stays NumPy."""
    decode: Callable[[NpOrJax], NpOrJax]
    """Encoded -> physical; inverse of `encode` on valid values."""
    picture: Callable[[np.ndarray], np.ndarray]
    """Physical [... C] -> RGB [... 3] in 0..1, for display."""
    resize: str = "nearest"
    """"area" (mean of the covered pixels) or "nearest" (for labels and directions, which must not be mixed)."""
    from_camera: Callable[[Camera, int, int], NpOrJax] | None = None
    """(camera [*lead], height, width) -> physical [*lead H W C], where the camera alone determines the channel; not stored."""
    to_camera: Callable[[np.ndarray, Camera], Camera] | None = None
    """(physical [H W C], camera of the same lens) -> the camera whose `from_camera` is nearest."""
    image_units: bool = False
    """True if values are in picture heights, so that cropping to a share of the rows divides them by it."""
    weight: float = 1.0
    """Weight of the channel in the loss of a model that predicts it: about 1 / (encoded error that still matters)^2."""


def _unit(low: int | float, high: int | float) -> tuple[Callable[[NpOrJax], NpOrJax], Callable[[NpOrJax], NpOrJax]]:
    """Affine map of [low, high] to [-1, 1] and back; values outside are clipped when encoded."""
    return (
        lambda x: array_namespace(x).clip(2.0 * (x - low) / (high - low) - 1.0, -1.0, 1.0),
        lambda y: low + 0.5 * (y + 1.0) * (high - low),
    )


def _encode_depth(depth: Shaped[NpOrJax, "..."]) -> Shaped[NpOrJax, "..."]:
    xp = array_namespace(depth)
    near = xp.where(depth > 0, NEAR_M / xp.maximum(depth, NEAR_M), 0.0)
    return 2.0 * near - 1.0


def _decode_depth(code: Shaped[NpOrJax, "..."]) -> Shaped[NpOrJax, "..."]:
    xp = array_namespace(code)
    near = xp.clip(0.5 * (code + 1.0), 0.0, 1.0)
    return xp.where(near > NEAR_M / 60.0, NEAR_M / xp.maximum(near, 1e-6), 0.0)


def _encode_extent(extent: Shaped[NpOrJax, "..."]) -> Shaped[NpOrJax, "..."]:
    xp = array_namespace(extent)
    return xp.clip(0.5 * xp.log2(xp.maximum(extent, 1e-3) / 0.4), -1.0, 1.0)


def _decode_extent(code: Shaped[NpOrJax, "..."]) -> Shaped[NpOrJax, "..."]:
    return 0.4 * 2.0 ** (2.0 * code)


def _encode_semantic(label: Shaped[NpOrJax, "..."]) -> Shaped[NpOrJax, "..."]:
    return 2.0 * (label.astype(np.int32) == np.arange(len(SEMANTIC_CLASSES))) - 1.0


def _decode_semantic(code: Shaped[NpOrJax, "..."]) -> Shaped[NpOrJax, "..."]:
    return array_namespace(code).argmax(code, -1, keepdims=True).astype(np.float32)


def _encode_instance(label: Shaped[NpOrJax, "..."]) -> Shaped[NpOrJax, "..."]:
    return 2.0 * ((label.astype(np.int32) >> np.arange(4)) & 1) - 1.0


def _decode_instance(code: Shaped[NpOrJax, "..."]) -> Shaped[NpOrJax, "..."]:
    return array_namespace(code).sum((code > 0) * 2.0 ** np.arange(4), -1, keepdims=True)


_PALETTE = np.asarray(
    [
        *((0.08, 0.08, 0.1), (0.55, 0.55, 0.58), (0.5, 0.35, 0.2), (0.9, 0.25, 0.2), (0.2, 0.5, 0.95), (0.25, 0.75, 0.35)),
        *((0.95, 0.75, 0.2), (0.7, 0.35, 0.85), (0.2, 0.8, 0.8), (0.95, 0.5, 0.65), (0.6, 0.7, 0.25), (1.0, 0.55, 0.15)),
        *((0.4, 0.3, 0.75), (0.75, 0.75, 0.75), (0.35, 0.55, 0.45), (0.85, 0.85, 0.5)),
    ],
    np.float32,
)


def _grey(x: np.ndarray) -> np.ndarray:
    return np.repeat(np.clip(x, 0.0, 1.0), 3, -1)


def _depth_picture(depth: np.ndarray) -> np.ndarray:
    return _grey(np.where(depth > 0, 1.8 * NEAR_M / np.maximum(depth, NEAR_M), 0.0))


def _labels(x: np.ndarray) -> np.ndarray:
    return _PALETTE[np.asarray(np.rint(x[..., 0]), np.int64) % len(_PALETTE)]


def _motion_picture(x: np.ndarray) -> np.ndarray:
    return np.clip(0.5 + np.concatenate([x, np.zeros_like(x[..., :1])], -1), 0.0, 1.0)


def _signed(x: np.ndarray) -> np.ndarray:
    return np.clip(0.5 + 0.5 * x, 0.0, 1.0)


def _ground_picture(x: np.ndarray) -> np.ndarray:
    return _signed(np.concatenate([x[..., :1], np.zeros_like(x[..., :1]), x[..., 1:]], -1))


def _clip01(x: np.ndarray) -> np.ndarray:
    return np.clip(x, 0.0, 1.0)


_CLASSES = len(SEMANTIC_CLASSES)
_DEPTH, _EXTENT = (_encode_depth, _decode_depth), (_encode_extent, _decode_extent)
_SEMANTIC, _INSTANCE = (_encode_semantic, _decode_semantic), (_encode_instance, _decode_instance)

_ROWS = (
    #       name        C  unit                          dtype    step    encoded  encode/decode          picture
    Channel("rgb", 3, "sRGB 0..1", "uint8", 1 / 255, 3, *_unit(0, 1), _clip01, resize="area"),
    Channel("depth", 1, "m along axis, 0: none", "uint16", 1e-3, 1, *_DEPTH, _depth_picture, weight=40.0),
    Channel("normal", 3, "unit vector, camera frame", "int8", 1 / 127, 3, *_unit(-1, 1), _signed),
    Channel("instance", 1, "id, 0: none", "uint16", 1.0, 4, *_INSTANCE, _labels),
    Channel("semantic", 1, "class index", "uint8", 1.0, _CLASSES, *_SEMANTIC, _labels, weight=1.5),
    Channel("motion", 2, "image heights per second", "int16", 1e-3, 2, *_unit(-4, 4), _motion_picture, image_units=True),
    Channel("coverage", 1, "probability", "uint8", 1 / 255, 1, *_unit(0, 1), _grey, resize="area"),
    Channel("base_colour", 3, "sRGB 0..1", "uint8", 1 / 255, 3, *_unit(0, 1), _clip01, resize="area"),
    Channel("local", 3, "wave-local position / semi-axes", "int16", 1 / 32000, 3, *_unit(-1, 1), _signed),
    Channel("centre", 3, "m, surface to wave centre, camera frame", "int16", 1e-3, 3, *_unit(-2, 2), _signed, weight=4.0),
    Channel("extent", 3, "m, semi-axes of the wave", "int16", 1e-3, 3, *_EXTENT, _signed, weight=2.0),
    Channel(
        *("ground", 2, "1/m of z = 0; sine of elevation", "int16", 1e-4, 2, *_unit(-1, 1), _ground_picture),
        from_camera=ground,
        to_camera=level_with,
    ),
)

CHANNELS: dict[str, Channel] = {row.name: row for row in _ROWS}
"""Name -> row, in canonical order."""


CAMERA_CHANNELS = tuple(name for name, row in CHANNELS.items() if row.from_camera)
"""The channels that a camera alone determines."""

STORED = tuple(name for name in CHANNELS if name not in CAMERA_CHANNELS)
"""The channels that a dataset may hold."""


def channel(name: str) -> Channel:
    """The row called `name`. Raises KeyError that lists the known names."""
    if name not in CHANNELS:
        raise KeyError(f"unknown channel {name!r}; the channels are {', '.join(CHANNELS)}")
    return CHANNELS[name]


def camera_channels(
    camera: Camera, height: int, width: int, names: Sequence[str] = CAMERA_CHANNELS
) -> dict[str, Float[NpOrJax, "*lead H W C"]]:
    """Those of the named channels that `camera` [*lead] alone determines, in physical units."""
    return {name: row.from_camera(camera, height, width) for name, row in CHANNELS.items() if name in names and row.from_camera}


def store(name: str, physical: Shaped[NpOrJax, "..."]) -> Shaped[np.ndarray, "..."]:
    """Physical -> stored integers, clipped to the range of the dtype."""
    row = channel(name)
    limits = np.iinfo(row.dtype)
    return np.clip(np.rint(np.asarray(physical, np.float64) / row.step), limits.min, limits.max).astype(row.dtype)


def restore(name: str, stored: Shaped[NpOrJax, "..."]) -> Float[NpOrJax, "..."]:
    """Stored integers -> physical float32; NumPy stays NumPy, JAX stays JAX."""
    xp = array_namespace(stored)
    return stored.astype(xp.float32) * xp.float32(channel(name).step)


def encode(name: str, physical: Shaped[NpOrJax, "..."]) -> Float[Any, "..."]:
    """Physical -> encoded [-1, 1] in float32, `channel(name).encoded` components; NumPy stays NumPy, JAX stays JAX."""
    return channel(name).encode(array_namespace(physical).asarray(physical, np.float32)).astype(np.float32)


def decode(name: str, code: Float[NpOrJax, "..."]) -> Float[Any, "..."]:
    """Encoded -> physical float32; NumPy stays NumPy, JAX stays JAX."""
    return channel(name).decode(array_namespace(code).asarray(code, np.float32)).astype(np.float32)


def resize(name: str, values: Shaped[NpOrJax, "*lead H W C"], height: int, width: int) -> Shaped[np.ndarray, "*lead h w C"]:
    """Resize physical or stored values by the channel's rule; "area" keeps the dtype by rounding."""
    values = np.asarray(values)
    rows, columns = values.shape[-3:-1]
    if (rows, columns) == (height, width):
        return values
    if channel(name).resize == "nearest":
        i = np.minimum((np.arange(height) + 0.5) * rows / height, rows - 1).astype(np.int64)
        j = np.minimum((np.arange(width) + 0.5) * columns / width, columns - 1).astype(np.int64)
        return values[..., i[:, None], j[None, :], :]
    by_row, by_column = _area(rows, height), _area(columns, width)
    mean = np.einsum("ih,...hwc,jw->...ijc", by_row, values.astype(np.float32), by_column, optimize=True)
    return np.rint(mean).astype(values.dtype) if np.issubdtype(values.dtype, np.integer) else mean.astype(values.dtype)


def crop_box(
    size: Sequence[int],
    height: int,
    width: int,
    pixel_aspect: float | int = 1.0,
    place: tuple[float, float] | None = None,
) -> tuple[int, int, int, int]:
    """(top, left, rows, columns) of the largest part of a picture of `size` (H, W) with the aspect of height x width.

    `place`: how far it lies to the right and down, each in [0, 1); None: in the middle. `pixel_aspect`: width over height of a
    pixel of the picture; those of height x width are square. Raises ValueError for a height or width below 1.
    """
    if height < 1 or width < 1:
        raise ValueError(f"picture size {height} x {width}; needed at least 1 x 1")
    ratio = width / height / pixel_aspect  # columns a row, in pixels of the picture
    rows = min(int(size[0]), max(1, round(size[1] / ratio)))
    columns = min(int(size[1]), max(1, round(size[0] * ratio)))
    down, right = int(size[0]) - rows, int(size[1]) - columns
    if place is None:
        return down // 2, right // 2, rows, columns
    return int(place[1] * (down + 1)), int(place[0] * (right + 1)), rows, columns


def _area(source: int, target: int) -> np.ndarray:
    """Row-stochastic [target source]: overlap of target cells with source cells (box filter; linear when enlarging)."""
    if target >= source:
        x = np.clip((np.arange(target) + 0.5) * source / target - 0.5, 0, source - 1)
        return np.maximum(0.0, 1.0 - np.abs(x[:, None] - np.arange(source)[None, :])).astype(np.float32)
    edges = np.arange(target + 1) * source / target
    left, right = np.maximum(edges[:-1, None], np.arange(source)), np.minimum(edges[1:, None], np.arange(1, source + 1))
    overlap = np.maximum(0.0, right - left)
    return (overlap / overlap.sum(1, keepdims=True)).astype(np.float32)
