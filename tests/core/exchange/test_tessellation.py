"""Meshes of waves: on the surface, watertight, outward, and of the volume that the Beta functions give, in second order."""

import dataclasses

import numpy as np
import pytest

from wsm_jax.core import superquadric as sq
from wsm_jax.core.exchange.tessellation import cube, projected, tessellate, unit_surface
from wsm_jax.core.mesh import connected, joined, open_edges, welded
from wsm_jax.snapshot.waves import empty

EXPONENTS = np.float32([[0.1, 0.1], [0.1, 1], [1, 1], [1.9, 1.9], [0.1, 1.9], [1.9, 0.1], [0.5, 0.7], [1.4, 0.3]])


@pytest.fixture(scope="module")
def waves():
    rng = np.random.default_rng(0)
    count = len(EXPONENTS)
    return dataclasses.replace(
        empty(count),
        exponents=EXPONENTS,
        scale=np.exp(rng.uniform(-2, 0, (count, 3))).astype(np.float32),
        centre=rng.normal(size=(count, 3)).astype(np.float32),
        rotation=rng.normal(size=(count, 4)).astype(np.float32),
    )


def test_points_lie_on_the_surface_and_normals_are_those_of_the_gauge():
    points, normals = unit_surface(EXPONENTS, 16)
    ones = np.ones((len(EXPONENTS), 1, 3), np.float32)
    np.testing.assert_allclose(sq.gauge(np.float32(points), ones, EXPONENTS[:, None]), 1.0, atol=3e-6)
    normals = normals / np.linalg.norm(normals, axis=-1, keepdims=True)
    np.testing.assert_allclose(sq.normal(np.float32(points), ones, EXPONENTS[:, None]), normals, atol=2e-5)


def test_meshes_are_closed_and_their_volume_converges_in_second_order(waves):
    exact = np.asarray(sq.volume(waves.scale, waves.exponents))
    errors = []
    for detail in (8, 16, 32):
        meshes, _ = tessellate(waves, detail)
        assert [open_edges(mesh.faces) for mesh in meshes] == [0] * len(meshes)
        errors.append(1.0 - np.array([mesh.volume for mesh in meshes]) / exact)
    # inscribed in a convex body: always too small
    assert np.all(np.array(errors) > 0) and np.all(errors[1] < 6e-3)
    np.testing.assert_allclose(errors[0] / errors[1], 4.0, atol=0.35)
    np.testing.assert_allclose(errors[1][:5] / errors[2][:5], 4.0, atol=0.35)


def test_normals_point_away_from_the_centre(waves):
    meshes, normals = tessellate(waves, 8)
    for mesh, normal, centre in zip(meshes, normals, np.asarray(waves.centre)):
        assert np.all(np.sum((np.asarray(mesh.vertices) - centre) * normal, -1) > 0)
        np.testing.assert_allclose(np.linalg.norm(normal, axis=-1), 1.0, rtol=1e-12)


def test_onto_leaves_a_surface_point_where_it_is_and_finds_its_normal(waves):
    meshes, normals = tessellate(waves, 6)
    unit, _ = unit_surface(waves.exponents, 6)
    for i, mesh in enumerate(meshes):
        points = np.asarray(mesh.vertices)
        centre = np.asarray(waves.centre, np.float64)[i]
        moved, found = projected(waves, np.full(len(points), i), centre + 1.1 * (points - centre))
        np.testing.assert_allclose(moved, points, atol=1e-9)
        # on a ridge of an exponent above 1 the normal turns within less than float64 resolves
        smooth = np.all(np.abs(unit[i]) > 1e-3, -1)
        np.testing.assert_allclose(found[smooth], normals[i][smooth], atol=1e-9)


def test_joined_parts_come_apart_again_and_an_opened_mesh_is_seen(waves):
    meshes, _ = tessellate(waves, 4)
    whole = joined(meshes)
    pieces = connected(welded(whole))
    assert len(pieces) == len(meshes)
    np.testing.assert_allclose(sorted(p.volume for p in pieces), sorted(m.volume for m in meshes), rtol=1e-9)
    assert open_edges(whole.faces) == 0 and open_edges(np.asarray(whole.faces)[1:]) == 3
    assert open_edges(np.asarray(whole.faces)[[0, 0, 1]]) > 0


def test_a_detail_that_makes_no_cube_is_refused():
    for detail in (0, 3, 258):
        with pytest.raises(ValueError, match=f"detail={detail}"):
            cube(detail)
