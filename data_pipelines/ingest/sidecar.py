"""Captions in files beside a recording a.mp4: a.txt, a caption a line, and the subtitles a.srt (SubRip) and a.vtt (WebVTT)."""

import html
import re
from pathlib import Path

from data_pipelines.ingest.caption import Cue, decoded
from data_pipelines.ingest.find import readable

_SUFFIXES = (".txt", ".srt", ".vtt")
_TIME = r"(?:(\d{1,4}):)?([0-5]?\d):([0-5]?\d)[.,](\d{3})"
_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
"""Hours, which WebVTT may leave out, minutes, seconds and milliseconds of the start and of the end; then where it is shown."""
_STYLE = re.compile(r"</?[a-zA-Z][^<>]*>|<[\d:.]+>|\{\\[^{}]*\}")
r"""Tags, times within a cue, and what SubRip has for places, as {\an8}."""
_NO_CUE = re.compile(r"(NOTE|STYLE|REGION)(\s|$)")
"""How the blocks of WebVTT that are no cues begin."""


def sidecars_of(path: Path) -> tuple[Path, ...]:
    """The files beside a recording that may hold its captions, and may not be there."""
    return tuple(path.parent / f"{path.stem}{suffix}" for suffix in _SUFFIXES)


def beside(path: Path) -> tuple[str | Cue, ...]:
    """What the files beside a recording say: a line of text is of all of it, a cue of a part; folders have no such files.

    Raises ValueError that names the file, and the line.
    """
    found: list[str | Cue] = []
    for sidecar in () if path.is_dir() else sidecars_of(path):
        if sidecar.is_file():
            found += _lines(sidecar) if sidecar.suffix == ".txt" else subtitles(sidecar)
    return tuple(found)


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in decoded(path).split("\n") if line.strip()]


def subtitles(path: Path) -> list[Cue]:
    """The cues of a file of subtitles that have a text, which is without styles and on one line.

    Raises ValueError that names the file and the line of what is none of the format.
    """
    blocks = _blocks(decoded(path))
    if path.suffix == ".vtt":
        header = blocks.pop(1, [""])
        if not re.match(r"WEBVTT(\s|$)", header[0]):
            raise _bad(path, 1, header[0], "WEBVTT in the first line")
        _need_no_times(path, 1, header)
        blocks = {number: lines for number, lines in blocks.items() if not _NO_CUE.match(lines[0])}
    found = [_cue(path, number, lines) for number, lines in blocks.items()]
    return [cue for cue in found if cue.text]


def _cue(path: Path, number: int, lines: list[str]) -> Cue:
    """The cue of a block that begins at line `number`: perhaps a number or a name, the times, the text."""
    place = next((n for n, line in enumerate(lines[:2]) if "-->" in line), 0)
    times = _TIMES.fullmatch(lines[place])
    if times is None:
        raise _bad(path, number + place, lines[place], "a cue, with times as 00:01:02,500 --> 00:01:04,000")
    text = lines[place + 1 :]
    _need_no_times(path, number + place + 1, text)
    said = " ".join(html.unescape(_STYLE.sub("", " ".join(text))).split())
    line = f"line {number + place}"
    try:
        return Cue(said, _seconds(*times.groups()[:4]), _seconds(*times.groups()[4:]), f"{readable(path.name)}: {line}")
    except ValueError as error:
        raise ValueError(f"{path}: {line}: {error}; mend or remove it") from error


def _blocks(text: str) -> dict[int, list[str]]:
    """The lines between empty ones, by the number of the first."""
    found: dict[int, list[str]] = {}
    begin = 0
    for number, line in enumerate(text.split("\n"), 1):
        begin = (begin or number) if line.strip() else 0
        if begin:
            found.setdefault(begin, []).append(line)
    return found


def _seconds(hours: str | None, minutes: str, seconds: str, milliseconds: str) -> float:
    return 3600 * int(hours or 0) + 60 * int(minutes) + int(seconds) + int(milliseconds) / 1000


def _need_no_times(path: Path, number: int, lines: list[str]) -> None:
    for index, line in enumerate(lines, number):
        if "-->" in line:
            raise _bad(path, index, line, "an empty line before every cue")


def _bad(path: Path, line: int, got: str, needed: str) -> ValueError:
    return ValueError(f"{path}: line {line}: got {got.strip()[:60]!r}; needed {needed}; mend or remove it")
