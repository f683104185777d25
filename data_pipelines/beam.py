"""Tasks over many items as an Apache Beam pipeline, for builds that a machine does not suffice for.

    Create(items) | Reshuffle | a task an item

The tasks write what they make, so nothing is sent back: the folder they write to, and the recordings they read, must be within
reach of every worker, under the same path. A worker of Beam hands its items to a process of its own, as `workers.run` does: it
sees no accelerator, has its environment before anything is imported, and takes nothing else along when it dies.
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

from data_pipelines.workers import Died, Item, Result, Run, begin
from wsm_jax.extras import extra

_MARK = "::wsm-error::"


def runner(options: Sequence[str] = ()) -> Run:
    """What runs tasks as `workers.run` does, in a pipeline with Beam's options, as ["--runner=DataflowRunner", ...].

    The number of workers is Beam's affair; the items come when the last of them is done, each with None. A task that raises,
    or whose process dies, ends the run with its own error once Beam has given up.

    Raises ModuleNotFoundError without the extra `beam`, ValueError for options or a runner that Beam does not take.
    """
    beam = extra("apache_beam", "beam")
    for before, word in zip(["", *options], options):
        if not word.startswith("--") and (not before.startswith("--") or "=" in before):
            raise ValueError(f"{word!r} is no option of Apache Beam; needed --NAME=VALUE")  # it would be passed over
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            given = beam.options.pipeline_options.PipelineOptions(list(options))
            given.get_all_options()  # parses every one
        except SystemExit as error:
            reason = said.getvalue().strip().rpartition("error: ")[2]
            raise ValueError(f"Apache Beam does not take {' '.join(options)}: {reason}") from error
    debug = given.view_as(beam.options.pipeline_options.DebugOptions)
    # tasks are large: more parallelism is more processes, not a dozen tasks in the memory of each
    debug.number_of_worker_harness_threads = debug.number_of_worker_harness_threads or 1
    beam.Pipeline(options=given)  # raises for a runner that is not known, or lacks options
    return functools.partial(_run, given)


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
    """The transform that does the task."""
    beam = extra("apache_beam", "beam")
    # a class that is made here travels as what it holds, and its functions as their names in this module
    held = {"setup": _setup, "process": _process, "teardown": _teardown, "task": task, "given": (environment, compilations)}
    return beam.ParDo(type("Task", (beam.DoFn,), held)())


def _setup(self: Any) -> None:
    self.own = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin, self.given)


def _teardown(self: Any) -> None:
    self.own.shutdown(cancel_futures=True)


def _process(self: Any, item: Any) -> None:
    """Raises RuntimeError from which `_unpacked` makes the error of the task again."""
    try:
        self.own.submit(_do, self.task, item).result()
    except BrokenProcessPool as error:
        raise RuntimeError(_packed(Died(f"the process that worked at {item} died"))) from error
    except Exception as error:
        raise RuntimeError(_packed(error)) from error


def _begin(environment: dict[str, str], compilations: str | None) -> None:
    os.environ.update(environment)
    begin(1, 1, compilations)  # runners start a worker a core


def _do(task: bytes, item: Any) -> None:
    _loaded(task)(item)


@functools.lru_cache(maxsize=1)
def _loaded(task: bytes) -> Callable[[Any], Any]:
    return pickle.loads(task)


def _packed(error: Exception) -> str:
    """An error as text that survives whatever a runner wraps it in: its message, then the same as a word of base64."""
    _, values, *_ = error.__reduce__()
    values = values if all(isinstance(value, str | int) for value in values) else (str(error),)
    word = base64.b64encode(json.dumps([type(error).__name__, *values]).encode()).decode()
    return f"{type(error).__name__}: {error} {_MARK}{word}{_MARK}"


def _unpacked(text: str) -> Exception | None:
    """The error within a runner's message, of its own kind where that is built in; None where there is none."""
    # base64 of JSON, never of a pickle: a message may quote the recording, and that is not to be trusted
    found = re.findall(f"{_MARK}([A-Za-z0-9+/=]+){_MARK}", text)
    try:
        name, *values = json.loads(base64.b64decode(found[-1], validate=True))
    except (IndexError, ValueError):
        return None
    kind = {"Died": Died}.get(name, getattr(builtins, str(name), None))
    try:
        if isinstance(kind, type) and issubclass(kind, Exception):
            return kind(*values)
    except TypeError:
        pass
    return RuntimeError(f"{name}: {' '.join(map(str, values))}")
