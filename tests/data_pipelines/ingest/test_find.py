"""Finding: every kind is known by its files, nothing is opened, loops end, and names are unique and of no machine."""

import os
import shutil
from pathlib import Path

import pytest

from data_pipelines.ingest.find import assign_masks, find_candidates, find_with_masks, recording_kind


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(*inputs) -> list[tuple[str, str]]:
    return [(one.name, one.kind) for one in find_candidates(inputs)[0]]


def rejections(*inputs) -> dict[str, str]:
    return {one.name: one.reason for one in find_candidates(inputs)[1]}


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("frames", ["2.PNG", "10.jpg", "notes.txt"]),
        ("tum", ["rgb.txt", "depth.txt", "rgb/0.png", "depth/0.png"]),
        ("redwood", ["color/0.jpg", "depth/0.png"]),
        ("redwood", ["rgb/0.jpg", "depth/0.png"]),
        ("transforms", ["transforms.json", "images/0.png"]),
        ("rlds", ["features.json", "x-train.tfrecord-00000-of-00001"]),
        ("opensfm", ["reconstruction.json", "images/0.jpg"]),
        ("colmap", ["cameras.bin", "images.bin"]),
        ("colmap", ["sparse/0/cameras.txt", "images/0.jpg"]),
        ("lerobot", ["meta/info.json", "videos/a.mp4"]),
        ("", ["notes.txt"]),
        ("", ["0.png", "below/1.png"]),
        ("", ["0.png", "a.mp4"]),
    ],
)
def test_kinds_of_folders(tmp_path, kind, names):
    touch(tmp_path / "x", *names)
    assert recording_kind(tmp_path / "x") == kind
    if kind:
        (one,) = find_candidates([tmp_path / "x"])[0]
        assert (one.kind, one.name) == (kind, "x")
        assert one.path.name == ("reconstruction.json" if kind == "opensfm" else "x")
        assert found(tmp_path) == [(f"{tmp_path.name}/x", kind)]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *[(f"a{suffix}", "video") for suffix in (".mp4", ".MOV", ".m4v", ".webm", ".mkv", ".avi", ".3gp")],
        ("transforms_train.json", "transforms"),
        ("fractal-train.tfrecord-00001-of-01024", "rlds"),
        ("a.txt", ""),
        ("mp4", ""),
        ("transforms.txt", ""),
    ],
)
def test_kinds_of_files(tmp_path, name, kind):
    touch(tmp_path, name)
    assert recording_kind(tmp_path / name) == kind
    assert found(tmp_path) == ([(f"{tmp_path.name}/{name}", kind)] if kind else [])
    assert found(tmp_path / name) == [(name, kind or "video")], "a file that is named is a video, if nothing else"


def test_folders_are_searched_in_a_fixed_order_and_hidden_files_are_not(tmp_path):
    touch(tmp_path / "in", "b/z.mp4", "b/a.mp4", "a.mkv", "c/d/e/0.png", ".hidden.mp4", "._a.mkv", ".cache/x.mp4", "read.me")
    assert found(tmp_path / "in") == [
        ("in/a.mkv", "video"),
        ("in/b/a.mp4", "video"),
        ("in/b/z.mp4", "video"),
        ("in/c/d/e", "frames"),
    ]
    assert rejections(tmp_path / "in") == {}


def test_a_folder_that_holds_nothing_is_named(tmp_path):
    touch(tmp_path / "in", "notes.txt")
    (tmp_path / "empty").mkdir()
    for name in ("in", "empty"):
        assert "holds no recording" in rejections(tmp_path / name)[name]
    with pytest.raises(FileNotFoundError, match=r"gone\.mp4: no such file"):
        find_candidates([tmp_path / "gone.mp4"])


def test_pictures_of_no_recording_are_counted(tmp_path):
    touch(tmp_path / "in", "a.mp4", "thumb.jpg", "b/0.bmp", "b/1.bmp", "c/0.png", "c/d/0.png")
    named = rejections(tmp_path / "in")
    assert found(tmp_path / "in") == [("in/a.mp4", "video"), ("in/c/d", "frames")]
    assert {name: reason.split(" of no")[0] for name, reason in named.items()} == {
        "in": "holds 1 pictures (.jpg)",
        "in/b": "holds 2 pictures (.bmp)",
        "in/c": "holds 1 pictures (.png)",
    }


def test_pictures_of_a_reconstruction_are_no_frames(tmp_path):
    touch(tmp_path / "lego", "transforms_train.json", "transforms_test.json", "train/0.png", "test/0.png", "film.mp4")
    assert [name for name, _ in found(tmp_path)] == [
        f"{tmp_path.name}/lego/{name}" for name in ("film.mp4", "transforms_test.json", "transforms_train.json")
    ]


def test_loops_of_links_end(tmp_path):
    root = touch(tmp_path / "in", "a/x.mp4", "b/y.mp4")
    (root / "a" / "up").symlink_to(root)
    (root / "b" / "other").symlink_to(root / "a")
    (root / "b" / "self.mp4").symlink_to(root / "b" / "self.mp4")
    (root / "b" / "gone.mp4").symlink_to(tmp_path / "nowhere")
    (root / "first").symlink_to(root / "second")
    (root / "second").symlink_to(root / "first")
    (root / "c.mp4").symlink_to(root / "a" / "x.mp4")
    assert found(root) == [("in/a/x.mp4", "video"), ("in/b/y.mp4", "video"), ("in/c.mp4", "video")]
    named = rejections(root)
    assert sorted(named) == ["in/b/gone.mp4", "in/b/self.mp4", "in/first", "in/second"]
    assert "Too many levels of symbolic links" in named["in/first"]
    with pytest.raises(FileNotFoundError, match="first: no such file"):
        find_candidates([root / "first"])


def test_deep_folders_end(tmp_path):
    root = tmp_path / "in"
    root.mkdir()
    here = os.open(root, os.O_RDONLY)
    for _ in range(460):  # deeper than a path may be long
        os.mkdir("a" * 8, dir_fd=here)
        below = os.open("a" * 8, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    touch(root, "b.mp4")
    try:
        candidates, rejected = find_candidates([root])
        assert [one.name for one in candidates] == ["in/b.mp4"]
        assert len(rejected) == 1
        assert "nested too deeply" in rejected[0].reason or "File name too long" in rejected[0].reason
    finally:  # too deep for what clears up after tests
        while (inside := root / ("a" * 8)).exists():
            for entry in inside.iterdir():
                entry.rename(tmp_path / "next")
            inside.rmdir()
            if (tmp_path / "next").exists():
                (tmp_path / "next").rename(inside)


def test_names_are_unique_and_hold_no_directory_of_the_machine(tmp_path, monkeypatch):
    touch(tmp_path, "one/a.mp4", "two/a.mp4", "two/b.mp4")
    inputs = [tmp_path / "one" / "a.mp4", tmp_path / "two" / "a.mp4", tmp_path / "two", tmp_path / "one" / "a.mp4"]
    names = [one.name for one in find_candidates(inputs)[0]]
    assert names == ["1/a.mp4", "2/a.mp4", "3/two/a.mp4", "3/two/b.mp4", "4/a.mp4"]
    assert [one.name for one in find_candidates(inputs[1:3])[0]] == ["a.mp4", "two/a.mp4", "two/b.mp4"]
    monkeypatch.chdir(tmp_path / "two")
    assert [one.name for one in find_candidates(["."])[0]] == ["two/a.mp4", "two/b.mp4"]
    assert [one.name for one in find_candidates(["../one"])[0]] == ["one/a.mp4"]
    assert find_candidates([".."])[0][0].name == f"{tmp_path.name}/one/a.mp4"
    assert "searched before" in rejections(".", tmp_path / "two")["2/two"]


def test_names_that_are_no_text_are_spelled(tmp_path):
    path = os.fsencode(tmp_path) + b"/\xff\xfe.mp4"
    open(path, "wb").close()
    touch(tmp_path, "видео 🎬.mp4")
    names = [name for name, _ in found(tmp_path)]
    assert names == [f"{tmp_path.name}/видео 🎬.mp4", f"{tmp_path.name}/\\xff\\xfe.mp4"]
    assert all(name.encode() for name in names)


def test_many_files_are_listed_and_not_opened(tmp_path, monkeypatch):
    """Of 100,000 frames nothing is asked, of each file of no kind whether it is a folder."""
    folder, other = tmp_path / "frames", tmp_path / "other"
    for root, suffix, count in ((folder, "png", 100_000), (other, "dat", 2000)):
        root.mkdir()
        for i in range(count):
            os.mknod(root / f"{i}.{suffix}")
    touch(other, "a.mp4")
    asked = 0
    ask = os.stat

    def counted(*args, **keys):
        nonlocal asked
        asked += 1
        return ask(*args, **keys)

    def refused(*_args, **_keys):
        raise AssertionError("a file is opened")

    monkeypatch.setattr("builtins.open", refused)
    monkeypatch.setattr("io.open", refused)
    monkeypatch.setattr(os, "stat", counted)
    assert found(folder, other) == [("frames", "frames"), ("other/a.mp4", "video")]
    assert asked < 2000 + 100
    monkeypatch.undo()
    shutil.rmtree(folder)


def test_masks_go_to_recordings_by_name(tmp_path):
    touch(tmp_path / "in", "x/a.mp4", "y/a.mp4", "y/b.v2.mp4", "bear/0.png", "y/plain.mp4", "scan/cameras.bin")
    masks = touch(tmp_path / "masks", "x/a/0.png", "y/a/0.png", "b.v2/0.png", "bear/0.png", "lion/0.png", "scan/0.png")
    candidates, rejected = assign_masks(find_candidates([tmp_path / "in"])[0], masks)
    assert {one.name: one.masks and str(one.masks.relative_to(masks)) for one in candidates} == {
        "in/bear": "bear",
        "in/scan": None,
        "in/x/a.mp4": "x/a",
        "in/y/a.mp4": "y/a",
        "in/y/b.v2.mp4": "b.v2",
        "in/y/plain.mp4": None,
    }
    assert [(one.name, one.reason) for one in rejected] == [
        ("masks/lion", "masks of no recording"),
        ("masks/scan", "masks of no recording"),
    ]
    touch(masks, "a/0.png")
    (masks / "x" / "a" / "0.png").unlink()
    (masks / "x" / "a").rmdir()
    (masks / "y" / "a" / "0.png").unlink()
    (masks / "y" / "a").rmdir()
    with pytest.raises(KeyError, match=r"may be of in/x/a\.mp4 and of in/y/a\.mp4"):
        assign_masks(find_candidates([tmp_path / "in"])[0], masks)
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        assign_masks([], tmp_path / "nowhere")


def test_masks_are_files_too(tmp_path):
    """By the name of the recording, with a suffix of their own; what is of none is named, and so are two of one."""
    touch(tmp_path / "in", "x/a.mp4", "y/a.mp4", "b.v2.mp4", "c.mp4", "bear/0.png", "d.mp4", "e.mp4")
    files = ("x/a.npy", "y/a.npz", "b.v2.mkv", "c.mp4", "bear.avi", "d.mov")
    masks = touch(tmp_path / "masks", *files, "spare.npy", "lion.MKV", "e.webm", "notes.txt", ".hidden.npy")
    candidates, rejected = find_with_masks([tmp_path / "in"], masks)
    assert {one.name: one.masks and str(one.masks.relative_to(masks)) for one in candidates} == {
        "in/b.v2.mp4": "b.v2.mkv",
        "in/bear": "bear.avi",
        "in/c.mp4": "c.mp4",
        "in/d.mp4": "d.mov",
        "in/e.mp4": None,
        "in/x/a.mp4": "x/a.npy",
        "in/y/a.mp4": "y/a.npz",
    }
    assert [(one.name, one.reason) for one in rejected] == [
        (f"masks/{name}", "masks of no recording") for name in ("e.webm", "lion.MKV", "spare.npy")
    ]
    touch(masks, "c/0.png")
    with pytest.raises(KeyError, match=r"masks/c and .*masks/c\.mp4 may both be of c; needed one of them"):
        find_with_masks([tmp_path / "in"], masks)


def test_masks_within_the_input_are_no_frames(tmp_path):
    touch(tmp_path / "davis", "JPEGImages/bear/0.jpg", "Annotations/bear/0.png")
    assert len(find_candidates([tmp_path / "davis"])[0]) == 2
    (one,), rejected = find_candidates([tmp_path / "davis"], [tmp_path / "davis" / "Annotations"])
    assert (one.name, rejected) == ("davis/JPEGImages/bear", [])
    (one,), _ = assign_masks([one], tmp_path / "davis" / "Annotations")
    assert one.masks == tmp_path / "davis" / "Annotations" / "bear"
