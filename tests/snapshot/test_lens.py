"""Lenses that distort, and orthographic cameras: rays and projection stay inverse, and beyond the lens all is finite."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsm_jax.snapshot import ground, lens, look_at, project, rays

LENSES = {
    "barrel": [-0.25, 0.05, 0.0, 0.0, 0.0],
    "pincushion": [0.12, -0.01, 0.0, 0.0, 0.001],
    "tangential": [-0.1, 0.02, 0.004, -0.003, 0.0],
}


def camera_with(distortion=None, orthographic=False):
    camera = look_at(np.float32([2.0, -3.0, 1.5]), np.float32([0.1, 0.2, 0.3]), fov=1.0)
    bent = None if distortion is None else np.float32(distortion)
    return camera.replace(distortion=bent, orthographic=orthographic, offset=np.float32([0.03, -0.02]))


@pytest.mark.parametrize("kind", [*LENSES, "orthographic"])
def test_project_is_the_inverse_of_rays(kind):
    camera = camera_with(orthographic=True) if kind == "orthographic" else camera_with(LENSES[kind])
    height, width = 9, 13
    origin, direction = rays(camera, height, width)
    depth = np.random.default_rng(0).uniform(0.5, 9.0, (height, width, 1)).astype(np.float32)
    canvas, found = project(camera, (origin + depth * direction).reshape(-1, 3), width / height)
    v, u = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / height, indexing="ij")
    np.testing.assert_allclose(canvas, np.stack([u, v], -1).reshape(-1, 2), atol=3e-6)
    np.testing.assert_allclose(found, depth.ravel(), rtol=1e-5)
    seen = np.asarray(ground(camera, height, width), np.float64)
    up = np.asarray(direction)[..., 2]
    start = np.broadcast_to(np.asarray(origin), direction.shape)[..., 2]
    np.testing.assert_allclose(seen[..., 0], -up / start, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(seen[..., 1], up / np.linalg.norm(direction, axis=-1), atol=1e-5)


def test_distortion_is_opencv_s_polynomial():
    """One point by hand: x = 0.3, y = -0.2, s = 0.13."""
    k1, k2, p1, p2, k3 = 0.1, -0.2, 0.01, -0.02, 0.3
    radial = 1 + k1 * 0.13 + k2 * 0.13**2 + k3 * 0.13**3
    x, y = lens.distort(np.float64([0.3]), np.float64([-0.2]), np.float64([k1, k2, p1, p2, k3]))
    np.testing.assert_allclose(x, 0.3 * radial + 2 * p1 * 0.3 * -0.2 + p2 * (0.13 + 2 * 0.09), rtol=1e-12)
    np.testing.assert_allclose(y, -0.2 * radial + p1 * (0.13 + 2 * 0.04) + 2 * p2 * 0.3 * -0.2, rtol=1e-12)


def test_beyond_its_limit_a_lens_shows_its_limit():
    """Of k1 = -0.3 alone the distorted radius grows up to r = sqrt(1 / 0.9)."""
    k = np.float64([-0.3, 0, 0, 0, 0])
    end = 0.999 * np.sqrt(1 / 0.9)
    np.testing.assert_allclose(lens.limit(k), end, rtol=1e-6)
    far = np.float64([2.0, 50.0, 1e6])
    np.testing.assert_allclose(lens.distort(far, 0 * far, k)[0], end - 0.3 * end**3, rtol=1e-9)
    for place in (np.float64([0.8, 3.0, 1e3]), jnp.asarray([0.8, 3.0, 1e3])):
        x, y = lens.undistort(place, 0.5 * place, np.asarray(k, place.dtype))
        np.testing.assert_allclose(np.hypot(x, y), end, rtol=1e-5)
        np.testing.assert_allclose(np.asarray(y) / x, 0.5, rtol=1e-5)
    slope = jax.grad(lambda k: jnp.sum(lens.undistort(jnp.asarray([0.8, 3.0]), jnp.zeros(2), k)[0]))(
        jnp.asarray(k, jnp.float32)
    )
    assert np.isfinite(slope).all()


def test_the_derivative_of_undistortion_is_that_of_the_inverse():
    with jax.enable_x64(True):
        k = np.float64(LENSES["tangential"])
        x, y = np.float64([0.2, -0.4]), np.float64([0.3, 0.1])
        found = jax.jacfwd(lambda k: jnp.stack(lens.undistort(jnp.asarray(x), jnp.asarray(y), k)))(jnp.asarray(k))
        for i in range(5):
            step = 1e-6 * np.eye(5)[i]
            ends = [np.stack(lens.undistort(x, y, k + s * step)) for s in (1, -1)]
            np.testing.assert_allclose(found[..., i], (ends[0] - ends[1]) / 2e-6, rtol=1e-5, atol=1e-8)


def test_numpy_stays_numpy_and_jax_agrees():
    x, y = np.random.default_rng(1).uniform(-0.6, 0.6, (2, 50)).astype(np.float32)
    ours = lens.undistort(x, y, np.float32(LENSES["barrel"]))
    assert all(isinstance(part, np.ndarray) for part in ours)
    np.testing.assert_allclose(
        jnp.stack(lens.undistort(jnp.asarray(x), jnp.asarray(y), np.float32(LENSES["barrel"]))), ours, atol=1e-6
    )


def test_an_orthographic_camera_with_a_lens_is_refused():
    with pytest.raises(ValueError, match="orthographic"):
        rays(camera_with(LENSES["barrel"], orthographic=True), 4, 4)


def test_a_camera_keeps_its_lens_when_it_is_indexed():
    camera = camera_with(LENSES["barrel"])
    path = jax.tree.map(lambda x: np.stack([x, x]), camera)
    np.testing.assert_array_equal(path[1].distortion, camera.distortion)
    assert path.replace(distortion=None, orthographic=True)[0].orthographic
