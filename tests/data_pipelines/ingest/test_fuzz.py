"""A thousand damaged recordings: each is found or left out by name, none is taken for whole that says it is not.

What can be told is told: a file that lacks bytes, a picture whose checksum or decoder complains. Flipped bytes of a video that
decode to other pixels have no checksum, so there only the number and size of the frames are sure.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines import wsv
from data_pipelines.ingest.bucket import Bucket
from data_pipelines.ingest.find import Candidate, Rejection, find_candidates
from data_pipelines.ingest.plan import Filters
from data_pipelines.ingest.scan import ReaderOptions, reopen, scan_candidate
from tests.data_pipelines.ingest.films import encoded, pattern
from tests.data_pipelines.ingest.run_ingest import run_ingest

FRAMES, SIZE = 8, (16, 16)
HOW = ReaderOptions(fps=8)
SHARE = 25
"""Damaged copies of each source, for each kind of damage."""


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sources")
    film = pattern(FRAMES, SIZE)
    videos = {
        "a.mp4": {"codec": "libx264"},
        "fast.mp4": {"codec": "libx264", "container": {"movflags": "faststart"}},
        "parts.mp4": {"codec": "libx264", "container": {"movflags": "frag_keyframe+empty_moov"}},
        "a.mov": {"codec": "mpeg4"},
        "a.webm": {"codec": "libvpx"},
        "a.mkv": {"codec": "libx264"},
    }
    for name, keys in videos.items():
        encoded(root / name, film, 8, **keys)
    for kind in ("png", "jpg"):
        (root / kind).mkdir()
        for i, picture in enumerate(film):
            Image.fromarray(picture).save(root / kind / f"{i}.{kind}")
    return {path.name: path for path in sorted(root.iterdir())}


def truncated(data: bytes, rng) -> bytes:
    return data[: rng.integers(1, len(data))] if rng.random() < 0.7 else data[: -int(rng.integers(1, 40))]


def flipped(data: bytes, rng) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 9))):
        changed[rng.integers(len(data))] ^= 1 << rng.integers(8)
    return bytes(changed)


def emptied(data: bytes, rng) -> bytes:
    """A stretch of zeros, as of a disk that lost a block."""
    start, length = rng.integers(len(data)), rng.integers(1, len(data))
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def reheaded(data: bytes, rng) -> bytes:
    heads = [
        b"\x1a\x45\xdf\xa3",
        b"\0\0\0\x20ftypisom",
        b"\x89PNG\r\n\x1a\n",
        b"\xff\xd8\xff\xe0",
        b"RIFF",
        b"#EXTM3U\n",
        bytes(8),
    ]
    head = heads[rng.integers(len(heads))]
    return head + data[len(head) :]


def doubled(data: bytes, rng) -> bytes:
    start = rng.integers(len(data))
    return data[:start] + data[start // 2 :]


DAMAGE = (truncated, flipped, emptied, reheaded, doubled)


def shown(candidate: Candidate, how: ReaderOptions = HOW) -> np.ndarray | Rejection:
    """The pictures of a candidate as a build would cut them, or why there are none."""
    found = timed(candidate, how)
    return found if isinstance(found, Rejection) else found[1]


def timed(candidate: Candidate, how: ReaderOptions = HOW) -> tuple[np.ndarray, np.ndarray] | Rejection:
    """Times and pictures."""
    result = scan_candidate(candidate, how, 0)
    if isinstance(result, Rejection):
        return result
    (one,) = result
    assert len(one.time) >= 2
    assert np.isfinite(one.time).all()
    assert np.all(np.diff(one.time) > 0)
    assert len(one.sharpness) == len(one.change) == len(one.time)
    found = [picture["rgb"] for picture in reopen(candidate, how, one).pictures(range(len(one.time)))]
    assert len(found) == len(one.time)
    assert {picture.shape for picture in found} == {(*one.size[0], 3)}
    return np.asarray(one.time), np.stack(found)


def is_named(rejection: Rejection, candidate: Candidate) -> None:
    assert rejection.name == candidate.name
    assert candidate.name in rejection.reason
    assert len(rejection.reason) > len(candidate.name) + 10
    assert str(candidate.path.parent) not in rejection.reason
    assert not any(f"{kind}: " in rejection.reason for kind in ("TypeError", "KeyError", "IndexError", "AttributeError"))


def damaged(source: Path, damage, rng, at: Path) -> Candidate:
    """A copy with one damaged file, where the copy before was."""
    if source.is_dir():
        folder = at / source.name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source, folder)
        file = sorted(folder.iterdir())[rng.integers(FRAMES)]
        file.write_bytes(damage(file.read_bytes(), rng))
        return Candidate(folder, "frames", source.name)
    path = at / source.name
    path.write_bytes(damage(source.read_bytes(), rng))
    return Candidate(path, "video", source.name)


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_thousand_damaged_recordings(tmp_path, sources, damage):
    rng = np.random.default_rng(DAMAGE.index(damage))
    assert len(DAMAGE) * len(sources) * SHARE == 1000
    kept = refused = halves = 0
    for name, source in sources.items():
        kind = "frames" if source.is_dir() else "video"
        whole = shown(Candidate(source, kind, name))
        assert isinstance(whole, np.ndarray)
        for _ in range(SHARE):
            candidate = damaged(source, damage, rng, tmp_path)
            found = shown(candidate)
            if isinstance(found, Rejection):
                is_named(found, candidate)
                refused += 1
                if damage is truncated and kind == "video":
                    part = timed(candidate, ReaderOptions(allow_truncated=True))
                    if not isinstance(part, Rejection):  # what is kept is true, and at its time
                        np.testing.assert_array_equal(part[1], whole[np.rint(8 * part[0]).astype(int)])
                        halves += 1
            else:
                kept += 1
                if damage is truncated or name == "png":
                    np.testing.assert_array_equal(found, whole, f"{name}: taken for whole")
    assert refused > 0.3 * (kept + refused)
    if damage is truncated:
        assert kept < 0.1 * refused  # what follows the last picture
        assert halves > 20


def test_names_that_lie(tmp_path, sources):
    """Files of another kind than their name says: read for what they are, or named."""
    story = "once upon a time\n" * 40
    lies = {"story.mp4": story.encode(), "empty.mp4": b"", "empty.mkv": b"", "list.mp4": b"#EXTM3U\nhttp://localhost/a.mp4\n"}
    lies |= {
        "picture.mp4": (sources["png"] / "0.png").read_bytes(),
        "script.mov": b"file 'a.mp4'\n",
        "page.webm": b"<html>" * 99,
    }
    for name, data in lies.items():
        (tmp_path / name).write_bytes(data)
        candidate = Candidate(tmp_path / name, "video", name)
        found = shown(candidate)
        assert isinstance(found, Rejection)
        is_named(found, candidate)
    for source, name in (("a.mkv", "b.mp4"), ("a.mp4", "b.webm"), ("a.webm", "b.avi"), ("a.mov", "b.mp4")):
        shutil.copy(sources[source], tmp_path / name)
        kind = Candidate(tmp_path / name, "video", name)
        np.testing.assert_array_equal(shown(kind), shown(Candidate(sources[source], "video", source)))
    folder = tmp_path / "frames"
    shutil.copytree(sources["png"], folder)
    shutil.copy(sources["a.mp4"], folder / "3.png")
    found = shown(Candidate(folder, "frames", "frames"))
    assert isinstance(found, Rejection)
    assert "frames/3.png: is no jpg, png or webp picture" in found.reason
    shutil.copy(sources["jpg"] / "3.jpg", folder / "3.png")
    assert isinstance(shown(Candidate(folder, "frames", "frames")), np.ndarray)


def test_a_build_of_damaged_recordings_ends_with_a_summary(tmp_path, sources):
    rng = np.random.default_rng(9)
    root = tmp_path / "in"
    for number in range(40):
        name = list(sources)[number % len(sources)]
        at = root / f"{number:02d}"
        at.mkdir(parents=True)
        damaged(sources[name], DAMAGE[number % len(DAMAGE)], rng, at)
    for name in ("a.mp4", "png"):
        (shutil.copytree if sources[name].is_dir() else shutil.copy)(sources[name], root / f"whole_{name}")
    (root / "zero.mp4").touch()
    report = run_ingest(
        [root], tmp_path / "out", name="fuzz", licence="CC0-1.0", buckets=[Bucket(16, 16, 8, 0.5)], reader=HOW,
        filters=Filters(shots=False), progress=False,
    )  # fmt: skip
    assert wsv.verify(tmp_path / "out", progress=False) == []
    candidates = [one.name for one in find_candidates([root])[0]]
    assert len(candidates) == 43
    sound = {source["name"] for source in report.manifest["sources"]}
    left = {one.name for one in report.rejected if one.start is None}
    assert {f"in/whole_{name}" for name in ("a.mp4", "png")} <= sound
    assert "in/zero.mp4" in left
    assert sorted([*sound, *left]) == sorted(candidates), "each is one or the other"
    lines = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_bytes().splitlines()]
    assert [(row["name"], row["reason"]) for row in lines] == [(one.name, one.reason) for one in report.rejected]
    assert str(tmp_path) not in json.dumps(lines)
