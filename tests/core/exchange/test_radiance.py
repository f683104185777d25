"""A density that stops what the shape probability says, and adds up over waves."""

import jax
import jax.numpy as jnp
import numpy as np

from wsm_jax.core import superquadric
from wsm_jax.core.exchange.radiance import field, probability
from wsm_jax.core.geometry import Geometry, to_local

DELTA, SOFTNESS = 0.05, 0.02


def test_one_step_through_the_density_is_the_union_of_the_waves(scene):
    scene = scene.replace(presence=np.float32([0.9, 0.8, 0.6, 0.7]), centre=scene.centre * 0.3)
    points = np.random.default_rng(0).uniform(-0.5, 1.2, (300, 3)).astype(np.float32)
    density, colour = jax.jit(field)(scene, points, DELTA, SOFTNESS)
    spread = jax.tree.map(lambda x: np.broadcast_to(x[:, None], (4, 300, x.shape[-1])), Geometry.of(scene))
    log_g = superquadric.log_gauge(to_local(spread, np.broadcast_to(points, (4, 300, 3))), spread.scale, spread.exponents)
    p = superquadric.occupancy(log_g, spread.scale, np.asarray(scene.presence)[:, None], SOFTNESS)
    np.testing.assert_allclose(probability(density, DELTA), superquadric.union(p, 0), atol=1e-5)
    weight = -jnp.log1p(-p)
    seen = np.asarray(density) > 1e-3
    expected = jnp.einsum("np,nc->pc", weight, scene.colour) / jnp.sum(weight, 0)[:, None]
    np.testing.assert_allclose(colour[seen], expected[seen], atol=1e-5)


def test_it_is_finite_with_finite_gradients_deep_inside_and_far_away(scene):
    points = np.float32([[0, 0, 0.5], [0, 0, 0.5001], [50, 0, 0]])
    density, _ = field(scene, points, DELTA, SOFTNESS)
    assert np.isfinite(density).all() and 10 < density[0] * DELTA < 14.5 and density[2] == 0
    gradient = jax.grad(lambda c: jnp.sum(field(scene.replace(centre=c), points, DELTA, SOFTNESS)[0]))(
        jnp.asarray(scene.centre)
    )
    assert np.isfinite(gradient).all()
