"""Which recordings there are among files and folders, and which reader reads each."""

import dataclasses
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_pipelines.recording.mask import SUFFIXES as MASKS
from data_pipelines.recording.stills import SUFFIXES as STILLS

VIDEOS = (".mp4", ".m4v", ".mov", ".webm", ".mkv", ".3gp", ".avi", ".wmv", ".flv", ".mpg", ".mpeg", ".m2ts", ".mts", ".ogv")
"""Files that are taken for videos where a folder holds them, so that those of kinds that are not read are named; others must
be named themselves."""

PICTURES = (*STILLS, ".bmp", ".gif", ".tif", ".tiff", ".exr", ".heic", ".avif")
"""Files that are counted where they belong to no recording."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Something that a reader may read; nothing of it is opened yet."""

    path: Path
    kind: str
    """"video", "frames", "tum", "redwood", "colmap", "transforms", "opensfm", "rlds" or "lerobot"."""
    name: str
    """The path within the input that holds it, with no directory of the machine; no two have the same."""
    masks: Path | None = None
    """The folder or the file of its masks: see recording/mask.py."""


@dataclasses.dataclass(frozen=True)
class Rejection:
    """What is not in the dataset, and why."""

    name: str
    reason: str
    start: float | int | None = None
    """Where in the recording, s; None: all of it."""
    seconds: float | int = 0.0
    """How much of it."""


def find(inputs: Sequence[str | Path], apart: Sequence[Path] = ()) -> tuple[list[Candidate], list[Rejection]]:
    """The recordings of some files and folders, in a fixed order; folders that are none themselves are searched.

    Links are followed, and a folder that was searched before is not searched again, so no loop of links goes on for ever;
    nor are those `apart`. Where two inputs end in the same name, every one has its number before it. Raises FileNotFoundError
    for an input that is not there.
    """
    candidates: list[Candidate] = []
    rejected: list[Rejection] = []
    seen = {os.path.realpath(path) for path in apart}
    lasts = [_last(Path(given)) for given in inputs]
    for number, (given, last) in enumerate(zip(inputs, lasts, strict=True), 1):
        path = Path(given)
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder; needed recordings: see --help")
        name = last if len(set(lasts)) == len(lasts) else f"{number}/{last}"
        before = len(candidates) + len(rejected)
        for found in _search(path, name, seen, named=True):
            if isinstance(found, Candidate):
                candidates.append(found)
            else:
                rejected.append(found)
        if len(candidates) + len(rejected) == before and path.is_dir():
            rejected.append(Rejection(name, "holds no recording of a kind that is known, or was searched before"))
    return candidates, rejected


def find_masked(inputs: Sequence[str | Path], masks: str | Path | None) -> tuple[list[Candidate], list[Rejection]]:
    """As `find`, with the masks of a folder where one is given; it is not searched itself. Raises as `with_masks` does too."""
    if masks is None:
        return find(inputs)
    candidates, rejected = find(inputs, [Path(masks)])
    candidates, left = with_masks(candidates, Path(masks))
    return candidates, [*rejected, *left]


def with_masks(candidates: Sequence[Candidate], folder: Path) -> tuple[list[Candidate], list[Rejection]]:
    """Videos and folders of frames with their masks: folder/x/a of the input's x/a.mp4, or folder/a where one is called so.

    These are folders or files with one of the suffixes of mask.py; those that are of no recording are rejected. Raises
    FileNotFoundError where there is no folder, KeyError for masks that may be of several recordings, or are not the only ones.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; needed masks, FOLDER/a/*.png or FOLDER/a.npz of a.mp4")
    taken: dict[Path, str] = {}
    found = []
    for candidate in candidates:
        parts = Path(candidate.name).parts
        last = parts[-1] if candidate.kind == "frames" else Path(parts[-1]).stem
        places = [folder.joinpath(*parts[1:-1], last), folder / last] if candidate.kind in ("video", "frames") else []
        masks = next((there for place in places if (there := _masks_at(place)) is not None), None)
        if masks is not None:
            if masks in taken:
                raise KeyError(
                    f"masks: {masks} may be of {taken[masks]} and of {candidate.name}; needed masks of each, by the path "
                    "within the input"
                )
            taken[masks] = candidate.name
        found.append(dataclasses.replace(candidate, masks=masks))
    above = {parent for masks in taken for parent in masks.parents}
    with os.scandir(folder) as entries:
        shown = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    spare = [name for name, folders in shown if folders or name.lower().endswith((*MASKS, *VIDEOS))]
    left = [name for name in spare if folder / name not in taken and folder / name not in above]
    return found, [Rejection(f"{readable(folder.name)}/{readable(name)}", "masks of no recording") for name in left]


def _masks_at(place: Path) -> Path | None:
    """The masks that are called so: a folder, or a file beside a suffix. Raises KeyError where there are several."""
    files = [place.with_name(place.name + suffix) for suffix in MASKS]
    there = [*([place] if place.is_dir() else []), *(file for file in files if file.is_file())]
    if len(there) > 1:
        raise KeyError(f"masks: {there[0]} and {there[1]} may both be of {place.name}; needed one of them: move the other away")
    return there[0] if there else None


def readable(name: str) -> str:
    """A name of a file as text: names that are no UTF-8 have their bytes spelled out."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _last(path: Path) -> str:
    """The last part of a path, of "." and ".." too."""
    return readable(path.name if path.name not in ("", "..") else path.resolve().name) or "root"


def kind_of(path: Path) -> str:
    """The kind of recording that a file or folder is; empty for none."""
    return _kind_of_folder(path, os.listdir(path)) if path.is_dir() else _kind_of_file(path.name)


def _kind_of_file(name: str) -> str:
    name = name.lower()
    if ".tfrecord" in name:
        return "rlds"
    if name.startswith("transforms") and name.endswith(".json"):
        return "transforms"
    if name.startswith("reconstruction") and name.endswith(".json"):
        return "opensfm"
    return "video" if name.endswith(VIDEOS) else ""


def _kind_of_folder(path: Path, entries: list[str]) -> str:
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
    if has("features.json") and any(".tfrecord" in name for name in entries):
        return "rlds"
    if _reconstruction(path, entries):
        return "opensfm"
    models = [path, path / "sparse", path / "sparse" / "0"]
    if any((model / f"cameras.{suffix}").exists() for model in models for suffix in ("bin", "txt")):
        return "colmap"
    shown = [name.lower() for name in entries if not name.startswith(".")]
    if any(name.endswith(STILLS) for name in shown) and not any(name.endswith(VIDEOS) for name in shown):
        with os.scandir(path) as found:  # tells folders from files without asking for each
            return "" if any(entry.is_dir() for entry in found if not entry.name.startswith(".")) else "frames"
    return ""


def _reconstruction(path: Path, entries: list[str]) -> Path | None:
    """The file of a reconstruction by OpenSfM that a folder holds."""
    named = sorted(name for name in entries if _kind_of_file(name) == "opensfm")
    return next((path / name for name in named if (path / name).is_file()), None)


def _search(path: Path, name: str, seen: set[str], named: bool = False) -> Iterator[Candidate | Rejection]:
    """What is at a path; a file that was `named` is a video if it is nothing else."""
    try:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            kind = _kind_of_file(path.name) or ("video" if named else "")
            if kind:
                yield Candidate(path, kind, name)
            return
        real = os.path.realpath(path)
        if real in seen:
            return
        seen.add(real)
        entries = sorted(os.listdir(path))
        kind = _kind_of_folder(path, entries)
        if kind:
            yield Candidate(_reconstruction(path, entries) or path if kind == "opensfm" else path, kind, name)
            return
        shown = [entry for entry in entries if not entry.startswith(".")]
        owned = any(_kind_of_file(entry) == "transforms" for entry in shown)  # as transforms_train.json, beside its pictures
        for entry in shown:
            for found in _search(path / entry, f"{name}/{readable(entry)}", seen):
                if not (owned and isinstance(found, Candidate) and found.kind == "frames"):
                    yield found
    except (OSError, RecursionError) as error:
        yield Rejection(name, f"cannot be read ({error.strerror if isinstance(error, OSError) else 'nested too deeply'})")
        return
    suffixes = Counter(os.path.splitext(entry)[1].lower() for entry in shown)
    if (count := sum(suffixes[suffix] for suffix in PICTURES)) and not owned:
        kinds = ", ".join(suffix for suffix in PICTURES if suffixes[suffix])
        why = f"holds {count} pictures ({kinds}) of no recording: frames are jpg or png, in a folder of nothing else"
        yield Rejection(name, why)
