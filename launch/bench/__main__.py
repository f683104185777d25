"""Measures parts of wsm_jax on this machine: python -m launch.bench render|physics|fit|loader  (VERB --help: its flags)."""

from launch import command

COMMAND = "python -m launch.bench"


def render(arguments: list[str]) -> int:
    """The ray caster: ray-wave tests and frames a second, beside MuJoCo's renderer and the arithmetic bound."""
    from launch.bench.render import main as measure

    return measure(arguments)


def physics(arguments: list[str]) -> int:
    """The rigid dynamics: errors beside closed forms and MuJoCo, drifts, and a soak of random scenes."""
    from launch.bench.physics import main as measure

    return measure(arguments)


def fit(arguments: list[str]) -> int | None:
    """The fitter: seconds, Chamfer and IoU on single and composite shapes, beside published figures."""
    from launch.bench.fit import main as measure

    return measure(arguments)


def loader(arguments: list[str]) -> int:
    """The loader: clips a second, CPU time, bytes and memory, beside ArrayRecord, tar of mp4, npy and memmap."""
    from launch.bench.loader import main as measure

    return measure(arguments)


VERBS: dict[str, command.Main] = {"render": render, "physics": physics, "fit": fit, "loader": loader}


def main(arguments: list[str]) -> int | None:
    """Runs the verb that the arguments start with."""
    verb, rest = command.choose(COMMAND, VERBS, arguments)
    return verb(rest)


def cli() -> None:
    """Run the command line. Entry point of `wsm-bench`."""
    command.run(main)


if __name__ == "__main__":
    cli()
