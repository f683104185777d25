"""Shared by the readers of reconstructions: checked JSON fields, and the files that they name."""

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
    """Content of a JSON file. Raises FileNotFoundError, or ValueError that names it."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is no JSON ({error}); is it whole?") from error


def json_object(value: Any, context: str) -> dict[str, Any]:
    """`value` if it is a JSON object. Raises ValueError that begins with `context`."""
    if not isinstance(value, dict):
        raise ValueError(f"{context}: got {_short(value)}; needed an object")
    return value


def json_text(value: Any, context: str) -> str:
    """`value` if it is a text that is not empty. Raises ValueError that begins with `context`."""
    if not isinstance(value, str) or not value:
        raise ValueError(f"{context}: got {_short(value)}; needed a text")
    return value


def json_number(value: Any, context: str) -> float:
    """`value` if it is a finite number. Raises ValueError that begins with `context`."""
    try:
        if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise ValueError(f"{context}: got {_short(value)}; needed a finite number")


def json_numbers(value: Any, shape: tuple[int, ...], context: str) -> Float[np.ndarray, "..."]:
    """Array of nested lists of finite numbers of a shape, float64. Raises ValueError that begins with `context`."""
    if not isinstance(value, list) or len(value) != shape[0]:
        raise ValueError(f"{context}: got {_short(value)}; needed {' x '.join(map(str, shape))} numbers")
    if len(shape) > 1:
        return np.stack([json_numbers(row, shape[1:], context) for row in value])
    return np.array([json_number(item, context) for item in value])


def _short(value: Any) -> str:
    return "nothing" if value is None else reprlib.repr(value)


def find_file(root: Path, name: str, folders: Sequence[str], source: Path) -> Path | None:
    """First file called `name` in `folders` of `root`, or None.

    `source` is the reconstruction that names it. It is not trusted: raises ValueError for a name that leads outside `root`.
    (Links inside `root` are followed.)
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


def check_complete(source: Path, root: Path, wanted: int, missing: Sequence[str], allow_missing: bool) -> list[str]:
    """Notes on missing photos. Raises FileNotFoundError, naming the first, unless allowed and some exist."""
    if missing and (not allow_missing or len(missing) >= wanted):
        raise FileNotFoundError(
            f"{source}: {len(missing)} of its {wanted} photos are not in {root}, first {', '.join(missing[:3])}; add them"
            + (", or leave their views out with allow_missing" if not allow_missing and len(missing) < wanted else "")
        )
    return [f"{len(missing)} of {wanted} views left out, their photos are missing: first {', '.join(missing[:3])}"] * bool(
        missing
    )


def folder_name(folder: Path) -> str:
    """Name of the recordings of a folder: the folder's name without its path."""
    return folder.resolve().name or "views"
