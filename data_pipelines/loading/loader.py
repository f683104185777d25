"""The iterator over batches that `Clips.open` returns, made by Grain's threads, reproducible to the bit.

The order is a pure function of the position p = 0, 1, 2, ... of an example in the endless sequence of the run:

    p -> (source, clip)    sources take turns by their weights, and a keyed permutation orders each epoch of a source (rows.py)
    (seed, p) -> window    random numbers of its own choose rate, first frame or tick, caption and crop

A global batch s holds positions s*B .. (s+1)*B - 1, and host h of n delivers rows h*B/n .. (h+1)*B/n - 1 of it. So a batch
depends on neither threads nor hosts, and the state of the loader is the number of batches delivered.
"""

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import grain
import jax
import numpy as np

BATCHES_PER_THREAD = 3
"""Batches whose memory is kept for each thread: one in work, one that waits, and one in the hands of the user."""


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
    """This host's rows of the batches 0 .. count - 1, each made by `make`; `Clips.open` makes one."""

    def __init__(
        self, make: Callable[[int], dict[str, Any]], count: int, threads: int, order: dict[str, Any], skipped: list[str]
    ):
        self._batches: grain.MapDataset = _Batches(make, count)
        self._threads, self._order = threads, order
        self._bytes = 0
        self.skipped = skipped
        """The errors of damaged clips that were skipped."""
        self._live: list[grain.DatasetIterator] = []
        weakref.finalize(self, _close, self._live)  # also at exit, while Grain's modules still exist
        self._seek(0)

    def _seek(self, step: int) -> None:
        # A new iterator, not a new position in the old one: nothing that the old one has prefetched can reach us.
        self.close()
        options = grain.ReadOptions(self._threads, self._threads + 1 if self._threads else 0)
        self._step = step
        self._live.append(iter(self._batches[step:].to_iter_dataset(options)))

    def __next__(self) -> dict[str, Any]:
        """This host's rows of the next batch: the tree of `empty_batch`, or what the transforms make of it.

        Raises ValueError when the loader is closed, and what reading the clips raises: asked again, it fails again.
        """
        if not self._live:
            raise ValueError("the loader is closed")
        try:
            batch = next(self._live[0])
        except StopIteration:
            raise
        except Exception:
            self._seek(self._step)  # Grain would go on after the batch that failed
            raise
        self._step += 1
        self._bytes = self._bytes or sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(batch))
        return batch

    @property
    def held_bytes(self) -> int:
        """Upper bound of the bytes of batches made ahead and of buffers kept for later ones; 0 before the first batch."""
        return self._bytes * BATCHES_PER_THREAD * (self._threads + 1)

    def get_state(self) -> dict[str, Any]:
        """Position of the loader, for JSON: valid for any number of hosts, threads and any machine."""
        return {"version": 2, "step": self._step, "order": self._order}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continue where `get_state` was taken. Raises ValueError when it belongs to another order of examples."""
        if state["version"] != 2:
            raise ValueError(f"loader state of version {state['version']}; this release reads version 2: start anew")
        before, now = state["order"], self._order
        if before != now:
            changes = [f"{key} was {before.get(key)!r}, is {value!r}" for key, value in now.items() if before.get(key) != value]
            raise ValueError(f"loader state of another order of examples: {'; '.join(changes)}; restore it, or start anew")
        self._seek(state["step"])

    def close(self) -> None:
        """Stop the threads."""
        _close(self._live)


def _close(live: list[grain.DatasetIterator]) -> None:
    while live:
        live.pop().close()
