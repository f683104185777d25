"""The ray caster and the surface channels, against analytic intersections, dense marching and finite differences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wsm_jax.core import ray, render, superquadric
from wsm_jax.snapshot import CHANNELS, STORED, Camera, Waves, look_at, project, quaternion_to_matrix
from wsm_jax.snapshot.waves import empty

SIDE, SLOTS, RAYS = 16, 4, 2048
SOFT = 0.03
cast, visible = jax.jit(render.cast), jax.jit(render.visible)
surface = jax.jit(render.surface, static_argnames=("height", "width", "softness", "rays_per_chunk", "cull"))
picture = partial(surface, height=SIDE, width=SIDE)


def waves(count=SLOTS, presence=1.0, **fields):
    """`count` present waves, unit spheres of 0.5 m at rest at the origin but for `fields`."""
    fields = {"presence": np.broadcast_to(presence, count), **fields}
    return empty(count).replace(**{name: np.asarray(x, np.float32) for name, x in fields.items()})


def quaternions(rng, *shape):
    q = rng.normal(size=(*shape, 4))
    return q / np.linalg.norm(q, axis=-1, keepdims=True)


def random_scene(seed, count=SLOTS, scale=(0.1, 0.8), spread=0.8, exponents=(0.1, 1.9), presence=1.0):
    rng = np.random.default_rng(seed)
    scene = waves(
        count,
        presence,
        centre=rng.uniform(-spread, spread, (count, 3)),
        scale=np.exp(rng.uniform(*np.log(scale), (count, 3))),
        rotation=quaternions(rng, count),
        exponents=rng.uniform(*exponents, (count, 2)),
        colour=rng.random((count, 3)),
        velocity=rng.normal(size=(count, 3)),
        angular_velocity=rng.normal(size=(count, 3)),
    )
    return scene.replace(semantic=np.arange(count, dtype=np.int32) % 5 + 3)


def camera_at(*position, target=(0.0, 0.0, 0.0)):
    return look_at(np.float32(position), np.float32(target))


def random_rays(seed, scene, reach=(2.0, 20.0)):
    """RAYS rays from a shell around the scene, each to a point in or near some wave; directions of any length."""
    rng = np.random.default_rng(seed)
    origin = rng.normal(size=(RAYS, 3))
    origin *= np.exp(rng.uniform(*np.log(reach), (RAYS, 1))) / np.linalg.norm(origin, axis=-1, keepdims=True)
    k = rng.integers(0, scene.count, RAYS)
    offset = rng.uniform(-1.2, 1.2, (RAYS, 3)) * scene.scale[k]
    aim = scene.centre[k] + Rotation.from_quat(scene.rotation[k], scalar_first=True).apply(offset)
    way = (aim - origin) / np.linalg.norm(aim - origin, axis=-1, keepdims=True) / rng.uniform(0.7, 1.0, (RAYS, 1))
    return origin.astype(np.float32), way.astype(np.float32)


def local_rays(scene, origin, way):
    """float64 rays in the frame of each wave, [N R 3]."""
    matrix = Rotation.from_quat(np.float64(scene.rotation), scalar_first=True).as_matrix()
    start = np.einsum("nij,nri->nrj", matrix, np.float64(origin)[None] - scene.centre[:, None])
    return start, np.einsum("nij,ri->nrj", matrix, np.float64(way))


def log_gauge(p, scene):
    """float64 log gauge of points [N ... 3] in the frames of the waves."""
    lead = (slice(None), *[None] * (p.ndim - 2))
    e1, e2 = np.moveaxis(np.float64(scene.exponents[lead]), -1, 0)
    x, y, z = np.moveaxis(np.log(np.abs(p / scene.scale[lead]) + 1e-30), -1, 0)
    return np.logaddexp(2 / e1 * (np.logaddexp(2 / e2 * x, 2 / e2 * y) * e2 / 2), 2 / e1 * z) * e1 / 2


def ellipsoid_entry(start, way, axes):
    """Entry of rays [N R 3] into ellipsoids [N 3], and the discriminant; nan where there is none."""
    o, d = start / axes[:, None], way / axes[:, None]
    a, b, c = (d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 1
    discriminant = (b * b - a * c) / a
    with np.errstate(invalid="ignore"):
        return (-b - np.sqrt(a * discriminant)) / a, discriminant


def box_entry(start, way, axes):
    """Entry of rays [N R 3] into boxes [N 3] by slabs; nan where there is none."""
    slabs = (np.stack([-axes, axes])[:, :, None] - start) / way
    near, far = slabs.min(0).max(-1), slabs.max(0).min(-1)
    return np.where(near < far, near, np.nan)


# ---------------------------------------------------------------------------------------------------- the ray caster


def test_cast_meets_spheres_and_ellipsoids_where_algebra_does():
    scene = random_scene(0, 8, scale=(0.02, 0.8), exponents=(1.0, 1.0))
    origin, way = random_rays(1, scene)
    t = np.asarray(cast(scene, origin, way))
    entry, discriminant = ellipsoid_entry(*local_rays(scene, origin, way), scene.scale)
    clear = np.abs(discriminant) > 1e-3
    np.testing.assert_array_equal((t < 1e6)[clear], (discriminant > 0)[clear])
    hit = clear & (discriminant > 0)
    assert hit.sum() > 1500
    np.testing.assert_allclose(t[hit], entry[hit], rtol=1e-5, atol=1e-5)


def test_cast_into_box_like_waves_is_held_between_two_boxes():
    """The unit ball of exponents e lies inside the box and contains the box shrunk by 3^(-e/2), its own corner."""
    scene = random_scene(2, 8, scale=(0.02, 0.8), exponents=(0.1, 0.1))
    origin, way = random_rays(3, scene)
    t = np.asarray(cast(scene, origin, way))
    rays = local_rays(scene, origin, way)
    outer, inner = box_entry(*rays, scene.scale), box_entry(*rays, scene.scale * 3**-0.05)
    assert np.isfinite(inner).sum() > 2000
    assert (t[np.isfinite(inner)] <= (inner + 1e-4)[np.isfinite(inner)]).all()
    hit = t < 1e6
    assert (hit <= np.isfinite(outer)).all()
    assert (t[hit] >= (outer - 1e-4)[hit]).all()


@pytest.mark.parametrize(("seed", "thinnest"), [(4, 0.1), (5, 0.004)])
def test_cast_finds_what_dense_marching_finds_and_nothing_else(seed, thinnest):
    scene = random_scene(seed, 8, scale=(thinnest, 1.5))
    origin, way = random_rays(seed + 10, scene)
    t = np.asarray(cast(scene, origin, way))
    part = slice(None, None, 8)  # the march is what costs here
    start, direction = (x[:, part] for x in local_rays(scene, origin, way))
    t = t[:, part]
    middle = -(start * direction).sum(-1) / (direction**2).sum(-1)
    reach = np.linalg.norm(scene.scale, axis=-1)[:, None] * 1.1 / np.linalg.norm(direction, axis=-1)
    steps = np.linspace(-1, 1, 1001)
    times = np.maximum(middle[..., None] + reach[..., None] * steps, ray.NEAR_M)
    log_g = log_gauge(start[:, :, None] + times[..., None] * direction[:, :, None], scene)
    inside = log_g < 0
    found = inside.any(-1) & ~inside[..., 0]
    hit = t < 1e6
    deep = log_g.min(-1) < -1e-3  # away from grazing
    assert (found & deep).sum() > 200
    assert (hit >= (found & deep)).all()  # no tunnelling
    first = np.argmax(inside, -1)
    bracket = np.take_along_axis(times, first[..., None], -1)[..., 0]
    spacing = 2 * reach / 1000
    both = hit & found
    assert (t <= bracket + 1e-4)[both].all()
    assert (t >= bracket - spacing - 1e-4)[both].all()
    # nothing invented: a hit stands on the surface, whatever the march has stepped over
    at_hit = log_gauge(start + np.where(hit, t, 0)[..., None] * direction, scene)
    tolerance = 3e-6 * np.linalg.norm(start, axis=-1) / scene.scale.min(-1)[:, None] + 1e-4
    assert (np.abs(at_hit) < tolerance)[hit].all()


def test_a_wave_that_holds_the_start_or_lies_behind_is_not_entered():
    scene = waves(2, centre=[[0, 0, 0], [0, 3, 0]], scale=[[0.5] * 3, [0.5] * 3])
    origin = np.tile(np.float32([[0, 0, 0], [0, 0, 0], [0, -2, 0]]), (1, 1))
    way = np.float32([[0, 1, 0], [0, -1, 0], [0, 1, 0]])
    np.testing.assert_allclose(render.cast(scene, origin, way), [[1e6, 1e6, 1.5], [2.5, 1e6, 4.5]], rtol=1e-5)


def test_cast_derivative_is_bounded_by_grazing_incidence():
    scene = waves(1, scale=[[0.5, 0.5, 0.5]])
    height = np.float32(np.concatenate([0.5 - np.geomspace(1e-7, 0.4, 20), 0.5 + np.geomspace(1e-7, 0.1, 12)]))
    origin = np.stack([-3 + 0 * height, 0 * height, height], -1)
    way = np.tile(np.float32([1, 0, 0]), (32, 1))
    slope = jax.jit(jax.grad(lambda o: jnp.sum(jnp.where((t := render.cast(scene, o, way)) < 1e6, t, 0.0))))(origin)[:, 2]
    exact = np.where(height < 0.499, height / np.sqrt(np.maximum(0.25 - height**2, 1e-9)), slope)
    np.testing.assert_allclose(slope, exact, rtol=1e-3)
    assert (np.abs(slope) <= 1001).all()
    assert np.abs(slope).max() > 100


# ------------------------------------------------------------------------------------------------- surface channels


@pytest.fixture(scope="module")
def scene():
    return random_scene(20, scale=(0.3, 0.9), spread=0.7)


@pytest.fixture(scope="module")
def camera():
    return camera_at(2.2, -1.7, 1.2)


@pytest.fixture(scope="module")
def channels(scene, camera):
    return {name: np.asarray(x) for name, x in picture(scene, camera).items()}


def test_channels_are_those_of_the_table(channels):
    for name, values in channels.items():
        assert values.shape == (SIDE, SIDE, CHANNELS[name].components), name


def test_geometry_channels_agree_with_each_other_and_with_the_waves(scene, camera, channels):
    seen = channels["coverage"][..., 0] > 0.5
    assert 0.2 < seen.mean() < 0.9
    slot = channels["instance"][seen][:, 0].astype(int) - 1
    assert len(np.unique(slot)) >= 3
    turn = np.asarray(quaternion_to_matrix(camera.rotation))
    own = np.asarray(quaternion_to_matrix(scene.rotation))[slot]
    i, j = np.nonzero(seen)
    d = np.stack([(j + 0.5) / SIDE - 0.5, (i + 0.5) / SIDE - 0.5, np.full(len(i), camera.focal)], -1) / camera.focal
    point = camera.position + channels["depth"][seen] * (d @ turn.T)
    centre = point + channels["centre"][seen] @ turn.T
    np.testing.assert_allclose(centre, scene.centre[slot], atol=1e-5)
    local = channels["local"][seen]
    np.testing.assert_allclose(np.einsum("rij,rj->ri", own, local * scene.scale[slot]), point - centre, atol=1e-5)
    gauge = superquadric.gauge(local, np.ones_like(local), scene.exponents[slot])
    np.testing.assert_allclose(gauge, 1.0, atol=1e-4)
    normal = superquadric.normal(local * scene.scale[slot], scene.scale[slot], scene.exponents[slot])
    np.testing.assert_allclose(channels["normal"][seen] @ turn.T, np.einsum("rij,rj->ri", own, normal), atol=1e-5)
    assert ((channels["normal"][seen] * d).sum(-1) < 1e-4).all()  # a visible surface faces the camera
    np.testing.assert_array_equal(channels["semantic"][seen][:, 0], scene.semantic[slot])
    np.testing.assert_allclose(channels["base_colour"][seen], scene.colour[slot], atol=1e-6)


def test_the_sky_is_zero_in_every_channel(channels):
    sky = channels["coverage"][..., 0] == 0
    assert sky.sum() > 20
    for name in STORED:  # what follows from the camera alone is there without a surface
        if name in channels:
            np.testing.assert_array_equal(channels[name][sky], 0, err_msg=name)


def test_the_nearest_wave_is_seen_whatever_its_slot(scene, camera, channels):
    order = np.random.default_rng(0).permutation(SLOTS)
    turned = picture(scene[order], camera)
    for name in set(channels) - {"instance"}:
        np.testing.assert_allclose(turned[name], channels[name], atol=1e-5, err_msg=name)
    slot = np.concatenate([[0], order + 1])
    np.testing.assert_array_equal(slot[np.asarray(turned["instance"], int)], channels["instance"])
    row = waves(SLOTS, centre=[[0, 2, 0], [0, 0, 0], [0, 1, 0], [0, 3, 0]])
    middle = picture(row, camera_at(0, -4, 0))
    assert (middle["instance"][SIDE // 2, SIDE // 2], middle["instance"].max()) == (2, 2)  # 1 m hides those behind it
    np.testing.assert_allclose(middle["depth"][SIDE // 2, SIDE // 2], 3.5, atol=3e-2)


def test_presence_composites_front_to_back():
    presence, colour = np.float32([0.3, 0.6, 0.0, 0.5]), np.eye(4, 3, dtype=np.float32)
    scene = waves(SLOTS, presence, centre=[[0, 2, 0], [0, 0, 0], [0, 1, 0], [9, 9, 9]], colour=colour)
    middle = {name: np.asarray(x)[SIDE // 2, SIDE // 2] for name, x in picture(scene, camera_at(0, -4, 0)).items()}
    np.testing.assert_allclose(middle["coverage"], 1 - 0.7 * 0.4, rtol=1e-5)
    np.testing.assert_allclose(middle["base_colour"], np.array([0.4 * 0.3, 0.6, 0.0]) / 0.72, rtol=1e-5)
    assert middle["instance"] == 2
    a, b = (float(x) for x in cast(scene, np.float32([[0, -4, 0]]), np.float32([[0, 1, 0]]))[:2, 0])
    np.testing.assert_allclose(middle["depth"], 1 / ((0.12 / a + 0.6 / b) / 0.72), rtol=2e-2)


@pytest.mark.parametrize("softness", [0.0, SOFT])
def test_coverage_stays_in_0_to_1_and_everything_finite(softness):
    rng = np.random.default_rng(30)
    for seed in range(8):
        scene = random_scene(seed, presence=rng.random(SLOTS), scale=(0.01, 3.0))
        out = picture(scene, camera_at(*rng.uniform(-3, 3, 3)), softness=softness)
        assert (out["coverage"] >= 0).all()
        assert (out["coverage"] <= 1 + 1e-6).all()
        assert all(np.isfinite(x).all() for x in out.values())


def test_a_soft_edge_is_one_half_at_the_silhouette_and_falls_within_its_width():
    """Of a ball of radius r whose least gauge on the ray is g: sigmoid((1 - g) r / softness)."""
    ball = waves(SLOTS, [1.0, 0, 0, 0], scale=[[0.5] * 3] * 4)
    camera = camera_at(0, -4, 0)
    coverage = np.asarray(picture(ball, camera, softness=SOFT)["coverage"])[..., 0]
    v = (np.arange(SIDE) + 0.5) / SIDE - 0.5
    sine = np.sin(np.arctan(np.hypot(*np.meshgrid(v, v)) / camera.focal))  # of the angle to the centre of the ball
    np.testing.assert_allclose(coverage, 1 / (1 + np.exp(-(1 - 4 * sine / 0.5) * 0.5 / SOFT)), atol=1e-4)
    assert ((coverage > 0.1) & (coverage < 0.9)).sum() >= 4


def test_the_soft_floor_reaches_the_horizon():
    """The least gauge on a ray over a large thin wave lies many times farther than the wave's centre."""
    floor = waves(SLOTS, [1.0, 0, 0, 0], scale=[[10, 10, 0.2]] * 4, exponents=np.full((4, 2), 0.1), centre=[[0, 0, -0.2]] * 4)
    camera = camera_at(0, -1, 0.8, target=(0, 7, 0))
    hard, soft = picture(floor, camera)["coverage"], picture(floor, camera, softness=SOFT)["coverage"]
    away = np.r_[0:5, 8:SIDE]  # rows away from the horizon
    np.testing.assert_allclose(soft[away], hard[away], atol=0.02)
    assert hard[8:].all()


@pytest.mark.parametrize("softness", [0.0, SOFT])
def test_a_finer_picture_sees_the_same_and_averages_to_the_coarse_one(scene, camera, softness):
    """The middle of three pixels is the coarse pixel's own point of the canvas; the area's mean is near it."""
    coarse = picture(scene, camera, softness=softness)
    fine = surface(scene, camera, height=3 * SIDE, width=3 * SIDE, softness=softness)
    for name, values in coarse.items():
        np.testing.assert_allclose(fine[name][1::3, 1::3], values, atol=2e-4, err_msg=name)
    average = np.asarray(fine["coverage"]).reshape(SIDE, 3, SIDE, 3).mean((1, 3))
    assert np.abs(average - coarse["coverage"][..., 0]).mean() < (0.02 if softness else 0.035)
    assert np.abs(average - coarse["coverage"][..., 0]).max() < (0.35 if softness else 1.0)


def test_every_contraction_runs_in_full_precision(scene, camera):
    """Accelerators multiply float32 matrices in bfloat16 or tf32 unless told; a picture of metres must not."""
    trace = str(jax.make_jaxpr(partial(render.surface, height=4, width=4, softness=0.1))(scene, camera))
    contractions = [part.split("preferred_element_type")[0] for part in trace.split("dot_general[")[1:]]
    assert len(contractions) >= 2  # of the two projections of the motion; all else is written out
    assert all("HIGHEST" in part for part in contractions)


def test_chunks_of_rays_and_a_wider_canvas_give_the_same_picture(scene, camera, channels):
    wide = surface(scene, camera, height=SIDE, width=2 * SIDE, rays_per_chunk=200)  # 512 rays: two chunks and a padded one
    for name, values in channels.items():
        np.testing.assert_allclose(wide[name][:, SIDE // 2 : -SIDE // 2], values, atol=1e-4, err_msg=name)


def test_the_principal_point_moves_the_picture(scene, camera, channels):
    moved = picture(scene, camera.replace(offset=np.float32([3 / SIDE, -2 / SIDE])))
    np.testing.assert_allclose(moved["depth"][:-2, 3:], channels["depth"][2:, :-3], atol=1e-4)


# ------------------------------------------------------------------------------------------------ motion and shadows


def test_motion_is_the_finite_difference_of_projected_points(scene, camera, channels):
    """Of points fixed in a moving, turning wave, in a camera that stands still or moves and turns."""
    seen = channels["coverage"][..., 0] > 0.5
    slot = channels["instance"][seen][:, 0].astype(int) - 1
    arm = -channels["centre"][seen] @ np.asarray(quaternion_to_matrix(camera.rotation)).T
    point = scene.centre[slot] + arm

    def error(dt, moving):
        """Of the motion of the picture against the finite difference over dt, and the fastest motion, 1/s."""
        step = Rotation.from_rotvec([0.0, 2.0 * dt, 1.0 * dt]) * Rotation.from_quat(camera.rotation, scalar_first=True)
        rotation = step.as_quat(scalar_first=True).astype(np.float32)
        position = camera.position + np.float32([2.0, 1.0, -1.0]) * dt
        end = camera.replace(position=position.astype(np.float32), rotation=rotation) if moving else camera
        motion = np.asarray(picture(scene, camera, later=end, dt=dt)["motion"])
        turn = Rotation.from_rotvec(scene.angular_velocity[slot] * dt)
        moved = scene.centre[slot] + scene.velocity[slot] * dt + turn.apply(arm)
        here, there = project(camera, point)[0], project(end, moved.astype(np.float32))[0]
        return np.abs(motion[seen] - (there - here) / dt).max(), np.abs(motion).max()

    for moving in (False, True):
        (coarse, fastest), (fine, _) = error(0.02, moving), error(0.01, moving)
        assert fastest > 0.3 and coarse < 0.02 * fastest
        # of first order in dt: a velocity is a limit, the turn of a wave within dt is what remains
        np.testing.assert_allclose(fine / coarse, 0.5, rtol=0.05)


def test_shadow_of_spheres_is_where_geometry_puts_it():
    scene = waves(3, [1.0, 0.6, 0.0], centre=[[0, 0, 1], [0.4, 0, 2], [-0.6, 0, 1]], scale=[[0.5] * 3, [0.4] * 3, [0.5] * 3])
    light = np.float32([0.3, -0.5, 1.0])
    u = np.linspace(-1.5, 1.5, 24, dtype=np.float32)
    points = np.stack([*np.meshgrid(u, u), np.zeros((24, 24), np.float32)], -1).reshape(-1, 3)
    got = np.asarray(visible(scene, points, light))
    off = points[None] - scene.centre[:, None]
    unit = light / np.linalg.norm(light)
    along = off @ unit
    distance = np.sqrt((off**2).sum(-1) - along**2)
    blocked = (distance < scene.scale[:, :1]) & (along < 0)
    sure = (np.abs(distance - scene.scale[:, :1]) > 1e-3).all(0)
    expected = np.prod(np.where(blocked, 1 - scene.presence[:, None], 1.0), 0)
    np.testing.assert_allclose(got[sure], expected[sure], atol=1e-6)
    np.testing.assert_allclose(np.unique(expected), [0.0, 0.4, 1.0], rtol=1e-6)


def test_a_wave_shades_itself_only_on_the_far_side():
    scene = waves(3, [1.0, 0, 0], scale=[[0.5, 0.4, 0.3]] * 3, exponents=[[0.4, 0.7]] * 3)
    args = scene.scale[:1], scene.exponents[:1]
    points = superquadric.surface_point(superquadric.sphere_directions(24 * 24), *args) * 1.001
    light = np.float32([0.2, 0.3, 0.9])
    facing = np.asarray(superquadric.normal(points, *args)) @ light
    sure = np.abs(facing) > 0.1
    np.testing.assert_array_equal(np.asarray(visible(scene, points, light))[sure], (facing > 0)[sure])


# --------------------------------------------------------------------------------------------------------- gradients

_LEAVES = ("centre", "scale", "rotation", "exponents", "position", "turn", "focal", "offset")


def _split(scene: Waves, camera: Camera, dtype):
    fields = {name: np.asarray(getattr(scene, name), dtype) for name in _LEAVES[:4]}
    lens = {"position": camera.position, "turn": camera.rotation, "focal": camera.focal, "offset": camera.offset}
    return {**fields, **{name: np.asarray(x, dtype) for name, x in lens.items()}}


def _render(leaves, scene, softness):
    scene = scene.replace(**{name: leaves[name] for name in _LEAVES[:4]})
    camera = Camera(leaves["position"], leaves["turn"], leaves["focal"], leaves["offset"])
    return render.surface(scene, camera, SIDE, SIDE, softness=softness)


@partial(jax.jit, static_argnums=(3,))
def _value_and_derivative(leaves, way, scene, softness):
    name = "coverage" if softness else "depth"
    return jax.jvp(lambda x: _render(x, scene, softness)[name][..., 0], (leaves,), (way,))


@pytest.mark.parametrize("softness", [0.0, SOFT])
def test_derivatives_of_depth_and_of_soft_coverage_are_finite_differences(softness, camera):
    scene = random_scene(21, exponents=(0.3, 1.7), scale=(0.2, 0.8))
    leaves = _split(scene, camera, np.float64)
    rng = np.random.default_rng(40)
    h = 1e-5
    with jax.enable_x64(True):
        scene = jax.tree.map(lambda x: np.asarray(x, np.float64) if x.dtype == np.float32 else x, scene)
        for name in _LEAVES:
            way = {key: rng.normal(size=x.shape) * (key == name) for key, x in leaves.items()}
            _, slope = _value_and_derivative(leaves, way, scene, softness)
            ends = [
                np.asarray(_value_and_derivative({k: x + s * h * way[k] for k, x in leaves.items()}, way, scene, softness)[0])
                for s in (1, -1)
            ]
            same = (ends[0] > 0) == (ends[1] > 0)
            same &= np.abs(ends[0] - ends[1]) < 0.02  # the ray keeps its wave, and does not graze it
            assert same.mean() > 0.9
            slope, difference = np.asarray(slope)[same], ((ends[0] - ends[1]) / (2 * h))[same]
            # the closest approach is known to 1e-6 of its range, which is coarse beside the edges of exponents over 1
            close = np.isclose(slope, difference, rtol=2e-3, atol=2e-4)
            assert close.mean() > 0.98, name
            np.testing.assert_allclose(slope, difference, rtol=0.3, atol=0.05)
            assert np.abs(slope).max() > 1e-2, name


@partial(jax.jit, static_argnums=(3,))
def _gradient(leaves, weights, scene, softness):
    def loss(x):
        out = _render(x, scene, softness)
        return sum(jnp.sum(weights[name] * out[name]) for name in weights)

    return jax.grad(loss)(leaves)


@pytest.mark.parametrize("softness", [0.0, SOFT])
def test_gradients_are_finite_everywhere(softness):
    rng = np.random.default_rng(50)
    names = ("depth", "normal", "motion", "coverage", "base_colour", "local", "centre")
    weights = {name: rng.normal(size=(SIDE, SIDE, CHANNELS[name].components)).astype(np.float32) for name in names}
    for seed in range(6):
        scene = random_scene(seed, scale=(0.01, 3.0), presence=rng.choice([0.0, 0.5, 1.0], SLOTS))
        corner = rng.choice([0.1, 1.0, 1.9], (SLOTS, 2)).astype(np.float32)
        upright = np.tile(np.float32([1, 0, 0, 0]), (SLOTS, 1))
        cases = [
            (scene, camera_at(*rng.uniform(1, 4, 3))),
            (scene.replace(exponents=corner, rotation=upright, centre=0 * scene.centre), camera_at(0, -2, 0)),  # axis aligned
            (scene, camera_at(50, 0, 0, target=(100, 0, 0))),  # nothing but sky
            (scene.replace(scale=scene.scale + 5), camera_at(0.1, 0.1, 0)),  # the camera is inside
        ]
        for waves_, camera in cases:
            gradient = _gradient(_split(waves_, camera, np.float32), weights, waves_, softness)
            for name, x in gradient.items():
                assert np.isfinite(x).all(), (seed, name)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"waves": empty(0)}, r"waves of shape \(0,\)"),
        ({"waves": empty(2, (3,))}, r"waves of shape \(3, 2\)"),
        ({"height": 0}, "0 x 8 pixels"),
        ({"softness": -0.01}, "softness=-0.01"),
        ({"channels": "depth"}, "channels='depth'"),
        ({"channels": ["depht"]}, "depht"),
    ],
)
def test_pictures_that_cannot_be_are_named(changes, words, camera):
    given = {"waves": empty(2), "camera": camera, "height": 8, "width": 8} | changes
    with pytest.raises(ValueError, match=words):
        render.surface(**given)
