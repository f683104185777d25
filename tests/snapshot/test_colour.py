"""The sRGB curve: its two directions are inverses, it is continuous and monotonic, and both array libraries agree."""

import jax
import jax.numpy as jnp
import numpy as np

from wsm_jax.snapshot.colour import to_linear, to_srgb

VALUES = np.linspace(0.0, 1.0, 1001)


def test_both_directions_are_inverses():
    np.testing.assert_allclose(to_srgb(to_linear(VALUES)), VALUES, atol=1e-6)
    np.testing.assert_allclose(to_linear(to_srgb(VALUES)), VALUES, atol=1e-6)


def test_known_values_and_order():
    np.testing.assert_allclose(to_linear(np.array([0.0, 0.5, 1.0])), [0.0, 0.21404114, 1.0], atol=1e-8)
    np.testing.assert_allclose(to_srgb(np.array([-1.0, 2.0])), [0.0, 1.0], atol=1e-12)
    assert np.all(np.diff(to_linear(VALUES)) > 0)


def test_numpy_and_jax_agree_and_gradients_are_finite():
    for curve in (to_linear, to_srgb):
        assert isinstance(curve(VALUES), np.ndarray)
        np.testing.assert_allclose(curve(jnp.asarray(VALUES)), curve(VALUES), atol=1e-6)
        assert np.isfinite(jax.grad(lambda x, curve=curve: curve(x).sum())(jnp.asarray(VALUES))).all()
