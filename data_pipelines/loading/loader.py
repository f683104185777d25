"""Batches of random windows from a weighted mixture of WSV datasets, by Grain's threads, reproducible to the bit.

The order is a pure function of the position p = 0, 1, 2, ... of an example in the endless sequence of the run:

    p -> (source, clip)    sources take turns by their weights, and a keyed permutation orders each epoch of a source (rows.py)
    (seed, p) -> window    numbers of its own draw rate, first frame or tick, caption and crop

A global batch s holds positions s*B .. (s+1)*B - 1, and host h of n delivers rows h*B/n .. (h+1)*B/n - 1 of it. So a batch
depends on neither threads nor hosts, and the state of the loader is the number of batches delivered.
"""

import dataclasses
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np

from data_pipelines.loading import order
from data_pipelines.loading.batch import Draws, Reader, empty_batch
from data_pipelines.loading.rooms import Rooms
from data_pipelines.loading.rows import ClipOrder, Rows
from data_pipelines.loading.window import CROPS, Window
from data_pipelines.wsv import Dataset
from data_pipelines.wsv.collection import datasets
from data_pipelines.wsv.folder import Folder
from wsm_jax.snapshot import channel

DAMAGED = ("error", "skip")
_ROOMS = 3
"""Batches a thread that memory is kept for: one is made, one waits, and one is with the user."""


@dataclasses.dataclass(frozen=True)
class Source:
    """One dataset of the mixture, or a collection of some, whose clips share the weight."""

    path: str | Path
    weight: float | int = 1.0
    """Share of the examples, relative to the other sources (kept to 1 in 10,000)."""
    frame_hz: tuple[float | int, ...] = ()
    """Rates to choose from at random, frames per second; empty: the rate of the loader."""
    where: Mapping[str, tuple[float | int, float | int]] = dataclasses.field(default_factory=dict)
    """Measure of the dataset -> (least, most): only clips within are loaded."""


def expanded(sources: Sequence[Source]) -> list[Source]:
    """The sources with every collection as its datasets."""
    found = []
    for source in sources:
        paths = datasets(Folder(source.path))
        counts = [len(Dataset(path)) for path in paths] if len(paths) > 1 else [1]
        for path, count in zip(paths, counts, strict=True):
            share = float(source.weight) * count / sum(counts)
            found.append(source if len(paths) == 1 else dataclasses.replace(source, path=path, weight=share))
    return found


class _Batches(grain.MapDataset):
    """This host's rows of every global batch, by random access."""

    def __init__(self, make: Callable[[int], dict[str, Any]], count: int):
        super().__init__()
        self._make, self._count = make, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index):
        return self.slice(index) if isinstance(index, slice) else self._make(index)


class Loader(Iterator[dict[str, Any]]):
    """The iterator that `loader` makes; `batches` is this host's part of the sequence, by random access."""

    def __init__(self, batches: grain.MapDataset, threads: int, order: dict[str, Any], skipped: list[str]):
        self._batches, self._threads, self._order = batches, threads, order
        self._bytes = 0
        self.skipped = skipped
        """The errors of damaged clips that were passed over."""
        self._live: list[grain.DatasetIterator] = []
        weakref.finalize(self, _close, self._live)  # also at exit, while Grain's modules still stand
        self._seek(0)

    def _seek(self, step: int) -> None:
        # A new iterator, not a new position in the old one: nothing that the old one has prefetched can reach us.
        self.close()
        options = grain.ReadOptions(self._threads, self._threads + 1 if self._threads else 0)
        self._step = step
        self._live.append(iter(self._batches[step:].to_iter_dataset(options)))

    def __next__(self) -> dict[str, Any]:
        """This host's rows of the next batch: the tree of `empty_batch`, or what the transform makes of its rows."""
        if not self._live:
            raise ValueError("the loader is closed")
        try:
            batch = next(self._live[0])
        except StopIteration:
            raise
        except Exception:
            self._seek(self._step)  # Grain would go on behind the batch that failed; asked again, we fail again
            raise
        self._step += 1
        self._bytes = self._bytes or sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(batch))
        return batch

    @property
    def held_bytes(self) -> int:
        """Bytes of the batches that are made ahead and of memory kept for others, at most; all are as large as the first."""
        return self._bytes * _ROOMS * (self._threads + 1)

    def get_state(self) -> dict[str, Any]:
        """Where the loader stands, for JSON: valid for any host_count, threads and machine."""
        return {"version": 2, "step": self._step, "order": self._order}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on where `get_state` was taken. Raises ValueError when it belongs to another order of examples."""
        if state["version"] != 2:
            raise ValueError(f"loader state of version {state['version']}; this release reads version 2: start anew")
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
    for name, width in window.signals:
        found = {key: parts for key, parts, _ in layout.signals}
        if found.get(name, width) != width:
            raise ValueError(f"{where}: signal {name!r} has {found[name]} components; the loader asks for {width}")
    for hz in source.frame_hz or (window.frame_hz,):
        asked = dataclasses.replace(window, channels=(), frame_hz=hz)
        Reader(dataset, asked).fill(empty_batch(asked, 1, Rooms(0)), [0], [0], Draws(*np.full((4, 1), 0.5)))


def _chosen(dataset: Dataset, source: Source) -> np.ndarray | None:
    """The clips within the limits of a source; None: all. Raises ValueError for unknown measures and where none is left."""
    if not source.where:
        return None
    measures = dataset.measures()
    keep = np.ones(len(dataset), bool)
    for name, (least, most) in source.where.items():
        if name not in measures:
            raise ValueError(f"{source.path}: no measure {name!r}; it has {', '.join(measures) or 'none'}")
        keep &= (measures[name] >= least) & (measures[name] <= most)
    if not keep.any():
        raise ValueError(f"{source.path}: none of its {len(dataset)} clips is within {dict(source.where)}; widen the limits")
    return np.flatnonzero(keep)


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
    signals: tuple[tuple[str, int], ...] = (),
    events: tuple[str, ...] = (),
    crop: str = "middle",
    aligned: bool = False,
    host_index: int = 0,
    host_count: int = 1,
    transform: Callable[[dict[str, Any]], dict[str, Any]] | None = None,
    threads: int = 4,
    epochs: int | None = None,
    shuffle: bool = True,
    first_caption: bool = False,
    damaged: str = "error",
) -> Loader:
    """An iterator over batches of `example`s drawn from `sources` by weight; `batch_size` is global.

    `frame_hz` None: the rate of each dataset. Pictures of another aspect are cut, in the "middle" or at "random" (`crop`).
    `aligned`: windows begin where chunks do, so that nothing is read that is not used.
    `threads` 0: no thread at all; else so many batches are made at once, and one more waits. `transform` is applied to each
    example and must be a pure function. `epochs` None: forever; else until the first source has been read so many times (whole
    batches only). `damaged` "skip": a clip that cannot be read is named in the log and in `skipped`, and the next one of its
    epoch stands in for it; "error": it ends the run.
    Raises ValueError, naming the dataset and the numbers, for what cannot be delivered, before any batch is made.
    """
    if not sources:
        raise ValueError("loader: no sources; needed at least one dataset")
    if batch_size < 1 or host_count < 1 or batch_size % host_count or not 0 <= host_index < host_count:
        raise ValueError(
            f"loader: batch_size {batch_size} over host {host_index} of {host_count}; batch_size must be positive and divide by"
            " host_count, and host_index be one of 0 .. host_count - 1"
        )
    if crop not in CROPS or damaged not in DAMAGED:
        raise ValueError(f"loader: crop {crop!r}, damaged {damaged!r}; needed one of {CROPS} and one of {DAMAGED}")
    for name in channels:
        channel(name)
    sources = expanded(sources)
    opened = [Dataset(source.path) for source in sources]
    lens = any(dataset.layout.lens for dataset in opened) and bool(frames)
    window = Window(channels, frames, frame_hz, height, width, ticks, waves, first_caption, signals)
    window = dataclasses.replace(window, events=events, crop=crop, aligned=aligned, lens=lens)
    for dataset, source in zip(opened, sources, strict=True):
        _check(dataset, source, window)
    chosen = tuple(_chosen(dataset, source) for dataset, source in zip(opened, sources, strict=True))
    counts = tuple(len(d) if kept is None else len(kept) for d, kept in zip(opened, chosen, strict=True))
    block = order.turns(order.mixture(tuple(float(source.weight) for source in sources)))
    rates = [source.frame_hz or (frame_hz,) for source in sources]
    readers = [
        [Reader(dataset, dataclasses.replace(window, frame_hz=hz)) for hz in some]
        for dataset, some in zip(opened, rates, strict=True)
    ]
    examples = sys.maxsize if epochs is None else order.position_of(epochs * counts[0], 0, block)
    if examples < batch_size:
        raise ValueError(f"loader: {epochs} epochs of the sources give {examples} examples; needed a batch of {batch_size}")
    skipped: list[str] = []
    rows = batch_size // host_count
    own = ClipOrder(seed, counts, chosen, block, shuffle)
    passing = transform, damaged == "skip", skipped
    rooms = Rooms(_ROOMS * len(channels) * (threads + 1))
    make = Rows(seed, own, readers, window, *passing, batch_size, host_index * rows, rows, rooms)
    described: dict[str, Any] = {"seed": seed, "batch_size": batch_size, "shuffle": shuffle}
    described["sources"] = [[d.name, count, float(s.weight)] for d, s, count in zip(opened, sources, counts, strict=True)]
    return Loader(_Batches(make, examples // batch_size), threads, described, skipped)
