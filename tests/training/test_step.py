"""One pure step: the same on every mesh, and exactly the formulas it states."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from wsm_jax.runtime import global_batch, make_mesh
from wsm_jax.training import init_state, make_train_step, state_shardings


def single():
    return make_mesh(1, 1, 1, 1, jax.devices()[:1])


@functools.cache
def built(toy, sizes=None, noise=0.05, accumulate=1, ema_decay=0.9):
    """(mesh, compiled step) with the settings of these tests."""
    mesh = make_mesh(*sizes) if sizes else single()
    return mesh, make_train_step(
        toy.Regression(noise), toy.optimizer(), mesh, ema_decay=ema_decay, seed=3, accumulate=accumulate
    )


def trained(toy, sizes=None, steps=3, rows=16, **settings):
    """(state, metrics of every step) after some steps."""
    mesh, step = built(toy, sizes, **settings)
    state, batches, history = init_state(toy.Regression(), toy.optimizer(), mesh, 3), toy.Batches(rows), []
    for _ in range(steps):
        state, metrics = step(state, global_batch(mesh, next(batches)), {})
        history.append({name: float(value) for name, value in metrics.items()})
    assert step._cache_size() == 1, "the step was compiled more than once"
    return state, history


def assert_close(one, two, tolerance=1e-5):
    """Relative to the largest entry of each array."""
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(two), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        np.testing.assert_allclose(
            a, b, atol=tolerance * max(np.abs(b).max(), 1e-8), rtol=0, err_msg=jax.tree_util.keystr(path)
        )


@pytest.fixture(scope="module")
def one_device(toy):
    return trained(toy)


@pytest.mark.parametrize("sizes", [(2, 4, 1, 1), (2, 2, 2, 1)])
def test_eight_devices_equal_one(toy, one_device, sizes):
    state, history = trained(toy, sizes)
    assert_close([state.params, state.ema], [one_device[0].params, one_device[0].ema])
    assert_close(history, one_device[1])


def test_the_state_lies_where_the_table_says(toy):
    mesh = make_mesh(2, 2, 2, 1)
    abstract, placed = state_shardings(toy.Regression(), toy.optimizer(), mesh)
    assert placed.params["second"]["kernel"].spec == PartitionSpec(("fsdp",), ("tensor",))
    state = init_state(toy.Regression(), toy.optimizer(), mesh, 0)
    assert jax.tree.map(lambda leaf: leaf.sharding, state) == placed
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), abstract
    )
    moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.shape == (8, 16)]
    assert len(moments) == 2
    assert {leaf.sharding.spec for leaf in moments} == {PartitionSpec(("fsdp",), ("tensor",))}


def test_the_weights_depend_on_the_seed_and_not_on_the_mesh(toy):
    one = init_state(toy.Regression(), toy.optimizer(), single(), 5)
    many = init_state(toy.Regression(), toy.optimizer(), make_mesh(2, 2, 2, 1), 5)
    jax.tree.map(np.testing.assert_array_equal, one.params, many.params)
    other = init_state(toy.Regression(), toy.optimizer(), single(), 6)
    assert not np.array_equal(one.params["last"]["kernel"], other.params["last"]["kernel"])


def test_the_state_is_donated_and_its_step_counted(toy):
    mesh, step = built(toy)
    state = init_state(toy.Regression(), toy.optimizer(), mesh, 0)
    after, _ = step(state, global_batch(mesh, next(toy.Batches())), {})
    assert int(after.step) == 1
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves([state.params, state.opt_state, state.ema]))


def test_microbatches_average_to_the_whole_batch(toy):
    whole, _ = trained(toy, noise=0.0, accumulate=1)
    parts, history = trained(toy, noise=0.0, accumulate=4)
    assert_close(parts.params, whole.params)
    assert set(history[0]) == {"loss", "rmse", "grad_norm", "finite"}
    spread, _ = trained(toy, (2, 2, 1, 2), noise=0.0, accumulate=4)
    assert_close(spread.params, whole.params)
    with pytest.raises(ValueError, match=r"\['x'\]: 16 rows do not divide into 3"):
        trained(toy, accumulate=3)


def test_the_average_follows_its_formula(toy):
    states = [init_state(toy.Regression(), toy.optimizer(), single(), 3)] + [
        trained(toy, steps=n, ema_decay=0.15)[0] for n in (1, 2)
    ]
    ema = states[0].params
    for t, state in enumerate(states[1:]):
        d = min(0.15, (1 + t) / (10 + t))
        ema = jax.tree.map(lambda old, new, d=d: d * old + (1 - d) * new, ema, state.params)
    assert_close(states[2].ema, ema, 1e-6)


def test_every_step_draws_its_own_noise_and_a_second_run_the_same(toy, one_device):
    assert trained(toy)[1] == one_device[1]

    class Noise(toy.Regression):
        def init(self, key):
            return {}

        def loss(self, params, batch, key, frozen):
            return jax.random.normal(key, ()), {}

    optimizer = optax.sgd(0.1)
    state = init_state(Noise(), optimizer, single(), 0)
    step = make_train_step(Noise(), optimizer, single(), ema_decay=0.9, seed=0, accumulate=1)
    drawn = []
    for _ in range(5):
        state, metrics = step(state, {"x": jnp.zeros((1, 1))}, {})
        drawn.append(float(metrics["loss"]))
    assert len(set(drawn)) == 5


def test_a_value_that_is_not_finite_is_told(toy):
    mesh, step = built(toy)
    state, metrics = step(init_state(toy.Regression(), toy.optimizer(), mesh, 0), global_batch(mesh, next(toy.Batches())), {})
    assert bool(metrics["finite"])
    _, metrics = step(state, global_batch(mesh, next(toy.Batches(bad_at=0))), {})
    assert not bool(metrics["finite"])
