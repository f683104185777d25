"""The whole chain on two cores: simulate, train, evaluate.     bash launch/quickstart.sh [--workdir=runs/quickstart]

Goes on where it was stopped. Other flags: --config (default experiments/quickstart.py)   --config.KEY=VALUE   --renderer
"""

import os
import time
from pathlib import Path

from absl import flags

from launch import config_flags
from launch.command import parse, run
from wsm_jax.runtime.host_memory import PeakMemory

# One XLA device per core: the batch is split over them, which uses two cores better than splitting every operation.
CORES = max(1, min(2, os.cpu_count() or 1))


def main(arguments: list[str]) -> None:
    """Simulates the datasets of the config, trains its stages, evaluates them and says where the page is."""
    rest, changes = config_flags.split(arguments)
    values = flags.FlagValues()
    flags.DEFINE_string(
        "config", str(Path(__file__).parents[1] / "experiments" / "quickstart.py"), "experiment file", flag_values=values
    )
    flags.DEFINE_string("workdir", "runs/quickstart", "folder of data, checkpoints and results", flag_values=values)
    flags.DEFINE_string("renderer", "wsm", "wsm (our ray caster) or mujoco", flag_values=values)
    flags.DEFINE_integer("workers", CORES, "processes that simulate", lower_bound=1, flag_values=values)
    flags.DEFINE_multi_string("set", [], config_flags.HELP, flag_values=values)
    parse("python -m launch.quickstart", values, rest)
    begin, memory = time.time(), PeakMemory()

    from launch.stages import train_stages
    from wsm_jax.config import load
    from wsm_jax.evaluation.evaluate import evaluate_workdir
    from wsm_jax.runtime.compiler import keep_compilations
    from wsm_jax.training.experiment import check_stages, open_experiment

    workdir = Path(values.workdir)
    config = load(values.config, changes | config_flags.parse(values.set))
    experiment = open_experiment(config)
    check_stages(experiment, config, experiment.order, workdir)
    keep_compilations(workdir)
    made = ", ".join(f"{part.scenes} scenes -> {workdir}/data/{name}" for name, part in experiment.datasets.items())
    print(f"1/3 simulate: {made}")
    for name, part in experiment.datasets.items():
        part.build(workdir / "data" / name, renderer=values.renderer, workers=values.workers)
    print(f"2/3 train: {', '.join(experiment.order)}")
    train_stages(experiment, config, experiment.order, workdir)
    print("3/3 evaluate")
    evaluate_workdir(workdir, begin=begin, memory=memory)
    print(f"done in {(time.time() - begin) / 60:.1f} min: {workdir}/report.json, and open {workdir}/report.html")


def cli() -> None:
    """Set up memory and devices before JAX starts, and run the command line. Entry point of `wsm-quickstart`."""
    import jax

    from wsm_jax.runtime.host_memory import reuse_pages

    reuse_pages()
    jax.config.update("jax_num_cpu_devices", CORES)
    run(main)


if __name__ == "__main__":
    cli()
