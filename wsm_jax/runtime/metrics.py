"""Metrics of a training: the protocol of what writes them, and the JSON-lines file that is always written."""

import dataclasses
import json
import math
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from PIL import Image

from wsm_jax.files import atomic, write_file
from wsm_jax.typing import UInt8

METRICS_FILE = "metrics.jsonl"
MEDIA_FOLDER = "media"

EncodeVideo = Callable[[Path, UInt8[np.ndarray, "T H W 3"], float], None]
"""Function (path, frames, frames per second) that writes an mp4 file, such as `wsm_jax.visualise.video.write_video`."""


@dataclasses.dataclass(frozen=True, eq=False)
class LoggedVideo:
    """A video that is to be logged."""

    frames: UInt8[np.ndarray, "T H W 3"]
    fps: float
    """Frames per second."""


@runtime_checkable
class MetricWriter(Protocol):
    """Writer of numbers, images and videos; `step` is the number of updates done, `name` may group with slashes."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write the numbers of one step."""
        ...

    def image(self, step: int, name: str, image: UInt8[np.ndarray, "H W 3"]) -> None:
        """Write an RGB image."""
        ...

    def video(self, step: int, name: str, frames: UInt8[np.ndarray, "T H W 3"], fps: float) -> None:
        """Write an RGB video of `fps` frames per second."""
        ...

    def close(self) -> None:
        """Write what is still buffered and release the files."""
        ...


def fetch(values: Mapping[str, Any]) -> dict[str, float]:
    """Device or host scalars as Python floats; waits until they are computed."""
    return {name: float(np.asarray(value)) for name, value in jax.device_get(dict(values)).items()}


class JsonLinesWriter:
    """Rows {"step", "time" (s since 1970), "values": {name: number}} in a JSON-lines file; only process 0 writes.

    Media become files `media/<name>/<step>.png` or `.mp4` beside it. Opening at step s drops rows and media past s and an
    incomplete last row, so the files of a resumed training are those of the uninterrupted one. A value that is not finite is
    written as its name in a string.
    """

    def __init__(self, path: str | Path, step: int, encode_video: EncodeVideo | None = None) -> None:
        self._file, self._encode_video = None, encode_video
        self._media = Path(path).parent / MEDIA_FOLDER
        if jax.process_index() != 0:
            return
        path = Path(path)
        if path.exists():
            kept = [line for line in path.read_bytes().splitlines(keepends=True) if _step_of(line) <= step]
            write_file(path, b"".join(kept))
        for file in self._media.rglob("*"):
            if file.suffix in (".png", ".mp4") and file.stem.isdecimal() and int(file.stem) > step:
                file.unlink()
        self._file = path.open("a")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add a row and flush it to the operating system: a killed process loses none. Raises OSError."""
        if self._file is None:
            return
        plain = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        self._file.write(json.dumps({"step": step, "time": round(time.time(), 3), "values": plain}) + "\n")
        self._file.flush()

    def image(self, step: int, name: str, image: UInt8[np.ndarray, "H W 3"]) -> None:
        """Write `media/<name>/<step>.png`. Raises ValueError for a bad name, OSError."""
        if self._file is not None:
            with atomic(self._media_path(step, name, ".png")) as part:
                Image.fromarray(image).save(part)

    def video(self, step: int, name: str, frames: UInt8[np.ndarray, "T H W 3"], fps: float) -> None:
        """Write `media/<name>/<step>.mp4`. Raises ValueError for a bad name and without encoder, OSError."""
        if self._file is not None:
            if self._encode_video is None:
                raise ValueError(f"video {name!r}: this writer has no encoder; pass encode_video to JsonLinesWriter")
            self._encode_video(self._media_path(step, name, ".mp4"), frames, fps)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _media_path(self, step: int, name: str, suffix: str) -> Path:
        if not re.fullmatch(r"\w[\w. -]*(/\w[\w. -]*)*", name):
            raise ValueError(
                f"media name {name!r}: needed letters, digits, '_', '-', '.' and spaces, grouped by '/', such as 'bridge/clip'"
            )
        path = self._media / name / f"{step}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def _step_of(line: bytes) -> int | float:
    """The step of a row; infinity for an incomplete one."""
    try:
        return json.loads(line)["step"] if line.endswith(b"\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a metrics file as {"step", "time", **values}, numbers as floats (also those that are not finite).

    Raises OSError for a file that cannot be read, ValueError or KeyError for a row that `JsonLinesWriter` did not write.
    """
    rows = []
    for line in Path(path).read_text().splitlines():
        row = json.loads(line)
        rows.append({"step": row["step"], "time": row["time"], **{k: float(v) for k, v in row["values"].items()}})
    return rows
