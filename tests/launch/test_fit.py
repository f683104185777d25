"""Real recordings, shrunk, through the command; bad input ends with one message and code 2."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch.command import status
from launch.fit import main
from wsm_jax.snapshot import waves as core_json

DATA = Path(__file__).parents[3] / "shared" / "data"


def found(name: str) -> Path:
    """A real recording."""
    if not (DATA / name).exists():
        pytest.skip(f"no shared/data/{name} beside the project: real recordings are not part of it")
    return DATA / name


def test_a_real_room_becomes_waves_near_the_sensor_s_depth(tmp_path, capsys):
    source, out = found("rgbd"), tmp_path / "room.json"
    assert (
        status(main, [str(source), str(out), "--frames=2", "--shrink=8", "--points=2500", "--waves=12", "--waves_per_object=1"])
        == 0
    )
    text = capsys.readouterr().out
    core, time = core_json.load(out)
    np.testing.assert_allclose(time, [0, 0.125])
    assert np.shape(core.presence)[0] == 2 and np.asarray(core.presence)[0].sum() >= 4
    assert (np.asarray(core.instance)[0] == 0).sum() >= 2, "walls and floor are scenery"
    errors = [float(part.split(" mm (median)")[0]) for part in text.split("depth off by ")[1:]]
    assert len(errors) == 2 and max(errors) < 30, text
    with Image.open(tmp_path / "room.png") as picture:
        assert picture.size == (3 * 80, 2 * 60)


def test_bad_input_is_one_message_and_code_2_and_leaves_nothing(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    cases = (
        ([], "needed IN and OUT.json"),
        ([str(tmp_path / "empty"), str(tmp_path / "a.png")], "ends in .json"),
        ([str(tmp_path / "empty"), str(tmp_path / "no" / "a.json")], "is no folder"),
        ([str(tmp_path / "empty"), str(tmp_path / "a.json")], "needed the folders depth"),
        ([str(tmp_path / "none.npz"), str(tmp_path / "a.json")], "no such file"),
        ([str(tmp_path / "bad.npz"), str(tmp_path / "a.json")], "cannot be read"),
        ([str(tmp_path / "empty"), str(tmp_path / "a.json"), "--intrinsics=1,2"], "needed four numbers"),
    )
    for arguments, message in cases:
        assert status(main, arguments) == 2
        assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.npz", "empty"]
