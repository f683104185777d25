"""The two chains of the project, shrunk: the quickstart from nothing to its report, and real video beside simulated."""

import json
from pathlib import Path

import numpy as np
import pytest

from launch import data, evaluate, quickstart, sample, train
from launch.command import status
from tests.conftest import TINY
from wsm_jax.evaluation.judge import TARGETS

ROOT = Path(__file__).parents[2]
PART = {"scenes": 4, "height": 16, "width": 16, "frame_hz": 4.0, "seconds": 1.0}
SETTINGS = TINY | {f"simulate.{part}.{key}": value for part in ("train", "cores", "test") for key, value in PART.items()}
SETTINGS |= {
    "world.text_length": 44,
    "bridge.frame_hz": 4.0,
    "bridge.layout.waves": 6,
    "evaluate.clips": 3,
    "evaluate.video_size": 16,
}


def flags(settings):
    return [f"--set={key}={value!r}" for key, value in settings.items()]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("chain") / "quickstart"
    quickstart.main([f"--workdir={folder}", "--workers=1", *flags(SETTINGS)])
    return folder


def test_quickstart_writes_its_report(workdir):
    report = json.loads((workdir / "report.json").read_text())
    for name in TARGETS:
        assert np.isfinite(report[f"{name}_baseline"]), name
        # Two steps of training may find no wave at all, and an error of nothing is null.
        assert isinstance(report[name], float) or (name == "perceive_centre_error" and report[name] is None), name
    assert {"n", "wall_seconds", "peak_rss_gib", "commit"} <= set(report)
    assert report["n"] == 3 and report["wall_seconds"] > 0 and 0.1 < report["peak_rss_gib"] < 24
    assert report["revisit_psnr_db"] > 60, "a camera that comes back sees the same, even in an untrained world"
    page = (workdir / "report.html").read_text()
    assert page.count("data:video/mp4;base64,") >= 4 and "<svg" in page


def test_quickstart_goes_on_where_it_was(workdir):
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("manifest.json")}
    steps = (workdir / "bridge" / "metrics.jsonl").read_text()
    assert status(evaluate.main, [f"--workdir={workdir}", "--noprogress", "--set=evaluate.clips=2"]) == 0
    assert status(train.main, [f"--config={ROOT / 'experiments/quickstart.py'}", f"--workdir={workdir}", *flags(SETTINGS)]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob("manifest.json")}
    assert steps == (workdir / "bridge" / "metrics.jsonl").read_text()


def test_a_workdir_of_another_experiment_is_refused(workdir, capsys):
    other = SETTINGS | {"bridge.network.width": 32}
    code = status(train.main, [f"--config={ROOT / 'experiments/quickstart.py'}", f"--workdir={workdir}", *flags(other)])
    assert code == 2
    assert "bridge.network.width" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set=bridge.run.stpes=3"], "nearest is 'steps'"),
        (["--set=mesh.data=3"], "data x fsdp"),
        (["--set=bridge.run"], "KEY=VALUE"),
        (["--stages=bridge,wrold"], "wrold"),
        (["--set=bridge.sources=(('data/gone',1.0),)"], "data/gone"),
    ],
)
def test_bad_trainings_are_refused_before_anything_is_written(workdir, tmp_path, capsys, arguments, words):
    new = tmp_path / "new"
    code = status(train.main, [f"--config={ROOT / 'experiments/quickstart.py'}", f"--workdir={new}", *arguments])
    assert code == 2
    assert words in capsys.readouterr().err
    assert not new.exists() or not any(path.name != "jax_cache" for path in new.iterdir())


def test_real_video_beside_simulated(workdir, real_data, tmp_path, capsys):
    """Ingest real videos, train the mix a little, perceive one: channels beside the frames come out as a video."""
    folder = tmp_path / "mixed"
    video = real_data / "video" / "blocks.mp4"
    assert status(data.main, ["ingest", f"--out={folder}/data/real", "--licence=Apache-2.0", "--size=16x16", "--fps=4",
                              "--clip-seconds=1", "--noprogress", str(video)]) == 0  # fmt: skip
    settings = {key: value for key, value in SETTINGS.items() if not key.startswith("simulate")}
    settings["bridge.sources"] = ((str(workdir / "data" / "train"), 2.0), ("data/real", 1.0))
    command = [f"--config={ROOT / 'experiments/mixed.py'}", f"--workdir={folder}", "--stages=bridge", "--noprogress"]
    assert status(train.main, command + flags(settings)) == 0
    rows = [json.loads(line) for line in (folder / "bridge" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(row["values"]["loss"]) for row in rows)
    out = [f"--workdir={folder}", f"--video={video}", f"--out={folder}/core.json", f"--channels={folder}/channels.mp4"]
    assert status(sample.main, ["perceive", *out]) == 0, capsys.readouterr().err
    assert (folder / "channels.mp4").stat().st_size > 1000
    assert json.loads((folder / "core.json").read_text())["format"] == "wsm_core"
