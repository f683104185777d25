"""As many waves as the points ask for: parts of an object, walls with doorways, objects apart, a room."""

import jax
import numpy as np
import pytest

from wsm_jax.core.fitting import partition, planes
from wsm_jax.core.fitting.compare import depth_error, iou, surface_samples
from wsm_jax.core.fitting.observations import Cloud, from_depth, from_mesh, from_points
from wsm_jax.core.fitting.partition import distances
from wsm_jax.core.fitting.sets import estimate_noise, fit_set, to_waves
from wsm_jax.core.geometry import Geometry
from wsm_jax.snapshot import Camera, quaternion_to_matrix


def box(centre, half):
    return Geometry(*(np.float32(x) for x in (centre, half, [1, 0, 0, 0], [0.1, 0.1])))


def together(*waves):
    return jax.tree.map(lambda *x: np.stack(x), *waves)


def test_two_boxes_are_found_as_two_objects_or_as_two_parts_of_one():
    bracket = together(box([0, 0, 0.1], [0.6, 0.3, 0.1]), box([-0.5, 0, 0.6], [0.1, 0.3, 0.4]))
    fit = fit_set(from_points(surface_samples(bracket, 1024)), max_waves=4)
    assert len(fit.instance) == 2
    np.testing.assert_array_equal(fit.instance, 1)
    assert iou(fit.geometry, bracket, 32) > 0.95
    assert (fit.owner >= 0).all() and np.quantile(fit.residual, 0.95) < 0.02
    apart = together(box([0, 0, 0], [0.3, 0.2, 0.1]), box([2, 0, 0], [0.1, 0.2, 0.3]))
    fit = fit_set(from_points(surface_samples(apart, 1024)), max_waves=4)
    np.testing.assert_array_equal(np.sort(fit.instance), [1, 2])
    assert iou(fit.geometry, apart, 48) > 0.9
    waves = to_waves(fit, slots=3)
    np.testing.assert_array_equal(waves.presence, [1, 1, 0])
    with pytest.raises(ValueError, match="2 waves for 1 slots; needed 2"):
        to_waves(fit, slots=1)


def test_labels_part_what_touches():
    pair = together(box([-0.2, 0, 0], [0.2, 0.2, 0.2]), box([0.2, 0, 0], [0.2, 0.2, 0.2]))
    points = surface_samples(pair, 1024)
    label = np.where(points[:, 0] < 0, 3, 7)
    fit = fit_set(from_points(points, label, np.where(label[:, None] == 3, [1.0, 0, 0], [0, 0, 1.0])), max_waves_per_object=1)
    assert len(fit.instance) == 2
    for value in (3, 7):
        assert len(np.unique(fit.owner[label == value])) == 1
    waves = to_waves(fit, Cloud(points, label, colour=np.where(label[:, None] == 3, [1.0, 0, 0], [0, 0, 1.0])))
    red = int(np.unique(fit.owner[label == 3])[0])
    np.testing.assert_array_equal(waves.colour[[red, 1 - red]], [[1, 0, 0], [0, 0, 1]])


def test_a_wall_is_thin_waves_behind_its_points_and_leaves_its_doorway_open():
    rng = np.random.default_rng(0)
    wall = np.stack([rng.uniform(-1, 1, 4000), np.full(4000, 2.0), rng.uniform(-1, 1, 4000)], -1)
    window = (wall[:, 0] > 0.2) & (wall[:, 2] < 0.0)
    wall[window] *= 1.5  # the rays go on to what is behind
    points = np.float32(wall + 0.002 * rng.normal(size=wall.shape))
    viewpoint = np.zeros(3, np.float32)
    waves, owner = planes.carve(points, np.full(4000, 0.002), 1.0, viewpoint)
    used = together(*(waves[k] for k in np.unique(owner[~window])[np.unique(owner[~window]) >= 0]))
    d = distances(used, points)
    near = np.abs(d[:, ~window]).min(0)
    assert np.median(near) < 0.004, near
    assert np.quantile(near, 0.8) < 0.03, np.quantile(near, [0.5, 0.7, 0.8, 0.9])
    n = np.asarray(quaternion_to_matrix(used.rotation))[..., 2]
    np.testing.assert_allclose(np.abs(n[:, 1]), 1.0, atol=1e-3)
    assert (used.centre[:, 1] > 2.0).all() and (used.scale[:, 2] <= 0.0051).all()
    middle = np.float32([[0.6, 2.005, -0.4], [0.4, 2.005, -0.8]])
    assert distances(used, middle).min() > 0.1
    assert len(waves) <= 12


def test_noise_is_estimated():
    rng = np.random.default_rng(1)
    flat = np.stack([*rng.uniform(-1, 1, (2, 3000)), 0.01 * rng.normal(size=3000)], -1).astype(np.float32)
    np.testing.assert_allclose(estimate_noise(flat), 0.01, rtol=0.15)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (np.zeros((5, 3)), "5 points; needed 12"),
        (np.zeros((50, 3)), "all 50 points coincide"),
        (np.full((50, 3), np.inf), "50 of 50 points are not finite"),
    ],
)
def test_bad_clouds_are_refused(points, message):
    with pytest.raises(ValueError, match=message):
        fit_set(Cloud(np.float32(points), np.zeros(len(points), np.int32)))


def test_points_on_a_line_or_a_plane_give_a_thin_wave():
    t = np.random.default_rng(2).uniform(-1, 1, (200, 3)).astype(np.float32)
    for points in (t * [1, 0, 0], t * [1, 1, 0]):
        fit = fit_set(from_points(np.float32(points)), max_waves=2, max_waves_per_object=1)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(fit.geometry))
        assert fit.geometry.scale.min() < 0.1


def test_a_real_room_is_seen_again(real_data):
    """One RGB-D frame: walls and floor as thin waves; the depth that they render is the one measured."""
    image = pytest.importorskip("PIL.Image")
    depth = np.asarray(image.open(real_data / "rgbd/depth/00000.png"))[::8, ::8].astype(np.float32) / 1000
    camera = Camera(*(np.asarray(x, np.float32) for x in ([0, 0, 0], [1, 0, 0, 0], 525 / 480, [0, 0])))
    fit = fit_set(from_depth(depth, camera, noise=0.002), plane_extent=0.5, max_waves=6, max_waves_per_object=1)
    assert np.sum(fit.instance == 0) >= 2
    assert np.sort(fit.geometry.scale[:, :2].max(1))[-2:].min() > 0.5
    error = depth_error(to_waves(fit), camera, depth)
    assert error["median"] < 0.03 and error["covered"] > 0.8 and error["within"] > 0.5


def test_a_solid_without_round_or_square_ends_is_filled_and_not_left():
    """A pyramid of four sides: its waves fill it, and little beyond."""
    corners = np.array([[1, 1, 0], [-1, 1, 0], [-1, -1, 0], [1, -1, 0], [0, 0, 1.5]])
    faces = np.array([[0, 1, 4], [1, 2, 4], [2, 3, 4], [3, 0, 4], [0, 2, 1], [0, 3, 2]])
    fit = fit_set(from_mesh(corners, faces, 1024), max_waves=6)

    def inside(points):
        return (points[:, 2] > 0) & (np.abs(points[:, :2]).max(1) < 1.0 - points[:, 2] / 1.5)

    overlap = iou(fit.geometry, inside, 48, (np.array([-2, -2, -1.5]), np.array([2, 2, 3.0])))
    assert overlap > 0.75, overlap


def test_a_wrong_partition_is_repaired_and_a_right_one_is_kept():
    """Two boxes, parted along the wrong axis, when there may be no third wave."""
    true = together(box([0, 0, 0.1], [0.6, 0.3, 0.1]), box([-0.5, 0, 0.6], [0.1, 0.3, 0.4]))
    points = surface_samples(true, 1024)
    space = partition.KnownSpace(*(np.zeros(shape, np.float32) for shape in ((0, 3), 0, (0, 3), 0)))
    good = 0.01
    halves = [points[points[:, 1] < 0], points[points[:, 1] >= 0]]
    wrong = partition._assign(points, space, partition._fit_parts(halves, [None, None], space, 0.002), 0.002, 0)
    assert iou(together(*wrong[0]), true, 32) < 0.8
    right = partition._revise(points, space, wrong, 0.002, good, 2, 2)
    assert partition._description_length(right, good) < partition._description_length(wrong, good)
    assert len(right[0]) == 2 and iou(together(*right[0]), true, 32) > 0.95
    again = partition._revise(points, space, right, 0.002, good, 2, 2)
    assert partition._description_length(again, good) <= partition._description_length(right, good)
