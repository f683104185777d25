"""The command: what it prints and writes, and how it ends on bad input."""

import dataclasses

import numpy as np
import pytest

from launch.command import status
from launch.convert import main
from wsm_jax.snapshot import waves as core_json

FAST = ["--samples=500", "--resolution=12", "--detail=4", "--compare=16"]


@pytest.fixture
def core(tmp_path):
    """Two ticks of one red ball."""
    ball = dataclasses.replace(core_json.empty(1), presence=np.ones(1, np.float32), colour=np.float32([[0.8, 0.1, 0.1]]))
    path = tmp_path / "core.json"
    core_json.save(core_json.stack([ball, ball.replace(centre=np.float32([[1, 0, 0]]))]), path)
    return path


def test_a_core_becomes_a_mesh_and_a_core_again(core, tmp_path, capsys):
    assert status(main, [str(core), str(tmp_path / "a.ply"), "--tick=1", *FAST]) == 0
    out = capsys.readouterr().out
    assert "waves -> mesh: 1 waves -> 98 vertices, 192 faces" in out and "Chamfer-L1" in out and "IoU(16)" in out
    assert status(main, [str(tmp_path / "a.ply"), str(tmp_path / "b.json"), *FAST]) == 0
    out = capsys.readouterr().out
    assert "mesh -> waves" in out and "approximated: waves: 1 waves of 1 objects" in out
    again, _ = core_json.load(tmp_path / "b.json")
    np.testing.assert_allclose(again.centre, [[1, 0, 0]], atol=0.02)
    np.testing.assert_allclose(again.scale, 0.5, atol=0.04)
    np.testing.assert_allclose(again.colour, [[0.8, 0.1, 0.1]], atol=0.003)


def test_bad_input_is_one_message_and_code_2_and_leaves_nothing(core, tmp_path, capsys):
    (tmp_path / "bad.ply").write_bytes(b"ply\nformat ascii 1.0\nelement vertex 9\nproperty float x\nend_header\n")
    cases = (
        ([], "needed two files"),
        ([str(core), str(tmp_path / "a.fbx")], "is not written"),
        ([str(core), str(tmp_path / "no" / "a.ply")], "is not a folder"),
        ([str(core), str(tmp_path / "a.stl"), "--form=splats"], "does not hold splats"),
        ([str(core), str(tmp_path / "a.stl"), "--tick=2"], "tick 2; it has the ticks 0..1"),
        ([str(core), str(tmp_path / "a.stl"), "--detail=3"], "detail=3; needed an even number"),
        ([str(core), str(tmp_path / "a.ply"), "--unit=0"], "unit"),
        ([str(core), str(core)], "core.json: is both IN and OUT"),
        (
            [str(core), str(tmp_path / "a.ply"), "--spacing=0.1"],
            "--spacing=0.1 for core.json; only a bare grid",
        ),
        ([str(tmp_path / "bad.ply"), str(tmp_path / "a.json"), "--tick=0"], "--tick=0 for bad.ply; only a core"),
        ([str(core), str(tmp_path / "a.ply"), "--samples=1"], "samples=1; needed"),
        ([str(tmp_path / "bad.ply"), str(tmp_path / "a.json")], "bad.ply: the header promises 9 rows"),
        ([str(tmp_path / "none.glb"), str(tmp_path / "a.json")], "none.glb: no such mesh file"),
    )
    for arguments, message in cases:
        assert status(main, arguments) == 2
        assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.ply", "core.json"]


def test_without_the_extra_it_says_what_to_install(core, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "trimesh", None)
    assert status(main, [str(core), str(tmp_path / "a.glb"), *FAST]) == 2
    assert "pip install 'wsm_jax[convert]'" in capsys.readouterr().err
    assert not (tmp_path / "a.glb").exists()


def test_a_file_in_millimetres_is_doubted_and_read_with_its_unit(core, tmp_path, capsys):
    assert status(main, [str(core), str(tmp_path / "mm.ply"), "--unit=1000", *FAST]) == 0
    capsys.readouterr()
    assert status(main, [str(tmp_path / "mm.ply"), str(tmp_path / "a.json"), *FAST]) == 0
    assert "is it in mm? --unit=0.001" in capsys.readouterr().out
    assert status(main, [str(tmp_path / "mm.ply"), str(tmp_path / "b.json"), "--unit=0.001", *FAST]) == 0
    assert "is it in mm?" not in capsys.readouterr().out
    np.testing.assert_allclose(core_json.load(tmp_path / "b.json")[0].scale, 0.5, atol=0.04)


def test_a_file_beside_the_output_is_left_alone(core, tmp_path):
    mine = tmp_path / "a.part.ply"
    mine.write_text("mine")
    assert status(main, [str(core), str(tmp_path / "a.ply"), *FAST]) == 0
    assert mine.read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.part.ply", "a.ply", "core.json"]
