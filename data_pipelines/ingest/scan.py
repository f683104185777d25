"""The first reading of every recording: whether it is whole, what it holds, how sharp it is and how much changes.

Scans are kept as files until the dataset is finished, so that a build that is killed does not read again, and hosts that
build together read each recording once.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.ingest.caption import shown, text_of
from data_pipelines.ingest.find import Candidate, Rejection, readable
from data_pipelines.ingest.measure import Measure
from data_pipelines.ingest.plan import Found, steps
from data_pipelines.ingest.sidecar import sidecar_captions, sidecars_of
from data_pipelines.recording import video
from data_pipelines.recording.colmap import read_colmap
from data_pipelines.recording.lerobot import read_lerobot
from data_pipelines.recording.mask import Masked, masked
from data_pipelines.recording.opensfm import read_opensfm
from data_pipelines.recording.recording import Recording
from data_pipelines.recording.redwood import read_redwood
from data_pipelines.recording.rlds import read_rlds
from data_pipelines.recording.transforms import read_transforms
from data_pipelines.recording.tum import read_tum
from data_pipelines.workers import Died
from data_pipelines.wsv import manifest as records
from data_pipelines.wsv.folder import Folder
from wsm_jax.text import CAPTION_BYTES


@dataclasses.dataclass(frozen=True)
class Reading:
    """What recordings do not say themselves."""

    fps: float | int | None = None
    """Rate of folders of frames and of robot episodes and RGB-D frames without times, Hz."""
    allow_truncated: bool = False
    """Keep what is there of a video that ends early."""
    allow_missing: bool = False
    """Leave out photos that a reconstruction names and that are not there."""
    unit_m: float | int | None = None
    """One step of RGB-D depth, m."""
    intrinsics: tuple[float | int, ...] | None = None
    """fx, fy, cx, cy of RGB-D pictures, pixels."""


def recordings(candidate: Candidate, how: Reading) -> Iterator[Recording]:
    """The recordings of a candidate that is no video, as its reader gives them."""
    path, kind = candidate.path, candidate.kind
    if kind == "tum":
        yield read_tum(path, unit_m=how.unit_m, intrinsics=how.intrinsics)
    elif kind == "redwood":
        yield read_redwood(path, how.intrinsics, how.unit_m, how.fps)
    elif kind == "colmap":
        yield from read_colmap(path, allow_missing=how.allow_missing)
    elif kind == "transforms":
        yield from read_transforms(path, allow_missing=how.allow_missing)
    elif kind == "opensfm":
        yield from read_opensfm(path)
    elif kind == "rlds":
        yield from read_rlds(path, how.fps)
    elif kind == "lerobot":
        yield from read_lerobot(path)
    else:
        raise ValueError(f"{path}: of kind {kind!r}; needed one of those of find.py")


@functools.lru_cache(maxsize=2)
def _opened(candidate: Candidate, how: Reading) -> list[Recording]:
    return list(recordings(candidate, how))


def reopened(candidate: Candidate, how: Reading, found: Found) -> Recording:
    """A recording that was scanned before, without reading it again."""
    if candidate.kind not in ("video", "frames"):
        return _opened(candidate, how)[found.number]
    size = found.size[0]
    files = video.folder_files(candidate.path) if candidate.kind == "frames" else ()
    film = video.Video(candidate.path, np.asarray(found.time), found.seconds, *size, "", files, found.pixel_aspect)
    return _masked(video.film(film, found.name), candidate)


def scan(candidate: Candidate, how: Reading, number: int) -> list[Found] | Rejection:
    """What a candidate (number `number`) holds, or why it holds nothing that can be used."""
    try:
        if candidate.kind in ("video", "frames"):
            measure = Measure()
            fps = how.fps if candidate.kind == "frames" else None
            film = video.film(video.scan(candidate.path, fps, how.allow_truncated, watch=measure.add), candidate.name)
            film = _masked(_captioned(film, candidate.path), candidate)
            if isinstance(film.pictures, Masked):
                for _ in film.pictures.masks(range(len(film.time))):
                    pass
            return [_found(film, measure, number, 0)]
        results = []
        for index, recording in enumerate(recordings(candidate, how)):
            measure = Measure()
            for picture in recording.pictures(range(len(recording.time))):
                measure.add(picture["rgb"])
            name = candidate.name if recording.name == candidate.name else f"{candidate.name}/{recording.name}"
            results.append(_found(dataclasses.replace(recording, name=name), measure, number, index))
        return results or Rejection(candidate.name, "holds no recording")
    except Exception as error:  # whatever is wrong with one recording, the others go on
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        return Rejection(candidate.name, kind + plain(str(error), candidate))


def _masked(film: Recording, candidate: Candidate) -> Recording:
    return film if candidate.masks is None else masked(film, candidate.masks)


def _captioned(film: Recording, path: Path) -> Recording:
    """With the captions of the files beside it; those that are too long or too late are left out, and noted."""
    given, damaged = sidecar_captions(path)
    short = [one for one in given if len(text_of(one).encode()) <= CAPTION_BYTES]
    left = len(given) - len(short)
    captions, late = shown(short, film.seconds)
    notes = (*damaged, f"{left} captions of more than {CAPTION_BYTES} bytes are left out" if left else "", late)
    return dataclasses.replace(
        film, text=captions.text, spans=captions.spans, notes=(*film.notes, *(note for note in notes if note))
    )


def plain(message: str, candidate: Candidate) -> str:
    """A message about a candidate without directories of the machine, as text."""
    message = message.replace(str(candidate.path), candidate.name)
    places = [candidate.path.parent, *([candidate.masks.parent] if candidate.masks else [])]
    for place in places:
        message = message.replace(str(place) + os.sep, "")
    return readable(message)


def _found(recording: Recording, measure: Measure, candidate: int, number: int) -> Found:
    camera = recording.camera
    size = np.asarray(recording.size)
    if not 0 < recording.seconds < math.inf:
        raise ValueError(f"{recording.name}: lasts {recording.seconds} s; needed a positive length")
    return Found(
        candidate=candidate,
        number=number,
        name=recording.name,
        kind=recording.kind,
        time=tuple(float(t) for t in recording.time),
        seconds=float(recording.seconds),
        size=tuple((int(h), int(w)) for h, w in (size[:1] if (size == size[0]).all() else size)),
        channels=recording.channels,
        camera=camera is not None,
        lens=camera is not None and camera.distortion is not None,
        pixel_aspect=float(recording.pixel_aspect),
        signals=tuple((name, int(s.values.shape[1]), steps(s, recording.seconds)) for name, s in recording.signals.items()),
        text=recording.text,
        spans=recording.spans,
        notes=recording.notes,
        sha256=digest(recording.files),
        sharpness=tuple(measure.sharpness),
        change=tuple(measure.change),
    )


def digest(files: tuple[Path, ...]) -> str:
    """Digest of a file, or of several in order, each by name and content."""
    if len(files) == 1:
        with files[0].open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(os.fsencode(path.name) + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


@dataclasses.dataclass(frozen=True)
class Scans:
    """The scans of a build, kept in a folder; calling it with a number makes one, if it is not there. Picklable."""

    folder: Folder
    candidates: tuple[Candidate, ...]
    how: Reading

    def __call__(self, number: int) -> None:
        result = scan(self.candidates[number], self.how, number)
        self.keep(number, result)

    def keep(self, number: int, result: list[Found] | Rejection) -> None:
        """Writes a scan."""
        value = {"rejected": dataclasses.asdict(result)} if isinstance(result, Rejection) else {}
        if not isinstance(result, Rejection):
            value = {"found": [dataclasses.asdict(one) for one in result]}
        file = {self._key(number): records.dumps({**value, "of": self._of(number)})}
        try:
            self.folder.write(file)
        except OSError:  # another host that has ended may have removed the empty folder in the midst of it
            self.folder.write(file)

    def died(self, number: int, error: Died) -> None:
        """A recording that a process died at is left out."""
        self.keep(number, Rejection(self.candidates[number].name, f"its decoder crashed ({error})"))

    def missing(self, among: Iterable[int] | None = None) -> list[int]:
        """The candidates (of some, or of all) that are not scanned yet, or are no more what they were."""
        there = self.folder.list()
        numbers = range(len(self.candidates)) if among is None else among
        return [n for n in numbers if self._key(n) not in there or self._load(n) is None]

    def results(self) -> list[list[Found] | Rejection]:
        """All of them, in the order of the candidates. Raises ValueError where one is missing."""
        found = [self._load(number) for number in range(len(self.candidates))]
        if None in found:
            raise ValueError(f"{self.folder.path}: scan {found.index(None)} is missing")
        return [result for result in found if result is not None]

    def clear(self) -> None:
        """Deletes them."""
        for key in self.folder.list():
            self.folder.remove(key)
        if self.folder.local:
            with contextlib.suppress(OSError):  # it is gone, or not empty: another host clears it, or works there
                os.rmdir(self.folder.path)

    def _key(self, number: int) -> str:
        return f"{number:08d}.json"

    def _of(self, number: int) -> list[Any]:
        """What a scan is of: another file, or other options, make another scan."""
        candidate = self.candidates[number]
        given = (candidate.path, *sidecars_of(candidate.path), candidate.masks)
        stamps = [_stamp(path) for path in given if path is not None]
        return json.loads(records.dumps([candidate.name, candidate.kind, stamps, dataclasses.asdict(self.how)]))

    def _load(self, number: int) -> list[Found] | Rejection | None:
        raw = self.folder.read(self._key(number))
        try:
            value = json.loads(raw or b"")
            if value["of"] != self._of(number):
                return None
            if "rejected" in value:
                return Rejection(**value["rejected"])
            return [Found(**{key: _tuples(part) for key, part in one.items()}) for one in value["found"]]
        except (ValueError, KeyError, TypeError):  # of another version
            return None


def _stamp(path: Path) -> list[int]:
    """What changes where a file does, or a file in a folder."""
    try:
        state = path.stat()
        if not stat.S_ISDIR(state.st_mode):
            return [state.st_size, state.st_mtime_ns]
        with os.scandir(path) as entries:
            inside = [entry.stat() for entry in entries if entry.is_file()]
        return [len(inside), sum(one.st_size for one in inside), max((one.st_mtime_ns for one in inside), default=0)]
    except OSError:
        return []


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
