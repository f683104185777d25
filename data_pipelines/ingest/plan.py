"""Plan of the clips of recordings: shots, windows in buckets, and rejections with their reasons.

A plan is a pure function of the scans, so every worker and host gets the same one.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.ingest.bucket import Bucket, best_buckets
from data_pipelines.ingest.caption import Captions
from data_pipelines.ingest.find import Rejection
from data_pipelines.ingest.measure import shot_starts
from data_pipelines.recording.recording import Signal
from data_pipelines.recording.video import frame_count, on_screen

MEASURES = ("seconds", "sharpness", "change")
"""Measures of every clip of a dataset; see measure.py. `change` is per second."""
_DUPLICATE = 0.05
"""Change (mean level of 255) below which a frame repeats the previous one."""
_BIN_S = 0.125
"""Length of the bins in which steps of signals are counted, s."""


@dataclasses.dataclass(frozen=True)
class Filters:
    """Limits of what becomes a clip."""

    shots: bool = True
    """Cut at shot boundaries, so that no clip shows two shots."""
    sharpness: float | int = 0.0
    """Least median sharpness (variance of the Laplacian at 144 rows)."""
    change: float | int = 0.0
    """Least change per second (mean level of 255); a still picture has less."""
    duplicates: float | int = 1.0
    """Largest fraction of duplicate frames."""

    def check(self) -> "Filters":
        """Return itself. Raises ValueError for limits out of range."""
        if not (self.sharpness >= 0 and self.change >= 0 and 0 <= self.duplicates <= 1):  # nor NaN
            raise ValueError(f"ingest: {self}; needed limits of 0 or more, and a share of duplicates up to 1")
        return self


@dataclasses.dataclass(frozen=True)
class ScannedRecording:
    """Metadata and statistics of one recording from its scan; plain data, stored as JSON by its field names."""

    candidate: int
    """Number of its candidate."""
    number: int
    """Number among the recordings of that candidate."""
    name: str
    kind: str
    time: tuple[float, ...]
    seconds: float
    size: tuple[tuple[int, int], ...]
    """Rows and columns of every picture; a single entry if all are equal."""
    channels: tuple[str, ...]
    camera: bool
    lens: bool
    pixel_aspect: float
    signals: tuple[tuple[str, int, tuple[int, ...]], ...]
    """(name, components, steps in each bin of an eighth of a second)."""
    text: tuple[str, ...]
    spans: tuple[tuple[float, float] | None, ...]
    """As `Captions.spans`."""
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
        """Captions with their times."""
        return Captions(self.text, self.spans)

    @property
    def dataset_key(self) -> tuple[Any, ...]:
        """Key of the dataset: recordings with the same key and bucket share one."""
        return self.kind, self.channels, self.camera, self.lens, tuple((name, parts) for name, parts, _ in self.signals)

    def max_steps(self, signal: str, start: float, end: float) -> int:
        """Upper bound of the steps of a signal from `start` to `end` (s), with the step before, which is still valid."""
        count = next(count for name, _, count in self.signals if name == signal)
        first, last = (int(np.clip(np.floor(t / _BIN_S), 0, len(count) - 1)) for t in (start - 1e-3, end + 1e-3))
        return min(sum(count[first : last + 1]) + 1, sum(count))


def steps_per_bin(signal: Signal, seconds: float) -> tuple[int, ...]:
    """Steps of a signal in each eighth of a second; earlier steps count in the first bin, later ones in the last."""
    bins = max(math.ceil(seconds / _BIN_S), 1)
    place = np.clip(np.floor(np.asarray(signal.time) / _BIN_S), 0, bins - 1).astype(np.int64)
    return tuple(int(count) for count in np.bincount(place, minlength=bins))


@dataclasses.dataclass(frozen=True)
class PlannedClip:
    """A clip to be made."""

    recording: int
    """Index of its recording in the list of scanned recordings."""
    bucket: Bucket
    frames: tuple[int, ...]
    """Frame indices in the recording."""
    start: float
    """s of the recording."""
    measures: dict[str, float]

    @property
    def span(self) -> tuple[float, float]:
        """(start, end of the last frame), s of the recording."""
        return self.start, self.start + len(self.frames) / self.bucket.frame_hz


def plan_clips(
    recordings: Sequence[ScannedRecording], buckets: tuple[Bucket, ...], filters: Filters
) -> tuple[list[PlannedClip], list[Rejection]]:
    """Clips of all recordings, in order, and rejections."""
    clips: list[PlannedClip] = []
    rejected: list[Rejection] = []
    twins: dict[str, str] = {}
    for index, recording in enumerate(recordings):
        key = f"{recording.sha256}/{recording.number}"
        if key in twins:
            rejected.append(Rejection(recording.name, f"is the same recording as {twins[key]}", None, recording.seconds))
            continue
        twins[key] = recording.name
        plan = _plan_views if recording.kind == "views" else _plan_windows
        planned, left_out = plan(index, recording, buckets, filters)
        clips += planned
        rejected += left_out
    return clips, rejected


def _plan_views(
    index: int, recording: ScannedRecording, buckets: tuple[Bucket, ...], filters: Filters
) -> tuple[list[PlannedClip], list[Rejection]]:
    """One clip of all views of an instant; rates and lengths of the buckets do not matter."""
    height, width = recording.size[0]
    bucket = best_buckets(buckets, height, width * recording.pixel_aspect, float("inf"))[0]
    frames = tuple(range(len(recording.time)))
    return [
        PlannedClip(
            index, bucket, frames, 0.0, {"seconds": 0.0, "sharpness": float(np.median(recording.sharpness)), "change": 0.0}
        )
    ], []


def _plan_windows(
    index: int, recording: ScannedRecording, buckets: tuple[Bucket, ...], filters: Filters
) -> tuple[list[PlannedClip], list[Rejection]]:
    """Consecutive windows in every shot, the longest bucket first."""
    height, width = recording.size[0]
    choice = best_buckets(buckets, height, width * recording.pixel_aspect, recording.frame_hz)
    if not choice:
        least = min(b.frame_hz for b in buckets)
        why = f"has {recording.frame_hz:.4g} frames a second; needed at least the {least:g} asked for"
        return [], [Rejection(recording.name, why, None, recording.seconds)]
    time = np.asarray(recording.time)
    boundaries = np.flatnonzero(shot_starts(np.asarray(recording.change))) if filters.shots else np.zeros(0, np.int64)
    starts = [0, *(int(i) for i in boundaries)]
    ends = [*(float(time[i]) for i in boundaries), recording.seconds]
    clips: list[PlannedClip] = []
    rejected: list[Rejection] = []
    for first, last, end in zip(starts, [*boundaries, len(time)], ends, strict=True):
        at = float(time[first])
        for bucket in choice:
            while frame_count(end - at, bucket.frame_hz) >= bucket.frames:
                instants = at + np.arange(bucket.frames) / bucket.frame_hz
                frames = tuple(int(i) for i in on_screen(time[:last], instants, recording.frame_hz))
                measures, why = _clip_measures(recording, frames, bucket, filters)
                if why:
                    rejected.append(Rejection(recording.name, why, at, bucket.seconds))
                else:
                    clips.append(PlannedClip(index, bucket, frames, at, measures))
                at += bucket.seconds
        rest = end - at
        if rest > 0.5 / choice[-1].frame_hz or at == time[first]:
            shortest, whole = choice[-1], first == 0 and len(starts) == 1 and at == 0
            why = (
                f"lasts {rest:.3f} s, {frame_count(rest, shortest.frame_hz)} frames at {shortest.frame_hz:g} Hz; needed "
                f"{shortest.frames} frames ({shortest.seconds:g} s) for one clip"
                if whole
                else "what is left is shorter than a clip"
            )
            rejected.append(Rejection(recording.name, why, None if whole else at, rest))
    return clips, rejected


def _clip_measures(
    recording: ScannedRecording, frames: tuple[int, ...], bucket: Bucket, filters: Filters
) -> tuple[dict[str, float], str]:
    """Measures of a clip, and the reason to leave it out (empty: keep it)."""
    change = np.cumsum(recording.change)
    between = np.diff(change[list(frames)])
    sharpness = float(np.median(np.asarray(recording.sharpness)[list(frames)]))
    rate = float(between.sum() / bucket.seconds)
    duplicates = float(np.mean(between < _DUPLICATE))
    measures = {"seconds": float(bucket.seconds), "sharpness": sharpness, "change": rate}
    if sharpness < filters.sharpness:
        return measures, f"blurred: sharpness {sharpness:.3g}, needed {filters.sharpness:g}"
    if rate < filters.change:
        return measures, f"still: changes by {rate:.3g} levels a second, needed {filters.change:g}"
    if duplicates > filters.duplicates:
        return measures, f"{duplicates:.0%} of its frames repeat the one before; at most {filters.duplicates:.0%} may"
    return measures, ""
