"""Captions of recordings, with or without times: by name, from a mapping or from a file of JSON or JSON lines."""

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
_LINE = '{"file": "a.mp4", "caption": "what it shows"}, optionally with "start" and "end" in seconds'


@dataclasses.dataclass(frozen=True)
class Cue:
    """Caption of a part of a recording. Raises ValueError for invalid times."""

    text: str
    start: float | int
    """s of the recording."""
    end: float | int
    where: str = "captions"
    """File and line of the caption, without directories."""

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end < math.inf:  # nor NaN
            raise ValueError(f"{self.text[:40]!r} from {self.start} to {self.end} s; needed seconds, 0 <= start < end")


@dataclasses.dataclass(frozen=True)
class Captions:
    """Captions of a recording or of a clip."""

    text: tuple[str, ...] = ()
    spans: tuple[tuple[float, float] | None, ...] = ()
    """(start, end) of each text, s; None: the text describes the whole. Empty: no text has times."""

    @classmethod
    def from_list(cls, captions: Sequence[str | Cue]) -> "Captions":
        """Captions from texts and cues, in order."""
        spans = tuple((float(one.start), float(one.end)) if isinstance(one, Cue) else None for one in captions)
        return cls(tuple(map(caption_text, captions)), spans if any(spans) else ())

    def crop(self, start: float | int, end: float | int) -> "Captions":
        """Captions of the part from `start` to `end` (s); times count from its start, rounded to the microsecond.

        A text with times belongs to every part that it overlaps, with its times cropped; other texts belong to all parts.
        """
        kept = []
        for text, span in zip(self.text, self.spans or (None,) * len(self.text), strict=True):
            part = span and (round(max(span[0], start) - start, 6), round(min(span[1], end) - start, 6))
            if part is None or part[0] < part[1]:
                kept.append((text, part))
        spans = tuple(part for _, part in kept)
        return Captions(tuple(text for text, _ in kept), spans if any(spans) else ())


def caption_text(caption: str | Cue) -> str:
    """Text of a caption with or without times."""
    return caption.text if isinstance(caption, Cue) else caption


def drop_late_cues(captions: Sequence[str | Cue], seconds: float) -> tuple[Captions, str]:
    """Captions of a recording of `seconds` (s), and a note on the cues that begin at its end or later, which are left out; the
    note is empty if there are none."""
    kept: list[str | Cue] = []
    late: list[Cue] = []
    for one in captions:
        if isinstance(one, Cue) and one.start >= seconds:
            late.append(one)
        else:
            kept.append(one)
    if not late:
        return Captions.from_list(kept), ""
    first = f"the first at {late[0].start:g} s ({late[0].where})"
    return Captions.from_list(
        kept
    ), f"{len(late)} captions begin at its end ({seconds:.3f} s) or later and are left out, {first}"


def match_captions(names: Sequence[str], captions: Mapping[str, Sequence[str | Cue]]) -> list[tuple[str | Cue, ...]]:
    """Captions of every recording in `names`; a key of `captions` is a name or its last part.

    Raises KeyError for a key that matches no name or several, ValueError for a text that cannot be a caption.
    """
    lasts = [Path(name).name for name in names]
    places: dict[str, list[int]] = {}
    for index, last in enumerate(lasts):
        places.setdefault(last, []).append(index)
    places |= {name: [index] for index, name in enumerate(names)}
    matched: list[tuple[str | Cue, ...]] = [()] * len(names)
    for key, texts in captions.items():
        if len(where := places.get(key, [])) != 1:
            near = difflib.get_close_matches(key, lasts, 1)
            hint = f"; is it {near[0]!r}?" if near else ""
            raise KeyError(f"captions: {key!r} names {len(where)} of the inputs, needed 1{hint}")
        if isinstance(texts, str) or not all(isinstance(one, str | Cue) for one in texts):
            raise ValueError(f"captions: {key!r} has {texts!r}; needed a list of texts")
        for text in map(caption_text, texts):
            size = len(text.encode("utf-8", "surrogatepass"))
            if any(0xD800 <= ord(letter) < 0xE000 for letter in text):
                raise ValueError(f"captions: a text of {key!r} is no Unicode ({text[:40]!r}): it holds half a character")
            if not text.strip() or size > CAPTION_BYTES:
                raise ValueError(f"captions: a text of {key!r} has {size} bytes ({text[:40]!r}); needed 1 to {CAPTION_BYTES}")
        matched[where[0]] = tuple(texts)
    return matched


def _read_text(path: Path) -> str:
    """Text of a file in UTF-8. Raises ValueError that names it and the first byte that is no UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no text in UTF-8 ({error.reason} at byte {error.start}); fix or remove it") from error


def read_captions(path: str | Path) -> dict[str, list[str | Cue]]:
    """Captions in a file: .json {"a.mp4": ["what it shows", ...]}, or .jsonl with lines {"file": "a.mp4", "caption": "..."}.

    Times, "start" and "end" in seconds of the recording, stand in an object with "text" in .json, and in the line in .jsonl.
    Raises ValueError that names the file, and the line or the text.
    """
    path = Path(path)
    raw = _read_text(path)
    if path.suffix.lower() == ".jsonl":
        return _lines(path, raw)
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is no JSON ({error}); needed {_FORM}") from error
    if not isinstance(content, dict) or not all(isinstance(texts, list) for texts in content.values()):
        raise ValueError(f"{path}: needed an object of lists, {_FORM}")
    return {
        name: [_item(path, f"text {number} of {name!r}", one) for number, one in enumerate(texts, 1)]
        for name, texts in content.items()
    }


def _item(path: Path, place: str, item: Any) -> str | Cue:
    """Caption from an item of a .json file: a text or an object."""
    if isinstance(item, str):
        return item
    if not isinstance(item, dict) or not isinstance(item.get("text"), str) or set(item) - {"text", "start", "end"}:
        raise ValueError(f"{path}: {place} is {json.dumps(item)[:80]}; needed {_FORM}")
    return _timed(path, place, item["text"], item)


def _timed(path: Path, place: str, text: str, row: Mapping[str, Any]) -> str | Cue:
    """Cue with the times in `row`, an object at `place` in the file; the text alone if it has no times."""
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
    captions: dict[str, list[str | Cue]] = {}
    for number, line in enumerate(raw.split("\n"), 1):  # other line separators may stand inside a text
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
        captions.setdefault(name, []).extend(_timed(path, f"line {number}", text, row) for text in texts)
    return captions
