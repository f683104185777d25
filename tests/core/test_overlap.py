"""The shared volume of two waves: closed forms, bounds, symmetry, and its derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from wsm_jax.core.geometry import Geometry
from wsm_jax.core.overlap import overlap
from wsm_jax.core.superquadric import volume
from wsm_jax.snapshot import quaternion_to_matrix

shared = jax.jit(overlap, static_argnames="directions")


def wave(centre, scale, exponents=(1.0, 1.0), rotation=(1.0, 0, 0, 0)):
    rotation = np.float32(rotation) / np.linalg.norm(rotation)
    return Geometry(
        np.float32(centre), np.float32(np.broadcast_to(scale, 3)), rotation.astype(np.float32), np.float32(exponents)
    )


@pytest.mark.parametrize("distance", [0.2, 0.6, 1.0])
def test_two_balls_share_a_lens(distance):
    big, small = 0.8, 0.5
    d = distance
    lens = np.pi * (big + small - d) ** 2 * (d * d + 2 * d * (big + small) - 3 * (big - small) ** 2) / (12 * d)
    wanted = lens if d > big - small else 4 / 3 * np.pi * small**3
    place = d * np.array([0.6, 0.0, 0.8])
    for pair in ((wave((0, 0, 0), big), wave(place, small)), (wave(place, small), wave((0, 0, 0), big))):
        np.testing.assert_allclose(shared(*pair), wanted, rtol=2e-3)


def test_apart_within_and_the_same():
    a, b = wave((0, 0, 0), (0.3, 0.2, 0.4), (0.3, 1.4)), wave((2, 0, 0), 0.5)
    assert shared(a, b) == 0
    whole = float(volume(a.scale, a.exponents))
    np.testing.assert_allclose(shared(a, wave((0, 0, 0), 2.0)), whole, rtol=5e-3)
    np.testing.assert_allclose(shared(wave((0, 0, 0), 2.0), a, directions=16384), whole, rtol=0.02)
    np.testing.assert_allclose(shared(a, a), whole, rtol=5e-3)


def test_boxes_share_a_box_whoever_asks():
    turn = (0.8, 0.2, -0.4, 0.4)
    a = wave((0, 0, 0), (0.5, 0.4, 0.3), (0.1, 0.1), turn)
    axis = np.asarray(quaternion_to_matrix(a.rotation))[:, 0]
    b = wave(0.6 * axis, (0.5, 0.4, 0.3), (0.1, 0.1), turn)
    there, back = shared(a, b), shared(b, a)
    np.testing.assert_allclose(there, back, rtol=5e-3)
    np.testing.assert_allclose(there, 0.4 * 0.8 * 0.6, rtol=0.05)  # rounded edges take a little


def test_the_derivative_is_its_finite_difference():
    a, b = wave((0, 0, 0), 0.5, (0.6, 1.3), (0.9, 0.1, 0.2, 0.3)), wave((0.4, 0.2, 0.1), (0.3, 0.5, 0.4), (1.2, 0.5))

    def moved(shift, stretch):
        return overlap(a, b.replace(centre=b.centre + shift, scale=b.scale * stretch), directions=8192)

    value = jax.jit(moved)
    slopes = jax.jit(jax.grad(moved, (0, 1)))(jnp.zeros(3), jnp.ones(3))
    for argument, slope in enumerate(slopes):
        for i in range(3):
            ends = []
            for h in (1e-2, -1e-2):
                point = [np.zeros(3, np.float32), np.ones(3, np.float32)]
                point[argument][i] += h
                ends.append(float(value(*point)))
            np.testing.assert_allclose(slope[i], (ends[0] - ends[1]) / 2e-2, atol=0.1 * np.abs(slope).max())  # rays that graze


def test_many_pairs_at_once():
    pairs = [(wave((0, 0, 0), 0.5), wave((0.1 * k, 0, 0), 0.4)) for k in range(4)]
    a, b = (jax.tree.map(lambda *x: np.stack(x), *side) for side in zip(*pairs, strict=True))
    np.testing.assert_allclose(jax.jit(jax.vmap(overlap))(a, b), [shared(*pair) for pair in pairs], rtol=1e-5)
    first, second = (jax.tree.map(lambda *x: np.stack(x), *side) for side in (pairs[0][:1] * 2, [b for _, b in pairs]))
    table = overlap(jax.tree.map(lambda x: x[:, None], first), second)
    assert table.shape == (2, 4)
    np.testing.assert_allclose(table, [[shared(*pair) for pair in pairs]] * 2, rtol=1e-5)
