"""The ends of the bridge hold what is known and noise where nothing is; one Euler step lands on the other end."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsm_jax.flow import EULER, integrate
from wsm_jax.models.wave_bridge import state as flow
from wsm_jax.snapshot import channel

LAYOUT = flow.BridgeLayout(("depth", "local"), waves=2, wave_code=3, scene_code=2, patch_code=2)
KEY = jax.random.key(0)
CODE_WEIGHTS = {"style": 0.3, "remainder": 0.1}


@pytest.fixture(scope="module")
def blocks():
    return {
        name: jax.random.normal(jax.random.fold_in(KEY, i), (64, 6, 6, c)) for i, (name, c) in enumerate(LAYOUT.sizes.items())
    }


def test_layout_and_join_are_inverse(blocks):
    assert LAYOUT.order == ("rgb", "depth", "local", "style", "remainder")
    assert LAYOUT.local_slice == (4, 7)
    state = flow.join(blocks, LAYOUT.order)
    back = flow.split(state, LAYOUT.sizes)
    assert all(np.array_equal(back[name], blocks[name]) for name in LAYOUT.order)
    np.testing.assert_array_equal(state[..., slice(*LAYOUT.local_slice)], blocks["local"])
    with pytest.raises(ValueError, match="unknown: \\['depht'\\]"):
        flow.BridgeLayout(("depht", "local"), 2, 3, 2, 2)


def test_ends_hold_what_is_known_and_noise_elsewhere(blocks):
    core = jnp.broadcast_to(LAYOUT.bits(("depth", "style")), (64, 5))
    pixel = jnp.broadcast_to(LAYOUT.bits(("rgb", "local")), (64, 5))
    low, high = flow.ends(KEY, blocks, {**blocks, "rgb": -blocks["rgb"]}, core, pixel, LAYOUT.order, 0.05, 0.1, 4)
    np.testing.assert_array_equal(low["depth"], blocks["depth"])
    np.testing.assert_array_equal(low["style"], blocks["style"])
    np.testing.assert_array_equal(high["rgb"], -blocks["rgb"])
    np.testing.assert_array_equal(high["local"], blocks["local"])
    for noise, std in (
        (low["rgb"], 1.0),
        (low["local"], 1.0),
        (high["depth"], 1.0),
        (high["style"], 0.1),
        (high["remainder"], 0.1),
    ):
        assert abs(float(jnp.std(noise)) / std - 1) < 0.06
        assert abs(float(jnp.mean(noise))) < 0.1 * std
    assert abs(np.corrcoef(low["local"].ravel(), high["depth"].repeat(3, -1).ravel())[0, 1]) < 0.05


def test_a_channel_given_at_both_ends_stands_still(blocks):
    known = jnp.ones((64, 5))
    low, high = flow.ends(KEY, blocks, blocks, known, known, LAYOUT.order, 0.05, 0.1, 4)
    np.testing.assert_array_equal(low["depth"], high["depth"])


def test_noise_rows_differ_in_sign_alone_within_a_share():
    noise = flow.noise_like(KEY, jnp.zeros((8, 5, 5, 3)), share=4)
    np.testing.assert_array_equal(jnp.abs(noise[0]), jnp.abs(noise[3]))
    assert np.abs(np.abs(noise[0]) - np.abs(noise[4])).max() > 0.1


@pytest.mark.parametrize("steps", [1, 4])
def test_perfect_ends_are_reached_both_ways(blocks, steps):
    """With the true ends predicted, Euler goes from either end to the other exactly."""
    low, high = flow.join(blocks, LAYOUT.order), 2.0 - flow.join(blocks, LAYOUT.order)

    def velocity(x, level):
        return flow.velocity_of_ends(x, low, high, jnp.broadcast_to(level, (64,)))

    up = integrate(velocity, low, jnp.linspace(0.0, 1.0, steps + 1), EULER)
    down = integrate(velocity, high, jnp.linspace(1.0, 0.0, steps + 1), EULER)
    np.testing.assert_allclose(up, high, atol=2e-6)
    np.testing.assert_allclose(down, low, atol=2e-6)


def test_one_step_lands_on_the_prediction_whatever_the_state_is(blocks):
    """At an end the state is that end, however wrongly the network predicts it."""
    x = flow.join(blocks, LAYOUT.order)
    wrong, wanted = x + 5.0, -x
    down = x - flow.velocity_of_ends(x, wanted, wrong, jnp.ones(64))
    up = x + flow.velocity_of_ends(x, wrong, wanted, jnp.zeros(64))
    np.testing.assert_allclose(down, wanted, atol=1e-5)
    np.testing.assert_allclose(up, wanted, atol=1e-5)


def test_loss_is_zero_for_the_truth_and_counts_known_blocks_only(blocks):
    known, level, weight = jnp.ones((64, 5)), jnp.full(64, 0.5), jnp.ones((64, 6, 6, 1))
    total, _ = flow.loss((blocks, blocks), (blocks, blocks), known, known, level, weight, CODE_WEIGHTS)
    assert total == 0
    wrong = {**blocks, "depth": blocks["depth"] + 1.0}
    total, terms = flow.loss((wrong, blocks), (blocks, blocks), known, known, level, weight, CODE_WEIGHTS)
    np.testing.assert_allclose([total, terms["depth_0"]], [channel("depth").weight, 1.0], rtol=1e-5)
    hidden = known.at[:, LAYOUT.order.index("depth")].set(0.0)
    assert flow.loss((wrong, blocks), (blocks, blocks), hidden, known, level, weight, CODE_WEIGHTS)[0] == 0
    assert "style_1" not in terms


def test_style_raster_paints_waves():
    masks = jax.nn.one_hot(jnp.asarray([[[0, 1], [-1, 1]]]), 2)
    raster = flow.style_raster(masks, jnp.asarray([[[1.0], [2.0]]]), jnp.asarray([[5.0]]))
    np.testing.assert_array_equal(raster[0, ..., 0], [[1, 2], [0, 2]])
    np.testing.assert_array_equal(raster[0, ..., 1], np.full((2, 2), 5.0))
