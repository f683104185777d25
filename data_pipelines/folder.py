"""A dataset's root, on a local disk or in a bucket, as whole files that appear at once or not at all."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import tensorstore as ts

_process: int | None = None
"""The process that first used TensorStore here; its threads do not survive a fork, where a read would hang forever."""


def context() -> ts.Context:
    """A context without a chunk cache: training reads every chunk once an epoch."""
    global _process
    _process = _process or os.getpid()
    if _process != os.getpid():
        raise RuntimeError("TensorStore was used before this process forked; read with threads, or start processes by spawn")
    return ts.Context({"cache_pool": {"total_bytes_limit": 0}})


class Folder:
    """A local directory or a URL (gs://, s3://). Picklable; opens its store when first used."""

    def __init__(self, path: str | os.PathLike):
        text = os.fspath(path)
        self.local = "://" not in text
        self.path = os.path.abspath(text) if self.local else text.rstrip("/")
        self._store: ts.KvStore | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_store": None}

    @property
    def store(self) -> ts.KvStore:
        """The key-value store at the root."""
        if self._store is None:
            spec = {"driver": "file", "path": self.path + "/"} if self.local else self.path + "/"
            self._store = ts.KvStore.open(spec, context=context()).result()
        return self._store

    def name(self, key: str) -> str:
        """The full path of a file, for messages."""
        return f"{self.path}/{key}"

    def read(self, key: str) -> bytes | None:
        """A whole file; None when it is missing."""
        result = self.store.read(key).result()
        return result.value if result.state == "value" else None

    def list(self, prefix: str = "") -> set[str]:
        """The files below `prefix` (empty, or ending in a slash)."""
        # "0" is the character after "/", so this range is what starts with the prefix.
        keys = ts.KvStore.KeyRange(prefix, prefix[:-1] + "0") if prefix else ts.KvStore.KeyRange()
        return {key.decode() for key in self.store.list(keys).result()}

    def write(self, key: str, data: bytes, new: bool = False) -> bool:
        """Writes a whole file, durably; with `new`, only where none is, and tells whether it did. Raises OSError when full."""
        stamp = self.store.read(key, byte_range=slice(0, 0)).result() if new else None
        if stamp is not None and stamp.state != "missing":
            return False
        try:
            written = self.store.write(key, data, if_equal=stamp.stamp.generation if stamp else None).result()
        except (ValueError, OSError) as error:
            if any(sign in str(error) for sign in ("No space left", "quota exceeded", "os_error_code='28'")):
                raise self.full(f"writing {key}", len(data)) from error
            raise OSError(f"{self.name(key)}: could not be written ({error})") from error
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

    def full(self, doing: str, need: int, more: str = "") -> OSError:
        """The error for a full disk."""
        free = self.free()
        have = "" if free is None else f", {free / 2**20:.1f} MiB are free"
        text = f"disk full: {doing} needs {need / 2**20:.1f} MiB{have}{more}; free some space and run the same command again"
        return OSError(errno.ENOSPC, text, self.path)
