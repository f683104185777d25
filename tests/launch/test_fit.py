"""Real recordings, shrunk, through the command; bad input ends with one message and code 2."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from launch.command import status
from launch.fit import main
from wsm_jax.core.render import surface
from wsm_jax.snapshot import look_at, quaternion_to_matrix
from wsm_jax.snapshot import waves as core_json
from wsm_jax.snapshot.waves import empty

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
    errors = [float(part.split(" mm (median)")[0]) for part in text.split("depth error ")[1:]]
    assert len(errors) == 2 and max(errors) < 30, text
    with Image.open(tmp_path / "room.png") as picture:
        assert picture.size == (3 * 80, 2 * 60)


def recorded(folder: Path, masks: bool) -> None:
    """Two frames of two boxes that touch, the second from a little further on."""
    boxes = empty(2).replace(
        presence=np.ones(2, np.float32),
        centre=np.float32([[-0.15, 0, 0], [0.15, 0, 0.1]]),
        scale=np.float32([[0.15, 0.15, 0.15], [0.15, 0.15, 0.25]]),
        exponents=np.full((2, 2), 0.1, np.float32),
    )
    for name in ("color", "depth", *(["mask"] if masks else [])):
        (folder / name).mkdir(parents=True)
    log = ""
    for k, x in enumerate((0.3, 0.4)):
        camera = look_at(np.float32([x, -1.1, 0.7]), np.zeros(3, np.float32))
        seen = surface(boxes, camera, 48, 64, channels=["depth", "instance"])
        Image.fromarray(np.full((48, 64, 3), 128, np.uint8)).save(folder / "color" / f"{k}.png")
        Image.fromarray(np.rint(1e3 * np.asarray(seen["depth"])[..., 0]).astype(np.uint16)).save(folder / "depth" / f"{k}.png")
        if masks:
            Image.fromarray(np.asarray(seen["instance"])[..., 0].astype(np.uint8)).save(folder / "mask" / f"{k}.png")
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = quaternion_to_matrix(camera.rotation), camera.position
        log += f"{k} {k} {k + 1}\n" + "\n".join(" ".join(map(str, row)) for row in pose) + "\n"
    (folder / "trajectory.log").write_text(log)


def test_masks_part_what_touches(tmp_path, capsys):
    focal = 48 * float(look_at(np.zeros(3, np.float32), np.ones(3, np.float32)).focal)
    flags = [f"--intrinsics={focal},{focal},31.5,23.5", "--shrink=1", "--plane_extent=0", "--waves_per_object=1", "--noenter"]
    for masks in (True, False):
        recorded(tmp_path / str(masks), masks)
        out = tmp_path / f"{masks}.json"
        assert status(main, [str(tmp_path / str(masks)), str(out), *flags]) == 0, capsys.readouterr().err
        core, _ = core_json.load(out)
        assert sorted(set(np.asarray(core.instance)[0].tolist())) == ([1, 2] if masks else [1])
        if masks:
            order = np.argsort(np.asarray(core.centre)[0, :, 0])
            np.testing.assert_allclose(np.asarray(core.centre)[1, order, 0], [-0.15, 0.15], atol=0.05)


def test_bad_input_is_one_message_and_code_2_and_leaves_nothing(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.npz").write_bytes(b"nothing")
    cases = (
        ([], "needed IN and OUT.json"),
        ([str(tmp_path / "empty"), str(tmp_path / "a.png")], "ends in .json"),
        ([str(tmp_path / "empty"), str(tmp_path / "no" / "a.json")], "is not a folder"),
        ([str(tmp_path / "empty"), str(tmp_path / "a.json")], "needed the folders depth"),
        ([str(tmp_path / "none.npz"), str(tmp_path / "a.json")], "no such array file"),
        ([str(tmp_path / "bad.npz"), str(tmp_path / "a.json")], "cannot be read"),
        ([str(tmp_path / "empty"), str(tmp_path / "a.json"), "--intrinsics=1,2"], "needed four numbers"),
    )
    for arguments, message in cases:
        assert status(main, arguments) == 2
        assert message in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.npz", "empty"]
