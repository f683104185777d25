"""Dataset argument of `inspect`, `verify` and `repair`."""

from collections.abc import Sequence

from absl import flags

from launch import command
from launch.command import Usage


def parse_dataset(
    name: str, values: flags.FlagValues, arguments: Sequence[str], others: str | None = None
) -> tuple[str, list[str]]:
    """Parse the flags of a command that takes one dataset, as its first plain argument or as --data=PATH.

    Returns the dataset and the remaining plain arguments, which only a command with `others` (what they are, for its help)
    accepts. Raises Usage without a dataset, and for arguments that are too many.
    """
    flags.DEFINE_string("data", None, "dataset or collection; or the first plain argument", flag_values=values)
    usage = f"{name} PATH" + (f" [{others} ...]" if others else "")
    rest = command.parse(usage, values, arguments, positional=True)
    paths = [*([values.data] if values.data else []), *rest]
    if not paths or (len(paths) > 1 and not others):
        raise Usage(f"{usage}: got {len(paths)} datasets {paths}; needed one, as {name} PATH or {name} --data=PATH")
    return paths[0], paths[1:]
