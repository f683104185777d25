"""The fingerprint sees every change of one element, and no change of sharding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from wsm_jax.runtime.fingerprint import fingerprint
from wsm_jax.runtime.mesh import make_mesh

DTYPES = ("float32", "bfloat16", "int32", "uint8", "bool")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (2, 3, 4)])
def test_device_and_host_agree(dtype, shape):
    values = np.random.default_rng(0).integers(0, 2 if dtype == "bool" else 99, shape)
    array = jnp.asarray(values, dtype)
    assert fingerprint({"a": array}) == fingerprint({"a": np.asarray(array)})


def test_every_sharding_gives_the_same_number():
    array = np.random.default_rng(1).standard_normal((16, 8)).astype(np.float32)
    mesh = make_mesh(2, 2, 2, 1)
    specs = [PartitionSpec(), PartitionSpec("data"), PartitionSpec(("data", "fsdp"), "tensor"), PartitionSpec(None, "fsdp")]
    prints = {fingerprint({"a": jax.device_put(array, NamedSharding(mesh, spec))})["a"] for spec in specs}
    assert prints == {fingerprint({"a": array})["a"]}


def test_one_flipped_bit_is_seen_wherever_it_is():
    array = np.random.default_rng(2).standard_normal(20).astype(np.float32)
    whole = fingerprint({"a": array})
    for index in range(20):
        for bit in range(32):
            other = array.copy()
            other.view(np.uint32)[index] ^= np.uint32(1 << bit)
            assert fingerprint({"a": other}) != whole


def test_two_swapped_elements_are_seen_and_paths_are_named():
    array = np.float32([1, 2, 3, 4])
    prints = fingerprint({"a": {"kernel": array}, "b": [array[::-1].copy()]})
    assert set(prints) == {"a/kernel", "b/0"}
    assert prints["a/kernel"] != prints["b/0"]
    assert fingerprint({}) == {}
