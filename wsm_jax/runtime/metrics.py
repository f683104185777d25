"""What a running job tells people: metric rows, a progress bar, and stacks when it hangs."""

import faulthandler
import json
import math
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from wsm_jax.files import write_file

METRICS_FILE = "metrics.jsonl"


def fetch(values: Mapping[str, Any]) -> dict[str, float]:
    """Device or host scalars as Python floats; waits until they are computed."""
    return {name: float(np.asarray(value)) for name, value in jax.device_get(dict(values)).items()}


class MetricWriter:
    """Rows {"step", "time" (s since 1970), "values": {name: number}} in a JSON-lines file; only process 0 writes.

    `step` is the number of updates done. Opening it at step s drops the rows past s and a half-written last row, so the file
    of a resumed training is that of the uninterrupted one. A value that is not finite is written as its name in a string.
    """

    def __init__(self, path: str | Path, step: int) -> None:
        self._file = None
        if jax.process_index() != 0:
            return
        path = Path(path)
        if path.exists():
            kept = [line for line in path.read_bytes().splitlines(keepends=True) if _step_of(line) <= step]
            write_file(path, b"".join(kept))
        self._file = path.open("a")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a row, and hands it to the operating system: a killed process loses none."""
        if self._file is None:
            return
        plain = {name: value if math.isfinite(value) else str(value) for name, value in values.items()}
        self._file.write(json.dumps({"step": step, "time": round(time.time(), 3), "values": plain}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()


def _step_of(line: bytes) -> int | float:
    """The step of a row; infinity for a half-written one."""
    try:
        return json.loads(line)["step"] if line.endswith(b"\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Rows of a metrics file as {"step", "time", **values}, numbers as floats (also those that are not finite)."""
    rows = []
    for line in Path(path).read_text().splitlines():
        row = json.loads(line)
        rows.append({"step": row["step"], "time": row["time"], **{k: float(v) for k, v in row["values"].items()}})
    return rows


class ProgressBar:
    """Steps done, rate, time left and the latest values, on standard error; only on process 0."""

    def __init__(self, label: str, steps: int, start: int, show: bool) -> None:
        hidden = not show or jax.process_index() != 0
        # A log file gets a line now and then, a terminal a moving bar.
        pause = 0.2 if sys.stderr.isatty() else 15.0
        self._bar = tqdm(
            total=steps, initial=start, desc=label, unit="step", disable=hidden, mininterval=pause, dynamic_ncols=True
        )

    def update(self, values: Mapping[str, float]) -> None:
        """One more step, with the values to show."""
        self._bar.set_postfix({name: f"{value:.4g}" for name, value in values.items()}, refresh=False)
        self._bar.update()

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._bar.close()


class Watchdog:
    """Appends the stacks of all threads to `path` when no `beat` came for `seconds`, once for every silence."""

    def __init__(self, path: str | Path, seconds: float) -> None:
        if not seconds > 0:
            raise ValueError(f"watchdog: {seconds} seconds; needed a positive time")
        self._path, self._seconds = Path(path), seconds
        self._last, self._told = time.monotonic(), False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def beat(self) -> None:
        """Says that a step has finished."""
        self._last, self._told = time.monotonic(), False

    def _watch(self) -> None:
        while not self._stop.wait(min(1.0, self._seconds / 4)):
            silent = time.monotonic() - self._last
            if self._told or silent < self._seconds:
                continue
            self._told = True
            with self._path.open("a") as log:
                log.write(
                    f"{time.strftime('%Y-%m-%d %H:%M:%S')}: no step finished for {silent:.0f} s; stacks of all threads:\n"
                )
                log.flush()
                faulthandler.dump_traceback(log, all_threads=True)
            tqdm.write(f"no step finished for {silent:.0f} s; stacks in {self._path}", file=sys.stderr)

    def close(self) -> None:
        """Stops watching."""
        self._stop.set()
        self._thread.join()
