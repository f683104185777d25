"""The pinhole camera: rays and projection are inverses, and the paths look where they should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from wsm_jax.snapshot import Camera, crop, ground, level_with, look_at, orbit, project, quaternion_to_matrix, rays
from wsm_jax.snapshot.camera import matrix_to_quaternion

seeds = st.integers(0, 2**32 - 1)


def cameras(rng, lead):
    q = rng.normal(size=(*lead, 4))
    return Camera(
        position=rng.normal(size=(*lead, 3)).astype(np.float32),
        rotation=(q / np.linalg.norm(q, axis=-1, keepdims=True)).astype(np.float32),
        focal=rng.uniform(0.4, 3.0, lead).astype(np.float32),
        offset=rng.uniform(-0.2, 0.2, (*lead, 2)).astype(np.float32),
    )


@settings(max_examples=40, deadline=None)
@given(seed=seeds)
def test_quaternion_to_matrix_is_a_rotation_and_its_inverse_agrees(seed):
    q = np.random.default_rng(seed).normal(size=(8, 4)).astype(np.float32)
    matrix = np.asarray(quaternion_to_matrix(q))
    np.testing.assert_allclose(matrix, Rotation.from_quat(q, scalar_first=True).as_matrix(), atol=2e-6)
    unit = q / np.linalg.norm(q, axis=-1, keepdims=True)
    back = matrix_to_quaternion(matrix)
    assert (back[..., 0] >= 0).all()
    np.testing.assert_allclose(np.abs(np.sum(back * unit, -1)), 1.0, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_project_is_the_inverse_of_rays(seed):
    rng = np.random.default_rng(seed)
    camera, height, width = cameras(rng, (2, 3)), 6, 9
    origin, direction = rays(camera, height, width)
    assert direction.shape == (2, 3, height, width, 3)
    depth = rng.uniform(0.5, 20, (2, 3, height, width)).astype(np.float32)
    points = origin[..., None, None, :] + depth[..., None] * direction
    canvas, found = project(camera, points.reshape(2, 3, -1, 3), width / height)
    v, u = np.meshgrid((np.arange(height) + 0.5) / height, (np.arange(width) + 0.5) / height, indexing="ij")
    np.testing.assert_allclose(found.reshape(depth.shape), depth, rtol=2e-5)
    np.testing.assert_allclose(
        canvas.reshape(*depth.shape, 2), np.broadcast_to(np.stack([u, v], -1), (*depth.shape, 2)), atol=1e-4
    )


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_ground_is_where_the_rays_meet_the_plane(seed):
    camera = cameras(np.random.default_rng(seed), (2, 3))
    camera.position[..., 2] += np.where(camera.position[..., 2] < 0, -0.1, 0.1)
    origin, direction = (np.asarray(x, np.float64) for x in rays(camera, 6, 9))
    found = ground(camera, 6, 9)
    assert isinstance(found, np.ndarray) and found.shape == (2, 3, 6, 9, 2)
    near = -direction[..., 2] / origin[..., None, None, 2]
    np.testing.assert_allclose(found[..., 0], near, rtol=1e-4, atol=1e-5 * np.abs(near).max())
    np.testing.assert_allclose(found[..., 1], direction[..., 2] / np.linalg.norm(direction, axis=-1), atol=2e-6)
    np.testing.assert_allclose(ground(jax.tree.map(jnp.asarray, camera), 6, 9), found, rtol=1e-4, atol=1e-5)


def test_ground_of_a_camera_on_the_plane_is_finite():
    camera = look_at(np.zeros(3), np.array([0.0, 1.0, 0.2]))
    assert np.isfinite(ground(camera, 4, 4)).all()


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_height_and_tilt_are_read_off_the_ground(seed):
    """With the heading, lens and place of `like`, the camera itself comes back."""
    rng = np.random.default_rng(seed)
    place = np.array([*rng.uniform(-3, 3, 2), rng.uniform(1.2, 4.0)])
    turn = rng.uniform(-np.pi, np.pi)
    true = look_at(place, place + np.array([4 * np.cos(turn), 4 * np.sin(turn), rng.uniform(-2.5, 0.5)]))
    like = look_at(place * np.array([1, 1, 0]) + np.array([0, 0, 9.0]), place + np.array([np.cos(turn), np.sin(turn), 8.0]))
    found = level_with(ground(true, 12, 20), like)
    np.testing.assert_allclose(found.position, true.position, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.abs(np.sum(found.rotation * true.rotation)), 1.0, atol=1e-6)


def test_a_camera_means_the_same_at_any_resolution():
    """A coarse pixel of an even image looks between its four fine ones."""
    camera = cameras(np.random.default_rng(0), ())
    coarse, fine = rays(camera, 4, 6)[1], rays(camera, 8, 12)[1]
    np.testing.assert_allclose(fine.reshape(4, 2, 6, 2, 3).mean((1, 3)), coarse, atol=1e-6)


def test_axes_of_the_identity_camera():
    """x right, y down, z forward: the pixel right of and below the centre looks to +x, +y, +z."""
    camera = Camera(np.zeros(3, np.float32), np.float32([1, 0, 0, 0]), np.array(1.0, np.float32), np.zeros(2, np.float32))
    _, direction = rays(camera, 2, 2)
    np.testing.assert_allclose(direction[1, 1], [0.25, 0.25, 1.0], atol=1e-7)
    np.testing.assert_allclose(direction[0, 0], [-0.25, -0.25, 1.0], atol=1e-7)


def test_points_in_the_camera_plane_project_to_finite_values():
    camera = cameras(np.random.default_rng(1), ())
    canvas, depth = project(camera, np.asarray(camera.position)[None])
    assert np.isfinite(canvas).all()
    np.testing.assert_allclose(depth, 0, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(seed=seeds, fov=st.floats(0.3, 2.0))
def test_look_at_centres_its_target_upright(seed, fov):
    rng = np.random.default_rng(seed)
    position = rng.uniform(-5, 5, (4, 3)).astype(np.float32)
    position[:, 0] += 6  # never above the target
    target = rng.uniform(-0.5, 0.5, (4, 3)).astype(np.float32)
    camera = look_at(position, target, fov)
    up = target + np.float32([0, 0, 0.1])
    canvas, depth = project(camera, np.stack([target, up], 1))
    np.testing.assert_allclose(canvas[:, 0], 0.5, atol=1e-4)
    np.testing.assert_allclose(canvas[:, 1, 0], 0.5, atol=1e-4)
    assert (canvas[:, 1, 1] < 0.5).all()
    np.testing.assert_allclose(depth[:, 0], np.linalg.norm(target - position, axis=-1), rtol=1e-5)
    top = rays(camera, 2, 2)[1][:, 0].mean(1)  # half way up the upper half of the image
    angle = np.arccos(np.sum(top * rays(camera, 1, 1)[1][:, 0, 0], -1) / np.linalg.norm(top, axis=-1))
    np.testing.assert_allclose(np.tan(angle), 0.5 * np.tan(fov / 2), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("position", [[0.0, 0.0, 3.0], [0.0, 0.0, -3.0]], ids=["down", "up"])
def test_look_at_refuses_a_vertical_view(position):
    with pytest.raises(ValueError, match="roll undefined"):
        look_at(np.float32([[4, 0, 1], position]), np.zeros((2, 3), np.float32))


def test_look_at_refuses_to_stand_in_its_target():
    with pytest.raises(ValueError, match="is at its target"):
        look_at(np.ones(3, np.float32), np.ones(3, np.float32))


def test_orbit_goes_round_its_target_without_repeating_a_view():
    camera = orbit(8, radius=5.0, height=2.0, target=(1.0, -1.0, 0.5))
    assert camera.position.shape == (8, 3)
    np.testing.assert_allclose(np.linalg.norm(camera.position[:, :2], axis=-1), 5.0, rtol=1e-6)
    np.testing.assert_allclose(camera.position[:, 2], 2.0)
    step = np.linalg.norm(camera.position - np.roll(camera.position, -1, 0), axis=-1)
    np.testing.assert_allclose(step, 10 * np.sin(np.pi / 8), rtol=1e-5)
    canvas, _ = project(camera, np.tile(np.float32([1, -1, 0.5]), (8, 1, 1)))
    np.testing.assert_allclose(canvas, 0.5, atol=1e-5)


def test_an_arc_reaches_both_its_ends():
    camera = orbit(3, radius=2.0, start=0.0, sweep=np.pi / 2)
    np.testing.assert_allclose(camera.position[[0, 2], :2], [[2, 0], [0, 2]], atol=1e-6)


def test_indexing_takes_one_camera_of_a_path():
    path = cameras(np.random.default_rng(2), (5,))
    one = path[3]
    np.testing.assert_array_equal(one.offset, path.offset[3])
    np.testing.assert_allclose(rays(one, 3, 4)[1], rays(path, 3, 4)[1][3], atol=1e-6)
    assert isinstance(rays(path[1:3], 2, 2)[1], jnp.ndarray)


@settings(max_examples=25, deadline=None)
@given(seed=seeds)
def test_a_crop_sees_what_its_pixels_saw(seed):
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(4, 40, 2))
    rows, columns = int(rng.integers(1, height + 1)), int(rng.integers(1, width + 1))
    top, left = int(rng.integers(0, height - rows + 1)), int(rng.integers(0, width - columns + 1))
    camera = cameras(rng, (2,))
    part = crop(camera, (height, width), top, left, rows, columns)
    whole = np.asarray(rays(camera, height, width)[1])[:, top : top + rows, left : left + columns]
    np.testing.assert_allclose(rays(part, rows, columns)[1], whole, rtol=2e-5, atol=2e-5)
