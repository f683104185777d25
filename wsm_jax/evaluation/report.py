"""The report of a trained world: one HTML file that opens offline and shows every measure beside baseline and target."""

import base64
import dataclasses
import math
import operator
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from wsm_jax.files import write_file

COMPARISONS = {">=": operator.ge, "<=": operator.le}
SIGNS = {">=": "≥", "<=": "≤"}
BASELINE = "_baseline"
"""A measure NAME stands beside NAME + this."""
RUN = ("n", "wall_seconds", "peak_rss_gib", "commit")
"""Keys that describe the run and are no measures."""
MAGIC = {"video": (4, b"ftyp", "an mp4 file"), "picture": (0, b"\x89PNG\r\n\x1a\n", "a PNG file")}
"""Kind of a medium -> (offset, bytes there, name)."""


@dataclasses.dataclass(frozen=True)
class Media:
    """A "video" (mp4 bytes) or a "picture" (PNG bytes) with a caption. Raises ValueError for anything else."""

    kind: str
    data: bytes
    caption: str

    def __post_init__(self) -> None:
        if self.kind not in MAGIC:
            raise ValueError(f"medium of kind {self.kind!r}: needed one of {', '.join(MAGIC)}")
        offset, magic, what = MAGIC[self.kind]
        if self.data[offset : offset + len(magic)] != magic:
            raise ValueError(f"{self.kind} {self.caption!r}: {len(self.data)} bytes that are no {what[3:]}; needed {what}")

    @property
    def uri(self) -> str:
        """The data as a URI that a page embeds."""
        kind = {"video": "video/mp4", "picture": "image/png"}[self.kind]
        return f"data:{kind};base64,{base64.b64encode(self.data).decode()}"


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of the report: a heading, a paragraph, and pictures or videos."""

    title: str
    text: str
    media: Sequence[Media]


@dataclasses.dataclass(frozen=True)
class Row:
    """One measure as the table shows it."""

    name: str
    what: str
    value: str
    baseline: str
    target: str
    verdict: str
    """"reached", "missed" (also when it was not measured), or "" for a measure without a target."""


def reached(value: float | int, comparison: str, target: float | int) -> bool:
    """True if a value meets its target; NaN never does. Raises ValueError for an unknown comparison."""
    if comparison not in COMPARISONS:
        raise ValueError(f"comparison {comparison!r}: needed one of {', '.join(COMPARISONS)}")
    return COMPARISONS[comparison](value, target)


def table(metrics: Mapping[str, Any], targets: Mapping[str, tuple[str, float | int, str]]) -> list[Row]:
    """A row for each target, in their order, then one for each further measure."""
    rows = []
    for name, (comparison, value, what) in targets.items():
        got = float(metrics[name]) if name in metrics else math.nan
        verdict = "reached" if reached(got, comparison, value) else "missed"
        target = f"{SIGNS[comparison]} {_number(value)}"
        rows.append(Row(name, what, _cell(metrics, name), _cell(metrics, name + BASELINE), target, verdict))
    for name in metrics:
        if name not in targets and name not in RUN and not name.endswith(BASELINE):
            rows.append(Row(name, "", _cell(metrics, name), _cell(metrics, name + BASELINE), "", ""))
    return rows


def write_report(
    path: str | Path,
    title: str,
    metrics: Mapping[str, Any],
    targets: Mapping[str, tuple[str, float | int, str]],
    sections: Sequence[Section],
    curves: Mapping[str, str],
) -> None:
    """Writes one self-contained page, atomically.

    `metrics` is what `report.json` holds: measures, each beside NAME_baseline, and n, wall_seconds, peak_rss_gib, commit.
    `targets` are name -> (">=" or "<=", value, what it is); `curves` are name -> SVG. Raises ValueError for an unknown
    comparison or what is no SVG, KeyError for metrics that do not tell of their run.
    """
    missing = [name for name in RUN if name not in metrics]
    if missing:
        raise KeyError(f"report {path}: the metrics lack {missing}; needed {', '.join(RUN)} beside the measures")
    path = Path(path)
    template = (resources.files("wsm_jax.evaluation") / "report.html.jinja").read_text("utf-8")
    page = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True).from_string(template)
    rows = table(metrics, targets)
    text = page.render(
        title=title,
        rows=rows,
        reached=sum(row.verdict == "reached" for row in rows),
        targets=len(targets),
        run=_run(metrics),
        sections=sections,
        curves={name: _inline(name, svg) for name, svg in curves.items()},
    )
    write_file(path, text)


def _inline(name: str, svg: str) -> str:
    """The element of an SVG file, without the head that HTML does not know."""
    start = svg.find("<svg")
    if start < 0:
        raise ValueError(f"curves {name!r}: {len(svg)} characters that are no SVG; needed what loss_curves returns")
    return svg[start:]


def _run(metrics: Mapping[str, Any]) -> dict[str, str]:
    """Facts of the run for the page: label -> text."""
    minutes, seconds = divmod(round(float(metrics["wall_seconds"])), 60)
    return {
        "held-out scenes": str(metrics["n"]),
        "wall time": f"{minutes} min {seconds:02d} s",
        "peak memory": f"{float(metrics['peak_rss_gib']):.2f} GiB",
        "code": str(metrics["commit"]),
    }


def _cell(metrics: Mapping[str, Any], name: str) -> str:
    if name not in metrics:
        return "–"
    return _number(metrics[name]) if isinstance(metrics[name], int | float) else str(metrics[name])


def _number(value: int | float) -> str:
    """Three decimals below 10, two above; whole numbers as they are."""
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "∞" if value > 0 else "−∞"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.2f}"
