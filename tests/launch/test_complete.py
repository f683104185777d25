"""Completion scripts offer every verb and flag, and the console scripts are the commands that they complete."""

import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from absl import flags

from launch import command, complete
from launch.complete import COMMANDS, SHELLS, CommandHelp, FlagHelp, read_help
from launch.data import __main__ as data

ROOT = Path(__file__).parents[2]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


@pytest.fixture(scope="module")
def known() -> CommandHelp:
    return read_help(data.main)


def test_every_console_script_is_completed():
    assert {name: f"{module}:cli" for name, module in COMMANDS.items()} == SCRIPTS


def entry_point(name: str) -> str:
    """The module of a console script."""
    module = SCRIPTS[name].partition(":")[0]
    if not hasattr(importlib.import_module(module), "cli"):
        pytest.skip(f"{module} has no cli() yet")
    return module


@pytest.mark.parametrize("name", sorted(SCRIPTS.keys() - {"wsm-quickstart"}))
def test_console_script_runs_its_command(name, monkeypatch, capsys):
    module = entry_point(name)
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as end:
        importlib.import_module(module).cli()
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith("python -m launch.")


def test_quickstart_sets_up_jax_before_it_runs():
    """In a process of its own: devices cannot be set after JAX started."""
    code = f"import sys; sys.argv = ['wsm', '--help']; from {entry_point('wsm-quickstart')} import cli; cli()"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.startswith("python -m launch.quickstart")


def test_help_lists_every_verb_and_flag_of_the_data_command(known, monkeypatch):
    """What `parse` is called with by every verb is what its help lists."""
    defined: list[flags.FlagValues] = []

    def record(_command, values, *_arguments, **_options):
        defined.append(values)
        raise command.Help("")

    assert list(known.verbs) == list(data.VERBS)
    monkeypatch.setattr(command, "parse", record)
    for verb, listed in known.flags.items():
        command.status(data.main, [verb])
        wanted = {f"--{name}" for name in defined[-1] if name not in ("flagfile", "undefok")}
        wanted |= {f"--no{name}" for name in defined[-1] if defined[-1][name].boolean}
        assert {flag.name for flag in listed} - {"--num_processes", "--process_id"} == wanted
        assert all(flag.text for flag in listed)
    (codec,) = [flag for flag in known.flags["ingest"] if flag.name == "--codec"]
    assert codec.choices == ("jpeg", "h264", "array") and not codec.boolean and codec.text.startswith("codec of rgb;")


def candidates(script: Path, *words: str) -> list[str]:
    """What bash offers for the last word."""
    shell = f"""
        source {script}
        COMP_WORDS=({" ".join(f"'{word}'" for word in words)})
        COMP_CWORD={len(words) - 1}
        _wsm "${{COMP_WORDS[0]}}" "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    return subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True, timeout=60).stdout.split()


def test_bash_offers_every_verb_flag_and_choice(tmp_path, known):
    script = tmp_path / "wsm.bash"
    other = CommandHelp({}, {"": [FlagHelp("--out", "it's [a] file: $HOME", (), False)]})
    script.write_text(complete.bash({"wsm-data": known, "wsm-convert": other}))
    assert candidates(script, "wsm-data", "") == list(data.VERBS)
    assert candidates(script, "/bin/wsm-data", "in") == ["ingest", "inspect"]
    for verb, listed in known.flags.items():
        offered = candidates(script, "wsm-data", verb, "--")
        assert offered == [flag.name if flag.boolean else f"{flag.name}=" for flag in listed]
    assert candidates(script, "wsm-data", "ingest", "--nopro") == ["--noprogress"]
    assert candidates(script, "wsm-data", "ingest", "--codec", "=") == ["jpeg", "h264", "array"]
    assert candidates(script, "wsm-data", "ingest", "--codec", "=", "h") == ["h264"]
    assert candidates(script, "wsm-convert", "--o") == candidates(script, "wsm-convert", "a.ply", "--o") == ["--out="]


def test_the_choices_of_a_first_argument_are_offered():
    assert list(read_help(complete.main).verbs) == list(SHELLS)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_name_every_verb_and_flag(known, shell):
    text = SHELLS[shell]({"wsm-data": known})
    for verb, listed in known.flags.items():
        (lines,) = [
            [line for line in text.split("\n") if f"wsm-data {verb}" in line or f"seen_subcommand_from {verb}'" in line]
        ]
        for flag in listed:
            assert any(flag.name in line or f"-l {flag.name[2:]} " in line for line in lines), (verb, flag)


def test_an_unknown_shell_is_a_usage_error(capsys):
    for arguments in ([], ["tcsh"], ["bash", "zsh"]):
        assert command.status(complete.main, arguments) == 2
        assert "needed one of bash, zsh, fish" in capsys.readouterr().err
