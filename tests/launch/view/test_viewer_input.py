"""Cores, clips and meshes are opened with what belongs to them."""

import numpy as np
import pytest

from launch.view.viewer_input import read_input


def test_a_core_a_clip_and_a_mesh_are_opened(path, dataset, core, tmp_path):
    source = read_input(str(path), None, 8)
    assert source.default_out == tmp_path / "core.edited.json" and source.camera is None and source.waves.count == 4
    source = read_input(str(dataset), 1, 8)
    assert (source.name, source.caption, source.size) == ("set.clip1", "clip 1", (6, 8))
    assert source.default_out == tmp_path / "set.clip1.edited.json"
    assert source.rgb is not None and source.rgb.dtype == np.uint8 and source.rgb.shape == (2, 6, 8, 3)
    np.testing.assert_allclose(source.waves.centre, core.centre, atol=1e-6)
    trimesh = pytest.importorskip("trimesh", reason="the extra `convert` is not installed")
    trimesh.creation.box((1.0, 0.5, 0.3)).export(tmp_path / "a.obj")
    assert read_input(str(tmp_path / "a.obj"), None, 8).waves.count == 1


def test_a_scene_becomes_at_most_the_asked_number_of_waves(tmp_path):
    trimesh = pytest.importorskip("trimesh", reason="the extra `convert` is not installed")
    boxes = [trimesh.creation.box((1.0, 0.5, 0.3)).apply_translation((3 * i, 0, 0)) for i in range(3)]
    trimesh.util.concatenate(boxes).export(tmp_path / "a.obj")
    counts = [read_input(str(tmp_path / "a.obj"), None, most).waves.count for most in (1, 8)]
    assert counts == [1, 3]
