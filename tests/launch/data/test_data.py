"""The data command: its verbs build, show and check datasets, and say what is wrong with what they are given."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines import workers, wsv
from launch.command import status
from launch.data.__main__ import main
from launch.data.contact_sheet import captions
from wsm_jax.snapshot import CHANNELS, STORED, WSV, Camera, Waves, restore
from wsm_jax.snapshot.waves import empty
from wsm_jax.visualise.video import write_video


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = status(main, [str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


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


def test_a_recording_has_its_time(capsys, video, tmp_path, monkeypatch):
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
    assert run(capsys, *line, "--limit_s=7")[0] == 0
    assert given and all(one == {"limit_s": 7.0} for one in given)


def test_ingest_inspect_verify(tmp_path, capsys, video):
    (tmp_path / "captions.json").write_text(json.dumps({"a.mp4": ["noise"]}))
    arguments = [
        f"--out={tmp_path}/set",
        f"--inputs={video}",
        "--licence=CC0-1.0",
        "--size=16x24",
        "--fps=8",
        "--clip-seconds=0.5",
    ]
    code, out, err = run(capsys, "ingest", *arguments, f"--captions={tmp_path}/captions.json", "--noprogress")
    assert (code, err) == (0, "")
    assert "a.mp4: kept 3 clips, 1.500 of 1.500 s" in out
    dataset = wsv.Dataset(tmp_path / "set")
    assert (dataset.name, len(dataset), dataset.layout.height, dataset.layout.width) == ("set", 3, 16, 24)
    assert dataset.captions(2) == ("noise",)

    code, out, err = run(capsys, "inspect", tmp_path / "set")
    assert (code, err) == (0, "")
    for text in ("3 of 0.5 s", "4 a clip at 8 Hz, 16 x 24 pixels", "rgb", "jpeg", "CC0-1.0", "a.mp4", "3 captions"):
        assert text in out

    code, out, err = run(capsys, "verify", tmp_path / "set", "--noprogress")
    assert (code, out, err) == (0, f"{tmp_path}/set: sound\n", "")
    damaged = next((tmp_path / "set" / "channels" / "rgb_jpeg" / "bytes").iterdir())
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    (tmp_path / "set" / "stray.txt").write_text("x")
    code, out, err = run(capsys, "verify", f"--data={tmp_path}/set", "--noprogress")
    assert (code, err) == (1, "")
    assert len(out.splitlines()) == 2
    assert str(damaged) in out
    assert "stray.txt" in out


def test_inspect_shows_all_channels(tmp_path, capsys, everything):
    code, out, err = run(capsys, "inspect", everything, f"--out={tmp_path}/page.png", "--clips=2", "--frames=3")
    assert (code, err) == (0, "")
    for name in STORED:
        assert f"\n{name} " in out
    assert "\npresence " in out
    raw = 2 * 4 * 12 * 16 * 3
    row = next(line.split() for line in out.splitlines() if line.startswith("rgb "))
    stored = (everything / "channels" / "rgb").rglob("*")
    assert f"{raw / sum(file.stat().st_size for file in stored if file.is_file()):.1f}" in row
    page = np.asarray(Image.open(tmp_path / "page.png"))
    tile_rows, tile_columns = 2 * len(STORED), 3
    assert page.shape[0] > tile_rows * 96
    assert page.shape[1] > tile_columns * 128
    expected = wsv.Dataset(everything).read(1, ["rgb"], [0])["rgb"][0]
    at = next(
        i for i in range(page.shape[0] // 2, page.shape[0]) if (page[i : i + 96 : 8, 110 : 110 + 128 : 8] == expected).all()
    )
    assert at > page.shape[0] // 2
    assert not list(tmp_path.glob("*.part"))


def test_simulate(tmp_path, capsys):
    arguments = ["simulate", f"--out={tmp_path}/set", "--scenes=2", "--seed=3", "--seconds=0.5", "--nopixels", "--noprogress"]
    code, out, err = run(
        capsys, *arguments, "--workers=1", "--objects=2", "--stories=rest", "--cameras=still", "--clips-per-shard=1"
    )
    assert (code, err) == (0, "")
    assert "2 clips" in out
    dataset = wsv.Dataset(tmp_path / "set")
    assert dataset.layout.channels == ()
    assert (len(dataset), dataset.layout.shards, dataset.layout.ticks) == (2, 2, 4)
    build = dataset.manifest["build"]
    assert (build["seed"], build["objects"], build["stories"], build["cameras"]) == (3, [2, 2], ["rest"], ["still"])
    code, out, err = run(capsys, "inspect", tmp_path / "set", f"--out={tmp_path}/page.png")
    assert code == 2
    assert "has no channels" in err
    assert not (tmp_path / "page.png").exists()
    code, out, err = run(capsys, *arguments)
    assert code == 2
    assert "a finished dataset is here" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "got nothing; needed one of the verbs simulate, ingest, inspect, verify, advise, repair"),
        (["paint"], "got 'paint'; needed one of the verbs"),
        (["ingest", "--licence=x", "--colour=red", "--out=set"], "Unknown command line flag 'colour'"),
        (["ingest", "--licence=x", "a.mp4"], "needed --out"),
        (["ingest", "--out=set", "a.mp4"], "needed --licence"),
        (["ingest", "--out=set", "--licence=x", "--size=64", "a.mp4"], "--size=64; needed HEIGHTxWIDTH"),
        (["ingest", "--out=set", "--licence=x", "--codec=gif", "a.mp4"], "value should be one of <jpeg|h264|array>"),
        (["ingest", "--out=set", "--licence=x"], "no inputs"),
        (["ingest", "--out=set", "--licence=x", "gone.mp4"], "gone.mp4: no such file"),
        (["ingest", "--out=set", "--licence=x", "--captions=gone.json", "gone.mp4"], "gone.json"),
        (["ingest", "--out=set", "--licence=x", "--captions=bad.json", "gone.mp4"], "bad.json: is no JSON"),
        (["inspect"], "got 0 datasets"),
        (["inspect", "a", "b"], "got 2 datasets"),
        (["inspect", "nowhere"], "no WSV dataset here"),
        (["inspect", "nowhere", "--out=page.gif"], "--out=page.gif; needed a name that ends in .png"),
        (["inspect", "nowhere", "--clips=0"], "clips"),
        (["verify", "nowhere"], "no WSV dataset here"),
        (["repair", "gone.mp4"], "needed --data"),
        (["repair", "--data=nowhere"], "no WSV dataset here"),
        (["repair", "--data=nowhere", "gone.mp4"], "nowhere is not made of recordings; got gone.mp4"),
        (["repair", "--data=newer"], "schema version 3"),
        (["simulate"], "needed --out (the new dataset's directory or URL) and --scenes"),
        (["simulate", "--scenes=3", "--out=set", "--objects=few"], "--objects=few; needed LEAST-MOST"),
        (["simulate", "--scenes=3", "--out=set", "--cameras=drone"], "drone"),
        (["simulate", "--scenes=3", "--out=set", "now"], "got ['now']; needed flags alone"),
        (["simulate", "--scenes=3", "--out=set", "--seconds=inf"], "seconds inf"),
        (["simulate", "--scenes=3", "--out=set", "--fps=inf"], "frame_hz inf"),
        (["simulate", "--scenes=3", "--out=set", "--fps=nan"], "frame_hz nan"),
        (["ingest", "--out=set", "--licence=x", "--fps=inf", "gone.mp4"], "inf frames a second"),
        (["ingest", "--out=set", "--licence=x", "--clip-seconds=inf", "gone.mp4"], "clips of inf s"),
        (["inspect", "newer"], "schema version 3"),
        (["verify", "newer"], "schema version 3"),
        (["simulate", "--scens=3", "--out=set"], "Unknown command line flag 'scens'"),
    ],
)
def test_bad_command_lines(tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer" / "manifest.json").write_text('{"format": "wsm_wsv", "schema_version": 3}')
    (tmp_path / "bad.json").write_text("{")
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: ")
    assert message in err
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.json", "newer"]


def test_help_names_the_flags(capsys):
    assert run(capsys, "--help")[:1] == (0,)
    code, out, _ = run(capsys, "ingest", "--help")
    assert code == 0
    assert "--clip_seconds" in out
    assert "--out: the new dataset's directory or URL (needed)" in out


def test_truncated_video_is_kept_only_on_demand(tmp_path, capsys, video):
    (tmp_path / "cut.mp4").write_bytes(video.read_bytes()[: video.stat().st_size * 3 // 4])
    arguments = [
        "ingest",
        f"--out={tmp_path}/set",
        f"--inputs={tmp_path}/cut.mp4",
        "--licence=CC0-1.0",
        "--clip_seconds=0.5",
        "--noprogress",
    ]
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert "cut.mp4: ends early" in err
    assert not (tmp_path / "set").exists()
    code, out, _ = run(capsys, *arguments, "--allow-truncated")
    assert code == 0
    assert "clips" in out
    assert "it ends early: the container promises 36 frames" in out


def test_what_is_left_out_is_counted_and_listed(tmp_path, capsys, video):
    for name in ("b", "c", "d"):
        (tmp_path / f"{name}.mp4").write_bytes(b"no video" * 9)
    (tmp_path / "e.mp4").write_bytes(video.read_bytes())
    (tmp_path / "masks" / "a").mkdir(parents=True)
    for i in range(36):
        Image.fromarray(np.full((32, 48), i, np.uint8)).save(tmp_path / "masks" / "a" / f"{i}.png")
    arguments = ["ingest", f"--out={tmp_path}/set", "--licence=CC0-1.0", "--size=16x24", "--clip-seconds=0.5", "--noprogress"]
    code, out, err = run(capsys, *arguments, f"--masks={tmp_path}/masks", "--max-duplicates=0.5", tmp_path)
    assert (code, err) == (0, "")
    assert out.count("left out: ") == 3
    for name in ("b", "c", "d"):
        assert f"{tmp_path.name}/{name}.mp4: is no video" in out
    assert "left out in all: 3 whole, 0 parts; rejected.jsonl lists them" in out
    assert f"{tmp_path}/set" in out


# Repair.


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


def test_repair_of_a_simulated_dataset(tmp_path, capsys):
    path = tmp_path / "set"
    arguments = ["--scenes=3", "--seed=3", "--seconds=0.5", "--nopixels", "--workers=1", "--clips-per-shard=2", "--noprogress"]
    assert run(capsys, "simulate", f"--out={path}", *arguments)[0] == 0
    before = contents(path)
    for key in ("build.json", "core/zarr.json", "text/000001.jsonl", "shards/000000.json", "core/c.1.0.0.0"):
        flip(path / key)
    (path / "core" / "c.0.0.0.0").unlink()
    code, out, err = run(capsys, "repair", f"--data={path}", "--workers=1", "--noprogress")
    assert (code, err) == (0, "")
    assert out.count(": rebuilt (was ") == 6 and out.endswith(f"{path}: sound\n")
    assert contents(path) == before
    flip(path / "manifest.json")
    (path / "text" / "000000.jsonl").unlink()
    code, out, err = run(capsys, "repair", f"--data={path}", "--workers=2", "--noprogress")
    assert (code, err) == (0, "")
    assert "manifest.json: rebuilt, by build.json" in out
    assert contents(path) == before
    code, out, err = run(capsys, "repair", f"--data={path}", "a.mp4", "--noprogress")
    assert code == 2 and "is not made of recordings; got a.mp4" in err


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


def ingest(tmp_path, capsys, films, captions: str) -> Path:
    """Their dataset, two clips a shard: the second shard holds clips of both."""
    arguments = ["--licence=x", "--size=16x24", "--clip-seconds=0.5", "--noshots", "--workers=1", "--noprogress"]
    (tmp_path / "captions.json").write_text(captions)
    path = tmp_path / "set"
    code, out, _ = run(capsys, "ingest", f"--out={path}", f"--captions={tmp_path}/captions.json", *arguments, films)
    assert code == 0 and "6 clips" in out
    return path


@pytest.fixture
def ingested(tmp_path, capsys, films, monkeypatch):
    """With captions of whole films."""
    monkeypatch.setattr("data_pipelines.ingest.build.SHARD_BYTES", 2 * 4 * 16 * 24 * 3)
    return ingest(tmp_path, capsys, films, '{"a.mp4": ["film a"]}')


@pytest.fixture
def spoken(tmp_path, capsys, films, monkeypatch):
    """With captions that have times beside those of whole films."""
    monkeypatch.setattr("data_pipelines.ingest.build.SHARD_BYTES", 2 * 4 * 16 * 24 * 3)
    (films / "b.srt").write_text("1\n00:00:00,000 --> 00:00:00,625\nearly in b\n")
    path = ingest(tmp_path, capsys, films, '{"a.mp4": ["film a", {"text": "late in a", "start": 0.75, "end": 1.25}]}')
    dataset = wsv.Dataset(path)
    early, late = ("film b", "early in b"), ("film a", "late in a")
    assert [dataset.captions(i) for i in range(6)] == [("film a",), late, late, early, early, ("film b",)]
    assert [dataset.spans(i)[1:] for i in range(6)] == [(), ((0.25, 0.5),), ((0.0, 0.25),), ((0.0, 0.5),), ((0.0, 0.125),), ()]
    return path


def test_repair_of_an_ingested_dataset(tmp_path, capsys, films, ingested):
    path, before = ingested, contents(ingested)
    assert len([key for key in before if key.startswith("text/")]) == 3
    damaged = [key for key in before if ".1." in key or "000001" in key] + [
        "rejected.jsonl",
        "build.json",
        "frame_time/zarr.json",
    ]
    for key in damaged:
        flip(path / key)
    arguments = ["repair", f"--data={path}", "--workers=1", "--noprogress"]
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (1, "")
    assert out.count(": rebuilt") == 2 and out.count("needed films/a.mp4 (sha256") == len(damaged) - 3
    assert "rejected.jsonl: cannot be rebuilt" in out and out.endswith(f"{path}: {len(damaged) - 2} problems are left\n")

    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "a.mp4").write_bytes((films / "b.mp4").read_bytes())
    code, out, _ = run(capsys, *arguments, tmp_path / "moved" / "a.mp4")
    assert code == 1 and "needed films/a.mp4 (sha256" in out

    flip(tmp_path / "moved" / "a.mp4")
    code, out, _ = run(capsys, *arguments, tmp_path / "moved" / "a.mp4")
    assert code == 1 and "a.mp4: not used; is another than the dataset was made of, needed " in out

    code, out, _ = run(capsys, *arguments, films / "b.mp4", films / "a.mp4")
    assert code == 1 and "rejected.jsonl: cannot be rebuilt: this release makes other bytes" in out
    assert {key for key, data in contents(path).items() if data != before[key]} == {"rejected.jsonl"}

    code, out, err = run(capsys, *arguments, films)
    assert (code, err) == (0, "")
    assert "c.mp4: not used; no clip of the dataset is of it; its sha256 is" in out
    assert contents(path) == before


@pytest.mark.parametrize("packed", [False, True])
def test_recordings_with_masks_are_repaired_of_both(tmp_path, capsys, films, packed):
    values = np.random.default_rng(5).integers(0, 4, (36, 32, 48), dtype=np.uint8)
    (tmp_path / "masks" / "b").mkdir(parents=True)
    for i, picture in enumerate(values):
        Image.fromarray(picture).save(tmp_path / "masks" / "b" / f"{i}.png")
    if packed:
        np.savez_compressed(tmp_path / "masks" / "a.npz", values)
    path, masks = tmp_path / "set", f"--masks={tmp_path}/masks"
    arguments = ["--size=16x24", "--clip-seconds=0.5", "--noshots", "--workers=1", "--noprogress"]
    assert run(capsys, "ingest", f"--out={path}", "--licence=x", masks, *arguments, films)[0] == 0
    before = contents(path)
    damaged = [key for key in before if "instance/c." in key or key.endswith("rejected.jsonl")]
    for key in damaged:
        flip(path / key)
    repair = ["repair", f"--data={path}", "--workers=1", "--noprogress", films]
    code, bare, _ = run(capsys, *repair)
    assert code == 1 and "which was not given; where it had masks they are a part of it: give them as --masks=FOLDER" in bare
    code, out, err = run(capsys, *repair, masks)
    assert (code, err) == (0, "")
    assert (bare + out).count(": rebuilt (was ") == len(damaged)
    assert contents(path) == before


def test_captions_come_from_what_is_left_or_are_given_again(tmp_path, capsys, films, ingested):
    path, before = ingested, contents(ingested)
    for shard in range(3):
        (path / "text" / f"{shard:06d}.jsonl").unlink()
    arguments = ["repair", f"--data={path}", "--workers=1", "--noprogress", films]
    code, out, _ = run(capsys, *arguments)
    assert code == 1
    assert [f"{shard:06d}.jsonl: rebuilt" in out for shard in range(3)] == [False, False, True], "film b has them beside it"
    code, _, err = run(capsys, *arguments, f"--captions={tmp_path}/captions.json")
    assert (code, err) == (0, "")
    assert contents(path) == before


@pytest.mark.parametrize("shard", range(3))
def test_captions_with_times_come_back_where_one_text_is_lost(tmp_path, capsys, films, spoken, shard):
    """Of the files that were given, which the clips that are left agree with; no other captions are taken."""
    before, key = contents(spoken), f"text/{shard:06d}.jsonl"
    arguments = ["repair", f"--data={spoken}", "--workers=1", "--noprogress", f"--captions={tmp_path}/captions.json"]
    (spoken / key).unlink()
    assert run(capsys, *arguments, films)[0] == 0
    assert contents(spoken) == before
    (spoken / key).unlink()
    (tmp_path / "captions.json").write_text('{"a.mp4": ["another"], "b.mp4": ["another"]}')
    code, out, _ = run(capsys, *arguments, films)
    assert ("this release makes other bytes" in out) == (code == 1) == (shard < 2), "of film b, those beside it agree"
    assert {name for name, data in before.items() if contents(spoken).get(name) != data} == ({key} if shard < 2 else set())


def test_what_a_whole_text_says_comes_before_what_is_given(tmp_path, capsys, films, spoken):
    """Pictures, and the records that vouch for the text, come back whatever lies beside the films by now."""
    before = contents(spoken)
    for number in range(3):
        (spoken / "channels" / "rgb_jpeg" / "bytes" / f"{number:06d}").unlink()
        (spoken / "shards" / f"{number:06d}.json").unlink()
    arguments = ["repair", f"--data={spoken}", "--workers=1", "--noprogress", films]
    (films / "b.srt").unlink()
    (films / "b.txt").write_text("another b")
    assert run(capsys, *arguments)[0] == 0
    assert contents(spoken) == before


def test_inspect_shows_the_times_of_captions(tmp_path, capsys, spoken):
    code, _, err = run(capsys, "inspect", spoken, f"--html={tmp_path}/page.html", f"--out={tmp_path}/page.png", "--clips=6")
    assert (code, err) == (0, "")
    page = (tmp_path / "page.html").read_text()
    for line in ("<br>film a<br>0.25..0.50 s: late in a", "<br>0.00..0.12 s: early in b"):
        assert line in page
    dataset = wsv.Dataset(spoken)
    assert captions(dataset, 0) == ["film a"] and captions(dataset, 2) == ["film a", "0.00..0.25 s: late in a"]


def test_repair_of_a_collection(tmp_path, capsys, films):
    path = tmp_path / "all"
    arguments = ["--licence=x", "--buckets=16x24@8x1,16x24@8x0.5", "--noshots", "--workers=1", "--noprogress"]
    assert run(capsys, "ingest", f"--out={path}", *arguments, films)[0] == 0
    before = contents(path)
    damaged = [key for key in before if key.endswith(("bytes/000000", "text/000000.jsonl", "rejected.jsonl"))]
    assert len(damaged) == 6
    for key in damaged:
        flip(path / key)
    (path / "collection.json").unlink()
    code, out, err = run(capsys, "repair", f"--data={path}", "--noprogress", "--workers=1", films)
    assert (code, err) == (0, "")
    assert out.count(": rebuilt") == 7 and "collection.json: rebuilt, by the 2 datasets" in out
    assert out.count("c.mp4: not used") == 1
    assert contents(path) == before
