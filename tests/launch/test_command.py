"""Flags and exit codes: a user's error is one message and code 2, an internal error keeps its traceback."""

import errno

import pytest
from absl import flags

from launch.command import SPELLINGS, Help, Usage, choose, parse, run, size, status


def raising(error: BaseException):
    def main(_arguments):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("a.mp4: is no video"), "a.mp4: is no video"),
        (FloatingPointError("step 6: loss nan"), "step 6: loss nan"),
        (OSError("x: the disk has 1 MiB left"), "x: the disk has 1 MiB left"),
        (KeyError("unknown channel 'rgba'"), "unknown channel 'rgba'"),
        (FileNotFoundError("x: no such file"), "x: no such file"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.json"), "x.json: No such file or directory"),
        (FileExistsError("runs/a: another experiment"), "runs/a: another experiment"),
        (OSError(errno.ENOSPC, "disk full: needs 3 MiB", "data/x"), "data/x: disk full: needs 3 MiB"),
        (Usage("got 'x'"), "got 'x'"),
    ],
)
def test_a_user_error_is_one_message_and_code_2(capsys, error, message):
    assert status(raising(error), []) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"error: {message}\n")


@pytest.mark.parametrize("error", [TypeError("x"), AttributeError("x"), OSError(errno.EIO, "broken disk"), RuntimeError("x")])
def test_an_internal_error_keeps_its_traceback(error):
    with pytest.raises(type(error)):
        status(raising(error), [])


def test_codes_of_commands_that_end_well(capsys, monkeypatch):
    assert status(lambda _: None, []) == 0
    assert status(lambda _: 1, []) == 1
    assert status(raising(Help("the flags")), []) == 0
    assert capsys.readouterr().out == "the flags\n"
    assert status(raising(KeyboardInterrupt()), []) == 130
    monkeypatch.setattr("sys.argv", ["program", "a", "b"])
    with pytest.raises(SystemExit) as end:
        run(len)
    assert end.value.code == 2


def test_traceback_on_demand(capsys, monkeypatch):
    monkeypatch.setenv("WSM_TRACEBACK", "1")
    assert status(raising(ValueError("x")), []) == 2
    assert "Traceback" in capsys.readouterr().err


def values() -> flags.FlagValues:
    result = flags.FlagValues()
    flags.DEFINE_string("out", None, "where to", flag_values=result)
    flags.DEFINE_integer("clip_count", 3, "how many", flag_values=result)
    return result


def test_flags_parse_with_dashes_or_underscores():
    for spelling in ("--clip_count=5", "--clip-count=5"):
        given = values()
        assert parse("do", given, ["--out=a-b.png", spelling, "rest"], ["out"], positional=True) == ["rest"]
        assert (given.out, given.clip_count) == ("a-b.png", 5)


@pytest.mark.parametrize("defined", ["licence", "license", "light_colour", "light-color", "centre", "no_grey"])
@pytest.mark.parametrize("american", [False, True])
def test_flags_parse_in_both_spellings(defined, american):
    given = flags.FlagValues()
    name = defined.replace("-", "_")
    flags.DEFINE_string(name, None, "text", flag_values=given)
    written = defined
    for us, british in SPELLINGS.items():
        written = written.replace(british, us) if american else written.replace(us, british)
    assert parse("do", given, [f"--{written}=color"]) == []
    assert given[name].value == "color"


def test_a_negated_flag_parses_in_both_spellings():
    for spelling in ("--nocolor", "--nocolour"):
        given = flags.FlagValues()
        flags.DEFINE_bool("colour", True, "text", flag_values=given)
        parse("do", given, [spelling])
        assert given.colour is False
        with pytest.raises(Help, match=r"--\[no\]colour: text \(default: True\)"):
            parse("do", given, ["--help"])


def test_an_alias_sets_its_flag_and_stands_in_the_help():
    for spelling in ("--clip_count=5", "--num-clips=5", "--num_clips=5"):
        given = values()
        parse("do", given, [spelling], aliases={"num_clips": "clip_count"})
        assert given.clip_count == 5
    with pytest.raises(Help, match="--clip_count, --num_clips: how many"):
        parse("do", values(), ["--help"], aliases={"num_clips": "clip_count"})


def test_bad_flags_are_usage_errors():
    for arguments, message in (
        (["--outt=a"], "Unknown command line flag 'outt'"),
        (["--out=a", "--clip_count=many"], "clip_count=many"),
        ([], r"needed --out \(where to\)"),
        (["--out="], "needed --out"),
        (["--out=a", "rest"], r"got \['rest'\]; needed only flags"),
    ):
        with pytest.raises(Usage, match=message):
            parse("do", values(), arguments, ["out"])
    with pytest.raises(Help, match=r"(?s)--out: where to \(needed\).*--clip_count: how many \(default: 3\)"):
        parse("do", values(), ["--help"], ["out"])


def test_verbs():
    def paint(_arguments):
        """Paint it."""

    assert choose("do", {"paint": paint}, ["paint", "--a=1"]) == (paint, ["--a=1"])
    for arguments in ([], ["burn"], ["--a=1"]):
        with pytest.raises(Usage, match="needed one of the verbs paint"):
            choose("do", {"paint": paint}, arguments)
    with pytest.raises(Help, match="Paint it"):
        choose("do", {"paint": paint}, ["--help"])


def test_size():
    assert size("48x64") == (48, 64)
    for text in ("48", "0x4", "ax4", "4x4x4", "-1x4"):
        with pytest.raises(Usage, match="HEIGHTxWIDTH"):
            size(text)
