"""The order of examples in closed form: position -> (epoch, clip), and the random numbers of a position, from a seed alone.

A shuffle is a keyed permutation of 0 .. n-1: a Feistel network over the next power of four, walked until it lands below n
(Black and Rogaway 2002, "cycle walking"; fewer than 4 times on average). So the clip at any position of any epoch is computed
without a list, a buffer or the earlier positions, on every host alike.
"""

import functools

import numpy as np

from wsm_jax.typing import Float, Int, Shaped

_ROUNDS = 8
_SMALL = 1024
_GOLDEN, _FIRST, _SECOND = (np.uint64(x) for x in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def mixed(x: Shaped[np.ndarray, " n"]) -> Shaped[np.ndarray, " n"]:
    """A hash of uint64 numbers: the finaliser of SplitMix64 (Steele, Lea and Flood 2014)."""
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))


@functools.lru_cache(maxsize=4096)
def key(*parts: int) -> int:
    """A 64-bit hash of several numbers."""
    found = np.zeros(1, np.uint64)
    for part in parts:
        found = mixed(found ^ mixed(np.array([part % 2**64], np.uint64)))
    return int(found[0])


def permuted(index: Int[np.ndarray, " n"], count: int, seed: Shaped[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """Each index under a shuffle of 0 .. count-1; every `seed` (uint64, one per index) is another shuffle.

    Raises ValueError for an index outside, or none to shuffle.
    """
    if count < 1 or (index.size and not 0 <= int(index.min()) <= int(index.max()) < count):
        raise ValueError(f"order: indices {index.min() if index.size else ''}.. of a shuffle of {count}; needed 0..{count - 1}")
    if count <= _SMALL:  # a list is small, and makes every order equally likely
        return np.array([_listed(count, int(k))[i] for i, k in zip(index.tolist(), seed.tolist(), strict=True)], np.int64)
    half = max((count - 1).bit_length() + 1, 2) // 2
    shift, mask = np.uint64(half), np.uint64(2**half - 1)
    found = index.astype(np.uint64)
    outside = np.ones(len(found), bool)
    while outside.any():
        x, keys = found[outside], seed[outside].astype(np.uint64)
        left, right = x >> shift, x & mask
        for step in range(_ROUNDS):
            left, right = right, left ^ (mixed(right ^ mixed(keys ^ np.uint64(step))) & mask)
        found[outside] = (left << shift) | right
        outside = found >= np.uint64(count)
    return found.astype(np.int64)


@functools.lru_cache(maxsize=256)
def _listed(count: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).permutation(count).tolist()


def uniform(seed: int, position: Int[np.ndarray, " n"], stream: int) -> Float[np.ndarray, " n"]:
    """Numbers in [0, 1), one a position, independent from stream to stream."""
    bits = mixed(mixed(position.astype(np.uint64)) ^ np.uint64(key(seed, stream)))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def mixture(weights: tuple[float, ...]) -> Float[np.ndarray, " s"]:
    """Shares of the sources, which sum to 1. Raises ValueError for a weight that is not positive and finite."""
    given = np.asarray(weights, np.float64)
    if not given.size or not np.isfinite(given).all() or not (given > 0).all():
        raise ValueError(f"order: weights {weights}; needed positive numbers, one a source")
    return given / given.sum()


_BLOCK = 10_000
"""Maximum length of a block: shares are kept to 1 in 10,000."""


def turns(shares: Float[np.ndarray, " s"]) -> Int[np.ndarray, " b"]:
    """The repeating block of source numbers: each source has its share, at least one turn, spread evenly."""
    exact = shares * _BLOCK
    count = np.maximum(np.floor(exact).astype(np.int64), 1)
    short = max(_BLOCK - int(count.sum()), 0)
    count[np.argsort(count - exact, kind="stable")[:short]] += 1
    count = count // np.gcd.reduce(count)
    when = np.concatenate([(np.arange(n) + 0.5) / n for n in count])
    which = np.repeat(np.arange(len(shares)), count)
    return which[np.lexsort((which, when))]


def turn(position: Int[np.ndarray, " n"], block: Int[np.ndarray, " b"]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """The source at each position of the repeated block, and the number of turns that it had before."""
    number, place = np.divmod(position, len(block))
    before = np.zeros(len(block), np.int64)
    for source in np.unique(block):
        mine = block == source
        before[mine] = np.arange(mine.sum())
    found = block[place]
    return found, number * np.bincount(block)[found] + before[place]


def position_of(turns_had: int, source: int, block: Int[np.ndarray, " b"]) -> int:
    """The number of examples after which a source has had `turns_had` turns."""
    mine = np.flatnonzero(block == source)
    whole, rest = divmod(turns_had, len(mine))
    return whole * len(block) + (int(mine[rest - 1]) + 1 if rest else 0) - (0 if rest else len(block) - int(mine[-1]) - 1)
