"""Transforms of whole batches: frozen dataclasses that an experiment config names, applied in order."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import numpy as np

from wsm_jax.text import Tokenizer, decode_caption


@runtime_checkable
class Transform(Protocol):
    """A pure function of a batch; every array has the rows of the batch as its first axis, before and after."""

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]: ...


@dataclasses.dataclass(frozen=True)
class Tokenise:
    """Adds "tokens", int32 [B L], of the captions; zeros for a row without text.

    Raises ValueError for a text that is too long.
    """

    text: Tokenizer

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        tokens = np.zeros((len(batch["caption"]), self.text.length), np.int32)
        for row, data in enumerate(batch["caption"]):
            if caption := decode_caption(data):
                tokens[row] = self.text.encode(caption)
        return {**batch, "tokens": tokens}


@dataclasses.dataclass(frozen=True)
class Keep:
    """Drops all of a batch but the named entries. Raises KeyError for one that the batch lacks."""

    names: tuple[str, ...]

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {name: batch[name] for name in self.names}
