"""Measures a trained world on held-out scenes:     python -m launch.evaluate --workdir=runs/quickstart

Writes report.json (every measure beside its baseline) and report.html (the four verbs as pictures and videos) to the workdir.
Other flags: --data (default: data/test in the workdir)   --set=evaluate.clips=8   --noprogress
"""

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from PIL import Image
from tqdm import tqdm

from data_pipelines.simulation import captions
from data_pipelines.simulation.scene import SCENE_DIAGONAL_M
from data_pipelines.wsv import Dataset
from launch.command import parse, run
from launch.files import write_picture
from launch.train import overrides
from launch.training import keep_compilations
from wsm_jax import experiment
from wsm_jax.evaluation.judge import TARGETS, Scenes, judge_pixels, judge_revisit, judge_text
from wsm_jax.evaluation.report import write_report
from wsm_jax.evaluation.showcase import overview, sections
from wsm_jax.files import write_file
from wsm_jax.runtime.checkpoint import code_version
from wsm_jax.runtime.host_memory import PeakMemory
from wsm_jax.runtime.metrics import METRICS_FILE, read_metrics
from wsm_jax.visualise.pictures import loss_curves
from wsm_jax.world import World

PICTURE_FRAMES = 8
"""Frames of a clip in which pictures are compared."""


def parsed(text: str) -> list[tuple[str, str]]:
    """(shape, colour) of the objects that a text names."""
    return [(one.shape, one.colour) for one in captions.parse(text)]


def evaluate(
    workdir: Path,
    data: Path | None = None,
    settings: Sequence[str] = (),
    begin: float | None = None,
    memory: PeakMemory | None = None,
    progress: bool = True,
) -> dict:
    """Measures, writes report.json and report.html, and returns the measures.

    `begin` is when the whole job began (s), and `memory` watches it; without them the evaluation is the job.
    """
    begin, memory = begin or time.time(), memory or PeakMemory()

    def keep() -> None:
        """What is measured stands on disk before anything is drawn, and once more with the time of the whole job."""
        metrics.update(wall_seconds=round(time.time() - begin, 1), peak_rss_gib=round(memory.peak_gib(), 2))
        text = json.dumps({name: _plain(x) for name, x in metrics.items()}, indent=2, allow_nan=False)
        write_file(workdir / "report.json", text + "\n")

    world = World.load(workdir)
    config = experiment.resolved(dict(world.config), overrides(list(settings)))
    dataset = Dataset(data or workdir / "data" / "test")
    _check(dataset)
    count = min(config.evaluate.clips, len(dataset))
    clips = [dataset.clip(i) for i in range(count)]
    scenes = Scenes.of(clips, parsed, SCENE_DIAGONAL_M, config.evaluate.seed)
    seed = config.evaluate.seed
    with tqdm(total=2 * count + 2, desc="evaluate", disable=not progress) as bar:
        metrics, cores, texts = judge_text(world, scenes, seed)
        bar.update()
        pixels, perceived = judge_pixels(world, scenes, PICTURE_FRAMES, bar.update)
        metrics |= pixels
        metrics |= judge_revisit(world, cores, clips[0].channels["rgb"].shape[1], step=bar.update)
        metrics |= {"n": count, "wall_seconds": 0.0, "peak_rss_gib": 0.0, "commit": code_version()}
        keep()
        panels = sections(world, scenes, cores, texts, perceived, config.evaluate.video_size, config.evaluate.video_fps)
        bar.update()
    picture = overview(world, scenes, cores, perceived, config.evaluate.video_size)
    write_picture(workdir / "overview.png", Image.fromarray(picture))
    curves = {stage: loss_curves(read_metrics(workdir / stage / METRICS_FILE)) for stage in ("bridge", "world")}
    keep()
    write_report(workdir / "report.html", config.name, metrics, TARGETS, panels, curves)
    return metrics


def _plain(x: float | int | str) -> float | int | str | None:
    """JSON has no infinity: an error of nothing that was found is null."""
    return x if isinstance(x, str) or math.isfinite(x) else None


def _check(dataset: Dataset) -> None:
    """Raises ValueError for a dataset that does not hold the truth to measure against."""
    layout = dataset.layout
    there = {"captions": layout.captions, "a core": layout.ticks, "cameras": layout.camera, "rgb": "rgb" in layout.channels}
    lacking = [name for name, found in there.items() if not found]
    if lacking or len(dataset) < 2:
        raise ValueError(
            f"{dataset.folder.path}: {len(dataset)} clips without {' and '.join(lacking) or 'a second one'}; needed two clips"
            f" with {', '.join(there)}, as python -m launch.data simulate makes them"
        )


def main(arguments: list[str]) -> None:
    """Measures a trained world and writes report.json and report.html."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "folder with the trained flows", flag_values=values)
    flags.DEFINE_string("data", None, "held-out WSV dataset; default: data/test in the workdir", flag_values=values)
    flags.DEFINE_multi_string("set", [], "KEY=VALUE: overrides a key of the config, e.g. evaluate.clips=8", flag_values=values)
    flags.DEFINE_bool("progress", True, "show a progress bar", flag_values=values)
    parse("python -m launch.evaluate", values, arguments, required=("workdir",))
    workdir = Path(values.workdir)
    if not workdir.is_dir():
        raise FileNotFoundError(f"{workdir}: no such workdir; train one with python -m launch.train")
    keep_compilations(workdir)
    metrics = evaluate(workdir, Path(values.data) if values.data else None, values.set, progress=values.progress)
    for name, (comparison, value, what) in TARGETS.items():
        got, base = metrics[name], metrics[f"{name}_baseline"]
        print(f"{name:32} {got:8.3f}   (baseline {base:.3f}, to reach {comparison} {value})   {what}")
    print(f"wrote {workdir}/report.json and {workdir}/report.html")


if __name__ == "__main__":
    run(main)
