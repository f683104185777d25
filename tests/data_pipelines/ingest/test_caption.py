"""Captions: of any language, by name or beside the recording; what cannot be one is named with its place."""

import json

import pytest

from data_pipelines.ingest.caption import CAPTION_BYTES, beside, checked, read

TEXTS = (
    "ein roter Ball rollt",
    "一个红色的球在滚动",
    "كرة حمراء تتدحرج",
    "👩‍👩‍👧‍👦 spielen 🎾",
    "e\u0301 und é",
    "a\u2028b\u0085c\x0bd",
)


def test_json_and_lines_hold_any_language(tmp_path):
    names = [f"{i} ünï 🎬.mp4" for i in range(len(TEXTS))]
    expected = {name: [text] for name, text in zip(names, TEXTS, strict=True)}
    for ascii_only in (False, True):
        (tmp_path / "a.json").write_text(json.dumps(expected, ensure_ascii=ascii_only), encoding="utf-8")
        rows = [{"file": name, "caption": text} for name, (text,) in expected.items()]
        lines = "\n\n".join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
        for mark, end in (("", "\n"), ("\ufeff", "\r\n")):  # as some editors write
            (tmp_path / "a.jsonl").write_text(mark + lines.replace("\n", end), encoding="utf-8", newline="")
            assert read(tmp_path / "a.json") == read(tmp_path / "a.jsonl") == expected
    assert checked([f"in/{name}" for name in names], expected) == [(text,) for text in TEXTS]


@pytest.mark.parametrize("row", [{"video": "a.mp4", "text": ["x", "y"]}, {"file_name": "a.mp4", "captions": ["x", "y"]}])
def test_common_names_of_fields(tmp_path, row):
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({"path": "a.mp4", "caption": "z"}))
    assert read(tmp_path / "a.jsonl") == {"a.mp4": ["x", "y", "z"]}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.json", b"{", "is no JSON"),
        ("a.json", b"[" * 100_000, "is no JSON"),
        ("a.json", b"[]", "needed an object of lists"),
        ("a.json", b'{"a.mp4": "x"}', "needed an object of lists"),
        ("a.json", b"\xff\xfe", r"is no text in UTF-8 .*at byte 0"),
        ("a.jsonl", b'{"file": "a", "caption": "x"}\n{', "line 2 is no JSON"),
        ("a.jsonl", b"[" * 100_000, "line 1 is no JSON"),
        ("a.jsonl", b'\n\n{"file": "a"}', 'line 3: needed {"file"'),
        ("a.jsonl", b'{"file": 3, "caption": "x"}', "line 1: needed"),
        ("a.jsonl", b'{"file": "a", "caption": ["x", 3]}', "line 1: needed"),
        ("a.jsonl", b"3", "line 1: needed"),
    ],
)
def test_what_is_no_file_of_captions_is_named(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=rf"{name}: .*{message}|{name}: {message}"):
        read(tmp_path / name)


def test_names_are_those_of_the_inputs():
    names = ["in/x/a.mp4", "in/y/a.mp4", "in/b.mp4"]
    assert checked(names, {"b.mp4": ["one"], "in/y/a.mp4": ["two"]}) == [(), ("two",), ("one",)]
    with pytest.raises(KeyError, match=r"'a\.mp4' names 2 of the inputs, needed 1"):
        checked(names, {"a.mp4": ["x"]})
    with pytest.raises(KeyError, match=r"'c\.mp4' names 0 of the inputs, needed 1"):
        checked(names, {"c.mp4": ["x"]})
    # a name as long as its last part, of one that has it as its last part too
    assert checked(["b.mp4", "in/b.mp4"], {"b.mp4": ["one"]}) == [("one",), ()]


def test_limits_are_of_bytes():
    assert checked(["a"], {"a": ["🎾" * (CAPTION_BYTES // 4)]}) == [("🎾" * (CAPTION_BYTES // 4),)]
    for text, message in (("🎾" * 129, "516 bytes"), ("\n \t", "has 3 bytes"), ("a\ud83d", "half a character")):
        with pytest.raises(ValueError, match=message):
            checked(["a"], {"a": [text]})


def test_many_captions_are_matched_at_once():
    """100,000 recordings: a search of all names for each would be 10^10 steps."""
    names = [f"in/{i}.mp4" for i in range(100_000)]
    found = checked(names, {f"{i}.mp4": [str(i)] for i in range(100_000)})
    assert found[::9999] == [(str(i),) for i in range(0, 100_000, 9999)]


def test_text_beside_a_recording(tmp_path):
    path = tmp_path / "a.b.mp4"
    path.touch()
    assert beside(path) == ()
    (tmp_path / "a.b.txt").write_text(
        "\ufeff" + "\r\n".join([TEXTS[0], "", f"  {TEXTS[3]}  ", TEXTS[1]]), encoding="utf-8", newline=""
    )
    assert beside(path) == (TEXTS[0], TEXTS[3], TEXTS[1])
    (tmp_path / "a.b.txt").write_bytes("Straße".encode("latin1"))
    with pytest.raises(ValueError, match=r"a\.b\.txt: is no text in UTF-8 .*; mend or remove it"):
        beside(path)
    (tmp_path / "a.b.txt").unlink()
    (tmp_path / "a.b.txt").mkdir()
    assert beside(path) == ()
    assert beside(tmp_path) == ()
