"""Observations become points in the world, exactly; what tells no shape is refused with what was found and what is needed."""

import numpy as np
import pytest

from wsm_jax.core.fitting import observations as seen
from wsm_jax.snapshot import Camera, look_at
from wsm_jax.snapshot.camera import project


def test_depth_points_project_back_to_their_pixels():
    camera = look_at(np.array([2.0, -3.0, 1.5]), np.zeros(3))
    depth = np.random.default_rng(0).uniform(1, 4, (6, 8)).astype(np.float32)
    depth[0, 0] = 0.0
    mask = np.arange(48).reshape(6, 8)
    colour = np.random.default_rng(1).random((6, 8, 3))
    cloud = seen.from_depth(depth, camera, mask, colour)
    canvas, z = project(camera, cloud.points, 8 / 6)
    np.testing.assert_allclose(z, depth[depth > 0], rtol=1e-5)
    rows, columns = np.nonzero(depth)
    np.testing.assert_allclose(canvas, np.stack([columns + 0.5, rows + 0.5], -1) / 6, atol=1e-5)
    np.testing.assert_array_equal(cloud.label, mask[depth > 0])
    np.testing.assert_allclose(cloud.spread, 0.0015 * depth[depth > 0] ** 2, rtol=1e-5)
    np.testing.assert_allclose(cloud.colour, colour[depth > 0], rtol=1e-6)


def test_vacant_points_lie_between_the_camera_and_the_points():
    rng = np.random.default_rng(2)
    wall = np.stack([rng.uniform(-1, 1, 500), np.full(500, 2.0), rng.uniform(-1, 1, 500)], -1).astype(np.float32)
    cloud = seen.Cloud(wall, np.zeros(500, np.int32), np.array([0.0, -2.0, 0.0]))
    low, high = np.array([-0.5, 0.0, -0.5]), np.array([0.5, 3.0, 0.5])
    found, solid = seen.known_space(cloud, low, high, 200, 0.1)
    assert len(found) == 200
    assert ((found >= low - 1e-5) & (found <= high + 1e-5)).all()
    assert found[:, 1].max() < 2.0 - 0.08
    assert len(solid) == 0 and not any(map(len, seen.known_space(seen.Cloud(wall, cloud.label), low, high, 200, 0.1)))


def test_points_of_a_mesh_are_uniform_by_area():
    vertices = np.array([[0, 0, 0], [3, 0, 0], [0, 1, 0], [0, 0, 2], [1.0, 0, 2]])
    faces = np.array([[0, 1, 2], [0, 3, 4]])  # areas 1.5 and 1
    points = seen.from_mesh(vertices, faces, 5000).points
    flat = points[:, 2] == 0
    np.testing.assert_allclose(flat.mean(), 0.6, atol=0.001)
    np.testing.assert_allclose(points[flat].mean(0), [1, 1 / 3, 0], atol=0.05)  # the centroid
    assert (points[flat][:, 0] / 3 + points[flat][:, 1] <= 1 + 1e-6).all()


def test_zero_crossings_of_a_signed_distance_lie_on_the_surface():
    axis = np.linspace(-1, 1, 33)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    cloud = seen.from_signed_distance(np.linalg.norm(grid, axis=-1) - 0.6, np.full(3, -1.0), 2 / 32)
    np.testing.assert_allclose(np.linalg.norm(cloud.points, axis=1), 0.6, atol=1e-3)
    assert len(cloud.points) > 1000


def test_millions_of_points_are_subsampled_with_a_warning(caplog):
    many = np.random.default_rng(3).normal(size=(200_000, 3)).astype(np.float32)
    cloud = seen.from_points(many, limit=1000, seed=4)
    assert len(cloud.points) == 1000
    assert "kept 1000 of 200000 points (seed 4)" in caplog.text
    np.testing.assert_array_equal(cloud.points, seen.from_points(many, limit=1000, seed=4).points)


DEPTH = np.full((4, 4), 2.0, np.float32)
CAMERA = look_at(np.array([2.0, 0.0, 1.0]), np.zeros(3))


def lens(focal):
    """A camera at the origin."""
    return Camera(np.zeros(3, np.float32), np.float32([1, 0, 0, 0]), np.full((), focal, np.float32), np.zeros(2, np.float32))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: seen.from_depth(1000 * DEPTH, CAMERA), r"depths 2000..2000, median 2000.*needed metres.*mm"),
        (lambda: seen.from_depth(np.uint16(1000 * DEPTH), CAMERA), r"uint16; needed float metres \(divide.*1000"),
        (lambda: seen.from_depth(0 * DEPTH, CAMERA), "no pixel of 4 x 4 has a depth"),
        (lambda: seen.from_depth(DEPTH, CAMERA, np.zeros((4, 4), int)), "mask holds no pixel"),
        (lambda: seen.from_depth(DEPTH, CAMERA, np.zeros((2, 4), int)), r"mask of shape \(2, 4\), int64, depth \(4, 4\)"),
        (lambda: seen.from_points(np.full((9, 3), np.nan)), "9 of 9 points are not finite"),
        (lambda: seen.from_points(np.zeros((9, 2))), r"shape \(9, 2\).*\[n, 3\]"),
        (lambda: seen.from_points(np.zeros((2, 3))), "2 points; needed 4"),
        (lambda: seen.from_points(np.eye(4)[:, :3] * 1e9), "needed metres, below 1e6"),
        (lambda: seen.from_points(np.zeros((9, 3)), np.full(9, -1)), "needed integers from 0"),
        (lambda: seen.from_mesh(np.eye(3), np.array([[0, 1, 5]])), r"name vertices 0..5; there are 0..2"),
        (lambda: seen.from_mesh(np.zeros((3, 3)), np.array([[0, 1, 2]])), "area 0"),
        (lambda: seen.from_signed_distance(np.ones((4, 4, 4)), np.zeros(3), 0.1), r"1..1 m have no zero"),
        (lambda: seen.from_points(np.eye(4)[:, :3], colour=np.full((4, 3), 255.0)), "colours .*255; needed sRGB"),
        (lambda: seen.from_points(np.eye(4)[:, :3], colour=np.full((4, 3), np.nan)), "colours nan"),
        (lambda: seen.from_depth(np.ones((4, 4), np.float32), lens(0.0)), "focal 0"),
        (lambda: seen.from_depth(np.ones((4, 4), np.float32), lens(1.0), noise=-1.0), "noise=-1"),
        (lambda: seen.from_depth(np.ones((4, 4), np.float32), lens(1.0), np.full((4, 4), -5)), "mask"),
        (lambda: seen.extent(np.zeros((9, 3)), "x"), "one point"),
        (lambda: seen.extent(np.outer(np.arange(9.0), [1, 2, 3]), "x"), "a line"),
        (lambda: seen.extent(np.random.default_rng(0).normal(size=(9, 3)) * [1, 1, 0], "x"), "a plane"),
    ],
)
def test_what_tells_no_shape_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_hole_in_a_complete_cloud_does_not_make_its_body_empty():
    way = np.random.default_rng(5).normal(size=(8192, 3))
    ball = 0.5 * way / np.linalg.norm(way, axis=1, keepdims=True)
    holed = ball[np.linalg.norm(ball - [0, 0, 0.5], axis=1) > 0.045]
    found, solid = seen.known_space(seen.from_points(holed, complete=True), holed.min(0), holed.max(0), 4000, 0.01)
    radius = np.linalg.norm(found, axis=1)
    assert len(found) > 1000 and (radius > 0.5).mean() > 0.99, "all but those beside the hole lie outside"
    assert len(solid) > 1000 and np.linalg.norm(solid, axis=1).max() < 0.5
