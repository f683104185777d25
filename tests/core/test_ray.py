"""Where rays enter, leave and pass waves, thin ones too, against algebra and against dense marching in float64."""

import jax
import jax.numpy as jnp
import numpy as np

from wsm_jax.core import ray
from wsm_jax.snapshot.waves import empty

WAVES, RAYS = 8, 512
crossing = jax.jit(ray.crossing)


def scene(scale, exponents):
    """Upright waves at the origin, so that world and wave coordinates are one."""
    return empty(WAVES).replace(
        presence=np.ones(WAVES, np.float32),
        scale=np.float32(scale),
        exponents=np.broadcast_to(np.float32(exponents), (WAVES, 2)),
    )


def rays_at(waves, seed, distance=5.0):
    """Rays from a sphere to points in the box of the one or other wave."""
    rng = np.random.default_rng(seed)
    origin = rng.normal(size=(RAYS, 3))
    origin *= distance / np.linalg.norm(origin, axis=-1, keepdims=True)
    aim = waves.scale[rng.integers(0, WAVES, RAYS)] * rng.uniform(-1, 1, (RAYS, 3))
    return origin.astype(np.float32), (0.2 * (aim - origin)).astype(np.float32)


def log_gauge(points, waves):
    """float64, [N R S] of points [R S 3]."""
    x, y, z = (np.log(np.abs(points[None, ..., i] / np.float64(waves.scale)[:, None, None, i]) + 1e-30) for i in range(3))
    e1, e2 = (np.float64(waves.exponents)[:, None, None, i] for i in range(2))
    return np.logaddexp(2 / e1 * (np.logaddexp(2 / e2 * x, 2 / e2 * y) * e2 / 2), 2 / e1 * z) * e1 / 2


def test_a_ray_crosses_an_ellipsoid_where_algebra_says():
    waves = scene(np.random.default_rng(0).uniform(0.05, 1.0, (WAVES, 3)), 1.0)
    origin, way = rays_at(waves, 1)
    o, d = (np.float64(x)[None] / np.float64(waves.scale)[:, None] for x in (origin, way))
    a, b, c = (d * d).sum(-1), (o * d).sum(-1), (o * o).sum(-1) - 1
    root = b * b - a * c
    enter, leave = (np.asarray(x) for x in crossing(waves, origin, way))
    clear = np.abs(root) > 1e-3 * a
    np.testing.assert_array_equal((enter < 1e6)[clear], (root > 0)[clear])
    np.testing.assert_array_equal((leave < 1e6)[clear], (root > 0)[clear])
    hit = clear & (root > 0)
    assert hit.sum() > 800
    np.testing.assert_allclose(enter[hit], ((-b - np.sqrt(np.abs(root))) / a)[hit], rtol=2e-6)
    np.testing.assert_allclose(leave[hit], ((-b + np.sqrt(np.abs(root))) / a)[hit], rtol=2e-6)


def test_thin_waves_of_every_exponent_are_never_tunnelled():
    """Plates and needles of aspect 1:200; a march of 4000 points through the box of each wave decides."""
    rng = np.random.default_rng(2)
    thin = np.where(rng.random((WAVES, 3)) < 0.5, 0.005, 1.0)
    thin[:, 0] = 1.0
    thin[:, 2] = 0.005
    exponents = np.stack([np.linspace(0.1, 1.9, WAVES), rng.permutation(np.linspace(0.1, 1.9, WAVES))], -1)
    waves = scene(thin, exponents)
    origin, way = rays_at(waves, 3)
    enter, leave = (np.asarray(x) for x in crossing(waves, origin, way))
    o, d = np.float64(origin)[:, :64], np.float64(way)
    for n in range(WAVES):
        one = jax.tree.map(lambda x, n=n: np.asarray(x)[n : n + 1], waves)
        with np.errstate(divide="ignore"):
            ends = (np.stack([-thin[n], thin[n]])[:, None] - o) / d
        low, high = ends.min(0).max(-1), ends.max(0).min(-1)
        t = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, 4000)
        log_g = log_gauge(o[:, None] + t[..., None] * d[:, None], one)[0]
        deep = (low < high) & (log_g.min(-1) < -1e-3)
        assert deep.sum() > 20
        assert (enter[n] < 1e6)[deep].all() and (leave[n] < 1e6)[deep].all()
        first = np.take_along_axis(t, np.argmax(log_g < 0, -1)[:, None], -1)[:, 0]
        last = np.take_along_axis(t, 3999 - np.argmax(log_g[:, ::-1] < 0, -1)[:, None], -1)[:, 0]
        spacing = np.abs(high - low) / 3999 + 2e-5
        assert (np.abs(enter[n] - first) < spacing)[deep].all()
        assert (np.abs(leave[n] - last) < spacing)[deep].all()
        met = enter[n] < 1e6
        assert (low < high + 1e-4)[met].all()


def test_a_ray_from_inside_leaves_and_one_from_beyond_does_neither():
    waves = scene(np.full((WAVES, 3), 0.5), 0.7)
    origin = np.float32([[0, 0, 0], [0, 2, 0], [0, -2, 0]])
    enter, leave = crossing(waves, origin, np.tile(np.float32([0, 1, 0]), (3, 1)))
    np.testing.assert_allclose(enter[0], [1e6, 1e6, 1.5], rtol=1e-5)
    np.testing.assert_allclose(leave[0], [0.5, 1e6, 2.5], rtol=1e-5)


def test_the_chord_of_a_ball_has_its_derivative():
    """Through a ball of radius r at height h: 2 sqrt(r^2 - h^2), by r and by h."""
    waves = scene(np.full((WAVES, 3), 0.5), 1.0)
    height = np.float32([0.0, 0.1, 0.3, 0.45])

    def chord(radius, height):
        origin = jnp.stack([jnp.full(4, -3.0), 0 * height, height], -1)
        enter, leave = ray.crossing(waves.replace(scale=jnp.full((WAVES, 3), radius)), origin, jnp.tile(jnp.eye(3)[0], (4, 1)))
        return leave[0] - enter[0]

    exact = np.sqrt(0.25 - height**2)
    np.testing.assert_allclose(jax.jit(chord)(0.5, height), 2 * exact, rtol=1e-5)
    by_radius, by_height = jax.jit(jax.jacfwd(chord, (0, 1)))(0.5, height)
    np.testing.assert_allclose(by_radius, 1.0 / exact, rtol=1e-4)
    np.testing.assert_allclose(by_height, np.diag(-2 * height / exact), rtol=1e-4, atol=1e-5)


def test_the_least_gauge_on_a_ray_is_least_on_a_dense_march():
    rng = np.random.default_rng(4)
    waves = scene(rng.uniform(0.02, 1.0, (WAVES, 3)), rng.uniform(0.1, 1.9, (WAVES, 2)))
    origin, way = rays_at(waves, 5)
    away = np.float32(way + 0.1 * rng.normal(size=way.shape))
    t, log_g = jax.jit(lambda o, d: ray.closest(ray._world(waves, o, d), ray.NEAR_M))(origin, away)
    march = np.linspace(ray.NEAR_M, 10.0, 3000)
    least = log_gauge(np.float64(origin)[:, None] + march[:, None] * np.float64(away)[:, None], waves).min(-1)
    assert (np.asarray(t) >= ray.NEAR_M - 1e-5).all()
    assert (np.asarray(log_g) <= least + 1e-3).all()


def test_the_least_gauge_on_a_ray_stays_where_the_ray_moves_along_itself():
    """The derivative along the ray vanishes, also where the gauge has an edge there, as that of every pointed wave has."""
    rng = np.random.default_rng(6)
    waves = scene(rng.uniform(0.3, 0.6, (WAVES, 3)), rng.uniform(1.5, 1.9, (WAVES, 2)))
    origin, way = rays_at(waves, 7)
    away = np.float32(way + 0.1 * rng.normal(size=way.shape))

    def least(origin):
        return ray.closest(ray._world(waves, origin, away), ray.NEAR_M)[1]

    _, along = jax.jit(lambda o: jax.jvp(least, (o,), (jnp.asarray(away),)))(jnp.asarray(origin))
    _, across = jax.jit(lambda o: jax.jvp(least, (o,), (jnp.asarray(np.roll(away, 1, 1)),)))(jnp.asarray(origin))
    assert np.median(np.abs(across)) > 0.5
    # the edge is round within 1e-6 semi-axes, where one rounding of the point turns the slope by up to some percents
    assert (np.abs(np.asarray(along)) < 1e-2).mean() > 0.99
    assert np.median(np.abs(along)) < 1e-5
