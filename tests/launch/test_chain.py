"""The two chains of the project, shrunk: the quickstart from nothing to its report, and real video beside simulated."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from data_pipelines import wsv
from data_pipelines.wsv.collection import datasets
from data_pipelines.wsv.folder import Folder
from launch import convert, evaluate, fit, quickstart, sample, train
from launch.bench import __main__ as bench
from launch.command import status
from launch.data import __main__ as data
from launch.view import __main__ as view
from tests.conftest import BRIDGE, TINY, WORLD
from tests.core.physics.worlds import ball, box, world
from wsm_jax.evaluation.judge import TARGETS
from wsm_jax.runtime import checkpoint
from wsm_jax.snapshot import WSV, orbit
from wsm_jax.snapshot import waves as core_json
from wsm_jax.snapshot.waves import empty, stack
from wsm_jax.visualise.video import write_video

ROOT = Path(__file__).parents[2]
PART = {"scenes": 4, "height": 16, "width": 16, "frame_hz": 4.0, "seconds": 1.0}
DATASETS = {f"datasets.{part}.{key}": value for part in ("train", "cores", "test") for key, value in PART.items()}
HELD_OUT = {f"{WORLD}.evaluators.validation.data.ticks": 8, f"{WORLD}.evaluators.validation.rows": 8}
HELD_OUT |= {f"{BRIDGE}.evaluators.validation.{key}": value for key, value in (
    ("data.height", 16), ("data.width", 16), ("data.frame_hz", 4.0), ("rows", 8),
)}  # fmt: skip
STAGES = {key: value for key, value in TINY.items() if not key.endswith(".evaluators")}
STAGES |= {f"{WORLD}.objective.model.layout.text.length": 44, f"{BRIDGE}.data.frame_hz": 4.0}
REPORT = {"evaluators.world.clips": 3, "evaluators.world.video_size": 16}
REPORT |= {f"{stage}.evaluators.videos.size": 16 for stage in (BRIDGE, WORLD)}
SETTINGS = DATASETS | HELD_OUT | STAGES | REPORT
ALONE = STAGES | {f"{BRIDGE}.evaluators": {}, f"{BRIDGE}.encode": ()}
"""For the bridge alone, without held-out scenes."""


def flags(settings):
    return [f"--config.{key}={value!r}" for key, value in settings.items()]


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
    assert status(evaluate.main, [f"--workdir={workdir}", "--noprogress", "--set=evaluators.world.clips=2"]) == 0
    assert status(train.main, [f"--config={ROOT / 'experiments/quickstart.py'}", f"--workdir={workdir}", *flags(SETTINGS)]) == 0
    assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob("manifest.json")}
    assert steps == (workdir / "bridge" / "metrics.jsonl").read_text()


@pytest.fixture
def here(workdir, tmp_path, monkeypatch):
    """A current folder in which runs/quickstart is the tiny world; `--size` and other numbers come from the README."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(workdir)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readme_s_commands_run(here, capsys):
    """As they stand there, but for sizes; what has no end or takes a recording is run by tests of its own."""
    trimesh = pytest.importorskip("trimesh", reason="the extra `convert` is not installed")
    trimesh.creation.icosphere(2).export("thing.glb")
    (here / "recordings" / "stills").mkdir(parents=True)
    write_video(here / "recordings" / "a.mp4", np.random.default_rng(0).integers(0, 255, (60, 36, 64, 3), np.uint8), 24)
    for number in range(12):
        Image.fromarray(np.full((36, 64, 3), 9 * number, np.uint8)).save(here / "recordings" / "stills" / f"{number}.png")
    tiny = {key: value for key, value in SETTINGS.items() if key not in DATASETS}
    smaller = {
        "launch.data": (data.main, []),
        "launch.train": (train.main, [*flags(tiny), "--noprogress"]),
        "launch.sample": (sample.main, ["--size=32x32"]),
        "launch.convert": (convert.main, ["--samples=500", "--compare=0", "--waves_per_object=1"]),
        "launch.view": (view.main, ["--help"]),
        "launch.fit": (fit.main, ["--help"]),
        "launch.bench": (bench.main, ["--nocompare", "--scenes=2", "--batch=2", "--seconds=0.25"]),
    }
    verbs = {
        "simulate": ["--scenes=4", "--size=16x16", "--seconds=1", "--noprogress"],
        "ingest": ["--noprogress", "--workers=1", "--noshots"],
        "verify": ["--noprogress"],
    }
    lines = re.findall(r"^python -m (.+)$", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {line.split()[0] for line in lines} == set(smaller)
    for line in lines:
        module, *arguments = shlex.split(line, comments=True)
        main, more = smaller[module]
        more = [*more, *(verbs.get(arguments[0], []) if module == "launch.data" else [])]
        assert status(main, [*arguments, *more]) == 0, f"{line}: {capsys.readouterr().err}"
    made = {"core.json", "world.mp4", "seen.json", "channels.mp4", "thing.json", "core.usda", "real.html"}
    assert made <= {path.name for path in here.iterdir()}


def test_the_readme_s_python_runs(here, capsys):
    """As it stands there, but for the number and the size of the pictures; core.json holds something to push."""
    core_json.save(stack([world(ball((0, 0, 0.2)), box((1, 0, 0.3), 0.3))] * 2), "core.json", np.float32([0, 0.125]))
    code = "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL))
    for large, small in (("orbit(96)", "orbit(12)"), ("(256, 256)", "(16, 16)")):
        assert code.count(large) == 1
        code = code.replace(large, small)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.endswith("\n")


def test_data_of_other_arguments_is_never_used_in_silence(workdir, capsys):
    arguments = [f"--workdir={workdir}", "--workers=1", *flags(SETTINGS | {"datasets.test.seed": 9})]
    assert status(quickstart.main, arguments) == 2
    assert "data/test: a finished dataset is here" in capsys.readouterr().err


def test_a_world_needs_the_bridge_of_its_config(workdir, capsys):
    other = flags(SETTINGS | {f"{BRIDGE}.objective.style.width": 16})
    code = status(
        train.main, [f"--config={ROOT / 'experiments/quickstart.py'}", f"--workdir={workdir}", "--stages=world", *other]
    )
    assert code == 2
    assert "stages.bridge.objective.style.width: there 8, here 16" in capsys.readouterr().err


def test_a_workdir_of_another_experiment_is_refused(workdir, capsys):
    other = SETTINGS | {f"{BRIDGE}.objective.bridge.width": 32}
    code = status(train.main, [f"--config={ROOT / 'experiments/quickstart.py'}", f"--workdir={workdir}", *flags(other)])
    assert code == 2
    assert "objective.bridge.width: there 16, here 32" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set=stages.bridge.stpes=3"], "nearest is 'steps'"),
        (["--config.stages.bridge.stpes=3"], "nearest is 'steps'"),
        (["--config.stages.bridge.steps", "ten"], "needed int"),
        (["--config.mesh.data=8"], "12 rows do not divide over data=8"),
        (["--set=stages.bridge.steps"], "KEY=VALUE"),
        (["--stages=bridge,wrold"], "wrold"),
        (["--config.stages.bridge.data.sources=(('data/gone',1.0),)", "--config.stages.bridge.batch_size=16"], "data/gone"),
        (["--config.stages.bridge.objective.bridge.rows=0"], "rows = 0: needed at least 1"),
        (["--config.stages.world.objective.model.layout.tick_patch=0"], "tick_patch = 0: needed at least 1"),
        (["--config.stages.bridge.data.sources=(1.0,)"], "stages.bridge.data.sources"),
        (["--config.stages.bridge.optimizer.peak=1e999"], "peak"),
        (["stages.bridge.steps=3"], "needed only flags"),
    ],
)
def test_bad_trainings_are_refused_before_anything_is_written(workdir, tmp_path, capsys, arguments, words):
    new = tmp_path / "new"
    code = status(train.main, [f"--config={ROOT / 'experiments/quickstart.py'}", f"--workdir={new}", *arguments])
    assert code == 2
    assert words in capsys.readouterr().err
    assert not new.exists() or not any(path.name != "jax_cache" for path in new.iterdir())


def test_a_training_killed_at_a_random_step_goes_on_as_if_nothing_had_been(workdir, tmp_path):
    """The real thing, loader, objective and checkpoints: SIGKILL, the same command again, and every bit is the same."""
    tiny = ALONE | {f"{BRIDGE}.data.sources": ((str(workdir / "data" / "train"), 1.0),), f"{BRIDGE}.steps": 12}
    tiny |= {f"{BRIDGE}.checkpoint_every": 2, f"{BRIDGE}.log_every": 1}
    command = [sys.executable, "-m", "launch.train", "--config=experiments/quickstart.py", "--stages=bridge", "--noprogress"]

    def start(name):
        return subprocess.Popen([*command, f"--workdir={tmp_path / name}", *flags(tiny)], cwd=ROOT)

    def losses(name):
        rows = map(json.loads, (tmp_path / name / "bridge" / "metrics.jsonl").read_text().splitlines())
        return {row["step"]: row["values"]["loss"] for row in rows}

    assert start("whole").wait() == 0
    at = int(np.random.default_rng().integers(1, 7))
    killed, file = start("killed"), tmp_path / "killed" / "bridge" / "metrics.jsonl"
    while killed.poll() is None and not (file.exists() and len(file.read_text().splitlines()) >= at):
        time.sleep(0.005)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL, f"it was done before it was killed after step {at}"
    assert start("killed").wait() == 0
    assert losses("killed") == losses("whole") and len(losses("whole")) == 12, f"killed after step {at}"
    params = [checkpoint.restore_params(tmp_path / name / "bridge")[0] for name in ("killed", "whole")]
    jax.tree.map(np.testing.assert_array_equal, *params)


@pytest.mark.parametrize("lacking", ["captions", "core"])
def test_a_dataset_without_the_truth_is_no_test_set(workdir, tmp_path, capsys, lacking):
    clip = WSV({"rgb": np.zeros((3, 16, 16, 3))}, np.arange(3) / 4, orbit(3), empty(6, (3,)), np.arange(3) / 8, ("a box .",))
    captions, ticks = lacking != "captions", 0 if lacking == "core" else 3
    layout = wsv.Layout(2, 3, 16, 16, 4.0, ticks, 6, ("rgb",), "array", 2, 3, True, captions)
    part = clip.replace(core=clip.core if ticks else None, core_time=clip.core_time if ticks else None)
    part = part.replace(text=part.text if captions else ())
    writer = wsv.create(tmp_path / "set", layout, name="set", sources=[{"name": "x", "licence": "CC0-1.0"}], build={})
    writer.write(0, [part, part])
    writer.finish()
    assert status(evaluate.main, [f"--workdir={workdir}", f"--data={tmp_path}/set", "--noprogress"]) == 2
    assert f"without {'captions' if captions is False else 'a core'}; needed" in capsys.readouterr().err


def test_a_full_disk_stops_a_training_with_one_message(workdir, tmp_path, capsys, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    settings = flags(ALONE)
    data_of_other = f"--config.{BRIDGE}.data.sources=(({str(workdir / 'data' / 'train')!r},1.0),)"
    command = [f"--config={ROOT / 'experiments/quickstart.py'}", f"--workdir={tmp_path}/new", "--stages=bridge", data_of_other]
    assert status(train.main, [*command, *settings]) == 2
    assert re.search(r"the disk has 0\.0 MiB left, a checkpoint needs \d+\.\d MiB; free some space", capsys.readouterr().err)
    assert not list((tmp_path / "new" / "bridge" / "checkpoints").iterdir())


def test_real_video_beside_simulated(workdir, real_data, tmp_path, capsys):
    """Ingest recordings of every kind, train the mix a little, perceive a video: channels beside the frames come out."""
    folder = tmp_path / "mixed"
    video = real_data / "video" / "blocks.mp4"
    inputs = [str(video), *(str(real_data / name) for name in ("rgbd", "posed_photos", "robot"))]
    assert status(data.main, ["ingest", f"--out={folder}/data/real", "--licence=mixed", "--size=16x16", "--fps=4",
                              "--clip-seconds=1", "--folder-fps=5", "--workers=1", "--noprogress", *inputs]) == 0  # fmt: skip
    assert len(datasets(Folder(folder / "data" / "real"))) == 4
    settings = {key: value for key, value in STAGES.items() if not key.startswith(WORLD)}
    settings[f"{BRIDGE}.data.sources"] = ((str(workdir / "data" / "train"), 2.0), ("data/real", 1.0))
    command = [f"--config={ROOT / 'experiments/mixed.py'}", f"--workdir={folder}", "--noprogress"]
    assert status(train.main, command + flags(settings)) == 0
    rows = [json.loads(line) for line in (folder / "bridge" / "metrics.jsonl").read_text().splitlines()]
    assert all(np.isfinite(row["values"]["loss"]) for row in rows)
    out = [f"--workdir={folder}", f"--video={video}", f"--out={folder}/core.json", f"--channels={folder}/channels.mp4"]
    assert status(sample.main, ["perceive", *out]) == 0, capsys.readouterr().err
    assert (folder / "channels.mp4").stat().st_size > 1000
    assert json.loads((folder / "core.json").read_text())["format"] == "wsm_core"
