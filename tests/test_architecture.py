"""The habits of the repository: who imports whom, how long things are, that scripts parse, that the README tells the truth."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import wsm_jax

ROOT = Path(__file__).parents[1]
FILE_LINES, TEST_LINES, FUNCTION_LINES = 500, 750, 90
# Folders in which personal and machine files live. A match is an absolute path, not the tail of an URL or of a relative path.
MACHINE_FOLDERS = ("home", "Users", "root", "work", "workspace", "mnt", "scratch")
MACHINE_PATH = re.compile(rf"(?<![\w.~$}})/-])(?:[A-Z]:)?/(?:{'|'.join(MACHINE_FOLDERS)})/[\w.$-]+")


def project_files() -> list[Path]:
    """Every file that a commit of the present tree would hold; without git, all but hidden and generated folders."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        command = ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
        return sorted(path for name in set(names) - {""} if (path := ROOT / name).is_file())
    top = [path for path in ROOT.iterdir() if path.name not in ("runs", "data", "build", "dist") and path.name[0] != "."]
    inside = [path for folder in top if folder.is_dir() for path in folder.rglob("*")]
    return sorted(path for path in [*top, *inside] if path.is_file() and "__pycache__" not in path.parts)


def name(path: Path) -> str:
    """The path as a test id: relative to the repository."""
    return path.relative_to(ROOT).as_posix()


FILES = project_files()
PYTHON = [path for path in FILES if path.suffix == ".py"]
SCRIPTS = [path for path in FILES if path.suffix == ".sh" or path.parent.name == ".ci"]


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions and methods, nested ones too."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def test_the_tree_is_seen():
    seen = {name(path) for path in FILES}
    assert {"setup.cfg", "wsm_jax/typing.py", "launch/test.sh", ".ci/run", "tests/test_architecture.py"} <= seen
    assert not any(part in (".venv", "__pycache__") for path in FILES for part in path.parts)


def test_import_contracts_hold():
    # in a process of its own: import-linter closes the streams that pytest still needs
    command = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"
    result = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("path", PYTHON, ids=name)
def test_python_file_parses_and_is_short(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, filename=name(path))
    compile(tree, name(path), "exec")
    lines = text.count("\n")
    limit = TEST_LINES if name(path).startswith("tests/") else FILE_LINES
    assert lines <= limit, f"{name(path)} has {lines} lines, at most {limit}: is it still one noun?"
    long = {f.name: n for f in functions(tree) if (n := (f.end_lineno or f.lineno) - f.lineno + 1) > FUNCTION_LINES}
    assert not long, f"{name(path)}: functions over {FUNCTION_LINES} lines: {long}"


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_script_parses(path):
    result = subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("path", [ROOT / ".ci/run", ROOT / "launch/test.sh", ROOT / "launch/quickstart.sh"], ids=name)
def test_command_is_executable(path):
    assert os.access(path, os.X_OK)


def machine_paths(text: str) -> list[str]:
    """Absolute paths of some machine, this one's repository root and home folder among them."""
    here = [str(folder) for folder in (ROOT, Path.home()) if len(folder.parts) > 2]
    patterns = [MACHINE_PATH, *(re.compile(rf"(?<![\w.]){re.escape(folder)}(?![\w])") for folder in here)]
    return [match.group() for pattern in patterns for match in pattern.finditer(text)]


@pytest.mark.parametrize("folder", MACHINE_FOLDERS)
def test_machine_paths_are_recognised(folder):
    path = f"/{folder}/someone"
    for text in (path, f'x = "{path}/x"', f"cd {path}", f"({path})", f"--out={path}"):
        assert machine_paths(text), text
    for text in (f"..{path}", f"https://example.org{path}", f"a{path}", f"$HOME{path}", f"{path[1:]}", f"~{path}"):
        assert not machine_paths(text), text


def test_no_machine_path_in_text():
    found = {}
    for path in FILES:
        data = path.read_bytes()
        if b"\0" not in data and (hits := machine_paths(data.decode("utf-8", errors="replace"))):
            found[name(path)] = hits
    assert not found, f"paths of one machine: {found}"


def documented(pattern: str) -> list[str]:
    """What the guides tell the reader to use, by a regular expression with one group."""
    text = "\n".join((ROOT / guide).read_text(encoding="utf-8") for guide in ("README.md", "CONTRIBUTING.md"))
    return sorted(set(re.findall(pattern, text)))


@pytest.mark.parametrize("module", documented(r"python -m ([\w.]+)"))
def test_documented_module_exists(module):
    path = ROOT / Path(*module.split("."))
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


@pytest.mark.parametrize("path", documented(r"(?:\bbash |--config=)([\w./-]+)"))
def test_documented_file_exists(path):
    assert (ROOT / path).is_file()


@pytest.mark.parametrize("link", documented(r"\]\((?!https?:|#)([^)#]+)"))
def test_relative_link_leads_somewhere(link):
    assert (ROOT / link).exists()


def test_readme_python_runs_against_the_real_api():
    """Its examples parse, and every verb called on `world` and every name imported in them exists."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    assert blocks
    for node in ast.walk(ast.parse("\n".join(blocks))):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "world":
            assert hasattr(wsm_jax.World, node.attr), f"World.{node.attr} stands in the README and does not exist"


def test_every_requirement_is_pinned():
    """Each package that pyproject.toml names has exactly one exact version in constraints.txt."""

    def normal(requirement: str) -> str:
        return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=!~; ]", requirement)[0]).lower()

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert [pin for pin in pins if not re.fullmatch(r"[\w.-]+==[\w.+]+", pin)] == []
    pinned = [normal(pin) for pin in pins]
    assert len(pinned) == len(set(pinned))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    extras = [name for extra in project["project"]["optional-dependencies"].values() for name in extra]
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"], *extras]
    assert {normal(requirement) for requirement in wanted} - set(pinned) == set()
