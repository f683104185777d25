"""Scans: a first pass over every recording checks that it is complete, and collects its metadata, sharpness and change.

Scans are stored as files until the dataset is finished: a build that was killed does not repeat them, and hosts that build
together scan each recording once.
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

from data_pipelines.ingest.caption import caption_text, drop_late_cues
from data_pipelines.ingest.find import Candidate, Rejection, printable_name
from data_pipelines.ingest.measure import FrameStatistics
from data_pipelines.ingest.plan import ScannedRecording, steps_per_bin
from data_pipelines.ingest.sidecar import sidecar_captions, sidecars_of
from data_pipelines.recording import video
from data_pipelines.recording.colmap import read_colmap
from data_pipelines.recording.lerobot import read_lerobot
from data_pipelines.recording.mask import MaskedPictures, with_masks
from data_pipelines.recording.opensfm import read_opensfm
from data_pipelines.recording.recording import Recording
from data_pipelines.recording.redwood import read_redwood
from data_pipelines.recording.rlds import read_rlds
from data_pipelines.recording.transforms import read_transforms
from data_pipelines.recording.tum import read_tum
from data_pipelines.workers import WorkerCrash
from data_pipelines.wsv import manifest as records
from data_pipelines.wsv.folder import Folder
from wsm_jax.text import CAPTION_BYTES


@dataclasses.dataclass(frozen=True)
class ReaderOptions:
    """Options of the readers: what recordings do not state themselves."""

    fps: float | int | None = None
    """Rate of folders of frames, robot episodes and RGB-D frames that have no times, Hz."""
    allow_truncated: bool = False
    """Keep the readable part of a truncated video."""
    allow_missing: bool = False
    """Leave out photos of a reconstruction whose files are missing."""
    unit_m: float | int | None = None
    """One step of RGB-D depth, m."""
    intrinsics: tuple[float | int, ...] | None = None
    """fx, fy, cx, cy of RGB-D pictures, pixels."""


def read_candidate(candidate: Candidate, options: ReaderOptions) -> Iterator[Recording]:
    """Recordings of a candidate that is neither a video nor a folder of frames. Raises what its reader raises."""
    path, kind = candidate.path, candidate.kind
    if kind == "tum":
        yield read_tum(path, unit_m=options.unit_m, intrinsics=options.intrinsics)
    elif kind == "redwood":
        yield read_redwood(path, options.intrinsics, options.unit_m, options.fps)
    elif kind == "colmap":
        yield from read_colmap(path, allow_missing=options.allow_missing)
    elif kind == "transforms":
        yield from read_transforms(path, allow_missing=options.allow_missing)
    elif kind == "opensfm":
        yield from read_opensfm(path)
    elif kind == "rlds":
        yield from read_rlds(path, options.fps)
    elif kind == "lerobot":
        yield from read_lerobot(path)
    else:
        raise ValueError(f"{path}: of kind {kind!r}; needed one of those of find.py")


@functools.lru_cache(maxsize=2)
def _read_all(candidate: Candidate, options: ReaderOptions) -> list[Recording]:
    return list(read_candidate(candidate, options))


def reopen(candidate: Candidate, options: ReaderOptions, scanned: ScannedRecording) -> Recording:
    """Recording from its scan; a video or a folder of frames is not read again."""
    if candidate.kind not in ("video", "frames"):
        return _read_all(candidate, options)[scanned.number]
    size = scanned.size[0]
    files = video.folder_files(candidate.path) if candidate.kind == "frames" else ()
    film = video.Video(candidate.path, np.asarray(scanned.time), scanned.seconds, *size, "", files, scanned.pixel_aspect)
    return _with_masks(video.video_recording(film, scanned.name), candidate)


def scan_candidate(candidate: Candidate, options: ReaderOptions, number: int) -> list[ScannedRecording] | Rejection:
    """Scan of the candidate with index `number`: its recordings, or the reason why it has none."""
    try:
        if candidate.kind in ("video", "frames"):
            statistics = FrameStatistics()
            fps = options.fps if candidate.kind == "frames" else None
            film = video.video_recording(
                video.scan(candidate.path, fps, options.allow_truncated, watch=statistics.add), candidate.name
            )
            film = _with_masks(_with_sidecar_captions(film, candidate.path), candidate)
            if isinstance(film.pictures, MaskedPictures):
                for _ in film.pictures.masks(range(len(film.time))):
                    pass
            return [_scanned(film, statistics, number, 0)]
        results = []
        for index, recording in enumerate(read_candidate(candidate, options)):
            statistics = FrameStatistics()
            for picture in recording.pictures(range(len(recording.time))):
                statistics.add(picture["rgb"])
            name = candidate.name if recording.name == candidate.name else f"{candidate.name}/{recording.name}"
            results.append(_scanned(dataclasses.replace(recording, name=name), statistics, number, index))
        return results or Rejection(candidate.name, "holds no recording")
    except Exception as error:  # a defect of one recording must not stop the others
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        return Rejection(candidate.name, kind + strip_directories(str(error), candidate))


def _with_masks(film: Recording, candidate: Candidate) -> Recording:
    return film if candidate.masks is None else with_masks(film, candidate.masks)


def _with_sidecar_captions(film: Recording, path: Path) -> Recording:
    """Recording with captions from the files beside it, and notes on those left out. Raises ValueError."""
    captions, damaged = sidecar_captions(path)
    short = [one for one in captions if len(caption_text(one).encode()) <= CAPTION_BYTES]
    long = len(captions) - len(short)
    kept, late = drop_late_cues(short, film.seconds)
    notes = (*damaged, f"{long} captions of more than {CAPTION_BYTES} bytes are left out" if long else "", late)
    return dataclasses.replace(film, text=kept.text, spans=kept.spans, notes=(*film.notes, *(note for note in notes if note)))


def strip_directories(message: str, candidate: Candidate) -> str:
    """Message about a candidate without directories of the machine."""
    message = message.replace(str(candidate.path), candidate.name)
    places = [candidate.path.parent, *([candidate.masks.parent] if candidate.masks else [])]
    for place in places:
        message = message.replace(str(place) + os.sep, "")
    return printable_name(message)


def _scanned(recording: Recording, statistics: FrameStatistics, candidate: int, number: int) -> ScannedRecording:
    camera = recording.camera
    size = np.asarray(recording.size)
    if not 0 < recording.seconds < math.inf:
        raise ValueError(f"{recording.name}: lasts {recording.seconds} s; needed a positive length")
    signals = tuple(
        (name, int(signal.values.shape[1]), steps_per_bin(signal, recording.seconds))
        for name, signal in recording.signals.items()
    )
    return ScannedRecording(
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
        signals=signals,
        text=recording.text,
        spans=recording.spans,
        notes=recording.notes,
        sha256=digest(recording.files),
        sharpness=tuple(statistics.sharpness),
        change=tuple(statistics.change),
    )


def digest(files: tuple[Path, ...]) -> str:
    """SHA-256 of a file, or of the names and contents of several in order."""
    if len(files) == 1:
        with files[0].open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    whole = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            whole.update(os.fsencode(path.name) + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


@dataclasses.dataclass(frozen=True)
class ScanTask:
    """Task that scans the candidates of a build and stores the results in a folder; picklable."""

    folder: Folder
    candidates: tuple[Candidate, ...]
    options: ReaderOptions

    def __call__(self, number: int) -> None:
        """Scan one candidate and store the result."""
        self.save(number, scan_candidate(self.candidates[number], self.options, number))

    def save(self, number: int, result: list[ScannedRecording] | Rejection) -> None:
        """Store the scan of one candidate."""
        value = {"rejected": dataclasses.asdict(result)} if isinstance(result, Rejection) else {}
        if not isinstance(result, Rejection):
            value = {"found": [dataclasses.asdict(one) for one in result]}
        file = {self._key(number): records.dumps({**value, "of": self._identity(number)})}
        try:
            self.folder.write(file)
        except OSError:  # another host may have removed the empty folder in the meantime
            self.folder.write(file)

    def on_worker_crash(self, number: int, error: WorkerCrash) -> None:
        """Store a rejection of the candidate that crashed a worker."""
        self.save(number, Rejection(self.candidates[number].name, f"its decoder crashed ({error})"))

    def missing(self, among: Iterable[int] | None = None) -> list[int]:
        """Candidates (of `among`, or all) without a current scan."""
        there = self.folder.list()
        numbers = range(len(self.candidates)) if among is None else among
        return [n for n in numbers if self._key(n) not in there or self._load(n) is None]

    def results(self) -> list[list[ScannedRecording] | Rejection]:
        """Scans of all candidates, in order. Raises ValueError if one is missing."""
        results = [self._load(number) for number in range(len(self.candidates))]
        if None in results:
            raise ValueError(f"{self.folder.path}: scan {results.index(None)} is missing")
        return [result for result in results if result is not None]

    def clear(self) -> None:
        """Delete the stored scans."""
        for key in self.folder.list():
            self.folder.remove(key)
        if self.folder.local:
            with contextlib.suppress(OSError):  # another host removed it, or still works in it
                os.rmdir(self.folder.path)

    def _key(self, number: int) -> str:
        return f"{number:08d}.json"

    def _identity(self, number: int) -> list[Any]:
        """Name, kind, file stamps and options of a candidate; a stored scan with another identity is stale."""
        candidate = self.candidates[number]
        paths = (candidate.path, *sidecars_of(candidate.path), candidate.masks)
        stamps = [_stamp(path) for path in paths if path is not None]
        return json.loads(records.dumps([candidate.name, candidate.kind, stamps, dataclasses.asdict(self.options)]))

    def _load(self, number: int) -> list[ScannedRecording] | Rejection | None:
        """Stored scan; None if there is none, or it is stale."""
        raw = self.folder.read(self._key(number))
        try:
            value = json.loads(raw or b"")
            if value["of"] != self._identity(number):
                return None
            if "rejected" in value:
                return Rejection(**value["rejected"])
            return [ScannedRecording(**{key: _tuples(part) for key, part in one.items()}) for one in value["found"]]
        except (ValueError, KeyError, TypeError):  # written by another version
            return None


def _stamp(path: Path) -> list[int]:
    """Sizes and modification times of a file, or of the files in a folder; empty if it is missing."""
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
