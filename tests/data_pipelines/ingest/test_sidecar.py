"""Files beside a recording: a text, subtitles of two formats; what is none of the format is named with its line."""

import re

import pytest

from data_pipelines.ingest.caption import Cue
from data_pipelines.ingest.sidecar import sidecar_captions, sidecars_of, subtitles
from tests.data_pipelines.ingest.test_caption import TEXTS

CUES = [("one", 1.0, 2.5), ("two lines & a < b", 2.5, 62.001), ("كرة 🎾", 3723.25, 3724.0)]
SRT = """1
00:00:01,000 --> 00:00:02,500
{\\an8}<i>one</i>

2
00:00:02,500 --> 00:01:02,001  X1:40 X2:600
<font color="#fff">two</font>
  lines &amp; a < b

3
01:02:03,250 --> 01:02:04,000
كرة 🎾

4
01:02:05,000 --> 01:02:06,000
"""
VTT = """WEBVTT - of a film
Kind: captions

STYLE
::cue { color: lime }

NOTE what follows
is said

first
00:01.000 --> 00:02.500 align:start position:0%
<v.loud Bob><c>o<00:01.500>ne</c>

00:00:02.500 --> 00:01:02.001
two
lines &amp; a &lt; b

NOTE

01:02:03.250 --> 01:02:04.000
كرة 🎾
"""


@pytest.mark.parametrize(("name", "text", "lines"), [("a.srt", SRT, [2, 6, 11]), ("a.vtt", VTT, [11, 14, 20])])
@pytest.mark.parametrize(("mark", "end"), [("", "\n"), ("\ufeff", "\r\n"), ("", "\r")])
def test_subtitles_are_cues_without_styles(tmp_path, name, text, lines, mark, end):
    (tmp_path / name).write_text(mark + text.replace("\n", end), encoding="utf-8", newline="")
    wanted = [Cue(*cue, f"{name}: line {line}") for cue, line in zip(CUES, lines, strict=True)]
    assert subtitles(tmp_path / name) == wanted


def test_empty_files_hold_no_cues(tmp_path):
    (tmp_path / "a.srt").write_text("\n\n")
    (tmp_path / "a.vtt").write_text("WEBVTT\n")
    assert subtitles(tmp_path / "a.srt") == subtitles(tmp_path / "a.vtt") == []


GOOD = "1\n00:00:01,000 --> 00:00:02,000\nx\n\n"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "a.srt",
            "what it shows",
            r"line 1: got 'what it shows'; needed a cue, with times as 00:01:02,500 --> 00:01:04,000; fix",
        ),
        ("a.srt", GOOD + "2\n00:00:0x,000 --> 00:00:03,000\ny", "line 6: got '00:00:0x,000 --> 00:00:03,000'; needed a cue"),
        ("a.srt", GOOD + "00:00:02,000 -> 00:00:03,000\ny", "line 5: got '00:00:02,000 -> 00:00:03,000'; needed a cue"),
        ("a.srt", GOOD + "2\n-00:00:02,000 --> 00:00:03,000\ny", "line 6: got '-00:00:02,000 "),
        ("a.srt", GOOD + "2\n00:00:02,000 --> NaN\ny", "line 6: got '00:00:02,000 --> NaN'"),
        ("a.srt", GOOD + "2\n00:00:61,000 --> 00:02:00,000\ny", "line 6: got"),
        ("a.srt", GOOD + "2\n00:00:02,5 --> 00:00:03,5\ny", "line 6: got"),
        ("a.srt", GOOD + f"2\n{'9' * 400}:00:02,000 --> {'9' * 400}:00:03,000\ny", "line 6: got"),
        (
            "a.srt",
            GOOD + "2\n00:00:03,000 --> 00:00:02,000\ny",
            r"line 6: 'y' from 3\.0 to 2\.0 s; needed seconds, 0 <= start < end; fix",
        ),
        ("a.srt", GOOD + "2\n00:00:03,000 --> 00:00:03,000\ny", "line 6: 'y' from 3.0 to 3.0 s"),
        (
            "a.srt",
            GOOD[:-1] + "2\n00:00:02,000 --> 00:00:03,000\ny",
            "line 5: got '00.*; needed an empty line before every cue",
        ),
        ("a.vtt", GOOD, "line 1: got '1'; needed WEBVTT in the first line; fix or remove it"),
        ("a.vtt", "", "line 1: got ''; needed WEBVTT"),
        ("a.vtt", "WEBVTTX\n", "line 1: got 'WEBVTTX'; needed WEBVTT"),
        ("a.vtt", "WEBVTT\n00:01.000 --> 00:02.000\nx", "line 2: got '00:01.000 --> .*; needed an empty line before every cue"),
        ("a.vtt", "WEBVTT\n\n1.0 --> 2.0\nx", "line 3: got '1.0 --> 2.0'; needed a cue"),
        ("a.vtt", "WEBVTT\n\nNOTES\nx", "line 3: got 'NOTES'; needed a cue"),
    ],
)
def test_what_is_no_subtitle_is_named_with_its_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=f"{tmp_path}/{name}: {message}"):
        subtitles(tmp_path / name)


def test_text_beside_a_recording(tmp_path):
    path = tmp_path / "a.b.mp4"
    path.touch()
    assert sidecar_captions(path) == ((), ())
    (tmp_path / "a.b.txt").write_text(
        "\ufeff" + "\r\n".join([TEXTS[0], "", f"  {TEXTS[3]}  ", TEXTS[1]]), encoding="utf-8", newline=""
    )
    assert sidecar_captions(path) == ((TEXTS[0], TEXTS[3], TEXTS[1]), ())
    (tmp_path / "a.b.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nv")
    (tmp_path / "a.b.srt").write_text(GOOD)
    cues = (Cue("x", 1.0, 2.0, "a.b.srt: line 2"), Cue("v", 1.0, 2.0, "a.b.vtt: line 3"))
    assert sidecar_captions(path) == ((TEXTS[0], TEXTS[3], TEXTS[1], *cues), ()), "what is of the whole comes first"
    (tmp_path / "a.b.txt").unlink()
    assert sidecar_captions(path) == (cues, ())


@pytest.mark.parametrize("suffix", ["txt", "srt", "vtt"])
def test_a_file_in_another_encoding_is_noted_and_left_out(tmp_path, suffix):
    path = tmp_path / "a.b.mp4"
    path.touch()
    (tmp_path / "a.b.srt").write_text(GOOD)
    cues = (Cue("x", 1.0, 2.0, "a.b.srt: line 2"),) * (suffix != "srt")
    sidecar = tmp_path / f"a.b.{suffix}"
    assert sidecar in sidecars_of(path)
    for raw, why in (("Straße".encode("latin1"), "invalid .* at byte 4"), (b"\xff\xfea", "truncated data at byte 2")):
        sidecar.write_bytes(raw)
        captions, (note,) = sidecar_captions(path)
        assert captions == cues
        assert re.fullmatch(rf"a\.b\.{suffix} is left out: no text in UTF-8 or UTF-16 \({why}\)", note)
    sidecar.unlink()
    sidecar.mkdir()
    assert sidecar_captions(path) == (cues, ())
    assert sidecar_captions(tmp_path) == ((), ())


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
def test_utf_16_with_a_byte_order_mark_is_read(tmp_path, encoding):
    mark = "" if encoding == "utf-16" else "\ufeff"
    (tmp_path / "a.txt").write_text(mark + "\r\n".join(TEXTS), encoding=encoding, newline="")
    (tmp_path / "a.srt").write_text(mark + SRT, encoding=encoding)
    (tmp_path / "a.vtt").write_text(mark + VTT, encoding=encoding)
    captions, notes = sidecar_captions(tmp_path / "a.mp4")
    assert [one for one in captions if isinstance(one, str)] == [text.strip() for text in TEXTS]
    assert [(cue.text, cue.start, cue.end) for cue in captions if isinstance(cue, Cue)] == CUES * 2
    assert notes == ()
