"""Instance masks as one array [T H W] of integers or bool in an npy or npz file, read frame by frame."""

import contextlib
import dataclasses
import io
import math
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SUFFIXES = (".npy", ".npz")
_WANTED = "needed one array [T H W] of integers or bool, as numpy.save and numpy.savez_compressed write it"
_HEADS: dict[tuple[int, int], Callable[[io.BufferedIOBase], tuple[tuple[int, ...], bool, np.dtype]]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
_LARGEST = 65535


def read_array_masks(path: Path) -> "ArrayMasks":
    """Masks of a file, whose head is read. Raises ValueError, naming it, if it holds no such array."""
    with _open_frames(path) as (shape, _):
        return ArrayMasks(path, *shape)


@dataclasses.dataclass(frozen=True)
class ArrayMasks:
    """Masks in an array; a `Masks`."""

    path: Path
    count: int
    rows: int
    columns: int

    @property
    def files(self) -> tuple[Path, ...]:
        """The single file."""
        return (self.path,)

    def __len__(self) -> int:
        return self.count

    def head(self, index: int) -> tuple[str, tuple[int, int]]:
        """File, and rows and columns of every mask."""
        return str(self.path), (self.rows, self.columns)

    def __call__(self, indices: Sequence[int]) -> Iterator[np.ndarray]:
        """Yield the masks at `indices`, uint16 [H W 1]. Raises ValueError, naming the file, for an invalid mask."""
        with _open_frames(self.path) as (_, frame):
            for index in indices:
                values = frame(index)
                low, high = int(values.min(initial=0)), int(values.max(initial=0))
                if low < 0 or high > _LARGEST:
                    raise ValueError(f"mask {index} has labels {low} .. {high}; needed 0 .. {_LARGEST}, 0 for none")
                yield values.astype(np.uint16)[..., None]


@contextlib.contextmanager
def _open_frames(path: Path) -> Iterator[tuple[tuple[int, ...], Callable[[int], np.ndarray]]]:
    """Shape [T H W], and a function from index to frame. Raises ValueError, naming the file, for any failure while open."""
    try:
        with contextlib.ExitStack() as stack:
            file: Any
            if path.suffix.lower() == ".npy":
                file, size = stack.enter_context(path.open("rb")), path.stat().st_size
            else:
                archive = stack.enter_context(zipfile.ZipFile(path))
                names = archive.namelist()
                if len(names) != 1:
                    raise ValueError(f"holds {len(names)} arrays ({', '.join(names[:4])}); {_WANTED}")
                file, size = stack.enter_context(archive.open(names[0])), archive.getinfo(names[0]).file_size
            shape, columnwise, dtype = _head(file)
            begin, need = file.tell(), math.prod(shape) * dtype.itemsize
            if size - begin != need:
                raise ValueError(f"has {size - begin} bytes of values, its head says {need}; get the file again")
            order: Any = "F" if columnwise else "C"
            if path.suffix.lower() == ".npy" and need:
                yield shape, np.memmap(file, dtype, "r", begin, shape, order).__getitem__
            elif columnwise or not need:
                yield shape, np.frombuffer(file.read(), dtype).reshape(shape, order=order).__getitem__
            else:
                yield shape, _ArchivedFrames(file, begin, shape, dtype)
    except Exception as error:  # zipfile and zlib raise a dozen kinds for damaged files
        why = error if isinstance(error, ValueError) else f"cannot be read as an array ({error}); get the file again"
        raise ValueError(f"{path}: {why}") from error


def _head(file: io.BufferedIOBase) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, True for Fortran order, and dtype. Raises ValueError if it is no array of masks."""
    read = _HEADS.get(np.lib.format.read_magic(file))
    if read is None:
        raise ValueError(f"holds an array of names; {_WANTED}")
    shape, columnwise, dtype = read(file)
    if dtype.kind not in "biu" or len(shape) != 3 or min(shape) < 0:
        raise ValueError(f"holds {dtype} {list(shape)}; {_WANTED}")
    return shape, columnwise, dtype


@dataclasses.dataclass(frozen=True)
class _ArchivedFrames:
    """Frames of an array in an archive, which is decompressed on demand."""

    file: io.BufferedIOBase
    begin: int
    shape: tuple[int, ...]
    dtype: np.dtype

    def __call__(self, index: int) -> np.ndarray:
        size = self.shape[1] * self.shape[2] * self.dtype.itemsize
        self.file.seek(self.begin + index * size)
        raw = self.file.read(size)
        if len(raw) != size:
            raise ValueError(f"ends early: mask {index} has {len(raw)} of {size} bytes; get the file again")
        return np.frombuffer(raw, self.dtype).reshape(self.shape[1:])
