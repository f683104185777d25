"""Generator of shell completion scripts for the wsm-* commands, from their real verbs and flags.

wsm-complete bash >~/.wsm.bash      and in ~/.bashrc:   source ~/.wsm.bash
wsm-complete zsh >_wsm              in a folder of $fpath
wsm-complete fish >~/.config/fish/conf.d/wsm.fish
"""

import contextlib
import importlib
import io
import re
import shlex
from collections.abc import Mapping
from typing import NamedTuple

from absl import flags

from launch.command import Main, Usage, parse, run, status

COMMAND = "python -m launch.complete bash|zsh|fish"

COMMANDS = {
    "wsm-bench": "launch.bench.__main__",
    "wsm-complete": "launch.complete",
    "wsm-convert": "launch.convert",
    "wsm-data": "launch.data.__main__",
    "wsm-evaluate": "launch.evaluate",
    "wsm-fit": "launch.fit",
    "wsm-quickstart": "launch.quickstart",
    "wsm-sample": "launch.sample",
    "wsm-train": "launch.train",
    "wsm-view": "launch.view.__main__",
}
"""Script -> module whose `main` it runs."""

_VERB = re.compile(r"^  (\w[\w-]*) +(.*)$", re.MULTILINE)
_FLAG = re.compile(r"^  (--[^:]+): (?:<([^>]*)>: )?(.*?)(?: \((?:needed|default: .*)\))?$", re.MULTILINE)


class FlagHelp(NamedTuple):
    """A flag as its help line describes it."""

    name: str
    """With its dashes."""
    text: str
    choices: tuple[str, ...]
    """Allowed values; () where any value is."""
    boolean: bool


class CommandHelp(NamedTuple):
    """Verbs and flags of a command; the choices of its first argument count as verbs."""

    verbs: dict[str, str]
    """Verb -> description."""
    flags: dict[str, list[FlagHelp]]
    """Verb -> its flags; "" -> the flags of a command without verbs."""


def read_help(main: Main) -> CommandHelp:
    """The verbs and flags that the help texts of a command list. Raises RuntimeError where --help fails."""
    text = _help_text(main, [])
    verbs = dict(_VERB.findall(text)) or dict.fromkeys(_first_argument(text), "")
    return CommandHelp(verbs, {verb: _flags(_help_text(main, [verb])) for verb in verbs} or {"": _flags(text)})


def _first_argument(text: str) -> list[str]:
    """Choices of the first argument, where the usage line lists them: python -m launch.complete bash|zsh|fish."""
    words = text.partition("\n")[0].split()[3:4]
    return words[0].split("|") if words and "|" in words[0] else []


def _help_text(main: Main, arguments: list[str]) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = status(main, [*arguments, "--help"])
    if code:
        raise RuntimeError(f"{main.__module__} {' '.join(arguments)} --help: exit code {code}")
    return out.getvalue()


def _flags(text: str) -> list[FlagHelp]:
    listed = []
    for names, choices, description in _FLAG.findall(text):
        for name in names.split(", "):
            plain = name.replace("[no]", "")
            listed.append(FlagHelp(plain, description, tuple(choices.split("|")) if choices else (), plain != name))
            if plain != name:
                listed.append(FlagHelp(name.replace("[no]", "no"), description, (), True))
    return listed


def bash(commands: Mapping[str, CommandHelp]) -> str:
    """Script for bash 4 or newer."""
    rows = []
    for script, one in commands.items():
        if one.verbs:
            rows.append((script, one.verbs))
        for verb, known in one.flags.items():
            key = f"{script} {verb}".strip()
            rows.append((key, [flag.name if flag.boolean else f"{flag.name}=" for flag in known]))
            rows += [(f"{key} {flag.name}", flag.choices) for flag in known if flag.choices]
    cases = "\n".join(f"    {shlex.quote(key)}) echo {shlex.quote(' '.join(words))} ;;" for key, words in rows)
    return f"""\
_wsm_words() {{ # _wsm_words "COMMAND [VERB] [FLAG]": the words that may follow
  case "$1" in
{cases}
  esac
}}

_wsm() {{
  local key="${{1##*/}}" word="$2" flag="" words
  if [ "$3" = "=" ]; then
    flag="${{COMP_WORDS[COMP_CWORD-2]}}"
  elif [ "$word" = "=" ]; then
    flag="$3" word=""
  fi
  if [ "$COMP_CWORD" -gt 1 ] && [ -n "$(_wsm_words "$key ${{COMP_WORDS[1]}}")" ]; then
    key="$key ${{COMP_WORDS[1]}}"
  fi
  words="$(_wsm_words "$key${{flag:+ $flag}}")"
  COMPREPLY=($(compgen -W "$words" -- "$word"))
  [[ "${{COMPREPLY[0]-}}" != *= ]] || compopt -o nospace 2>/dev/null
}}

complete -o default -F _wsm {" ".join(commands)}
"""


def zsh(commands: Mapping[str, CommandHelp]) -> str:
    """Script for zsh, a file _wsm on its $fpath."""
    cases = []
    for script, one in commands.items():
        if one.verbs:
            verbs = " ".join(_single_quoted(f"{verb}:{text}") for verb, text in one.verbs.items())
            cases.append(f"    {shlex.quote(script)}) verbs=({verbs}); _describe verb verbs ;;")
        for verb, known in one.flags.items():
            specs = " ".join(_single_quoted(_zsh_flag(flag)) for flag in known)
            pattern = f"{script} {verb}" if verb else script
            cases.append(f"    {shlex.quote(pattern)}) _arguments -S {specs} '*:file:_files' ;;")
    with_verbs = "|".join(script for script, one in commands.items() if one.verbs)
    body = "\n".join(cases)
    return f"""\
#compdef {" ".join(commands)}
_wsm() {{
  local -a verbs
  local key="${{words[1]:t}}"
  if [[ "$key" == ({with_verbs}) && $CURRENT -gt 2 ]]; then
    key="$key $words[2]"
    shift words
    (( CURRENT-- ))
  fi
  case "$key" in
{body}
  esac
}}
_wsm "$@"
"""


def _zsh_flag(flag: FlagHelp) -> str:
    text = re.sub(r"([\[\]:\\])", r"\\\1", flag.text)
    values = f"({' '.join(flag.choices)})" if flag.choices else "_files"
    return f"{flag.name}[{text}]" if flag.boolean else f"{flag.name}=[{text}]:value:{values}"


def _single_quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def fish(commands: Mapping[str, CommandHelp]) -> str:
    """Script for fish."""
    lines = []
    for script, one in commands.items():
        start = f"complete -c {script}"
        for verb, text in one.verbs.items():
            lines.append(f"{start} -n __fish_use_subcommand -f -a {verb} -d {_fish_quoted(text)}")
        for verb, known in one.flags.items():
            scope = f"{start} -n '__fish_seen_subcommand_from {verb}'" if verb else start
            for flag in known:
                values = f" -x -a '{' '.join(flag.choices)}'" if flag.choices else "" if flag.boolean else " -r -F"
                lines.append(f"{scope} -l {flag.name[2:]}{values} -d {_fish_quoted(flag.text)}")
    return "\n".join([*lines, ""])


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}


def main(arguments: list[str]) -> None:
    """Print the completion script of a shell. Raises Usage."""
    rest = parse(COMMAND, flags.FlagValues(), arguments, positional=True)
    if len(rest) != 1 or rest[0] not in SHELLS:
        raise Usage(f"{COMMAND}: got {rest}; needed one of {', '.join(SHELLS)}")
    print(SHELLS[rest[0]]({name: read_help(importlib.import_module(module).main) for name, module in COMMANDS.items()}), end="")


def cli() -> None:
    """Run the command line. Entry point of `wsm-complete`."""
    run(main)


if __name__ == "__main__":
    cli()
