"""Waves survive the trip through the vector of the flows; any vector becomes valid waves."""

import jax
import numpy as np
import pytest

from wsm_jax.core.vector import LAYOUT, SIZE, from_vector, to_vector
from wsm_jax.snapshot import SEMANTIC_CLASSES, quaternion_to_matrix
from wsm_jax.snapshot.waves import Waves, empty, from_json, to_json


def random_waves(seed: int, shape: tuple[int, ...]) -> Waves:
    rng = np.random.default_rng(seed)
    rotation = rng.normal(size=(*shape, 4)).astype(np.float32)
    rotation /= np.linalg.norm(rotation, axis=-1, keepdims=True)
    slots = np.broadcast_to(np.arange(1, shape[-1] + 1), shape)
    return Waves(
        presence=np.ones(shape, np.float32),
        centre=(rng.uniform(-1.8, 1.8, (*shape, 3)) + np.asarray([0, 0, 0.5])).astype(np.float32),
        scale=rng.uniform(0.1, 2.0, (*shape, 3)).astype(np.float32),
        rotation=rotation,
        exponents=rng.uniform(0.1, 1.9, (*shape, 2)).astype(np.float32),
        colour=rng.uniform(0, 1, (*shape, 3)).astype(np.float32),
        material=rng.uniform(0, 1, (*shape, 2)).astype(np.float32),
        velocity=rng.uniform(-3, 3, (*shape, 3)).astype(np.float32),
        angular_velocity=rng.uniform(-10, 10, (*shape, 3)).astype(np.float32),
        semantic=rng.integers(3, len(SEMANTIC_CLASSES), shape).astype(np.int32),
        instance=slots.astype(np.int32),
    )


def test_round_trip():
    waves = random_waves(0, (5, 4))
    back = from_vector(to_vector(waves))
    for name in ("presence", "centre", "scale", "exponents", "colour", "material", "velocity", "angular_velocity"):
        np.testing.assert_allclose(getattr(back, name), getattr(waves, name), rtol=1e-5, atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(back.semantic, waves.semantic)
    np.testing.assert_array_equal(back.instance, waves.instance)
    np.testing.assert_allclose(quaternion_to_matrix(back.rotation), quaternion_to_matrix(waves.rotation), atol=1e-5)


def test_empty_slots_are_one_vector_and_come_back_empty():
    vector = to_vector(empty(3, (2,)))
    assert vector.shape == (2, 3, SIZE) and sum(LAYOUT.values()) == SIZE
    assert np.unique(np.asarray(vector).reshape(-1, SIZE), axis=0).shape[0] == 1
    back = from_vector(vector)
    assert np.all(np.asarray(back.presence) == 0) and np.all(np.asarray(back.instance) == 0)


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_any_vector_is_a_valid_core(scale):
    """Noise of any size decodes to waves that the core file accepts: finite, orthonormal, in range."""
    waves = from_vector(scale * jax.random.normal(jax.random.key(0), (4, 6, SIZE)))
    matrix = np.asarray(quaternion_to_matrix(waves.rotation))
    np.testing.assert_allclose(matrix @ np.swapaxes(matrix, -1, -2), np.broadcast_to(np.eye(3), matrix.shape), atol=1e-5)
    assert np.all(np.asarray(waves.scale) > 0)
    assert np.all((np.asarray(waves.exponents) >= 0.1) & (np.asarray(waves.exponents) <= 1.9))
    read, _ = from_json(to_json(waves))
    np.testing.assert_allclose(read.centre, waves.centre, rtol=1e-6)
