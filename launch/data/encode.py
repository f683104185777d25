"""`launch.data encode`: write the latents of a trained stage into datasets."""

from pathlib import Path

from absl import flags

from launch import command
from launch.command import Usage

COMMAND = "python -m launch.data encode"


def encode(arguments: list[str]) -> int:
    """Write the latents of a trained stage into datasets."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "folder with the trained stages", flag_values=values)
    flags.DEFINE_string("stage", None, "stage whose encoder makes the latents", flag_values=values)
    flags.DEFINE_list("data", [], "datasets, also as plain arguments; without any those of the stage", flag_values=values)
    flags.DEFINE_list("trust", [], "packages besides our own whose classes the config may name", flag_values=values)
    flags.DEFINE_bool("progress", True, "progress bar", flag_values=values)
    rest = command.parse(COMMAND, values, arguments, ["workdir", "stage"], positional=True)

    from launch.stages import encode_stage
    from wsm_jax.config import build, from_json
    from wsm_jax.runtime.checkpoint import restore_params
    from wsm_jax.runtime.compiler import keep_compilations
    from wsm_jax.training.experiment import Experiment

    workdir = Path(values.workdir)
    stored = restore_params(workdir / values.stage)[1]
    config = {key: value for key, value in stored.items() if key != "stage"}
    experiment: Experiment = build(from_json(config, values.trust), values.trust)
    paths = [str(path) if "://" in path else str(Path(path).resolve()) for path in (*values.data, *rest)]
    if not paths and not experiment.stages[values.stage].encode:
        raise Usage(f"{COMMAND}: the stage {values.stage!r} names no datasets; needed some, as --data=PATH")
    keep_compilations(workdir)
    outcome = encode_stage(experiment, values.stage, workdir, paths, values.progress)
    for path, what in outcome.items():
        print(f"{path}: {what}")
    return 0
