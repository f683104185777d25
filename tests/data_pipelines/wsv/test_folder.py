"""Whole files of a local folder; test_object_store.py has the same interface on buckets."""

import pickle

import pytest

from data_pipelines.wsv.folder import Folder


def test_files_are_written_listed_read_and_removed(tmp_path):
    folder = Folder(tmp_path / "ds")
    assert folder.local and folder.read("a") is None and folder.list() == set()
    folder.write({"a": b"one", "b/c": b"two", "b/d": b""})
    assert folder.list() == {"a", "b/c", "b/d"} and folder.list("b/") == {"b/c", "b/d"}
    again = pickle.loads(pickle.dumps(folder))
    assert (again.read("a"), again.read("b/d")) == (b"one", b"")
    folder.remove("b/c", "none")
    assert folder.list() == {"a", "b/d"} and folder.name("a") == f"{tmp_path}/ds/a"


def test_a_file_is_written_once_and_replaced_only_where_it_is_known(tmp_path):
    folder = Folder(tmp_path)
    assert folder.write_new("a", b"one") and not folder.write_new("a", b"two")
    assert not folder.replace("a", b"two", b"another") and not folder.replace("none", b"two", b"")
    assert folder.read("a") == b"one" and folder.read("none") is None
    assert folder.replace("a", b"two", b"one") and folder.read("a") == b"two"


def test_parts_are_read_from_either_end(tmp_path):
    folder = Folder(tmp_path)
    folder.write({"a": b"0123456789"})
    assert [part() for part in folder.fetch("a", [(2, 3), (-4, 4), (8, 9)])] == [b"234", b"6789", b"89"]
    buffers = [bytearray(2), bytearray(3)]
    folder.read_into("a", 1, [memoryview(buffer) for buffer in buffers], 5)
    assert buffers == [b"12", b"345"]
    with pytest.raises(ValueError, match="a: has 1 bytes from 9 on, needed 5"):
        folder.read_into("a", 9, [memoryview(buffer) for buffer in buffers], 5)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match="a: a file; needed the folder of a dataset"):
        Folder(tmp_path / "a")


def test_a_file_that_was_replaced_is_opened_again_once_it_is_forgotten(tmp_path):
    folder = Folder(tmp_path)
    folder.write({"a": b"old"})
    (before,) = folder.fetch("a", [(0, 3)])
    folder.write({"a": b"new"})
    folder.forget("a")
    (after,) = folder.fetch("a", [(0, 3)])
    assert (before(), after()) == (b"old", b"new")
