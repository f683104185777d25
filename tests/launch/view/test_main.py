"""The command of the viewer: how it ends on bad input."""

import socket

import numpy as np
import pytest

from launch.command import status
from launch.view import __main__ as view
from wsm_jax.snapshot import waves as core_json


def test_bad_input_is_one_message_and_code_2(path, dataset, core, tmp_path, capsys):
    pytest.importorskip("viser", reason="the extra `view` is not installed")
    (tmp_path / "text.json").write_text("{}")
    core_json.save(core.replace(exponents=core.exponents + 3), tmp_path / "sharp.json", np.arange(3) / 8)
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        cases = (
            ([], "needed one core, dataset or scene"),
            ([str(path), str(path)], "needed one core"),
            ([str(tmp_path / "none.json")], "none.json: no such file or dataset"),
            ([str(tmp_path / "text.json")], 'text.json: no "format": "wsm_core"'),
            ([str(tmp_path / "sharp.json")], "sharp.json: exponents 3.1"),
            ([str(path), "--clip=0"], "needed the folder of a WSV dataset"),
            ([str(dataset), "--clip=2"], "has the clips 0..1"),
            ([str(path), "--out=a.obj"], "ends in .json"),
            ([str(path), f"--port={port}"], "needed an address of this machine and a free port"),
            ([str(path), "--port=70000"], "port"),
            ([str(path), "--play_fps=0"], "play_fps"),
        )
        for arguments, message in cases:
            assert status(view.main, arguments) == 2
            assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.edited.json"))


def test_without_the_extra_it_says_what_to_install(path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "viser", None)
    assert status(view.main, [str(path)]) == 2
    assert "pip install 'wsm_jax[view]'" in capsys.readouterr().err
