"""Random keys from a stream name and a step; no key is carried, split or saved."""

import zlib

import jax
import numpy as np

from wsm_jax.typing import Int, Key, NpOrJax


def key(root: Key, stream: str, step: int | Int[NpOrJax, ""]) -> Key:
    """Key of `stream` at `step`: fold_in(fold_in(root, crc32(stream)), step).

    A pure function of its arguments, so a resumed run draws the same numbers as the uninterrupted one. `step` may be traced.
    """
    return jax.random.fold_in(jax.random.fold_in(root, np.uint32(zlib.crc32(stream.encode()))), step)
