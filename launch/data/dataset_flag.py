"""The argument that `inspect`, `verify` and `repair` share: which dataset."""

from collections.abc import Sequence

from absl import flags

from launch import command
from launch.command import Usage


def parse_dataset(name: str, values: flags.FlagValues, arguments: Sequence[str], others: bool = False) -> tuple[str, list[str]]:
    """Parses the flags of a command; returns its dataset (`--data=PATH`, or the first plain argument) and what follows it.

    Raises Usage when no dataset is named, and for more than one unless the command takes `others`.
    """
    flags.DEFINE_string("data", None, "dataset or collection; also as the first plain argument", flag_values=values)
    rest = command.parse(name, values, arguments, others=True)
    paths = [*([values.data] if values.data else []), *rest]
    if not paths or (len(paths) > 1 and not others):
        raise Usage(f"{name}: got {len(paths)} datasets {paths}; needed one, as {name} PATH or --data=PATH")
    return paths[0], paths[1:]
