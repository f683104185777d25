"""Repair: what can be made again is, byte for byte; what cannot stays as it was; verify says which clips are lost."""

import dataclasses
import itertools
import re
import shutil
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.wsv import Dataset, Layout, Writer, collection, create, repair, verify
from data_pipelines.wsv import manifest as records
from data_pipelines.wsv.clip import Clip
from data_pipelines.wsv.folder import Folder
from data_pipelines.wsv.repair import head
from tests.data_pipelines.datasets import FULL, SOURCES, fill
from tests.data_pipelines.wsv.random_clips import BUILD, changed, contents, make_clip

LAYOUT = dataclasses.replace(FULL, rgb_codec="jpeg", channels=("rgb", "depth"), clips=4, frames_per_chunk=3)
"""Two shards of two clips, with files of every kind."""
NOTES = {"rejected.jsonl": b'{"name": "blurred"}\n'}
SPECS = records.arrays(LAYOUT)
KINDS = {
    "manifest": "manifest.json",
    "build": "build.json",
    "attached": "rejected.jsonl",
    "metadata": SPECS["channels/depth"].metadata_file,
    "channel": SPECS["channels/depth"].file(1),
    "camera": SPECS["camera"].file(0),
    "index": SPECS[records.index_path(LAYOUT)].file(1),
    "pictures": records.bytes_file(LAYOUT, 1),
    "text": records.text_file(0),
    "record": records.record_file(1),
}


def make(shard: int) -> list:
    return [make_clip(LAYOUT, index) for index in LAYOUT.span(shard)]


def mended(path: Path, made=make) -> list[str]:
    return repair(path, made, False, attached=lambda: NOTES)


def build(path: Path, name: str = "test") -> Path:
    writer = create(path, LAYOUT, name=name, sources=SOURCES, build=BUILD, attached=NOTES)
    fill(writer, lambda index: make_clip(LAYOUT, index))
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    return build(tmp_path_factory.mktemp("repair") / "ds")


@pytest.fixture
def copy(built, tmp_path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "ds"))


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "remove":
        path.unlink()
    elif how == "flip":
        data[len(data) // 3] ^= 16
        path.write_bytes(data)
    else:
        path.write_bytes({"truncate": data[: len(data) // 2], "empty": b"", "longer": data + b"x"}[how])


# What can be made again is, byte for byte.


@pytest.mark.parametrize("how", ["flip", "truncate", "empty", "longer", "remove"])
def test_any_kind_of_file_comes_back(built, copy, how):
    before = contents(built)
    for key in KINDS.values():
        damage(copy / key, how)
        lines = mended(copy)
        assert changed(before, copy) == [], (key, lines)
        assert len(lines) == 1 and lines[0].startswith(f"{copy / key}: rebuilt")
        assert verify(copy, progress=False) == [] and mended(copy) == []


@pytest.mark.parametrize("pair", list(itertools.combinations(sorted(set(KINDS) - {"build", "manifest"}), 2)), ids=" ".join)
def test_any_two_kinds_at_once(built, copy, pair):
    for kind, how in zip(pair, ("flip", "remove"), strict=True):
        damage(copy / KINDS[kind], how)
    lines = mended(copy)
    assert changed(contents(built), copy) == []
    assert sorted(line.split(": ")[0] for line in lines) == sorted(str(copy / KINDS[kind]) for kind in pair)


@pytest.mark.parametrize("manifest", ["flip", "truncate", "remove"])
def test_a_manifest_comes_back_though_other_files_are_damaged(built, copy, manifest):
    damage(copy / "manifest.json", manifest)
    for kind in ("attached", "metadata", "channel", "camera", "index", "pictures", "text"):
        damage(copy / KINDS[kind], "flip")
    lines = mended(copy)
    assert changed(contents(built), copy) == []
    assert len(lines) == 8 and all(": rebuilt" in line for line in lines)


def test_everything_but_the_manifest_is_lost(built, copy):
    for key in set(contents(copy)) - {"manifest.json"}:
        (copy / key).unlink()
    (copy / "notes.txt").write_text("mine")
    lines = mended(copy)
    assert changed(contents(built), copy) == ["notes.txt"]
    assert lines[-1] == f"{copy}/notes.txt: extra, not a file of the dataset; left alone"
    assert sum(": rebuilt (was missing" in line for line in lines) == len(contents(built)) - 1 == len(lines) - 1


def test_damaged_records_come_back_with_the_manifest_where_their_shards_are_whole(built, copy):
    damage(copy / "manifest.json", "truncate")
    damage(copy / KINDS["record"], "remove")
    mended(copy)
    assert changed(contents(built), copy) == []


def test_the_clips_of_sound_shards_are_not_asked_for(copy):
    asked = []

    def counted(shard: int) -> list:
        asked.append(shard)
        return make(shard)

    for kind in ("build", "metadata"):
        damage(copy / KINDS[kind], "flip")
    mended(copy, counted)
    assert asked == []
    for kind in ("channel", "pictures", "record"):
        damage(copy / KINDS[kind], "flip")
    mended(copy, counted)
    assert asked == [1]


def test_processes_mend_what_one_does(built, copy):
    for key in contents(copy):
        if key.startswith(("channels", "core", "text")):
            damage(copy / key, "flip")
    repair(copy, make, False, workers=2)
    assert changed(contents(built), copy) == []


def test_a_repair_that_is_killed_is_run_again(built, copy, monkeypatch):
    for kind in set(KINDS) - {"build", "record"}:
        damage(copy / KINDS[kind], "flip")
    plain, room = Folder.write, 0

    def write(self, files):
        nonlocal room
        for key, data in files.items():
            if (room := room - 1) < 0:
                raise KeyboardInterrupt
            plain(self, {key: data})

    monkeypatch.setattr(Folder, "write", write)
    kills = 0
    for _ in range(30):
        room = 1
        try:
            mended(copy)
            break
        except KeyboardInterrupt:
            kills += 1
    assert kills >= 5
    assert changed(contents(built), copy) == []


def test_a_full_disk_is_an_error_and_nothing_is_spoilt(built, copy, monkeypatch):
    damage(copy / KINDS["channel"], "remove")
    before = contents(copy)
    with monkeypatch.context() as patch:
        patch.setattr(Folder, "write", lambda self, files: (_ for _ in ()).throw(self.full("it", 1)) if files else None)
        with pytest.raises(OSError, match="disk full"):
            mended(copy)
    assert changed(before, copy) == []


# What cannot be made again stays as it was, and is named.


def left(copy: Path, made, *kinds: str, attached=None) -> list[str]:
    before = contents(copy)
    lines = repair(copy, made, False, attached=attached)
    assert changed(before, copy) == []
    assert len(lines) == len(kinds)
    for kind in kinds:
        assert any(str(copy / KINDS[kind]) in line and "cannot be rebuilt" in line for line in lines), lines
    return lines


def broken(shard: int) -> list:
    raise ValueError("film.mp4: ends early")


def other(shard: int) -> list:
    return [clip.replace(core=clip.core.replace(centre=clip.core.centre + 1), text=("other",)) for clip in make(shard)]


def test_other_clips_are_never_written(copy):
    for kind in ("text", "record"):
        damage(copy / KINDS[kind], "flip")
    assert all("this release makes other bytes" in line for line in left(copy, other, "text", "record"))
    assert all("nobody gave them" in line for line in left(copy, None, "text", "record"))
    assert all("film.mp4: ends early" in line for line in left(copy, broken, "text", "record"))
    assert all("2 clips, 1 were given" in line for line in left(copy, lambda shard: make(shard)[:1], "text", "record"))
    short = lambda shard: [clip.replace(core=None, core_time=None) for clip in make(shard)]  # noqa: E731
    assert all("core missing" in line for line in left(copy, short, "text", "record"))


def test_attached_files_need_what_they_were_made_of(copy):
    damage(copy / KINDS["attached"], "flip")
    assert "nobody gave that" in left(copy, make, "attached")[0]
    assert "other bytes" in left(copy, make, "attached", attached=lambda: {"rejected.jsonl": b"{}\n"})[0]

    def gone():
        raise FileNotFoundError("film.mp4: gone")

    assert "film.mp4: gone" in left(copy, make, "attached", attached=gone)[0]


def test_what_can_be_mended_is_beside_what_cannot(built, copy):
    for kind in ("build", "metadata", "text", "channel"):
        damage(copy / KINDS[kind], "flip")
    lines = repair(copy, lambda shard: make(1) if shard else broken(shard), False)
    assert changed(contents(built), copy) == [KINDS["text"]]
    assert [("cannot be rebuilt" in line, line.split(": ")[0].endswith("text/000000.jsonl")) for line in lines].count(
        (True, True)
    ) == 1


@pytest.mark.parametrize("how", ["flip", "truncate", "remove"])
@pytest.mark.parametrize("with_it", ["build", "attached", "record"])
def test_a_manifest_needs_what_vouches_for_its_shards(copy, how, with_it):
    damage(copy / "manifest.json", how)
    damage(copy / KINDS[with_it], "truncate")
    left(copy, None, "manifest")


def test_a_record_that_nothing_vouches_for_is_not_made_of_other_clips(copy):
    damage(copy / "manifest.json", "remove")
    damage(copy / KINDS["record"], "flip")
    assert "is not what this release makes of its clips" in left(copy, other, "manifest")[0]


def test_a_manifest_that_contradicts_the_records_is_not_written_over(copy):
    raw = (copy / "manifest.json").read_bytes()
    (copy / "manifest.json").write_bytes(raw.replace(b'"CC0-1.0"', b'"CC0-1.1"'))
    (copy / "build.json").write_bytes((copy / "build.json").read_bytes().replace(b'"CC0-1.0"', b'"MIT-1.0"'))
    assert "delete it to go by these alone" in left(copy, make, "manifest")[0]


def test_every_bit_of_a_manifest_may_flip(copy):
    good = (copy / "manifest.json").read_bytes()
    places = {int(i) for i in np.linspace(0, len(good) - 1, 50)} | {good.index(b'"schema_version": ') + 18}
    for place in sorted(places):
        bad = bytearray(good)
        bad[place] ^= 1
        (copy / "manifest.json").write_bytes(bad)
        assert "rebuilt" in mended(copy, None)[0]
        assert (copy / "manifest.json").read_bytes() == good


def test_unfinished_builds_and_newer_ones_are_left_alone(copy, tmp_path):
    writer = create(tmp_path / "begun", LAYOUT, name="test", sources=SOURCES, build=BUILD)
    writer.write(0, make(0))
    before = contents(tmp_path / "begun")
    assert "unfinished build" in repair(tmp_path / "begun", make, False)[0]
    assert changed(before, tmp_path / "begun") == []
    with pytest.raises(FileNotFoundError, match="no WSV dataset here"):
        repair(tmp_path / "nowhere", make, False)
    manifest = Dataset(copy).manifest
    (copy / "manifest.json").write_bytes(records.seal({**manifest, "schema_version": 9}))
    before = contents(copy)
    with pytest.raises(records.NewerSchema):
        repair(copy, make, False)
    table = {"rgb": {"components": 3, "unit": "sRGB 0..1", "dtype": "uint16", "step": 1 / 65535}}
    (copy / "manifest.json").write_bytes(records.seal({**manifest, "channels": table}))
    assert "whole, and of another release" in repair(copy, make, False)[0]
    assert changed(before, copy) == ["manifest.json"]


def test_the_head_is_known_as_long_as_one_of_two_files_is_sound(copy):
    assert (head(copy) or {})["build"] == BUILD
    damage(copy / "manifest.json", "flip")
    assert (head(copy) or {})["build"] == BUILD
    damage(copy / "build.json", "truncate")
    assert head(copy) is None


def test_metadata_of_version_1_come_back(tmp_path):
    with zipfile.ZipFile(Path(__file__).with_name("version1.zip")) as file:
        file.extractall(tmp_path)
    path = next(tmp_path.rglob("manifest.json")).parent
    before = contents(path)
    keys = [key for key in before if key.endswith("zarr.json")] + ["build.json"]
    for key in keys:
        damage(path / key, "flip")
    assert len(repair(path, None, False)) == len(keys)
    assert changed(before, path) == []


# Verify says which clips are lost.


def lost(path: Path) -> str:
    (line,) = verify(path, progress=False)
    return line


def can_read(ds: Dataset, read) -> set[int]:
    found = set()
    for clip in range(len(ds)):
        try:
            read(ds, clip)
            found.add(clip)
        except ValueError:
            pass
    return found


READS = {
    "channel": lambda ds, clip: ds.read(clip, ["depth"]),
    "camera": lambda ds, clip: ds.camera(clip),
    "index": lambda ds, clip: ds.read(clip, ["rgb"]),
    "pictures": lambda ds, clip: ds.read(clip, ["rgb"]),
    "text": lambda ds, clip: ds.captions(clip),
}


@pytest.mark.parametrize("kind", READS)
def test_verify_names_the_very_clips_that_cannot_be_read(copy, kind):
    key, good = KINDS[kind], (copy / KINDS[kind]).read_bytes()
    some = 0
    for place in np.linspace(0, len(good) - 1, 25).astype(int):
        bad = bytearray(good)
        bad[place] ^= 1
        for data in (bytes(bad), good[:place], good + bytes(3)):
            (copy / key).write_bytes(data)
            gone = sorted(set(range(4)) - can_read(Dataset(copy), READS[kind]))
            line = lost(copy)
            where = "channel rgb" if kind in ("index", "pictures") else {"channel": "channel depth", "camera": "field camera"}
            assert f"dataset test, {where if isinstance(where, str) else where.get(kind, 'captions and events')}" in line
            shard = 0 if kind in ("camera", "text") else 1
            first = 2 * shard
            wanted = {0: "every clip can still be read", 2: f"clips {first}..{first + 1} cannot be read"}
            assert f"shard {shard}: {wanted.get(len(gone), f'clip {(gone or [0])[0]} cannot be read')}" in line
            some += len(gone) == 1
    assert some >= 10 or kind == "text"


def test_verify_names_the_lines_that_are_damaged(copy):
    path = copy / KINDS["text"]
    one, two = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(one + two.replace(b'"', b"'", 1))
    assert lost(copy).endswith("captions and events, shard 0: clips 0..1 cannot be read, clip 1 in a line that is damaged")
    path.write_bytes(one + two.replace(b"clip 1", b"clip 7", 1))
    assert lost(copy).endswith("shard 0: clips 0..1 cannot be read"), "a letter of a caption has no checksum of its own"


def test_verify_names_what_else_a_file_is_for(copy):
    wanted = {"build": "dataset test: no clip needs it", "attached": "dataset test: no clip needs it"}
    wanted |= {"record": "dataset test, shard 1: no clip needs it", "metadata": "channel depth: no clip of it can be read"}
    for kind, text in wanted.items():
        good = (copy / KINDS[kind]).read_bytes()
        damage(copy / KINDS[kind], "flip")
        assert text in lost(copy)
        (copy / KINDS[kind]).write_bytes(good)
    (copy / KINDS["pictures"]).unlink()
    (copy / KINDS["index"]).unlink()
    assert all("channel rgb, shard 1: clips 2..3 cannot be read" in line for line in verify(copy, progress=False))
    (copy / KINDS["text"]).unlink()
    (copy / KINDS["text"]).mkdir()
    assert any("000000.jsonl: " in line and "clips 0..1" in line for line in verify(copy, progress=False))


def test_large_files_are_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["data_pipelines.wsv.verify"], "_PIECE", 100)  # the package has a function of that name
    path = build(tmp_path / "ds")
    assert verify(path, progress=False) == []
    file = path / KINDS["channel"]
    good = file.read_bytes()
    assert len(good) > 300
    for data, word in ((good[:-1], "truncated"), (good + b"x", "too long"), (good[:150], "truncated"), (b"", "truncated")):
        file.write_bytes(data)
        assert re.search(rf"{word}, {len(data)} bytes, needed {len(good)}; ", lost(path))


def test_an_empty_file_that_is_gone_is_missed(tmp_path):
    writer = create(tmp_path / "ds", LAYOUT, name="test", sources=SOURCES, build=BUILD, attached={"none.jsonl": b""})
    fill(writer, lambda index: make_clip(LAYOUT, index))
    assert verify(tmp_path / "ds", progress=False) == []
    (tmp_path / "ds" / "none.jsonl").unlink()
    assert "none.jsonl: missing" in lost(tmp_path / "ds")


def test_clips_are_named_in_runs(tmp_path):
    layout = Layout(9, 1, 2, 2, 1, 0, 0, ("depth",), "array", 9, 1, False, False)
    writer: Writer = create(tmp_path / "ds", layout, name="nine", sources=SOURCES, build={})
    rng = np.random.default_rng(0)
    depth = [rng.integers(0, 9999, (1, 2, 2, 1)).astype(np.uint16) for _ in range(9)]
    writer.write(0, [Clip({"depth": values}, np.zeros(1)) for values in depth])
    writer.finish()
    file = tmp_path / "ds" / records.arrays(layout)["channels/depth"].file(0)
    good = file.read_bytes()
    size = (len(good) - 9 * 16 - 4) // 9
    bad = bytearray(good)
    for clip in (0, 1, 2, 5, 7, 8):
        bad[clip * size] ^= 1
    file.write_bytes(bad)
    assert lost(tmp_path / "ds").endswith("dataset nine, channel depth, shard 0: clips 0..2, 5, 7..8 cannot be read")


# Collections.


@pytest.fixture
def both(tmp_path) -> Path:
    for part in ("a", "b"):
        build(tmp_path / "all" / part, f"all/{part}")
    collection.write(Folder(tmp_path / "all"), "all", {"a": 4, "b": 4})
    return tmp_path / "all"


def test_verify_reads_every_dataset_of_a_collection(both):
    assert verify(both, progress=False) == []
    assert collection.datasets(Folder(both)) == [f"{both}/a", f"{both}/b"]
    damage(both / "a" / KINDS["text"], "flip")
    damage(both / "b" / KINDS["channel"], "remove")
    (both / "notes.txt").write_text("mine")
    problems = verify(both, progress=False)
    assert len(problems) == 3 and "notes.txt: extra" in problems[0]
    assert "dataset all/a, captions" in problems[1] and "dataset all/b, channel depth" in problems[2]
    shutil.rmtree(both / "b")
    assert f"{both}/b: no WSV dataset here" in verify(both, progress=False)[2]


def test_every_byte_of_a_collection_is_checked_and_comes_back(both):
    good = (both / "collection.json").read_bytes()
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 1
        (both / "collection.json").write_bytes(bad)
        with pytest.raises(ValueError, match=r"collection\.json: (damaged|schema version [3-9])"):
            collection.datasets(Folder(both))
    damage(both / "a" / KINDS["text"], "flip")
    problems = verify(both, progress=False)
    assert "collection.json: damaged" in problems[0] and "000000.jsonl" in problems[1] and len(problems) == 2
    assert "rebuilt, by the 2 datasets" in collection.restore(Folder(both))
    assert (both / "collection.json").read_bytes() == good
    collection.write(Folder(both), "all", {"a": 4, "b": 5})
    mended(both / "a")
    assert verify(both, progress=False) == [f"{both}/collection.json: b has 4 clips, the collection says 5"]


def test_a_collection_is_not_made_up(both, tmp_path):
    (both / "collection.json").unlink()
    damage(both / "a" / "manifest.json", "flip")
    assert "cannot be rebuilt" in collection.restore(Folder(both))
    mended(both / "a")
    build(both / "c", "other/c")
    assert "of 2 collections (all, other)" in collection.restore(Folder(both))
    assert not (both / "collection.json").exists()
