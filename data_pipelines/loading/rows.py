"""The rows of a host: the clips of each batch, by the positions of its examples, and how they are filled."""

import dataclasses
import functools
import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from data_pipelines.loading import order
from data_pipelines.loading.batch import Batch, Draws, WindowReader, empty_batch
from data_pipelines.loading.buffers import BufferPool
from data_pipelines.loading.transforms import Transform
from data_pipelines.loading.window import Window

_SHUFFLE, _RATE, _WINDOW, _CAPTION, _ACROSS, _DOWN = range(6)
"""Independent random streams of one seed."""
_MAX_DAMAGED = 16
"""Consecutive damaged clips that end the run."""
_PLANNED = 512
"""Examples whose clips and draws are computed together."""
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ClipOrder:
    """The map of positions to sources and clips."""

    seed: int
    counts: tuple[int, ...]
    chosen: tuple[np.ndarray | None, ...]
    block: np.ndarray
    shuffle: bool

    def __call__(self, position: np.ndarray, attempt: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Sources and clips [n]; `attempt` k: the clip that is k later in the same epoch."""
        source, before = order.turn(position, self.block)
        count = np.asarray(self.counts)[source]
        epoch, place = np.divmod(before, count)
        clip = (place + attempt) % count
        for number in np.unique(source) if self.shuffle else ():
            mine = source == number
            epochs, which = np.unique(epoch[mine], return_inverse=True)
            keys = np.array([order.key(self.seed, _SHUFFLE, int(number), e) for e in epochs.tolist()], np.uint64)
            clip[mine] = order.permuted(clip[mine], self.counts[number], keys[which])
        for number, chosen in enumerate(self.chosen):
            if chosen is not None:
                clip[source == number] = chosen[clip[source == number]]
        return source, clip


@dataclasses.dataclass(frozen=True)
class _Part:
    """The rows of a batch that one reader fills."""

    reader: WindowReader
    source: int
    rows: list[int]
    clips: list[int]
    positions: list[int]
    draws: Draws

    @property
    def place(self) -> slice | list[int]:
        """The rows, as a slice where they follow one another."""
        first, end = self.rows[0], self.rows[-1] + 1
        return slice(first, end) if end - first == len(self.rows) else self.rows

    def single(self, index: int) -> "_Part":
        """One row of the part."""
        one = slice(index, index + 1)
        return _Part(self.reader, self.source, self.rows[one], self.clips[one], self.positions[one], self.draws[one])


@dataclasses.dataclass(frozen=True)
class HostRows:
    """A host's rows of the global batches: `count` of `batch_size`, from row `first` on."""

    seed: int
    order: ClipOrder
    readers: list[list[WindowReader]]
    window: Window
    transforms: tuple[Transform, ...]
    skip: bool
    skipped: list[str]
    batch_size: int
    first: int
    count: int
    pool: BufferPool
    latents: dict[str, list[np.ndarray | None]] = dataclasses.field(default_factory=dict)
    """Key -> codes [clips ...] of each source; None: the source has none."""

    def __call__(self, step: int) -> dict[str, Any]:
        """The rows of one batch. Raises ValueError or OSError for a clip that cannot be read."""
        found = empty_batch(self.window, self.count, self.pool)
        block, place = divmod(step, self._batches_per_plan)
        for part in self._planned(block)[place]:
            found["source"][part.place] = part.source
            self._fill(found, part)
        self._add_latents(found)
        for transform in self.transforms:
            found = transform(found)
        return found

    def _add_latents(self, batch: Batch) -> None:
        """Copies the codes of the clips in the batch; called after damaged clips were replaced."""
        for source in np.unique(batch["source"]).tolist() if self.latents else ():
            rows = np.flatnonzero(batch["source"] == source)
            for key, codes in self.latents.items():
                if (values := codes[source]) is not None:
                    batch["latents"][key][rows] = values[batch["clip"][rows]]
                    batch["known"][key][rows] = True

    @property
    def _batches_per_plan(self) -> int:
        """Number of batches that are planned together."""
        return max(1, _PLANNED // self.count)

    @functools.cached_property
    def _planned(self) -> Callable[[int], list[list[_Part]]]:
        return functools.lru_cache(maxsize=4)(self._plan)

    def _plan(self, block: int) -> list[list[_Part]]:
        """The parts of each of the batches that are planned together."""
        step = block * self._batches_per_plan + np.arange(self._batches_per_plan)
        position = (step[:, None] * self.batch_size + self.first + np.arange(self.count)).reshape(-1)
        source, clip = self.order(position)
        draws = Draws(*(order.uniform(self.seed, position, stream) for stream in (_WINDOW, _CAPTION, _ACROSS, _DOWN)))
        rates = np.array([len(some) for some in self.readers])[source]
        rate = (order.uniform(self.seed, position, _RATE) * rates).astype(np.int64)
        which = source * int(rates.max()) + rate
        plan = []
        for begin in range(0, len(position), self.count):
            parts, here = [], which[begin : begin + self.count]
            for number in dict.fromkeys(here.tolist()):
                source_number, rate_number = divmod(number, int(rates.max()))
                rows = np.flatnonzero(here == number).tolist()
                mine = slice(begin, begin + self.count) if len(rows) == self.count else begin + np.array(rows)
                parts.append(
                    _Part(
                        self.readers[source_number][rate_number],
                        source_number,
                        rows,
                        clip[mine].tolist(),
                        position[mine].tolist(),
                        draws[mine],
                    )
                )
            plan.append(parts)
        return plan

    def _fill(self, found: Batch, part: _Part) -> None:
        """Fills the rows of a part; with `skip`, the next clips replace damaged ones."""
        try:
            part.reader.fill(found, part.rows, part.clips, part.draws)
        except (ValueError, OSError) as error:
            if not self.skip:
                raise
            for index in range(len(part.rows)):
                self._fill_one(found, part.single(index), error)

    def _fill_one(self, found: Batch, part: _Part, error: Exception) -> None:
        (position,) = part.positions
        for attempt in range(_MAX_DAMAGED):
            clip = part.clips if not attempt else self.order(np.array([position]), attempt)[1].tolist()
            try:
                return part.reader.fill(found, part.rows, clip, part.draws)
            except (ValueError, OSError) as again:
                error = again
                if attempt + 1 < _MAX_DAMAGED:
                    _log.warning("skipped: %s", error)
                    self.skipped.append(str(error))
        raise error
