"""The whole chain on two cores: simulate, train, evaluate.     bash launch/quickstart.sh [--workdir=runs/quickstart]

Goes on where it was stopped. Other flags: --config (default experiments/quickstart.py)   --set=KEY=VALUE   --renderer
"""

import os
import time
from pathlib import Path

from absl import flags

from launch.command import parse, run
from wsm_jax.runtime.host_memory import PeakMemory

# One XLA device per core: the batch is split over them, which uses two cores better than splitting every operation.
CORES = max(1, min(2, os.cpu_count() or 1))


def main(arguments: list[str]) -> None:
    """Simulates the datasets of the config, trains its stages, evaluates them and says where the page is."""
    values = flags.FlagValues()
    flags.DEFINE_string(
        "config", str(Path(__file__).parents[1] / "experiments" / "quickstart.py"), "experiment file", flag_values=values
    )
    flags.DEFINE_string("workdir", "runs/quickstart", "folder of data, checkpoints and results", flag_values=values)
    flags.DEFINE_string("renderer", "wsm", "wsm (our ray caster) or mujoco", flag_values=values)
    flags.DEFINE_integer("workers", CORES, "processes that simulate", lower_bound=1, flag_values=values)
    flags.DEFINE_multi_string("set", [], "KEY=VALUE: overrides a key of the config", flag_values=values)
    parse("python -m launch.quickstart", values, arguments)
    begin, memory = time.time(), PeakMemory()

    from data_pipelines.simulation.simulate import simulate
    from launch.evaluate import evaluate
    from launch.train import overrides
    from launch.training import STAGES, check, keep_compilations, run_stage
    from wsm_jax import experiment

    workdir = Path(values.workdir)
    config = experiment.load(values.config, overrides(values.set))
    check(config, STAGES, workdir)
    keep_compilations(workdir)
    print(
        f"1/3 simulate: {', '.join(f'{part.scenes} scenes -> {workdir}/data/{name}' for name, part in config.simulate.items())}"
    )
    for name, part in config.simulate.items():
        simulate(workdir / "data" / name, renderer=values.renderer, workers=values.workers, **part)
    print(f"2/3 train: {', '.join(STAGES)}")
    for stage in STAGES:
        run_stage(config, stage, workdir)
    print("3/3 evaluate")
    evaluate(workdir, begin=begin, memory=memory)
    print(f"done in {(time.time() - begin) / 60:.1f} min: {workdir}/report.json, and open {workdir}/report.html")


if __name__ == "__main__":
    import jax

    from wsm_jax.runtime.host_memory import reuse_pages

    reuse_pages()
    jax.config.update("jax_num_cpu_devices", CORES)
    run(main)
