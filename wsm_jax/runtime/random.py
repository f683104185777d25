"""Randomness by name and step: no key is ever carried, split or saved."""

import zlib

import jax
import numpy as np

from wsm_jax.typing import Int, Key, NpOrJax


def key(root: Key, stream: str, step: int | Int[NpOrJax, ""]) -> Key:
    """The key of `stream` at `step`: fold_in(fold_in(root, crc32(stream)), step).

    A pure function of its arguments, so a resumed run draws what the uninterrupted one would have drawn. `step` may be traced.
    """
    return jax.random.fold_in(jax.random.fold_in(root, np.uint32(zlib.crc32(stream.encode()))), step)
