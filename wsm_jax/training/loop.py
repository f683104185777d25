"""The training loop: one for every flow.

The order within a step is deliberate. Step n is dispatched first; while the device works on it, the host writes the metrics
of step n-1 (the only wait for the device) and fetches the next batch. Only a checkpoint waits for its own step, so that a
state with a value that is not finite is never saved.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import jax
import optax
from jax.sharding import Mesh
from tqdm import tqdm

from wsm_jax.runtime.checkpoint import EMA, Checkpoints
from wsm_jax.runtime.mesh import global_batch
from wsm_jax.runtime.metrics import METRICS_FILE, JsonLinesWriter, fetch
from wsm_jax.runtime.progress import ProgressBar
from wsm_jax.runtime.watchdog import Watchdog
from wsm_jax.training.step import Objective, TrainState, init_state, make_train_step, state_shardings
from wsm_jax.typing import Array, PyTree

Hook = Callable[[int, TrainState], Mapping[str, float] | None]
"""Called after every step with the number of updates done and the state, which the next step donates: copy what is to be
kept. What it returns is logged in the row of that step."""


@runtime_checkable
class Batches(Protocol):
    """Endless batches of this host: trees of fresh NumPy arrays [rows, ...], with a position that can be saved."""

    def __next__(self) -> PyTree: ...

    def get_state(self) -> Any:
        """The position after the batches handed out so far: JSON values, or bytes."""
        ...

    def set_state(self, state: Any) -> None:
        """Goes to a position."""
        ...


class Preempted(SystemExit):
    """The training was told to stop (SIGTERM) and has saved; exit code 143."""


class _StopSignal:
    """Notes SIGTERM instead of dying from it. A cluster job of several hosts is told by JAX instead, all hosts alike."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self._checkpoints, self._received = checkpoints, False
        self._mine = jax.process_count() == 1 and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> "_StopSignal":
        if self._mine:
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        if self._mine:
            signal.signal(signal.SIGTERM, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._received = True

    def reached(self, step: int) -> bool:
        return self._received if jax.process_count() == 1 else self._checkpoints.reached_preemption(step)


def _split(state: TrainState) -> dict[str, PyTree]:
    """The trees of a checkpoint: the average by itself, for inference."""
    return {"train": {"step": state.step, "params": state.params, "opt_state": state.opt_state}, EMA: state.ema}


def _begin(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    seed: int,
    checkpoints: Checkpoints,
    batches: Batches,
) -> TrainState:
    """The state to go on from: of the newest checkpoint, with the data at its place, or a new one."""
    if checkpoints.latest() is None:
        state = init_state(objective, optimizer, mesh, seed)
        checkpoints.check_room(_split(state))
        return state
    abstract, placed = state_shardings(objective, optimizer, mesh)
    trees, data_state, step = checkpoints.restore(_split(abstract), _split(placed))
    batches.set_state(data_state)
    tqdm.write(f"resumed from step {step} of {checkpoints.workdir}", file=sys.stderr)
    return TrainState(**trees["train"], ema=trees[EMA])


def train(
    objective: Objective,
    batches: Batches,
    *,
    steps: int,
    workdir: str | Path,
    config: Mapping[str, Any],
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    mesh: Mesh,
    seed: int,
    accumulate: int,
    checkpoint_every: int,
    keep: int,
    log_every: int,
    hooks: Sequence[Hook] = (),
    may_differ: Collection[str] = (),
    hang_seconds: float = 900.0,
    label: str = "train",
    progress: bool = True,
) -> TrainState:
    """Trains to `steps` updates and returns the final state; goes on by itself from the newest checkpoint of `workdir`.

    Checkpoints every `checkpoint_every` updates, at the end and on SIGTERM (then raises `Preempted`); metrics rows every
    `log_every` updates. Keys of `config` in `may_differ` may change between runs in one workdir; others make it another
    experiment's. Raises ValueError for that, for parameters or batches that do not fit the mesh and for a damaged checkpoint,
    OSError for a full disk, FloatingPointError when loss or gradient is not finite: the checkpoints before it stand.
    """
    for name, value in (
        ("steps", steps),
        ("accumulate", accumulate),
        ("checkpoint_every", checkpoint_every),
        ("log_every", log_every),
        ("keep", keep),
    ):
        if value < 1:
            raise ValueError(f"{name} = {value}: needed 1 or more")
    step_fn = make_train_step(objective, optimizer, mesh, ema_decay=ema_decay, seed=seed, accumulate=accumulate)
    with closing(Checkpoints(workdir, config, keep=keep, may_differ=may_differ)) as checkpoints:
        state = _begin(objective, optimizer, mesh, seed, checkpoints, batches)
        done = int(state.step)
        folder = checkpoints.workdir
        if done > steps:
            raise ValueError(f"steps = {steps}: {folder} is already at step {done}; needed that or more, or a new workdir")
        with (
            closing(JsonLinesWriter(folder / METRICS_FILE, done)) as writer,
            closing(ProgressBar(label, steps, done, progress)) as bar,
            closing(Watchdog(folder / "hang.log", hang_seconds)) as watchdog,
            _StopSignal(checkpoints) as stop,
        ):

            def finish(step: int, metrics: Mapping[str, Array], extra: Mapping[str, float]) -> None:
                """Waits for a step that was dispatched before, checks and reports it."""
                values = fetch(metrics)
                watchdog.beat()
                if not values.pop("finite"):
                    raise FloatingPointError(
                        f"step {step}: loss {values['loss']}, gradient norm {values['grad_norm']}: not finite; "
                        f"newest checkpoint: step {checkpoints.latest()} in {checkpoints.path}. "
                        "Lower the learning rate, lengthen the warm-up, or look at the batch of this step"
                    )
                bar.update({"loss": values["loss"]})
                if step % log_every == 0 or step == steps or extra.keys() - {"data_seconds"}:
                    writer.write(step, {**values, **extra})

            pending: tuple[int, Mapping[str, Array], Mapping[str, float]] | None = None
            while done < steps:
                begin = time.perf_counter()
                local = next(batches)
                waited = time.perf_counter() - begin
                state, metrics = step_fn(state, global_batch(mesh, local))
                done += 1
                if pending is not None:
                    finish(*pending)
                extra = {"data_seconds": waited}
                for hook in hooks:
                    extra.update(hook(done, state) or {})
                pending = (done, metrics, extra)
                stopped = stop.reached(done)
                if done % checkpoint_every == 0 or done == steps or stopped:
                    finish(*pending)
                    pending = None
                    checkpoints.save(done, _split(state), batches.get_state())
                if stopped and done < steps:
                    checkpoints.wait()
                    tqdm.write(f"told to stop: saved step {done}; the same command goes on from there", file=sys.stderr)
                    raise Preempted(143)
            checkpoints.wait()
    return state
