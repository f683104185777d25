"""Captions that are given beside recordings: a mapping by name, JSON lines, or a text file beside each."""

import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

CAPTION_BYTES = 512
"""Longest caption, in bytes of UTF-8."""
_NAMES = ("file", "file_name", "video", "path", "name")
_TEXTS = ("captions", "caption", "text", "texts")


def checked(names: Sequence[str], captions: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    """The texts of recordings, by their names or the last parts of these.

    Raises KeyError for a name that is none of theirs or of several, ValueError for a text that cannot be a caption.
    """
    lasts = [Path(name).name for name in names]
    places: dict[str, list[int]] = {}
    for index, last in enumerate(lasts):
        places.setdefault(last, []).append(index)
    places |= {name: [index] for index, name in enumerate(names)}
    found: list[tuple[str, ...]] = [()] * len(names)
    for key, texts in captions.items():
        if len(where := places.get(key, [])) != 1:
            near = difflib.get_close_matches(key, lasts, 1)
            hint = f"; is it {near[0]!r}?" if near else ""
            raise KeyError(f"captions: {key!r} names {len(where)} of the inputs, needed 1{hint}")
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"captions: {key!r} has {texts!r}; needed a list of texts")
        for text in texts:
            size = len(text.encode("utf-8", "surrogatepass"))
            if any(0xD800 <= ord(letter) < 0xE000 for letter in text):
                raise ValueError(f"captions: a text of {key!r} is no Unicode ({text[:40]!r}): it holds half a character")
            if not text.strip() or size > CAPTION_BYTES:
                raise ValueError(f"captions: a text of {key!r} has {size} bytes ({text[:40]!r}); needed 1 to {CAPTION_BYTES}")
        found[where[0]] = tuple(texts)
    return found


def read(path: str | Path) -> dict[str, list[str]]:
    """Captions of a file: .json {"a.mp4": ["what it shows", ...]}, or .jsonl with lines {"file": "a.mp4", "caption": "..."}.

    Raises ValueError that names the file, and the line.
    """
    path = Path(path)
    try:
        raw = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no text in UTF-8 ({error.reason} at byte {error.start})") from error
    if path.suffix.lower() == ".jsonl":
        return _lines(path, raw)
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path}: is no JSON ({error}); needed {{"a.mp4": ["what it shows", ...]}}') from error
    if not isinstance(found, dict) or not all(isinstance(texts, list) for texts in found.values()):
        raise ValueError(f'{path}: needed an object of lists, {{"a.mp4": ["what it shows", ...]}}')
    return found


def _lines(path: Path, raw: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
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
            raise ValueError(f'{path}: line {number}: needed {{"file": "a.mp4", "caption": "what it shows"}}')
        found.setdefault(name, []).extend(texts)
    return found


def sidecar_of(path: Path) -> Path:
    """The text file beside a recording, which may not be there."""
    return path.parent / f"{path.stem}.txt"


def beside(path: Path) -> tuple[str, ...]:
    """What a text file beside a recording says (a.txt of a.mp4), a caption a line; none where there is none, or no text."""
    sidecar = sidecar_of(path)
    if path.is_dir() or not sidecar.is_file():
        return ()
    try:
        lines = sidecar.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{sidecar}: is no text in UTF-8 ({error.reason} at byte {error.start}); mend or remove it") from error
    return tuple(line.strip() for line in lines if line.strip())
