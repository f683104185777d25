"""The text about a conversion counts the elements and states the measured agreement."""

import re

import numpy as np
import pytest

from wsm_jax.core.exchange import comparison, scene_file
from wsm_jax.core.exchange.conversion import convert
from wsm_jax.core.exchange.report import agreement, describe


def test_describe_counts_the_elements(scene, options):
    options = options()
    mesh = convert(scene, "mesh", options)
    assert describe(scene) == "4 waves"
    assert describe(mesh) == f"{len(mesh.vertices)} vertices, {len(mesh.faces)} faces"
    assert describe(convert(scene, "points", options)) == f"{options.samples} points"
    assert describe(convert(scene, "splats", options)) == "4 splats"
    grid = convert(scene, "voxels", options)
    assert describe(grid) == f"{'x'.join(map(str, grid.values.shape))} cells of {grid.spacing:.4g} m (occupancy)"


@pytest.mark.parametrize(("name", "compared"), [("a.ply", "the file read back"), ("a.usda", "the scene as written")])
def test_agreement_states_what_the_comparison_measures(scene, options, tmp_path, name, compared):
    options = options()
    mesh = convert(scene, "mesh", options)
    if compared == "the file read back":
        scene_file.write(mesh, tmp_path / name, options.detail)
    text = agreement(scene, mesh, tmp_path / name, options, 16)
    (distance,) = re.findall(r"Chamfer-L1 ([\d.]+) mm", text)
    (overlap,) = re.findall(r"IoU\(16\) ([\d.]+)", text)
    np.testing.assert_allclose(float(distance), 1e3 * comparison.chamfer(scene, mesh, options), rtol=2e-3)
    np.testing.assert_allclose(float(overlap), comparison.iou(scene, mesh, options, 16), atol=1e-3)
    assert text.endswith(f"compared: {compared}")


def test_agreement_of_points_has_no_iou(scene, options, tmp_path):
    options = options()
    points = convert(scene, "points", options)
    assert "IoU: one of them is not a solid" in agreement(scene, points, tmp_path / "a.usda", options, 16)
