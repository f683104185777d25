"""Overrides of a config on the command line: --config.KEY=VALUE, or --set=KEY=VALUE."""

import ast
from collections.abc import Sequence

from launch.command import Usage

PREFIX = "--config."
HELP = "dotted key of the config and a value: --config.KEY=VALUE does the same (repeatable)"


def split(arguments: Sequence[str]) -> tuple[list[str], dict[str, object]]:
    """(other arguments, overrides): ["--config.a.b=1"] -> ([], {"a.b": 1}).

    Values are Python literals, or text. Raises Usage for an override without "=".
    """
    rest: list[str] = []
    pairs: list[str] = []
    words = iter(arguments)
    for word in words:
        if word.startswith(PREFIX):
            pairs.append(word.removeprefix(PREFIX) if "=" in word else f"{word.removeprefix(PREFIX)}={next(words, '')}")
        else:
            rest.append(word)
    return rest, parse(pairs)


def parse(pairs: Sequence[str]) -> dict[str, object]:
    """["a.b=1"] -> {"a.b": 1}. Raises Usage for a pair without "="."""
    out: dict[str, object] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key or not value:
            raise Usage(f"--set={pair}: needed KEY=VALUE, as --config.stages.bridge.steps=10")
        try:
            out[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            out[key] = value
    return out
