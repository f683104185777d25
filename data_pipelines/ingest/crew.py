"""Who builds a dataset: processes or a pipeline, on one host or on several that share the work and wait for one another."""

import dataclasses
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

from tqdm import tqdm

from data_pipelines.workers import Died, Run

_WAIT_S = 1.0


@runtime_checkable
class Task(Protocol):
    """Makes the pieces of something, one when it is called with a number; travels to the workers."""

    def __call__(self, number: int, /) -> None: ...

    def missing(self, among: Iterable[int] | None = None) -> list[int]:
        """The pieces (of some, or of all) that are not made yet, by whichever host."""
        ...

    def died(self, number: int, error: Died) -> None:
        """Takes note of a piece that a process died at, or raises `error`."""
        ...


@dataclasses.dataclass(frozen=True)
class Crew:
    """How work is spread."""

    workers: int
    """Processes of a host."""
    host: int
    """Which of the hosts this is."""
    hosts: int
    runner: Run
    """`workers.run`, or what `beam.runner` gives."""
    progress: bool
    """Whether bars show it."""

    def check(self) -> "Crew":
        """Returns itself; raises ValueError for a host that is none of them."""
        if not 0 <= self.host < self.hosts:
            raise ValueError(f"ingest: host {self.host} of {self.hosts}; needed one of 0 .. hosts - 1")
        return self

    @property
    def alone(self) -> bool:
        """Whether no other host builds, which might wait for what this one takes away."""
        return self.hosts == 1

    def work(self, task: Task, what: str, over: Callable[[], bool] = lambda: False) -> None:
        """Works at this host's share of what is missing, then waits until the others have done theirs.

        Once it is `over`, the others have no share any more: they ended, and what is missing then this host makes itself.
        """
        self._make(task, what, [number for number in task.missing() if number % self.hosts == self.host])
        if not self.alone:
            with tqdm(desc=f"{what}: waiting for other hosts", disable=not self.progress) as bar:
                left = task.missing()
                while left:
                    if over():
                        self._make(task, what, left)
                    else:
                        time.sleep(_WAIT_S)
                    left = task.missing(left)
                    bar.update()

    def _make(self, task: Task, what: str, numbers: Sequence[int]) -> None:
        """Makes some pieces."""
        with tqdm(total=len(numbers), desc=what, disable=not self.progress or not numbers) as bar:
            for number, result in self.runner(task, numbers, self.workers):
                if isinstance(result, Died):
                    task.died(number, result)
                bar.update()
