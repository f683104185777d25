"""Patches are a rearrangement, the canvas is free of resolution, noise enters as nothing, style belongs to waves."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsm_jax.layers.patches import patches, resample, unpatch
from wsm_jax.models.wave_bridge.network import StyleEncoder, WaveBridge, signal_share
from wsm_jax.models.wave_bridge.state import BridgeLayout

KEY = jax.random.key(1)
LAYOUT = BridgeLayout(("local",), waves=3, wave_code=4, scene_code=5, patch_code=3)
BLOCKS, SIZE = len(LAYOUT.sizes), sum(LAYOUT.sizes.values())
NET = WaveBridge(LAYOUT, rows=2, patch=4, width=24, depth=1, heads=2, pixel_width=8, frequencies=(1.0, 2.0), pixel_noise=0.1)


@pytest.fixture(scope="module")
def params():
    state = jnp.zeros((1, 2, 2, 16, SIZE))
    return nn.meta.unbox(NET.init(KEY, state, jnp.zeros(1), jnp.zeros((1, 2 * BLOCKS))))


def test_resolution_is_free(params):
    """The same picture at twice the resolution gives the same prediction, enlarged.

    Exact but for what tokens paint, which is enlarged smoothly; so the brush is taken away here.
    """
    params = jax.tree.map(jnp.copy, params)
    params["params"]["paint"] = jax.tree.map(jnp.zeros_like, params["params"]["paint"])
    small = jax.random.normal(KEY, (1, 8, 8, SIZE))
    large = jnp.repeat(jnp.repeat(small, 2, 1), 2, 2)
    known, level = jnp.ones((1, 2 * BLOCKS)), jnp.full(1, 0.4)
    one = unpatch(NET.apply(params, patches(small, 2), level, known)[1])
    two = unpatch(NET.apply(params, patches(large, 2), level, known)[1])
    np.testing.assert_allclose(two, jnp.repeat(jnp.repeat(one, 2, 1), 2, 2), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(resample(patches(large, 2), 4), patches(small, 2), atol=1e-5)


def test_picked_pixels_are_the_whole_picture_s(params):
    state = jax.random.normal(KEY, (2, 2, 2, 16, SIZE))
    known, level, pick = jnp.ones((2, 2 * BLOCKS)), jnp.asarray([0.0, 0.7]), jnp.asarray([3, 11])
    whole = NET.apply(params, state, level, known)
    part = NET.apply(params, state, level, known, pick)
    for a, b in zip(whole, part, strict=True):
        np.testing.assert_allclose(a[:, :, :, pick], b, rtol=1e-5, atol=1e-6)


def test_signal_share_is_the_wiener_gain():
    """Share of signal power: for unit signal and noise at the ends, measured against samples."""
    level = jnp.asarray([0.0, 0.3, 1.0])
    known = jnp.tile(jnp.asarray([[1.0, 0.0, 0.0, 1.0]]), (3, 1))  # block 0 known at the core end, block 1 at the pixel end
    share = signal_share(level, known, jnp.asarray([0.5, 1.0]))
    np.testing.assert_allclose(share[:, 0], [1.0, 0.49 / (0.49 + 0.09 * 0.25), 0.0], rtol=1e-5)
    np.testing.assert_allclose(share[:, 1], [0.0, 0.09 / (0.49 + 0.09), 1.0], rtol=1e-5)


def test_pure_noise_has_no_influence(params):
    """A block unknown at the end at hand does not reach the prediction."""
    state = jax.random.normal(KEY, (1, 2, 2, 16, SIZE))
    known = jnp.asarray([[1.0] * (BLOCKS + 1) + [0.0] * (BLOCKS - 1)])
    other = state.at[..., 3:].set(jax.random.normal(jax.random.key(5), (1, 2, 2, 16, SIZE - 3)))
    one, two = (NET.apply(params, x, jnp.ones(1), known)[0] for x in (state, other))
    np.testing.assert_array_equal(one, two)
    half = [NET.apply(params, x, jnp.full(1, 0.5), known)[0] for x in (state, other)]
    assert np.abs(half[0] - half[1]).max() > 1e-4


def test_style_belongs_to_waves():
    encoder = StyleEncoder(LAYOUT, 8, (1.0,))
    keys = jax.random.split(KEY, 5)
    rgb, surface, local = (jax.random.normal(k, (1, 2, 2, 2, 6, c)) for k, c in zip(keys, (3, 7, 3), strict=False))
    masks = jax.nn.one_hot(jax.random.randint(keys[3], (1, 2, 2, 2, 6), 0, 3), 3)
    frames = jnp.ones((1, 2))
    params = nn.meta.unbox(encoder.init(keys[4], rgb, surface, local, masks, frames))
    waves, scene, patch = encoder.apply(params, rgb, surface, local, masks, frames)
    assert waves.shape == (1, 3, 4) and scene.shape == (1, 5) and patch.shape == (1, 2, 2, 2, 3)
    order = jnp.asarray([0, 2, 1])  # the scene looks at slot 0, the floor
    swapped, same, _ = encoder.apply(params, rgb, surface, local, masks[..., order], frames)
    np.testing.assert_allclose(swapped, waves[:, order], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(same, scene, rtol=1e-4, atol=1e-5)
    mixed = jnp.asarray([4, 0, 5, 2, 1, 3])
    again = encoder.apply(params, *(x[:, :, :, :, mixed] for x in (rgb, surface, local, masks)), frames)
    np.testing.assert_allclose(again[0], waves, rtol=1e-4, atol=1e-5)
    one = jnp.asarray([[1.0, 0.0]])
    changed = rgb.at[:, 1].set(9.0)
    alone = [encoder.apply(params, x, surface, local, masks, one)[0] for x in (rgb, changed)]
    np.testing.assert_array_equal(alone[0], alone[1])
