"""Parquet files, read a few rows at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from wsm_jax.extras import extra
from wsm_jax.typing import Shaped

_BATCH = 64
"""Rows of pictures decoded at once."""


class ParquetFile:
    """Parquet file; only its footer is read on opening.

    Raises FileNotFoundError, or ValueError, naming the file, for another format; ModuleNotFoundError without the extra `robot`.
    """

    def __init__(self, path: Path):
        parquet = extra("pyarrow.parquet", "robot")
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; needed a Parquet file")
        self.path = path
        with self._naming():
            self._file = parquet.ParquetFile(path, page_checksum_verification=True)
            groups = [self._file.metadata.row_group(k).num_rows for k in range(self._file.metadata.num_row_groups)]
            self.columns: tuple[str, ...] = tuple(self._file.schema_arrow.names)
        if any(rows < 0 for rows in groups) or sum(groups) != self._file.metadata.num_rows:
            raise ValueError(f"{path}: its groups have {groups} rows, together it says {self._file.metadata.num_rows}")
        self._starts = np.cumsum([0, *groups])
        self._kept: tuple[Any, Any] = (None, None)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self._starts[-1])

    @contextmanager
    def _naming(self) -> Iterator[None]:
        arrow = extra("pyarrow", "robot").ArrowException
        try:
            yield
        except (arrow, OSError, ValueError, TypeError, KeyError, OverflowError, MemoryError) as error:
            raise ValueError(f"{self.path}: is no Parquet file that can be read ({error}); get it again") from error

    def _groups(self, start: int, count: int) -> list[int]:
        if start < 0 or count < 1 or start + count > self.rows:
            raise ValueError(f"{self.path}: has {self.rows} rows; needed rows {start} to {start + count - 1}")
        return [k for k in range(len(self._starts) - 1) if self._starts[k] < start + count and self._starts[k + 1] > start]

    def _need(self, columns: Sequence[str]) -> None:
        missing = sorted(set(columns) - set(self.columns))
        if missing:
            raise ValueError(f"{self.path}: has no column {', '.join(missing)}; it has {', '.join(self.columns)}")

    def values(self, columns: Sequence[str]) -> list[dict[str, Any]]:
        """All rows as Python objects, for small tables. Raises ValueError."""
        self._need(columns)
        with self._naming():
            return self._file.read(columns=list(columns)).to_pylist()

    def numbers(self, start: int, count: int, columns: Sequence[str]) -> dict[str, Shaped[np.ndarray, "n d"]]:
        """Column -> rows [n d], for columns of numbers or of lists of numbers of one length. Raises ValueError."""
        self._need(columns)
        groups = self._groups(start, count)
        key = (*groups, *columns)
        with self._naming():
            if self._kept[0] != key:  # one group may hold many episodes, which are read in sequence
                self._kept = (key, self._file.read_row_groups(groups, columns=list(columns)))
            table = self._kept[1].slice(start - int(self._starts[groups[0]]), count)
            return {name: self._matrix(table.column(name), name) for name in columns}

    def _matrix(self, column: Any, name: str) -> np.ndarray:
        import pyarrow

        array = column.combine_chunks()
        array = array.combine_chunks() if isinstance(array, pyarrow.ChunkedArray) else array
        rows, lists = len(array), pyarrow.types.is_list(array.type) or pyarrow.types.is_fixed_size_list(array.type)
        flat = array.flatten() if lists else array
        if array.null_count or flat.null_count:
            raise ValueError(f"column {name} has empty rows")
        if lists and len(set(array.value_lengths().to_pylist())) > 1:
            raise ValueError(f"column {name} has lists of several lengths")
        numbers = np.asarray(flat.to_numpy(zero_copy_only=False))
        if numbers.dtype.kind not in "biuf":
            raise ValueError(f"column {name} is of {array.type}; needed numbers or lists of numbers")
        return numbers.reshape(rows, -1)

    def objects(self, start: int, count: int, column: str) -> Iterator[Any]:
        """Yield rows of one column as Python objects, decoded a few at a time. Raises ValueError."""
        self._need([column])
        groups = self._groups(start, count)
        at = int(self._starts[groups[0]])
        with self._naming():
            for batch in self._file.iter_batches(batch_size=_BATCH, row_groups=groups, columns=[column]):
                first, last = max(start - at, 0), min(start + count - at, batch.num_rows)
                if first < last:
                    yield from batch.column(0).slice(first, last - first).to_pylist()
                at += batch.num_rows
                if at >= start + count:
                    return
