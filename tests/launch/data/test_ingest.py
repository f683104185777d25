"""Recordings become a dataset; what is rejected is counted and listed."""

import numpy as np
import pytest
from PIL import Image

from data_pipelines import workers, wsv


def test_a_recording_has_its_time(run, video, tmp_path, monkeypatch):
    """The limit of the command reaches whoever starts the processes."""
    given = []

    def told(task, items, count, **more):
        given.append(more)
        return [(item, task(item)) for item in items]

    monkeypatch.setattr(workers, "run", told)
    line = (
        "ingest",
        video,
        f"--out={tmp_path / 'out'}",
        "--licence=CC0-1.0",
        "--size=16x24",
        "--clip_seconds=0.5",
        "--noprogress",
    )
    assert run(*line, "--limit_s=7")[0] == 0
    assert given and all(one == {"limit_s": 7.0} for one in given)


def test_clips_have_the_asked_size_rate_and_captions(captioned):
    dataset = wsv.Dataset(captioned)
    assert (dataset.name, len(dataset), dataset.layout.height, dataset.layout.width) == ("set", 3, 16, 24)
    assert dataset.captions(2) == ("noise",)


@pytest.mark.parametrize("names", [("host", "hosts"), ("process_id", "num_processes"), ("process-id", "num-processes")])
def test_hosts_have_the_names_of_jax_too(tmp_path, run, video, names):
    line = ("ingest", video, f"--out={tmp_path}/out", "--license=CC0-1.0", f"--{names[0]}=2", f"--{names[1]}=2")
    code, _, err = run(*line)
    assert code == 2 and "host 2" in err


def test_truncated_video_is_kept_only_on_demand(tmp_path, run, video):
    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[: video.stat().st_size * 3 // 4])
    arguments = [
        "ingest",
        f"--out={tmp_path}/set",
        f"--inputs={tmp_path}/cut.mp4",
        "--licence=CC0-1.0",
        "--clip_seconds=0.5",
        "--noprogress",
    ]
    code, _, err = run(*arguments)
    assert code == 2
    assert "cut.mp4: ends early" in err
    assert not (tmp_path / "set").exists()
    code, out, _ = run(*arguments, "--allow-truncated")
    assert code == 0
    assert "clips" in out
    assert "it ends early: the container promises 36 frames" in out


def test_what_is_left_out_is_counted_and_listed(tmp_path, run, video):
    for name in ("b", "c", "d"):
        (tmp_path / f"{name}.mp4").write_bytes(b"no video" * 9)
    (tmp_path / "e.mp4").write_bytes(video.read_bytes())
    (tmp_path / "masks" / "a").mkdir(parents=True)
    for i in range(36):
        Image.fromarray(np.full((32, 48), i, np.uint8)).save(tmp_path / "masks" / "a" / f"{i}.png")
    arguments = ["ingest", f"--out={tmp_path}/set", "--licence=CC0-1.0", "--size=16x24", "--clip-seconds=0.5", "--noprogress"]
    code, out, err = run(*arguments, f"--masks={tmp_path}/masks", "--max-duplicates=0.5", tmp_path)
    assert (code, err) == (0, "")
    assert out.count("left out: ") == 3
    for name in ("b", "c", "d"):
        assert f"{tmp_path.name}/{name}.mp4: is no video" in out
    assert "left out in all: 3 whole, 0 parts; rejected.jsonl lists them" in out
    assert f"{tmp_path}/set" in out


def test_the_summary_has_a_limit(tmp_path, run, films):
    arguments = ["--license=x", "--size=16x24", "--clip-seconds=0.5", "--noprogress", "--summary_lines=1", films]
    code, out, _ = run("ingest", f"--out={tmp_path}/set", *arguments)
    assert code == 0
    assert "and 1 more recordings: kept 3 clips" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ingest", "--licence=x", "--hue=red", "--out=set"], "Unknown command line flag 'hue'"),
        (["ingest", "--licence=x", "a.mp4"], "needed --out"),
        (["ingest", "--out=set", "a.mp4"], "needed --licence"),
        (["ingest", "--out=set", "--licence=x", "--size=64", "a.mp4"], "--size=64; needed HEIGHTxWIDTH"),
        (["ingest", "--out=set", "--licence=x", "--codec=gif", "a.mp4"], "value should be one of <jpeg|h264|array>"),
        (["ingest", "--out=set", "--licence=x"], "no inputs"),
        (["ingest", "--out=set", "--licence=x", "gone.mp4"], "gone.mp4: no such file"),
        (["ingest", "--out=set", "--licence=x", "--captions=gone.json", "gone.mp4"], "gone.json"),
        (["ingest", "--out=set", "--licence=x", "--captions=bad.json", "gone.mp4"], "bad.json: is no JSON"),
        (["ingest", "--out=set", "--licence=x", "--fps=inf", "gone.mp4"], "inf frames a second"),
        (["ingest", "--out=set", "--licence=x", "--clip-seconds=inf", "gone.mp4"], "clips of inf s"),
    ],
)
def test_bad_command_lines(assert_usage_error, arguments, message):
    assert_usage_error(arguments, message)
