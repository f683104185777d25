"""What the files of all reconstructions need: their JSON, field by field, and the photos that they name."""

import json
import math
import os
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from wsm_jax.typing import Float


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises FileNotFoundError, or ValueError that names it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is no JSON ({error}); is it whole?") from error


def table(value: Any, where: str) -> dict[str, Any]:
    """A JSON object. Raises ValueError that says `where` it should be."""
    if not isinstance(value, dict):
        raise ValueError(f"{where}: got {_short(value)}; needed an object")
    return value


def text(value: Any, where: str) -> str:
    """A text that is not empty. Raises ValueError that says `where` it should be."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{where}: got {_short(value)}; needed a text")
    return value


def number(value: Any, where: str) -> float:
    """A finite number. Raises ValueError that says `where` it should be."""
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise ValueError(f"{where}: got {_short(value)}; needed a finite number")


def numbers(value: Any, shape: tuple[int, ...], where: str) -> Float[np.ndarray, "..."]:
    """Finite numbers in lists of that shape, float64. Raises ValueError that says `where` they should be."""
    if not isinstance(value, list) or len(value) != shape[0]:
        raise ValueError(f"{where}: got {_short(value)}; needed {' x '.join(map(str, shape))} numbers")
    if len(shape) > 1:
        return np.stack([numbers(row, shape[1:], where) for row in value])
    return np.array([number(item, where) for item in value])


def _short(value: Any) -> str:
    return "nothing" if value is None else reprlib.repr(value)


def named_file(root: Path, name: str, folders: Sequence[str], source: Path) -> Path | None:
    """The file that `source` names, looked for in `folders` of `root` in turn; None where there is none.

    A reconstruction may come from anywhere, and must not reach out of the folder of its data: raises ValueError for a name that
    leads elsewhere. (Links that the folder itself holds are followed.)
    """
    top = os.path.abspath(root)
    paths = [os.path.abspath(os.path.join(top, folder, name)) for folder in folders]
    for path in filter(os.path.isfile, paths):
        for base, inner in ((top, path), (os.path.realpath(top), os.path.realpath(path))):
            if _within(base, inner):
                return root / os.path.relpath(inner, base)
    if any(os.path.isfile(path) or not _within(top, path) for path in paths):
        raise ValueError(f"{source}: names {name!r}, which lies outside {root}; needed files within it: copy them there")
    return None


def _within(folder: str, path: str) -> bool:
    return os.path.commonpath([folder, path]) == folder


def complete(source: Path, root: Path, wanted: int, missing: Sequence[str], allow_missing: bool) -> list[str]:
    """A note on the photos that are missing. Raises FileNotFoundError, naming the first, unless allowed and some are there."""
    if missing and (not allow_missing or len(missing) >= wanted):
        raise FileNotFoundError(
            f"{source}: {len(missing)} of its {wanted} photos are not in {root}, first {', '.join(missing[:3])}; add them"
            + (", or leave their views out with allow_missing" if not allow_missing and len(missing) < wanted else "")
        )
    return [f"{len(missing)} of {wanted} views left out, their photos are missing: first {', '.join(missing[:3])}"] * bool(
        missing
    )


def folder_name(folder: Path) -> str:
    """What recordings of a folder are called: its own name, without where it lies."""
    return folder.resolve().name or "views"
