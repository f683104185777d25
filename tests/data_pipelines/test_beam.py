"""Builds as Beam pipelines: the local runner comes to the bytes of `workers.run`, and a task's error is the build's error."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import beam, wsv
from data_pipelines.ingest.bucket import Bucket
from data_pipelines.ingest.plan import Filters
from data_pipelines.simulation.simulate import simulate
from data_pipelines.workers import WorkerCrash
from launch.command import status
from launch.data.__main__ import main
from tests.data_pipelines.ingest.run_ingest import run_ingest
from wsm_jax.visualise.video import write_video

IN_PROCESS = ("--runner=FnApiRunner",)
"""The local runner; what DirectRunner falls back to where it may fetch no program for itself."""
TWO_PROCESSES = (*IN_PROCESS, "--direct_running_mode=multi_processing", "--direct_num_workers=2")


@pytest.fixture
def installed():
    """Skips the test where Apache Beam is absent."""
    return pytest.importorskip("apache_beam", reason="the extra `beam` is not installed; CONTRIBUTING.md says how")


@pytest.fixture
def importable(monkeypatch):
    """Lets workers that Beam starts find the project, wherever the tests were started."""
    root = str(Path(__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])]))


def content(folder: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def films(tmp_path) -> list[Path]:
    """Three smooth films, and one that is damaged."""
    y, x = np.mgrid[:24, :32]
    paths = [tmp_path / f"{name}.mp4" for name in "abcd"]
    for seed, path in enumerate(paths):
        waves = [np.stack([np.sin(x / 5 + i / 4 + seed), np.cos(y / 7 + i / 9), np.sin(seed + x / 9)], -1) for i in range(30)]
        write_video(path, np.rint(127.5 + 100 * np.asarray(waves)).astype(np.uint8), 24)
    paths[3].write_bytes(paths[3].read_bytes()[:400])
    (tmp_path / "b.srt").write_text("1\n00:00:00,400 --> 00:00:00,750\nin both\n")
    return paths


@pytest.mark.parametrize("options", [IN_PROCESS, TWO_PROCESSES], ids=["in_process", "two_processes"])
def test_an_ingested_dataset_has_the_same_bytes(installed, importable, tmp_path, monkeypatch, films, options):
    monkeypatch.setattr("data_pipelines.ingest.build.SHARD_BYTES", 4 * 16 * 16 * 3)  # a clip a shard
    arguments = {"name": "tiny", "licence": "CC0-1.0", "buckets": [Bucket(16, 16, 8, 0.5)], "filters": Filters(shots=False)}
    for path, more in ((tmp_path / "one" / "set", {}), (tmp_path / "other" / "set", {"runner": beam.runner(options)})):
        report = run_ingest(films, path, **arguments, **more, progress=False)
        assert report.manifest["counts"]["clips"] == 6
        assert [one.name for one in report.rejected if one.start is None] == ["d.mp4"]
    dataset = wsv.Dataset(tmp_path / "other" / "set")
    assert dataset.layout.shards == 6 and [dataset.spans(i) for i in (1, 2, 3)] == [(), ((0.4, 0.5),), ((0.0, 0.25),)]
    assert content(tmp_path / "one") == content(tmp_path / "other")


def test_a_simulated_dataset_has_the_same_bytes(installed, tmp_path, capsys):
    """By the command, with everything that is drawn."""
    arguments = ["simulate", "--scenes=2", "--seed=3", "--seconds=0.5", "--size=16x16", "--clips_per_shard=1", "--noprogress"]
    for folder, more in (("one", ["--workers=2"]), ("other", ["--beam", f"--beam_options={' '.join(IN_PROCESS)}"])):
        assert status(main, [*arguments, f"--out={tmp_path / folder / 'set'}", *more]) == 0, capsys.readouterr().err
    assert wsv.verify(tmp_path / "other" / "set", progress=False) == []
    assert content(tmp_path / "one") == content(tmp_path / "other")


def test_every_item_comes_back_once_and_workers_have_the_environment(installed, tmp_path, monkeypatch):
    run = beam.runner(IN_PROCESS)
    folders = [str(tmp_path / name) for name in "abc"]
    assert sorted(run(os.mkdir, folders, 2)) == [(folder, None) for folder in folders]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]
    assert list(run(os.mkdir, [], 2)) == []
    monkeypatch.delenv("WSM_BEAM_TEST", raising=False)
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    checked = f"import os; assert os.environ['WSM_BEAM_TEST'] == '7' and os.getpid() != {os.getpid()}"
    platform = "import jax; assert jax.config.jax_platforms == 'cpu'"
    assert len(list(run(exec, [checked, platform], 2, {"WSM_BEAM_TEST": "7"}))) == 2
    assert "WSM_BEAM_TEST" not in os.environ


@pytest.mark.parametrize("options", [IN_PROCESS, TWO_PROCESSES], ids=["in_process", "two_processes"])
def test_the_error_of_a_task_ends_the_build(installed, importable, options):
    run = beam.runner(options)
    with pytest.raises(ValueError, match=r"^invalid literal for int\(\) with base 10: 'x'$"):
        list(run(int, ["1", "x", "3"], 2))
    with pytest.raises(FileNotFoundError) as caught:
        list(run(os.stat, ["nowhere/a.mp4"], 2))
    assert (caught.value.errno, caught.value.filename) == (2, "nowhere/a.mp4")
    with pytest.raises(WorkerCrash, match=r"^the process that worked at 3 died$"):
        list(run(os._exit, [3], 2))


def test_a_build_that_a_task_ended_goes_on(installed, tmp_path, monkeypatch):
    """A folder of the dataset turns into a file before its shards are written: the error names it. Mended, all is made."""
    arguments = {"scenes": 2, "seed": 3, "seconds": 0.5, "pixels": False, "clips_per_shard": 1, "progress": False}
    simulate(tmp_path / "one" / "set", workers=1, **arguments)
    path, missing = tmp_path / "other" / "set", wsv.Writer.missing

    def spoiled(self):
        (path / "core").rename(tmp_path / "core")
        (path / "core").write_text("no folder")
        return missing(self)

    with monkeypatch.context() as patch:
        patch.setattr(wsv.Writer, "missing", spoiled)
        with pytest.raises((OSError, ValueError), match=r"set/core.*(?i:directory)"):
            simulate(path, runner=beam.runner(IN_PROCESS), **arguments)
    (path / "core").unlink()
    (tmp_path / "core").rename(path / "core")
    simulate(path, runner=beam.runner(IN_PROCESS), **arguments)
    assert content(tmp_path / "one") == content(tmp_path / "other")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--runner=Fluss", "Unexpected pipeline runner: Fluss"),
        ("--direct_num_workers=many", "does not take --direct_num_workers=many: argument --direct_num_workers: invalid int"),
        ("runner=DataflowRunner", "'runner=DataflowRunner' is no option"),
        ("--runner=FnApiRunner two", "'two' is no option"),
        ("--runner='FnApiRunner", "No closing quotation"),
    ],
)
def test_bad_options_write_nothing(installed, tmp_path, capsys, options, message):
    arguments = ["simulate", "--scenes=1", f"--out={tmp_path}/set", "--nopixels", "--beam", f"--beam_options={options}"]
    assert status(main, arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f"error: --beam_options={options}: ") and message in error
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra_it_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    message = "apache_beam is not installed; pip install 'wsm_jax[beam]' brings it"
    with pytest.raises(ModuleNotFoundError) as caught:
        beam.runner(IN_PROCESS)
    assert str(caught.value) == message
    for verb in (["simulate", "--scenes=1", "--nopixels"], ["ingest", "--licence=x", str(tmp_path)]):
        assert status(main, [*verb, f"--out={tmp_path}/set", "--beam"]) == 2
        assert capsys.readouterr().err.splitlines()[-1] == f"error: --beam: {message}"
    assert list(tmp_path.iterdir()) == []


def test_options_without_beam_are_an_error(tmp_path, capsys):
    assert status(main, ["simulate", "--scenes=1", f"--out={tmp_path}/set", "--beam_options=--runner=FnApiRunner"]) == 2
    assert "needed together with --beam" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a.mp4: 3 frames\nneeded 4 'frames' \\ \"x\""),
        OSError(28, "disk full", "there/set"),
        OSError("there: cannot be written"),
        WorkerCrash("the process died"),
        KeyError("core"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_survives_what_runners_wrap_it_in(error):
    text = beam._packed(error)
    assert text.startswith(f"{type(error).__name__}: {error} ")
    for wrapped in (text, repr(text), f"bundle failed: {text!r} [while running 'task']\nTraceback ...", f"{text}\n{text}"):
        found = beam._unpacked(wrapped)
        assert (type(found), str(found), vars(found)) == (type(error), str(error), vars(error))


def test_an_error_of_another_kind_keeps_its_name_and_message():
    class Odd(Exception):
        pass

    found = beam._unpacked(beam._packed(Odd("strange", object())))
    assert type(found) is RuntimeError and str(found).startswith("Odd: ('strange'")
    found = beam._unpacked(beam._packed(UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")))
    assert type(found) is RuntimeError and "invalid start byte" in str(found)
    assert beam._unpacked("the cluster is gone") is None


def test_what_a_recording_says_cannot_be_run():
    """A message quotes the recording: a forged mark in it is never more than the text of an error, and does not win."""
    forged = beam._packed(ValueError("forged"))
    assert str(beam._unpacked(beam._packed(ValueError(f"a.json: {forged}")))) == f"a.json: {forged}"
    for name in ("exec", "SystemExit", "KeyboardInterrupt", "object"):
        word = beam._packed(type(name, (Exception,), {})("print(1)"))
        assert type(beam._unpacked(word)) is RuntimeError
    for damaged in ("::wsm-error::", "::wsm-error::" * 9999, "::wsm-error::!!::wsm-error::", "::wsm-error::AAAA::wsm-error::"):
        assert beam._unpacked(damaged) is None
