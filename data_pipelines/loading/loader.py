"""Batches of random windows from a weighted mixture of WSV datasets, by Grain's threads, reproducible to the bit.

The order is a pure function of the position p = 0, 1, 2, ... of an example in the endless sequence of the run:

    p -> (source, clip)    by the weights (Grain's mixture) and a shuffle of every source that is new in each epoch
    (seed, p) -> window    a generator of its own draws rate, first frame or tick, and caption

A global batch s holds positions s*B .. (s+1)*B - 1, and host h of n delivers rows h*B/n .. (h+1)*B/n - 1 of it. So a batch
depends on neither threads nor hosts, and the state of the loader is the number of batches delivered.
"""

import dataclasses
import functools
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np

from data_pipelines.loading.window import Track, Window, example, track
from data_pipelines.wsv import Dataset
from wsm_jax.snapshot import channel

_ORDER, _WINDOW = 0, 1
"""Streams of randomness under the seed."""

_TRACK_BYTES = 2**27
"""Memory for the tracks of a source; those of more clips than fit are read again."""


@dataclasses.dataclass(frozen=True)
class Source:
    """One dataset of the mixture."""

    path: str | Path
    weight: float | int = 1.0
    """Share of the examples, relative to the other sources (Grain keeps 1 % of the smallest weight)."""
    frame_hz: tuple[float | int, ...] = ()
    """Rates to choose from at random, frames per second; empty: the rate of the loader."""


class _Clips(grain.MapDataset):
    """(number of the source, clip), every clip once an epoch, in a new order each time if shuffled."""

    def __init__(self, number: int, count: int, seed: int, shuffle: bool):
        super().__init__()
        self._number, self._count = number, count

        # Not Grain's own shuffle: on a set of a few clips it takes milliseconds for each of them.
        @functools.lru_cache(maxsize=4)
        def order(epoch: int) -> np.ndarray:
            rng = np.random.default_rng((seed, _ORDER, number, epoch))
            return rng.permutation(count) if shuffle else np.arange(count)

        self._order = order

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.slice(index)
        epoch, place = divmod(index, self._count)
        return self._number, int(self._order(epoch)[place])


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
        self._live: list[grain.DatasetIterator] = []
        weakref.finalize(self, _close, self._live)  # also at exit, while Grain's modules still stand
        self._seek(0)

    def _seek(self, step: int) -> None:
        # A new iterator, not a new position in the old one: nothing that the old one has prefetched can reach us.
        self.close()
        options = grain.ReadOptions(self._threads, max(2 * self._threads, self._rows) if self._threads else 0)
        batches = self._examples[step * self._rows :].to_iter_dataset(options).batch(self._rows)
        ahead = grain.experimental.ThreadPrefetchIterDataset(batches, prefetch_buffer_size=1 if self._threads else 0)
        self._step = step
        self._live.append(iter(ahead))

    def __next__(self) -> dict[str, Any]:
        """This host's rows of the next batch: the tree of `window.example`, "clip" and "source", stacked along a first axis."""
        if not self._live:
            raise ValueError("the loader is closed")
        try:
            batch = next(self._live[0])
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
        before, now = state["order"], self._order
        if before != now:
            changes = [f"{key} was {before.get(key)!r}, is {value!r}" for key, value in now.items() if before.get(key) != value]
            raise ValueError(f"loader state of another order of examples: {'; '.join(changes)}; restore it, or start anew")
        self._seek(state["step"])

    def close(self) -> None:
        """Stops the threads."""
        _close(self._live)


def _close(live: list[grain.DatasetIterator]) -> None:
    while live:
        live.pop().close()


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
    if layout.camera and given and abs(layout.width / layout.height - window.width / window.height) > 1 / window.height:
        raise ValueError(
            f"{where}: {layout.height} x {layout.width} pixels with a camera cannot become {window.height} x {window.width}:"
            " the camera has square pixels; choose a height and width of the same aspect"
        )
    for hz in source.frame_hz or (window.frame_hz,):
        asked = dataclasses.replace(window, channels=(), frame_hz=hz)
        example(dataset, 0, asked, np.random.default_rng(0), track(dataset, 0, asked))


def loader(
    sources: Sequence[Source],
    *,
    channels: tuple[str, ...],
    frames: int,
    frame_hz: float | int | None,
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
    first_caption: bool = False,
) -> Loader:
    """An iterator over batches of `example`s drawn from `sources` by weight; `batch_size` is global.

    `frame_hz` None: the rate of each dataset. `threads` 0: no thread at all. `transform` is applied to each example and must
    be a pure function. `epochs` None: forever; else until the first source has been read so many times (whole batches only).
    Raises ValueError, naming the dataset and the numbers, for what cannot be delivered, before any batch is made.
    """
    if not sources:
        raise ValueError("loader: no sources; needed at least one dataset")
    if batch_size < 1 or host_count < 1 or batch_size % host_count or not 0 <= host_index < host_count:
        raise ValueError(
            f"loader: batch_size {batch_size} over host {host_index} of {host_count}; batch_size must be positive and divide by"
            " host_count, and host_index be one of 0 .. host_count - 1"
        )
    for name in channels:
        channel(name)
    window = Window(channels, frames, frame_hz, height, width, ticks, waves, first_caption)
    datasets = [Dataset(source.path) for source in sources]
    for dataset, source in zip(datasets, sources, strict=True):
        _check(dataset, source, window)
    tracks = [_tracks(dataset, window) for dataset in datasets]

    def read(element: tuple[int, tuple[int, int]]) -> dict[str, Any]:
        position, (number, clip) = element
        rng = np.random.default_rng((seed, _WINDOW, position))
        rates = sources[number].frame_hz or (frame_hz,)
        chosen = dataclasses.replace(window, frame_hz=rates[int(rng.integers(len(rates)))])
        found = example(datasets[number], clip, chosen, rng, tracks[number](clip))
        found |= {"clip": np.int64(clip), "source": np.int32(number)}
        return found if transform is None else transform(found)

    rows = batch_size // host_count
    clips = [_Clips(number, len(dataset), seed, shuffle).repeat(epochs) for number, dataset in enumerate(datasets)]
    mixture = grain.MapDataset.mix(clips, [source.weight for source in sources])
    if len(mixture) < batch_size:
        raise ValueError(f"loader: {epochs} epochs of the sources give {len(mixture)} examples; needed a batch of {batch_size}")
    order = {"seed": seed, "batch_size": batch_size, "shuffle": shuffle}
    order["sources"] = [[d.name, len(d), float(s.weight)] for d, s in zip(datasets, sources, strict=True)]
    return Loader(_HostRows(mixture, batch_size, host_index, host_count).map(read), rows, threads, order)


def _tracks(dataset: Dataset, window: Window) -> Callable[[int], Track]:
    """`track` of a dataset, which remembers."""
    layout = dataset.layout
    size = 1024 + 48 * layout.frames + 128 * layout.ticks * layout.waves
    return functools.lru_cache(maxsize=_TRACK_BYTES // size)(lambda clip: track(dataset, clip, window))
