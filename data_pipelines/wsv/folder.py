"""A dataset's root, on a local disk or in a bucket, as whole files that appear at once or not at all."""

import contextlib
import errno
import functools
import io
import os
import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import tensorstore as ts

RETRIES = {"max_retries": 8, "initial_delay": "100ms", "max_delay": "8s"}
"""A request to a bucket that fails for a passing reason (5xx, 429, connection refused or cut) is sent again after 0.1, 0.2, 0.4
... 8 s and some jitter: an outage of 20 s goes unnoticed, and a dead endpoint is an error after about 25 s."""

CONCURRENCY = {"TENSORSTORE_S3_REQUEST_CONCURRENCY": "64", "TENSORSTORE_GCS_REQUEST_CONCURRENCY": "64"}
"""Environment variables that are set, where they are not: how many requests of a process run at once."""

TIMEOUTS = {
    "TENSORSTORE_CURL_CONNECT_TIMEOUT_SECONDS": "5",
    "TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS": "30",
    "TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES": "1",
}
"""Environment variables that are set, where they are not, before the first request of the process: without them TensorStore
waits for ever on a silent host. With them a request waits at most 9 x 5 s for a host that drops packets, or 9 x 30 s for one
that accepts connections and never answers, besides the delays of RETRIES."""

_UNREACHED = ("ABORTED:", "UNAVAILABLE:", "DEADLINE_EXCEEDED:", "PERMISSION_DENIED:", "UNAUTHENTICATED:")
"""Parts of TensorStore's messages for data that did not arrive, as opposed to damaged data."""

_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE")
_CREDENTIALS += ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
_CREDENTIAL_FILES = {"AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials", "AWS_CONFIG_FILE": "~/.aws/config"}

_OPEN = 64
"""Files of a folder that stay open, because opening costs time."""

_GAP_BYTES = 2**14
"""Gaps between two parts of a file in a bucket that are read with them, because a request costs more."""

_process: int | None = None


def context() -> ts.Context:
    """A context without a chunk cache, because training reads every chunk once an epoch.

    Raises RuntimeError in a process forked from one that used TensorStore: its threads do not survive the fork, and a read
    would hang.
    """
    global _process
    _process = _process or os.getpid()
    if _process != os.getpid():
        raise RuntimeError("TensorStore was used before this process forked; read with threads, or start processes by spawn")
    return ts.Context({"cache_pool": {"total_bytes_limit": 0}})


def _bucket(url: str) -> dict[str, Any]:
    """TensorStore's spec of a URL, by the environment. Raises ValueError for a URL that TensorStore refuses."""
    spec = ts.KvStore.Spec(url).to_json()
    driver = spec["driver"]
    if driver not in ("s3", "gcs"):
        return spec
    for key, value in (TIMEOUTS | CONCURRENCY).items():
        os.environ.setdefault(key, value)
    spec[f"{driver}_request_retries"] = RETRIES
    if driver == "s3":
        # Always If-None-Match. Otherwise a HEAD request precedes the write, which is not retried, and Ceph gets no condition at
        # all: two writers could both succeed.
        spec["use_conditional_write"] = True
        endpoint, region = _endpoint(), os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        if endpoint:
            spec["endpoint"] = endpoint
        if endpoint or region:
            spec["aws_region"] = region or "us-east-1"
        if endpoint and "amazonaws.com" not in endpoint and not _credentials():
            # The provider chain would query Amazon's metadata service, and time out on other machines.
            spec["aws_credentials"] = {"type": "anonymous"}
    return spec


def _endpoint() -> str:
    return (os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "").rstrip("/")


def _credentials() -> bool:
    """True if the environment, or a file of the AWS tools, may hold credentials."""
    files = (os.path.expanduser(os.environ.get(key) or where) for key, where in _CREDENTIAL_FILES.items())
    return any(os.environ.get(key) for key in _CREDENTIALS) or any(os.path.exists(file) for file in files)


class Folder:
    """A local directory or a URL (gs://, s3://). Picklable; opens its store when first used.

    s3:// is Amazon, or any store that speaks S3 and knows conditional writes (If-None-Match), by the variables of AWS's tools:
    AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL (http:// or https://; the bucket follows in the path), AWS_REGION (us-east-1 at an
    endpoint; at Amazon that of the bucket), and their credentials: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN,
    AWS_PROFILE, ...; anonymous where there are none. gs:// takes Google's default credentials, and TENSORSTORE_GCS_HTTP_URL.
    At most TENSORSTORE_S3_REQUEST_CONCURRENCY or TENSORSTORE_GCS_REQUEST_CONCURRENCY (64) requests run at once in a process.

    Raises NotADirectoryError when the path is a file.
    """

    def __init__(self, path: str | os.PathLike):
        text = os.fspath(path)
        self.local = "://" not in text
        self.path = os.path.abspath(text) if self.local else text.rstrip("/")
        if self.local and os.path.isfile(self.path):
            raise NotADirectoryError(f"{self.path}: a file; needed the folder of a dataset")
        self._begin()

    def _begin(self) -> None:
        self._store: tuple[int, ts.KvStore] | None = None
        self._open: OrderedDict[str, io.FileIO] = OrderedDict()
        self._lock, self._local = threading.Lock(), threading.local()

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "local": self.local}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    @property
    def store(self) -> ts.KvStore:
        """The key-value store at the root."""
        if self._store is None or self._store[0] != os.getpid():
            spec = {"driver": "file", "path": self.path + "/"} if self.local else _bucket(self.path + "/")
            self._store = (os.getpid(), ts.KvStore.open(spec, context=context()).result())
        return self._store[1]

    def name(self, key: str) -> str:
        """The full path of a file, for messages."""
        return f"{self.path}/{key}"

    def read(self, key: str) -> bytes | None:
        """A whole file; None when it is missing. Raises OSError when it cannot be read."""
        try:
            result = self._asked(key, None).result()
        except (ValueError, OSError) as error:
            raise self.unread(key, error) from error
        return result.value if result.state == "value" else None

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        """In the block, each request of this thread to a bucket is sent once, and its answer is cached: `ask` and `fetch` can
        send all requests first, and the same calls wait for the answers later.
        """
        self._local.sent = {}
        try:
            yield
        finally:
            del self._local.sent

    def ask(self, key: str) -> None:
        """Sends the request for a whole file."""
        self._asked(key, None)

    def settle(self) -> None:
        """Waits for all requests of the block; errors are raised where the data are read."""
        for future in self._local.sent.values():
            with contextlib.suppress(ValueError, OSError):
                future.result()

    def _asked(self, key: str, span: tuple[int, int | None] | None) -> Any:
        """The future of TensorStore's read of a file, of bytes in [first, end) of a span; None: the whole file."""
        sent = getattr(self._local, "sent", {})
        if (key, span) not in sent:
            sent[key, span] = self.store.read(key, byte_range=None if span is None else slice(*span))
        return sent[key, span]

    def fetch(self, key: str, ranges: Sequence[Sequence[int]]) -> Sequence[Callable[[], bytes]]:
        """Functions that return parts (offset, bytes) of a file; an offset below 0 counts from the end.

        Parts of a file in a bucket are requested at once, neighbouring ones together.
        Raises OSError or ValueError for missing parts.
        """
        if not self.local:
            runs: list[list[int]] = []  # [begin, end]
            of: list[int] = []  # the run of each part
            for offset, size in ranges:
                if runs and 0 <= offset - runs[-1][1] <= _GAP_BYTES:
                    runs[-1][1] = offset + size
                else:
                    runs.append([offset, offset + size])
                of.append(len(runs) - 1)
            asked = [self._asked(key, (begin, None if begin < 0 else end)) for begin, end in runs]
            return [
                functools.partial(self._part, key, asked[run], offset - runs[run][0], size)
                for run, (offset, size) in zip(of, ranges, strict=True)
            ]
        file = self._opened(key)
        handle = file.fileno()
        size = os.fstat(handle).st_size if any(offset < 0 for offset, _ in ranges) else 0
        parts = [os.pread(handle, n, o if o >= 0 else max(size + o, 0)) for o, n in ranges]
        return [lambda part=part: part for part in parts]

    def read_into(self, key: str, offset: int, buffers: list[memoryview], need: int) -> None:
        """Fills buffers, `need` bytes in total, from an offset of a local file. Raises OSError, ValueError if it is short."""
        if (found := os.preadv(self._opened(key).fileno(), buffers, offset)) != need:
            raise ValueError(f"{self.name(key)}: has {found} bytes from {offset} on, needed {need}")

    def forget(self, key: str) -> None:
        """Closes the handle of a file: the next read opens it again, because it may have been replaced."""
        with self._lock:
            self._open.pop(key, None)

    def _opened(self, key: str) -> io.FileIO:
        """An open local file; it closes when its last reference goes, so no thread closes it for another."""
        file = self._open.get(key)
        if file is None:
            file = open(self.name(key), "rb", buffering=0)  # noqa: SIM115
            with self._lock:
                self._open[key] = file
                if len(self._open) > _OPEN:
                    self._open.popitem(last=False)
        return file

    def _part(self, key: str, future: Any, offset: int, size: int) -> bytes:
        found = future.result()
        if found.state != "value":
            raise ValueError(f"{self.name(key)}: missing")
        return found.value if size == len(found.value) else found.value[offset : offset + size]

    def unread(self, key: str, error: object) -> OSError:
        """An error that says that a file cannot be read."""
        return OSError(f"{self.name(key)}: cannot be read{self._where()} ({error})")

    @staticmethod
    def unreached(error: object) -> bool:
        """True if TensorStore's error says that data did not arrive, rather than that they are damaged."""
        return any(sign in str(error) for sign in _UNREACHED)

    def list(self, prefix: str = "") -> set[str]:
        """The files below `prefix` (empty, or ending in a slash). Raises OSError when they cannot be listed."""
        # "0" is the character after "/", so this range is what starts with the prefix.
        keys = ts.KvStore.KeyRange(prefix, prefix[:-1] + "0") if prefix else ts.KvStore.KeyRange()
        try:
            return {key.decode() for key in self.store.list(keys).result()}
        except (ValueError, OSError) as error:
            raise OSError(f"{self.name(prefix)}: cannot be listed{self._where()} ({error})") from error

    def write(self, files: dict[str, bytes]) -> None:
        """Writes whole files, durably, several at a time. Raises OSError, with errno ENOSPC when the disk is full."""
        futures = {key: self.store.write(key, data) for key, data in files.items()}
        failed: OSError | None = None
        for key, future in futures.items():
            # Wait for every write, so that no file appears after the caller has cleaned up.
            try:
                future.result()
            except (ValueError, OSError) as error:
                failed = failed or self._failed(key, len(files[key]), error)
        if failed:
            raise failed

    def write_new(self, key: str, data: bytes) -> bool:
        """Writes a whole file if there is none; True if it did. Of several processes that try, one succeeds.

        If the answer of a bucket is lost, the retry meets the file of the first try: the result may be False for all processes.
        Raises OSError.
        """
        try:
            found = self.store.read(key).result()
            if found.state != "missing":
                return False
            written = self.store.write(key, data, if_equal=found.stamp.generation).result()
        except (ValueError, OSError) as error:
            raise self._failed(key, len(data), error) from error
        return written.generation != b""

    def replace(self, key: str, data: bytes, before: bytes) -> bool:
        """Replaces a whole file if it still holds `before`; True if it did. Raises OSError."""
        try:
            found = self.store.read(key).result()
            if found.state != "value" or found.value != before:
                return False
            written = self.store.write(key, data, if_equal=found.stamp.generation).result()
        except (ValueError, OSError) as error:
            raise self._failed(key, len(data), error) from error
        return written.generation != b""

    def remove(self, *keys: str) -> None:
        """Deletes the files that exist, several at a time. Raises OSError."""
        futures = {key: self.store.write(key, None) for key in keys}
        for key, future in futures.items():
            try:
                future.result()
            except (ValueError, OSError) as error:
                raise OSError(f"{self.name(key)}: cannot be deleted{self._where()} ({error})") from error

    def free(self) -> int | None:
        """Free bytes on the disk of a local folder; None for a bucket."""
        if not self.local:
            return None
        there = next(p for p in (Path(self.path), *Path(self.path).parents) if p.exists())
        return shutil.disk_usage(there).free

    def full(self, doing: str, need: int) -> OSError:
        """An error with errno ENOSPC that says how much space is needed and free."""
        free = self.free()
        have = "" if free is None else f", {free / 2**20:.2f} MiB are free"
        text = f"disk full: {doing} needs {need / 2**20:.2f} MiB{have}; free some space and run the same command again"
        return OSError(errno.ENOSPC, text, self.path)

    def _failed(self, key: str, size: int, error: Exception) -> OSError:
        # TensorStore reports the system's error in words; 28 is ENOSPC and 122 EDQUOT, a quota used up.
        if any(sign in str(error) for sign in ("No space left", "os_error_code='28'", "os_error_code='122'")):
            return self.full(f"writing {key}", size)
        return OSError(f"{self.name(key)}: cannot be written{self._where()} ({error})")

    def _where(self) -> str:
        endpoint = _endpoint()
        return f" at {endpoint}" if endpoint and self.path.startswith("s3://") else ""
