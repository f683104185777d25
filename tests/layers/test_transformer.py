"""The transformer depends on differences of positions, not on the order of tokens, and sees what its mask lets it see."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsm_jax.layers.transformer import Transformer, level_features, rms_norm, rotary, rotary_angles

NET = Transformer(width=24, depth=2, heads=2)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def case():
    keys = jax.random.split(KEY, 4)
    tokens, positions = jax.random.normal(keys[0], (2, 5, 24)), jax.random.uniform(keys[1], (2, 5, 3))
    condition = jax.random.normal(keys[2], (2, 5, 24))
    params = nn.meta.unbox(NET.init(keys[3], tokens, positions, condition))
    # the modulation starts at zero, which would hide what depends on the condition
    noise = jax.random.split(keys[3], len(jax.tree.leaves(params)))
    params = jax.tree.unflatten(
        jax.tree.structure(params),
        [p + 0.1 * jax.random.normal(k, p.shape) for p, k in zip(jax.tree.leaves(params), noise, strict=True)],
    )
    return params, tokens, positions, condition


def test_only_differences_of_positions_count(case):
    params, tokens, positions, condition = case
    moved = NET.apply(params, tokens, positions + jnp.asarray([3.0, -1.5, 0.7]), condition)
    np.testing.assert_allclose(moved, NET.apply(params, tokens, positions, condition), rtol=2e-4, atol=2e-4)
    stretched = NET.apply(params, tokens, 2.0 * positions, condition)
    assert np.abs(stretched - moved).max() > 1e-2


def test_order_of_tokens_does_not_count(case):
    params, tokens, positions, condition = case
    order = np.asarray([3, 0, 4, 1, 2])
    shuffled = NET.apply(params, tokens[:, order], positions[:, order], condition[:, order])
    np.testing.assert_allclose(shuffled, NET.apply(params, tokens, positions, condition)[:, order], rtol=1e-4, atol=1e-5)


def test_a_masked_token_has_no_influence(case):
    params, tokens, positions, condition = case
    causal = jnp.tril(jnp.ones((5, 5), bool))[None]
    gradient = jax.grad(lambda t: jnp.sum(NET.apply(params, t, positions, condition, causal)[:, 2] ** 2))(tokens)
    assert np.all(gradient[:, 3:] == 0)
    assert np.all(np.abs(gradient[:, :3]).max(-1) > 0)


def test_the_condition_of_a_token_reaches_it(case):
    params, tokens, positions, condition = case
    other = NET.apply(params, tokens, positions, condition + 1.0)
    assert np.abs(other - NET.apply(params, tokens, positions, condition)).max() > 1e-2


def test_rotary_keeps_lengths_and_relative_products():
    q, k = jax.random.normal(KEY, (2, 1, 4, 1, 12))
    positions = jax.random.uniform(KEY, (1, 4, 3))
    one, two = (rotary_angles(positions + shift, 12) for shift in (0.0, 5.0))
    np.testing.assert_allclose(jnp.linalg.norm(rotary(q, one), axis=-1), jnp.linalg.norm(q, axis=-1), rtol=1e-5)
    product = [jnp.einsum("bqhd,bkhd->bqk", rotary(q, a), rotary(k, a)) for a in (one, two)]
    np.testing.assert_allclose(product[0], product[1], rtol=1e-3, atol=1e-3)


def test_rms_norm_and_levels():
    x = 7.0 * jax.random.normal(KEY, (3, 16))
    np.testing.assert_allclose(jnp.mean(rms_norm(x) ** 2, -1), 1.0, rtol=1e-4)
    features = level_features(jnp.linspace(0, 1, 101), 16)
    assert features.shape == (101, 16)
    gaps = jnp.linalg.norm(features[1:] - features[:-1], axis=-1)
    assert gaps.min() > 1e-2, "two levels must never look the same"
