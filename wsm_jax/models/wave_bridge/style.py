"""Style codes of a world: what its pictures have and its geometry has not."""

import json
from pathlib import Path

import numpy as np

from wsm_jax.typing import Float, NpOrJax, pytree


@pytree
class Style:
    """One code per wave and one for the scene; they move with the world and are the same from every view and at every time."""

    waves: Float[NpOrJax, "N c"]
    scene: Float[NpOrJax, " s"]


def to_json(style: Style) -> str:
    """Codes as JSON, rounded to float16: {"format", "version", "waves", "scene"}."""
    fields = {name: np.asarray(getattr(style, name), np.float16).tolist() for name in ("waves", "scene")}
    return json.dumps({"format": "wsm_style", "version": 1, **fields})


def from_json(text: str, source: str = "style JSON") -> Style:
    """Reads what `to_json` wrote. Raises ValueError that names `source` for anything else."""
    try:
        data = json.loads(text)
        if data["format"] != "wsm_style" or data["version"] != 1:
            raise ValueError(f"format {data['format']!r} version {data['version']!r}")
        waves, scene = (np.asarray(data[name], np.float32) for name in ("waves", "scene"))
        if waves.ndim != 2 or scene.ndim != 1 or not (np.isfinite(waves).all() and np.isfinite(scene).all()):
            raise ValueError(f"codes of shapes {waves.shape} and {scene.shape}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{source}: no style written by wsm_jax ({error}); needed format wsm_style, version 1") from error
    return Style(waves, scene)


def load(path: str | Path) -> Style:
    """Reads a style file. Raises FileNotFoundError or ValueError, both naming the path."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such style file")
    return from_json(path.read_text("utf-8", errors="replace"), str(path))
