"""Memory that is used again: never while somebody looks at it, and again once nobody does."""

import gc

import jax
import numpy as np
import pytest

from data_pipelines.loading.buffers import BufferPool

SHAPE = (4, 100)


def address(values: np.ndarray) -> int:
    return values.__array_interface__["data"][0]


HOLDS = {
    "the array": lambda x: x,
    "a row": lambda x: x[2],
    "a row of a view of another type": lambda x: x.view(np.uint8)[1:2],
    "a buffer": memoryview,
    "a broadcast": lambda x: np.broadcast_to(x[0], (3, 100)),
    "an array of JAX": jax.device_put,
    "rows on several devices": lambda x: jax.device_put(
        x, jax.sharding.NamedSharding(jax.make_mesh((2,), ("data",)), jax.sharding.PartitionSpec("data"))
    ),
}


@pytest.mark.parametrize("hold", HOLDS.values(), ids=HOLDS)
def test_what_somebody_holds_is_not_overwritten(hold):
    pool = BufferPool(8)
    first = pool.acquire(SHAPE, np.float32)
    first[:] = np.arange(400).reshape(SHAPE)
    held = hold(first)
    before, place = np.array(held), address(first)
    del first
    taken = [pool.acquire(SHAPE, np.float32) for _ in range(12)]
    for other in taken:
        other[:] = -1
    np.testing.assert_array_equal(np.array(held), before)
    del held, taken, other
    gc.collect()
    assert place in {address(pool.acquire(SHAPE, np.float32)) for _ in range(8)}


def test_memory_is_used_again_for_its_size_only():
    pool = BufferPool(2)
    first = pool.acquire(SHAPE, np.float32)
    place = address(first)
    assert place % 64 == 0
    del first
    assert address(pool.acquire((10, 10), np.float32)) != place
    again = pool.acquire((100, 4), np.int32)
    assert address(again) == place and again.shape == (100, 4) and again.dtype == np.int32
    other = pool.acquire(SHAPE, np.float32)
    assert address(other) != place  # the first is held


def test_no_more_is_kept_than_was_said():
    pool = BufferPool(2)
    held = [pool.acquire(SHAPE, np.float32) for _ in range(5)]
    places = {address(one) for one in held[:2]}
    assert len({address(one) for one in held}) == 5
    del held
    one, two, three = (pool.acquire(SHAPE, np.float32) for _ in range(3))
    assert {address(one), address(two)} == places and address(three) not in places
