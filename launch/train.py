"""Trains the stages of an experiment:     python -m launch.train --config=experiments/quickstart.py --workdir=runs/quickstart

Other flags: --stages=bridge,world   --set=bridge.run.steps=10 (repeatable; any key of the config)   --noprogress
"""

import ast
from pathlib import Path

from absl import flags

from launch.command import Usage, parse, run
from launch.training import STAGES, check, keep_compilations, run_stage
from wsm_jax import experiment


def overrides(pairs: list[str]) -> dict[str, object]:
    """["a.b=1"] -> {"a.b": 1}; values are Python literals, or text. Raises Usage for what has no "="."""
    out: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise Usage(f"--set={pair}: needed KEY=VALUE, as --set=bridge.run.steps=10")
        try:
            out[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            out[key] = value
    return out


def main(arguments: list[str]) -> None:
    """Trains, resuming what is there; nothing is written before the config, the mesh and the data are found sound."""
    values = flags.FlagValues()
    flags.DEFINE_string("config", None, "experiment file", flag_values=values)
    flags.DEFINE_string("workdir", None, "folder of checkpoints, metrics and results", flag_values=values)
    flags.DEFINE_list("stages", list(STAGES), "stages to train, in order", flag_values=values)
    flags.DEFINE_multi_string("set", [], "KEY=VALUE: overrides a key of the config", flag_values=values)
    flags.DEFINE_bool("progress", True, "show progress bars", flag_values=values)
    parse("python -m launch.train", values, arguments, required=("config", "workdir"))
    unknown = [stage for stage in values.stages if stage not in STAGES]
    if unknown:
        raise Usage(f"--stages={','.join(values.stages)}: unknown {unknown}; the stages are {', '.join(STAGES)}")
    config = experiment.load(values.config, overrides(values.set))
    check(config, values.stages, Path(values.workdir))
    keep_compilations(Path(values.workdir))
    for stage in values.stages:
        run_stage(config, stage, Path(values.workdir), values.progress)


if __name__ == "__main__":
    run(main)
