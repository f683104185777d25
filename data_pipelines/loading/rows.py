"""The rows of a host: which clips each batch holds, by the position of its examples, and who fills them."""

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
"""Streams of randomness under the seed."""
_TRIES = 16
"""Clips in a row that may be damaged before the run ends."""
_PLANNED = 512
"""Examples whose clips and draws are worked out together."""
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ClipOrder:
    """Position -> (source, clip)."""

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
        first, behind = self.rows[0], self.rows[-1] + 1
        return slice(first, behind) if behind - first == len(self.rows) else self.rows

    def single(self, index: int) -> "_Part":
        """One of them."""
        one = slice(index, index + 1)
        return _Part(self.reader, self.source, self.rows[one], self.clips[one], self.positions[one], self.draws[one])


@dataclasses.dataclass(frozen=True)
class HostRows:
    """Makes a host's rows of the global batches: `count` of `batch_size`, from `first` on."""

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
        """The rows of a batch."""
        found = empty_batch(self.window, self.count, self.pool)
        block, place = divmod(step, self._together)
        for part in self._planned(block)[place]:
            found["source"][part.place] = part.source
            self._fill(found, part)
        self._add_latents(found)
        for transform in self.transforms:
            found = transform(found)
        return found

    def _add_latents(self, batch: Batch) -> None:
        """Copies the codes of the clips that the batch holds by now, those that replace damaged ones included."""
        for source in np.unique(batch["source"]).tolist() if self.latents else ():
            rows = np.flatnonzero(batch["source"] == source)
            for key, codes in self.latents.items():
                if (values := codes[source]) is not None:
                    batch["latents"][key][rows] = values[batch["clip"][rows]]
                    batch["known"][key][rows] = True

    @property
    def _together(self) -> int:
        """Batches that are planned together."""
        return max(1, _PLANNED // self.count)

    @functools.cached_property
    def _planned(self) -> Callable[[int], list[list[_Part]]]:
        return functools.lru_cache(maxsize=4)(self._plan)

    def _plan(self, block: int) -> list[list[_Part]]:
        """What to fill, of each of the batches that are planned together."""
        step = block * self._together + np.arange(self._together)
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
                of, at = divmod(number, int(rates.max()))
                rows = np.flatnonzero(here == number).tolist()
                own = slice(begin, begin + self.count) if len(rows) == self.count else begin + np.array(rows)
                parts.append(_Part(self.readers[of][at], of, rows, clip[own].tolist(), position[own].tolist(), draws[own]))
            plan.append(parts)
        return plan

    def _fill(self, found: Batch, part: _Part) -> None:
        """Fills the rows, where that is asked for with the clips that come next for those that are damaged."""
        try:
            part.reader.fill(found, part.rows, part.clips, part.draws)
        except (ValueError, OSError) as error:
            if not self.skip:
                raise
            for index in range(len(part.rows)):
                self._fill_one(found, part.single(index), error)

    def _fill_one(self, found: Batch, part: _Part, error: Exception) -> None:
        (position,) = part.positions
        for attempt in range(_TRIES):
            clip = part.clips if not attempt else self.order(np.array([position]), attempt)[1].tolist()
            try:
                return part.reader.fill(found, part.rows, clip, part.draws)
            except (ValueError, OSError) as again:
                error = again
                if attempt + 1 < _TRIES:
                    _log.warning("passed over: %s", error)
                    self.skipped.append(str(error))
        raise error
