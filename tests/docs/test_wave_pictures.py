"""The guide to the wave shows every picture that its script draws, and the script runs."""

import importlib.util
import re
from pathlib import Path

import numpy as np
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"


def pictures(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("wave_*.png")}


def test_the_pictures_are_drawn_and_shown(tmp_path):
    spec = importlib.util.spec_from_file_location("wave_pictures", DOCS / "wave_pictures.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(tmp_path, 12)
    shown = set(re.findall(r"\]\((wave_\w+\.png)\)", (DOCS / "wave.md").read_text(encoding="utf-8")))
    assert pictures(tmp_path) == shown == pictures(DOCS)
    assert sum((DOCS / name).stat().st_size for name in shown) < 300_000
    for name in shown:
        picture = np.asarray(Image.open(tmp_path / name).convert("RGB")).reshape(-1, 3)
        assert len(np.unique(picture, axis=0)) > 20, f"{name} shows nothing"


def test_links_of_the_guide_lead_somewhere():
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", (DOCS / "wave.md").read_text(encoding="utf-8")):
        assert (DOCS / link).exists(), link
