"""A task over many items in separate processes; a process that crashes does not lose the work of the others."""

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

Executor = Callable[..., Iterable[tuple[Any, Any]]]
"""Maps a task over items and yields (item, result): `run`, or a result of `beam.runner`."""


class WorkerCrash(RuntimeError):
    """A worker process ended during an item: out of memory, a fault in compiled code, or stopped by us after a time limit."""


_task: Any = None
"""Task of this process; sent once, because it may describe 100,000 recordings."""


def run(
    task: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    environment: dict[str, str] | None = None,
    *,
    limit_s: float | None = None,
) -> Iterator[tuple[Item, Result | WorkerCrash]]:
    """Yield (item, result) in the order of completion, from `workers` spawned processes; one worker without a time limit runs
    in this process.

    A process that needs more than `limit_s` seconds for one item is stopped. Raises what a task raises. After a crash the items
    that were in progress are retried one at a time; an item that crashes again is yielded with a `WorkerCrash`. Processes end
    with their parent.
    """
    if workers == 1 and not environment and limit_s is None:
        yield from ((item, task(item)) for item in items)
        return
    left = dict(enumerate(items))
    with _environment_variables({} if environment is None else environment):
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
    """Yield (index, result) in the order of completion. Raises BrokenProcessPool after a crash."""
    pool = concurrent.futures.ProcessPoolExecutor(
        max(min(workers, len(items)), 1),
        multiprocessing.get_context("spawn"),
        _start_worker,
        (task, os.cpu_count() or 1, workers, jax.config.jax_compilation_cache_dir),  # type: ignore[attr-defined]
    )
    try:
        futures = {pool.submit(_work, item, limit_s): index for index, item in items.items()}
        broken: BrokenProcessPool | None = None
        for future in concurrent.futures.as_completed(list(futures)):
            index, error = futures.pop(future), future.exception()
            if isinstance(error, BrokenProcessPool):  # every unfinished future gets it; finished ones may follow
                broken = error
            else:
                yield index, future.result()
        if broken:
            raise broken
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _one_by_one(
    task: Callable[[Item], Result], items: Mapping[int, Item], limit_s: float | None
) -> Iterator[tuple[int, Result | WorkerCrash]]:
    """`_pooled` with one worker, so that the item that crashes is known."""
    left = dict(items)
    while left:
        try:
            for index, result in _pooled(task, left, 1, limit_s):
                del left[index]
                yield index, result
        except BrokenProcessPool:
            index = next(iter(left))
            late = "" if limit_s is None else f", or was ended after {limit_s:g} s"
            yield index, WorkerCrash(f"the process that worked at {left.pop(index)} died{late}")


def _work(item: Any, limit_s: float | None) -> Any:
    if limit_s is not None:  # a C thread, because a decoder may hold the interpreter lock
        faulthandler.dump_traceback_later(limit_s, exit=True, file=_null_file())
    try:
        return _task(item)
    except Exception as error:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # an error that cannot be pickled would break the pool like a crash
            raise RuntimeError(f"{type(error).__name__}: {error}") from None
        raise
    finally:
        faulthandler.cancel_dump_traceback_later()


@functools.cache
def _null_file() -> IO[str]:
    """File for the traceback of a stopped process, which is of no use to the caller."""
    return open(os.devnull, "w")


def _start_worker(task: Any, cores: int, workers: int, compilations: str | None) -> None:
    """Store the task in a worker, once for all its items; the worker ends with its parent."""
    global _task
    _task = task
    threading.Thread(target=_end_with_parent, daemon=True).start()
    configure_worker(cores, workers, compilations)


def configure_worker(cores: int, workers: int, compilations: str | None) -> None:
    """Hide accelerators from a worker, and limit it to one thread where there are at least as many workers as cores.

    `compilations` is the folder of JAX's compilation cache, shared by all workers.
    """
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_compilation_cache_dir", compilations)
    if workers >= cores:
        flags = [os.environ["XLA_FLAGS"]] if "XLA_FLAGS" in os.environ else []
        os.environ["XLA_FLAGS"] = " ".join([*flags, "--xla_cpu_multi_thread_eigen=false"])


def _end_with_parent() -> None:
    """End this process when its parent has ended; otherwise its writes could collide with those of a new run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _environment_variables(changes: dict[str, str]) -> Iterator[None]:
    """Set environment variables for the processes that start in this context."""
    before = {key: os.environ[key] for key in changes if key in os.environ}
    os.environ.update(changes)
    try:
        yield
    finally:
        for key in changes:
            del os.environ[key]
        os.environ.update(before)
