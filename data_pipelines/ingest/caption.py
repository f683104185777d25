"""Captions that are given for recordings: a mapping by name, or a file of JSON or JSON lines; with times, or without."""

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wsm_jax.text import CAPTION_BYTES

_NAMES = ("file", "file_name", "video", "path", "name")
_TEXTS = ("captions", "caption", "text", "texts")
_FORM = '{"a.mp4": ["what it shows", {"text": "what it shows then", "start": 1.5, "end": 4}, ...]}'
_LINE = '{"file": "a.mp4", "caption": "what it shows"}, and perhaps "start" and "end" in seconds'


@dataclasses.dataclass(frozen=True)
class Cue:
    """A caption of a part of a recording. Raises ValueError for times that are none."""

    text: str
    start: float | int
    """s of the recording."""
    end: float | int
    where: str = "captions"
    """The file and line that it comes from, without directories."""

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end < math.inf:  # nor NaN
            raise ValueError(f"{self.text[:40]!r} from {self.start} to {self.end} s; needed seconds, 0 <= start < end")


@dataclasses.dataclass(frozen=True)
class Captions:
    """What is said of a recording, or of a clip."""

    text: tuple[str, ...] = ()
    spans: tuple[tuple[float, float] | None, ...] = ()
    """(start, end) of each text, s; None: it is of all of it. Empty: none has times."""

    @classmethod
    def of(cls, given: Sequence[str | Cue]) -> "Captions":
        """Of texts and cues, in order."""
        spans = tuple((float(one.start), float(one.end)) if isinstance(one, Cue) else None for one in given)
        return cls(tuple(map(text_of, given)), spans if any(spans) else ())

    def within(self, start: float | int, end: float | int) -> "Captions":
        """Those of the part from `start` to `end` (s), with times from its start, to the microsecond.

        Texts with times belong to the parts that they share time with, and are cut to them; others to every part.
        """
        kept = []
        for text, span in zip(self.text, self.spans or (None,) * len(self.text), strict=True):
            part = span and (round(max(span[0], start) - start, 6), round(min(span[1], end) - start, 6))
            if part is None or part[0] < part[1]:
                kept.append((text, part))
        spans = tuple(part for _, part in kept)
        return Captions(tuple(text for text, _ in kept), spans if any(spans) else ())


def text_of(given: str | Cue) -> str:
    """The text of a caption with times or without."""
    return given.text if isinstance(given, Cue) else given


def shown(given: Sequence[str | Cue], seconds: float) -> tuple[Captions, str]:
    """The captions of a recording of some length (s), and a note on the cues that begin at its end or later, which are left
    out; empty where there are none."""
    kept: list[str | Cue] = []
    late: list[Cue] = []
    for one in given:
        if isinstance(one, Cue) and one.start >= seconds:
            late.append(one)
        else:
            kept.append(one)
    if not late:
        return Captions.of(kept), ""
    first = f"the first at {late[0].start:g} s ({late[0].where})"
    return Captions.of(kept), f"{len(late)} captions begin at its end ({seconds:.3f} s) or later and are left out, {first}"


def checked(names: Sequence[str], captions: Mapping[str, Sequence[str | Cue]]) -> list[tuple[str | Cue, ...]]:
    """The captions of recordings, by their names or the last parts of these.

    Raises KeyError for a name that is none of theirs or of several, ValueError for a text that cannot be a caption.
    """
    lasts = [Path(name).name for name in names]
    places: dict[str, list[int]] = {}
    for index, last in enumerate(lasts):
        places.setdefault(last, []).append(index)
    places |= {name: [index] for index, name in enumerate(names)}
    found: list[tuple[str | Cue, ...]] = [()] * len(names)
    for key, given in captions.items():
        if len(where := places.get(key, [])) != 1:
            near = difflib.get_close_matches(key, lasts, 1)
            hint = f"; is it {near[0]!r}?" if near else ""
            raise KeyError(f"captions: {key!r} names {len(where)} of the inputs, needed 1{hint}")
        if isinstance(given, str) or not all(isinstance(one, str | Cue) for one in given):
            raise ValueError(f"captions: {key!r} has {given!r}; needed a list of texts")
        for text in map(text_of, given):
            size = len(text.encode("utf-8", "surrogatepass"))
            if any(0xD800 <= ord(letter) < 0xE000 for letter in text):
                raise ValueError(f"captions: a text of {key!r} is no Unicode ({text[:40]!r}): it holds half a character")
            if not text.strip() or size > CAPTION_BYTES:
                raise ValueError(f"captions: a text of {key!r} has {size} bytes ({text[:40]!r}); needed 1 to {CAPTION_BYTES}")
        found[where[0]] = tuple(given)
    return found


def decoded(path: Path) -> str:
    """The text of a file. Raises ValueError that names it and the byte that is no UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no text in UTF-8 ({error.reason} at byte {error.start}); fix or remove it") from error


def read(path: str | Path) -> dict[str, list[str | Cue]]:
    """Captions of a file: .json {"a.mp4": ["what it shows", ...]}, or .jsonl with lines {"file": "a.mp4", "caption": "..."}.

    A text with times, "start" and "end" in seconds of the recording, is an object with "text" in .json, and has them in its
    line of .jsonl. Raises ValueError that names the file, and the line or the text.
    """
    path = Path(path)
    raw = decoded(path)
    if path.suffix.lower() == ".jsonl":
        return _lines(path, raw)
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is no JSON ({error}); needed {_FORM}") from error
    if not isinstance(found, dict) or not all(isinstance(given, list) for given in found.values()):
        raise ValueError(f"{path}: needed an object of lists, {_FORM}")
    return {
        name: [_item(path, f"text {number} of {name!r}", one) for number, one in enumerate(given, 1)]
        for name, given in found.items()
    }


def _item(path: Path, place: str, given: Any) -> str | Cue:
    """A text of a .json file, by itself or as an object."""
    if isinstance(given, str):
        return given
    if not isinstance(given, dict) or not isinstance(given.get("text"), str) or set(given) - {"text", "start", "end"}:
        raise ValueError(f"{path}: {place} is {json.dumps(given)[:80]}; needed {_FORM}")
    return _timed(path, place, given["text"], given)


def _timed(path: Path, place: str, text: str, row: Mapping[str, Any]) -> str | Cue:
    """A text with the times of the object at some place of a file, if that has some."""
    times: list[Any] = [row.get("start"), row.get("end")]
    if times == [None, None]:
        return text
    try:
        if {type(t) for t in times} - {int, float}:
            raise ValueError(f"{text[:40]!r} from {times[0]!r} to {times[1]!r}; needed both in seconds, or neither")
        return Cue(text, float(times[0]), float(times[1]), f"{path.name}: {place}")
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{path}: {place}: {error}") from error


def _lines(path: Path, raw: str) -> dict[str, list[str | Cue]]:
    found: dict[str, list[str | Cue]] = {}
    for number, line in enumerate(raw.split("\n"), 1):  # other ends of lines may stand within a text
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: line {number} is no JSON ({error})") from error
        name = next((row[key] for key in _NAMES if key in row), None) if isinstance(row, dict) else None
        texts = next((row[key] for key in _TEXTS if key in row), None) if isinstance(row, dict) else None
        texts = [texts] if isinstance(texts, str) else texts
        if not isinstance(name, str) or not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"{path}: line {number}: needed {_LINE}")
        found.setdefault(name, []).extend(_timed(path, f"line {number}", text, row) for text in texts)
    return found
