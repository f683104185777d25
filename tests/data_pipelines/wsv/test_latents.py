"""Latents are written into a finished dataset whole or not at all, change nothing else of it, and are checked when read."""

import dataclasses
import json
import pickle
import shutil
import zipfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from data_pipelines.wsv import Dataset, repair, verify, write_latents
from data_pipelines.wsv import manifest as records
from data_pipelines.wsv.folder import Folder
from launch.data.table import table
from tests.data_pipelines.wsv.random_clips import SMALL, build, changed, contents, equal, read_all
from tests.object_store import ObjectStore

LAYOUT = dataclasses.replace(SMALL, clips=3)
CODES = np.random.default_rng(0).normal(size=(3, 4, 2)).astype(np.float32)
PROVENANCE = {"checkpoint": "runs/bridge", "step": np.int64(7)}


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    return Path(build(tmp_path_factory.mktemp("latents") / "ds", LAYOUT))


@pytest.fixture
def path(built: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(built, tmp_path / "ds"))


def file_of(path: Path, name: str = "style") -> Path:
    return path / Dataset(path).manifest["latents"][name]["file"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_written_and_read_and_nothing_else_changes(path: Path, dtype: str):
    before, everything = contents(path), read_all(Dataset(path))
    assert Dataset(path).latents("style") is None
    write_latents(path, "style", CODES.astype(dtype), PROVENANCE)
    dataset = Dataset(path)
    found = dataset.latents("style")
    assert isinstance(found, np.memmap) and found.dtype == dtype and not found.flags.writeable
    np.testing.assert_array_equal(found, CODES.astype(dtype))
    assert dataset.latents("style") is found and dataset.latents("other") is None
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(dataset)).latents("style"), found)
    assert changed(before, path) == sorted(
        ["manifest.json", "latents/style.json", dataset.manifest["latents"]["style"]["file"]]
    )
    assert equal(read_all(dataset), everything) and verify(path, progress=False) == []
    old = json.loads(before["manifest.json"])
    same = set(old) - {"files", "counts", "sha256"}
    assert {key: dataset.manifest[key] for key in same} == {key: old[key] for key in same}
    counts = dataset.manifest["counts"]
    assert counts["files"] == len(dataset.manifest["files"]) == old["counts"]["files"] + 2
    assert counts["bytes"] == sum(value["bytes"] for value in dataset.manifest["files"].values())
    line = next(line for line in table(dataset).splitlines() if line.startswith("style"))
    assert line.split()[1:6] == [dtype, "3", "x", "4", "x"] and "checkpoint runs/bridge, step 7" in line


def test_the_same_bytes_change_nothing_and_other_bytes_need_overwrite(path: Path):
    write_latents(path, "style", CODES, PROVENANCE)
    write_latents(path, "depth.v2", CODES[..., 0], {})
    before, old = contents(path), file_of(path)
    write_latents(path, "style", CODES, {"checkpoint": "elsewhere"})
    assert changed(before, path) == []
    with pytest.raises(ValueError, match=r"'style' are there with other bytes.*runs/bridge.*another name, or overwrite=True"):
        write_latents(path, "style", CODES + 1, PROVENANCE)
    assert changed(before, path) == []
    write_latents(path, "style", CODES + 1, {"step": 8}, overwrite=True)
    assert not old.exists() and verify(path, progress=False) == []
    np.testing.assert_array_equal(Dataset(path).latents("style"), CODES + 1)
    np.testing.assert_array_equal(Dataset(path).latents("depth.v2"), CODES[..., 0])
    assert Dataset(path).manifest["latents"]["style"]["provenance"] == {"step": 8}


@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("a/b", CODES, "name of letters"),
        ("", CODES, "name of letters"),
        ("..", CODES, "name of letters"),
        ("style", CODES[:2], "a row for each of 3 clips"),
        ("style", CODES.astype(np.float64), "float16 or float32"),
        ("style", CODES[:, 0, 0], "a row for each"),
        ("style", np.full((3, 2), np.nan, np.float32), "not finite"),
    ],
)
def test_what_cannot_be_stored_is_refused(path: Path, name: str, values: np.ndarray, words: str):
    before = contents(path)
    with pytest.raises(ValueError, match=words):
        write_latents(path, name, values, {})
    assert changed(before, path) == []


def test_no_dataset_no_latents(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match="no WSV dataset"):
        write_latents(tmp_path / "none", "style", CODES, {})


@pytest.mark.parametrize("last", ["the array", "the record"])
def test_a_write_that_is_killed_leaves_the_dataset_and_can_be_run_again(path: Path, last: str):
    before = read_all(Dataset(path))
    real, written = Folder.write, []

    def dies(folder: Folder, files: dict[str, bytes]) -> None:
        keys = sorted(files)[:1] if last == "the record" else sorted(files)[1:]
        real(folder, {key: files[key] for key in keys})
        written.extend(keys)
        raise KeyboardInterrupt

    with mock.patch.object(Folder, "write", dies), pytest.raises(KeyboardInterrupt):
        write_latents(path, "style", CODES, {})
    assert written and equal(read_all(Dataset(path)), before) and Dataset(path).latents("style") is None
    write_latents(path, "style", CODES, {})
    assert verify(path, progress=False) == []


def test_latents_written_by_two_processes_at_once_are_both_kept(path: Path):
    real, first = Folder.replace, []

    def replace(folder: Folder, key: str, data: bytes, before: bytes) -> bool:
        if not first:
            first.append(True)
            write_latents(path, "other", CODES + 1, {})
        return real(folder, key, data, before)

    with mock.patch.object(Folder, "replace", replace):
        write_latents(path, "style", CODES, {})
    dataset = Dataset(path)
    np.testing.assert_array_equal(dataset.latents("style"), CODES)
    np.testing.assert_array_equal(dataset.latents("other"), CODES + 1)
    assert verify(path, progress=False) == []


def test_damage_is_named_where_it_is_read_and_where_it_is_verified(path: Path):
    write_latents(path, "style", CODES, {})
    file = file_of(path)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ValueError, match=rf"{file.name}: damaged.*write the latents 'style' again with overwrite"):
        Dataset(path).latents("style")
    (line,) = verify(path, progress=False)
    assert str(file) in line and "latents style: none of them can be read" in line
    (line,) = repair(path, None, False)
    assert str(file) in line and "cannot be rebuilt: the model that made it" in line
    write_latents(path, "style", CODES, {})
    assert verify(path, progress=False) == []


@pytest.mark.parametrize("key", ["manifest.json", "latents/style.json"])
def test_what_lists_latents_is_rebuilt(path: Path, key: str):
    write_latents(path, "style", CODES, PROVENANCE)
    before = contents(path)
    (path / key).write_bytes(before[key][:-9] + b"x")
    assert any("rebuilt" in line and key in line for line in repair(path, None, False))
    assert changed(before, path) == [] and verify(path, progress=False) == []


def test_a_dataset_of_version_1_keeps_its_version(tmp_path: Path):
    with zipfile.ZipFile(Path(__file__).parent / "version1.zip") as archive:
        archive.extractall(tmp_path / "ds")
    clips = len(Dataset(tmp_path / "ds"))
    write_latents(tmp_path / "ds", "style", np.zeros((clips, 2), np.float16), {})
    dataset = Dataset(tmp_path / "ds")
    assert dataset.manifest["schema_version"] == 1 and dataset.latents("style").shape == (clips, 2)  # type: ignore
    assert verify(tmp_path / "ds", progress=False) == []


def test_latents_in_a_bucket(path: Path, monkeypatch):
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ObjectStore("bucket") as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        store.objects |= {f"bucket/ds/{key}": data for key, data in contents(path).items()}
        write_latents("s3://bucket/ds", "style", CODES, PROVENANCE)
        write_latents(path, "style", CODES, PROVENANCE)
        assert {key.removeprefix("bucket/ds/"): data for key, data in store.objects.items()} == contents(path)
        dataset = Dataset("s3://bucket/ds")
        np.testing.assert_array_equal(dataset.latents("style"), CODES)
        read = store.objects.pop("bucket/ds/" + dataset.manifest["latents"]["style"]["file"])
        np.testing.assert_array_equal(dataset.latents("style"), CODES, err_msg="read once")
        store.objects["bucket/ds/" + dataset.manifest["latents"]["style"]["file"]] = read
        write_latents("s3://bucket/ds", "style", CODES + 1, {}, overwrite=True)
        np.testing.assert_array_equal(Dataset("s3://bucket/ds").latents("style"), CODES + 1)
        assert verify("s3://bucket/ds", progress=False) == []


def test_a_manifest_is_replaced_only_where_it_is_the_one_that_was_read(path: Path):
    folder = Folder(path)
    raw = (path / records.MANIFEST).read_bytes()
    assert not folder.replace(records.MANIFEST, b"new", b"another") and not folder.replace("none", b"new", b"")
    assert folder.replace(records.MANIFEST, b"new", raw) and (path / records.MANIFEST).read_bytes() == b"new"
