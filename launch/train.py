"""Trains the stages of an experiment:     python -m launch.train --config=experiments/quickstart.py --workdir=runs/quickstart

Other flags: --stages=bridge,world   --noprogress   --config.KEY=VALUE (any key, as --config.stages.bridge.steps=10)
"""

from pathlib import Path

from absl import flags

from launch import config_flags
from launch.command import Usage, parse, run


def main(arguments: list[str]) -> None:
    """Trains, resuming what is there; nothing is written before the config, the mesh and the data are found sound."""
    rest, changes = config_flags.split(arguments)
    values = flags.FlagValues()
    flags.DEFINE_string("config", None, "experiment file", flag_values=values)
    flags.DEFINE_string("workdir", None, "folder of checkpoints, metrics and results", flag_values=values)
    flags.DEFINE_list("stages", None, "stages to train; without it all, in the order of their needs", flag_values=values)
    flags.DEFINE_multi_string("set", [], config_flags.HELP, flag_values=values)
    flags.DEFINE_bool("progress", True, "show progress bars", flag_values=values)
    parse("python -m launch.train", values, rest, required=("config", "workdir"))
    changes |= config_flags.parse(values.set)

    from launch.stages import train_stages
    from wsm_jax.config import load
    from wsm_jax.runtime.compiler import keep_compilations
    from wsm_jax.training.experiment import check, open_experiment

    config, workdir = load(values.config, changes), Path(values.workdir)
    experiment = open_experiment(config)
    unknown = [stage for stage in values.stages or () if stage not in experiment.stages]
    if unknown:
        raise Usage(f"--stages={','.join(values.stages)}: unknown {unknown}; the stages are {', '.join(experiment.order)}")
    stages = [name for name in experiment.order if name in (values.stages or experiment.order)]
    check(experiment, config, stages, workdir)
    keep_compilations(workdir)
    train_stages(experiment, config, stages, workdir, values.progress)


def cli() -> None:
    """Run the command line. Entry point of `wsm-train`."""
    run(main)


if __name__ == "__main__":
    cli()
