"""Checksum of arrays that does not depend on their sharding; it detects damaged checkpoints."""

import json
import math
import zlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from wsm_jax.typing import Array, PyTree

_WORDS = {1: "uint8", 2: "uint16", 4: "uint32"}


def _device_sum(leaf: Array) -> Array:
    if leaf.dtype == bool:
        leaf = leaf.astype(jnp.uint8)
    bits = jax.lax.bitcast_convert_type(leaf, _WORDS[leaf.dtype.itemsize]).astype(jnp.uint32)
    index = jnp.zeros(leaf.shape, jnp.uint32)
    # Row-major index from one iota an axis: flattening instead would gather a sharded array.
    for axis in range(leaf.ndim):
        stride = math.prod(leaf.shape[axis + 1 :]) % 2**32
        index = index + jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis) * jnp.uint32(stride)
    return jnp.sum(bits * (2 * index + 1), dtype=jnp.uint32)


_device_sums = jax.jit(lambda leaves: [_device_sum(leaf) for leaf in leaves])


def _host_sum(leaf: np.ndarray) -> int:
    bits = np.ascontiguousarray(leaf).reshape(-1).view(_WORDS[leaf.dtype.itemsize]).astype(np.uint32)
    weights = 2 * np.arange(bits.size, dtype=np.uint32) + np.uint32(1)
    return int(np.sum(bits * weights, dtype=np.uint32))


def fingerprint(tree: PyTree) -> dict[str, int]:
    """Map the path of every leaf to its sum over the elements i (row-major) of (2 i + 1) bits_i, modulo 2^32.

    The weights are odd, so any change of one element is detected, and other damage with probability 1 - 2^-32; sums of
    integers are exact in any order, so every sharding and NumPy give the same number. Elements have 1, 2 or 4 bytes; others
    raise KeyError.
    """
    paths, leaves = zip(*jax.tree_util.tree_leaves_with_path(tree)) if jax.tree.leaves(tree) else ((), ())
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path in paths]
    host = all(isinstance(leaf, np.ndarray) for leaf in leaves)
    sums: list[Any] = [_host_sum(leaf) for leaf in leaves] if host else jax.device_get(_device_sums(list(leaves)))
    return {name: int(value) for name, value in zip(names, sums, strict=True)}


def checksum(tree: PyTree) -> int:
    """CRC-32 of the fingerprint of a tree: one number that names its values."""
    return zlib.crc32(json.dumps(fingerprint(tree), sort_keys=True).encode())
