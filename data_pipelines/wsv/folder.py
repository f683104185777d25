"""A dataset's root, on a local disk or in a bucket, as whole files that appear at once or not at all."""

import errno
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorstore as ts

_process: int | None = None


def context() -> ts.Context:
    """A context without a chunk cache, for training reads every chunk once an epoch.

    Raises RuntimeError in a process forked from one that used TensorStore: its threads are gone there, and a read would
    hang forever.
    """
    global _process
    _process = _process or os.getpid()
    if _process != os.getpid():
        raise RuntimeError("TensorStore was used before this process forked; read with threads, or start processes by spawn")
    return ts.Context({"cache_pool": {"total_bytes_limit": 0}})


class Folder:
    """A local directory or a URL (gs://, s3://). Picklable; opens its store when first used.

    Raises NotADirectoryError when the path is a file.
    """

    def __init__(self, path: str | os.PathLike):
        text = os.fspath(path)
        self.local = "://" not in text
        self.path = os.path.abspath(text) if self.local else text.rstrip("/")
        if self.local and os.path.isfile(self.path):
            raise NotADirectoryError(f"{self.path}: a file; needed the folder of a dataset")
        self._store: tuple[int, ts.KvStore] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_store": None}

    @property
    def store(self) -> ts.KvStore:
        """The key-value store at the root."""
        if self._store is None or self._store[0] != os.getpid():
            spec = {"driver": "file", "path": self.path + "/"} if self.local else self.path + "/"
            self._store = (os.getpid(), ts.KvStore.open(spec, context=context()).result())
        return self._store[1]

    def name(self, key: str) -> str:
        """The full path of a file, for messages."""
        return f"{self.path}/{key}"

    def read(self, key: str) -> bytes | None:
        """A whole file; None when it is missing. Raises OSError when it cannot be read."""
        try:
            result = self.store.read(key).result()
        except (ValueError, OSError) as error:
            raise OSError(f"{self.name(key)}: cannot be read ({error})") from error
        return result.value if result.state == "value" else None

    def pieces(self, key: str, ranges: Sequence[tuple[int, int]]) -> Iterator[bytes]:
        """Parts (offset, bytes) of a file, in order. Raises OSError or ValueError where they are not there."""
        if self.local:
            file = os.open(self.name(key), os.O_RDONLY)
            try:
                for offset, length in ranges:
                    yield os.pread(file, length, offset)
            finally:
                os.close(file)
            return
        with ts.Batch() as batch:
            futures = [self.store.read(key, byte_range=slice(o, o + n), batch=batch) for o, n in ranges]
        for future in futures:
            yield future.result().value

    def list(self, prefix: str = "") -> set[str]:
        """The files below `prefix` (empty, or ending in a slash)."""
        # "0" is the character after "/", so this range is what starts with the prefix.
        keys = ts.KvStore.KeyRange(prefix, prefix[:-1] + "0") if prefix else ts.KvStore.KeyRange()
        return {key.decode() for key in self.store.list(keys).result()}

    def write(self, files: dict[str, bytes]) -> None:
        """Writes whole files, durably, several at a time. Raises OSError, with errno ENOSPC when the disk is full."""
        futures = {key: self.store.write(key, data) for key, data in files.items()}
        failed: OSError | None = None
        for key, future in futures.items():
            # Every write is waited for, so that none appears after the caller has cleaned up.
            try:
                future.result()
            except (ValueError, OSError) as error:
                failed = failed or self._failed(key, len(files[key]), error)
        if failed:
            raise failed

    def write_new(self, key: str, data: bytes) -> bool:
        """Writes a whole file where none is, and tells whether it did: of several processes that try, one succeeds."""
        found = self.store.read(key).result()
        if found.state != "missing":
            return False
        try:
            written = self.store.write(key, data, if_equal=found.stamp.generation).result()
        except (ValueError, OSError) as error:
            raise self._failed(key, len(data), error) from error
        return written.generation != b""

    def remove(self, key: str) -> None:
        """Deletes a file, if it is there."""
        self.store.write(key, None).result()

    def free(self) -> int | None:
        """Free bytes on the disk of a local folder; None for a bucket."""
        if not self.local:
            return None
        there = next(p for p in (Path(self.path), *Path(self.path).parents) if p.exists())
        return shutil.disk_usage(there).free

    def full(self, doing: str, need: int) -> OSError:
        """The error for a full disk, with errno ENOSPC."""
        free = self.free()
        have = "" if free is None else f", {free / 2**20:.2f} MiB are free"
        text = f"disk full: {doing} needs {need / 2**20:.2f} MiB{have}; free some space and run the same command again"
        return OSError(errno.ENOSPC, text, self.path)

    def _failed(self, key: str, size: int, error: Exception) -> OSError:
        # TensorStore reports the system's error in words; 28 is ENOSPC and 122 EDQUOT, a quota used up.
        if any(sign in str(error) for sign in ("No space left", "os_error_code='28'", "os_error_code='122'")):
            return self.full(f"writing {key}", size)
        return OSError(f"{self.name(key)}: cannot be written ({error})")
