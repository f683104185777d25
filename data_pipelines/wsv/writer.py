"""Writing of a WSV dataset, one whole shard at a time: resumable, by any number of processes."""

import contextlib
import errno
import json
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from data_pipelines.wsv import latents
from data_pipelines.wsv import manifest as records
from data_pipelines.wsv import shard as shards
from data_pipelines.wsv.clip import Clip, check, even
from data_pipelines.wsv.folder import Folder
from data_pipelines.wsv.manifest import Layout
from wsm_jax.snapshot import WSF, WSV

_NOTHING: Mapping[str, bytes] = {}
_ARGUMENTS = ("name", "layout", "sources", "build", "attached")
_FORMAT = ("schema_version", "channels", "semantic_classes", "tick_hz")
"""Keys that state the format of a release."""


def finished(
    path: str | PathLike,
    layout: Layout,
    *,
    name: str,
    sources: Sequence[dict],
    build: dict,
    attached: Mapping[str, bytes] = _NOTHING,
) -> dict[str, Any] | None:
    """The manifest of the finished dataset at `path` if these arguments made it, else None. Raises as `manifest.load` does."""
    folder = Folder(path)
    if folder.read(records.MANIFEST) is None:
        return None
    there, wanted = records.load(folder), records.head(layout, name, sources, build, attached)
    return there if all(there.get(key) == wanted[key] for key in (*_ARGUMENTS, *_FORMAT)) else None


def create(
    path: str | PathLike,
    layout: Layout,
    *,
    name: str,
    sources: Sequence[dict],
    build: dict,
    attached: Mapping[str, bytes] = _NOTHING,
) -> "Writer":
    """Begins a dataset, or resumes the unfinished build that the same arguments began; any number of processes may call it.

    `sources` are dicts with at least "name" and "licence"; `build` holds the arguments that make the data (seed, ...);
    `attached` are files that belong to the dataset, by name.
    Raises ValueError when a finished dataset, another build or anything else is at `path`, OSError when the disk is full.
    """
    folder = Folder(path)
    wanted = records.head(layout, name, sources, build, attached)
    if folder.read(records.MANIFEST) is not None:
        raise ValueError(f"{folder.path}: a finished dataset is here; write elsewhere, or delete it first")
    if records.load_build(folder) is None:
        found = sorted(folder.list())
        # Another process may have begun the same build meanwhile.
        if found and records.load_build(folder) is None:
            raise ValueError(f"{folder.path}: the folder holds other files ({found[0]}, ...); name a new or an empty one")
        folder.write_new(records.BUILD, records.dumps(wanted, indent=1))
    begun = records.load_build(folder) or {}
    for key in _ARGUMENTS:
        if begun.get(key) != wanted[key]:
            raise ValueError(
                f"{folder.path}: another build is unfinished here: its {key} is {begun.get(key)}, this one's {wanted[key]}; "
                "resume it with its own arguments, delete it, or write elsewhere"
            )
    for key in _FORMAT:
        if begun.get(key) != wanted[key]:
            raise ValueError(
                f"{folder.path}: another release began what is unfinished here: its {key} is {begun.get(key)}, this one's "
                f"{wanted[key]}; finish it with that release ({begun.get('software')}), or delete it and begin anew"
            )
    present = folder.list()
    specs = records.arrays(layout).values()
    singles = {s.metadata_file: records.dumps(s.metadata()) for s in specs} | dict(attached)
    folder.write({key: data for key, data in singles.items() if key not in present})
    return Writer(folder, layout)


class Writer:
    """Writes whole shards of one build; made by `create`. Picklable."""

    def __init__(self, folder: Folder, layout: Layout):
        self.folder, self.layout = folder, layout

    def missing(self) -> list[int]:
        """The shards that are not complete yet."""
        done = self.folder.list("shards/")
        return [shard for shard in range(self.layout.shards) if records.record_file(shard) not in done]

    def write(self, shard: int, clips: Sequence[WSV | WSF | Clip]) -> None:
        """Writes a shard from its clips, in order, whole or not at all.

        Raises ValueError when a clip does not fit the layout or the shard is complete already, OSError when the disk is full.
        """
        folder, span = self.folder, self.layout.span(shard)
        if len(clips) != len(span):
            raise ValueError(f"{folder.path}: shard {shard} is clips {span.start}..{span.stop - 1}; got {len(clips)} clips")
        if folder.read(records.record_file(shard)) is not None:
            raise ValueError(f"{folder.path}: shard {shard} is complete already; write those that missing() names")
        files, record = self.encode(shard, clips)
        need, free = sum(len(data) for data in files.values()), folder.free()
        if free is not None and free < need:
            raise folder.full(f"shard {shard}", need)
        try:
            folder.write(files)
            written = folder.write_new(records.record_file(shard), records.dumps(record, indent=1))
        except OSError as error:
            # Unless another process has completed the shard, remove its partial files.
            with contextlib.suppress(OSError):
                if folder.read(records.record_file(shard)) is None:
                    folder.remove(*files)
            if error.errno == errno.ENOSPC:
                raise folder.full(f"shard {shard}", need) from error
            raise
        if not written:
            raise ValueError(f"{folder.path}: another process wrote shard {shard} at the same time; give each its own shards")

    def encode(self, shard: int, clips: Sequence[WSV | WSF | Clip]) -> tuple[dict[str, bytes], dict[str, Any]]:
        """The files of a shard, and its record. Raises ValueError when a clip does not fit the layout."""
        stored = []
        for index, given in zip(self.layout.span(shard), clips, strict=True):
            where = f"{self.folder.path}: clip {index}"
            try:
                clip = Clip.of(given)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from error
            check(clip, self.layout, where)
            stored.append(clip)
        counted = shards.moments(self.layout)
        files = shards.encode(self.layout, shard, stored, counted)
        return files, {
            "shard": shard,
            "clips": len(stored),
            "frames": sum(clip.frames for clip in stored),
            "captions": sum(len(clip.text) for clip in stored),
            "events": sum(len(clip.events) for clip in stored),
            "even": all(even(clip, self.layout) for clip in stored),
            "moments": {key: value.record() for key, value in counted.items()},
            "files": {key: {"bytes": len(data), "sha256": records.sha256(data)} for key, data in files.items()},
        }

    def finish(self) -> dict[str, Any]:
        """Writes manifest.json, once, when every shard is complete; returns it. Raises ValueError naming what is missing."""
        folder, layout = self.folder, self.layout
        if folder.read(records.MANIFEST) is not None:
            raise ValueError(f"{folder.path}: the dataset is finished already")
        if missing := self.missing():
            raise ValueError(f"{folder.path}: {len(missing)} of {layout.shards} shards are missing: {missing[:20]}")
        sealed = self.sealed()
        if gone := sorted(set(json.loads(sealed)["files"]) - folder.list()):
            raise ValueError(f"{folder.name(gone[0])}: gone; delete the record of its shard in shards/ and write it again")
        if not folder.write_new(records.MANIFEST, sealed):
            raise ValueError(f"{folder.path}: another process finished the dataset at the same time")
        return json.loads(sealed)

    def sealed(self, instead: Mapping[str, bytes] = _NOTHING) -> bytes:
        """The bytes of manifest.json, from build.json and the records; `instead` replaces files by name.

        Raises ValueError for a record that is damaged.
        """
        folder, layout = self.folder, self.layout
        files: dict[str, dict[str, Any]] = {}
        total = shards.moments(layout)
        counts = {"clips": 0, "frames": 0, "captions": 0, "events": 0}
        evenly = True
        for shard in range(layout.shards):
            key = records.record_file(shard)
            record = json.loads(instead[key]) if key in instead else records.load_record(folder, shard)
            evenly &= record["even"]
            files |= record["files"]
            for key in counts:
                counts[key] += record[key]
            for key, value in total.items():
                value.merge(record["moments"][key])
        begun = records.load_build(folder) or {}
        singles = [records.BUILD, *(spec.metadata_file for spec in records.arrays(layout).values()), *begun["attached"]]
        for key in singles + [records.record_file(shard) for shard in range(layout.shards)]:
            data = instead[key] if key in instead else folder.read(key) or b""
            files[key] = {"bytes": len(data), "sha256": records.sha256(data)}
        counts |= {"even": evenly, "shards": layout.shards, "ticks": layout.clips * layout.ticks}
        counts |= {"files": len(files), "bytes": sum(value["bytes"] for value in files.values())}
        groups: dict[str, dict[str, Any]] = {"channels": {}, "core": {}}
        for key, value in total.items():
            group, _, field = key.partition("/")
            groups[group][field] = value.summary()
        plain = {**begun, "counts": counts, "statistics": groups, "files": files}
        return records.seal(latents.listed(plain, latents.load_records(folder)))
