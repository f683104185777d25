"""No wave stands where light came through: thin ones neither, in fits and in what is followed."""

import jax
import numpy as np

from wsm_jax.core.fitting.observations import Cloud, known_space
from wsm_jax.core.fitting.sets import fit_set
from wsm_jax.core.fitting.sight import blocked_length, lines_of_sight
from wsm_jax.core.fitting.track import track
from wsm_jax.core.geometry import Geometry
from wsm_jax.snapshot.waves import empty

BARS, PITCH, FRONT, WALL = 5, 0.2, 2.0, 3.0
"""Upright slats 0.1 m wide, a gap of 0.1 m after each, at y = 2 m; a wall 1 m behind them; seen from the origin."""
EYE = np.zeros(3, np.float32)


def slat(points):
    """Whether the rays to points pass one of the slats on the plane of the slats."""
    there = points * (FRONT / points[:, 1:2])
    across = there[:, 0] + 0.5 * BARS * PITCH
    return (across > 0) & (across < BARS * PITCH) & (across % PITCH < 0.5 * PITCH) & (np.abs(there[:, 2]) < 0.4)


def scene(hidden, count=6000, half=0.6, seed=0):
    """Points that rays within the window |x|, |z| < half at y = 2 end on: where `hidden`, at the front, else on the wall."""
    rng = np.random.default_rng(seed)
    points = np.stack([rng.uniform(-half, half, count), np.full(count, FRONT), rng.uniform(-half, half, count)], -1)
    front = hidden(points)
    return np.float32(np.where(front[:, None], points, points * (WALL / FRONT))), front


def plates(*boxes):
    """Thin upright boxes from centre (x, z) and semi-axes (x, z), their fronts at y = 2."""
    centre = np.float32([[x, FRONT + 0.005, z] for (x, z), _ in boxes])
    scale = np.float32([[a, 0.005, b] for _, (a, b) in boxes])
    count = len(boxes)
    return Geometry(centre, scale, np.float32([[1, 0, 0, 0]] * count), np.full((count, 2), 0.1, np.float32))


def test_a_plate_over_gaps_is_in_the_way_by_what_it_hides_and_what_is_seen_is_not():
    points, front = scene(slat)
    sight = lines_of_sight(points, EYE, points[front], 0.02, 10**6)
    first = -0.5 * BARS * PITCH + 0.25 * PITCH
    slats = plates(*(((first + k * PITCH, 0.0), (0.05, 0.4)) for k in range(BARS)))
    between = blocked_length(slats, sight)
    # 1 cm thick and seen at an angle they hide a little, by less than the points lie apart
    assert np.mean(between > 0) < 1e-3 and between.max() < 0.02
    end = first + (BARS - 1) * PITCH
    whole = plates(((0.5 * (first + end), 0.0), (0.5 * (end - first) + 0.05, 0.4)))
    charge = blocked_length(whole, sight)[0]
    there = sight.direction * (FRONT / sight.direction[:, 1:2])
    inside = (np.abs(there[:, 0] + 0.05) < 0.445) & (np.abs(there[:, 2]) < 0.395)
    through = (sight.end > 0) & inside & ~slat(there)
    assert through.sum() > 500 and (charge[through] > 0).all()
    assert not charge[(sight.end > 0) & slat(there)].any()
    assert 0.03 < charge.max() < 0.05 + 0.02  # half a gap, and how far the points lie apart
    # points in empty space would not have told
    vacant, _ = known_space(Cloud(points, np.zeros(len(points), np.int32), EYE), points.min(0), points.max(0), 6000, 0.02)
    assert np.mean(np.abs(vacant[:, 1] - FRONT) < 0.01) < 0.01


def test_a_frame_that_was_looked_through_is_not_filled_by_a_plate():
    """A plate over a window explains all points of its frame; that the wall behind was seen, the viewpoint tells."""

    def frame(points):
        there = np.maximum(np.abs(points[:, 0]), np.abs(points[:, 2]))
        return (there < 0.45) & (there > 0.35)

    points, front = scene(frame, 12000)
    sight = lines_of_sight(points, EYE, points[front], 0.03, 10**6)
    window = (sight.end > FRONT + 0.5) & (np.abs(sight.direction[:, ::2] / sight.direction[:, 1:2] * FRONT).max(1) < 0.34)
    closed = []
    for viewpoint in (None, EYE):
        cloud = Cloud(points, np.where(front, 1, 0).astype(np.int32), viewpoint)
        fit = fit_set(cloud, noise=0.002, plane_extent=1.2, max_waves_per_object=6)
        plates_of_it = jax.tree.map(lambda x, fit=fit: x[fit.instance > 0], fit.geometry)
        closed.append(np.mean(blocked_length(plates_of_it, sight).max(0)[window] > 0))
        assert np.quantile(fit.residual[front], 0.95) < 0.02
    assert closed[0] > 0.9 and closed[1] < 0.25, closed


def test_a_plate_that_rests_does_not_slip_in_its_plane():
    """Its points say little of where it is in its plane; what is seen beside it does, and chance does not add up."""
    clouds = []
    for k in range(8):
        points, _ = scene(lambda p: (np.abs(p[:, 0]) < 0.2) & (np.abs(p[:, 2]) < 0.3), seed=k)
        points += np.float32(0.001 * np.random.default_rng(k).normal(size=points.shape))
        clouds.append(Cloud(points, np.zeros(len(points), np.int32), EYE))
    geometry = plates(((0.0, 0.0), (0.2, 0.3)), ((0.0, 0.0), (2.0, 2.0)))
    geometry.centre[1, 1] += WALL - FRONT
    waves = empty(2).replace(presence=np.ones(2, np.float32), **vars(geometry))
    tracked = track(waves, clouds, 8.0, static=[1])
    centre = np.asarray(tracked.centre)[:, 0]
    assert np.linalg.norm(centre - geometry.centre[0], axis=1).max() < 0.03
    rests = ~np.diff(centre, axis=0).any(1)
    assert rests.sum() >= 4 and not np.asarray(tracked.centre[:, 1] - geometry.centre[1]).any()
