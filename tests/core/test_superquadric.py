"""The gauge and what follows from it, against the power form, closed forms, dense samples and finite differences.

Every public function is measured by one compiled batch of 1024 points with its gradients, in float32 and in float64.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from wsm_jax.core import superquadric as sq
from wsm_jax.core.fitting.compare import surface_area

EVERYWHERE = {
    "log_gauge": sq.log_gauge,
    "gauge": sq.gauge,
    "radial_distance": sq.radial_distance,
    "certified_step": sq.certified_step,
    "normal": sq.normal,
    "support": sq.support,
    "support_point": sq.support_point,
    "second_moments": lambda p, a, e: sq.second_moments(a, e),
    "surface_point": sq.surface_point,
    "inner_radius": lambda p, a, e: sq.inner_radius(a, e),
    "volume": lambda p, a, e: sq.volume(a, e),
    "log_gauge_gradient": lambda p, a, e: jnp.stack(sq.log_gauge_gradient(p, 1.0 / a, 2.0 / e)[1]),
    "occupancy": lambda p, a, e: sq.occupancy(sq.log_gauge(p, a, e), a, 0.8, 0.02),
}
"""Every public function of one point [3], semi-axes [3] and exponents [2]."""
ROWS = 1024


@jax.jit
def _everywhere(points, scale, exponents):
    def one(function):
        value, back = jax.vjp(function, points, scale, exponents)
        row = jnp.cos(jnp.arange(value[0].size, dtype=value.dtype)).reshape(value.shape[1:])  # 1 for a scalar
        return value, *back(jnp.broadcast_to(row, value.shape))

    return {name: one(jax.vmap(function)) for name, function in EVERYWHERE.items()}


def measure(points, scale, exponents):
    """Name -> (value, gradient by point, by scale, by exponents) of up to 1024 rows, in the precision of the points."""
    points = np.asarray(points)
    rows = [np.resize(np.asarray(x, points.dtype), (ROWS, x.shape[-1])) for x in (points, scale, exponents)]
    with jax.enable_x64(points.dtype == np.float64):
        out = jax.tree.map(np.asarray, _everywhere(*rows))
    return jax.tree.map(lambda x: x[: len(points)], out)


def shapes(seed, n=ROWS, exponents=sq.EXPONENT_RANGE, scale=(0.05, 2.0)):
    """Random semi-axes [n 3] (log-uniform) and exponents [n 2]."""
    rng = np.random.default_rng(seed)
    axes = np.exp(rng.uniform(*np.log(scale), (n, 3)))
    return axes.astype(np.float32), rng.uniform(*exponents, (n, 2)).astype(np.float32)


def directions(seed, *shape):
    v = np.random.default_rng(seed).normal(size=(*shape, 3))
    return (v / np.linalg.norm(v, axis=-1, keepdims=True)).astype(np.float32)


def power_form(p, a, e):
    """F^(e1/2) of Barr's inside-outside function, as it is usually written, in float64."""
    x, y, z = np.moveaxis(np.abs(np.asarray(p, np.float64) / a), -1, 0)
    e1, e2 = np.moveaxis(np.asarray(e, np.float64), -1, 0)
    return ((x ** (2 / e2) + y ** (2 / e2)) ** (e2 / e1) + z ** (2 / e1)) ** (e1 / 2)


def dense_surface(seed, n, axes, exponents):
    """n surface points of each shape [shapes n 3], as even as directions in its unit cube make them, by the power form."""
    v = directions(seed, n) * axes[:, None]
    return v / power_form(v, axes[:, None], exponents[:, None])[..., None]


def assert_finite(points, scale, exponents):
    for name, results in measure(points, scale, exponents).items():
        for what, x in zip(("value", "gradient by point", "by scale", "by exponents"), results, strict=True):
            wrong = ~np.isfinite(x).reshape(len(x), -1).all(1)
            assert not wrong.any(), f"{name}: {what} at {[b[wrong][0] for b in (points, scale, exponents)]}"


def test_no_nan_in_value_or_gradient_of_a_big_random_batch():
    rng = np.random.default_rng(0)
    n = 32 * ROWS
    axes, exponents = shapes(1, n, scale=(0.01, 5.0))
    exponents[rng.random(exponents.shape) < 0.1] = 0.1
    exponents[rng.random(exponents.shape) < 0.1] = 1.9
    p = rng.uniform(-1, 1, axes.shape) * np.exp(rng.uniform(np.log(1e-6), np.log(20), (n, 1)))
    p[rng.random(p.shape) < 0.2] = 0.0  # on coordinate planes and axes
    face = rng.random(p.shape) < 0.2
    p[face] = (axes * np.sign(rng.normal(size=p.shape)))[face]  # on faces, edges and corners
    p[:256] = 0.0
    p[256:512] = 20.0 * np.sign(p[256:512])
    for part in np.split(np.arange(n), 32):
        assert_finite(p[part].astype(np.float32), axes[part], exponents[part])


_coordinate = st.one_of(
    st.sampled_from([0.0, -0.0, 1e-30, -1e-6, 20.0, -20.0, 0.5, -0.5]), st.floats(-20, 20, width=32, allow_subnormal=False)
)
_axis = st.one_of(st.sampled_from([0.5, 0.01, 5.0]), st.floats(0.015625, 5, width=32))
_exponent = st.one_of(st.sampled_from([0.1, 1.0, 1.9]), st.floats(0.125, 1.875, width=32))


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(*[_coordinate] * 3, *[_axis] * 3, *[_exponent] * 2), min_size=1, max_size=16))
def test_no_nan_in_value_or_gradient_at_special_places(rows):
    table = np.float32(rows)
    assert_finite(table[:, :3], table[:, 3:6], table[:, 6:])


def test_equation_1_gauge_is_the_power_form():
    axes, exponents = shapes(2)
    p = np.random.default_rng(3).uniform(-3, 3, (ROWS, 3)).astype(np.float32)
    with np.errstate(over="ignore"):
        naive = power_form(p, axes, exponents)
    finite = np.isfinite(naive) & (naive > 0)
    assert finite.mean() > 0.9
    np.testing.assert_allclose(measure(p, axes, exponents)["gauge"][0][finite], naive[finite], rtol=2e-5)


def test_gauge_is_a_norm():
    axes, exponents = shapes(4)
    rng = np.random.default_rng(5)
    p, q = rng.normal(size=(2, ROWS, 3)).astype(np.float32)
    factor = np.exp(rng.uniform(-3, 3, ROWS)).astype(np.float32)

    def gauge(x):
        return measure(x, axes, exponents)["gauge"][0]

    np.testing.assert_allclose(gauge(factor[:, None] * p), factor * gauge(p), rtol=5e-5)  # homogeneous
    np.testing.assert_array_equal(gauge(-p), gauge(p))
    assert (gauge(p + q) <= (gauge(p) + gauge(q)) * (1 + 2e-5)).all()  # the triangle inequality, so convex


def test_gradient_is_the_derivative_of_the_log_gauge_and_one_along_the_point():
    axes, exponents = shapes(6)
    p = np.random.default_rng(7).normal(size=(ROWS, 3))
    got = measure(p, axes, exponents)
    gradient = got["log_gauge_gradient"][0]
    np.testing.assert_allclose(gradient, got["log_gauge"][1], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose((p * gradient).sum(-1), 1.0, rtol=1e-9)  # Euler: log g grows by one per e-fold of p


@pytest.mark.parametrize("name", ["log_gauge", "radial_distance", "certified_step", "support", "volume", "occupancy"])
def test_gradients_are_finite_differences(name):
    axes, exponents = (np.float64(x) for x in shapes(8, 200, (0.15, 1.85), (0.2, 2.0)))
    args = [np.float64(directions(9, 200)) * 1.3, axes, exponents]
    measured = measure(*args)[name]
    for i, gradient in enumerate(measured[1:]):
        way = np.random.default_rng(10 + i).normal(size=args[i].shape)
        there, back = ([x + sign * 1e-6 * way if j == i else x for j, x in enumerate(args)] for sign in (1, -1))
        slope = (measure(*there)[name][0] - measure(*back)[name][0]) / 2e-6
        np.testing.assert_allclose((gradient * way).sum(-1), slope, rtol=1e-4, atol=1e-6)


def test_ellipsoid_closed_forms():
    axes, _ = shapes(11, scale=(0.2, 2.0))
    v, one = directions(12, ROWS), np.ones((ROWS, 2), np.float32)
    ratio = np.linalg.norm(v / axes, axis=-1)
    got = {name: value for name, (value, *_) in measure(3.0 * v, axes, one).items()}
    np.testing.assert_allclose(got["gauge"], 3.0 * ratio, rtol=1e-5)
    np.testing.assert_allclose(got["surface_point"], v / ratio[:, None], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(got["radial_distance"], 3.0 - 1.0 / ratio, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got["support"], 3.0 * np.linalg.norm(axes * v, axis=-1), rtol=1e-5)
    np.testing.assert_allclose(got["volume"], 4 / 3 * np.pi * axes.prod(-1), rtol=1e-5)
    np.testing.assert_allclose(got["inner_radius"], axes.min(-1), rtol=1e-6)
    np.testing.assert_allclose(got["certified_step"], (3.0 * ratio - 1.0) * axes.min(-1), rtol=1e-5)
    n = v / axes**2
    np.testing.assert_allclose(got["normal"], n / np.linalg.norm(n, axis=-1, keepdims=True), atol=1e-5)


def test_support_is_the_largest_reach_of_dense_surface_samples():
    axes, exponents = shapes(13, 16)
    n = directions(14, 16, 16)
    reach = np.einsum("sni,sdi->sdn", dense_surface(15, 20_000, axes, exponents), n).max(-1)
    rows = [np.repeat(x, 16, 0) for x in (axes, exponents)]
    h = measure(n.reshape(-1, 3), *rows)["support"][0].reshape(16, 16)
    assert (reach <= h * (1 + 1e-5)).all()
    assert np.median(reach / h) > 0.998  # the worst are corners that random directions seldom hit


def test_support_is_attained_at_its_gradient_which_lies_on_the_surface():
    axes, exponents = shapes(16)
    n = np.float64(directions(17, ROWS))
    h, touch, *_ = measure(n, axes, exponents)["support"]
    np.testing.assert_allclose((touch * n).sum(-1), h, rtol=1e-6)
    np.testing.assert_allclose(measure(touch, axes, exponents)["gauge"][0], 1.0, rtol=1e-5)


def test_volume_agrees_with_monte_carlo():
    axes = np.tile(np.float32([0.5, 1.0, 0.2]), (6, 1))
    exponents = np.float32([[0.1, 0.1], [0.1, 1.0], [1.0, 0.1], [1.9, 1.9], [0.4, 1.7], [1.6, 0.3]])
    p = np.random.default_rng(18).uniform(-1, 1, (200_000, 3)) * axes[0]
    inside = [(power_form(p, axes[0], e) < 1).mean() for e in exponents]
    got = measure(axes, axes, exponents)["volume"][0]
    np.testing.assert_allclose(got, np.float64(inside) * 8 * axes[0].prod(), rtol=0.015)


def test_certified_step_never_exceeds_the_sampled_distance_and_is_not_idle():
    axes, exponents = shapes(19, 16, scale=(0.1, 1.0))
    away = np.random.default_rng(20).uniform(1.0, 4.0, (16, 32, 1))
    p = away * dense_surface(21, 32, axes, exponents)
    cloud = dense_surface(22, 10_000, axes, exponents)
    squared = (p**2).sum(-1)[..., None] - 2 * np.einsum("sdi,sni->sdn", p, cloud) + (cloud**2).sum(-1)[:, None]
    distance = np.sqrt(squared.min(-1)).ravel()
    got = measure(p.reshape(-1, 3).astype(np.float32), *(np.repeat(x, 32, 0) for x in (axes, exponents)))
    step = got["certified_step"][0]
    assert (step <= distance + 1e-5).all()
    assert (step >= -1e-6).all()
    assert np.median(step / distance) > 0.5
    assert (got["radial_distance"][0] >= step - 1e-5).all()  # the radial distance over-estimates


def test_certified_step_is_the_distance_where_it_is_tight():
    """Beside the middle of a box's nearest face, of an ellipsoid's shortest axis, of an octahedron's face."""
    axes = np.float32([0.3, 0.5, 0.4])
    face = 1 / axes  # the normal of the octahedron |x/a| + |y/b| + |z/c| = 1
    diamond = 2 * face / (face**2).sum()
    p = np.float32([[0.8, 0, 0], [0.8, 0, 0], diamond])
    exponents = np.float32([[0.1, 0.1], [1.0, 1.0], [2.0, 2.0]])
    step = measure(p, np.tile(axes, (3, 1)), exponents)["certified_step"][0]
    np.testing.assert_allclose(step, [0.5, 0.5, np.linalg.norm(diamond) / 2], rtol=1e-5)


def test_radial_distance_leads_to_the_surface_along_the_ray_from_the_centre():
    axes, exponents = shapes(23)
    p = np.random.default_rng(24).normal(size=(ROWS, 3)).astype(np.float32)
    d = measure(p, axes, exponents)["radial_distance"][0]
    foot = p - d[:, None] * p / np.linalg.norm(p, axis=-1, keepdims=True)
    np.testing.assert_allclose(measure(foot, axes, exponents)["gauge"][0], 1.0, rtol=2e-4)
    centre = measure(np.zeros_like(p), axes, exponents)["radial_distance"][0]
    assert (centre < -0.5 * axes.min(-1)).all()  # the centre is deep inside, whatever direction it is left by


def test_normal_is_the_direction_of_the_gauge_s_finite_difference():
    axes, exponents = shapes(25)
    p = np.float64(directions(26, ROWS)) * axes
    slope = [np.subtract(*(measure(p + s * row, axes, exponents)["gauge"][0] for s in (1e-7, -1e-7))) for row in np.eye(3)]
    slope = np.stack(slope, -1)
    n = measure(p, axes, exponents)["normal"][0]
    np.testing.assert_allclose(n, slope / np.linalg.norm(slope, axis=-1, keepdims=True), atol=1e-4)
    assert ((n * p).sum(-1) > 0).all()
    np.testing.assert_array_equal(measure(np.zeros((1, 3)), axes[:1], exponents[:1])["normal"][0], 0.0)


def test_normal_beside_a_cusp_keeps_its_precision_in_float32():
    """A diamond's normal just off an edge hangs on the small softmax weight, which 1 - the large one would round away."""
    off = np.geomspace(1e-4, 1e-2, 50).astype(np.float32)
    p = np.stack([off, np.ones_like(off), np.full_like(off, 0.3)], -1)
    args = np.ones((50, 3)), np.full((50, 2), 1.9)
    np.testing.assert_allclose(measure(p, *args)["normal"][0], measure(np.float64(p), *args)["normal"][0], atol=3e-5)


def test_surface_points_lie_on_the_surface_along_their_direction():
    axes, exponents = shapes(27)
    v = directions(28, ROWS)
    s = measure(7 * v, axes, exponents)["surface_point"][0]
    np.testing.assert_allclose(power_form(s, axes, exponents), 1.0, rtol=2e-5)
    np.testing.assert_allclose(s / np.linalg.norm(s, axis=-1, keepdims=True), v, atol=1e-6)


def test_sphere_directions_are_unit_and_even():
    v = np.asarray(sq.sphere_directions(500))
    np.testing.assert_allclose(np.linalg.norm(v, axis=-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(v.mean(0), 0.0, atol=2e-3)
    np.testing.assert_allclose(v.T @ v / 500, np.eye(3) / 3, atol=2e-3)
    nearest = np.arccos(np.sort(v @ v.T, axis=-1)[:, -2])
    assert nearest.min() > 0.7 * np.sqrt(4 * np.pi / 500)


_sample = jax.jit(sq.sample_surface, static_argnums=1)


def test_samples_of_a_sphere_are_uniform():
    s = np.asarray(_sample(jax.random.key(0), 4000, np.float32([0.7] * 3), np.ones(2, np.float32)))
    np.testing.assert_allclose(np.linalg.norm(s, axis=-1), 0.7, rtol=1e-5)
    for axis in range(3):  # Archimedes: every coordinate of a uniform sphere is uniform
        assert kstest(s[:, axis] / 0.7, "uniform", (-1, 2)).pvalue > 1e-3
    assert len(np.unique(s, axis=0)) > 0.95 * len(s)


def test_samples_and_area_of_many_waves_are_those_of_each():
    rng = np.random.default_rng(5)
    scale, exponents = (rng.uniform(0.2, 1.8, (3, 2, n)).astype(np.float32) for n in (3, 2))
    points = _sample(jax.random.key(2), 300, scale, exponents)
    assert points.shape == (3, 2, 300, 3)
    log_g = sq.log_gauge(points, scale[..., None, :], exponents[..., None, :])
    np.testing.assert_allclose(log_g, 0.0, atol=1e-4)
    key = jax.random.split(jax.random.split(jax.random.key(2), 3)[1], 2)[0]
    alone = np.asarray(_sample(key, 300, scale[1, 0], exponents[1, 0]))
    np.testing.assert_allclose(points[1, 0], alone, rtol=1e-5, atol=1e-6)
    areas = [[surface_area(a, e) for a, e in zip(*row, strict=True)] for row in zip(scale, exponents, strict=True)]
    np.testing.assert_allclose(surface_area(scale, exponents), areas, rtol=1e-5)


@pytest.mark.parametrize("axes", [(1.0, 0.5, 0.7), (2.0, 1.0, 0.02), (0.02, 0.03, 2.0)])
def test_samples_of_a_box_are_uniform_at_any_aspect(axes):
    a, e = np.float32(axes), np.float32([0.1, 0.1])
    s = np.asarray(_sample(jax.random.key(1), 4000, a, e))
    np.testing.assert_allclose(power_form(s, a, e), 1.0, rtol=1e-4)
    face = np.argmax(np.abs(measure(s[:ROWS], a[None], e[None])["normal"][0]), -1)
    area = np.float64([a[1] * a[2], a[0] * a[2], a[0] * a[1]])
    np.testing.assert_allclose(np.bincount(face, minlength=3) / ROWS, area / area.sum(), atol=0.05)
    large = np.argmax(area)
    for axis in set(range(3)) - {large}:
        u = (s[:ROWS] / a)[face == large, axis]
        assert kstest(u[np.abs(u) < 0.8], "uniform", (-0.8, 1.6)).pvalue > 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_samples_of_any_shape_obey_the_divergence_theorem(seed):
    """The integral of x_i n_i over the surface is the volume, for each i; so uniform samples have three equal means."""
    axes, exponents = shapes(40 + seed, 1, scale=(0.2, 2.0))
    s = np.asarray(_sample(jax.random.key(seed), 4000, axes[0], exponents[0]))
    n = np.concatenate([measure(part, axes, exponents)["normal"][0] for part in np.split(s, 4)])
    means = (s * n).mean(0)
    np.testing.assert_allclose(means / means.mean(), 1.0, atol=0.1)


def test_occupancy_is_half_the_presence_on_the_surface_and_falls_outwards():
    axes, exponents = shapes(30, scale=(0.2, 2.0))
    s = dense_surface(31, 1, axes, exponents)[:, 0].astype(np.float32)

    def at(factor):
        return measure(np.float32(factor) * s, axes, exponents)["occupancy"][0]

    np.testing.assert_allclose(at(1.0), 0.4, atol=1e-4)
    ladder = np.stack([at(f) for f in (0.1, 0.5, 0.9, 1.0, 1.1, 1.5, 3.0)])
    assert (np.diff(ladder, axis=0) <= 0).all()
    assert (ladder[0] > 0.79).all()
    assert (ladder[-1] < 1e-5).all()
    radius = axes.prod(-1) ** (1 / 3)  # the design's equation at g = 1.02
    np.testing.assert_allclose(at(1.02), 0.8 / (1 + np.exp(0.02 * radius / 0.02)), rtol=2e-3)


def test_union_is_one_minus_the_product_of_absences():
    p = np.random.default_rng(32).random((50, 4)).astype(np.float32)
    u = np.asarray(sq.union(p))
    np.testing.assert_allclose(u, 1 - (1 - p[:, 0]) * (1 - p[:, 1]) * (1 - p[:, 2]) * (1 - p[:, 3]), rtol=1e-5)
    assert (u >= p.max(-1) - 1e-6).all()
    assert (u <= 1).all()
    np.testing.assert_allclose(sq.union(p.T, axis=0), u, rtol=1e-6)


def test_parameters_broadcast_against_points():
    p, axes, exponents = np.ones((5, 4, 3), np.float32), np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)
    assert jax.eval_shape(sq.normal, p, axes, exponents).shape == (5, 4, 3)
    assert jax.eval_shape(sq.gauge, p, axes, exponents).shape == (5, 4)


def test_the_curvature_of_the_support_function_is_its_hessian():
    rng = np.random.default_rng(9)
    n, u, v = (rng.normal(size=(64, 3)).astype(np.float32) for _ in range(3))
    scale = np.exp(rng.uniform(-1, 1, (64, 3))).astype(np.float32)
    exponents = rng.uniform(0.3, 1.7, (64, 2)).astype(np.float32)
    hessian = jax.vmap(jax.hessian(sq.support))(n, scale, exponents)
    found = sq.support_curvature(*(jnp.moveaxis(x, -1, 0) for x in (n, u, v, scale, 2.0 / (2.0 - exponents))))
    for value, (a, b) in zip(found, ((u, u), (u, v), (v, v)), strict=True):
        expected = np.einsum("ni,nij,nj->n", a, hessian, b)
        np.testing.assert_allclose(value, expected, rtol=2e-3, atol=2e-4 * np.abs(expected).max())
