"""S3 server of the files of a folder, with delayed answers, for `python -m launch.bench loader --latency_ms=MS`.

    python -m launch.bench.object_store FOLDER LATENCY_MS        # prints its port, and serves until stdin is closed

It answers GET (whole or a range), HEAD and ListObjectsV2 (all keys in one answer), path-style, over persistent HTTP/1.1
connections, without checking signatures. Every bucket has the same files; requests are counted per bucket, and GET
/BUCKET?counts returns its {"requests", "bytes"} so far, without counting itself. The latency applies to the first byte of each
answer, independent of the number of requests in flight; the bandwidth is not limited. Files must not change.
"""

import asyncio
import contextlib
import json
import mmap
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

_REASONS = {200: "OK", 206: "Partial Content", 404: "Not Found", 405: "Method Not Allowed", 416: "Range Not Satisfiable"}


class BucketServer:
    """Files of a folder as objects of a bucket, and request counts."""

    def __init__(self, root: Path, latency_s: float):
        self.root, self.latency_s = root.resolve(), latency_s
        self.counts: defaultdict[str, dict[str, int]] = defaultdict(lambda: {"requests": 0, "bytes": 0})
        self._files: dict[str, memoryview | None] = {}

    def answer(self, method: str, target: str, span: str) -> tuple[int, str, memoryview | bytes]:
        """Status, header lines and body of the answer to a request, which is counted."""
        path, _, query = target.partition("?")
        bucket, _, key = unquote(path).strip("/").partition("/")
        parameters = parse_qs(query) if query else {}
        if method not in ("GET", "HEAD"):
            status, lines, body = 405, "", b""
        elif "list-type" in parameters:
            status, lines, body = 200, "Content-Type: application/xml\r\n", self._listed(parameters.get("prefix", [""])[0])
        elif (data := self._file(key)) is None:
            status, lines, body = 404, "", b"<Error><Code>NoSuchKey</Code></Error>"
        else:
            status, lines, body = _part(data, span)
        count = self.counts[bucket]
        count["requests"] += 1
        count["bytes"] += len(body) if method == "GET" else 0
        return status, lines, body

    def _file(self, key: str) -> memoryview | None:
        """The memory-mapped bytes of a file, or None if there is no such file under the root."""
        if key not in self._files:
            path = (self.root / key).resolve()
            data = None
            if path.is_file() and path.is_relative_to(self.root):
                with path.open("rb") as file:
                    size = os.fstat(file.fileno()).st_size
                    data = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) if size else b"")
            self._files[key] = data
        return self._files[key]

    def _listed(self, prefix: str) -> bytes:
        folder = self.root / prefix.rpartition("/")[0]
        keys = sorted(str(path.relative_to(self.root)) for path in folder.rglob("*") if path.is_file())
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{(self.root / key).stat().st_size}</Size></Contents>"
            for key in keys
            if key.startswith(prefix)
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode()


def _part(data: memoryview, span: str) -> tuple[int, str, memoryview | bytes]:
    """The whole file, or a range of it: "bytes=first-last", "bytes=first-" or "bytes=-count"."""
    lines = f'ETag: "{len(data)}"\r\n'
    if not span:
        return 200, lines, data
    first, _, last = span.removeprefix("bytes=").partition("-")
    start = int(first) if first else max(0, len(data) - int(last))
    stop = min(len(data), int(last) + 1) if first and last else len(data)
    if start >= stop:
        return 416, f"{lines}Content-Range: bytes */{len(data)}\r\n", b""
    return 206, f"{lines}Content-Range: bytes {start}-{stop - 1}/{len(data)}\r\n", data[start:stop]


class _Connection(asyncio.Protocol):
    """Connection of one client: requests without bodies, in sequence."""

    def __init__(self, server: BucketServer):
        self._server, self._buffer = server, b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            method, target, _ = first.split(" ", 2)
            headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            if target.endswith("?counts"):
                self._write("GET", 200, "", json.dumps(self._server.counts[target[1:].partition("?")[0]]).encode())
            else:
                wait = self._server.latency_s
                asyncio.get_running_loop().call_later(wait, self._answer, method, target, headers.get("range", ""))

    def _answer(self, method: str, target: str, span: str) -> None:
        if not self._transport.is_closing():
            self._write(method, *self._server.answer(method, target, span))

    def _write(self, method: str, status: int, lines: str, body: memoryview | bytes) -> None:
        head = f"HTTP/1.1 {status} {_REASONS[status]}\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode()
        small = method == "GET" and len(body) < 2**15
        self._transport.write(head + body if small else head)
        if method == "GET" and not small:
            self._transport.write(body)


@contextlib.contextmanager
def serving(root: Path, latency_ms: float) -> Iterator[str]:
    """URL of a server in a new process, which runs during the block. Raises RuntimeError if it does not start."""
    line = [sys.executable, "-m", "launch.bench.object_store", str(root), str(latency_ms)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        port = process.stdout.readline().strip()
        if not port:
            raise RuntimeError(f"the object store of {root} ended with code {process.wait()}; its output is above")
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.stdin.close()


async def _serve(bucket: BucketServer) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(bucket), "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


def main(arguments: list[str]) -> int:
    """Serve a folder until stdin is closed."""
    asyncio.run(_serve(BucketServer(Path(arguments[0]), float(arguments[1]) / 1000)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
