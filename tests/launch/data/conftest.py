"""The data command, and recordings and datasets to run it on."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import wsv
from launch.command import status
from launch.data.__main__ import main
from wsm_jax.snapshot import CHANNELS, STORED, WSV, Camera, Waves, restore
from wsm_jax.snapshot.waves import empty
from wsm_jax.visualise.video import write_video

Run = Callable[..., tuple[int, str, str]]
"""Arguments of launch.data -> exit code, standard output, standard error."""


@pytest.fixture
def run(capsys) -> Run:
    def call(*arguments: object) -> tuple[int, str, str]:
        code = status(main, [str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def assert_usage_error(tmp_path, run, monkeypatch) -> Callable[[list[str], str], None]:
    """A check that arguments end with code 2 and one message that contains a text, and that nothing is written."""

    def check(arguments: list[str], message: str) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "newer").mkdir()
        (tmp_path / "newer" / "manifest.json").write_text('{"format": "wsm_wsv", "schema_version": 3}')
        (tmp_path / "bad.json").write_text("{")
        code, out, err = run(*arguments)
        assert (code, out) == (2, "")
        assert err.splitlines()[-1].startswith("error: ")
        assert message in err
        assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.json", "newer"]

    return check


@pytest.fixture
def video(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (36, 4, 6, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    write_video(tmp_path / "a.mp4", pictures, 24)
    return tmp_path / "a.mp4"


@pytest.fixture
def everything(tmp_path):
    """A dataset of two clips with every channel, a camera, a core and captions."""
    rng = np.random.default_rng(0)
    frames, ticks, waves, size = 4, 5, 2, (12, 16)
    channels = STORED
    layout = wsv.Layout(2, frames, *size, 8, ticks, waves, channels, "array", 1, frames, True, True)
    writer = wsv.create(
        tmp_path / "all", layout, name="all", sources=[{"name": "noise", "licence": "CC0-1.0"}], build={"seed": 0}
    )
    core = Waves(**{**vars(empty(waves, (ticks,)))})
    camera = Camera(
        rng.normal(size=(frames, 3)).astype(np.float32),
        np.tile(np.float32([1, 0, 0, 0]), (frames, 1)),
        np.ones(frames, np.float32),
        np.zeros((frames, 2), np.float32),
    )
    for clip in range(2):
        stored = {
            name: rng.integers(0, 5, (frames, *size, CHANNELS[name].components)).astype(CHANNELS[name].dtype)
            for name in channels
        }
        physical = {name: np.asarray(restore(name, values)) for name, values in stored.items()}
        text, events = ("a red ball rests",), ({"kind": "rest", "time": 0.0, "instances": [1]},)
        writer.write(clip, [WSV(physical, np.arange(frames) / 8, camera, core, np.arange(ticks) / 8, text, events)])
    writer.finish()
    return tmp_path / "all"


@pytest.fixture
def captioned(tmp_path, run, video) -> Path:
    """An ingested dataset of three clips with captions."""
    (tmp_path / "captions.json").write_text(json.dumps({"a.mp4": ["noise"]}))
    arguments = [
        f"--out={tmp_path}/set",
        f"--inputs={video}",
        "--licence=CC0-1.0",
        "--size=16x24",
        "--fps=8",
        "--clip-seconds=0.5",
    ]
    code, out, err = run("ingest", *arguments, f"--captions={tmp_path}/captions.json", "--noprogress")
    assert (code, err) == (0, "")
    assert "a.mp4: kept 3 clips, 1.500 of 1.500 s" in out
    return tmp_path / "set"


@pytest.fixture
def films(tmp_path):
    """Two films with captions, and what is none."""
    (tmp_path / "films").mkdir()
    for seed, name in enumerate(("a", "b")):
        pictures = np.random.default_rng(seed).integers(0, 256, (36, 4, 6, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
        write_video(tmp_path / "films" / f"{name}.mp4", pictures, 24)
    (tmp_path / "films" / "b.txt").write_text("film b")
    (tmp_path / "films" / "c.mp4").write_text("no video")
    return tmp_path / "films"


def ingest(tmp_path: Path, run: Run, films: Path, captions: str) -> Path:
    """Their dataset, two clips a shard: the second shard holds clips of both."""
    arguments = ["--licence=x", "--size=16x24", "--clip-seconds=0.5", "--noshots", "--workers=1", "--noprogress"]
    (tmp_path / "captions.json").write_text(captions)
    path = tmp_path / "set"
    code, out, _ = run("ingest", f"--out={path}", f"--captions={tmp_path}/captions.json", *arguments, films)
    assert code == 0 and "6 clips" in out
    return path


@pytest.fixture
def ingested(tmp_path, run, films, monkeypatch):
    """With captions of whole films."""
    monkeypatch.setattr("data_pipelines.ingest.build.SHARD_BYTES", 2 * 4 * 16 * 24 * 3)
    return ingest(tmp_path, run, films, '{"a.mp4": ["film a"]}')


@pytest.fixture
def spoken(tmp_path, run, films, monkeypatch):
    """With captions that have times beside those of whole films."""
    monkeypatch.setattr("data_pipelines.ingest.build.SHARD_BYTES", 2 * 4 * 16 * 24 * 3)
    (films / "b.srt").write_text("1\n00:00:00,000 --> 00:00:00,625\nearly in b\n")
    path = ingest(tmp_path, run, films, '{"a.mp4": ["film a", {"text": "late in a", "start": 0.75, "end": 1.25}]}')
    dataset = wsv.Dataset(path)
    early, late = ("film b", "early in b"), ("film a", "late in a")
    assert [dataset.captions(i) for i in range(6)] == [("film a",), late, late, early, early, ("film b",)]
    assert [dataset.spans(i)[1:] for i in range(6)] == [(), ((0.25, 0.5),), ((0.0, 0.25),), ((0.0, 0.5),), ((0.0, 0.125),), ()]
    return path
