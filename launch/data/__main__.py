"""Build, inspect and repair WSV datasets: python -m launch.data VERB [flags].

--help lists the verbs, VERB --help the flags of a verb.
"""

from launch import command
from launch.data.advise import advise
from launch.data.encode import encode
from launch.data.ingest import ingest
from launch.data.inspect import inspect
from launch.data.repair import repair
from launch.data.simulate import simulate
from launch.data.verify import verify

COMMAND = "python -m launch.data"

VERBS: dict[str, command.Main] = {
    "simulate": simulate,
    "ingest": ingest,
    "inspect": inspect,
    "verify": verify,
    "advise": advise,
    "repair": repair,
    "encode": encode,
}


def main(arguments: list[str]) -> int | None:
    """Run the verb named by the first argument. Raises Usage or Help, and what the verb raises."""
    verb, rest = command.choose(COMMAND, VERBS, arguments)
    return verb(rest)


def cli() -> None:
    """Run the command line. Entry point of `wsm-data`."""
    command.run(main)


if __name__ == "__main__":
    cli()
