"""The progress bar of a running job."""

import sys
from collections.abc import Mapping

import jax
from tqdm import tqdm

TERMINAL_SECONDS, LOG_SECONDS = 0.2, 15.0
"""Least time between two redraws of the bar, in seconds: on a terminal, and in a log file, where each takes a line."""


class ProgressBar:
    """Steps done, rate, time left and the latest values, on standard error; only on process 0."""

    def __init__(self, label: str, steps: int, start: int, show: bool) -> None:
        hidden = not show or jax.process_index() != 0
        pause = TERMINAL_SECONDS if sys.stderr.isatty() else LOG_SECONDS
        self._bar = tqdm(
            total=steps, initial=start, desc=label, unit="step", disable=hidden, mininterval=pause, dynamic_ncols=True
        )

    def update(self, values: Mapping[str, float]) -> None:
        """Advance by one step and set the values to show."""
        self._bar.set_postfix({name: f"{value:.4g}" for name, value in values.items()}, refresh=False)
        self._bar.update()

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()
