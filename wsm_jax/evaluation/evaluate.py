"""Runs the evaluators of an experiment on its trained model, and writes report.json and report.html."""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from wsm_jax.config import build, from_json, override
from wsm_jax.evaluation.report import Media, Section, write_report
from wsm_jax.files import write_file
from wsm_jax.runtime.checkpoint import code_version
from wsm_jax.runtime.host_memory import PeakMemory
from wsm_jax.runtime.metrics import METRICS_FILE, read_metrics
from wsm_jax.visualise.pictures import loss_curves
from wsm_jax.world import read

Target = tuple[str, float, str]
"""(">=" or "<=", value to reach, description)."""


@dataclasses.dataclass(frozen=True)
class Measured:
    """Metrics, each beside NAME_baseline, and a function that draws the sections of the page."""

    metrics: Mapping[str, float | int]
    targets: Mapping[str, Target] = dataclasses.field(default_factory=dict)
    draw: Callable[[], Sequence[Section]] = list
    pictures: Callable[[], Mapping[str, Media]] = dict
    """Pictures that are files of their own: name -> PNG."""


@runtime_checkable
class ReportEvaluator(Protocol):
    """An evaluator of a trained model."""

    def measure(self, sampler: Any, workdir: Path, progress: bool) -> Measured:
        """Measures on held-out data; draws nothing yet."""
        ...


def evaluate(
    evaluators: Mapping[str, ReportEvaluator],
    sampler: Any,
    workdir: Path,
    title: str,
    begin: float | None = None,
    memory: PeakMemory | None = None,
    progress: bool = True,
) -> tuple[dict[str, Any], dict[str, Target]]:
    """Measures, writes report.json and report.html to the workdir, and returns (metrics, targets).

    report.json is on disk before anything is drawn, and again at the end with the time of the whole job. `begin` is when that
    job began (s since 1970), and `memory` watches it; without them the evaluation is the job.
    """
    begin, memory = begin or time.time(), memory or PeakMemory()
    metrics: dict[str, Any] = {}
    measured = [one.measure(sampler, workdir, progress) for _, one in sorted(evaluators.items())]
    for one in measured:
        metrics |= one.metrics
    metrics |= {"wall_seconds": 0.0, "peak_rss_gib": 0.0, "commit": code_version()}
    metrics.setdefault("n", 0)

    def keep() -> None:
        metrics.update(wall_seconds=round(time.time() - begin, 1), peak_rss_gib=round(memory.peak_gib(), 2))
        text = json.dumps({name: _plain(x) for name, x in metrics.items()}, indent=2, allow_nan=False)
        write_file(workdir / "report.json", text + "\n")

    keep()
    sections = [section for one in measured for section in one.draw()]
    for one in measured:
        for name, picture in one.pictures().items():
            write_file(workdir / f"{name}.png", picture.data)
    keep()
    curves = {path.parent.name: loss_curves(read_metrics(path)) for path in sorted(workdir.glob(f"*/{METRICS_FILE}"))}
    targets = {name: target for one in measured for name, target in one.targets.items()}
    write_report(workdir / "report.html", title, metrics, targets, sections, curves)
    return metrics, targets


def evaluate_workdir(
    workdir: Path,
    data: str | None = None,
    changes: Mapping[str, Any] = MappingProxyType({}),
    trust: Sequence[str] = (),
    begin: float | None = None,
    memory: PeakMemory | None = None,
    progress: bool = True,
) -> tuple[dict[str, Any], dict[str, Target]]:
    """`evaluate` with the experiment and the weights of a workdir; `data` is another held-out dataset.

    Raises what `wsm_jax.world.read` and `override` raise, and ValueError for an experiment without sampler or evaluators.
    """
    stored, weights = read(workdir)
    config = from_json(stored, trust)
    for key, value in changes.items():
        override(config, key, value)
    if config.sampler is None or not config.evaluators:
        raise ValueError(f"{workdir}: its experiment {config.name!r} names no {'evaluators' if config.sampler else 'sampler'}")
    for name in config.evaluators if data else ():
        override(config, f"evaluators.{name}.data.path", data if "://" in str(data) else str(Path(str(data)).resolve()))
    sampler = build(config.sampler, trust).with_weights(weights)
    return evaluate(build(config.evaluators, trust), sampler, workdir, config.name, begin, memory, progress)


def _plain(x: float | int | str) -> float | int | str | None:
    """JSON has no infinity: an error of nothing that was found is null."""
    return x if isinstance(x, str) or math.isfinite(x) else None
