"""Round trips on geometry, routes, named approximations, refused input, and files as other tools read them."""

import numpy as np
import pytest

from wsm_jax.core.exchange import comparison, conversion, scene_file
from wsm_jax.core.exchange.conversion import checked, convert, form, route
from wsm_jax.core.exchange.points import PointCloud
from wsm_jax.snapshot import waves as core_json


def test_every_form_leads_to_every_form():
    forms = ("waves", "points", "mesh", "voxels", "distance", "density", "splats")
    for start in forms:
        for goal in forms:
            way = route(start, goal)
            assert (way[0], way[-1]) == (start, goal) and len(way) <= 4
    assert route("waves", "points") == ["waves", "points"] and route("points", "mesh") == ["points", "waves", "mesh"]
    with pytest.raises(ValueError, match="no path from waves to text"):
        route("waves", "text")


def test_waves_to_mesh_and_back_is_the_same_solid(scene, options):
    given = options(detail=16)
    again = convert(convert(scene, "mesh", given), "waves", given)
    assert again.count == 4
    assert comparison.iou(scene, again, given, 64) > 0.95
    np.testing.assert_allclose(again.colour, scene.colour, atol=1e-5)
    assert any("4 waves of 4 objects" in note for note in given.notes)


def test_points_lie_outside_all_waves_and_one_cloud_gives_its_wave_back(scene, options):
    overlapping = scene.replace(centre=scene.centre * 0.4)
    cloud = convert(overlapping, "points", options())
    assert 0 < len(cloud.points) < 3000
    from wsm_jax.core.exchange import voxels

    assert not voxels.inside_waves(overlapping, np.asarray(cloud.points), level=-1e-3).any()
    one = type(scene)(**{name: getattr(scene, name)[1:2] for name in core_json.FIELDS})
    given = options()
    again = convert(convert(one, "points", given), "waves", given)
    assert comparison.iou(one, again, given, 64) > 0.95
    assert any("3000 points" in note for note in given.notes)


def test_too_many_splats_are_bounded_and_it_is_said(scene, options):
    given = options(max_waves=2)
    found = convert(convert(scene, "splats", given), "waves", given)
    assert found.count == 2 and any("the 2 splats of greatest opacity times volume, of 4" in note for note in given.notes)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("scale", [1e-9, 0.1, 0.1], "semi-axes 1e-09"),
        ("scale", [1e-5, 10.0, 10.0], ".*the thinnest wave 1:1e[+]06"),
        ("exponents", [0.05, 1.0], "exponents 0.05"),
        ("exponents", [1.0, 2.5], "exponents .*2.5; needed 0.1..1.9"),
        ("centre", [1e9, 0, 0], "a centre 1e[+]09 m away"),
    ],
)
def test_degenerate_waves_are_refused(scene, field, value, message):
    values = np.array(getattr(scene, field))
    values[2] = value
    with pytest.raises(ValueError, match=f"core.json: {message}"):
        checked(scene.replace(**{field: values}), "core.json")


def test_degenerate_clouds_and_meshes_are_refused(scene, options):
    def cloud(points):
        return PointCloud(points, np.zeros_like(points), np.zeros_like(points))

    for points, message in ((np.zeros((1, 3)), "1 points; needed 4"), (np.ones((50, 3)), "all 50 points coincide")):
        with pytest.raises(ValueError, match=message):
            convert(cloud(points), "waves", options())
    mesh = convert(scene, "mesh", options())
    opened = mesh.replace(faces=np.asarray(mesh.faces)[1:])
    with pytest.raises(ValueError, match="not watertight: 3 edges"):
        convert(opened, "voxels", options())
    assert comparison.iou(scene, opened, options(), 16) is None


def test_files_hold_what_was_written(scene, options, tmp_path):
    pytest.importorskip("trimesh")
    mesh = convert(scene, "mesh", options())
    for suffix in (".ply", ".obj", ".stl", ".glb", ".gltf"):
        path = tmp_path / f"a{suffix}"
        scene_file.write(mesh if suffix in (".ply", ".stl") else scene, path, 8)
        again = scene_file.read(path)
        assert form(again) == "mesh"
        assert comparison.is_solid(again)
        assert again.volume == pytest.approx(mesh.volume, rel=1e-5)
        np.testing.assert_allclose(np.ptp(again.vertices, axis=0), np.ptp(mesh.vertices, axis=0), rtol=1e-5)
        if suffix != ".stl":
            colours = np.unique(np.round(np.asarray(again.colours), 4), axis=0)
            np.testing.assert_allclose(colours, np.unique(scene.colour, axis=0), atol=0.011)
    for goal in ("points", "voxels", "density", "splats"):
        thing = convert(scene, goal, options(resolution=16))
        path = tmp_path / (f"{goal}.ply" if goal == "splats" else f"{goal}.npz")
        scene_file.write(thing, path, 8)
        again = scene_file.read(path)
        assert form(again) == goal
        assert comparison.chamfer(thing, again, options()) < 0.1


def test_glb_opens_in_trimesh_with_a_node_a_wave_under_its_instance(scene, tmp_path):
    trimesh = pytest.importorskip("trimesh")
    scene_file.write(scene, tmp_path / "a.glb", 8)
    opened = trimesh.load_scene(tmp_path / "a.glb")
    parents = opened.graph.transforms.parents
    assert {name: parents[name] for name in opened.graph.nodes_geometry} == {
        "wave_0": "instance_1", "wave_1": "instance_2", "wave_2": "instance_2", "wave_3": "scenery",
    }  # fmt: skip
    assert all(mesh.is_watertight and mesh.volume > 0 for mesh in opened.geometry.values())
    material = opened.geometry["wave_1"].visual.material
    assert (material.roughnessFactor, material.metallicFactor) == (0.5, 1.0)


def test_usd_passes_its_own_validators(scene, tmp_path):
    pytest.importorskip("pxr")
    from pxr import Usd, UsdGeom, UsdValidation

    for suffix in (".usda", ".usdc"):
        path = tmp_path / f"a{suffix}"
        scene_file.write(scene, path, 8)
        stage = Usd.Stage.Open(str(path))
        registry = UsdValidation.ValidationRegistry()
        validators = registry.GetOrLoadAllValidators()
        errors = UsdValidation.ValidationContext(validators).Validate(stage)
        assert [error.GetMessage() for error in errors] == []
        assert UsdGeom.GetStageUpAxis(stage) == "Z" and UsdGeom.GetStageMetersPerUnit(stage) == 1.0
        meshes = [prim for prim in stage.Traverse() if prim.IsA(UsdGeom.Mesh)]
        assert sorted(str(prim.GetPath()) for prim in meshes) == [
            "/World/instance_1/wave_0", "/World/instance_2/wave_1", "/World/instance_2/wave_2", "/World/scenery/wave_3",
        ]  # fmt: skip
        pose = UsdGeom.Xformable(meshes[0]).ComputeLocalToWorldTransform(Usd.TimeCode.Default())
        at = sorted(str(p.GetPath()) for p in meshes).index(str(meshes[0].GetPath()))
        np.testing.assert_allclose(pose.ExtractTranslation(), scene.centre[at], atol=1e-6)
        assert len(UsdGeom.Mesh(meshes[0]).GetDisplayColorAttr().Get()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.usda", "a.usdc"]


@pytest.mark.parametrize("way", ["voxels", "distance", "density", "splats"])
def test_one_solid_comes_back_from_every_form(scene, options, way):
    one = type(scene)(**{name: getattr(scene, name)[1:2] for name in core_json.FIELDS})
    given = options(detail=16)
    there = convert(one, way, given)
    again = convert(there, "waves", given)
    # a splat keeps moments, not corners: the box comes back as the ellipsoid that has them
    assert comparison.iou(one, again, given, 64) > (0.7 if way == "splats" else 0.93)
    assert comparison.chamfer(one, again, given) < (0.12 if way == "splats" else 0.03)


def test_splats_are_compared_as_bodies_and_clouds_with_their_own_spacing(scene, options):
    given = options()
    ball = type(scene)(**{name: getattr(scene, name)[:1] for name in core_json.FIELDS})
    splats = convert(ball, "splats", given)
    assert comparison.chamfer(ball, splats, given) < 0.02 and comparison.iou(ball, splats, given, 64) > 0.98
    assert comparison.chamfer(ball, splats, options(splats="surface")) > 0.1, "there one splat is one point"
    cloud = convert(ball, "points", options(samples=200))
    spacing, how = comparison.spread(cloud, given)
    assert "halves" in how and 0.02 < spacing < 0.2
    floor, how = comparison.spread(ball, given)
    assert "samplings" in how and floor < 0.02


def test_a_cloud_of_very_many_points_gives_a_bounded_number_of_splats(scene, options, monkeypatch):
    monkeypatch.setattr(conversion, "MOST_SPLATS", 100)
    given = options(samples=500)
    found = convert(convert(scene, "points", given), "splats", given)
    assert len(found.means) == 100 and any("100 points of" in note for note in given.notes)


def test_another_unit_is_a_change_of_scale(scene, options):
    given = options(detail=4)
    for way in ("waves", "mesh", "points", "splats", "voxels", "distance", "density"):
        large = conversion.scaled(convert(conversion.scaled(scene, 1000.0), way, given), 1e-3)
        assert conversion.length(large) == pytest.approx(conversion.length(convert(scene, way, given)), rel=0.05), (
            way
        )  # a cell of 32
        assert comparison.chamfer(convert(scene, way, given), large, given) < 0.06, way


def test_the_values_of_a_distance_count_and_not_only_their_signs(scene, options):
    """On 12 cells a wave comes back to a small part of a cell; from the signs of the same cells it does not."""
    one = type(scene)(**{name: getattr(scene, name)[1:2] for name in core_json.FIELDS})
    given = options(resolution=12)
    distance = convert(one, "distance", given)
    fine, coarse = (convert(grid, "waves", given) for grid in (distance, convert(distance, "voxels", given)))
    overlap = [comparison.iou(one, found, given, 64) for found in (fine, coarse)]
    assert overlap[0] > 0.97 > overlap[1], overlap
