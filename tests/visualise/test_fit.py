"""Pictures of a fit: the depth error has the colour and size of the difference, points land on their pixels, nearest first."""

import numpy as np
import pytest

from wsm_jax.core.render import surface
from wsm_jax.snapshot import Camera, look_at
from wsm_jax.snapshot.waves import empty
from wsm_jax.visualise.fit import fit_picture, splat_points

H, W = 24, 32


@pytest.fixture
def ball():
    return empty(1).replace(presence=np.ones(1, np.float32), colour=np.float32([[1, 0, 0]]))


@pytest.fixture
def camera() -> Camera:
    return look_at(np.float32([0, -3, 0]), np.zeros(3, np.float32))


@pytest.mark.parametrize(("shift", "channel"), [(0.05, 0), (-0.05, 1)])
def test_error_is_red_where_the_waves_are_nearer_and_green_where_farther(ball, camera, shift, channel):
    exact = np.asarray(surface(ball, camera, H, W, channels=("depth",))["depth"])[..., 0]
    rgb = np.full((H, W, 3), 0.5, np.float32)
    measured = np.where(exact > 0, exact + shift, 0.0).astype(np.float32)
    picture = fit_picture(ball, camera, rgb, measured, full_error=0.2)
    assert picture.shape == (H, 3 * W, 3)
    np.testing.assert_array_equal(picture[:, :W], rgb)
    drawn, error = picture[:, W : 2 * W], picture[:, 2 * W :]
    assert ((drawn[..., 0] > 0) == (exact > 0)).all() and not drawn[..., 1:].any()
    np.testing.assert_allclose(error[exact > 0, channel], 0.25, atol=1e-5)
    assert not np.delete(error, channel, -1).any() and not error[exact == 0].any()
    np.testing.assert_allclose(fit_picture(ball, camera, rgb, measured, full_error=0.01)[:, 2 * W :].max(), 1.0)


def test_a_scale_of_the_error_that_is_not_positive_is_refused(ball, camera):
    with pytest.raises(ValueError, match="full_error=0"):
        fit_picture(ball, camera, np.zeros((H, W, 3), np.float32), np.zeros((H, W), np.float32), full_error=0.0)


def test_points_are_drawn_at_their_pixels_and_the_nearest_hides_the_others(camera):
    """Beside the optical axis, below the middle: the nearer of two points; one behind the camera is not drawn."""
    points = np.float32([[0.026, 1, -0.026], [0.02, 0, -0.02], [0, -9, 0]])
    colours = np.float32([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    for order in ([0, 1, 2], [1, 0, 2]):
        rgb, depth = splat_points(points[order], colours[order], camera, H, W)
        np.testing.assert_array_equal(rgb[H // 2, W // 2], [0, 1, 0])
        np.testing.assert_allclose(depth[H // 2 : H // 2 + 2, W // 2 : W // 2 + 2], 3.0, rtol=1e-5)
        assert np.count_nonzero(depth) == 4
