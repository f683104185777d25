"""The habits of the repository: who imports whom, how long things are, that scripts parse, that the README tells the truth."""

import ast
import functools
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
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


SOURCES = [path for path in PYTHON if name(path).split("/")[0] in ("wsm_jax", "data_pipelines")]

NOT_MIRRORED = {
    "data_pipelines.simulation.dataset": "data_pipelines/loading/test_held_out.py: builds and reads such datasets",
    "wsm_jax.evaluation.evaluate": "toy_family/test_family.py: needs a trained model and its workdir",
    "wsm_jax.evaluation.world_report": "launch/test_chain.py: needs a trained world",
    "wsm_jax.models.wave_bridge.encoder": "launch/test_chain.py: the latents that the chain trains on",
    "wsm_jax.training.experiment": "toy_family/test_family.py: needs the stages of a whole experiment",
    "wsm_jax.training.stage": "experiments/test_experiments.py: every shipped stage, and wrong ones",
    "data_pipelines.ingest.remake": "data_pipelines/ingest/test_build.py: needs a finished build",
    "data_pipelines.loading.batch": "data_pipelines/loading/test_loader.py: every batch passes through it",
    "data_pipelines.loading.rows": "data_pipelines/loading/test_loader.py: every batch passes through it",
    "data_pipelines.recording.decode": "data_pipelines/recording/test_video.py: needs real video files",
    "data_pipelines.simulation.camera_path": "data_pipelines/simulation/test_scene.py: paths avoid the objects of a scene",
    "data_pipelines.simulation.mujoco_renderer": "data_pipelines/simulation/test_simulate.py: needs a scene of MuJoCo",
    "data_pipelines.wsv.manifest": "data_pipelines/wsv/test_clip.py: layouts and clips are checked together",
    "data_pipelines.wsv.picture": "data_pipelines/wsv/test_clip.py: codecs of the frames of a clip",
    "data_pipelines.wsv.shard": "data_pipelines/wsv/test_writer.py: internal to the writer",
    "data_pipelines.wsv.verify": "data_pipelines/wsv/test_repair.py: what verify reports, repair restores",
    "wsm_jax.core.composite": "core/test_tile.py: compared with the renderer",
    "wsm_jax.core.exchange.array_file": "core/exchange/test_scene_file.py: shared by the file formats",
    "wsm_jax.core.exchange.comparison": "core/exchange/test_conversion.py: judges conversions",
    "wsm_jax.core.exchange.gltf": "core/exchange/test_scene_file.py: one test for all scene formats",
    "wsm_jax.core.exchange.mesh_file": "core/exchange/test_conversion.py: one test for all mesh formats",
    "wsm_jax.core.exchange.points": "core/exchange/test_conversion.py: input of a conversion",
    "wsm_jax.core.exchange.usd": "core/exchange/test_scene_file.py: one test for all scene formats",
    "wsm_jax.core.fitting.partition": "core/fitting/test_sets.py: divides what becomes a set",
    "wsm_jax.core.fitting.planes": "core/fitting/test_sets.py: removed before sets are fitted",
    "wsm_jax.core.mesh": "core/exchange/test_tessellation.py: meshes are made there",
    "wsm_jax.core.physics.body": "core/physics/test_dynamics.py: internal to a step",
    "wsm_jax.core.physics.manifold": "core/physics/test_contact.py: the contact points of a pair",
    "wsm_jax.core.physics.matter": "core/physics/test_dynamics.py: input of a step",
    "wsm_jax.core.physics.mjcf": "core/physics/test_dynamics.py: compared with MuJoCo",
    "wsm_jax.core.physics.solver": "core/physics/test_dynamics.py: internal to a step",
    "wsm_jax.core.physics.triple": "core/physics/test_dynamics.py: vector algebra of a step",
    "wsm_jax.evaluation.showcase": "launch/test_chain.py: needs a trained world and its data",
    "wsm_jax.models.wave_bridge.objective": "training/test_objectives.py: one test for all objectives",
    "wsm_jax.models.wave_bridge.sampler": "test_world.py: called by every verb",
    "wsm_jax.models.wave_bridge.style": "test_world.py: styles belong to a whole world",
    "wsm_jax.models.world_flow.network": "training/test_objectives.py: its only user beside the sampler",
    "wsm_jax.models.world_flow.objective": "training/test_objectives.py: one test for all objectives",
    "wsm_jax.models.world_flow.sampler": "test_world.py: called by every verb",
}
"""Modules without a test file of the same name -> "test file: reason"."""


@functools.cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=name(path))


def module(path: Path) -> str:
    """The dotted name of a source file."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def raises_itself(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """True if a function holds a `raise` outside the functions and classes within it."""
    scopes = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
    nodes: list[ast.AST] = list(function.body)
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Raise):
            return True
        if not isinstance(node, scopes):
            nodes.extend(ast.iter_child_nodes(node))
    return False


def public_functions(tree: ast.Module) -> Iterator[tuple[str, ast.FunctionDef, str]]:
    """(name, node, docstring) of public functions and methods; a constructor may be documented by its class."""
    special = ("__init__", "__post_init__", "__call__")
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name[0] != "_":
            yield node.name, node, ast.get_docstring(node) or ""
        if isinstance(node, ast.ClassDef) and node.name[0] != "_":
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and (method.name[0] != "_" or method.name in special):
                    whole = ast.get_docstring(node) if method.name in special[:2] else ""
                    yield f"{node.name}.{method.name}", method, f"{ast.get_docstring(method) or ''} {whole or ''}"


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
    tree = parsed(path)
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


def test_every_module_has_its_test_file():
    """`wsm_jax/a/b.py` has `tests/a/test_b.py`, `data_pipelines/a/b.py` has `tests/data_pipelines/a/test_b.py`, or a row."""
    lacking = set()
    for path in SOURCES:
        parts = path.relative_to(ROOT).parts
        folder = ROOT.joinpath("tests", *(parts[:-1] if parts[0] == "data_pipelines" else parts[1:-1]))
        if path.stem != "__init__" and not (folder / f"test_{path.name}").is_file():
            lacking.add(module(path))
    assert lacking - NOT_MIRRORED.keys() == set(), "write its test file, or add a row to NOT_MIRRORED"
    assert NOT_MIRRORED.keys() - lacking == set(), "stale rows of NOT_MIRRORED"
    rows = {row: reason.split(": ") for row, reason in NOT_MIRRORED.items()}
    assert [row for row, (test, reason) in rows.items() if not reason or not (ROOT / "tests" / test).is_file()] == []


def test_no_two_public_classes_have_one_name():
    where: dict[str, list[str]] = {}
    for path in SOURCES:
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef) and node.name[0] != "_":
                where.setdefault(node.name, []).append(module(path))
    assert {name: modules for name, modules in where.items() if len(modules) > 1} == {}


def test_public_functions_say_what_they_raise():
    lacking = set()
    for path in SOURCES:
        for function, node, text in public_functions(parsed(path)):
            if raises_itself(node) and not re.search(r"\braises?\b", text, re.IGNORECASE):
                lacking.add(f"{module(path)}.{function}")
    assert lacking == set(), "say in the docstring what it raises"


def test_a_raise_of_an_inner_function_is_not_its_own():
    inner, own = ast.parse("def f():\n  def g():\n    raise OSError\ndef h(x):\n  if x:\n    raise OSError").body
    assert isinstance(inner, ast.FunctionDef) and isinstance(own, ast.FunctionDef)
    assert (raises_itself(inner), raises_itself(own)) == (False, True)
