"""Splats: moments both ways, the layout of 3DGS byte for byte, covariances of faces."""

import numpy as np
import pytest

from wsm_jax.core import superquadric
from wsm_jax.core.exchange import ply, splats
from wsm_jax.core.exchange.points import sample_mesh
from wsm_jax.core.mesh import Mesh
from wsm_jax.core.rotation import matrix64


def test_an_ellipsoid_is_exact_both_ways(scene):
    waves = scene.replace(exponents=np.ones((4, 2), np.float32))
    again = splats.to_waves(splats.from_moments(waves))
    for name in ("centre", "scale", "exponents", "presence", "colour"):
        np.testing.assert_allclose(getattr(again, name), getattr(waves, name), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(matrix64(again.rotation), matrix64(waves.rotation), atol=1e-6)


def test_every_splat_has_the_moments_and_mass_centre_of_its_wave(scene):
    made = splats.from_moments(scene)
    turn = matrix64(scene.rotation)
    moments = np.asarray(superquadric.second_moments(scene.scale, scene.exponents))
    np.testing.assert_allclose(splats.covariance(made), np.einsum("nij,nj,nkj->nik", turn, moments, turn), rtol=1e-4, atol=1e-6)


def test_the_file_is_3dgs_as_viewers_read_it(scene, tmp_path):
    path = tmp_path / "a.ply"
    made = splats.from_moments(scene)
    splats.write_ply(made, path)
    head, data = path.read_bytes().split(b"end_header\n")
    names = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *(f"f_rest_{i}" for i in range(45)), "opacity"]
    names += [f"scale_{i}" for i in range(3)] + [f"rot_{i}" for i in range(4)]
    lines = ["ply", "format binary_little_endian 1.0", "element vertex 4", *(f"property float {n}" for n in names)]
    assert head.decode() == "\n".join(lines) + "\n"
    rows = np.frombuffer(data, "<f4").reshape(4, 62)
    np.testing.assert_allclose(rows[:, :3], scene.centre)
    np.testing.assert_allclose(np.exp(rows[:, 55:58]), made.sigma, rtol=1e-6)
    np.testing.assert_allclose(rows[:, 58:], scene.rotation, atol=1e-6)
    np.testing.assert_allclose(0.5 + 0.28209479 * rows[:, 6:9], scene.colour, atol=1e-6)
    assert np.all(rows[:, 54] > 10) and np.all(rows[:, 3:6] == 0) and np.all(rows[:, 9:54] == 0)
    again = splats.from_ply(ply.read(path).vertex, "a")
    for name in ("means", "sigma", "rotation", "colours"):
        np.testing.assert_allclose(getattr(again, name), getattr(made, name), rtol=1e-5, atol=1e-6)


def test_a_face_becomes_the_gaussian_of_its_own_points():
    mesh = Mesh(np.array([[0.0, 0, 0], [2, 0, 1], [0.5, 1, 0]]), np.array([[0, 1, 2]]), np.full((3, 3), 0.5))
    made = splats.from_faces(mesh)
    points = np.asarray(sample_mesh(mesh, 100_000).points)
    flat = splats.covariance(made)[0]
    np.testing.assert_allclose(points.mean(0), made.means[0], atol=5e-3)
    # a face has no depth, a splat has a twentieth of its greatest width
    normal = np.cross([2, 0, 1], [0.5, 1, 0]) / np.linalg.norm(np.cross([2, 0, 1], [0.5, 1, 0]))
    depth = (0.05 * np.max(np.asarray(made.sigma))) ** 2
    np.testing.assert_allclose(flat - depth * np.outer(normal, normal), np.cov(points.T), atol=2e-3)


def test_degenerate_splats_are_refused(scene, tmp_path):
    splats.write_ply(splats.from_moments(scene), tmp_path / "a.ply")
    vertex = dict(ply.read(tmp_path / "a.ply").vertex)
    zero = np.zeros(4, np.float32)
    for change, message in (
        ({"scale_1": zero + 80}, "ln sigma 80"),
        ({f"rot_{i}": zero for i in range(4)}, "rotation has length 0"),
        ({"x": zero + 1e12}, "e[+]12 m away"),
    ):
        with pytest.raises(ValueError, match=message):
            splats.from_ply(vertex | change, "a.ply")
    del vertex["scale_2"]
    with pytest.raises(ValueError, match=r"a.ply: 3DGS columns \['scale_2'\] are missing"):
        splats.from_ply(vertex, "a.ply")
