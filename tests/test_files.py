"""A file appears complete or not at all."""

import pytest

from wsm_jax.files import atomic, write_file


def test_a_file_is_replaced_whole(tmp_path):
    path = tmp_path / "a.json"
    write_file(path, "é")
    assert path.read_bytes() == "é".encode()
    write_file(path, b"\xff")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.json", b"\xff")]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("old")

    def fail():
        with atomic(path) as part:
            assert part.parent == tmp_path and part.suffix == ".png" and part != path
            part.write_text("new")
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        fail()
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.png", "old")]


def test_a_folder_that_does_not_exist_is_an_oserror(tmp_path):
    with pytest.raises(OSError, match="gone"):
        write_file(tmp_path / "gone" / "a", "")
