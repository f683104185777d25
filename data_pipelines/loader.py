"""Batches of random windows from a weighted mixture of WSV datasets, by Grain's threads, reproducible to the bit.

The order is a pure function of the position p = 0, 1, 2, ... of an example in the endless sequence of the run:

    p -> (source, clip)    by the weights and a shuffle of every source that is new in each epoch (Grain)
    (seed, p) -> window    a generator of its own draws rate, first frame or tick, and caption

A global batch s holds positions s*B .. (s+1)*B - 1, and host h of n delivers rows h*B/n .. (h+1)*B/n - 1 of it. So a batch
depends on neither threads nor hosts, and the state of the loader is the number of batches delivered.

What a dataset does not have is never invented: `known` is False, and in its place stand zeros for a channel and a
caption, empty slots (presence 0) for the core, and a unit camera at the origin, which no arithmetic turns into NaN.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np

from data_pipelines.format import Dataset
from wsm_jax.snapshot import FIELDS, TICK_HZ, Waves, channel, resize
from wsm_jax.snapshot.waves import empty
from wsm_jax.typing import Bool, Float, Int, NpOrJax, Shaped, UInt8

CAPTION_BYTES = 512
"""Length of the `caption` array: UTF-8, padded with zeros."""

_ALIGNED = 1e-3
"""Times closer than this fraction of a frame period are equal (times on disk are rounded)."""


@dataclasses.dataclass(frozen=True)
class Source:
    """One dataset of the mixture."""

    path: str | Path
    weight: float = 1.0
    """Share of the examples, relative to the other sources (Grain keeps 1 % of the smallest weight)."""
    frame_hz: tuple[float, ...] = ()
    """Rates to choose from at random, frames per second; empty: the rate of the loader."""


@dataclasses.dataclass(frozen=True)
class Window:
    """What one example holds."""

    channels: tuple[str, ...]
    frames: int
    frame_hz: float | None
    """None: every stored frame."""
    height: int
    width: int
    ticks: int
    waves: int


def pick(
    where: str,
    window: Window,
    frame_time: Shaped[np.ndarray, " T"] | None,
    core_time: Shaped[np.ndarray, " K"] | None,
    stored_hz: float,
    rng: np.random.Generator,
) -> tuple[Int[np.ndarray, " F"], int, float]:
    """A random window of a clip: indices of its frames, its first tick, and its start in seconds of the clip.

    With a core the window starts at a tick, and its first frame is the first one at or after that tick; without, at a frame.
    The others are the stored frames nearest to first + i / frame_hz. `None` times: the dataset has no frames, or no core.
    Raises ValueError, naming `where`, for a clip that is too short, or frames asked for faster than they are stored.
    """
    hz = window.frame_hz or stored_hz
    frames = 0 if frame_time is None else window.frames
    ticks = 0 if core_time is None else window.ticks
    asked = f"the loader asks for {window.frames} frames at {hz:g} Hz and {window.ticks} ticks at {TICK_HZ:g} Hz"
    if frames > 1 and hz > stored_hz * 1.01:
        raise ValueError(f"{where}: frames are stored at {stored_hz:g} Hz; {asked}; lower frame_hz, or leave this dataset out")
    if core_time is not None and ticks > len(core_time):
        raise ValueError(f"{where}: a clip has {len(core_time)} ticks; {asked}; ask for fewer ticks, or build longer clips")
    times = np.zeros(1) if frame_time is None else np.asarray(frame_time, np.float64)
    starts = times
    if core_time is not None and ticks:
        starts = np.asarray(core_time, np.float64)[: len(core_time) - ticks + 1]
    if not frames:
        tick = int(rng.integers(len(starts)))
        return np.zeros(0, np.int64), tick, float(starts[tick])

    first = np.searchsorted(times, starts - _ALIGNED / stored_hz)
    fits = first < len(times)
    fits[fits] = times[first[fits]] + (frames - 1) / hz <= times[-1] + 0.25 / stored_hz
    if not fits.any():
        ticks_note = "" if core_time is None else f" and {len(core_time)} ticks"
        raise ValueError(
            f"{where}: a clip has {len(times)} frames at {stored_hz:g} Hz ({times[-1] - times[0]:.3f} s from first to last)"
            f"{ticks_note}; {asked} ({(frames - 1) / hz:.3f} s); ask for fewer or faster frames, or build longer clips"
        )
    tick = int(rng.choice(np.flatnonzero(fits)))
    between = 0.5 * (times[1:] + times[:-1])
    index = np.searchsorted(between, times[first[tick]] + np.arange(frames) / hz - _ALIGNED / stored_hz)
    if np.any(np.diff(index) < 1):
        raise ValueError(f"{where}: the stored frame times are too uneven: one frame would stand for two; {asked}")
    return index, tick, float(starts[tick])


def fit_waves(waves: Waves, slots: int, where: str) -> Waves:
    """Pads the core [K N] with empty slots to `slots`, after dropping slots that are empty at every tick if they are too many.

    Raises ValueError, naming `where`, when more waves are present than there are slots.
    """
    if waves.count > slots:
        present = np.flatnonzero((np.asarray(waves.presence) > 0).any(0))
        if len(present) > slots:
            raise ValueError(f"{where}: {len(present)} waves are present; the loader has waves={slots} slots; raise waves")
        waves = Waves(**{name: getattr(waves, name)[:, present] for name in FIELDS})
    if waves.count == slots:
        return waves
    pad = empty(slots - waves.count, (waves.presence.shape[0],))
    return Waves(**{name: np.concatenate([getattr(waves, name), getattr(pad, name)], 1) for name in FIELDS})


def encode_caption(text: str, where: str) -> UInt8[np.ndarray, " L"]:
    """UTF-8 bytes padded with zeros to CAPTION_BYTES. Raises ValueError, naming `where`, when they are more."""
    data = np.frombuffer(text.encode(), np.uint8)
    if len(data) > CAPTION_BYTES:
        raise ValueError(f"{where}: a caption has {len(data)} UTF-8 bytes, at most {CAPTION_BYTES} fit: {text[:60]!r}...")
    return np.pad(data, (0, CAPTION_BYTES - len(data)))


def decode_caption(data: Shaped[NpOrJax, " L"]) -> str:
    """Inverse of `encode_caption`."""
    return np.asarray(data, np.uint8).tobytes().rstrip(b"\0").decode()


def example(dataset: Dataset, clip: int, window: Window, rng: np.random.Generator) -> dict[str, Any]:
    """A random window of one clip as NumPy arrays of static shapes; times in seconds from the start of the window.

    {"channels": {name: [T H W C] stored}, "known": {name, "camera", "core", "text": bool}, "camera": {field: [T ...]},
    "frame_time": [T], "core": {field: [K N ...]}, "core_time": [K], "caption": uint8 [CAPTION_BYTES]}
    Raises ValueError, naming the dataset, for what does not fit (see `pick`, `fit_waves`) and for damaged files.
    """
    where, layout = f"{dataset.path} clip {clip}", dataset.layout
    core = dataset.core(clip) if layout.ticks and window.ticks else None
    frame_time = dataset.frame_time(clip) if layout.frames and window.frames else None
    index, tick, start = pick(where, window, frame_time, core[1] if core else None, layout.frame_hz, rng)
    channels, camera = _frames(dataset, clip, window, index)
    captions = dataset.captions(clip) if layout.captions else ()
    text = captions[int(rng.integers(len(captions)))] if captions else ""

    waves, core_time = empty(window.waves, (window.ticks,)), np.arange(window.ticks) / TICK_HZ
    if core is not None:
        kept = slice(tick, tick + window.ticks)
        waves, core_time = fit_waves(core[0], window.waves, where)[kept], core[1][kept] - start
    hz = window.frame_hz or layout.frame_hz
    shown = np.arange(window.frames) / hz if frame_time is None else np.asarray(frame_time)[index] - start
    known = {name: name in channels for name in window.channels}
    known |= {"camera": camera is not None, "core": core is not None, "text": bool(text)}
    return {
        "channels": {name: channels[name] if name in channels else _zeros(name, window) for name in window.channels},
        "known": {name: np.bool_(value) for name, value in known.items()},
        "camera": camera or _no_camera(window.frames),
        "frame_time": shown.astype(np.float32),
        "core": {name: np.asarray(getattr(waves, name)) for name in FIELDS},
        "core_time": np.asarray(core_time, np.float32),
        "caption": encode_caption(text, where),
    }


def _frames(dataset: Dataset, clip: int, window: Window, index: np.ndarray) -> tuple[dict[str, np.ndarray], dict | None]:
    """The channels that the dataset has, [T H W C] at the window's size, and its camera."""
    layout = dataset.layout
    if not len(index):
        return {}, None
    frames = index.tolist()
    if len(frames) == frames[-1] - frames[0] + 1:
        frames = slice(frames[0], frames[-1] + 1)
    names = [name for name in window.channels if name in layout.channels]
    read = dataset.read(clip, names, frames) if names else {}
    channels = {name: resize(name, values, window.height, window.width) for name, values in read.items()}
    camera = dataset.camera(clip, frames) if layout.camera else None
    fields = ("position", "rotation", "focal", "offset")
    return channels, None if camera is None else {name: np.asarray(getattr(camera, name), np.float32) for name in fields}


def _zeros(name: str, window: Window) -> np.ndarray:
    row = channel(name)
    return np.zeros((window.frames, window.height, window.width, row.components), row.dtype)


def _no_camera(frames: int) -> dict[str, Float[np.ndarray, "..."]]:
    rotation = np.tile(np.float32([1, 0, 0, 0]), (frames, 1))
    shapes = {"position": np.zeros((frames, 3), np.float32), "offset": np.zeros((frames, 2), np.float32)}
    return {**shapes, "rotation": rotation, "focal": np.ones(frames, np.float32)}


class _HostRows(grain.MapDataset):
    """(position, element of the parent) for the rows of every whole global batch that belong to one host."""

    def __init__(self, parent: grain.MapDataset, batch_size: int, host_index: int, host_count: int):
        super().__init__(parent)
        self._batch, self._rows, self._host = batch_size, batch_size // host_count, host_index

    def __len__(self) -> int:
        return len(self._parent) // self._batch * self._rows

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.slice(index)
        step, row = divmod(index, self._rows)
        position = step * self._batch + self._host * self._rows + row
        return position, self._parent[position]


class Loader(Iterator[dict[str, Any]]):
    """The iterator that `loader` makes; `examples` is this host's part of the sequence, by random access."""

    def __init__(self, examples: grain.MapDataset, rows: int, threads: int, order: dict[str, Any]):
        self._examples, self._rows, self._threads, self._order = examples, rows, threads, order
        self._seek(0)

    def _seek(self, step: int) -> None:
        # A new iterator on the rest of the sequence: nothing that an old one has prefetched can reach us.
        self.close()
        self._step = step
        options = grain.ReadOptions(self._threads, max(2 * self._threads, self._rows) if self._threads else 0)
        batches = self._examples[step * self._rows :].to_iter_dataset(options).batch(self._rows)
        ahead = grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=1 if self._threads else 0)
        self._batches = iter(ahead)

    def __next__(self) -> dict[str, Any]:
        """This host's part of the next batch: the tree of `example`, plus "clip" and "source", with a leading axis B / hosts."""
        try:
            batch = next(self._batches)
        except StopIteration:
            raise
        except Exception:
            self._seek(self._step)  # Grain would go on behind the example that failed; asked again, we fail again
            raise
        self._step += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """Where the loader stands, for JSON: valid for any host_count, threads and machine."""
        return {"version": 1, "step": self._step, "order": self._order}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on where `get_state` was taken. Raises ValueError when it belongs to another order of examples."""
        if state["version"] != 1:
            raise ValueError(f"loader state of version {state['version']}; this release reads version 1")
        other = [
            f"{key} was {state['order'][key]!r}, is {value!r}"
            for key, value in self._order.items()
            if state["order"][key] != value
        ]
        if other:
            raise ValueError(
                f"loader state of another order of examples: {'; '.join(other)}; restore what it was, or start anew"
            )
        self._seek(state["step"])

    def close(self) -> None:
        """Stops the threads."""
        if hasattr(self, "_batches"):
            self._batches.close()


def _check(dataset: Dataset, source: Source, window: Window) -> None:
    """Raises ValueError, naming the dataset, when a source cannot serve the window."""
    layout, where = dataset.layout, str(source.path)
    if not source.weight > 0:
        raise ValueError(f"{where}: weight {source.weight}; needed a positive weight (leave the source out to skip it)")
    given = [name for name in window.channels if name in layout.channels and window.frames]
    if not (given or (layout.ticks and window.ticks) or layout.captions):
        raise ValueError(
            f"{where}: the dataset has channels {list(layout.channels)}, {layout.ticks} ticks and no captions: nothing of what"
            f" the loader asks for (channels {list(window.channels)}, {window.ticks} ticks)"
        )
    if (
        layout.camera
        and given
        and abs(layout.width * window.height - window.width * layout.height) > max(layout.width, layout.height)
    ):
        raise ValueError(
            f"{where}: {layout.height} x {layout.width} pixels with a camera cannot become {window.height} x {window.width}:"
            " the camera has square pixels; choose a height and width of the same aspect"
        )
    for hz in source.frame_hz or (window.frame_hz,):
        example(dataset, 0, dataclasses.replace(window, channels=(), frame_hz=hz), np.random.default_rng(0))


def loader(
    sources: Sequence[Source],
    *,
    channels: tuple[str, ...],
    frames: int,
    frame_hz: float | None,
    height: int,
    width: int,
    ticks: int,
    waves: int,
    batch_size: int,
    seed: int,
    host_index: int = 0,
    host_count: int = 1,
    transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    threads: int = 4,
    epochs: int | None = None,
    shuffle: bool = True,
) -> Loader:
    """An iterator over batches of `example`s drawn from `sources` by weight; `batch_size` is global.

    `frame_hz` None: the rate of each dataset. `threads` 0: no thread at all. `transform` is applied to each example and must
    be a pure function. `epochs` None: forever; else until the first source has been read so many times (whole batches only).
    Raises ValueError, naming the dataset and the numbers, for what cannot be delivered, before any batch is made.
    """
    if not sources:
        raise ValueError("loader: no sources; needed at least one dataset")
    if host_count < 1 or batch_size % host_count or not 0 <= host_index < host_count:
        raise ValueError(
            f"loader: batch_size {batch_size} over host {host_index} of {host_count}; batch_size must divide by host_count"
            " and host_index be one of 0 .. host_count - 1"
        )
    for name in channels:
        channel(name)
    window = Window(channels, frames, frame_hz, height, width, ticks, waves)
    datasets = [Dataset(source.path) for source in sources]
    for dataset, source in zip(datasets, sources, strict=True):
        _check(dataset, source, window)

    def read(element: tuple[int, tuple[int, int]]) -> dict[str, Any]:
        position, (number, clip) = element
        rng = np.random.default_rng((seed, position))
        rates = sources[number].frame_hz or (frame_hz,)
        chosen = dataclasses.replace(window, frame_hz=rates[int(rng.integers(len(rates)))])
        found = example(datasets[number], clip, chosen, rng)
        found |= {"clip": np.int64(clip), "source": np.int32(number)}
        return found if transform is None else transform(found)

    rows = batch_size // host_count
    clips = [_clips(number, len(dataset), seed, shuffle, epochs) for number, dataset in enumerate(datasets)]
    mixture = grain.MapDataset.mix(clips, [source.weight for source in sources])
    if len(mixture) < batch_size:
        raise ValueError(f"loader: {epochs} epochs of the sources give {len(mixture)} examples; needed a batch of {batch_size}")
    order = {"seed": seed, "batch_size": batch_size, "shuffle": shuffle}
    order["sources"] = [[d.name, len(d), float(s.weight)] for d, s in zip(datasets, sources, strict=True)]
    return Loader(_HostRows(mixture, batch_size, host_index, host_count).map(read), rows, threads, order)


def _clips(number: int, count: int, seed: int, shuffle: bool, epochs: int | None) -> grain.MapDataset:
    """(source number, clip) over the epochs of one source; sources of equal length must not share a shuffle, so each has a seed."""
    clips = grain.MapDataset.range(count)
    if shuffle:
        clips = clips.shuffle(int(np.random.SeedSequence((seed, number)).generate_state(1)[0]))
    return clips.map(lambda clip: (number, clip)).repeat(epochs)
