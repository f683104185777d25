"""A dataset, or a collection, as one HTML file that opens offline: tables, pictures of every channel, and what was left out."""

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

_MOST_REJECTED = 500


def dataset_page(title: str, datasets: Sequence[Dataset], clips: int, frames: int) -> str:
    """The page, with `clips` clips of each dataset, and `frames` frames of each."""
    template = resources.files("launch.data").joinpath("page.html.jinja").read_text(encoding="utf-8")
    rejected = _rejected(datasets)
    shown = [{"name": d.name, "table": table(d), "clips": _clips(d, clips, frames)} for d in datasets]
    page = Environment(autoescape=True, undefined=StrictUndefined).from_string(template)
    more = max(len(rejected) - _MOST_REJECTED, 0)
    return page.render(title=title, datasets=shown, rejected=rejected[:_MOST_REJECTED], more=more)


def _clips(dataset: Dataset, clips: int, frames: int) -> list[dict[str, Any]]:
    """Clips spread over the dataset."""
    found = []
    for number in np.unique(np.linspace(0, len(dataset) - 1, clips).round().astype(int)) if dataset.layout.channels else ():
        buffer = io.BytesIO()
        contact_sheet(dataset, [int(number)], frames).save(buffer, "PNG")
        origin = dataset.origin(number)
        sources = dataset.manifest["sources"]
        named = f"{sources[origin['source']]['name']} from {origin['start']:.2f} s" if "source" in origin else ""
        lines = [*captions(dataset, number), *(json.dumps(event) for event in dataset.events(number))]
        for name, signal in dataset.signals(number).items():
            lines.append(f"{name}: {len(signal.time)} x {np.shape(signal.values)[1]}, first {_short(signal.values)}")
        found.append(
            {
                "number": int(number),
                "picture": base64.b64encode(buffer.getvalue()).decode(),
                "channels": ", ".join(dataset.layout.channels),
                "origin": named,
                "lines": lines,
            }
        )
    return found


def _short(values: Any) -> str:
    return "(" + ", ".join(f"{x:.3g}" for x in np.asarray(values)[0]) + ")" if len(values) else "none"


def _rejected(datasets: Sequence[Dataset]) -> list[dict[str, Any]]:
    """What was left out of a build; every dataset of it has the same list."""
    for dataset in datasets:
        if "rejected.jsonl" in dataset.manifest["files"]:
            raw = dataset.folder.read("rejected.jsonl") or b""
            return [json.loads(line) for line in raw.splitlines()]
    return []
