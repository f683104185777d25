"""What clips are cut from recordings: shots, windows in buckets, and what is left out, each with its reason.

A plan is a pure function of what the scans found, so every worker and host comes to the same one.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.ingest.bucket import Bucket, fitting
from data_pipelines.ingest.caption import Captions
from data_pipelines.ingest.find import Rejection
from data_pipelines.ingest.measure import cuts
from data_pipelines.recording.recording import Signal
from data_pipelines.recording.video import frame_count, on_screen

MEASURES = ("seconds", "sharpness", "change")
"""What every clip of a dataset is measured by; see measure.py. `change` is per second."""
_SAME = 0.05
"""Frames that differ by less than this (mean level of 255) are one frame, shown twice."""
_BIN_S = 0.125
"""Steps of signals are counted in bins of this length."""


@dataclasses.dataclass(frozen=True)
class Filters:
    """What is left out."""

    shots: bool = True
    """Cut at shots, so that no clip shows two."""
    sharpness: float | int = 0.0
    """Least median sharpness (variance of the Laplacian at 144 rows)."""
    change: float | int = 0.0
    """Least change a second (mean level of 255): less is a still picture."""
    duplicates: float | int = 1.0
    """Largest share of frames that repeat the one before."""

    def check(self) -> "Filters":
        """Returns itself; raises ValueError for limits that nothing can keep."""
        if not (self.sharpness >= 0 and self.change >= 0 and 0 <= self.duplicates <= 1):  # nor NaN
            raise ValueError(f"ingest: {self}; needed limits of 0 or more, and a share of duplicates up to 1")
        return self


@dataclasses.dataclass(frozen=True)
class Found:
    """What a scan found of one recording; plain data."""

    candidate: int
    """Number of the candidate that it comes from, ..."""
    number: int
    """... and its own among the recordings of that."""
    name: str
    kind: str
    time: tuple[float, ...]
    seconds: float
    size: tuple[tuple[int, int], ...]
    """Rows and columns of the pictures; one for all where they are equal."""
    channels: tuple[str, ...]
    camera: bool
    lens: bool
    pixel_aspect: float
    signals: tuple[tuple[str, int, tuple[int, ...]], ...]
    """(name, components, steps in each eighth of a second)."""
    text: tuple[str, ...]
    spans: tuple[tuple[float, float] | None, ...]
    """As those of Captions."""
    notes: tuple[str, ...]
    sha256: str
    sharpness: tuple[float, ...]
    change: tuple[float, ...]

    @property
    def frame_hz(self) -> float:
        """Mean rate, Hz."""
        return len(self.time) / self.seconds

    @property
    def captions(self) -> Captions:
        """What is said of it."""
        return Captions(self.text, self.spans)

    @property
    def form(self) -> tuple[Any, ...]:
        """Recordings of one form can stand in one dataset."""
        return self.kind, self.channels, self.camera, self.lens, tuple((name, parts) for name, parts, _ in self.signals)

    def steps(self, signal: str, start: float, end: float) -> int:
        """An upper bound of the steps of a signal from `start` to `end` (s), and of the one before, which still holds."""
        count = next(count for name, _, count in self.signals if name == signal)
        first, last = (int(np.clip(np.floor(t / _BIN_S), 0, len(count) - 1)) for t in (start - 1e-3, end + 1e-3))
        return min(sum(count[first : last + 1]) + 1, sum(count))


def steps(signal: Signal, seconds: float) -> tuple[int, ...]:
    """The steps of a signal in each eighth of a second; those before the first count there, those after the last there."""
    bins = max(math.ceil(seconds / _BIN_S), 1)
    place = np.clip(np.floor(np.asarray(signal.time) / _BIN_S), 0, bins - 1).astype(np.int64)
    return tuple(int(count) for count in np.bincount(place, minlength=bins))


@dataclasses.dataclass(frozen=True)
class Cut:
    """One clip to be made."""

    found: int
    """Number of its recording in the list of what was found."""
    bucket: Bucket
    frames: tuple[int, ...]
    """Of the recording."""
    start: float
    """s."""
    measures: dict[str, float]

    @property
    def span(self) -> tuple[float, float]:
        """From the start to the end of the last frame, s of the recording."""
        return self.start, self.start + len(self.frames) / self.bucket.frame_hz


def plan(found: Sequence[Found], buckets: tuple[Bucket, ...], filters: Filters) -> tuple[list[Cut], list[Rejection]]:
    """The clips of all recordings, in order, and what is left out."""
    clips: list[Cut] = []
    rejected: list[Rejection] = []
    twins: dict[str, str] = {}
    for index, recording in enumerate(found):
        key = f"{recording.sha256}/{recording.number}"
        if key in twins:
            rejected.append(Rejection(recording.name, f"is the same recording as {twins[key]}", None, recording.seconds))
            continue
        twins[key] = recording.name
        cut = _views if recording.kind == "views" else _windows
        made, left = cut(index, recording, buckets, filters)
        clips += made
        rejected += left
    return clips, rejected


def _views(index: int, found: Found, buckets: tuple[Bucket, ...], filters: Filters) -> tuple[list[Cut], list[Rejection]]:
    """All views of an instant are one clip; rates and lengths do not matter."""
    height, width = found.size[0]
    bucket = fitting(buckets, height, width * found.pixel_aspect, float("inf"))[0]
    frames = tuple(range(len(found.time)))
    return [
        Cut(index, bucket, frames, 0.0, {"seconds": 0.0, "sharpness": float(np.median(found.sharpness)), "change": 0.0})
    ], []


def _windows(index: int, found: Found, buckets: tuple[Bucket, ...], filters: Filters) -> tuple[list[Cut], list[Rejection]]:
    """Windows that follow one another within every shot, the longest first."""
    height, width = found.size[0]
    choice = fitting(buckets, height, width * found.pixel_aspect, found.frame_hz)
    if not choice:
        least = min(b.frame_hz for b in buckets)
        why = f"has {found.frame_hz:.4g} frames a second; needed at least the {least:g} asked for"
        return [], [Rejection(found.name, why, None, found.seconds)]
    time = np.asarray(found.time)
    begins = np.flatnonzero(cuts(np.asarray(found.change))) if filters.shots else np.zeros(0, np.int64)
    starts = [0, *(int(i) for i in begins)]
    ends = [*(float(time[i]) for i in begins), found.seconds]
    clips: list[Cut] = []
    rejected: list[Rejection] = []
    for first, last, end in zip(starts, [*begins, len(time)], ends, strict=True):
        at = float(time[first])
        for bucket in choice:
            while frame_count(end - at, bucket.frame_hz) >= bucket.frames:
                instants = at + np.arange(bucket.frames) / bucket.frame_hz
                frames = tuple(int(i) for i in on_screen(time[:last], instants, found.frame_hz))
                measures, why = _measured(found, frames, bucket, filters)
                if why:
                    rejected.append(Rejection(found.name, why, at, bucket.seconds))
                else:
                    clips.append(Cut(index, bucket, frames, at, measures))
                at += bucket.seconds
        left = end - at
        if left > 0.5 / choice[-1].frame_hz or at == time[first]:
            shortest, whole = choice[-1], first == 0 and len(starts) == 1 and at == 0
            why = (
                f"lasts {left:.3f} s, {frame_count(left, shortest.frame_hz)} frames at {shortest.frame_hz:g} Hz; needed "
                f"{shortest.frames} frames ({shortest.seconds:g} s) for one clip"
                if whole
                else "what is left is shorter than a clip"
            )
            rejected.append(Rejection(found.name, why, None if whole else at, left))
    return clips, rejected


def _measured(found: Found, frames: tuple[int, ...], bucket: Bucket, filters: Filters) -> tuple[dict[str, float], str]:
    """The measures of a clip, and why it is left out (empty: it is not)."""
    change = np.cumsum(found.change)
    between = np.diff(change[list(frames)])
    sharpness = float(np.median(np.asarray(found.sharpness)[list(frames)]))
    rate = float(between.sum() / bucket.seconds)
    same = float(np.mean(between < _SAME))
    measures = {"seconds": float(bucket.seconds), "sharpness": sharpness, "change": rate}
    if sharpness < filters.sharpness:
        return measures, f"blurred: sharpness {sharpness:.3g}, needed {filters.sharpness:g}"
    if rate < filters.change:
        return measures, f"still: changes by {rate:.3g} levels a second, needed {filters.change:g}"
    if same > filters.duplicates:
        return measures, f"{same:.0%} of its frames repeat the one before; at most {filters.duplicates:.0%} may"
    return measures, ""
