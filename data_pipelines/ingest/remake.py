"""Clips of an ingested dataset, cut again from its recordings, to repair it.

Recordings are identified by their sha256: they may be in any place and order, and only the needed ones must be there.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.ingest import frame
from data_pipelines.ingest.bucket import Bucket
from data_pipelines.ingest.build import REJECTED
from data_pipelines.ingest.caption import Captions, Cue, drop_late_cues
from data_pipelines.ingest.find import Candidate, Rejection, find_with_masks
from data_pipelines.ingest.plan import Filters, PlannedClip, ScannedRecording, plan_clips
from data_pipelines.ingest.scan import ReaderOptions, digest, read_candidate, reopen, scan_candidate, strip_directories
from data_pipelines.recording.mask import mask_files
from data_pipelines.recording.stills import folder_files
from data_pipelines.wsv import manifest as records
from data_pipelines.wsv.clip import Clip
from data_pipelines.wsv.folder import Folder

IdentityCache = dict[tuple[Candidate, ReaderOptions], tuple[tuple[str, str], ...]]
"""Candidate and options -> (name, sha256) of each of its recordings."""
_NO_CAPTIONS: Mapping[str, Sequence[str | Cue]] = {}


@dataclasses.dataclass(frozen=True)
class Remake:
    """Builder that regenerates the clips of a shard of one dataset; picklable."""

    folder: Folder
    manifest: dict[str, Any]
    """Manifest of the dataset, or its head."""
    places: dict[int, tuple[Candidate, int]]
    """Number of a source in the manifest -> its candidate, and its index among the recordings of that."""
    candidates: tuple[Candidate, ...]
    """All candidates in the inputs, in order."""
    rejected: tuple[Rejection, ...]
    """Inputs that are no recordings."""
    refused: dict[str, str]
    """Inputs that do not belong to the dataset: name -> reason."""
    captions: Mapping[str, Sequence[str | Cue]]

    def __call__(self, shard: int) -> list[Clip]:
        """Clips of a shard, in order. Raises ValueError or OSError that names a missing or changed recording."""
        layout, first, clips = records.layout_of(self.manifest), 0, []
        span = layout.span(shard)
        for number, source in enumerate(self.manifest["sources"]):
            start, stop = max(span.start, first) - first, min(span.stop, first + source["clips"]) - first
            first += source["clips"]
            if start < stop:
                clips += self._cut(shard, number, start, stop)
        return clips

    def attached(self) -> dict[str, bytes]:
        """List of rejections; equal to the original one only if all recordings are there and unchanged."""
        results = [scan_candidate(candidate, self._options, number) for number, candidate in enumerate(self.candidates)]
        rejected = [*self.rejected, *(one for one in results if isinstance(one, Rejection))]
        scanned = [one for some in results if not isinstance(some, Rejection) for one in some]
        rejected += plan_clips(scanned, self._buckets, self._filters)[1]
        return {REJECTED: b"".join(records.dumps(dataclasses.asdict(one)) + b"\n" for one in rejected)}

    @property
    def _options(self) -> ReaderOptions:
        return _reader_options(self.manifest)

    @property
    def _buckets(self) -> tuple[Bucket, ...]:
        return tuple(Bucket(*row) for row in self.manifest["build"]["chosen"])

    @property
    def _filters(self) -> Filters:
        return Filters(**self.manifest["build"]["filters"])

    def _cut(self, shard: int, number: int, start: int, stop: int) -> list[Clip]:
        """Clips `start` to `stop` of a source, all in one shard."""
        layout, (scanned, planned) = records.layout_of(self.manifest), self._planned(number)
        recording = reopen(self.places[number][0], self._options, scanned)
        stored = self._stored_captions(shard, number)
        if not stored:
            whole = self._captions(number, scanned, planned)
            stored = {place: whole.crop(*planned[place].span) for place in range(start, stop)}
        captions = [stored[place] for place in range(start, stop)]
        return list(frame.cut_clips(recording, planned[start:stop], layout, captions, number))

    def _planned(self, number: int) -> tuple[ScannedRecording, list[PlannedClip]]:
        """New scan of a source, and the plan of its clips in the dataset. Raises ValueError if the manifest differs."""
        source, layout = self.manifest["sources"][number], records.layout_of(self.manifest)
        if number not in self.places:
            bare = "instance" in layout.channels and not any(one.masks for one in self.candidates)
            masks = "; where it had masks they are a part of it: give them as --masks=FOLDER" if bare else ""
            raise ValueError(f"needed {source['name']} (sha256 {source['sha256']}), which was not given{masks}")
        candidate, index = self.places[number]
        results = _scan_cached(candidate, self._options, source["sha256"])
        if isinstance(results, Rejection):
            raise ValueError(f"{candidate.name}: {results.reason}")
        scanned = next(one for one in results if one.number == index)
        planned = [one for one in plan_clips([scanned], self._buckets, self._filters)[0] if _fits(one.bucket, layout)]
        if scanned.sha256 != source["sha256"] or len(planned) != source["clips"]:
            raise ValueError(f"{source['name']}: gives {len(planned)} clips, the dataset has {source['clips']} of it")
        return scanned, planned

    def _captions(self, number: int, scanned: ScannedRecording, planned: Sequence[PlannedClip]) -> Captions:
        """Captions of a source: those passed in, or its own, if they agree with the stored captions of its intact clips; else
        those without times of an intact clip."""
        layout, counts = records.layout_of(self.manifest), [source["clips"] for source in self.manifest["sources"]]
        first = sum(counts[:number])
        shards = range(first // layout.clips_per_shard, (first + counts[number] - 1) // layout.clips_per_shard + 1)
        intact = {place: one for shard in shards for place, one in self._stored_captions(shard, number).items()}
        name = self.places[number][0].name
        passed, _ = drop_late_cues(self.captions.get(name, self.captions.get(Path(name).name, ())), scanned.seconds)
        for captions in (passed, scanned.captions):
            if captions.text and all(captions.crop(*planned[place].span) == one for place, one in intact.items()):
                return captions
        some = next(iter(intact.values()), Captions())
        timed = some.spans or (None,) * len(some.text)
        return Captions(tuple(text for text, span in zip(some.text, timed, strict=True) if span is None))

    def _stored_captions(self, shard: int, number: int) -> dict[int, Captions]:
        """Captions in the text file of a shard, by the index of the clip in its source; empty if the file is damaged."""
        layout, counts = records.layout_of(self.manifest), [source["clips"] for source in self.manifest["sources"]]
        first, stored = sum(counts[:number]), {}
        for clip, line in zip(layout.span(shard), self._lines(shard), strict=False):
            if first <= clip < first + counts[number]:
                spans = tuple(span and (float(span[0]), float(span[1])) for span in line.get("spans", ()))
                stored[clip - first] = Captions(tuple(line["captions"]), spans)
        return stored

    def _lines(self, shard: int) -> list[dict[str, Any]]:
        """Lines of the text file of a shard; empty if it is damaged."""
        key = records.text_file(shard)
        files = self.manifest.get("files", {})
        try:
            raw = self.folder.read(key) or b""
            lines = [json.loads(line) for line in raw.splitlines()]
            whole = key not in files or records.sha256(raw) == files[key]["sha256"]
            return lines if whole and len(lines) == len(records.layout_of(self.manifest).span(shard)) else []
        except (ValueError, OSError):
            return []


def remake(
    path: str | Path,
    manifest: dict[str, Any],
    inputs: Sequence[str | Path],
    captions: Mapping[str, Sequence[str | Cue]] = _NO_CAPTIONS,
    cache: IdentityCache | None = None,
    masks: str | Path | None = None,
) -> Remake:
    """Builder of the clips of the ingested dataset at `path`, from its manifest (or head) and the recordings in `inputs`.

    `captions` are those of the original build, needed only if all clips of a recording have lost theirs. `masks` is the folder
    of masks of the original build, as masks are a part of a recording. A `cache` shared by several datasets has every input
    hashed once. Raises FileNotFoundError for a missing input, KeyError for masks that fit several recordings, ValueError for a
    dataset whose manifest does not describe its build.
    """
    build = manifest["build"]
    if build.get("verb") != "ingest" or "chosen" not in build:
        raise ValueError(f"{path}: its clips cannot be cut again: build {build}; needed one of ingest, by this release")
    options, sources = _reader_options(manifest), manifest["sources"]
    candidates, rejected = find_with_masks(inputs, masks) if inputs else ([], [])
    refused = {one.name: f"{one.name}: {one.reason}" for one in rejected}
    known: list[tuple[str, str, Candidate, int]] = []
    cache = {} if cache is None else cache
    for candidate in candidates:
        try:
            cache[candidate, options] = cache.get((candidate, options)) or _identities(candidate, options)
            known += [(*one, candidate, index) for index, one in enumerate(cache[candidate, options])]
        except Exception as error:  # a defect of one recording must not stop the repair with the others
            refused[candidate.name] = f"{candidate.name}: {strip_directories(str(error), candidate)}"
    places: dict[int, tuple[Candidate, int]] = {}
    for number, source in enumerate(sources):
        same = [one for one in known if one[1] == source["sha256"]]
        alone = sum(other["sha256"] == source["sha256"] for other in sources) == 1
        exact = [one for one in same if one[0] == source["name"]]
        like = [one for one in same if alone or Path(one[0]).name == Path(source["name"]).name]
        if exact or like:
            places[number] = (exact or like)[0][2:]
    digests = {source["sha256"] for source in sources}
    for name, sha256, _, _ in known:
        if sha256 not in digests:
            needed = [source["sha256"] for source in sources if Path(source["name"]).name == Path(name).name]
            what = (
                f"is another than the dataset was made of, needed {needed[0]}" if needed else "no clip of the dataset is of it"
            )
            refused[name] = f"{name}: not used; {what}; its sha256 is {sha256}"
    return Remake(Folder(path), manifest, places, tuple(candidates), tuple(rejected), refused, dict(captions))


def _reader_options(manifest: dict[str, Any]) -> ReaderOptions:
    fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in manifest["build"]["how"].items()}
    return ReaderOptions(**fields)


def _fits(bucket: Bucket, layout: records.Layout) -> bool:
    """True if clips of a bucket are in a dataset of a layout."""
    size = (bucket.height, bucket.width) == (layout.height, layout.width)
    return size and (layout.over == "views" or (bucket.frame_hz, bucket.frames) == (layout.frame_hz, layout.frames))


@functools.lru_cache(maxsize=4)
def _scan_cached(candidate: Candidate, options: ReaderOptions, sha256: str) -> list[ScannedRecording] | Rejection:
    """Scan of a candidate; its `sha256` is a part of the cache key."""
    return scan_candidate(candidate, options, 0)


def _identities(candidate: Candidate, options: ReaderOptions) -> tuple[tuple[str, str], ...]:
    """(name, sha256) of every recording of a candidate. Raises what its reader raises."""
    if candidate.kind in ("video", "frames"):
        files = folder_files(candidate.path) if candidate.kind == "frames" else (candidate.path,)
        masks = () if candidate.masks is None else mask_files(candidate.masks)
        return ((candidate.name, digest((*files, *masks))),)
    recordings = list(read_candidate(candidate, options))
    names = [one.name if one.name == candidate.name else f"{candidate.name}/{one.name}" for one in recordings]
    return tuple((name, digest(one.files)) for name, one in zip(names, recordings, strict=True))
