"""Tasks over many items, in processes of their own: any number of them, and none that dies takes the others' work along."""

import concurrent.futures
import contextlib
import faulthandler
import functools
import itertools
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import IO, Any, TypeVar

import jax

Item = TypeVar("Item")
Result = TypeVar("Result")

Run = Callable[..., Iterable[tuple[Any, Any]]]
"""What works at tasks: `run`, or what `beam.runner` gives."""


class Died(RuntimeError):
    """A process ended while it worked at an item: killed by the system (memory), by a fault of compiled code, or in the end by
    us, for it did not come to one.
    """


_task: Any = None
"""What this process works at: it is sent once, for it may hold what is known of 100,000 recordings."""


def run(
    task: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    environment: dict[str, str] | None = None,
    *,
    limit_s: float | None = None,
) -> Iterator[tuple[Item, Result | Died]]:
    """(item, result) as they are done, in `workers` spawned processes; 1 works in this process, unless it has a limit.

    A process that is at one item for more than `limit_s` seconds is ended, whatever it is doing.
    What a task raises is raised here. Where a process dies, what it may have been at is tried again, one after the other; the
    item that its process dies at again comes with `Died`. Processes end with the one that started them.
    """
    if workers == 1 and not environment and limit_s is None:
        yield from ((item, task(item)) for item in items)
        return
    left = dict(enumerate(items))
    with _environment({} if environment is None else environment):
        while left:
            try:
                for index, result in _pooled(task, left, workers, limit_s):
                    yield left.pop(index), result
            except BrokenProcessPool:
                suspects = dict(itertools.islice(left.items(), workers))  # tasks begin in order
                for index, result in _one_by_one(task, suspects, limit_s):
                    yield left.pop(index), result


def _pooled(
    task: Callable[[Item], Result], items: Mapping[int, Item], workers: int, limit_s: float | None
) -> Iterator[tuple[int, Result]]:
    """Index and result as they are done. Raises BrokenProcessPool where a process dies."""
    pool = concurrent.futures.ProcessPoolExecutor(
        max(min(workers, len(items)), 1),
        multiprocessing.get_context("spawn"),
        _begin,
        (task, os.cpu_count() or 1, workers, jax.config.jax_compilation_cache_dir),  # type: ignore[attr-defined]
    )
    try:
        futures = {pool.submit(_work, item, limit_s): index for index, item in items.items()}
        broken: BrokenProcessPool | None = None
        for future in concurrent.futures.as_completed(list(futures)):
            index, error = futures.pop(future), future.exception()
            if isinstance(error, BrokenProcessPool):  # it comes for all that are left; what is done may come after it
                broken = error
            else:
                yield index, future.result()
        if broken:
            raise broken
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _one_by_one(
    task: Callable[[Item], Result], items: Mapping[int, Item], limit_s: float | None
) -> Iterator[tuple[int, Result | Died]]:
    """As `_pooled`, one at a time, so that it is known which one a process dies at."""
    left = dict(items)
    while left:
        try:
            for index, result in _pooled(task, left, 1, limit_s):
                del left[index]
                yield index, result
        except BrokenProcessPool:
            index = next(iter(left))
            late = "" if limit_s is None else f", or was ended after {limit_s:g} s"
            yield index, Died(f"the process that worked at {left.pop(index)} died{late}")


def _work(item: Any, limit_s: float | None) -> Any:
    if limit_s is not None:  # by a thread of its own that needs no interpreter, for a decoder may hold that
        faulthandler.dump_traceback_later(limit_s, exit=True, file=_nowhere())
    try:
        return _task(item)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # it would break the pool on its way back, as if the process had died
            raise RuntimeError(f"{type(error).__name__}: {error}") from None
        raise
    finally:
        faulthandler.cancel_dump_traceback_later()


@functools.cache
def _nowhere() -> IO[str]:
    """Where the place that a process hung at is told: nobody would know what it is."""
    return open(os.devnull, "w")


def _begin(task: Any, cores: int, workers: int, compilations: str | None) -> None:
    """Takes the task into a worker, once for all its items; the worker ends with its parent."""
    global _task
    _task = task
    threading.Thread(target=_end_with_parent, daemon=True).start()
    begin(cores, workers, compilations)


def begin(cores: int, workers: int, compilations: str | None) -> None:
    """Keeps a worker off accelerators, and, where the workers fill the machine, to one thread of its own.

    What the workers before it have compiled it finds in the folder `compilations`.
    """
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_compilation_cache_dir", compilations)
    if workers >= cores:
        given = [os.environ["XLA_FLAGS"]] if "XLA_FLAGS" in os.environ else []
        os.environ["XLA_FLAGS"] = " ".join([*given, "--xla_cpu_multi_thread_eigen=false"])


def _end_with_parent() -> None:
    """Ends this process when the one that started it is gone: nobody else would, and what it writes would meet a new run's."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _environment(changes: dict[str, str]) -> Iterator[None]:
    """Sets environment variables for the processes that are started inside."""
    before = {key: os.environ[key] for key in changes if key in os.environ}
    os.environ.update(changes)
    try:
        yield
    finally:
        for key in changes:
            del os.environ[key]
        os.environ.update(before)
