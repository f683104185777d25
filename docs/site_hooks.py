"""Hooks of mkdocs.yml: pages that are generated, links into the repository, and equations as MathML.

reference/<module>.md      one for each public module: what mkdocstrings reads from its docstrings
CONTRIBUTING.md ...        the guides of the repository's root, as pages
"""

import html
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import latex2mathml.converter
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PACKAGES = ("wsm_jax", "data_pipelines", "experiments")
GUIDES = ("CONTRIBUTING.md", "CHANGELOG.md", "BENCHMARKS.md")
LINK = re.compile(r"(?<=\]\()(?!https?:|#|mailto:)([^)#\s]+)")
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def public_modules(package: str) -> Iterator[tuple[str, ...]]:
    """Parts of the names of the modules of a package that have text; a package comes before its modules."""
    for path in sorted((ROOT / package).rglob("*.py"), key=lambda path: path.with_suffix("").parts):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if path.read_text(encoding="utf-8").strip() and not any(part.startswith("_") for part in parts):
            yield parts


def reference_page(parts: tuple[str, ...]) -> str:
    """Path of the page of a module."""
    return f"reference/{'/'.join(parts)}.md"


def on_files(files: Files, config: Any) -> Files:
    """Adds the generated pages, and the API reference to the navigation."""
    reference = []
    for package in PACKAGES:
        pages = []
        for parts in public_modules(package):
            name = ".".join(parts)
            files.append(File.generated(config, reference_page(parts), content=f"::: {name}\n"))
            pages.append({name.removeprefix(f"{package}."): reference_page(parts)})
        reference.append({package: pages})
    for guide in GUIDES:
        files.append(File.generated(config, guide, content=(ROOT / guide).read_text(encoding="utf-8")))
    config.nav.append({"API reference": reference})
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Leads links to files of the repository to their pages; of a file without a page only its name is left."""
    folder = "" if page.file.src_uri in GUIDES else "docs"
    if page.file.src_uri.startswith("reference/"):
        return markdown
    return re.sub(r"\[([^\]\n]*)\]\(([^)\s]+)\)", lambda match: _link(match, folder, page.file.src_uri), markdown)


def _link(match: re.Match[str], folder: str, page: str) -> str:
    text, target = match.groups()
    if re.match(r"https?:|#|mailto:", target):
        return match.group()
    target, _, anchor = target.partition("#")
    path = posixpath.normpath(posixpath.join(folder, target))
    if path.startswith("docs/"):
        there = path.removeprefix("docs/")
    elif path in GUIDES:
        there = path
    elif path.endswith(".py") and path.partition("/")[0] in PACKAGES:
        there = reference_page(tuple(Path(path).with_suffix("").parts))
    elif (ROOT / path).exists():
        return f"{text} (`{path}`)" if text.strip("`") != path else f"`{path}`"
    else:
        return match.group()
    return f"[{text}]({posixpath.relpath(there, posixpath.dirname(page) or '.')}{f'#{anchor}' if anchor else ''})"


def on_page_content(content: str, **_: Any) -> str:
    """Writes equations as MathML, which browsers draw without a script."""

    def convert(match: re.Match[str]) -> str:
        display = "block" if match[2] == "[" else "inline"
        return latex2mathml.converter.convert(html.unescape(match[3]), display=display)

    return EQUATION.sub(convert, content)
