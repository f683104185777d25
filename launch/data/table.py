"""A WSV dataset as text: contents, size on disk, statistics and sources."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.wsv import Dataset
from wsm_jax.snapshot import channel


def table(dataset: Dataset) -> str:
    """Clips, hours, channels with raw and stored sizes, statistics in physical units, and sources, as text."""
    layout, manifest = dataset.layout, dataset.manifest
    counts = manifest["counts"]
    seconds = layout.frames / layout.frame_hz if layout.frames else layout.ticks / manifest["tick_hz"]
    lines = [
        f"name      {dataset.name}  (schema version {manifest['schema_version']})",
        f"clips     {layout.clips} of {seconds:g} s, {layout.clips * seconds / 3600:.4g} hours",
        f"frames    {layout.frames} per clip at {layout.frame_hz:g} Hz, {layout.height} x {layout.width} pixels",
        f"core      {layout.ticks} ticks of {layout.waves} waves per clip" if layout.ticks else "core      none",
        f"camera    {'one pose per frame' if layout.camera else 'none'}",
        f"text      {counts['captions']} captions, {counts['events']} events",
        f"on disk   {_mib(counts['bytes'])} MiB in {counts['files']} files, {counts['shards']} shards",
    ]
    if layout.channels:
        rows = [("channel", "unit", "encoding", "raw MiB", "stored MiB", "ratio", *_STATISTICS)]
        rows += [_channel_row(dataset, name) for name in layout.channels]
        lines += ["", *_aligned(rows)]
    if fields := manifest["statistics"]["core"]:
        rows = [("core field", *_STATISTICS)]
        rows += [(name, *_summary(values)) for name, values in fields.items()]
        lines += ["", *_aligned(rows)]
    if latents := manifest.get("latents", {}):
        rows = [("latents", "dtype", "shape", "MiB", "made by")]
        for name, row in latents.items():
            made = ", ".join(f"{key} {_short(value)}" for key, value in row["provenance"].items())
            rows.append((name, row["dtype"], " x ".join(map(str, row["shape"])), _mib(row["bytes"]), made))
        lines += ["", *_aligned(rows)]
    rows = [("source", "licence", "details")]
    for source in manifest["sources"]:
        rest = {key: value for key, value in source.items() if key not in ("name", "licence") and value != ""}
        rows.append((source["name"], source["licence"], ", ".join(f"{key} {_short(value)}" for key, value in rest.items())))
    return "\n".join([*lines, "", *_aligned(rows)])


_STATISTICS: tuple[str, ...] = ("mean", "std", "min", "max")


def _channel_row(dataset: Dataset, name: str) -> tuple[str, ...]:
    layout, row = dataset.layout, channel(name)
    codec = layout.encoded if name == "rgb" else ""
    raw = layout.clips * layout.frames * layout.height * layout.width * row.components * np.dtype(row.dtype).itemsize
    stored = _stored(dataset, f"channels/rgb_{codec}/" if codec else f"channels/{name}/")
    kept = (codec or row.dtype, _mib(raw), _mib(stored), f"{raw / stored:.1f}")
    return (name, row.unit, *kept, *_summary(dataset.manifest["statistics"]["channels"][name]))


def _stored(dataset: Dataset, prefix: str) -> int:
    return sum(file["bytes"] for key, file in dataset.manifest["files"].items() if key.startswith(prefix))


def _mib(count: int) -> str:
    return f"{count / 2**20:.3g}"


def _summary(values: dict[str, Any]) -> tuple[str, ...]:
    return tuple(" ".join(f"{value:.3g}" for value in values[key]) for key in _STATISTICS)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= 40 else text[:12] + "..."


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows of equal length as lines with aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
