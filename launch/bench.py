"""Measures parts of wsm_jax on this machine: python -m launch.bench render  (VERB --help: its flags)."""

from launch import command

COMMAND = "python -m launch.bench"


def render(arguments: list[str]) -> int:
    """The ray caster: ray-wave tests and frames a second, beside MuJoCo's renderer and the arithmetic bound."""
    from launch.bench_render import main as measure

    return measure(arguments)


VERBS: dict[str, command.Main] = {"render": render}


def main(arguments: list[str]) -> int | None:
    """Runs the verb that the arguments start with."""
    verb, rest = command.choose(COMMAND, VERBS, arguments)
    return verb(rest)


if __name__ == "__main__":
    command.run(main)
