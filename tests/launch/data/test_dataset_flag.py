"""One dataset, as the first plain argument or as --data=PATH."""

import pytest
from absl import flags

from launch.command import Help, Usage
from launch.data.dataset_flag import parse_dataset


def parsed(*arguments: str, others: str | None = None) -> tuple[str, list[str]]:
    values = flags.FlagValues()
    flags.DEFINE_integer("workers", 2, "processes", flag_values=values)
    return parse_dataset("do", values, arguments, others)


@pytest.mark.parametrize("arguments", [("a",), ("--data=a",), ("--data", "a"), ("--workers=3", "a"), ("a", "--workers=3")])
def test_both_ways_name_the_dataset(arguments):
    assert parsed(*arguments) == parsed(*arguments, others="RECORDING") == ("a", [])


@pytest.mark.parametrize("arguments", [("a", "b", "c"), ("--data=a", "b", "c"), ("b", "--data=a", "c")])
def test_what_follows_the_dataset_is_left_to_the_command(arguments):
    assert parsed(*arguments, others="RECORDING") == ("a", ["b", "c"])
    with pytest.raises(Usage, match=r"do PATH: got 3 datasets \['a', 'b', 'c'\]; needed one, as do PATH or do --data=PATH"):
        parsed(*arguments)


def test_a_dataset_is_needed_and_the_help_says_how_to_name_it():
    with pytest.raises(Usage, match="got 0 datasets"):
        parsed(others="RECORDING")
    with pytest.raises(Help, match=r"(?s)do PATH \[RECORDING \.\.\.\]\n.*--data: dataset or collection; or the first plain"):
        parsed("--help", others="RECORDING")
