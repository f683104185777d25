"""Tasks over many items, in processes of their own: any number of them, and none that dies takes the others' work along."""

import concurrent.futures
import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import jax

Item = TypeVar("Item")
Result = TypeVar("Result")

Run = Callable[..., Iterable[tuple[Any, Any]]]
"""What works at tasks: `run`, or what `beam.runner` gives."""


class Died(RuntimeError):
    """A process ended while it worked at an item: killed by the system (memory), or by a fault of compiled code."""


def run(
    task: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    environment: dict[str, str] | None = None,
    *,
    alone: bool = False,
) -> Iterator[tuple[Item, Result | Died]]:
    """(item, result) as they are done, in `workers` spawned processes; 1 works in this process, unless `alone`.

    What a task raises is raised here. Where a process dies, what it may have been at is tried again, an item a process; the
    one that kills its process again comes with `Died`.
    """
    if workers == 1 and not environment and not alone:
        yield from ((item, task(item)) for item in items)
        return
    given = {} if environment is None else environment
    done: set[int] = set()
    with _environment(given):
        try:
            for index, result in _pooled(task, items, range(len(items)), workers):
                done.add(index)
                yield items[index], result
            return
        except BrokenProcessPool:
            pass
        for index in (i for i in range(len(items)) if i not in done):
            try:
                for _, result in _pooled(task, items, [index], 1):
                    yield items[index], result
            except BrokenProcessPool:
                yield items[index], Died(f"the process that worked at {items[index]} died")


def _pooled(
    task: Callable[[Item], Result], items: Sequence[Item], indices: Sequence[int], workers: int
) -> Iterator[tuple[int, Result]]:
    pool = concurrent.futures.ProcessPoolExecutor(
        max(min(workers, len(indices)), 1),
        multiprocessing.get_context("spawn"),
        begin,
        (os.cpu_count() or 1, workers, jax.config.jax_compilation_cache_dir),  # type: ignore[attr-defined]
    )
    try:
        futures = {pool.submit(task, items[index]): index for index in indices}
        for future in concurrent.futures.as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def begin(cores: int, workers: int, compilations: str | None) -> None:
    """Keeps a worker off accelerators, and, where the workers fill the machine, to one thread of its own.

    What the workers before it have compiled it finds in the folder `compilations`.
    """
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_compilation_cache_dir", compilations)
    if workers >= cores:
        given = [os.environ["XLA_FLAGS"]] if "XLA_FLAGS" in os.environ else []
        os.environ["XLA_FLAGS"] = " ".join([*given, "--xla_cpu_multi_thread_eigen=false"])


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
