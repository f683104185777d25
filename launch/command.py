"""What every command under launch/ shares: flags without globals, and how a command ends.

Exit codes: 0 done, 1 the command found problems (its own verdict), 2 the user can mend it (one message on stderr),
130 interrupted. A defect of the program keeps its traceback; WSM_TRACEBACK=1 shows one for code 2 as well.
"""

import errno
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence

from absl import flags

Main = Callable[[list[str]], int | None]
"""A command: arguments without the program's name -> exit code (None: 0)."""

_USER_OS_ERRORS = (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, IsADirectoryError)


class Usage(ValueError):
    """The command line cannot be understood; exit code 2."""


class Help(Exception):
    """Help was asked for; its text goes to stdout, exit code 0."""


def run(main: Main) -> None:
    """Runs a command with the arguments of this process, and exits."""
    sys.exit(status(main, sys.argv[1:]))


def status(main: Main, arguments: Sequence[str]) -> int:
    """Runs a command and returns its exit code; user errors become one message on stderr."""
    try:
        return main(list(arguments)) or 0
    except Help as text:
        print(text)
        return 0
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        if not _mendable(error):
            raise
        if os.environ.get("WSM_TRACEBACK") == "1":
            traceback.print_exc()
        # str of a KeyError is the repr of its message, and of an OSError starts with its number.
        message = error.args[0] if isinstance(error, KeyError) and error.args else error
        if isinstance(error, OSError) and error.errno is not None:
            message = f"{error.filename}: {error.strerror}" if error.filename is not None else error.strerror
        print(f"error: {message}", file=sys.stderr)
        return 2


def _mendable(error: Exception) -> bool:
    if isinstance(error, OSError):  # one without a number is a message of ours
        return isinstance(error, _USER_OS_ERRORS) or error.errno in (None, errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, ValueError | KeyError | FloatingPointError | flags.Error)


def choose(command: str, verbs: Mapping[str, Main], arguments: Sequence[str]) -> tuple[Main, list[str]]:
    """The verb that the arguments start with, and the arguments after it. Raises Usage (no or unknown verb) or Help."""
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
    others: bool = False,
) -> list[str]:
    """Parses flags (--clip-seconds and --clip_seconds are one) into `values`; returns the arguments that are no flags.

    Raises Usage for an unknown flag, a value of the wrong type, a required flag that is missing, and, unless the command
    takes `others`, for arguments that are no flags; and Help.
    """
    if any(argument in ("--help", "-h") for argument in arguments):
        raise Help(f"{command}\n" + "\n".join(_describe(values[name], name in required) for name in _own(values)))
    try:
        rest = values([command, *map(_underscored, arguments)])[1:]
    except flags.Error as error:
        raise Usage(f"{command}: {error}; its flags are {', '.join('--' + name for name in _own(values))}") from error
    missing = [name for name in required if values[name].value in (None, "", [])]
    if missing:
        raise Usage(f"{command}: needed " + " and ".join(f"--{name} ({values[name].help})" for name in missing))
    if rest and not others:
        raise Usage(f"{command}: got {rest}; needed flags alone, as --{_own(values)[0]}=...")
    return rest


def _underscored(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


def _own(values: flags.FlagValues) -> list[str]:
    return [name for name in values if name not in ("flagfile", "undefok")]


def _describe(flag: flags.Flag, required: bool) -> str:
    default = "needed" if required else f"default: {flag.default}"
    return f"  --{flag.name}: {flag.help} ({default})"


def size(text: str, flag: str = "--size") -> tuple[int, int]:
    """HEIGHTxWIDTH -> (height, width) in pixels. Raises Usage."""
    parts = text.lower().split("x")
    if len(parts) != 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise Usage(f"{flag}={text}; needed HEIGHTxWIDTH in pixels, as 64x96")
    return int(parts[0]), int(parts[1])
