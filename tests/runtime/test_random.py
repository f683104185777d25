"""Keys are functions of (root, stream, step) and nothing else."""

import jax
import jax.numpy as jnp
import numpy as np

from wsm_jax.runtime import random


def bits(key) -> tuple[int, ...]:
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_streams_steps_and_roots_never_share_a_key():
    steps = jnp.arange(50)

    @jax.jit
    def keys(root):
        return [
            jax.random.key_data(jax.vmap(lambda k, n=n: random.key(root, n, k))(steps)) for n in ("init", "train", "noise", "")
        ]

    drawn = np.concatenate([np.concatenate(keys(jax.random.key(seed))) for seed in range(3)])
    assert len(np.unique(drawn, axis=0)) == 3 * 4 * 50


def test_a_traced_step_gives_the_key_of_the_plain_one():
    root = jax.random.key(7)
    traced = jax.jit(lambda step: random.key(root, "train", step))(np.int32(12345))
    assert bits(traced) == bits(random.key(root, "train", 12345))


def test_the_key_of_a_stream_is_fixed_for_good():
    # A change here would make every old checkpoint resume on other random numbers.
    assert bits(random.key(jax.random.key(0), "train", 3)) == bits(
        jax.random.fold_in(jax.random.fold_in(jax.random.key(0), np.uint32(1550247075)), 3)
    )
