"""A dataset or collection as one HTML file that opens offline: tables, pictures of every channel, rejected recordings."""

import base64
import io
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined

from data_pipelines.wsv import Dataset
from launch.data.contact_sheet import captions, contact_sheet
from launch.data.table import table


def dataset_page(title: str, datasets: Sequence[Dataset], clips: int, frames: int, tile: int, most_rejected: int) -> str:
    """The page, with `clips` clips of each dataset, `frames` frames of each clip, and at most `most_rejected` rejections.

    Raises what Dataset.read raises.
    """
    template = resources.files("launch.data").joinpath("page.html.jinja").read_text(encoding="utf-8")
    rejected = _rejected(datasets)
    shown = [{"name": d.name, "table": table(d), "clips": _clips(d, clips, frames, tile)} for d in datasets]
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(template)
    more = max(len(rejected) - most_rejected, 0)
    return page.render(title=title, datasets=shown, rejected=rejected[:most_rejected], more=more)


def _clips(dataset: Dataset, clips: int, frames: int, tile: int) -> list[dict[str, Any]]:
    """Evenly spaced clips of the dataset, as the template needs them."""
    rows = []
    for number in np.unique(np.linspace(0, len(dataset) - 1, clips).round().astype(int)) if dataset.layout.channels else ():
        buffer = io.BytesIO()
        contact_sheet(dataset, [int(number)], frames, tile).save(buffer, "PNG")
        origin = dataset.origin(number)
        sources = dataset.manifest["sources"]
        named = f"{sources[origin['source']]['name']} from {origin['start']:.2f} s" if "source" in origin else ""
        lines = [*captions(dataset, number), *(json.dumps(event) for event in dataset.events(number))]
        for name, signal in dataset.signals(number).items():
            lines.append(f"{name}: {len(signal.time)} x {np.shape(signal.values)[1]}, first {_short(signal.values)}")
        rows.append(
            {
                "number": int(number),
                "picture": base64.b64encode(buffer.getvalue()).decode(),
                "channels": ", ".join(dataset.layout.channels),
                "origin": named,
                "lines": lines,
            }
        )
    return rows


def _short(values: Any) -> str:
    return "(" + ", ".join(f"{x:.3g}" for x in np.asarray(values)[0]) + ")" if len(values) else "none"


def _rejected(datasets: Sequence[Dataset]) -> list[dict[str, Any]]:
    """Rejected recordings of the build; every dataset of a build has the same list."""
    for dataset in datasets:
        if "rejected.jsonl" in dataset.manifest["files"]:
            raw = dataset.folder.read("rejected.jsonl") or b""
            return [json.loads(line) for line in raw.splitlines()]
    return []
