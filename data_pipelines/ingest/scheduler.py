"""Scheduler of a build: worker processes or a pipeline, on one host or on several that share the work."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

from tqdm import tqdm

from data_pipelines.workers import Executor, WorkerCrash, run

_WAIT_S = 1.0


@runtime_checkable
class ResumableTask(Protocol):
    """Makes numbered pieces, one per call, and knows which are missing; pickled for the workers."""

    def __call__(self, number: int, /) -> None: ...

    def missing(self, among: Iterable[int] | None = None) -> list[int]:
        """Pieces (of `among`, or all) that no host has made yet."""
        ...

    def on_worker_crash(self, number: int, error: WorkerCrash) -> None:
        """Record a piece that crashed a worker, or raise `error`."""
        ...


@dataclasses.dataclass(frozen=True)
class Scheduler:
    """Distribution of work over processes and hosts."""

    workers: int = 1
    """Processes of this host."""
    host: int = 0
    """Index of this host."""
    hosts: int = 1
    """Number of hosts that build together."""
    runner: Executor = run
    """`workers.run`, or a result of `beam.runner`."""
    progress: bool = True
    """Show progress bars."""

    def check(self) -> "Scheduler":
        """Return itself. Raises ValueError for an index out of range."""
        if not 0 <= self.host < self.hosts:
            raise ValueError(f"ingest: host {self.host} of {self.hosts}; needed one of 0 .. hosts - 1")
        return self

    @property
    def single_host(self) -> bool:
        """True if no other host takes part, which might wait for files that this one deletes."""
        return self.hosts == 1

    def work(self, task: ResumableTask, title: str, finished: Callable[[], bool] = lambda: False) -> None:
        """Make this host's share of the missing pieces, then wait until the other hosts have made theirs.

        Once `finished` is true the other hosts have ended, and this host makes all pieces that are still missing. Raises what
        the task raises.
        """
        self._make(task, title, [number for number in task.missing() if number % self.hosts == self.host])
        if not self.single_host:
            with tqdm(desc=f"{title}: waiting for other hosts", disable=not self.progress) as bar:
                missing = task.missing()
                while missing:
                    if finished():
                        self._make(task, title, missing)
                    else:
                        time.sleep(_WAIT_S)
                    missing = task.missing(missing)
                    bar.update()

    def _make(self, task: ResumableTask, title: str, numbers: Sequence[int]) -> None:
        with tqdm(total=len(numbers), desc=title, disable=not self.progress or not numbers) as bar:
            for number, result in self.runner(task, numbers, self.workers):
                if isinstance(result, WorkerCrash):
                    task.on_worker_crash(number, result)
                bar.update()
