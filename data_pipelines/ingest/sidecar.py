"""Captions in files beside a recording a.mp4: a.txt, a caption a line, and the subtitles a.srt (SubRip) and a.vtt (WebVTT)."""

import codecs
import html
import re
from pathlib import Path

from data_pipelines.ingest.caption import Cue
from data_pipelines.ingest.find import printable_name

_SUFFIXES = (".txt", ".srt", ".vtt")
_TIME = r"(?:(\d{1,4}):)?([0-5]?\d):([0-5]?\d)[.,](\d{3})"
_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
"""Hours (optional in WebVTT), minutes, seconds and milliseconds of the start and of the end; then the position on screen."""
_STYLE = re.compile(r"</?[a-zA-Z][^<>]*>|<[\d:.]+>|\{\\[^{}]*\}")
r"""Tags, times within a cue, and positions of SubRip, as {\an8}."""
_NO_CUE = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")
"""Beginning of the blocks of WebVTT that are no cues."""


def sidecars_of(path: Path) -> tuple[Path, ...]:
    """Paths beside a recording where files with its captions may be."""
    return tuple(path.parent / f"{path.stem}{suffix}" for suffix in _SUFFIXES)


def sidecar_captions(path: Path) -> tuple[tuple[str | Cue, ...], tuple[str, ...]]:
    """Captions in the files beside a recording, and notes on files of another encoding, which are left out.

    A line of text describes all of the recording, a cue a part of it; folders have no such files. Raises ValueError that names
    the file, and the line.
    """
    captions: list[str | Cue] = []
    notes = []
    for sidecar in () if path.is_dir() else sidecars_of(path):
        if sidecar.is_file():
            try:
                captions += _lines(sidecar) if sidecar.suffix == ".txt" else subtitles(sidecar)
            except UnicodeDecodeError as error:
                name = printable_name(sidecar.name)
                notes.append(f"{name} is left out: no text in UTF-8 or UTF-16 ({error.reason} at byte {error.start})")
    return tuple(captions), tuple(notes)


def _decoded(path: Path) -> str:
    """Text of a file in UTF-8, or in UTF-16 with a byte order mark. Raises UnicodeDecodeError."""
    with path.open("rb") as file:
        wide = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return path.read_text(encoding="utf-16" if wide else "utf-8-sig")


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in _decoded(path).split("\n") if line.strip()]


def subtitles(path: Path) -> list[Cue]:
    """Cues of a file of subtitles that have a text; the text has no styles and is on one line.

    Raises ValueError that names the file and the line that breaks the format, UnicodeDecodeError for another encoding.
    """
    blocks = _blocks(_decoded(path))
    if path.suffix == ".vtt":
        header = blocks.pop(1, [""])
        if not re.match(r"WEBVTT(\s|$)", header[0]):
            raise _bad_line(path, 1, header[0], "WEBVTT in the first line")
        _need_no_times(path, 1, header)
        blocks = {number: lines for number, lines in blocks.items() if not _NO_CUE.match(lines[0])}
    cues = [_cue(path, number, lines) for number, lines in blocks.items()]
    return [cue for cue in cues if cue.text]


def _cue(path: Path, number: int, lines: list[str]) -> Cue:
    """Cue of a block that begins at line `number`: a number or a name, which may be absent, the times, the text."""
    place = next((n for n, line in enumerate(lines[:2]) if "-->" in line), 0)
    times = _TIMES.fullmatch(lines[place])
    if times is None:
        raise _bad_line(path, number + place, lines[place], "a cue, with times as 00:01:02,500 --> 00:01:04,000")
    text = lines[place + 1 :]
    _need_no_times(path, number + place + 1, text)
    plain = " ".join(html.unescape(_STYLE.sub("", " ".join(text))).split())
    line = f"line {number + place}"
    try:
        return Cue(plain, _seconds(*times.groups()[:4]), _seconds(*times.groups()[4:]), f"{printable_name(path.name)}: {line}")
    except ValueError as error:
        raise ValueError(f"{path}: {line}: {error}; fix or remove it") from error


def _blocks(text: str) -> dict[int, list[str]]:
    """Blocks of lines between empty lines, by the number of their first line."""
    blocks: dict[int, list[str]] = {}
    begin = 0
    for number, line in enumerate(text.split("\n"), 1):
        begin = (begin or number) if line.strip() else 0
        if begin:
            blocks.setdefault(begin, []).append(line)
    return blocks


def _seconds(hours: str | None, minutes: str, seconds: str, milliseconds: str) -> float:
    return 3600 * int(hours or 0) + 60 * int(minutes) + int(seconds) + int(milliseconds) / 1000


def _need_no_times(path: Path, number: int, lines: list[str]) -> None:
    for index, line in enumerate(lines, number):
        if "-->" in line:
            raise _bad_line(path, index, line, "an empty line before every cue")


def _bad_line(path: Path, line: int, got: str, needed: str) -> ValueError:
    return ValueError(f"{path}: line {line}: got {got.strip()[:60]!r}; needed {needed}; fix or remove it")
