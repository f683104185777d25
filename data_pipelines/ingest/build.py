"""Real recordings -> WSV datasets: find, scan, plan, cut; the bytes do not depend on the number of processes and hosts.

Recordings with the same channels, cameras and signals (over time or views) and one bucket make one dataset. A single dataset is
at `out`; several are in folders below it, and `out` is a collection: see collection.py.
"""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines import wsv
from data_pipelines.ingest import frame
from data_pipelines.ingest.bucket import Bucket
from data_pipelines.ingest.caption import Cue, drop_late_cues, match_captions
from data_pipelines.ingest.find import Candidate, Rejection, find_with_masks
from data_pipelines.ingest.plan import MEASURES, Filters, PlannedClip, ScannedRecording, plan_clips
from data_pipelines.ingest.scan import ReaderOptions, ScanTask, reopen
from data_pipelines.ingest.scheduler import Scheduler
from data_pipelines.workers import WorkerCrash
from data_pipelines.wsv import collection
from data_pipelines.wsv import manifest as records
from data_pipelines.wsv.clip import Clip
from data_pipelines.wsv.folder import Folder
from wsm_jax.snapshot import channel

SHARD_BYTES = 64 * 2**20
"""Most bytes of pixels in a shard (at least one clip): a worker holds a few times this in memory, and a crash loses it."""

REJECTED = "rejected.jsonl"
_CHUNK = 8
"""Default of the most frames per chunk; a window that begins inside a chunk reads up to that many more."""
_RATED = ("frames", "rlds", "redwood")
"""Kinds of recordings that may have no times."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class IngestOptions:
    """Content of a dataset of recordings: the same options and inputs give the same bytes."""

    name: str
    """Name of the dataset."""
    licence: str
    """Licence of the recordings."""
    buckets: Sequence[Bucket]
    """Sizes, rates and lengths of the clips."""
    codec: str = "jpeg"
    """Storage of rgb: "jpeg", "h264" or "array"."""
    frames_per_chunk: int | None = None
    """Frames stored together; None: 8, or those of a second if fewer."""
    derive: tuple[str, ...] = ()
    """Channels to compute where depth and cameras are known: "normal", "motion"."""
    captions: Mapping[str, Sequence[str | Cue]] = dataclasses.field(default_factory=dict)
    """Name of a recording -> its captions."""
    masks: str | Path | None = None
    """Folder of instance masks."""
    reader: ReaderOptions = dataclasses.field(default_factory=ReaderOptions)
    filters: Filters = dataclasses.field(default_factory=Filters)
    strict: bool = False
    """Raise for an unusable recording, before anything is written, instead of leaving it out."""

    def check(self) -> "IngestOptions":
        """Return itself. Raises ValueError that names the option with an invalid value."""
        for key, value in (("name", self.name), ("licence", self.licence)):
            if not value.strip():
                raise ValueError(f"ingest: {key} is empty; every dataset states its {key}")
        if not self.buckets:
            raise ValueError("ingest: no buckets; needed one size, rate and length of clips at least")
        if self.frames_per_chunk is not None and self.frames_per_chunk < 1:
            raise ValueError(f"ingest: frames_per_chunk {self.frames_per_chunk}; needed 1 or more, or None")
        for part in (*self.buckets, self.filters):
            part.check()
        return self


@dataclasses.dataclass(frozen=True)
class Report:
    """Result of a build."""

    manifests: dict[str, dict[str, Any]]
    """Folder of a dataset below `out` ("": `out` itself) -> its manifest."""
    rejected: tuple[Rejection, ...]
    """Recordings, and parts of them, that were left out, with reasons."""

    @property
    def manifest(self) -> dict[str, Any]:
        """The only manifest. Raises ValueError if there are several."""
        if len(self.manifests) != 1:
            raise ValueError(f"{len(self.manifests)} datasets were made: {', '.join(self.manifests)}; needed one")
        return next(iter(self.manifests.values()))


def ingest(inputs: Sequence[str | Path], out: str | Path, options: IngestOptions, scheduler: Scheduler | None = None) -> Report:
    """Build the dataset, or the collection of datasets, `out` from recordings of any supported kind.

    Every recording is read twice: first to check it and to measure sharpness and shots, then to cut its clips. Unusable
    recordings are left out and listed with the reason in the report and in rejected.jsonl of every dataset. A build that was
    stopped continues when called again with the same arguments; finished files stay. With several hosts each one is called with
    the same arguments and its own index, makes its share, and waits for the others; a host that starts after the others have
    finished reads every recording itself.

    Raises FileNotFoundError or ValueError before anything is written for invalid arguments, and where no clip can be made;
    OSError for a full disk.
    """
    if not inputs:
        raise ValueError("ingest: no inputs; needed at least one recording, as a video (mp4, mov, webm, mkv)")
    options.check()
    scheduler = (scheduler or Scheduler()).check()
    candidates, rejected = _candidates(inputs, options)
    texts = match_captions([c.name for c in candidates], options.captions)
    scans = ScanTask(Folder(f"{str(out).rstrip('/')}.scan"), tuple(candidates), options.reader)
    try:
        results = _scan_all(scans, Folder(out), scheduler)
        scanned, planned, rejected = _planned(results, texts, rejected, options)
        job_options = dataclasses.replace(options, captions={})  # workers have them in `scanned`
        jobs = {
            folder: _DatasetJob(scans.candidates, tuple(scanned), tuple(members), job_options)
            for folder, members in _datasets(scanned, planned).items()
        }
        _check_place(Folder(out), jobs)
        attached = {REJECTED: b"".join(records.dumps(dataclasses.asdict(one)) + b"\n" for one in rejected)}
        manifests = {}
        for folder, job in jobs.items():
            arguments = {"name": f"{options.name}/{folder}" if folder else options.name, "attached": attached}
            arguments |= {"sources": job.sources(), "build": job.build()}
            path = f"{str(out).rstrip('/')}/{folder}" if folder else out
            manifests[folder] = _written(path, job.layout(), arguments, job, scheduler)
    except ValueError:
        if scheduler.single_host:  # another host would wait for the scans for ever
            scans.clear()
        raise
    if list(manifests) != [""]:
        collection.write(Folder(out), options.name, {key: value["counts"]["clips"] for key, value in manifests.items()})
    scans.clear()  # a host that still needs them sees that the build is finished, and makes its own
    return Report(manifests, tuple(rejected))


def _candidates(inputs: Sequence[str | Path], options: IngestOptions) -> tuple[list[Candidate], list[Rejection]]:
    """Candidates and rejections of the inputs. Raises FileNotFoundError, and ValueError for a rate that no input needs."""
    candidates, rejected = find_with_masks(inputs, options.masks)
    fps = options.reader.fps
    if fps is not None and not any(c.kind in _RATED for c in candidates):
        raise ValueError(
            f"ingest: fps={fps:g} is the rate of folders of frames, robot episodes and RGB-D frames without times, and no "
            "input is one; video files bring their own"
        )
    return candidates, rejected


def _check_place(out: Folder, groups: Iterable[str]) -> None:
    """Raise ValueError if the folder of a collection holds files that are not of this build."""
    known = {collection.COLLECTION, *groups}
    if "" not in known:
        other = sorted(key for key in out.list() if key.split("/")[0] not in known)
        if other:
            raise ValueError(f"{out.path}: the folder holds other files ({other[0]}, ...); name a new or an empty one")


def _reasons(rejected: Sequence[Rejection]) -> str:
    lines = [f"{one.name}: {one.reason}" for one in rejected[:20]]
    more = f"\n... and {len(rejected) - 20} more" if len(rejected) > 20 else ""
    return "ingest: nothing was made of\n" + "\n".join(lines) + more if rejected else "ingest: no recording was found"


def _scan_all(scans: ScanTask, out: Folder, scheduler: Scheduler) -> list[list[ScannedRecording] | Rejection]:
    """Scans of all candidates, in order, also if another host has finished `out` and deleted the scans before."""

    def finished() -> bool:
        return any(out.read(key) is not None for key in (records.MANIFEST, collection.COLLECTION))

    while True:
        scheduler.work(scans, "reading", finished)
        try:
            return scans.results()
        except ValueError:
            if scheduler.single_host:
                raise


def _planned(
    results: Sequence[list[ScannedRecording] | Rejection],
    texts: Sequence[Sequence[str | Cue]],
    rejected: Sequence[Rejection],
    options: IngestOptions,
) -> tuple[list[ScannedRecording], list[PlannedClip], list[Rejection]]:
    """Scanned recordings with their captions, the plan of their clips, and all rejections, `rejected` first.

    Raises ValueError if there is no clip, if a whole recording is left out and the build is strict, and as `_with_captions`.
    """
    scanned = [_with_captions(one, len(some), texts) for some in results if not isinstance(some, Rejection) for one in some]
    planned, left_out = plan_clips(scanned, tuple(options.buckets), options.filters)
    rejected = [*rejected, *(one for one in results if isinstance(one, Rejection)), *left_out]
    whole = [one for one in rejected if one.start is None]
    if not planned or (options.strict and whole):
        raise ValueError(_reasons(whole or rejected))
    return scanned, planned, rejected


def _with_captions(recording: ScannedRecording, count: int, texts: Sequence[Sequence[str | Cue]]) -> ScannedRecording:
    """One of the `count` recordings of a candidate, with the captions in `texts`; it keeps its own if there are none.

    Raises ValueError for times in captions of views, or of several recordings.
    """
    captions = texts[recording.candidate]
    if not captions:
        return recording
    cue = next((one for one in captions if isinstance(one, Cue)), None)
    views = recording.kind == "views"
    if cue is not None and (views or count > 1):
        what = "shows one instant" if views else f"is one of {count} recordings that share these captions"
        raise ValueError(f"{cue.where}: {cue.text[:40]!r} has times, and {recording.name} {what}; leave out start and end")
    kept, note = drop_late_cues(captions, recording.seconds)
    notes = (*recording.notes, note) if note else recording.notes
    return dataclasses.replace(recording, text=kept.text, spans=kept.spans, notes=notes)


def _datasets(scanned: Sequence[ScannedRecording], planned: Sequence[PlannedClip]) -> dict[str, list[PlannedClip]]:
    """Folder -> clips of one dataset; the folder of a single dataset is ""."""
    groups: dict[tuple[Any, ...], list[PlannedClip]] = {}
    for clip in planned:
        recording = scanned[clip.recording]
        bucket = (clip.bucket.height, clip.bucket.width) if recording.kind == "views" else clip.bucket
        groups.setdefault((bucket, recording.dataset_key), []).append(clip)
    if len(groups) == 1:
        return {"": next(iter(groups.values()))}
    named: dict[str, list[PlannedClip]] = {}
    for members in groups.values():
        first, bucket = scanned[members[0].recording], members[0].bucket
        base = f"{bucket.height}x{bucket.width}_views" if first.kind == "views" else bucket.name
        parts = [base, *first.channels, *(["camera"] if first.camera else []), *(name for name, _, _ in first.signals)]
        key = base if len({key for _, key in groups}) == 1 else "_".join(parts)
        while key in named:
            key += "_"
        named[key] = members
    return named


def _written(
    path: str | Path, layout: wsv.Layout, arguments: dict[str, Any], job: "_DatasetJob", scheduler: Scheduler
) -> dict[str, Any]:
    """Manifest of one dataset, which is built if it is not finished. Raises ValueError and OSError as the writer."""
    if manifest := wsv.finished(path, layout, **arguments):
        return manifest
    try:
        writer = wsv.create(path, layout, **arguments)
    except ValueError:
        if not scheduler.single_host and (manifest := wsv.finished(path, layout, **arguments)):
            return manifest
        raise
    scheduler.work(_ShardTask(writer, job), f"writing {arguments['name']}")
    try:
        return writer.finish()
    except ValueError:
        if not scheduler.single_host and (manifest := wsv.finished(path, layout, **arguments)):
            return manifest
        raise


@dataclasses.dataclass(frozen=True)
class _DatasetJob:
    """Clips of one dataset, and all data needed to cut them; pickled for the workers."""

    candidates: tuple[Candidate, ...]
    scanned: tuple[ScannedRecording, ...]
    planned: tuple[PlannedClip, ...]
    options: IngestOptions

    @property
    def numbers(self) -> list[int]:
        """Indices in `scanned` of the recordings of the dataset."""
        return sorted({clip.recording for clip in self.planned})

    @property
    def first(self) -> ScannedRecording:
        """First recording; all have the same channels, cameras and signals."""
        return self.scanned[self.planned[0].recording]

    @property
    def derived(self) -> tuple[str, ...]:
        """Computed channels."""
        return frame.derivable(self.first.channels, self.first.kind, self.first.camera, self.options.derive)

    def layout(self) -> wsv.Layout:
        """Layout of the dataset."""
        first, bucket = self.first, self.planned[0].bucket
        length = max(len(clip.frames) for clip in self.planned)
        video = first.kind == "video"
        seconds = float(bucket.seconds) if video else 1.0
        steps = {
            name: max(self.scanned[clip.recording].max_steps(name, clip.start, clip.start + seconds) for clip in self.planned)
            for name, _, _ in first.signals
            if video
        }
        chunk = (self.options.frames_per_chunk or max(1, min(_CHUNK, round(bucket.frame_hz)))) if video else 1
        channels = (*first.channels, *self.derived)
        pixel = sum(channel(name).components * np.dtype(channel(name).dtype).itemsize for name in channels)
        return wsv.Layout(
            clips=len(self.planned),
            frames=length,
            height=bucket.height,
            width=bucket.width,
            frame_hz=bucket.frame_hz if video else 1.0,
            ticks=0,
            waves=0,
            channels=tuple(channels),
            rgb_codec=self.options.codec,
            clips_per_shard=int(np.clip(SHARD_BYTES // (length * bucket.height * bucket.width * pixel), 1, 64)),
            frames_per_chunk=min(length, chunk),
            camera=first.camera,
            captions=any(self.scanned[number].text for number in self.numbers),
            over="time" if video else "views",
            lens=first.lens,
            ragged=not video,
            signals=tuple((name, parts, steps[name]) for name, parts, _ in first.signals if name in steps),
            measures=MEASURES,
            derived=self.derived,
        )

    def build(self) -> dict[str, Any]:
        """Options of the build for the manifest; remake.py plans with them."""
        return {
            "verb": "ingest",
            "buckets": sorted({clip.bucket.name for clip in self.planned}),
            "derive": list(self.options.derive),
            "chosen": [list(dataclasses.astuple(bucket)) for bucket in self.options.buckets],
            "how": dataclasses.asdict(self.options.reader),
            "filters": dataclasses.asdict(self.options.filters),
        }

    def sources(self) -> list[dict[str, Any]]:
        """Provenance of the clips for the manifest; names no directory."""
        clips: dict[int, list[PlannedClip]] = {number: [] for number in self.numbers}
        for clip in self.planned:
            clips[clip.recording].append(clip)
        rows = []
        for number, members in clips.items():
            of = self.scanned[number]
            rows.append(
                {
                    "name": of.name,
                    "licence": self.options.licence,
                    "sha256": of.sha256,
                    "fps": of.frame_hz if of.kind == "video" else 0.0,
                    "height": of.size[0][0],
                    "width": of.size[0][1],
                    "seconds": of.seconds,
                    "frames": len(of.time),
                    "notes": list(of.notes),
                    "clips": len(members),
                    "seconds_used": sum(float(clip.bucket.seconds) for clip in members) if of.kind == "video" else 0.0,
                }
            )
        return rows


@dataclasses.dataclass(frozen=True)
class _ShardTask:
    """Task that cuts the clips of a shard and writes it."""

    writer: wsv.Writer
    job: _DatasetJob

    def __call__(self, shard: int) -> None:
        if self.missing([shard]):
            self.writer.write(shard, self.clips(shard))

    def missing(self, among: Iterable[int] | None = None) -> list[int]:
        """Shards (of `among`, or all) that are not written yet."""
        missing = self.writer.missing()
        return missing if among is None else sorted({*among} & {*missing})

    def on_worker_crash(self, number: int, error: WorkerCrash) -> None:
        """Raise `error`, because no shard can be left out."""
        raise error

    def clips(self, shard: int) -> list[Clip]:
        """Clips of a shard, in order. Raises ValueError or OSError that names a changed recording."""
        job, layout, clips = self.job, self.writer.layout, []
        numbers = job.numbers
        planned = [job.planned[index] for index in layout.span(shard)]
        for number, group in itertools.groupby(planned, key=lambda clip: clip.recording):
            scanned = job.scanned[number]
            recording = reopen(job.candidates[scanned.candidate], job.options.reader, scanned)
            members = list(group)
            captions = [scanned.captions.crop(*clip.span) for clip in members]
            clips += frame.cut_clips(recording, members, layout, captions, numbers.index(number))
        return clips
