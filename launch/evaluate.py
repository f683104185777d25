"""Evaluates a trained model on held-out data:     python -m launch.evaluate --workdir=runs/quickstart

Runs the evaluators of the experiment, and writes report.json (every measure beside its baseline) and report.html (pictures and
videos) to the workdir. Other flags: --data=DATASET   --config.evaluators.world.clips=8   --trust=PACKAGE   --noprogress
"""

import time
from pathlib import Path

from absl import flags

from launch import config_flags
from launch.command import parse, run


def main(arguments: list[str]) -> None:
    """Measures a trained model and writes report.json and report.html."""
    rest, changes = config_flags.split(arguments)
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "folder with the trained stages", flag_values=values)
    flags.DEFINE_string("data", None, "held-out dataset; without it that of the experiment", flag_values=values)
    flags.DEFINE_multi_string("set", [], config_flags.HELP, flag_values=values)
    flags.DEFINE_list("trust", [], "packages besides our own whose classes the config may name", flag_values=values)
    flags.DEFINE_bool("progress", True, "show a progress bar", flag_values=values)
    parse("python -m launch.evaluate", values, rest, required=("workdir",))
    workdir = Path(values.workdir)
    if not workdir.is_dir():
        raise FileNotFoundError(f"{workdir}: no such workdir; train one with python -m launch.train")
    begin = time.time()

    from wsm_jax.evaluation.evaluate import evaluate_workdir
    from wsm_jax.runtime.compiler import keep_compilations

    keep_compilations(workdir)
    metrics, targets = evaluate_workdir(
        workdir, values.data, changes | config_flags.parse(values.set), values.trust, begin, None, values.progress
    )
    for name, (comparison, value, what) in targets.items():
        got, base = metrics[name], metrics[f"{name}_baseline"]
        print(f"{name:32} {got:8.3f}   (baseline {base:.3f}, to reach {comparison} {value})   {what}")
    print(f"wrote {workdir}/report.json and {workdir}/report.html")


def cli() -> None:
    """Run the command line. Entry point of `wsm-evaluate`."""
    run(main)


if __name__ == "__main__":
    cli()
