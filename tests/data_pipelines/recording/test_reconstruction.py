"""Fields of a reconstruction are checked one by one, and its files never lie outside its folder."""

import math

import numpy as np
import pytest

from data_pipelines.recording.reconstruction import (
    check_complete,
    find_file,
    folder_name,
    json_number,
    json_numbers,
    json_object,
    json_text,
    read_json,
)


def test_valid_fields_come_back():
    assert json_object({"a": 1}, "x") == {"a": 1}
    assert json_text("t", "x") == "t"
    assert json_number(2, "x") == 2.0
    np.testing.assert_array_equal(json_numbers([[1, 2], [3, 4.5]], (2, 2), "x"), [[1, 2], [3, 4.5]])


@pytest.mark.parametrize(
    ("check", "value", "needed"),
    [
        (json_object, [], "an object"),
        (json_object, None, "an object"),
        (json_text, "", "a text"),
        (json_text, 3, "a text"),
        (json_number, True, "a finite number"),
        (json_number, math.nan, "a finite number"),
        (json_number, 10**400, "a finite number"),
        (json_number, "1", "a finite number"),
        (lambda value, context: json_numbers(value, (2, 2), context), [[1, 2]], "2 x 2 numbers"),
        (lambda value, context: json_numbers(value, (2,), context), [1, "2"], "a finite number"),
    ],
)
def test_invalid_fields_are_refused_with_their_context(check, value, needed):
    with pytest.raises(ValueError, match=rf"a\.json: frame 3: got .*; needed {needed}"):
        check(value, "a.json: frame 3")


def test_files_are_found_in_order_and_only_inside(tmp_path):
    root, source = tmp_path / "root", tmp_path / "root" / "a.json"
    (root / "images").mkdir(parents=True)
    (root / "images" / "a.png").touch()
    (root / "a.png").touch()
    (tmp_path / "b.png").touch()
    assert find_file(root, "a.png", ("images", "."), source) == root / "images" / "a.png"
    assert find_file(root, "a.png", (".", "images"), source) == root / "a.png"
    assert find_file(root, "c.png", ("images",), source) is None
    for name in ("../b.png", str(tmp_path / "b.png"), "../gone.png"):
        with pytest.raises(ValueError, match=r"a\.json: names .*, which lies outside"):
            find_file(root, name, (".",), source)
    (root / "link.png").symlink_to(tmp_path / "b.png")
    assert find_file(root, "link.png", (".",), source) == root / "link.png", "links inside the folder are followed"
    assert folder_name(root / ".") == "root"


def test_missing_photos_are_noted_or_refused(tmp_path):
    source = tmp_path / "a.json"
    assert check_complete(source, tmp_path, 3, [], False) == []
    assert check_complete(source, tmp_path, 3, ["x"], True) == ["1 of 3 views left out, their photos are missing: first x"]
    for missing, allowed in ((["x"], False), (["x", "y", "z"], True)):
        with pytest.raises(FileNotFoundError, match=rf"{len(missing)} of its 3 photos are not in .*first x"):
            check_complete(source, tmp_path, 3, missing, allowed)


def test_what_is_no_json_is_named(tmp_path):
    (tmp_path / "a.json").write_text("\ufeff[1]", encoding="utf-8")
    assert read_json(tmp_path / "a.json") == [1]
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match=r"a\.json: is no JSON"):
        read_json(tmp_path / "a.json")
    with pytest.raises(FileNotFoundError, match=r"b\.json: no such file"):
        read_json(tmp_path / "b.json")
