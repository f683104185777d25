"""Stack traces of a job that hangs."""

import faulthandler
import os
import sys
import time
from pathlib import Path

import jax
from tqdm import tqdm


class Watchdog:
    """Appends the stacks of all threads to `path` when no `beat` came for `seconds`, once for every silence.

    The timer is a C thread of `faulthandler`, which fires even while a thread holds the interpreter lock. Python has one such
    timer a process, so a second watchdog replaces the first. Process n > 0 of a job writes to `<stem>.<n><suffix>`.

    The file begins its next record before anything hangs, because the timer cannot: a header with the time and number of
    the last beat, overwritten by the next beat. `close` removes the header, and the file when nothing hung.
    Raises ValueError when `seconds` is not positive, OSError when the file cannot be written.
    """

    def __init__(self, path: str | Path, seconds: float) -> None:
        if not seconds > 0:
            raise ValueError(f"watchdog: {seconds} seconds; needed a positive time")
        path, process = Path(path), jax.process_index()
        self._path = path.with_stem(f"{path.stem}.{process}") if process else path
        self._seconds, self._beats, self._last = seconds, 0, time.monotonic()
        # Not in append mode: the header is overwritten at each beat.
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        self._start = os.lseek(self._file, 0, os.SEEK_END)
        self._arm()

    def beat(self) -> None:
        """Restart the timer, because a step has finished. Raises OSError when the file cannot be written."""
        self._disarm()
        self._beats, self._last = self._beats + 1, time.monotonic()
        self._arm()

    def close(self) -> None:
        """Stop the timer, and remove the file if it is empty."""
        self._disarm()
        os.close(self._file)
        if not self._start:
            self._path.unlink(missing_ok=True)

    def _arm(self) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        header = f"{now}: {self._beats} steps finished since the start; stacks follow if the next takes {self._seconds:g} s:\n"
        os.lseek(self._file, self._start, os.SEEK_SET)
        os.write(self._file, header.encode())
        self._armed = self._start + len(header.encode())
        faulthandler.dump_traceback_later(self._seconds, file=self._file)

    def _disarm(self) -> None:
        """Stop the timer; keep the record if it fired, else remove the header."""
        faulthandler.cancel_dump_traceback_later()
        end = os.lseek(self._file, 0, os.SEEK_END)
        if end > self._armed:
            self._start = end
            silent = time.monotonic() - self._last
            tqdm.write(f"no step finished for {silent:.0f} s; stacks in {self._path}", file=sys.stderr)
        else:
            os.ftruncate(self._file, self._start)
