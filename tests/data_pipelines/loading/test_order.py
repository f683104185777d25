"""The order in closed form: permutations, turns by weight, and numbers that look random and depend on a position alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.loading import order


def shuffled(count, seed):
    return order.permuted(np.arange(count), count, np.full(count, order.key(seed), np.uint64))


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 3000), seed=st.integers(0, 2**63))
def test_a_shuffle_has_every_number_once(count, seed):
    assert np.array_equal(np.sort(shuffled(count, seed)), np.arange(count))


@settings(max_examples=20, deadline=None)
@given(count=st.integers(2, 10**15), seed=st.integers(0, 2**63))
def test_any_place_of_a_shuffle_is_known_without_the_others(count, seed):
    place = np.unique(np.random.default_rng(seed % 2**32).integers(0, count, 50))
    keys = np.full(len(place), order.key(seed), np.uint64)
    found = order.permuted(place, count, keys)
    assert len(np.unique(found)) == len(place) and 0 <= found.min() <= found.max() < count
    for i in range(len(place)):
        assert order.permuted(place[i : i + 1], count, keys[:1])[0] == found[i]


def test_shuffles_look_random():
    """Of 5 things all 120 orders come, equally often; far places of a long one are not correlated with what they hold."""
    orders, times = np.unique([shuffled(5, seed) for seed in range(12000)], axis=0, return_counts=True)
    assert len(orders) == 120
    assert np.sum((times - 100) ** 2 / 100) < 180  # chi-square of 119 degrees: 1 in 3000
    orders = [shuffled(1500, seed)[:2] for seed in range(3000)]  # of a long one: the first two
    assert np.std(np.mean(orders, 0)) < 20 and abs(np.corrcoef(np.array(orders).T)[0, 1]) < 0.06
    long = shuffled(100_000, 3)
    assert abs(np.corrcoef(long, np.arange(100_000))[0, 1]) < 0.02
    assert abs(np.corrcoef(long[1:], long[:-1])[0, 1]) < 0.02
    assert (long == shuffled(100_000, 4)).mean() < 1e-3


@settings(max_examples=60, deadline=None)
@given(weights=st.lists(st.floats(0.001, 1000), min_size=1, max_size=6))
def test_sources_take_turns_by_their_weights(weights):
    shares = order.mixture(tuple(weights))
    block = order.turns(shares)
    source, before = order.turn(np.arange(3 * len(block)), block)
    for number, share in enumerate(shares):
        mine = source == number
        assert np.array_equal(before[mine], np.arange(mine.sum())), "no turn is left out or taken twice"
        assert abs(mine.mean() - share) < max(2e-4 * len(shares), 1e-9)
        # evenly: after any number of examples it has had its share, to a turn or two
        had = np.cumsum(mine)
        assert np.abs(had - np.arange(1, len(mine) + 1) * mine.mean()).max() < 2 + len(shares)
    for number in range(len(shares)):
        for turns_had in (1, 2, 7, int((block == number).sum())):
            position = order.position_of(turns_had, number, block)
            source, _ = order.turn(np.arange(position), block)
            assert (source == number).sum() == turns_had and source[-1] == number


def test_numbers_of_positions_are_uniform_and_independent():
    position = np.arange(20000)
    one, two = order.uniform(7, position, 0), order.uniform(7, position, 1)
    for values in (one, two):
        assert values.min() >= 0 and values.max() < 1
        assert abs(values.mean() - 0.5) < 0.01 and abs(values.var() - 1 / 12) < 0.002
        assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 0.03
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.03
    assert np.array_equal(order.uniform(7, position[500:510], 0), one[500:510])
    assert not np.array_equal(order.uniform(8, position, 0), one)


def test_what_is_no_shuffle_or_mixture_is_refused():
    with pytest.raises(ValueError, match="shuffle of 3"):
        order.permuted(np.array([3]), 3, np.zeros(1, np.uint64))
    for weights in ((), (1.0, 0.0), (1.0, float("nan")), (float("inf"),)):
        with pytest.raises(ValueError, match="positive numbers"):
            order.mixture(weights)
