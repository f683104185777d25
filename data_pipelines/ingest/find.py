"""Which recordings there are among files and folders, and which reader reads each."""

import dataclasses
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_pipelines.recording.stills import SUFFIXES as STILLS

VIDEOS = (".mp4", ".m4v", ".mov", ".webm", ".mkv")
"""Files that are taken for videos where a folder holds them; others must be named themselves."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Something that a reader may read; nothing of it is opened yet."""

    path: Path
    kind: str
    """"video", "frames", "tum", "redwood", "colmap", "transforms", "opensfm", "rlds" or "lerobot"."""
    name: str
    """The path within the input that holds it, with no directory of the machine."""


@dataclasses.dataclass(frozen=True)
class Rejection:
    """What is not in the dataset, and why."""

    name: str
    reason: str
    start: float | int | None = None
    """Where in the recording, s; None: all of it."""
    seconds: float | int = 0.0
    """How much of it."""


def find(inputs: Sequence[str | Path]) -> tuple[list[Candidate], list[Rejection]]:
    """The recordings of some files and folders, in a fixed order; folders that are none themselves are searched.

    Links are followed, and a folder that was searched before is not searched again, so no loop of links goes on for ever.
    Raises FileNotFoundError for an input that is not there.
    """
    candidates: list[Candidate] = []
    rejected: list[Rejection] = []
    seen: set[str] = set()
    for given in inputs:
        path = Path(given)
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder; needed recordings: see --help")
        name = path.name or path.resolve().name
        before = len(candidates)
        for found in _search(path, name, seen, named=True):
            if isinstance(found, Candidate):
                candidates.append(found)
            else:
                rejected.append(found)
        if len(candidates) == before and path.is_dir():
            rejected.append(Rejection(name, "holds no recording of a kind that is known"))
    return candidates, rejected


def kind_of(path: Path) -> str:
    """The kind of recording that a file or folder is; empty for none."""
    return _kind_of_folder(path) if path.is_dir() else _kind_of_file(path)


def _kind_of_file(path: Path) -> str:
    name = path.name.lower()
    if ".tfrecord" in name:
        return "rlds"
    if name.startswith("transforms") and name.endswith(".json"):
        return "transforms"
    if name.startswith("reconstruction") and name.endswith(".json"):
        return "opensfm"
    return "video" if path.suffix.lower() in VIDEOS else ""


def _kind_of_folder(path: Path) -> str:
    def has(*names: str) -> bool:
        return all((path / name).exists() for name in names)

    if has("meta/info.json"):
        return "lerobot"
    if has("rgb.txt", "depth.txt"):
        return "tum"
    if has("depth") and any((path / name).is_dir() for name in ("color", "colour", "rgb")):
        return "redwood"
    if has("transforms.json"):
        return "transforms"
    entries = sorted(entry.name for entry in os.scandir(path))
    if has("features.json") and any(".tfrecord" in name for name in entries):
        return "rlds"
    if any(name.startswith("reconstruction") and name.endswith(".json") for name in entries):
        return "opensfm"
    models = [path, path / "sparse", path / "sparse" / "0"]
    if any((model / f"cameras.{suffix}").exists() for model in models for suffix in ("bin", "txt")):
        return "colmap"
    shown = [name for name in entries if not name.startswith(".")]
    if any(Path(name).suffix.lower() in STILLS for name in shown) and not any(
        Path(name).suffix.lower() in VIDEOS or (path / name).is_dir() for name in shown
    ):
        return "frames"
    return ""


def _search(path: Path, name: str, seen: set[str], named: bool = False) -> Iterator[Candidate | Rejection]:
    """What is at a path; a file that was `named` is a video if it is nothing else."""
    try:
        real = os.path.realpath(path, strict=True)
        if path.is_dir() and real in seen:
            return
        seen.add(real)
        kind = kind_of(path)
        if kind == "opensfm" and path.is_dir():
            path = next(path / entry for entry in sorted(os.listdir(path)) if kind_of(path / entry) == kind)
        if kind or (named and not path.is_dir()):
            yield Candidate(path, kind or "video", name)
        elif path.is_dir():
            for entry in sorted(os.listdir(path)):
                if not entry.startswith("."):
                    yield from _search(path / entry, f"{name}/{entry}", seen)
    except (OSError, RecursionError) as error:
        yield Rejection(name, f"cannot be read ({error.strerror if isinstance(error, OSError) else 'nested too deeply'})")
