"""Patches are a rearrangement of the pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsm_jax.layers.patches import patches, resample, unpatch

KEY = jax.random.key(1)


def test_unpatch_inverts_patches():
    x = jax.random.normal(KEY, (2, 8, 12, 3))
    cut = patches(x, 2)
    assert cut.shape == (2, 2, 3, 16, 3)
    np.testing.assert_array_equal(unpatch(cut), x)
    np.testing.assert_array_equal(cut[0, 1, 2].reshape(4, 4, 3), x[0, 4:8, 8:12])
    with pytest.raises(ValueError, match="8 x 12 does not divide"):
        patches(x, 3)


@pytest.mark.parametrize("side", [2, 4, 6, 8])
def test_resampling_keeps_a_constant(side):
    x = jnp.full((1, 2, 2, 16, 3), 0.25)
    out = resample(x, side)
    assert out.shape == (1, 2, 2, side**2, 3)
    np.testing.assert_allclose(out, 0.25, rtol=1e-6)
