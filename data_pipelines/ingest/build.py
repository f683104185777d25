"""Real recordings -> WSV datasets: find, scan, plan, cut; in processes and on hosts, all of which come to the same bytes.

Recordings of one form (over time or views, with the same channels, cameras, signals) and one bucket make one dataset. Where
all are of one, the dataset is at `out`; else each is in a folder below it, and `out` is a collection: see collection.py.
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
from data_pipelines.ingest.caption import Cue, checked, shown
from data_pipelines.ingest.crew import Crew
from data_pipelines.ingest.find import Candidate, Rejection, find_masked
from data_pipelines.ingest.plan import MEASURES, Cut, Filters, Found, plan
from data_pipelines.ingest.scan import Reading, Scans, reopened
from data_pipelines.workers import Died, Run, run
from data_pipelines.wsv import collection
from data_pipelines.wsv import manifest as records
from data_pipelines.wsv.clip import Clip
from data_pipelines.wsv.folder import Folder
from wsm_jax.snapshot import channel

SHARD_BYTES = 64 * 2**20
"""Pixels of a shard, at most (or one clip): what a worker holds in memory, a few times, and loses when it is killed."""

REJECTED = "rejected.jsonl"
_RUN = 8
"""Frames that are kept together at most, where nobody says how many: windows that begin anywhere read up to so many more."""
_RATED = ("frames", "rlds", "redwood")


@dataclasses.dataclass(frozen=True)
class Report:
    """What became of the recordings."""

    manifests: dict[str, dict[str, Any]]
    """Folder below `out` ("": itself) -> manifest, of every dataset."""
    rejected: tuple[Rejection, ...]
    """What was left out, and why."""

    @property
    def manifest(self) -> dict[str, Any]:
        """The one manifest. Raises ValueError where there are several."""
        if len(self.manifests) != 1:
            raise ValueError(f"{len(self.manifests)} datasets were made: {', '.join(self.manifests)}; needed one")
        return next(iter(self.manifests.values()))


def ingest(
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    name: str,
    licence: str,
    buckets: Sequence[Bucket],
    codec: str = "jpeg",
    frames_per_chunk: int | None = None,
    derive: tuple[str, ...] = (),
    captions: Mapping[str, Sequence[str | Cue]] | None = None,
    masks: str | Path | None = None,
    how: Reading | None = None,
    filters: Filters | None = None,
    strict: bool = False,
    workers: int = 1,
    host: int = 0,
    hosts: int = 1,
    runner: Run = run,
    progress: bool = True,
) -> Report:
    """Builds the dataset, or the collection of datasets, `out` from recordings of any kind that is known.

    Every recording is read twice: once to know that it is whole, how sharp it is and where its shots are, and once to cut its
    clips. Of those over time `frames_per_chunk` frames are kept together (None: 8, or those of a second where they are fewer).
    What cannot be used is left out, listed with its reason in the report and in rejected.jsonl of every dataset; with `strict`
    it is an error instead, before anything is written. A build that was stopped goes on when called again with the same
    arguments, and what is finished stays. Of `hosts` that are called with the same arguments and a `host` each, every one does
    its share, and waits for the others. One that is called when they have finished reads every recording itself.

    Raises FileNotFoundError or ValueError before anything is written for arguments that make no sense and where nothing can
    be used; OSError for a full disk.
    """
    how, filters = how or Reading(), (filters or Filters()).check()
    chosen = tuple(bucket.check() for bucket in buckets)
    _check(inputs, name, licence, chosen, frames_per_chunk)
    crew = Crew(workers, host, hosts, runner, progress).check()
    candidates, rejected = _candidates(inputs, masks, how)
    texts = checked([c.name for c in candidates], captions or {})
    scans = Scans(Folder(f"{str(out).rstrip('/')}.scan"), tuple(candidates), how)
    try:
        results = _scanned(scans, Folder(out), crew)
        found, cuts, rejected = _planned(results, texts, rejected, chosen, filters, strict)
        jobs = {
            folder: _Job(scans.candidates, tuple(found), tuple(members), how, derive)
            for folder, members in _groups(found, cuts).items()
        }
        _check_place(Folder(out), jobs)
        attached = {REJECTED: b"".join(records.dumps(dataclasses.asdict(one)) + b"\n" for one in rejected)}
        manifests = {}
        for folder, job in jobs.items():
            arguments = {"name": f"{name}/{folder}" if folder else name, "attached": attached}
            arguments |= {"sources": job.sources(licence), "build": job.build(chosen, filters)}
            path = f"{str(out).rstrip('/')}/{folder}" if folder else out
            manifests[folder] = _written(path, job.layout(codec, frames_per_chunk), arguments, job, crew)
    except ValueError:
        if crew.alone:  # another host would wait for them for ever
            scans.clear()
        raise
    if list(manifests) != [""]:
        collection.write(Folder(out), name, {key: value["counts"]["clips"] for key, value in manifests.items()})
    scans.clear()  # a host that still looks for them finds that all is done, and makes its own
    return Report(manifests, tuple(rejected))


def _check(inputs: Sequence[Any], name: str, licence: str, buckets: tuple[Bucket, ...], frames_per_chunk: int | None) -> None:
    if not inputs:
        raise ValueError("ingest: no inputs; needed at least one recording, as a video (mp4, mov, webm, mkv)")
    for key, value in (("name", name), ("licence", licence)):
        if not value.strip():
            raise ValueError(f"ingest: {key} is empty; every dataset states its {key}")
    if not buckets:
        raise ValueError("ingest: no buckets; needed one size, rate and length of clips at least")
    if frames_per_chunk is not None and frames_per_chunk < 1:
        raise ValueError(f"ingest: frames_per_chunk {frames_per_chunk}; needed 1 or more, or None")


def _candidates(
    inputs: Sequence[str | Path], masks: str | Path | None, how: Reading
) -> tuple[list[Candidate], list[Rejection]]:
    """What may be recordings, and what is none. Raises FileNotFoundError, and ValueError for a rate that is of none of them."""
    candidates, rejected = find_masked(inputs, masks)
    if how.fps is not None and not any(c.kind in _RATED for c in candidates):
        raise ValueError(
            f"ingest: fps={how.fps:g} is the rate of folders of frames, robot episodes and RGB-D frames without times, and no "
            "input is one; video files bring their own"
        )
    return candidates, rejected


def _check_place(out: Folder, groups: Iterable[str]) -> None:
    """Raises ValueError where a collection would get other files, or files of another build, among its own."""
    known = {collection.COLLECTION, *groups}
    if "" not in known:
        other = sorted(key for key in out.list() if key.split("/")[0] not in known)
        if other:
            raise ValueError(f"{out.path}: the folder holds other files ({other[0]}, ...); name a new or an empty one")


def _reasons(rejected: Sequence[Rejection]) -> str:
    lines = [f"{one.name}: {one.reason}" for one in rejected[:20]]
    more = f"\n... and {len(rejected) - 20} more" if len(rejected) > 20 else ""
    return "ingest: nothing was made of\n" + "\n".join(lines) + more if rejected else "ingest: no recording was found"


def _scanned(scans: Scans, out: Folder, crew: Crew) -> list[list[Found] | Rejection]:
    """What all recordings hold, in their order. A host may come late, when another has finished `out` and cleared the scans."""

    def over() -> bool:
        return any(out.read(key) is not None for key in (records.MANIFEST, collection.COLLECTION))

    while True:
        crew.work(scans, "reading", over)
        try:
            return scans.results()
        except ValueError:
            if crew.alone:
                raise


def _planned(
    results: Sequence[list[Found] | Rejection],
    texts: Sequence[Sequence[str | Cue]],
    rejected: Sequence[Rejection],
    buckets: tuple[Bucket, ...],
    filters: Filters,
    strict: bool,
) -> tuple[list[Found], list[Cut], list[Rejection]]:
    """What the scans found, with the captions given for each candidate, the clips of it, and what is left out in all,
    `rejected` first.

    Raises ValueError where there is no clip, or, if `strict`, where a whole recording is left out, and what `_captioned` does.
    """
    found = [_captioned(one, len(some), texts) for some in results if not isinstance(some, Rejection) for one in some]
    cuts, left = plan(found, buckets, filters)
    rejected = [*rejected, *(one for one in results if isinstance(one, Rejection)), *left]
    whole = [one for one in rejected if one.start is None]
    if not cuts or (strict and whole):
        raise ValueError(_reasons(whole or rejected))
    return found, cuts, rejected


def _captioned(of: Found, count: int, texts: Sequence[Sequence[str | Cue]]) -> Found:
    """One of the `count` recordings of a candidate, with the captions that are given for that, else with its own.

    Raises ValueError for times of what has none, or of several recordings.
    """
    given = texts[of.candidate]
    if not given:
        return of
    cue = next((one for one in given if isinstance(one, Cue)), None)
    if cue is not None and (of.kind == "views" or count > 1):
        what = "shows one instant" if of.kind == "views" else f"is one of {count} recordings that share these captions"
        raise ValueError(f"{cue.where}: {cue.text[:40]!r} has times, and {of.name} {what}; leave out start and end")
    captions, note = shown(given, of.seconds)
    notes = (*of.notes, note) if note else of.notes
    return dataclasses.replace(of, text=captions.text, spans=captions.spans, notes=notes)


def _groups(found: Sequence[Found], cuts: Sequence[Cut]) -> dict[str, list[Cut]]:
    """Folder -> the clips of one dataset; "" where there is one alone."""
    groups: dict[tuple[Any, ...], list[Cut]] = {}
    for cut in cuts:
        of = found[cut.found]
        bucket = (cut.bucket.height, cut.bucket.width) if of.kind == "views" else cut.bucket
        groups.setdefault((bucket, of.form), []).append(cut)
    if len(groups) == 1:
        return {"": next(iter(groups.values()))}
    named: dict[str, list[Cut]] = {}
    for members in groups.values():
        of, bucket = found[members[0].found], members[0].bucket
        base = f"{bucket.height}x{bucket.width}_views" if of.kind == "views" else bucket.name
        parts = [base, *of.channels, *(["camera"] if of.camera else []), *(name for name, _, _ in of.signals)]
        key = base if len({f for _, f in groups}) == 1 else "_".join(parts)
        while key in named:
            key += "_"
        named[key] = members
    return named


def _written(path: str | Path, layout: wsv.Layout, arguments: dict[str, Any], job: "_Job", crew: Crew) -> dict[str, Any]:
    """The manifest of one dataset, which is made if it is not there."""
    if manifest := wsv.finished(path, layout, **arguments):
        return manifest
    try:
        writer = wsv.create(path, layout, **arguments)
    except ValueError:
        if not crew.alone and (manifest := wsv.finished(path, layout, **arguments)):
            return manifest
        raise
    crew.work(_Shard(writer, job), f"writing {arguments['name']}")
    try:
        return writer.finish()
    except ValueError:
        if not crew.alone and (manifest := wsv.finished(path, layout, **arguments)):
            return manifest
        raise


@dataclasses.dataclass(frozen=True)
class _Job:
    """The clips of one dataset, and all that is needed to cut them; travels to the workers."""

    candidates: tuple[Candidate, ...]
    found: tuple[Found, ...]
    cuts: tuple[Cut, ...]
    how: Reading
    derive: tuple[str, ...]

    @property
    def numbers(self) -> list[int]:
        """The recordings, by their numbers in `found`."""
        return sorted({cut.found for cut in self.cuts})

    @property
    def extra(self) -> tuple[str, ...]:
        """The channels that are worked out."""
        of = self.found[self.cuts[0].found]
        return frame.derived(of.channels, of.kind, of.camera, self.derive)

    def layout(self, codec: str, frames_per_chunk: int | None) -> wsv.Layout:
        """The layout of the dataset."""
        of, bucket = self.found[self.cuts[0].found], self.cuts[0].bucket
        length = max(len(cut.frames) for cut in self.cuts)
        seconds = 1.0 if of.kind == "views" else float(bucket.seconds)
        steps = {
            name: max(self.found[cut.found].steps(name, cut.start, cut.start + seconds) for cut in self.cuts)
            for name, _, _ in of.signals
            if of.kind != "views"
        }
        video = of.kind == "video"
        chunk = (frames_per_chunk or max(1, min(_RUN, round(bucket.frame_hz)))) if video else 1
        channels = (*of.channels, *self.extra)
        pixel = sum(channel(name).components * np.dtype(channel(name).dtype).itemsize for name in channels)
        return wsv.Layout(
            clips=len(self.cuts),
            frames=length,
            height=bucket.height,
            width=bucket.width,
            frame_hz=bucket.frame_hz if video else 1.0,
            ticks=0,
            waves=0,
            channels=tuple(channels),
            rgb_codec=codec,
            clips_per_shard=int(np.clip(SHARD_BYTES // (length * bucket.height * bucket.width * pixel), 1, 64)),
            frames_per_chunk=min(length, chunk),
            camera=of.camera,
            captions=any(self.found[number].text for number in self.numbers),
            over="time" if video else "views",
            lens=of.lens,
            ragged=of.kind == "views",
            signals=tuple((name, parts, steps[name]) for name, parts, _ in of.signals if name in steps),
            measures=MEASURES,
            derived=self.extra,
        )

    def build(self, buckets: tuple[Bucket, ...], filters: Filters) -> dict[str, Any]:
        """What the clips were cut by, for the manifest; remake.py plans by it."""
        return {
            "verb": "ingest",
            "buckets": sorted({cut.bucket.name for cut in self.cuts}),
            "derive": list(self.derive),
            "chosen": [list(dataclasses.astuple(bucket)) for bucket in buckets],
            "how": dataclasses.asdict(self.how),
            "filters": dataclasses.asdict(filters),
        }

    def sources(self, licence: str) -> list[dict[str, Any]]:
        """Where the clips come from, for the manifest; names no directory."""
        counts: dict[int, list[Cut]] = {number: [] for number in self.numbers}
        for cut in self.cuts:
            counts[cut.found].append(cut)
        rows = []
        for number, cuts in counts.items():
            of = self.found[number]
            rows.append(
                {
                    "name": of.name,
                    "licence": licence,
                    "sha256": of.sha256,
                    "fps": of.frame_hz if of.kind == "video" else 0.0,
                    "height": of.size[0][0],
                    "width": of.size[0][1],
                    "seconds": of.seconds,
                    "frames": len(of.time),
                    "notes": list(of.notes),
                    "clips": len(cuts),
                    "seconds_used": sum(float(cut.bucket.seconds) for cut in cuts) if of.kind == "video" else 0.0,
                }
            )
        return rows


@dataclasses.dataclass(frozen=True)
class _Shard:
    """Cuts the clips of a shard, and writes it."""

    writer: wsv.Writer
    job: _Job

    def __call__(self, shard: int) -> None:
        if self.missing([shard]):
            self.writer.write(shard, self.clips(shard))

    def missing(self, among: Iterable[int] | None = None) -> list[int]:
        """The shards that are not written yet."""
        left = self.writer.missing()
        return left if among is None else sorted({*among} & {*left})

    def died(self, number: int, error: Died) -> None:
        """No shard can be left out."""
        raise error

    def clips(self, shard: int) -> list[Clip]:
        """The clips of a shard, in order."""
        job, layout, made = self.job, self.writer.layout, []
        numbers = job.numbers
        cuts = [job.cuts[index] for index in layout.span(shard)]
        for number, of_one in itertools.groupby(cuts, key=lambda cut: cut.found):
            of = job.found[number]
            recording = reopened(job.candidates[of.candidate], job.how, of)
            members = list(of_one)
            captions = [of.captions.within(*cut.span) for cut in members]
            made += frame.clips(recording, members, layout, captions, numbers.index(number))
        return made
