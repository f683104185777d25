"""Importers on damaged files: every one is read, or refused with a ValueError that names it."""

import time

import numpy as np
import pytest

from wsm_jax.core import superquadric
from wsm_jax.core.exchange import scene_file
from wsm_jax.core.exchange.conversion import convert

COUNT = 1000


def damaged(rng, data, way):
    """Cut off, bytes changed, bytes of the head changed, or a number of the head made huge."""
    data = bytearray(data)
    if way == 0:
        return bytes(data[: rng.integers(0, len(data))])
    if way in (1, 2):
        for i in rng.integers(0, len(data) if way == 1 else min(len(data), 600), 8):
            data[i] = rng.integers(0, 256)
        return bytes(data)
    start = int(rng.integers(0, min(len(data), 2000)))
    digit = next((i for i in range(start, min(len(data), 4000)) if chr(data[i]).isdigit()), None)
    if digit is None:
        data[start : start + 4] = b"\xff\xff\xff\x7f"
    else:
        data[digit : digit + 1] = b"99999999999"
    return bytes(data)


@pytest.mark.filterwarnings("ignore")
def test_damaged_files_are_read_or_refused(scene, options, tmp_path):
    pytest.importorskip("trimesh")
    names = {"mesh": ("a.ply", "a.obj", "a.stl", "a.glb", "a.gltf"), "points": ("p.ply", "p.npz"), "splats": ("s.ply",)}
    names |= {"voxels": ("v.npz", "v.npy"), "waves": ("c.json",)}
    whole = []
    for goal, files in names.items():
        thing = convert(scene, goal, options(samples=200, detail=2, resolution=8))
        for name in files:
            scene_file.write(thing, tmp_path / name, 2)
            whole.append(((tmp_path / name).suffix, (tmp_path / name).read_bytes()))
    refused = 0
    for n in range(COUNT):
        suffix, data = whole[n % len(whole)]
        path = tmp_path / f"damaged{suffix}"
        path.write_bytes(damaged(np.random.default_rng(n), data, n // len(whole) % 4))
        begin = time.monotonic()
        message = None
        try:
            scene_file.read(path, spacing=0.1)
        except ValueError as error:
            message = str(error)
        assert message is None or str(path) in message
        refused += message is not None
        assert time.monotonic() - begin < 10
    assert refused > COUNT // 3


def test_suffixes_that_are_not_known_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"a.fbx: .fbx is not read; needed one of .json"):
        scene_file.read(tmp_path / "a.fbx")
    with pytest.raises(ValueError, match="is not written; needed one of"):
        scene_file.goal("a.fbx", None, "waves")
    with pytest.raises(ValueError, match=r"\.stl does not hold splats; it holds mesh"):
        scene_file.goal("a.stl", "splats", "waves")
    assert [scene_file.goal("a.ply", None, start) for start in ("waves", "splats", "points")] == ["mesh", "splats", "points"]


def test_mujoco_compiles_what_is_written(scene, tmp_path):
    mujoco = pytest.importorskip("mujoco")
    scene_file.write(scene, tmp_path / "a.xml", 2)
    model = mujoco.MjModel.from_xml_path(str(tmp_path / "a.xml"))
    names = [model.geom(i).name for i in range(model.ngeom)]
    assert sorted(names) == ["wave0", "wave1", "wave2", "wave3"]
    assert model.geom("wave1").bodyid == model.geom("wave2").bodyid != model.geom("wave0").bodyid  # one instance, one body
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    np.testing.assert_allclose(data.geom("wave0").xpos, scene.centre[0], atol=1e-5)
    mass = 500 * np.asarray(superquadric.volume(scene.scale, scene.exponents))
    assert float(model.body_mass[model.geom("wave0").bodyid[0]]) == pytest.approx(mass[0], rel=1e-4)


def test_an_obj_has_the_colours_of_its_materials(tmp_path):
    pytest.importorskip("trimesh")
    (tmp_path / "a.mtl").write_text("newmtl red\nKd 0.8 0.1 0.1\nnewmtl blue\nKd 0.1 0.2 0.9\n")
    corners = "v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\n"
    faces = "usemtl red\nf 1 3 2\nf 1 2 4\nusemtl blue\nf 1 4 3\nf 2 3 4\n"
    (tmp_path / "a.obj").write_text("mtllib a.mtl\n" + corners + faces)
    (tmp_path / "b.obj").write_text("mtllib none.mtl\n" + corners + faces)
    found, plain = (scene_file.read(tmp_path / name) for name in ("a.obj", "b.obj"))
    colours = np.unique(np.round(found.colours[np.asarray(found.faces)].reshape(-1, 3), 3), axis=0)
    np.testing.assert_allclose(colours, [[0.1, 0.2, 0.9], [0.8, 0.1, 0.1]], atol=0.002)
    np.testing.assert_array_equal(plain.colours, 0.5)
    assert len(found.faces) == len(plain.faces) == 4
