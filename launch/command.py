"""Command-line framework of launch/: flags without global state, error messages and exit codes.

Exit codes: 0 success, 1 the command found problems in its input, 2 the user can fix the error (one message on stderr),
130 interrupted. An internal error keeps its traceback; WSM_TRACEBACK=1 also shows one for code 2.
"""

import errno
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from absl import flags

Main = Callable[[list[str]], int | None]
"""A command: arguments without the program's name -> exit code (None: 0)."""

SPELLINGS = {"color": "colour", "center": "centre", "gray": "grey", "license": "licence"}
"""American -> British spelling inside a flag name; a flag defined in one accepts the other."""

_USER_OS_ERRORS = (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, IsADirectoryError)


class Usage(ValueError):
    """Invalid command line; exit code 2."""


class Help(Exception):
    """Help request; its text goes to stdout, exit code 0."""


def run(main: Main) -> None:
    """Run a command with the arguments of this process, and exit. Raises SystemExit."""
    sys.exit(status(main, sys.argv[1:]))


def status(main: Main, arguments: Sequence[str]) -> int:
    """Run a command and return its exit code; a user error becomes one message on stderr. Raises every other error."""
    try:
        return main(list(arguments)) or 0
    except Help as text:
        print(text)
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if not _is_user_error(error):
            raise
        if os.environ.get("WSM_TRACEBACK") == "1":
            traceback.print_exc()
        # str of a KeyError is the repr of its message, and of an OSError starts with its number.
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        if isinstance(error, OSError) and error.errno is not None:
            message = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
        print(f"error: {message}", file=sys.stderr)
        return 2


def _is_user_error(error: Exception) -> bool:
    if isinstance(error, OSError):  # one without a number was raised by this project, with a message
        return isinstance(error, _USER_OS_ERRORS) or error.errno in (None, errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, ValueError | KeyError | FloatingPointError | flags.Error)


def choose(command: str, verbs: Mapping[str, Main], arguments: Sequence[str]) -> tuple[Main, list[str]]:
    """The verb named by the first argument, and the arguments after it. Raises Usage (no verb, or an unknown one) or Help."""
    listing = f"{command} VERB [flags]\n" + "".join(f"  {name:10} {_first_line(verb)}\n" for name, verb in verbs.items())
    if arguments and arguments[0] in ("--help", "-h", "help"):
        raise Help(f"{listing}{command} VERB --help lists the flags of a verb")
    if not arguments or arguments[0] not in verbs:
        got = repr(arguments[0]) if arguments else "nothing"
        raise Usage(f"{command}: got {got}; needed one of the verbs {', '.join(verbs)}")
    return verbs[arguments[0]], list(arguments[1:])


def _first_line(verb: Main) -> str:
    return (verb.__doc__ or "").strip().splitlines()[0] if verb.__doc__ else ""


def parse(
    command: str,
    values: flags.FlagValues,
    arguments: Sequence[str],
    required: Sequence[str] = (),
    positional: bool = False,
    aliases: Mapping[str, str] = MappingProxyType({}),
) -> list[str]:
    """Parse flags into `values` and return the positional arguments.

    A flag may be written with dashes or underscores (--clip-seconds, --clip_seconds), in British or American spelling, or
    by its alias (alias -> flag). Raises Usage for an unknown flag, a value of the wrong type, a missing required flag, and for
    positional arguments unless the command takes them; Help for --help.
    """
    if any(argument in ("--help", "-h") for argument in arguments):
        raise Help(f"{command}\n" + "\n".join(_describe(values[name], name in required, aliases) for name in _names(values)))
    known = _spellings(values, aliases)
    try:
        rest = values([command, *(_with_defined_name(argument, known) for argument in arguments)])[1:]
    except flags.Error as error:
        raise Usage(f"{command}: {error}; its flags are {', '.join('--' + name for name in _names(values))}") from error
    missing = [name for name in required if values[name].value in (None, "", [])]
    if missing:
        raise Usage(f"{command}: needed " + " and ".join(f"--{name} ({values[name].help})" for name in missing))
    if rest and not positional:
        raise Usage(f"{command}: got {rest}; needed only flags, such as --{_names(values)[0]}=...")
    return rest


def _british(name: str) -> str:
    for american, british in SPELLINGS.items():
        name = name.replace(american, british)
    return name


def _spellings(values: flags.FlagValues, aliases: Mapping[str, str]) -> dict[str, str]:
    """British spelling of every flag, negated flag and alias -> its name as defined."""
    known = {_british(name): name for name in values}
    known |= {_british(f"no{name}"): f"no{name}" for name in values if values[name].boolean}
    return known | {_british(alias): name for alias, name in aliases.items()}


def _with_defined_name(argument: str, known: Mapping[str, str]) -> str:
    """The argument with its flag spelled as it was defined."""
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument[2:].partition("=")
    name = name.replace("-", "_")
    return f"--{known.get(_british(name), name)}{equals}{value}"


def _names(values: flags.FlagValues) -> list[str]:
    return [name for name in values if name not in ("flagfile", "undefok")]


def _describe(flag: flags.Flag, required: bool, aliases: Mapping[str, str]) -> str:
    names = [f"--[no]{flag.name}" if flag.boolean else f"--{flag.name}"]
    names += [f"--{alias}" for alias, name in aliases.items() if name == flag.name]
    default = "needed" if required else f"default: {flag.default}"
    return f"  {', '.join(names)}: {flag.help} ({default})"


def size(text: str, flag: str = "--size") -> tuple[int, int]:
    """HEIGHTxWIDTH -> (height, width) in pixels. Raises Usage."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise Usage(f"{flag}={text}; needed HEIGHTxWIDTH in pixels, as 64x96")
    return int(parts[0]), int(parts[1])
