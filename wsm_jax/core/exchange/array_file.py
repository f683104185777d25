"""Points and grids as NumPy files: a self-describing .npz, and a bare grid as .npy.

    points.npz   format "wsm_points", points [n 3], normals [n 3], colours [n 3]
    grid.npz     format "wsm_grid", kind (one of voxels.KINDS), values [X Y Z], origin [3], spacing

Pickles are rejected, and sizes in a header are checked against the size of the file before memory is allocated.
"""

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from wsm_jax.core.exchange.points import PointCloud
from wsm_jax.core.exchange.voxels import KINDS, VoxelGrid
from wsm_jax.files import atomic

LIMIT_BYTES = 2**31
"""Maximum size of an array."""

_DEFLATE_RATIO = 1040
_FAR = 1e9


def write(thing: PointCloud | VoxelGrid, path: str | Path) -> None:
    """Write .npz (compressed), or the bare values of a grid as .npy; atomic."""
    path = Path(path)
    buffer = io.BytesIO()
    if isinstance(thing, PointCloud):
        arrays = {name: np.asarray(getattr(thing, name), np.float32) for name in ("points", "normals", "colours")}
        np.savez_compressed(buffer, allow_pickle=False, format=np.array("wsm_points"), **arrays)
    elif path.suffix.lower() == ".npy":
        np.save(buffer, np.asarray(thing.values), allow_pickle=False)
    else:
        place = {"origin": np.asarray(thing.origin, np.float64), "spacing": thing.spacing, "values": np.asarray(thing.values)}
        np.savez_compressed(buffer, format="wsm_grid", kind=thing.kind, **place)
    with atomic(path) as part:
        part.write_bytes(buffer.getvalue())


def read(path: str | Path, spacing: float | None = None) -> PointCloud | VoxelGrid:
    """Read a file of `write`. A bare .npy grid needs its `spacing` (m) and starts at the origin; integers or booleans are
    occupancy, other numbers are signed distance.

    Raises FileNotFoundError, or ValueError with the path for another format, and for damaged, too large or non-finite data.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        with _naming(path):
            return _bare(_array(path.read_bytes(), path), spacing, path)
    return _described(members(path), path)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Add the path to errors."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such array file")
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, struct.error) as error:
        raise ValueError(f"{path}: cannot be read ({type(error).__name__}: {error})") from error


def members(path: Path) -> dict[str, np.ndarray]:
    """The arrays of any .npz, by name, without pickles and within the size that the file can contain.

    Raises FileNotFoundError, or ValueError with the path for another format, damage, or arrays that are not numbers.
    """
    with _naming(path):
        return _members(path)


def _members(path: Path) -> dict[str, np.ndarray]:
    arrays, size = {}, path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.file_size > min(LIMIT_BYTES, _DEFLATE_RATIO * size):
                raise ValueError(f"{path}: {info.filename!r} claims {info.file_size} bytes, in a file of {size}")
            with archive.open(info) as member:
                arrays[info.filename.removesuffix(".npy")] = _array(member.read(info.file_size), path)
    return arrays


def _array(data: bytes, path: Path) -> np.ndarray:
    """The array of an .npy, after a check of its header against its length."""
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(stream)
    except Exception as error:  # NumPy parses a header as Python: a damaged one may raise what Python's tokenizer does
        raise ValueError(f"{path}: no NumPy array ({str(error)[:100]})") from error
    count = 1
    for length in shape:
        count *= int(length)
    if dtype.hasobject or dtype.kind not in "biufU" or count < 0 or min(shape, default=0) < 0:
        raise ValueError(f"{path}: an array of {dtype} and shape {shape}; needed plain numbers")
    if count * dtype.itemsize != len(data) - stream.tell():
        raise ValueError(f"{path}: an array of {shape} {dtype} does not fit {len(data) - stream.tell()} bytes")
    return (
        np.frombuffer(data, dtype, count, stream.tell()).reshape(shape, order="F" if fortran else "C")
        if count
        else np.zeros(shape)
    )


def _bare(values: np.ndarray, spacing: float | None, path: Path) -> VoxelGrid:
    if spacing is None or not (np.isfinite(spacing) and spacing > 0):
        raise ValueError(f"{path}: a bare grid has no cell size; needed the spacing in metres, above 0")
    return _grid(values, np.zeros(3), float(spacing), "occupancy" if values.dtype.kind in "biu" else "distance", path)


def _grid(values: np.ndarray, origin: np.ndarray, spacing: float, kind: str, path: Path) -> VoxelGrid:
    if values.ndim != 3 or 0 in values.shape or values.dtype.kind not in "biuf" or not np.isfinite(values).all():
        raise ValueError(f"{path}: values of shape {values.shape} and {values.dtype}; needed (X, Y, Z) finite numbers")
    if origin.shape != (3,) or not np.isfinite(origin).all() or not (np.isfinite(spacing) and 1e-9 < spacing < _FAR):
        raise ValueError(f"{path}: origin {origin} and spacing {spacing}; needed three numbers and a length in m")
    return VoxelGrid(values.astype(np.uint8 if values.dtype.kind == "b" else values.dtype), origin, spacing, kind)


def _described(arrays: dict[str, np.ndarray], path: Path) -> PointCloud | VoxelGrid:
    form = str(arrays["format"]) if "format" in arrays else None
    needed = {"wsm_points": ("points", "normals", "colours"), "wsm_grid": ("kind", "values", "origin", "spacing")}.get(
        str(form)
    )
    if needed is None or not set(needed) <= set(arrays):
        raise ValueError(f'{path}: format {form!r} with {sorted(arrays)}; needed "wsm_points" or "wsm_grid" and their arrays')
    if form == "wsm_grid":
        kind, spacing = str(arrays["kind"]), arrays["spacing"]
        if (
            kind not in KINDS
            or spacing.size != 1
            or spacing.dtype.kind not in "iuf"
            or arrays["origin"].dtype.kind not in "iuf"
        ):
            raise ValueError(f"{path}: a grid of kind {kind!r}; needed one of {KINDS}, an origin and a spacing")
        origin = arrays["origin"].astype(np.float64)
        return _grid(arrays["values"], origin, float(spacing.reshape(())), kind, path)
    parts = [arrays[name] for name in needed]
    if any(part.ndim != 2 or part.shape != (len(parts[0]), 3) or part.dtype.kind not in "iuf" for part in parts):
        raise ValueError(f"{path}: points of shapes {[part.shape for part in parts]}; needed [n 3] for {needed}")
    parts = [part.astype(np.float64) for part in parts]
    if not all(np.isfinite(part).all() for part in parts) or np.abs(parts[0]).max(initial=0) > _FAR:
        raise ValueError(f"{path}: a point that is not finite, or beyond {_FAR:g} m")
    return PointCloud(*parts)
