"""Captions: of any language, by name, with times or without; what cannot be one is named with its place."""

import json

import numpy as np
import pytest

from data_pipelines.ingest.caption import Captions, Cue, drop_late_cues, match_captions, read_captions
from wsm_jax.text import CAPTION_BYTES

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
            assert read_captions(tmp_path / "a.json") == read_captions(tmp_path / "a.jsonl") == expected
    assert match_captions([f"in/{name}" for name in names], expected) == [(text,) for text in TEXTS]


@pytest.mark.parametrize("row", [{"video": "a.mp4", "text": ["x", "y"]}, {"file_name": "a.mp4", "captions": ["x", "y"]}])
def test_common_names_of_fields(tmp_path, row):
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n" + json.dumps({"path": "a.mp4", "caption": "z"}))
    assert read_captions(tmp_path / "a.jsonl") == {"a.mp4": ["x", "y", "z"]}


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
        read_captions(tmp_path / name)


def test_names_are_those_of_the_inputs():
    names = ["in/x/a.mp4", "in/y/a.mp4", "in/b.mp4"]
    assert match_captions(names, {"b.mp4": ["one"], "in/y/a.mp4": ["two"]}) == [(), ("two",), ("one",)]
    with pytest.raises(KeyError, match=r"'a\.mp4' names 2 of the inputs, needed 1"):
        match_captions(names, {"a.mp4": ["x"]})
    with pytest.raises(KeyError, match=r"'c\.mp4' names 0 of the inputs, needed 1"):
        match_captions(names, {"c.mp4": ["x"]})
    # a name as long as its last part, of one that has it as its last part too
    assert match_captions(["b.mp4", "in/b.mp4"], {"b.mp4": ["one"]}) == [("one",), ()]


def test_limits_are_of_bytes():
    assert match_captions(["a"], {"a": ["🎾" * (CAPTION_BYTES // 4)]}) == [("🎾" * (CAPTION_BYTES // 4),)]
    for text, message in (("🎾" * 129, "516 bytes"), ("\n \t", "has 3 bytes"), ("a\ud83d", "half a character")):
        with pytest.raises(ValueError, match=message):
            match_captions(["a"], {"a": [text]})


def test_many_captions_are_matched_at_once():
    """100,000 recordings: a search of all names for each would be 10^10 steps."""
    names = [f"in/{i}.mp4" for i in range(100_000)]
    found = match_captions(names, {f"{i}.mp4": [str(i)] for i in range(100_000)})
    assert found[::9999] == [(str(i),) for i in range(0, 100_000, 9999)]


def test_times_are_read_from_lines_and_objects(tmp_path):
    lines = [
        {"file": "a.mp4", "caption": "whole"},
        {"file": "a.mp4", "captions": ["x", "y"], "start": 1, "end": 2.5},
        {"file": "a.mp4", "caption": "z", "start": None, "end": None},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    cues = [Cue(text, 1.0, 2.5, "a.jsonl: line 2") for text in ("x", "y")]
    assert read_captions(tmp_path / "a.jsonl") == {"a.mp4": ["whole", *cues, "z"]}
    given = {"a.mp4": ["whole", {"text": "x", "start": 1, "end": 2.5}, {"text": "z"}]}
    (tmp_path / "a.json").write_text(json.dumps(given))
    found = read_captions(tmp_path / "a.json")
    assert found == {"a.mp4": ["whole", Cue("x", 1.0, 2.5, "a.json: text 2 of 'a.mp4'"), "z"]}
    assert match_captions(["in/a.mp4"], found) == [tuple(found["a.mp4"])]
    assert Captions.from_list(found["a.mp4"]) == Captions(("whole", "x", "z"), (None, (1.0, 2.5), None))
    assert Captions.from_list(["whole", "z"]) == Captions(("whole", "z"))


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("2", "1", r"'x' from 2\.0 to 1\.0 s; needed seconds, 0 <= start < end"),
        ("2", "2", r"'x' from 2\.0 to 2\.0 s"),
        ("-1", "1", r"'x' from -1\.0 to 1\.0 s"),
        ("NaN", "1", "'x' from nan to 1"),
        ("0", "NaN", "'x' from 0.0 to nan s"),
        ("0", "Infinity", "'x' from 0.0 to inf s"),
        ("0", "1" + "0" * 400, "int too large"),
        ("0", "null", "'x' from 0 to None; needed both in seconds, or neither"),
        ("null", "1", "'x' from None to 1; needed both"),
        ('"0"', "1", "'x' from '0' to 1; needed both"),
        ("false", "1", "'x' from False to 1; needed both"),
    ],
)
def test_times_that_are_none_are_named_with_their_place(tmp_path, start, end, message):
    (tmp_path / "a.jsonl").write_text(
        f'{{"file": "b", "caption": "y"}}\n{{"file": "a", "caption": "x", "start": {start}, "end": {end}}}'
    )
    with pytest.raises(ValueError, match=rf"{tmp_path}/a\.jsonl: line 2: {message}"):
        read_captions(tmp_path / "a.jsonl")
    (tmp_path / "a.json").write_text(f'{{"a": ["y", {{"text": "x", "start": {start}, "end": {end}}}]}}')
    with pytest.raises(ValueError, match=rf"{tmp_path}/a\.json: text 2 of 'a': {message}"):
        read_captions(tmp_path / "a.json")


@pytest.mark.parametrize("item", ["3", "[]", '{"start": 1, "end": 2}', '{"text": 3}', '{"text": "x", "begin": 1, "end": 2}'])
def test_an_item_that_is_no_text_is_named(tmp_path, item):
    (tmp_path / "a.json").write_text(f'{{"a.mp4": ["x", {item}]}}')
    with pytest.raises(ValueError, match=r"a\.json: text 2 of 'a\.mp4' is .*; needed \{"):
        read_captions(tmp_path / "a.json")


def test_texts_of_cues_are_checked_as_those_without_times():
    for text, message in (("", "0 bytes"), ("é" * 300, "600 bytes"), ("\ud800", "no Unicode")):
        with pytest.raises(ValueError, match=rf"a text of 'a' .*{message}"):
            match_captions(["a"], {"a": [Cue(text, 0.0, 1.0)]})


def test_a_part_has_what_shares_time_with_it_shifted_and_cut():
    """Whatever the parts, each instant of a caption is in the part that it is of, and at the same instant there."""
    rng = np.random.default_rng(0)
    starts = rng.uniform(0, 20, 40)
    ends = starts + rng.uniform(0.1, 15, 40)
    spans = (None, *((float(a), float(b)) for a, b in zip(starts, ends, strict=True)))
    captions = Captions(tuple(map(str, range(41))), spans)
    for start, end in ((0.0, 2.0), (2.0, 4.0), (3.3, 7.1), (0, 40), (39.0, 40.0)):
        found = captions.crop(start, end)
        given = dict(zip(found.text, found.spans or (None,), strict=True))
        assert given.pop("0") is None
        assert set(given) == {str(n) for n, (a, b) in enumerate(spans[1:], 1) if a < end and b > start}
        for text, span in given.items():
            a, b = spans[int(text)]
            np.testing.assert_allclose(span, [max(a, start) - start, min(b, end) - start], atol=1e-6)
            assert 0 <= span[0] < span[1] <= end - start + 1e-6
    assert Captions(("x",), ((2.0, 3.0),)).crop(0, 2) == Captions(), "what ends where it begins shares nothing"
    assert Captions(("x",), ((2.3, 3.0),)).crop(2.0, 4.0).spans == ((0.3, 1.0),), "no dust of binary numbers"
    assert Captions(("x", "y"), (None, (2.0, 3.0))).crop(0, 2) == Captions(("x",)), "none that is left has times"
    assert Captions(("x", "y")).crop(5, 6) == Captions(("x", "y"))


def test_cues_after_the_end_are_left_out_and_noted():
    cues = ["whole", Cue("a", 1, 99), Cue("b", 10.0, 11.0, "a.srt: line 8"), Cue("c", 12, 13, "a.srt: line 12")]
    captions, note = drop_late_cues(cues, 10.0)
    assert captions == Captions(("whole", "a"), (None, (1.0, 99.0)))
    wanted = "2 captions begin at its end (10.000 s) or later and are left out, the first at 10 s (a.srt: line 8)"
    assert note == wanted
    assert drop_late_cues(cues[:2], 10.0)[1] == ""
