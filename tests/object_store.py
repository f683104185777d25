"""An S3-compatible object store in this process, whose faults can be set while it runs.

`with ObjectStore("bucket") as store:` serves `store.objects` ({"bucket/key": bytes}) at `store.url`, path-style, whatever the
signature: GET (whole or a range), HEAD, PUT and DELETE under If-Match / If-None-Match, and ListObjectsV2.
"""

import functools
import hashlib
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

FAULTS = ("slow_down", "drop", "cut", "cut_unsized", "stall")
"""slow_down: 503 and nothing done. drop: the connection ends in the middle of the body; of a PUT, which is done, before the
answer. cut: half a body, with the Content-Length of the half. cut_unsized: half a body, without Content-Length. stall: no
answer for `stall_s`."""


class ObjectStore:
    """Serves until the end of the `with` block. Faults strike by seed, request and its number: in the same order every run."""

    def __init__(self, *buckets: str, seed: int = 0):
        self.objects: dict[str, bytes] = {}
        self.buckets, self.seed = set(buckets), seed
        self.latency_ms = 0.0
        self.bytes_per_s: float | None = None
        self.faults: dict[str, float] = {}
        """Fault -> share of the requests that it strikes."""
        self.faulty = ""
        """Only requests whose "METHOD bucket/key" contains this are struck, ..."""
        self.most_faults = 10**9
        """... and no more than so many."""
        self.stall_s = 60.0
        self.page = 1000
        """Keys in an answer to a listing."""
        self.lock, self.running = threading.Lock(), 0
        self.reset()

    def reset(self) -> None:
        """Sets the counters to zero; the order of faults begins anew."""
        self.log: list[tuple[str, str, str]] = []
        self.struck: Counter[str] = Counter()
        self.signatures: set[str] = set()
        self.bytes_sent = self.most_at_once = 0
        self._tries: Counter[tuple[str, str, str]] = Counter()
        self._line_free = 0.0

    @property
    def requests(self) -> int:
        """Requests since the last reset; `log` lists them as (method, path, range), `signatures` their Authorization."""
        return len(self.log)

    def __enter__(self) -> "ObjectStore":
        self._server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"store": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fault(self, method: str, path: str, span: str) -> str:
        """Counts a request, and says which fault strikes it ("" for none)."""
        request = (method, path, span)
        with self.lock:
            self.log.append(request)
            self._tries[request] += 1
            number = self._tries[request]
        draw = random.Random(f"{self.seed} {request} {number}").random()
        for name, share in self.faults.items() if self.faulty in f"{method} {path}" else ():
            assert name in FAULTS, name
            if (draw := draw - share) < 0 and self.struck.total() < self.most_faults:
                self.struck[name] += 1
                return name
        return ""

    def wait_for_line(self, size: int) -> None:
        """Returns when `size` more bytes have fitted through the line that all connections share."""
        with self.lock:
            self.bytes_sent += size
            if not self.bytes_per_s:
                return
            self._line_free = max(self._line_free, time.monotonic()) + size / self.bytes_per_s
            wait = self._line_free - time.monotonic()
        time.sleep(max(wait, 0))


class _Server(ThreadingHTTPServer):
    daemon_threads, request_queue_size = True, 128

    def handle_error(self, request, client_address) -> None:
        """Clients that go away are no matter."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version, disable_nagle_algorithm, wbufsize = "HTTP/1.1", True, -1
    store: ObjectStore

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""

    def do_GET(self) -> None:
        self._serve()

    do_HEAD = do_PUT = do_DELETE = do_GET

    def _serve(self) -> None:
        store = self.store
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with store.lock:
            store.running += 1
            store.most_at_once = max(store.most_at_once, store.running)
        try:
            time.sleep(store.latency_ms / 1000)
            url = urlsplit(self.path)
            key = unquote(url.path).strip("/")
            store.signatures.add(self.headers.get("Authorization", ""))
            fault = store.fault(self.command, key, self.headers.get("Range", ""))
            if fault == "slow_down":
                return self._answer(503, _error("SlowDown"))
            if fault == "stall":
                time.sleep(store.stall_s)
                self.close_connection = True
                return None
            status, data, headers = self._do(key, parse_qs(url.query), body)
            if fault == "drop" and self.command == "PUT":
                self.close_connection = True
                return None
            return self._answer(status, data, fault if self.command == "GET" and status < 300 else "", headers)
        finally:
            with store.lock:
                store.running -= 1

    def _do(self, key: str, query: dict[str, list[str]], body: bytes) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of the answer."""
        store = self.store
        if key.partition("/")[0] not in store.buckets:
            return 404, _error("NoSuchBucket"), {}
        if "list-type" in query:
            return 200, self._list(key, query), {"Content-Type": "application/xml"}
        with store.lock:
            there = store.objects.get(key)
            tag = _tag(there)
            match, no_match = self.headers.get("If-Match"), self.headers.get("If-None-Match")
            if match and not tag:
                return 404, _error("NoSuchKey"), {}
            if (match and match not in (tag, "*")) or (no_match and tag and no_match in (tag, "*")):
                return (304 if self.command in ("GET", "HEAD") and no_match else 412), b"", {"ETag": tag}
            if self.command == "PUT":
                store.objects[key] = body
                return 200, b"", {"ETag": _tag(body)}
            if self.command == "DELETE":
                store.objects.pop(key, None)
                return 204, b"", {}
        if there is None:
            return 404, _error("NoSuchKey"), {}
        span = self.headers.get("Range")
        if not span:
            return 200, there, {"ETag": tag}
        first, _, last = span.removeprefix("bytes=").partition("-")
        start = int(first) if first else max(0, len(there) - int(last))
        stop = min(len(there), int(last) + 1) if first and last else len(there)
        if start >= stop:
            return 416, _error("InvalidRange"), {"Content-Range": f"bytes */{len(there)}"}
        return 206, there[start:stop], {"ETag": tag, "Content-Range": f"bytes {start}-{stop - 1}/{len(there)}"}

    def _list(self, bucket: str, query: dict[str, list[str]]) -> bytes:
        """A page of the keys with a prefix; the token of the next is its last key."""
        store, prefix = self.store, query.get("prefix", [""])[0]
        after = max(query.get(name, [""])[0] for name in ("continuation-token", "start-after"))
        keys = sorted(key.removeprefix(bucket + "/") for key in list(store.objects) if key.startswith(f"{bucket}/{prefix}"))
        keys = [key for key in keys if key > after]
        page = keys[: store.page]
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if len(page) < len(keys) else ""
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(store.objects[f'{bucket}/{key}'])}</Size></Contents>" for key in page
        )
        head = f"<KeyCount>{len(page)}</KeyCount><IsTruncated>{'true' if token else 'false'}</IsTruncated>{token}"
        return f"<ListBucketResult>{head}{rows}</ListBucketResult>".encode()

    def _answer(self, status: int, data: bytes, fault: str = "", headers: dict[str, str] | None = None) -> None:
        length = len(data)
        if fault in FAULTS:
            data = data[: length // 2]
            self.close_connection = fault != "cut"
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if fault == "cut_unsized":
            self.send_header("Connection", "close")
        elif status != 204:
            self.send_header("Content-Length", str(len(data) if fault == "cut" else length))
        self.end_headers()
        for start in range(0, len(data) if self.command != "HEAD" else 0, 2**16):
            piece = data[start : start + 2**16]
            self.store.wait_for_line(len(piece))
            self.wfile.write(piece)
        self.wfile.flush()


@functools.lru_cache(maxsize=4096)
def _tag(data: bytes | None) -> str:
    return "" if data is None else f'"{hashlib.md5(data).hexdigest()}"'


def _error(code: str) -> bytes:
    return f"<Error><Code>{code}</Code></Error>".encode()
