"""Rows of a batch: random windows of clips of one WSV dataset, as NumPy arrays of static shapes.

Missing data are marked: `known` is False, and the arrays hold zeros for a channel, a signal and a caption, empty slots
(presence 0) for the core, and a unit camera at the origin, which no arithmetic turns into NaN.
"""

import dataclasses
import functools
import math
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.loading.buffers import BufferPool
from data_pipelines.loading.window import Choices, Window, as_slices, choices, overlaps, sample_views
from data_pipelines.wsv import Dataset
from wsm_jax.snapshot import (
    CAMERA_CHANNELS,
    FIELDS,
    TICK_HZ,
    Camera,
    Waves,
    camera_channels,
    channel,
    crop,
    crop_box,
    resize,
    store,
)
from wsm_jax.snapshot.waves import empty
from wsm_jax.text import CAPTION_BYTES, encode_caption
from wsm_jax.typing import Float, Int

Batch = dict[str, Any]

_decoding = threading.BoundedSemaphore(os.cpu_count() or 1)
"""Limits the threads that decode data from a bucket to the number of processors: the loader has many more threads, which mostly
wait, and would otherwise compete for the interpreter lock."""


def empty_batch(window: Window, rows: int, pool: BufferPool) -> Batch:
    """A batch in which nothing is known yet; its channels are buffers of `pool` with undefined contents.

    {"channels": {name: [B T H W C] stored}, "known": {name, "camera", "core", "text": bool [B]}, "camera": {field: [B T ...]},
    "frame_time": [B T] s from the window's start, "core": {field: [B K N ...]}, "core_time": [B K] s, "caption": uint8
    [B CAPTION_BYTES], "signals": {name: [B T d]}, "events": {"kind": [B M] index into the kinds asked for, -1: none; "time":
    [B M] s, "instances": [B M 2], 0: none} (only where kinds are asked for), "latents": {key: float32
    [B ...]} (only where there are any), "clip": [B], "source": [B]}
    """
    found = _copied(_unknown(window, rows))
    found["channels"] = _channels(window, rows, pool)
    return found


def _copied(tree: Batch) -> Batch:
    """A copy of a tree; arrays of size 0 are shared."""
    return {
        name: _copied(part) if isinstance(part, dict) else part.copy() if part.size else part for name, part in tree.items()
    }


@functools.lru_cache(maxsize=16)
def _unknown(window: Window, rows: int) -> Batch:
    """The initial values of a batch without channels; cached, because creating them takes time."""
    frames = (rows, window.frames)
    signals = dict(window.signals)
    latents = dict(window.latents)
    known = (*window.channels, "camera", "core", "text", *signals, *latents)
    rotation = np.zeros((*frames, 4), np.float32)
    rotation[..., 0] = 1.0
    camera = {"position": np.zeros((*frames, 3), np.float32), "rotation": rotation}
    camera |= {"focal": np.ones(frames, np.float32), "offset": np.zeros((*frames, 2), np.float32)}
    if window.lens:
        camera["distortion"] = np.zeros((*frames, 5), np.float32)
    found: Batch = {
        "channels": {},
        "known": {name: np.zeros(rows, bool) for name in known},
        "camera": camera,
        "frame_time": np.zeros(frames, np.float32),
        "core": {name: np.array(value) for name, value in vars(empty(window.waves, (rows, window.ticks))).items()},
        "core_time": np.tile(np.arange(window.ticks, dtype=np.float32) / np.float32(TICK_HZ), (rows, 1)),
        "caption": np.zeros((rows, CAPTION_BYTES), np.uint8),
        "signals": {name: np.zeros((*frames, width), np.float32) for name, width in signals.items()},
        "clip": np.zeros(rows, np.int64),
        "source": np.zeros(rows, np.int32),
    }
    if latents:
        found["latents"] = {name: np.zeros((rows, *shape), np.float32) for name, shape in latents.items()}
    if window.events:
        shape = (rows, window.max_events)
        kind, time = np.full(shape, -1, np.int32), np.zeros(shape, np.float32)
        found["events"] = {"kind": kind, "time": time, "instances": np.zeros((*shape, 2), np.int32)}
    return found


def _channels(window: Window, rows: int, pool: BufferPool) -> dict[str, np.ndarray]:
    table = {name: channel(name) for name in window.channels}
    shape = (rows, window.frames, window.height, window.width)
    return {name: pool.acquire((*shape, row.components), row.dtype) for name, row in table.items()}


def fit_waves(waves: Waves, slots: int, where: str) -> Waves:
    """The core [K N] with `slots` slots: padded with empty ones, or without the last ones, which must be empty.

    Slots keep their numbers, because the instance channel and captions refer to them. Raises ValueError, naming `where`, when a
    wave is present, at any tick, in a slot that would be dropped.
    """
    if waves.count > slots:
        last = int(np.max(np.flatnonzero((np.asarray(waves.presence) > 0).any(0)), initial=-1))
        if last >= slots:
            raise ValueError(f"{where}: a wave is present in slot {last}; the loader has the slots 0..{slots - 1}; raise waves")
        return Waves(**{name: getattr(waves, name)[:, :slots] for name in FIELDS})
    if waves.count == slots:
        return waves
    pad = empty(slots - waves.count, (waves.presence.shape[0],))
    return Waves(**{name: np.concatenate([getattr(waves, name), getattr(pad, name)], 1) for name in FIELDS})


@dataclasses.dataclass(frozen=True)
class Draws:
    """Random numbers in [0, 1), one of each kind per example."""

    window: Float[np.ndarray, " n"]
    caption: Float[np.ndarray, " n"]
    across: Float[np.ndarray, " n"]
    """Column of the crop of a picture of another aspect, as a fraction of the range."""
    down: Float[np.ndarray, " n"]
    """Row of the crop, likewise."""

    def __getitem__(self, index: int | slice | np.ndarray) -> "Draws":
        rows = slice(index, index + 1) if isinstance(index, int) else index
        return Draws(self.window[rows], self.caption[rows], self.across[rows], self.down[rows])


@dataclasses.dataclass(frozen=True)
class _Picked:
    """One window of each of some clips."""

    frames: Int[np.ndarray, "n F"]
    """Stored frame indices; F = 0 for a dataset without frames."""
    steps: list[slice | np.ndarray]
    """The same as slices where possible."""
    tick: Int[np.ndarray, " n"]
    start: Float[np.ndarray, " n"]
    """Start times, s of the clip."""
    time: Float[np.ndarray, "n T"]
    """Times of the frames, s from the start of the window."""


class WindowReader:
    """Fills rows of batches with windows of the clips of one dataset; thread-safe."""

    def __init__(self, dataset: Dataset, window: Window):
        self.dataset, self.window = dataset, window
        layout = dataset.layout
        self._hz = window.frame_hz or layout.frame_hz
        self._even: dict[int, Choices] = {}
        self._frames = bool(layout.frames and window.frames)
        self._core = bool(layout.ticks and window.ticks)
        # Without frames and ticks there is no window in time, and captions are of the whole clip.
        self._seconds = window.frames / self._hz if self._frames else window.ticks / TICK_HZ if self._core else math.inf
        self._camera = bool(layout.camera and self._frames)
        stored = {*layout.channels, *(CAMERA_CHANNELS if layout.camera else ())}
        self._available = [name for name in window.channels if name in stored] if self._frames else []

    def choices(self, clip: int) -> Choices:
        """The windows of a clip; cached for datasets with even times."""
        dataset, window, layout = self.dataset, self.window, self.dataset.layout
        where = f"{dataset.folder.path} clip {clip}"
        if not dataset.even:
            times = dataset.frame_time(clip) if self._frames else None
            ticks = dataset.core_time(clip) if self._core else None
            return self._aligned(where, choices(where, window, times, ticks, layout.frame_hz))
        count = dataset.frames(clip) if self._frames else 0
        if count not in self._even:
            times = np.arange(count) / layout.frame_hz if self._frames else None
            ticks = np.arange(layout.ticks) / TICK_HZ if self._core else None
            self._even[count] = self._aligned(where, choices(where, window, times, ticks, layout.frame_hz))
        return self._even[count]

    def _aligned(self, where: str, found: Choices) -> Choices:
        """The windows that begin with a chunk, if the window asks for that. Raises ValueError where none does."""
        if not (self.window.aligned and self._frames):
            return found
        kept = found.frames[:, 0] % self.dataset.layout.frames_per_chunk == 0
        if not kept.any():
            raise ValueError(
                f"{where}: no window of {self.window.frames} frames and {self.window.ticks} ticks begins with a chunk of "
                f"{self.dataset.layout.frames_per_chunk} frames; use aligned=False"
            )
        return Choices(found.frames[kept], found.tick[kept], found.start[kept])

    def fill(self, batch: Batch, rows: Sequence[int], clips: Sequence[int], draws: Draws) -> None:
        """Fills rows of an `empty_batch` with windows of clips, chosen by the draws; the caller sets "source".

        Raises ValueError, naming the dataset, for what does not fit (see `choices`, `fit_waves`) and for damaged files, and
        OSError for files that cannot be read; the contents of the rows are then undefined.
        """
        folder = self.dataset.folder
        if folder.local:
            picked = self._pick(clips, draws.window)
            return self._fill(batch, rows, clips, picked, draws)
        with folder.asking():
            if self.dataset.layout.ragged or not self.dataset.even:
                self.dataset.ask(clips, times=not self.dataset.even)
            picked = self._pick(clips, draws.window)
            self._ask(clips, picked)
            folder.settle()
            with _decoding:
                self._fill(batch, rows, clips, picked, draws)

    def _fill(self, batch: Batch, rows: Sequence[int], clips: Sequence[int], picked: _Picked, draws: Draws) -> None:
        window, layout, known = self.window, self.dataset.layout, batch["known"]
        place = slice(rows[0], rows[-1] + 1) if rows[-1] - rows[0] + 1 == len(rows) else list(rows)
        batch["frame_time"][place] = picked.time
        batch["clip"][place] = clips
        for name in self._available:
            known[name][place] = True
        for name in window.channels:
            if name not in self._available:
                batch["channels"][name][place] = 0
        known["camera"][place], known["core"][place] = self._camera, self._core
        if self._frames:
            self._pictures(batch, rows, clips, picked.steps, draws)
        if not (self._core or layout.captions or (layout.signals and window.signals) or window.events):
            return
        for number, (row, clip) in enumerate(zip(rows, clips, strict=True)):
            start = float(picked.start[number])
            if self._core:
                self._state(batch, row, clip, int(picked.tick[number]), start)
            if layout.captions:
                self._caption(batch, row, clip, float(draws.caption[number]), start)
            if layout.signals and window.signals:
                self._signals(batch, row, clip, picked.time[number] + start)
            if window.events:
                self._events(batch, row, clip, start)

    def _pick(self, clips: Sequence[int], draw: np.ndarray) -> _Picked:
        dataset, layout, count = self.dataset, self.dataset.layout, len(clips)
        if layout.over == "views" and self._frames:
            frames = np.stack([self._views(clip, part) for clip, part in zip(clips, draw.tolist(), strict=True)])
            return _Picked(frames, as_slices(frames), np.zeros(count, np.int64), np.zeros(count), np.zeros(frames.shape))
        if dataset.even and not (layout.ragged and self._frames):
            found = self.choices(clips[0])  # those of all clips
            number = (draw * len(found.tick)).astype(np.int64)
            frames, tick, start = found.frames[number], found.tick[number], found.start[number]
            steps = [found.steps[each] for each in number.tolist()] if self._frames else []
        else:
            several = [(found := self.choices(c), int(d * len(found.tick))) for c, d in zip(clips, draw.tolist(), strict=True)]
            frames = np.stack([found.frames[number] for found, number in several])
            steps = as_slices(frames)
            tick = np.array([found.tick[number] for found, number in several])
            start = np.array([found.start[number] for found, number in several])
        if not self._frames:
            time = np.tile(np.arange(self.window.frames) / (self._hz or 1.0), (count, 1))
        elif dataset.even:
            time = frames / layout.frame_hz - start[:, None]
        else:
            shown = [dataset.frame_time(clip)[index] for clip, index in zip(clips, frames, strict=True)]
            time = np.stack(shown) - start[:, None]
        return _Picked(frames, steps, tick, start, time)

    def _views(self, clip: int, draw: float) -> np.ndarray:
        where = f"{self.dataset.folder.path} clip {clip}"
        return sample_views(where, self.window, self.dataset.frames(clip), int(draw * 2**53))

    def _ask(self, clips: Sequence[int], picked: _Picked) -> None:
        """Sends the requests for all rows before waiting for any answer."""
        window, layout = self.window, self.dataset.layout
        self.dataset.ask(
            clips,
            [name for name in self._available if name in layout.channels],
            picked.steps if self._frames else None,
            [slice(tick, tick + window.ticks) for tick in picked.tick.tolist()] if self._core else None,
            text=layout.captions or bool(window.events),
            signals=bool(layout.signals and window.signals),
        )

    def _pictures(
        self, batch: Batch, rows: Sequence[int], clips: Sequence[int], steps: Sequence[slice | np.ndarray], draws: Draws
    ) -> None:
        """Fills channels and cameras."""
        window, layout = self.window, self.dataset.layout
        size, names = (window.height, window.width), self._available
        if size == (layout.height, layout.width):  # read straight into their rows
            stored = {name: batch["channels"][name] for name in names if name in layout.channels}
            if stored:
                self.dataset.read_rows(clips, steps, stored, rows)
            names = [name for name in names if name not in stored]
        if not (names or layout.camera):
            return
        for number, (row, clip) in enumerate(zip(rows, clips, strict=True)):
            place = None if window.crop == "middle" else (float(draws.across[number]), float(draws.down[number]))
            found, camera = read(self.dataset, clip, names, steps[number], size, place)
            for name, values in found.items():
                batch["channels"][name][row] = values
            for name, values in batch["camera"].items() if camera is not None else ():
                value = getattr(camera, name)
                values[row] = 0.0 if value is None else value

    def _state(self, batch: Batch, row: int, clip: int, tick: int, start: float) -> None:
        """Fills the core."""
        found = self.dataset.core(clip, slice(tick, tick + self.window.ticks))
        assert found is not None
        waves = fit_waves(found[0], self.window.waves, f"{self.dataset.folder.path} clip {clip}")
        for name, values in batch["core"].items():
            values[row] = getattr(waves, name)
        batch["core_time"][row] = found[1] - start

    def _caption(self, batch: Batch, row: int, clip: int, draw: float, start: float) -> None:
        """Fills in one of the captions of the whole clip, or of the time of the window."""
        captions, spans = self.dataset.captions(clip), self.dataset.spans(clip)
        if spans:
            end = start + self._seconds
            pairs = zip(captions, spans, strict=True)
            captions = tuple(text for text, span in pairs if span is None or overlaps(span, start, end))
        text = captions[0 if self.window.first_caption else int(draw * len(captions))] if captions else ""
        batch["caption"][row] = encode_caption(text, f"{self.dataset.folder.path} clip {clip}")
        batch["known"]["text"][row] = bool(text)

    def _signals(self, batch: Batch, row: int, clip: int, time: np.ndarray) -> None:
        signals = self.dataset.signals(clip)
        for name, values in batch["signals"].items():
            batch["known"][name][row] = name in signals
            values[row] = signals[name].at(time) if name in signals else 0.0

    def _events(self, batch: Batch, row: int, clip: int, start: float) -> None:
        """Fills in the first events from the start of the window to its last frame or tick."""
        window, listed = self.window, batch["events"]
        ends = [(window.frames - 1) / self._hz if self._frames else 0.0, (window.ticks - 1) / TICK_HZ if self._core else 0.0]
        found = [
            event
            for event in self.dataset.events(clip)
            if event["kind"] in window.events and -1e-6 <= event["time"] - start <= max(ends) + 1e-6
        ]
        listed["kind"][row], listed["time"][row], listed["instances"][row] = -1, 0.0, 0
        for number, event in enumerate(sorted(found, key=lambda event: event["time"])[: window.max_events]):
            listed["kind"][row, number] = window.events.index(event["kind"])
            listed["time"][row, number] = event["time"] - start
            pair = event.get("instances", ())[:2]
            listed["instances"][row, number, : len(pair)] = pair


def read(
    dataset: Dataset,
    clip: int,
    channels: Sequence[str],
    steps: np.ndarray | slice,
    size: tuple[int, int],
    place: tuple[float, float] | None = None,
) -> tuple[dict[str, np.ndarray], Camera | None]:
    """The channels of some frames of a clip that a dataset stores or its cameras determine, and these cameras.

    Stored integers [T H W C], cropped to the aspect of `size` (H, W) at `place` (see `crop_box`), and resized.
    Raises as `Dataset.read` does.
    """
    layout, whole = dataset.layout, (dataset.layout.height, dataset.layout.width)
    given = [name for name in channels if name in layout.channels]
    found = dataset.read(clip, given, steps) if given else {}
    camera = dataset.camera(clip, steps) if layout.camera else None
    if layout.channels and whole != size:
        top, left, rows, columns = crop_box(whole, *size, place=place)
        for name, values in found.items():
            part = values if (rows, columns) == whole else values[:, top : top + rows, left : left + columns]
            found[name] = _scaled(name, resize(name, part, *size), whole[0] / rows)
        if camera is not None and (rows, columns) != whole:
            camera = crop(camera, whole, top, left, rows, columns)
    if camera is not None:
        found |= {name: store(name, values) for name, values in camera_channels(camera, *size, channels).items()}
    return found, camera


def _scaled(name: str, values: np.ndarray, by: float) -> np.ndarray:
    """The values of a channel in image units after a crop that divides the image height by `by`."""
    if not channel(name).image_units or by == 1.0:
        return values
    limits = np.iinfo(values.dtype)
    return np.clip(np.rint(values * by), limits.min, limits.max).astype(values.dtype)
