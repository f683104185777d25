"""Damaged files come back as they were, from the build parameters or from the recordings."""

import numpy as np
import pytest
from PIL import Image


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


def test_repair_of_a_simulated_dataset(tmp_path, run):
    path = tmp_path / "set"
    arguments = ["--scenes=3", "--seed=3", "--seconds=0.5", "--nopixels", "--workers=1", "--clips-per-shard=2", "--noprogress"]
    assert run("simulate", f"--out={path}", *arguments)[0] == 0
    before = contents(path)
    for key in ("build.json", "core/zarr.json", "text/000001.jsonl", "shards/000000.json", "core/c.1.0.0.0"):
        flip(path / key)
    (path / "core" / "c.0.0.0.0").unlink()
    code, out, err = run("repair", f"--data={path}", "--workers=1", "--noprogress")
    assert (code, err) == (0, "")
    assert out.count(": rebuilt (was ") == 6 and out.endswith(f"{path}: sound\n")
    assert contents(path) == before
    flip(path / "manifest.json")
    (path / "text" / "000000.jsonl").unlink()
    code, out, err = run("repair", path, "--workers=2", "--noprogress")
    assert (code, err) == (0, "")
    assert "manifest.json: rebuilt, by build.json" in out
    assert contents(path) == before
    code, out, err = run("repair", f"--data={path}", "a.mp4", "--noprogress")
    assert code == 2 and "is no dataset that was built from recordings; got a.mp4" in err


def test_repair_of_an_ingested_dataset(tmp_path, run, films, ingested):
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
    code, out, err = run(*arguments)
    assert (code, err) == (1, "")
    assert out.count(": rebuilt") == 2 and out.count("needed films/a.mp4 (sha256") == len(damaged) - 3
    assert "rejected.jsonl: cannot be rebuilt" in out and out.endswith(f"{path}: {len(damaged) - 2} problems remain\n")

    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "a.mp4").write_bytes((films / "b.mp4").read_bytes())
    code, out, _ = run(*arguments, tmp_path / "moved" / "a.mp4")
    assert code == 1 and "needed films/a.mp4 (sha256" in out

    flip(tmp_path / "moved" / "a.mp4")
    code, out, _ = run(*arguments, tmp_path / "moved" / "a.mp4")
    assert code == 1 and "a.mp4: not used; is another than the dataset was made of, needed " in out

    code, out, _ = run(*arguments, films / "b.mp4", films / "a.mp4")
    assert code == 1 and "rejected.jsonl: cannot be rebuilt: this release makes other bytes" in out
    assert {key for key, data in contents(path).items() if data != before[key]} == {"rejected.jsonl"}

    code, out, err = run(*arguments, films)
    assert (code, err) == (0, "")
    assert "c.mp4: not used; no clip of the dataset is of it; its sha256 is" in out
    assert contents(path) == before


@pytest.mark.parametrize("packed", [False, True])
def test_recordings_with_masks_are_repaired_of_both(tmp_path, run, films, packed):
    values = np.random.default_rng(5).integers(0, 4, (36, 32, 48), dtype=np.uint8)
    (tmp_path / "masks" / "b").mkdir(parents=True)
    for i, picture in enumerate(values):
        Image.fromarray(picture).save(tmp_path / "masks" / "b" / f"{i}.png")
    if packed:
        np.savez_compressed(tmp_path / "masks" / "a.npz", values)
    path, masks = tmp_path / "set", f"--masks={tmp_path}/masks"
    arguments = ["--size=16x24", "--clip-seconds=0.5", "--noshots", "--workers=1", "--noprogress"]
    assert run("ingest", f"--out={path}", "--licence=x", masks, *arguments, films)[0] == 0
    before = contents(path)
    damaged = [key for key in before if "instance/c." in key or key.endswith("rejected.jsonl")]
    for key in damaged:
        flip(path / key)
    repair = ["repair", f"--data={path}", "--workers=1", "--noprogress", films]
    code, bare, _ = run(*repair)
    assert code == 1 and "which was not given; where it had masks they are a part of it: give them as --masks=FOLDER" in bare
    code, out, err = run(*repair, masks)
    assert (code, err) == (0, "")
    assert (bare + out).count(": rebuilt (was ") == len(damaged)
    assert contents(path) == before


def test_captions_come_from_what_is_left_or_are_given_again(tmp_path, run, films, ingested):
    path, before = ingested, contents(ingested)
    for shard in range(3):
        (path / "text" / f"{shard:06d}.jsonl").unlink()
    arguments = ["repair", f"--data={path}", "--workers=1", "--noprogress", films]
    code, out, _ = run(*arguments)
    assert code == 1
    assert [f"{shard:06d}.jsonl: rebuilt" in out for shard in range(3)] == [False, False, True], "film b has them beside it"
    code, _, err = run(*arguments, f"--captions={tmp_path}/captions.json")
    assert (code, err) == (0, "")
    assert contents(path) == before


@pytest.mark.parametrize("shard", range(3))
def test_captions_with_times_come_back_where_one_text_is_lost(tmp_path, run, films, spoken, shard):
    """Of the files that were given, which the clips that are left agree with; no other captions are taken."""
    before, key = contents(spoken), f"text/{shard:06d}.jsonl"
    arguments = ["repair", f"--data={spoken}", "--workers=1", "--noprogress", f"--captions={tmp_path}/captions.json"]
    (spoken / key).unlink()
    assert run(*arguments, films)[0] == 0
    assert contents(spoken) == before
    (spoken / key).unlink()
    (tmp_path / "captions.json").write_text('{"a.mp4": ["another"], "b.mp4": ["another"]}')
    code, out, _ = run(*arguments, films)
    assert ("this release makes other bytes" in out) == (code == 1) == (shard < 2), "of film b, those beside it agree"
    assert {name for name, data in before.items() if contents(spoken).get(name) != data} == ({key} if shard < 2 else set())


def test_what_a_whole_text_says_comes_before_what_is_given(tmp_path, run, films, spoken):
    """Pictures, and the records that vouch for the text, come back whatever lies beside the films by now."""
    before = contents(spoken)
    for number in range(3):
        (spoken / "channels" / "rgb_jpeg" / "bytes" / f"{number:06d}").unlink()
        (spoken / "shards" / f"{number:06d}.json").unlink()
    arguments = ["repair", f"--data={spoken}", "--workers=1", "--noprogress", films]
    (films / "b.srt").unlink()
    (films / "b.txt").write_text("another b")
    assert run(*arguments)[0] == 0
    assert contents(spoken) == before


def test_repair_of_a_collection(tmp_path, run, films):
    path = tmp_path / "all"
    arguments = ["--licence=x", "--buckets=16x24@8x1,16x24@8x0.5", "--noshots", "--workers=1", "--noprogress"]
    assert run("ingest", f"--out={path}", *arguments, films)[0] == 0
    before = contents(path)
    damaged = [key for key in before if key.endswith(("bytes/000000", "text/000000.jsonl", "rejected.jsonl"))]
    assert len(damaged) == 6
    for key in damaged:
        flip(path / key)
    (path / "collection.json").unlink()
    code, out, err = run("repair", path, films, "--noprogress", "--workers=1")
    assert (code, err) == (0, "")
    assert out.count(": rebuilt") == 7 and "collection.json: rebuilt, by the 2 datasets" in out
    assert out.count("c.mp4: not used") == 1
    assert contents(path) == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["repair", "gone.mp4"], "gone.mp4: no WSV dataset here"),
        (["repair", "--data=nowhere"], "no WSV dataset here"),
        (["repair", "--data=nowhere", "gone.mp4"], "nowhere is no dataset that was built from recordings; got gone.mp4"),
        (["repair", "--data=newer"], "schema version 3"),
        (["repair"], "PATH [RECORDING ...]: got 0 datasets"),
        (["repair", "nowhere", "gone.mp4"], "nowhere is no dataset that was built from recordings; got gone.mp4"),
    ],
)
def test_bad_command_lines(assert_usage_error, arguments, message):
    assert_usage_error(arguments, message)
