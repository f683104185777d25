"""Grids: volumes of waves and meshes, their agreement, distance, marching cubes, and what is no solid."""

import jax
import numpy as np
import pytest

from wsm_jax.core import superquadric
from wsm_jax.core.exchange import voxels
from wsm_jax.core.exchange.distance import set_distance
from wsm_jax.core.exchange.tessellation import cube, tessellate
from wsm_jax.core.exchange.voxels import VoxelGrid
from wsm_jax.core.mesh import Mesh, joined, open_edges


@pytest.fixture
def grid(scene):
    low, high = voxels.world_bounds(scene)
    return voxels.frame(low.min(0), high.max(0), 64)


def test_cells_fill_the_volume_of_the_waves_and_agree_with_their_meshes(scene, grid):
    waves = voxels.occupancy_of_waves(scene, grid)
    volume = float(np.sum(superquadric.volume(scene.scale, scene.exponents)))
    assert waves.values.sum() * grid.spacing**3 == pytest.approx(volume, rel=0.01)
    meshes, _ = tessellate(scene, 32)
    assert voxels.iou(waves, voxels.occupancy_of_mesh(joined(meshes), grid)) > 0.985
    absent = scene.replace(presence=np.zeros(4, np.float32))
    assert voxels.occupancy_of_waves(absent, grid).values.sum() == 0


def test_overlapping_shells_are_one_solid_and_an_open_one_is_none(scene, grid):
    meshes, _ = tessellate(scene, 8)
    once = voxels.occupancy_of_mesh(meshes[0], grid)
    np.testing.assert_array_equal(voxels.occupancy_of_mesh(joined([meshes[0], meshes[0]]), grid).values, once.values)
    opened = meshes[0].replace(faces=np.asarray(meshes[0].faces)[60:])
    with pytest.raises(ValueError, match="needed a closed mesh"):
        voxels.occupancy_of_mesh(opened, grid)


def test_a_box_on_the_lattice_is_exact():
    corners, faces = cube(2)
    box = Mesh(2.0 + corners.astype(float), faces, np.zeros((len(corners), 3)))
    found = voxels.occupancy_of_mesh(box, VoxelGrid(np.zeros((6, 7, 8), np.uint8), np.full(3, 0.25), 0.5, "occupancy"))
    inside = np.all((found.points > 0) & (found.points < 4), -1).reshape(6, 7, 8)
    np.testing.assert_array_equal(found.values.astype(bool), inside)


def test_the_distance_of_a_mesh_is_that_to_its_faces(scene):
    pytest.importorskip("trimesh")
    corners, faces = cube(2)  # a few long faces: a box from 0 to 4 m
    box = Mesh(2.0 + corners.astype(float), faces, np.zeros((len(corners), 3)))
    found = voxels.distance_of_mesh(box, VoxelGrid(np.zeros((9, 10, 11), np.uint8), np.full(3, -1.2), 0.7, "occupancy"))
    beyond = np.abs(found.points - 2.0) - 2.0
    exact = np.linalg.norm(np.maximum(beyond, 0.0), axis=-1) + np.minimum(beyond.max(-1), 0.0)
    np.testing.assert_allclose(found.values.reshape(-1), exact, atol=1e-6)

    low, high = voxels.world_bounds(scene)
    frame = voxels.frame(low.min(0), high.max(0), 24)
    meshes, _ = tessellate(scene, 32)
    ours, waves = voxels.distance_of_mesh(joined(meshes), frame), voxels.distance_of_waves(scene, frame)
    assert np.abs(np.asarray(ours.values) - np.asarray(waves.values)).max() < 0.1 * frame.spacing


def test_marching_cubes_of_the_exact_distance_is_the_surface(scene):
    pytest.importorskip("skimage")
    low, high = voxels.world_bounds(scene)
    grid = voxels.distance_of_waves(scene, voxels.frame(low.min(0), high.max(0), 28))
    mesh = voxels.to_mesh(grid)
    assert open_edges(mesh.faces) == 0
    volume = float(np.sum(superquadric.volume(scene.scale, scene.exponents)))
    assert mesh.volume == pytest.approx(volume, rel=0.06)
    off = np.asarray(jax.jit(set_distance)(scene, np.float32(mesh.vertices)))
    assert np.abs(off).mean() < 0.06 * grid.spacing
    edt = voxels.distance_of_cells(voxels.occupancy_of_waves(scene, grid))
    assert np.abs(np.asarray(edt.values) - np.asarray(grid.values)).max() < 1.2 * grid.spacing


def test_solids_that_reach_the_border_are_closed_and_empty_ones_refused():
    pytest.importorskip("skimage")
    full = VoxelGrid(np.ones((16, 17, 18), np.uint8), np.zeros(3), 0.5, "occupancy")
    mesh = voxels.to_mesh(full)
    assert open_edges(mesh.faces) == 0 and mesh.volume == pytest.approx(16 * 17 * 18 / 8, rel=0.05)
    with pytest.raises(ValueError, match="no cell"):
        voxels.to_mesh(full.like(np.zeros((16, 17, 18), np.uint8), "occupancy"))
    with pytest.raises(ValueError, match="4896 of 4896 cells are solid"):
        voxels.distance_of_cells(full)
    with pytest.raises(ValueError, match="needed a finite box"):
        voxels.frame(np.zeros(3), np.zeros(3), 32)
