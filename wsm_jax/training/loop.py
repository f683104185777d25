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
from types import FrameType, MappingProxyType
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from tqdm import tqdm

from wsm_jax.runtime.checkpoint import EMA, Checkpoints
from wsm_jax.runtime.mesh import global_batch
from wsm_jax.runtime.metrics import EncodeVideo, MetricWriter, fetch
from wsm_jax.runtime.progress import ProgressBar
from wsm_jax.runtime.watchdog import Watchdog
from wsm_jax.runtime.writers import Dashboard, open_writers
from wsm_jax.training.stage import Batches, Objective, Stage
from wsm_jax.training.step import TrainState, init_state, make_train_step, state_shardings
from wsm_jax.typing import Array, PyTree, UInt8

Hook = Callable[[int, TrainState, MetricWriter], Mapping[str, float] | None]
"""Function that is called after every step with the number of updates done, the state and the writer of metrics.

The next step donates the state: copy what is to be kept. The numbers that it returns go to the row of that step."""


class Preempted(SystemExit):
    """The training was told to stop (SIGTERM) and has saved; exit code 143."""


class _StopSignal:
    """Records SIGTERM instead of exiting. In a job of several hosts JAX reports preemption, to all hosts at the same step."""

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
    """The state to start from: that of the newest checkpoint, with the data at its position, or a new one."""
    if checkpoints.latest() is None:
        state = init_state(objective, optimizer, mesh, seed)
        checkpoints.check_room(_split(state))
        return state
    abstract, placed = state_shardings(objective, optimizer, mesh)
    trees, data_state, step = checkpoints.restore(_split(abstract), _split(placed))
    batches.set_state(data_state)
    tqdm.write(f"resumed from step {step} of {checkpoints.workdir}", file=sys.stderr)
    return TrainState(**trees["train"], ema=trees[EMA])


class _Speed:
    """Rates between two rows of metrics; the first row has none, for its time went to compiling."""

    def __init__(self, step_flops: int) -> None:
        self._flops = step_flops
        self._last: tuple[int, float] | None = None

    def until(self, step: int) -> dict[str, float]:
        """The rates since the row before."""
        now, last = time.perf_counter(), self._last
        self._last = (step, now)
        if last is None or step == last[0]:
            return {}
        rate = (step - last[0]) / (now - last[1])
        return {"steps_per_s": rate} | ({"gflops_per_s": rate * self._flops / 1e9} if self._flops else {})


def _no_video(path: Path, frames: UInt8[np.ndarray, "T H W 3"], fps: float) -> None:
    """Video encoder that drops videos."""


def train(
    stage: Stage,
    batches: Batches,
    *,
    workdir: str | Path,
    config: Mapping[str, Any],
    mesh: Mesh,
    seed: int,
    frozen: Mapping[str, PyTree] = MappingProxyType({}),
    hooks: Sequence[Hook] = (),
    dashboards: Sequence[Dashboard] = (),
    encode_video: EncodeVideo = _no_video,
    may_differ: Collection[str] = (),
    step_flops: int = 0,
    label: str = "train",
    progress: bool = True,
) -> TrainState:
    """Trains to `stage.steps` updates and returns the final state; resumes from the newest checkpoint of `workdir`.

    Checkpoints every `checkpoint_every` updates, at the end and on SIGTERM (then raises `Preempted`); metrics rows every
    `log_every` updates. `frozen` are placed arrays. `encode_video` writes the videos of hooks as mp4. Rows tell
    steps_per_s, and with the model FLOPs of a step gflops_per_s. Keys of `config` in
    `may_differ` may change between runs in one workdir; others make it another experiment's. Raises ValueError for that, for
    parameters or batches that do not fit the mesh and for a damaged checkpoint, OSError for a full disk, FloatingPointError
    when loss or gradient is not finite: the checkpoints before it stand.
    """
    objective, steps = stage.objective, stage.steps
    optimizer = stage.optimizer.transformation(steps)
    step_fn = make_train_step(objective, optimizer, mesh, ema_decay=stage.ema_decay, seed=seed, accumulate=stage.accumulate)
    with closing(Checkpoints(workdir, config, keep=stage.keep, may_differ=may_differ)) as checkpoints:
        state = _begin(objective, optimizer, mesh, seed, checkpoints, batches)
        done = int(state.step)
        folder = checkpoints.workdir
        if done > steps:
            raise ValueError(f"steps = {steps}: {folder} is already at step {done}; needed that or more, or a new workdir")
        with (
            closing(open_writers(folder, done, config, dashboards, encode_video)) as writer,
            closing(ProgressBar(label, steps, done, progress)) as bar,
            closing(Watchdog(folder / "hang.log", stage.hang_seconds)) as watchdog,
            _StopSignal(checkpoints) as stop,
        ):
            speed = _Speed(step_flops)

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
                if step % stage.log_every == 0 or step == steps or extra.keys() - {"data_seconds"}:
                    writer.write(step, {**values, **extra, **speed.until(step)})

            pending: tuple[int, Mapping[str, Array], Mapping[str, float]] | None = None
            while done < steps:
                begin = time.perf_counter()
                local = next(batches)
                waited = time.perf_counter() - begin
                state, metrics = step_fn(state, global_batch(mesh, local), frozen)
                done += 1
                if pending is not None:
                    finish(*pending)
                extra = {"data_seconds": waited}
                for hook in hooks:
                    extra.update(hook(done, state, writer) or {})
                pending = (done, metrics, extra)
                stopped = stop.reached(done)
                if done % stage.checkpoint_every == 0 or done == steps or stopped:
                    finish(*pending)
                    pending = None
                    checkpoints.save(done, _split(state), batches.get_state())
                if stopped and done < steps:
                    checkpoints.wait()
                    tqdm.write(f"stopped by a signal: saved step {done}; the same command resumes from there", file=sys.stderr)
                    raise Preempted(143)
            checkpoints.wait()
    return state
