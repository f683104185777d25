"""The clips of an ingested dataset, cut again from the recordings that it was made of, for its repair.

A recording is known by its sha256, so it may lie anywhere and be given in any order; only what is needed must be given.
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
from data_pipelines.ingest.caption import Captions, Cue, shown
from data_pipelines.ingest.find import Candidate, Rejection, find_masked
from data_pipelines.ingest.plan import Cut, Filters, Found, plan
from data_pipelines.ingest.scan import Reading, digest, plain, recordings, reopened, scan
from data_pipelines.recording.mask import mask_files
from data_pipelines.recording.stills import folder_files
from data_pipelines.wsv import manifest as records
from data_pipelines.wsv.clip import Clip
from data_pipelines.wsv.folder import Folder

Seen = dict[tuple[Candidate, Reading], tuple[tuple[str, str], ...]]
"""(name, sha256) of the recordings of candidates that were read."""
_NOTHING: Mapping[str, Sequence[str | Cue]] = {}


@dataclasses.dataclass(frozen=True)
class Remake:
    """Makes the clips of the shards of one dataset; travels to the workers."""

    folder: Folder
    manifest: dict[str, Any]
    """Its head will do."""
    places: dict[int, tuple[Candidate, int]]
    """Number of a source in the manifest -> where it is: the candidate, and which of its recordings."""
    candidates: tuple[Candidate, ...]
    """All that were given, in order."""
    rejected: tuple[Rejection, ...]
    """What was given and is no recording."""
    refused: dict[str, str]
    """What was given and is not of the dataset, by its name, and why."""
    captions: Mapping[str, Sequence[str | Cue]]

    def __call__(self, shard: int) -> list[Clip]:
        """The clips of a shard, in order. Raises ValueError or OSError that names the recording that is missing or other."""
        layout, first, made = records.layout_of(self.manifest), 0, []
        span = layout.span(shard)
        for number, source in enumerate(self.manifest["sources"]):
            start, stop = max(span.start, first) - first, min(span.stop, first + source["clips"]) - first
            first += source["clips"]
            if start < stop:
                made += self._cut(shard, number, start, stop)
        return made

    def attached(self) -> dict[str, bytes]:
        """The list of what was left out; the one that was written only where all recordings are given again as they were."""
        results = [scan(candidate, self._how, number) for number, candidate in enumerate(self.candidates)]
        left = [*self.rejected, *(one for one in results if isinstance(one, Rejection))]
        left += plan(
            [one for some in results if not isinstance(some, Rejection) for one in some], self._buckets, self._filters
        )[1]
        return {REJECTED: b"".join(records.dumps(dataclasses.asdict(one)) + b"\n" for one in left)}

    @property
    def _how(self) -> Reading:
        return _reading(self.manifest)

    @property
    def _buckets(self) -> tuple[Bucket, ...]:
        return tuple(Bucket(*row) for row in self.manifest["build"]["chosen"])

    @property
    def _filters(self) -> Filters:
        return Filters(**self.manifest["build"]["filters"])

    def _cut(self, shard: int, number: int, start: int, stop: int) -> list[Clip]:
        """Some of the clips of a source, all in one shard."""
        layout, (found, cuts) = records.layout_of(self.manifest), self._planned(number)
        recording = reopened(self.places[number][0], self._how, found)
        said = self._said(shard, number)
        if not said:
            whole = self._captions(number, found, cuts)
            said = {place: whole.within(*cuts[place].span) for place in range(start, stop)}
        captions = [said[place] for place in range(start, stop)]
        return list(frame.clips(recording, cuts[start:stop], layout, captions, number))

    def _planned(self, number: int) -> tuple[Found, list[Cut]]:
        """A source, scanned again, and all clips of it that the dataset has."""
        source, layout = self.manifest["sources"][number], records.layout_of(self.manifest)
        if number not in self.places:
            bare = "instance" in layout.channels and not any(one.masks for one in self.candidates)
            masks = "; where it had masks they are a part of it: give them as --masks=FOLDER" if bare else ""
            raise ValueError(f"needed {source['name']} (sha256 {source['sha256']}), which was not given{masks}")
        candidate, index = self.places[number]
        results = _scanned(candidate, self._how, source["sha256"])
        if isinstance(results, Rejection):
            raise ValueError(f"{candidate.name}: {results.reason}")
        found = next(one for one in results if one.number == index)
        cuts = [cut for cut in plan([found], self._buckets, self._filters)[0] if _fits(cut.bucket, layout)]
        if found.sha256 != source["sha256"] or len(cuts) != source["clips"]:
            raise ValueError(f"{source['name']}: gives {len(cuts)} clips, the dataset has {source['clips']} of it")
        return found, cuts

    def _captions(self, number: int, found: Found, cuts: Sequence[Cut]) -> Captions:
        """The captions of a source: those that are given, or its own, if what is left of its clips says the same of them;
        else those of a clip that is left, of which no times are known."""
        layout, counts = records.layout_of(self.manifest), [source["clips"] for source in self.manifest["sources"]]
        first = sum(counts[:number])
        shards = range(first // layout.clips_per_shard, (first + counts[number] - 1) // layout.clips_per_shard + 1)
        left = {place: said for shard in shards for place, said in self._said(shard, number).items()}
        name = self.places[number][0].name
        given, _ = shown(self.captions.get(name, self.captions.get(Path(name).name, ())), found.seconds)
        for captions in (given, found.captions):
            if captions.text and all(captions.within(*cuts[place].span) == said for place, said in left.items()):
                return captions
        some = next(iter(left.values()), Captions())
        timed = some.spans or (None,) * len(some.text)
        return Captions(tuple(text for text, span in zip(some.text, timed, strict=True) if span is None))

    def _said(self, shard: int, number: int) -> dict[int, Captions]:
        """What the text of a shard says of the clips of a source, by their places among these; nothing where it is damaged."""
        layout, counts = records.layout_of(self.manifest), [source["clips"] for source in self.manifest["sources"]]
        first, found = sum(counts[:number]), {}
        for clip, line in zip(layout.span(shard), self._lines(shard), strict=False):
            if first <= clip < first + counts[number]:
                spans = tuple(span and (float(span[0]), float(span[1])) for span in line.get("spans", ()))
                found[clip - first] = Captions(tuple(line["captions"]), spans)
        return found

    def _lines(self, shard: int) -> list[dict[str, Any]]:
        """The text of a shard; none where it is damaged."""
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
    captions: Mapping[str, Sequence[str | Cue]] = _NOTHING,
    seen: Seen | None = None,
    masks: str | Path | None = None,
) -> Remake:
    """What makes the clips of the ingested dataset at `path` again, by its manifest (or head), of the recordings in `inputs`.

    `captions` are those that were given when it was built; needed only where all clips of a recording have lost theirs. `masks`
    is the folder of masks that was given, for they are a part of the recording. One dict `seen` for several datasets has every
    input read once for its sha256. Raises FileNotFoundError for an input that is not there, KeyError for masks that may be of
    several, ValueError for a dataset that tells too little of how it was built.
    """
    build = manifest["build"]
    if build.get("verb") != "ingest" or "chosen" not in build:
        raise ValueError(f"{path}: its clips cannot be cut again: build {build}; needed one of ingest, by this release")
    how, sources = _reading(manifest), manifest["sources"]
    candidates, rejected = find_masked(inputs, masks) if inputs else ([], [])
    refused = {one.name: f"{one.name}: {one.reason}" for one in rejected}
    given: list[tuple[str, str, Candidate, int]] = []
    seen = {} if seen is None else seen
    for candidate in candidates:
        try:
            seen[candidate, how] = seen.get((candidate, how)) or _identities(candidate, how)
            given += [(*one, candidate, index) for index, one in enumerate(seen[candidate, how])]
        except Exception as error:  # whatever is wrong with one recording, the others may mend what they can
            refused[candidate.name] = f"{candidate.name}: {plain(str(error), candidate)}"
    places: dict[int, tuple[Candidate, int]] = {}
    for number, source in enumerate(sources):
        same = [one for one in given if one[1] == source["sha256"]]
        alone = sum(other["sha256"] == source["sha256"] for other in sources) == 1
        exact = [one for one in same if one[0] == source["name"]]
        like = [one for one in same if alone or Path(one[0]).name == Path(source["name"]).name]
        if exact or like:
            places[number] = (exact or like)[0][2:]
    digests = {source["sha256"] for source in sources}
    for name, sha256, _, _ in given:
        if sha256 not in digests:
            needed = [source["sha256"] for source in sources if Path(source["name"]).name == Path(name).name]
            what = (
                f"is another than the dataset was made of, needed {needed[0]}" if needed else "no clip of the dataset is of it"
            )
            refused[name] = f"{name}: not used; {what}; its sha256 is {sha256}"
    return Remake(Folder(path), manifest, places, tuple(candidates), tuple(rejected), refused, dict(captions))


def _reading(manifest: dict[str, Any]) -> Reading:
    given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in manifest["build"]["how"].items()}
    return Reading(**given)


def _fits(bucket: Bucket, layout: records.Layout) -> bool:
    """Whether clips of a bucket are in a dataset of a layout."""
    size = (bucket.height, bucket.width) == (layout.height, layout.width)
    return size and (layout.over == "views" or (bucket.frame_hz, bucket.frames) == (layout.frame_hz, layout.frames))


@functools.lru_cache(maxsize=4)
def _scanned(candidate: Candidate, how: Reading, sha256: str) -> list[Found] | Rejection:
    """A scan of a candidate while its bytes are those."""
    return scan(candidate, how, 0)


def _identities(candidate: Candidate, how: Reading) -> tuple[tuple[str, str], ...]:
    """(name, sha256) of every recording of a candidate."""
    if candidate.kind in ("video", "frames"):
        files = folder_files(candidate.path) if candidate.kind == "frames" else (candidate.path,)
        masks = () if candidate.masks is None else mask_files(candidate.masks)
        return ((candidate.name, digest((*files, *masks))),)
    found = list(recordings(candidate, how))
    names = [one.name if one.name == candidate.name else f"{candidate.name}/{one.name}" for one in found]
    return tuple((name, digest(one.files)) for name, one in zip(names, found, strict=True))
