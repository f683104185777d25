"""Atomic writes: a file appears complete or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with its suffix; rename it to `path` on success, delete it on an error."""
    path = Path(path)
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield part
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write_file(path: str | Path, data: bytes | str) -> None:
    """Write bytes, or text as UTF-8, atomically. Raises OSError."""
    with atomic(path) as part:
        part.write_bytes(data.encode() if isinstance(data, str) else data)
