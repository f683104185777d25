"""Search for recordings in files and folders, and the kind of each."""

import dataclasses
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from data_pipelines.recording.mask import SUFFIXES as MASK_SUFFIXES
from data_pipelines.recording.stills import SUFFIXES as STILL_SUFFIXES

VIDEO_SUFFIXES = (
    ".mp4",
    ".m4v",
    ".mov",
    ".webm",
    ".mkv",
    ".3gp",
    ".avi",
    ".wmv",
    ".flv",
    ".mpg",
    ".mpeg",
    ".m2ts",
    ".mts",
    ".ogv",
)
"""Suffixes of videos inside folders; unsupported formats are among them, so that they are reported. A video with another
suffix must be an input itself."""

PICTURE_SUFFIXES = (*STILL_SUFFIXES, ".bmp", ".gif", ".tif", ".tiff", ".exr", ".heic", ".avif")
"""Suffixes of pictures that are counted if they belong to no recording."""


@dataclasses.dataclass(frozen=True)
class Candidate:
    """Possible recording, not opened yet."""

    path: Path
    kind: str
    """"video", "frames", "tum", "redwood", "colmap", "transforms", "opensfm", "rlds" or "lerobot"."""
    name: str
    """Unique path within the input, without directories of the machine."""
    masks: Path | None = None
    """Folder or file of its masks: see recording/mask.py."""


@dataclasses.dataclass(frozen=True)
class Rejection:
    """A recording, or part of one, that is not in the dataset, with the reason."""

    name: str
    reason: str
    start: float | int | None = None
    """Start of the part, s; None: the whole recording."""
    seconds: float | int = 0.0
    """Length of the part, s."""


def find_candidates(inputs: Sequence[str | Path], exclude: Sequence[Path] = ()) -> tuple[list[Candidate], list[Rejection]]:
    """Possible recordings in files and folders, in a fixed order, and rejections; a folder that is no recording is searched.

    Links are followed. A folder is searched only once, so loops of links end; folders in `exclude` are not searched. If two
    inputs end in the same name, every name gets the number of its input as a prefix. Raises FileNotFoundError for a missing
    input.
    """
    candidates: list[Candidate] = []
    rejected: list[Rejection] = []
    seen = {os.path.realpath(path) for path in exclude}
    lasts = [_last_part(Path(one)) for one in inputs]
    for number, (one, last) in enumerate(zip(inputs, lasts, strict=True), 1):
        path = Path(one)
        if not path.exists():
            raise FileNotFoundError(f"{path}: no such file or folder; needed recordings: see --help")
        name = last if len(set(lasts)) == len(lasts) else f"{number}/{last}"
        before = len(candidates) + len(rejected)
        for result in _search(path, name, seen, is_input=True):
            if isinstance(result, Candidate):
                candidates.append(result)
            else:
                rejected.append(result)
        if len(candidates) + len(rejected) == before and path.is_dir():
            rejected.append(Rejection(name, "holds no recording of a kind that is known, or was searched before"))
    return candidates, rejected


def find_with_masks(inputs: Sequence[str | Path], masks: str | Path | None) -> tuple[list[Candidate], list[Rejection]]:
    """`find_candidates`, with masks from the folder `masks`, which is not searched for recordings.

    Raises what `find_candidates` and `assign_masks` raise.
    """
    if masks is None:
        return find_candidates(inputs)
    candidates, rejected = find_candidates(inputs, [Path(masks)])
    candidates, unused = assign_masks(candidates, Path(masks))
    return candidates, [*rejected, *unused]


def assign_masks(candidates: Sequence[Candidate], folder: Path) -> tuple[list[Candidate], list[Rejection]]:
    """Candidates with their masks, and rejections of masks without a recording.

    The masks of an input's x/a.mp4 are folder/x/a or folder/a: a folder, or a file with a suffix of mask.py. Only videos and
    folders of frames have masks. Raises FileNotFoundError for a missing folder, KeyError for masks that fit several recordings,
    or several masks that fit one.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; needed masks, FOLDER/a/*.png or FOLDER/a.npz of a.mp4")
    taken: dict[Path, str] = {}
    assigned = []
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
        assigned.append(dataclasses.replace(candidate, masks=masks))
    above = {parent for masks in taken for parent in masks.parents}
    with os.scandir(folder) as entries:
        shown = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    spare = [name for name, folders in shown if folders or name.lower().endswith((*MASK_SUFFIXES, *VIDEO_SUFFIXES))]
    unused = [name for name in spare if folder / name not in taken and folder / name not in above]
    return assigned, [
        Rejection(f"{printable_name(folder.name)}/{printable_name(name)}", "masks of no recording") for name in unused
    ]


def _masks_at(place: Path) -> Path | None:
    """Folder `place`, or the file with its name and a suffix of masks. Raises KeyError if there are several."""
    files = [place.with_name(place.name + suffix) for suffix in MASK_SUFFIXES]
    there = [*([place] if place.is_dir() else []), *(file for file in files if file.is_file())]
    if len(there) > 1:
        raise KeyError(f"masks: {there[0]} and {there[1]} may both be of {place.name}; needed one of them: move the other away")
    return there[0] if there else None


def printable_name(name: str) -> str:
    """File name as text; bytes that are no UTF-8 are escaped."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _last_part(path: Path) -> str:
    """Last part of a path; that of "." and ".." is resolved."""
    return printable_name(path.name if path.name not in ("", "..") else path.resolve().name) or "root"


def recording_kind(path: Path) -> str:
    """Kind of recording that a file or folder is; empty if it is none."""
    return _kind_of_folder(path, os.listdir(path)) if path.is_dir() else _kind_of_file(path.name)


def _kind_of_file(name: str) -> str:
    name = name.lower()
    if ".tfrecord" in name:
        return "rlds"
    if name.startswith("transforms") and name.endswith(".json"):
        return "transforms"
    if name.startswith("reconstruction") and name.endswith(".json"):
        return "opensfm"
    return "video" if name.endswith(VIDEO_SUFFIXES) else ""


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
    if any(name.endswith(STILL_SUFFIXES) for name in shown) and not any(name.endswith(VIDEO_SUFFIXES) for name in shown):
        with os.scandir(path) as items:  # knows folders from files without a stat of each
            return "" if any(entry.is_dir() for entry in items if not entry.name.startswith(".")) else "frames"
    return ""


def _reconstruction(path: Path, entries: list[str]) -> Path | None:
    """OpenSfM reconstruction file in a folder."""
    named = sorted(name for name in entries if _kind_of_file(name) == "opensfm")
    return next((path / name for name in named if (path / name).is_file()), None)


def _search(path: Path, name: str, seen: set[str], is_input: bool = False) -> Iterator[Candidate | Rejection]:
    """Candidates and rejections at a path; an input file of no other kind is a video."""
    try:
        if not stat.S_ISDIR(os.stat(path).st_mode):
            kind = _kind_of_file(path.name) or ("video" if is_input else "")
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
        owned = any(
            _kind_of_file(entry) == "transforms" for entry in shown
        )  # such as transforms_train.json beside its pictures
        for entry in shown:
            for result in _search(path / entry, f"{name}/{printable_name(entry)}", seen):
                if not (owned and isinstance(result, Candidate) and result.kind == "frames"):
                    yield result
    except (OSError, RecursionError) as error:
        yield Rejection(name, f"cannot be read ({error.strerror if isinstance(error, OSError) else 'nested too deeply'})")
        return
    suffixes = Counter(os.path.splitext(entry)[1].lower() for entry in shown)
    if (count := sum(suffixes[suffix] for suffix in PICTURE_SUFFIXES)) and not owned:
        kinds = ", ".join(suffix for suffix in PICTURE_SUFFIXES if suffixes[suffix])
        why = f"holds {count} pictures ({kinds}) of no recording: frames are jpg or png, in a folder of nothing else"
        yield Rejection(name, why)
