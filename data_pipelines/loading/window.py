"""One example: a random window of one clip of a WSV dataset, as NumPy arrays of static shapes.

What a dataset does not have is never invented: `known` is False, and in its place stand zeros for a channel, a signal and a
caption, empty slots (presence 0) for the core, and a unit camera at the origin, which no arithmetic turns into NaN.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.loading.order import permuted
from data_pipelines.wsv import Dataset
from wsm_jax.snapshot import FIELDS, TICK_HZ, Camera, Waves, channel, crop, ground, resize, store
from wsm_jax.snapshot.waves import empty
from wsm_jax.typing import Float, Int, NpOrJax, Shaped, UInt8

CAPTION_BYTES = 512
"""Length of the `caption` array: UTF-8, padded with zeros."""

CROPS = ("middle", "random")

_ALIGNED = 1e-3
"""Times closer than this fraction of a frame period are equal (times on disk are rounded)."""


@dataclasses.dataclass(frozen=True)
class Window:
    """What one example holds."""

    channels: tuple[str, ...]
    frames: int
    frame_hz: float | int | None
    """None: every stored frame."""
    height: int
    width: int
    ticks: int
    waves: int
    first_caption: bool = False
    """The first caption of a clip, the plain one, instead of a random one."""
    signals: tuple[tuple[str, int], ...] = ()
    """(name, components) of actions and other numbers, as they hold at each frame."""
    events: tuple[str, ...] = ()
    """The kinds of events that are told, ..."""
    most_events: int = 8
    """... and how many of an example, at most: the first ones."""
    crop: str = "middle"
    """Where a picture of another aspect is cut: in the "middle", or at "random", the same for all frames of an example."""
    aligned: bool = False
    """Windows begin where chunks do, so that no frame is read that is not used."""
    lens: bool = False
    """Cameras come with the coefficients of their lens; those of pinholes are 0."""


@dataclasses.dataclass(frozen=True)
class Choices:
    """Every window that a clip has room for."""

    frames: Int[np.ndarray, "S F"]
    """The stored frames of each, ..."""
    tick: Int[np.ndarray, " S"]
    """... its first tick, ..."""
    start: Float[np.ndarray, " S"]
    """... and where it starts, s of the clip."""


def choices(
    where: str,
    window: Window,
    frame_time: Shaped[np.ndarray, " T"] | None,
    core_time: Shaped[np.ndarray, " K"] | None,
    stored_hz: float | int,
) -> Choices:
    """The windows of a clip with frames and ticks at some times (s); None: the dataset has no frames, or no core.

    With a core a window starts at a tick, and its first frame is the first one at or after that tick; without, at a frame.
    The others are the stored frames nearest to first + i / frame_hz. Raises ValueError, naming `where`, for a clip that is too
    short, or frames asked for faster than they are stored.
    """
    hz = window.frame_hz or stored_hz
    frames = 0 if frame_time is None else window.frames
    ticks = 0 if core_time is None else window.ticks
    asked = f"the loader asks for {window.frames} frames at {hz:g} Hz and {window.ticks} ticks at {TICK_HZ:g} Hz"
    if window.frames and not hz > 0:
        raise ValueError(f"{where}: the dataset has no frame rate, so the loader needs frame_hz above 0; got {window.frame_hz}")
    if frames > 1 and hz > stored_hz * 1.01:
        raise ValueError(f"{where}: frames are stored at {stored_hz:g} Hz; {asked}; lower frame_hz, or leave this dataset out")
    if core_time is not None and ticks > len(core_time):
        raise ValueError(f"{where}: a clip has {len(core_time)} ticks; {asked}; ask for fewer ticks, or build longer clips")
    times = np.zeros(1) if frame_time is None else np.asarray(frame_time, np.float64)
    starts = times
    if core_time is not None and ticks:
        starts = np.asarray(core_time, np.float64)[: len(core_time) - ticks + 1]
    if not frames:
        return Choices(np.zeros((len(starts), 0), np.int64), np.arange(len(starts)), starts)
    first = np.searchsorted(times, starts - _ALIGNED / stored_hz)
    fits = first < len(times)
    fits[fits] = times[first[fits]] + (frames - 1) / hz <= times[-1] + 0.25 / stored_hz
    if not fits.any():
        ticks_note = "" if core_time is None else f" and {len(core_time)} ticks"
        raise ValueError(
            f"{where}: a clip has {len(times)} frames at {stored_hz:g} Hz ({times[-1] - times[0]:.3f} s from first to last)"
            f"{ticks_note}; {asked} ({(frames - 1) / hz:.3f} s); ask for fewer or faster frames, or build longer clips"
        )
    tick = np.flatnonzero(fits)
    between = 0.5 * (times[1:] + times[:-1])
    wanted = times[first[tick]][:, None] + np.arange(frames) / hz - _ALIGNED / stored_hz
    index = np.searchsorted(between, wanted)
    if np.any(np.diff(index, axis=1) < 1):
        raise ValueError(f"{where}: the stored frame times are too uneven: one frame would stand for two; {asked}")
    return Choices(index, tick, starts[tick])


def views(where: str, window: Window, count: int, seed: int) -> Int[np.ndarray, " F"]:
    """Random views of an instant, each once. Raises ValueError for fewer than are asked for."""
    if count < window.frames:
        raise ValueError(f"{where}: has {count} views; the loader asks for {window.frames}; ask for fewer, or leave it out")
    seeds = np.full(window.frames, seed, np.uint64)
    return permuted(np.arange(window.frames), count, seeds)


def fit_waves(waves: Waves, slots: int, where: str) -> Waves:
    """The core [K N] with `slots` slots: filled up with empty ones, or without the last ones, which must be empty.

    Slots keep their numbers, for the instance channel and captions speak of them. Raises ValueError, naming `where`, when a
    wave is present, at any tick, in a slot that there is not.
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


def encode_caption(text: str, where: str) -> UInt8[np.ndarray, " L"]:
    """UTF-8 bytes padded with zeros to CAPTION_BYTES. Raises ValueError, naming `where`, when they are more."""
    data = text.encode()
    if len(data) > CAPTION_BYTES:
        raise ValueError(f"{where}: a caption has {len(data)} UTF-8 bytes, at most {CAPTION_BYTES} fit: {text[:60]!r}...")
    found = np.zeros(CAPTION_BYTES, np.uint8)
    found[: len(data)] = np.frombuffer(data, np.uint8)
    return found


def decode_caption(data: Shaped[NpOrJax, " L"]) -> str:
    """Inverse of `encode_caption`."""
    return np.asarray(data, np.uint8).tobytes().rstrip(b"\0").decode()


def cut(size: tuple[int, int], height: int, width: int, across: float, down: float) -> tuple[int, int, int, int]:
    """(top, left, rows, columns) of the largest part of a picture of `size` with the aspect of height x width; `across` and
    `down` in [0, 1) say where, 0.5 in the middle."""
    rows = min(size[0], max(1, round(size[1] * height / width)))
    columns = min(size[1], max(1, round(size[0] * width / height)))
    top, left = int(down * (size[0] - rows + 1)), int(across * (size[1] - columns + 1))
    return top, left, rows, columns


class Reader:
    """Examples of one dataset by a window at some rate; for threads.

    What a dataset does not have is the same arrays in all of them, unless they are to be their `own`, for one who writes.
    """

    def __init__(self, dataset: Dataset, window: Window, own: bool = False):
        self.dataset, self.window, self._own = dataset, window, own
        layout = dataset.layout
        self._hz = window.frame_hz or layout.frame_hz
        self._even: dict[int, Choices] = {}
        self._frames = bool(layout.frames and window.frames)
        self._no_camera = self._lensed(_no_camera(window.frames))
        self._no_core = _arrays(empty(window.waves, (window.ticks,)))
        self._no_text = encode_caption("", "")
        self._core = bool(layout.ticks and window.ticks)

    def choices(self, clip: int) -> Choices:
        """The windows of a clip; of datasets with even times they are worked out once."""
        dataset, window, layout = self.dataset, self.window, self.dataset.layout
        where = f"{dataset.folder.path} clip {clip}"
        if not dataset.even:
            times = dataset.frame_time(clip) if self._frames else None
            core = dataset.core(clip) if self._core else None
            return self._aligned(where, choices(where, window, times, core[1] if core else None, layout.frame_hz))
        count = dataset.frames(clip) if self._frames else 0
        if count not in self._even:
            times = np.arange(count) / layout.frame_hz if self._frames else None
            ticks = np.arange(layout.ticks) / TICK_HZ if self._core else None
            self._even[count] = self._aligned(where, choices(where, window, times, ticks, layout.frame_hz))
        return self._even[count]

    def _aligned(self, where: str, found: Choices) -> Choices:
        """The windows that begin with a chunk, where that is asked for. Raises ValueError where none does."""
        if not (self.window.aligned and self._frames):
            return found
        kept = found.frames[:, 0] % self.dataset.layout.frames_per_chunk == 0
        if not kept.any():
            raise ValueError(
                f"{where}: no window of {self.window.frames} frames and {self.window.ticks} ticks begins with a chunk of "
                f"{self.dataset.layout.frames_per_chunk} frames; ask for windows that need not be aligned"
            )
        return Choices(found.frames[kept], found.tick[kept], found.start[kept])

    def example(self, clip: int, draws: Sequence[float]) -> dict[str, Any]:
        """The window of a clip that four numbers in [0, 1) choose (window, caption, place across and down): arrays of static
        shapes, times from the window's start.

        {"channels": {name: [T H W C] stored}, "known": {name, "camera", "core", "text": bool}, "camera": {field: [T ...]},
        "frame_time": [T], "core": {field: [K N ...]}, "core_time": [K], "caption": uint8 [CAPTION_BYTES],
        "signals": {name: [T d]}, "events": {"kind": [M] index into the kinds asked for, -1: none; "time": [M], "instances":
        [M 2], 0: none}, of those that happen within the window (only where kinds are asked for)}
        Raises ValueError, naming the dataset, for what does not fit (see `choices`, `fit_waves`) and for damaged files.
        """
        dataset, window, layout = self.dataset, self.window, self.dataset.layout
        where = f"{dataset.folder.path} clip {clip}"
        if layout.over == "views" and self._frames:
            index, tick, start = views(where, window, dataset.frames(clip), int(draws[0] * 2**53)), 0, 0.0
        else:
            found = self.choices(clip)
            number = int(draws[0] * len(found.tick))
            index, tick, start = found.frames[number], int(found.tick[number]), float(found.start[number])
        place = (0.5, 0.5) if window.crop == "middle" else (draws[2], draws[3])
        size = (window.height, window.width)
        channels, camera = read(dataset, clip, window.channels, index, size, place) if self._frames else ({}, None)
        captions = dataset.captions(clip) if layout.captions else ()
        text = captions[0 if window.first_caption else int(draws[1] * len(captions))] if captions else ""
        known = {name: np.bool_(name in channels) for name in window.channels}
        known |= {"camera": np.bool_(camera is not None), "core": np.bool_(self._core), "text": np.bool_(bool(text))}
        shown = self._times(clip, index, start)
        signals = dataset.signals(clip) if layout.signals and window.signals else {}
        for name, _ in window.signals:
            known[name] = np.bool_(name in signals)
        return {
            "channels": {name: channels[name] if name in channels else _zeros(name, window) for name in window.channels},
            "known": known,
            "camera": self._absent(self._no_camera) if camera is None else self._lensed(camera),
            "frame_time": shown.astype(np.float32),
            **self._state(clip, tick, start, where),
            **({"events": self._events(clip, start)} if window.events else {}),
            "caption": encode_caption(text, where) if text or self._own else self._no_text,
            "signals": {
                name: np.asarray(signals[name].at(shown + start), np.float32)
                if name in signals
                else np.zeros((window.frames, width), np.float32)
                for name, width in window.signals
            },
        }

    def _events(self, clip: int, start: float) -> dict[str, np.ndarray]:
        """What happens from the start of the window to its last frame or tick."""
        window = self.window
        ends = [(window.frames - 1) / self._hz if self._frames else 0.0, (window.ticks - 1) / TICK_HZ if self._core else 0.0]
        found = [
            event
            for event in self.dataset.events(clip)
            if event["kind"] in window.events and -1e-6 <= event["time"] - start <= max(ends) + 1e-6
        ]
        most = window.most_events
        kind, time = np.full(most, -1, np.int32), np.zeros(most, np.float32)
        instances = np.zeros((most, 2), np.int32)
        for row, event in enumerate(sorted(found, key=lambda event: event["time"])[:most]):
            kind[row], time[row] = window.events.index(event["kind"]), event["time"] - start
            some = event.get("instances", ())[:2]
            instances[row, : len(some)] = some
        return {"kind": kind, "time": time, "instances": instances}

    def _absent(self, fields: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {name: values.copy() for name, values in fields.items()} if self._own else fields

    def _lensed(self, camera: Camera) -> dict[str, np.ndarray]:
        """The fields of the cameras."""
        found = _arrays(camera)
        if self.window.lens:
            count = len(found["focal"])
            found["distortion"] = np.zeros((count, 5), np.float32) if camera.distortion is None else np.array(camera.distortion)
        return found

    def _times(self, clip: int, index: np.ndarray, start: float) -> np.ndarray:
        """Times of the frames from the window's start, s; of views 0."""
        if not self._frames:
            return np.arange(self.window.frames) / (self._hz or 1.0)
        if self.dataset.layout.over == "views":
            return np.zeros(len(index))
        if self.dataset.even:
            return index / self.dataset.layout.frame_hz - start
        return self.dataset.frame_time(clip)[index] - start

    def _state(self, clip: int, tick: int, start: float, where: str) -> dict[str, Any]:
        """The core of the window."""
        window = self.window
        core = self.dataset.core(clip, slice(tick, tick + window.ticks)) if self._core else None
        if core is None:
            return {
                "core": self._absent(self._no_core),
                "core_time": np.arange(window.ticks, dtype=np.float32) / np.float32(TICK_HZ),
            }
        waves = fit_waves(core[0], window.waves, where)
        return {"core": _arrays(waves), "core_time": np.asarray(core[1] - start, np.float32)}


def read(
    dataset: Dataset,
    clip: int,
    channels: Sequence[str],
    index: np.ndarray,
    size: tuple[int, int],
    place: tuple[float, float] = (0.5, 0.5),
) -> tuple[dict[str, np.ndarray], Camera | None]:
    """Those of the channels that a dataset has, or its cameras tell, of some frames of a clip, and these cameras.

    Stored integers [T H W C], cut to the aspect of `size` (H, W) at `place` (see `cut`), and resized.
    """
    layout, whole = dataset.layout, (dataset.layout.height, dataset.layout.width)
    given = [name for name in channels if name in layout.channels]
    steps = slice(int(index[0]), int(index[-1]) + 1) if len(index) and np.all(np.diff(index) == 1) else index
    out = dataset.read(clip, given, steps) if given else {}
    camera = dataset.camera(clip, steps)
    if layout.channels and whole != size:
        top, left, rows, columns = cut(whole, *size, *place)
        for name, values in out.items():
            part = values if (rows, columns) == whole else values[:, top : top + rows, left : left + columns]
            out[name] = _scaled(name, resize(name, part, *size), whole[0] / rows)
        if camera is not None and (rows, columns) != whole:
            camera = crop(camera, whole, top, left, rows, columns)
    if "ground" in channels and camera is not None:
        out["ground"] = store("ground", ground(camera, *size))
    return out, camera


def _scaled(name: str, values: np.ndarray, by: float) -> np.ndarray:
    """Motion is in heights of the picture, which a crop makes fewer pixels."""
    if name != "motion" or by == 1.0:
        return values
    limits = np.iinfo(values.dtype)
    return np.clip(np.rint(values * by), limits.min, limits.max).astype(values.dtype)


_LENS = ("distortion", "orthographic")


def _arrays(tree: Camera | Waves) -> dict[str, np.ndarray]:
    """The fields as arrays of their own, which a transform may change."""
    return {name: np.array(value) for name, value in vars(tree).items() if name not in _LENS}


def _zeros(name: str, window: Window) -> np.ndarray:
    row = channel(name)
    return np.zeros((window.frames, window.height, window.width, row.components), row.dtype)


def _no_camera(frames: int) -> Camera:
    rotation = np.tile(np.asarray([1, 0, 0, 0], np.float32), (frames, 1))
    zeros = np.zeros((frames, 3), np.float32)
    return Camera(zeros, rotation, np.ones(frames, np.float32), zeros[:, :2])
