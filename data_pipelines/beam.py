"""A task over many items as an Apache Beam pipeline, for builds too large for one machine.

    Create(items) | Reshuffle | task per item

Tasks write their results themselves and return nothing: the output folder and the recordings must have the same path on every
worker. A Beam worker runs its items in a separate process, as `workers.run` does: the process sees no accelerator, has its
environment before any import, and a crash of it loses nothing else.
"""

import base64
import builtins
import contextlib
import functools
import io
import json
import multiprocessing
import os
import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import jax

from data_pipelines.workers import Executor, Item, Result, WorkerCrash, configure_worker
from wsm_jax.extras import extra

_MARK = "::wsm-error::"


def runner(options: Sequence[str] = ()) -> Executor:
    """Executor that runs a task as a pipeline with Beam's options, such as ["--runner=DataflowRunner", ...].

    Beam chooses the number of workers. All items are yielded, each with None, after the last one is done. An exception or crash
    of a task ends the run with the task's own error, after the retries of Beam.

    Raises ModuleNotFoundError without the extra `beam`, ValueError for options or a runner that Beam does not accept.
    """
    beam = extra("apache_beam", "beam")
    for before, word in zip(["", *options], options):
        if not word.startswith("--") and (not before.startswith("--") or "=" in before):
            raise ValueError(f"{word!r} is no option of Apache Beam; needed --NAME=VALUE")  # Beam would ignore it
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
        try:
            parsed = beam.options.pipeline_options.PipelineOptions(list(options))
            parsed.get_all_options()  # parses every option
        except SystemExit as error:
            reason = stderr.getvalue().strip().rpartition("error: ")[2]
            raise ValueError(f"Apache Beam does not take {' '.join(options)}: {reason}") from error
    debug = parsed.view_as(beam.options.pipeline_options.DebugOptions)
    # tasks need much memory: parallelism comes from processes, not from a dozen threads in each
    debug.number_of_worker_harness_threads = debug.number_of_worker_harness_threads or 1
    beam.Pipeline(options=parsed)  # raises for an unknown runner, or one that lacks options
    return functools.partial(_run, parsed)


def _run(
    options: Any,
    task: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int = 1,
    environment: dict[str, str] | None = None,
) -> Iterator[tuple[Item, None]]:
    if not items:
        return
    beam = extra("apache_beam", "beam")
    try:
        pipeline = beam.Pipeline(options=options)
        made = pipeline | "items" >> beam.Create(list(items)) | "spread" >> beam.Reshuffle()
        made | "task" >> _step(pickle.dumps(task), environment or {}, jax.config.jax_compilation_cache_dir)  # type: ignore[attr-defined]
        state = pipeline.run().wait_until_finish()
    except Exception as failure:
        if (error := _unpacked(str(failure))) is None:
            raise
        raise error from failure
    if state not in (None, "DONE"):
        raise RuntimeError(f"the Beam pipeline ended as {state}; its runner's log says why")
    yield from ((item, None) for item in items)


def _step(task: bytes, environment: dict[str, str], compilations: str | None) -> Any:
    """Transform that applies the task to each item."""
    beam = extra("apache_beam", "beam")
    # a class made here is pickled by value, its functions by their names in this module
    members = {
        "setup": _setup,
        "process": _process,
        "teardown": _teardown,
        "task": task,
        "setup_arguments": (environment, compilations),
    }
    return beam.ParDo(type("Task", (beam.DoFn,), members)())


def _setup(self: Any) -> None:
    self.process_pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _start_worker, self.setup_arguments)


def _teardown(self: Any) -> None:
    self.process_pool.shutdown(cancel_futures=True)


def _process(self: Any, item: Any) -> None:
    """Run the task on one item. Raises RuntimeError that `_unpacked` turns back into the error of the task."""
    try:
        self.process_pool.submit(_do, self.task, item).result()
    except BrokenProcessPool as error:
        raise RuntimeError(_packed(WorkerCrash(f"the process that worked at {item} died"))) from error
    except Exception as error:
        raise RuntimeError(_packed(error)) from error


def _start_worker(environment: dict[str, str], compilations: str | None) -> None:
    os.environ.update(environment)
    configure_worker(1, 1, compilations)  # runners start one worker per core


def _do(task: bytes, item: Any) -> None:
    _loaded(task)(item)


@functools.lru_cache(maxsize=1)
def _loaded(task: bytes) -> Callable[[Any], Any]:
    return pickle.loads(task)


def _packed(error: Exception) -> str:
    """Error as text that survives any wrapping by a runner: its message, then its type and arguments in base64."""
    _, values, *_ = error.__reduce__()
    values = values if all(isinstance(value, str | int) for value in values) else (str(error),)
    word = base64.b64encode(json.dumps([type(error).__name__, *values]).encode()).decode()
    return f"{type(error).__name__}: {error} {_MARK}{word}{_MARK}"


def _unpacked(text: str) -> Exception | None:
    """Error inside a runner's message, of its original type where that is built in; None if there is no error in it."""
    # base64 of JSON, never of a pickle: a message may quote the recording, which is not trusted
    words = re.findall(f"{_MARK}([A-Za-z0-9+/=]+){_MARK}", text)
    try:
        name, *values = json.loads(base64.b64decode(words[-1], validate=True))
    except (IndexError, ValueError):
        return None
    kind = {"WorkerCrash": WorkerCrash}.get(name, getattr(builtins, str(name), None))
    try:
        if isinstance(kind, type) and issubclass(kind, Exception):
            return kind(*values)
    except TypeError:
        pass
    return RuntimeError(f"{name}: {' '.join(map(str, values))}")
