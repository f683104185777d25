"""Rotations agree with SciPy, and their gradients are finite at the identity and between equal rotations."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation, Slerp

from wsm_jax.core import rotation
from wsm_jax.snapshot import quaternion_to_matrix

A, B = (Rotation.random(16, random_state=seed) for seed in (0, 1))
VECTOR = np.random.default_rng(2).normal(size=(16, 3)).astype(np.float32)
IDENTITY = jnp.asarray([1.0, 0.0, 0.0, 0.0])


def quaternion(value):
    return value.as_quat(scalar_first=True).astype(np.float32)


def assert_same(found, expected):
    np.testing.assert_allclose(rotation.matrix64(found), expected.as_matrix(), atol=2e-6)


def test_products_inverses_and_rotation_vectors_agree_with_scipy():
    assert_same(rotation.multiply(quaternion(A), quaternion(B)), A * B)
    assert_same(rotation.conjugate(quaternion(A)), A.inv())
    assert_same(rotation.from_rotation_vector(VECTOR), Rotation.from_rotvec(VECTOR))
    assert_same(rotation.turned(quaternion(A), VECTOR), Rotation.from_rotvec(VECTOR) * A)


def test_matrices_and_back():
    matrix = quaternion_to_matrix(quaternion(A))
    np.testing.assert_allclose(matrix, rotation.matrix64(quaternion(A)), atol=2e-6)
    found = np.asarray(rotation.from_matrix(matrix))
    assert_same(found, A)
    assert (found[:, 0] >= 0).all()
    half_turns = jnp.asarray([[0.0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    np.testing.assert_allclose(jnp.abs(rotation.from_matrix(quaternion_to_matrix(half_turns))), half_turns, atol=1e-6)


def test_slerp_agrees_with_scipy_and_takes_the_shorter_arc():
    for u in (0.0, 0.3, 1.0):
        expected = [Slerp([0, 1], Rotation.concatenate([a, b]))(u).as_matrix() for a, b in zip(A, B, strict=True)]
        for sign in (1.0, -1.0):
            found = rotation.slerp(quaternion(A), sign * quaternion(B), jnp.full((16, 1), u))
            np.testing.assert_allclose(rotation.matrix64(found), expected, atol=2e-5)


def test_gradients_are_finite_where_the_angle_is_zero():
    at_zero = jax.jacobian(rotation.turned, 1)(IDENTITY, jnp.zeros(3))
    np.testing.assert_allclose(at_zero, np.concatenate([np.zeros((1, 3)), 0.5 * np.eye(3)]), atol=1e-6)
    for argument in (0, 1, 2):
        assert jnp.isfinite(jax.jacobian(rotation.slerp, argument)(IDENTITY, IDENTITY, jnp.asarray([0.5]))).all()
    assert jnp.isfinite(jax.jacobian(rotation.from_matrix)(jnp.eye(3))).all()
