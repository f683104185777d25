"""Links, commands, flags, config keys and imports in the pages of the site exist; `launch/docs.sh` builds it."""

import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

from launch import config_flags, convert, evaluate, fit, sample, train
from launch.bench import __main__ as bench
from launch.command import Help
from launch.data import __main__ as data
from launch.view import __main__ as view
from wsm_jax.config import load

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for path in (ROOT / "docs").glob("*.md"))
TEXT = {path: path.read_text(encoding="utf-8") for path in (*PAGES, ROOT / "README.md", ROOT / "CONTRIBUTING.md")}
MAIN = {
    "launch.bench": bench.main,
    "launch.convert": convert.main,
    "launch.data": data.main,
    "launch.evaluate": evaluate.main,
    "launch.fit": fit.main,
    "launch.sample": sample.main,
    "launch.train": train.main,
    "launch.view": view.main,
}
EXPERIMENT = ROOT / "experiments" / "quickstart.py"
pages = pytest.mark.parametrize("page", TEXT, ids=lambda path: path.stem)


def commands():
    """Every command line of the pages, once."""
    lines = {line for text in TEXT.values() for line in re.findall(r"^python -m (\S.+)$", text, re.MULTILINE)}
    return sorted(lines)


@pages
def test_relative_links_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?:|#)([^)#\s]+)", TEXT[page])
    assert [link for link in links if not (page.parent / link).exists()] == []


@pages
def test_anchors_of_pages_exist(page):
    for link, anchor in re.findall(r"\]\(([\w./]+\.md)#([\w-]+)\)", TEXT[page]):
        headings = re.findall(r"^#+ (.+)$", (page.parent / link).read_text(encoding="utf-8"), re.MULTILINE)
        assert anchor in [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]


@pages
def test_included_files_and_their_sections_exist(page):
    for path, section in re.findall(r'^--8<-- "([\w./]+)(?::(\w+))?"$', TEXT[page], re.MULTILINE):
        code = (ROOT / path).read_text(encoding="utf-8")
        assert not section or (f"[start:{section}]" in code and f"[end:{section}]" in code), f"{path}:{section}"


@pages
def test_python_parses_and_its_imports_exist(page):
    for block in re.findall(r"```python\n(.*?)```", TEXT[page], re.DOTALL):
        if "--8<--" in block or re.match(r'Channel\(|"velocity"', block):
            continue
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                for alias in node.names:
                    assert hasattr(module, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")


@pytest.mark.parametrize("line", commands())
def test_flags_and_keys_of_commands_exist(line):
    module, *arguments = shlex.split(line, comments=True)
    others, changes = config_flags.split(arguments)
    flags = re.findall(r"--(?:no)?([a-z_]+)(?==|\s|$)", " ".join(others))
    verb = others[:1] if module in ("launch.data", "launch.sample", "launch.bench") else []
    with pytest.raises(Help) as told:
        MAIN[module]([*verb, "--help"])
    known = re.findall(r"--(?:\[no\])?(\w+)", str(told.value))
    assert set(flags) - set(known) == set()
    if changes:
        config = next((argument for argument in others if argument.startswith("--config=")), f"--config={EXPERIMENT}")
        load(ROOT / config.removeprefix("--config="), changes)


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if page.name not in navigation] == []
