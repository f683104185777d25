"""Derived channels: those of the ray caster from its depth alone, planes in closed form, and nothing where nothing is known."""

import dataclasses

import jax
import numpy as np
import pytest

from data_pipelines.ingest.derive import motion, normals
from wsm_jax.core import render
from wsm_jax.snapshot import Camera, look_at
from wsm_jax.snapshot.camera import pixel_plane
from wsm_jax.snapshot.waves import empty

TIME = np.array([0.0, 0.1, 0.3])
surface = jax.jit(render.surface, static_argnames=("height", "width"))


def scene():
    """A floor, a turned box and a ball, at rest."""
    turn = np.deg2rad(15)
    fields = {
        "presence": [1.0, 1, 1],
        "centre": [[0, 0, -1], [-0.9, 0.3, 0.6], [0.8, 0, 0.8]],
        "scale": [[50, 50, 1], [0.6, 0.5, 0.6], [0.8, 0.8, 0.8]],
        "rotation": [[1, 0, 0, 0], [np.cos(turn), 0, 0, np.sin(turn)], [1, 0, 0, 0]],
        "exponents": [[0.1, 0.1], [0.1, 0.1], [1, 1]],
    }
    return empty(3).replace(**{name: np.asarray(x, np.float32) for name, x in fields.items()})


def path(kind):
    """Three cameras that move and turn; of a pinhole, a lens that distorts and lies off the middle, or orthographic."""
    camera = look_at(
        np.float32([[0, -4, 2.0], [0.2, -3.9, 2.1], [0.3, -3.7, 2.0]]), np.float32([[0, 0, 0.4], [0.1, 0, 0.4], [0, 0.1, 0.5]])
    )
    offset = np.tile(np.float32([0.05, -0.1]), (3, 1))
    if kind == "lens":
        bent = np.tile(np.float32([-0.2, 0.05, 0.01, -0.01, 0.0]), (3, 1))
        return dataclasses.replace(camera, offset=offset, distortion=bent)
    if kind == "orthographic":
        return dataclasses.replace(camera, offset=offset, focal=np.full(3, 0.25, np.float32), orthographic=True)
    return camera


def rendered(camera, side=48):
    """The caster's channels [T H W C]; motion to the next frame, of the last to the one before."""
    later = camera[np.array([1, 2, 1])]
    dt = np.float32([0.1, 0.2, -0.2])
    shots = [surface(scene(), camera[t], side, side, later=later[t], dt=dt[t]) for t in range(3)]
    return jax.tree.map(lambda *x: np.stack([np.asarray(v) for v in x]), *shots)


def inner(labels):
    """Where a pixel [T H W], not of the border, and its four neighbours have one label."""
    middle, found = labels[:, 1:-1, 1:-1], np.zeros(labels.shape, bool)
    across = (labels[:, 1:-1, :-2] == middle) & (labels[:, 1:-1, 2:] == middle)
    found[:, 1:-1, 1:-1] = across & (labels[:, :-2, 1:-1] == middle) & (labels[:, 2:, 1:-1] == middle)
    return found


def facing(camera, normal):
    """Cosine of the angle at which every pixel sees its surface."""
    x, y = pixel_plane(camera, *normal.shape[1:3])
    flat = np.zeros_like(x) if camera.orthographic else np.ones_like(x)
    ray = np.stack([x * flat, y * flat, np.ones_like(x)], -1)
    return -np.sum(ray * normal, -1) / np.linalg.norm(ray, axis=-1)


@pytest.mark.parametrize("kind", ["pinhole", "lens", "orthographic"])
def test_of_a_world_at_rest_the_renderers_own_channels_follow_from_its_depth(kind):
    camera = path(kind)
    true = rendered(camera)
    depth, instance, normal = true["depth"][..., 0], true["instance"][..., 0], true["normal"]
    np.testing.assert_allclose(motion(depth, camera, TIME), true["motion"], atol=1e-5)
    assert np.abs(true["motion"]).max() > 0.3
    found = normals(depth, camera)
    length = np.linalg.norm(found, axis=-1)
    assert (np.isclose(length, 1, atol=1e-6) | (length == 0)).all()
    # there is no normal between two edges that are three pixels apart
    error, known = np.linalg.norm(found - normal, axis=-1), inner(instance) & (length > 0)
    assert known[instance == 1].sum() > 0.98 * inner(instance)[instance == 1].sum()
    floor, ball = known & (instance == 1) & (depth < 10), known & (instance == 3) & (facing(camera, normal) > 0.7)
    assert floor.sum() > 2000 and error[floor].max() < 1e-3
    assert ball.sum() > 400 and error[ball].max() < 0.012


def test_normals_are_of_second_order_in_the_pixel():
    camera, worst = path("pinhole"), []
    for side in (32, 96):
        true = rendered(camera, side)
        ball = inner(true["instance"][..., 0]) & (true["instance"][..., 0] == 3) & (facing(camera, true["normal"]) > 0.8)
        worst.append(np.linalg.norm(normals(true["depth"][..., 0], camera) - true["normal"], axis=-1)[ball].max())
    assert worst[0] < 0.015 and worst[1] < worst[0] / 7


def still(count, **fields):
    """`count` cameras at the origin that look along world z."""
    camera = Camera(
        np.zeros((count, 3), np.float32),
        np.tile(np.float32([1, 0, 0, 0]), (count, 1)),
        np.full(count, 0.9, np.float32),
        np.zeros((count, 2), np.float32),
    )
    return dataclasses.replace(camera, **fields)


def plane(camera, normal, distance, height=12, width=16):
    """Depth [T H W] of the plane n . p = -distance of the camera frame, 0 where it is not ahead."""
    x, y = pixel_plane(camera, height, width)
    along = -(x * normal[0] + y * normal[1] + normal[2])
    return np.where(along > 1e-2, distance / np.maximum(along, 1e-2), 0.0)


@pytest.mark.parametrize("normal", [(0, 0, -1), (0.6, 0, -0.8), (0.2, -0.9, -0.1), (0, 0.96, -0.28)])
def test_the_normal_of_a_plane_is_exact_at_any_slant_up_to_the_border(normal):
    normal = np.array(normal) / np.linalg.norm(normal)
    depth = plane(still(2), normal, 1.5)
    found = normals(depth, still(2))
    known = found.any(-1)
    assert known.sum() >= 0.5 * (depth > 0).sum() and (known | (depth == 0)).sum() > 100
    np.testing.assert_allclose(found[known], np.broadcast_to(normal, found[known].shape), atol=1e-6)
    if (depth > 0).all():
        assert known.all()


def test_where_depth_is_missing_or_jumps_there_is_no_normal_and_elsewhere_the_right_one():
    depth = np.full((1, 12, 16), 2.0, np.float32)
    depth[0, 5, 5], depth[0, 9, 2] = 0.0, np.nan
    depth[0, :, 10:] = 3.0
    wanted = np.ones((12, 16), bool)
    for i, j in ((5, 5), (9, 2)):
        wanted[i, j - 1 : j + 2] = wanted[i - 1 : i + 2, j] = False
    wanted[:, 9:11] = False
    wanted[9, 0] = wanted[11, 2] = False  # the border has the judgement of the pixel inside
    found = normals(depth, still(1))[0]
    np.testing.assert_array_equal(found.any(-1), wanted)
    np.testing.assert_allclose(found[wanted], np.broadcast_to([0, 0, -1], found[wanted].shape), atol=1e-6)
    assert not normals(np.zeros((1, 4, 4)), still(1)).any()


def test_a_pixel_halfway_up_an_edge_has_no_normal():
    depth = np.full((1, 9, 16), 2.0)
    depth[..., 9:] = 4.0
    depth[..., 8] = 1 / (0.5 * (1 / 2 + 1 / 4))
    assert not normals(depth, still(1))[0, :, 7:10].any()


def test_motion_over_a_wall_is_that_of_a_pinhole():
    position = np.float32([[0, 0, 0], [0.2, -0.1, 0], [0.2, -0.1, 0.5]])
    camera, depth = still(3, position=position), np.full((3, 6, 8), 2.0)
    found = motion(depth, camera, np.array([0.0, 0.5, 0.7]))
    np.testing.assert_allclose(found[0], np.broadcast_to(np.array([-0.4, 0.2]) * 0.9 / 2.0, (6, 8, 2)), atol=1e-6)
    x, y = (v[1] for v in pixel_plane(camera, 6, 8))
    outward = 0.9 * np.stack([x, y], -1)
    np.testing.assert_allclose(found[1], outward * (2.0 / 1.5 - 1) / 0.2, atol=1e-6)
    np.testing.assert_allclose(found[2], outward * (2.0 / 2.5 - 1) / -0.2, atol=1e-6)
    assert not motion(depth, still(3), np.array([0.0, 0.5, 0.7])).any()
    turned = still(2, rotation=np.float32([[1, 0, 0, 0], [np.cos(0.05), 0, np.sin(0.05), 0]]))  # 0.1 rad to the right
    near, far = (motion(np.full((2, 6, 8), d), turned, np.array([0.0, 1.0]))[0] for d in (1.0, 7.0))
    np.testing.assert_allclose(near, far, atol=1e-6)
    np.testing.assert_allclose(near[..., 0], (0.9 * np.tan(np.arctan(x) - 0.1)) - 0.9 * x, atol=1e-6)


def test_there_is_no_motion_where_depth_is_missing_or_the_camera_passes_the_point():
    depth = np.full((2, 6, 8), 2.0)
    depth[0, 1, 2], depth[0, 3, 4], depth[0, 4, 4] = 0, np.inf, 0.3
    found = motion(depth, still(2, position=np.float32([[0, 0, 0], [0.1, 0, 0.5]])), np.array([0.0, 1.0]))
    assert np.isfinite(found).all()
    missing = np.zeros((6, 8), bool)
    missing[[1, 3, 4], [2, 4, 4]] = True
    np.testing.assert_array_equal(found[0].any(-1), ~missing)


def test_what_does_not_fit_is_refused():
    depth = np.ones((2, 4, 4))
    with pytest.raises(ValueError, match=r"cameras of shape \(3,\) for 2 depth maps"):
        normals(depth, still(3))
    with pytest.raises(ValueError, match=r"2 x 4 pixels; needed 3 x 3"):
        normals(depth[:, :2], still(2))
    for time in ([0.0, 0.0], [1.0, 0.0], [0.0, np.nan]):
        with pytest.raises(ValueError, match="times that increase"):
            motion(depth, still(2), np.array(time))
    with pytest.raises(ValueError, match="1 frames"):
        motion(depth[:1], still(1), np.zeros(1))
