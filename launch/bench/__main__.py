"""Benchmarks of wsm_jax on this machine: python -m launch.bench render|physics|fit|loader [flags]."""

from launch import command

COMMAND = "python -m launch.bench"


def render(arguments: list[str]) -> int:
    """Benchmark the ray caster: ray-wave tests and frames per second, against MuJoCo's renderer and the arithmetic bound."""
    from launch.bench.render import main as measure

    return measure(arguments)


def physics(arguments: list[str]) -> int:
    """Benchmark the rigid dynamics: errors against closed forms and MuJoCo, drifts, and a soak test of random scenes."""
    from launch.bench.physics import main as measure

    return measure(arguments)


def fit(arguments: list[str]) -> int | None:
    """Benchmark the fitter: seconds, Chamfer distance and IoU of single and composite shapes, with published figures."""
    from launch.bench.fit import main as measure

    return measure(arguments)


def loader(arguments: list[str]) -> int:
    """Benchmark the loader: clips per second, CPU time, bytes and memory, against ArrayRecord, tar of mp4, npy and memmap."""
    from launch.bench.loader import main as measure

    return measure(arguments)


VERBS: dict[str, command.Main] = {"render": render, "physics": physics, "fit": fit, "loader": loader}


def main(arguments: list[str]) -> int | None:
    """Run the verb named by the first argument. Raises Usage or Help, and what the verb raises."""
    verb, rest = command.choose(COMMAND, VERBS, arguments)
    return verb(rest)


def cli() -> None:
    """Run the command line. Entry point of `wsm-bench`."""
    command.run(main)


if __name__ == "__main__":
    cli()
