"""Repair of a WSV dataset: damaged files are rebuilt if that gives the bytes that were written."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from typing import Any

from tqdm import tqdm

from data_pipelines.workers import WorkerCrash, run
from data_pipelines.wsv import latents
from data_pipelines.wsv import manifest as records
from data_pipelines.wsv import shard as shards
from data_pipelines.wsv.clip import Clip
from data_pipelines.wsv.folder import Folder
from data_pipelines.wsv.verify import damaged, extra, places
from data_pipelines.wsv.writer import Writer
from wsm_jax.snapshot import WSF, WSV

Make = Callable[[int], Sequence[WSV | WSF | Clip]]
"""Returns the clips of a shard, in order, as they were written."""

_TALLY = ("counts", "statistics", "files", "sha256", latents.KEY)
"""Keys of a manifest that build.json lacks."""
_NOTHING: Mapping[str, str] = {}
_UNKNOWN = "its clips are needed again, and nobody gave them"


def head(path: str | PathLike) -> dict[str, Any] | None:
    """The manifest of a dataset, or build.json if the manifest is damaged; None without either.

    Raises NewerSchema (a ValueError).
    """
    folder = Folder(path)
    try:
        return records.load(folder)
    except FileNotFoundError:
        return None
    except ValueError:
        pass
    try:
        return _begun(folder)
    except records.NewerSchema:
        raise
    except ValueError:
        return None


def _begun(folder: Folder) -> dict[str, Any]:
    """The contents of build.json. Raises ValueError if it is missing or detectably damaged."""
    begun = records.load_build(folder)
    if begun is None:
        raise ValueError(f"{folder.name(records.BUILD)}: missing")
    try:
        if records.dumps(begun, indent=1) != folder.read(records.BUILD):
            raise ValueError("it is not as a writer writes it")
        records.layout_of(begun)
        kinds = {"name": str, "build": dict, "sources": list, **({"attached": dict} if begun["schema_version"] > 1 else {})}
        for key, kind in kinds.items():
            if not isinstance(begun[key], kind):
                raise ValueError(f"its {key} is {begun[key]!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder.name(records.BUILD)}: damaged ({error})") from error
    return begun


def repair(
    path: str | PathLike,
    make: Make | None,
    progress: bool = True,
    *,
    attached: Callable[[], Mapping[str, bytes]] | None = None,
    workers: int = 1,
    environment: Mapping[str, str] = _NOTHING,
) -> list[str]:
    """Verifies a dataset and rebuilds damaged or missing files; one line per file: rebuilt, left alone, or not rebuilt and why.

    Metadata come from the manifest, the files of a shard from its clips, which `make` returns (in `workers` processes with the
    variables `environment`; for more than one it is pickled), attached files from `attached`. A file is written only if its new
    bytes have the sha256 of the manifest. A damaged or missing manifest is rebuilt from build.json and the records of the
    shards if these are intact; if it is missing, nothing else confirms them. Files that do not belong to the dataset stay. A
    repair that is killed can be run again.

    Raises FileNotFoundError where there is no dataset, NewerSchema (a ValueError), OSError when the disk is full.
    """
    folder = Folder(path)
    lines: list[str] = []
    try:
        manifest = records.load(folder)
    except ValueError as error:
        try:
            manifest, lines = _Manifest(folder, make, attached).restored(error)
        except _Lost as lost:
            if isinstance(error, records.NewerSchema):
                raise error from lost
            name = f"{folder.name(records.MANIFEST)}: "
            return [f"{name}cannot be rebuilt: {lost} ({str(error).removeprefix(name)})"]
    found = damaged(folder, manifest, progress)
    results = _repair_singles(folder, manifest, found, attached)
    places_of = places(manifest)
    wanted: dict[int, dict[str, str]] = {}
    for key in found:
        if key not in results:
            wanted.setdefault(places_of[key][1], {})[key] = manifest["files"][key]["sha256"]
    task = _RepairShard(Writer(folder, records.layout_of(manifest)), make, wanted)
    with tqdm(total=len(wanted), desc=f"repair {manifest['name']}", disable=not progress or not wanted) as bar:
        for shard, done in run(task, sorted(wanted), workers, dict(environment)):
            results |= dict.fromkeys(wanted[shard], str(done)) if isinstance(done, WorkerCrash) else done
            bar.update()
    for key in sorted(found):
        said = f"cannot be rebuilt: {results[key]} ({found[key]})" if results[key] else f"rebuilt (was {found[key]})"
        lines.append(f"{folder.name(key)}: {said}")
    return lines + [f"{folder.name(key)}: extra, not a file of the dataset; left alone" for key in extra(folder, manifest)]


def _repair_singles(
    folder: Folder,
    manifest: dict[str, Any],
    found: Mapping[str, str],
    attached: Callable[[], Mapping[str, bytes]] | None,
) -> dict[str, str]:
    """Rebuilds files that belong to no shard; file -> why it could not (empty: rebuilt)."""
    begun = records.dumps({key: value for key, value in manifest.items() if key not in _TALLY}, indent=1)
    known = {records.BUILD: begun} | _metadata(manifest)
    rows = manifest.get(latents.KEY, {})
    known |= {latents.record_file(name): records.dumps(row, indent=1) for name, row in rows.items()}
    reasons: dict[str, str] = {}
    lost = [key for key in found if key in manifest.get("attached", {})]
    given, why = _attached(attached if lost else None)
    known |= {key: given[key] for key in lost if key in given}
    for key in (key for key in found if key in known):
        reasons[key] = _write(folder, {key: known[key]}, {key: manifest["files"][key]["sha256"]})[key]
    codes = {row["file"] for row in rows.values()} & set(found)
    return dict.fromkeys(codes, "the model that made it writes it again, with overwrite") | dict.fromkeys(lost, why) | reasons


def _metadata(manifest: dict[str, Any]) -> dict[str, bytes]:
    """The zarr.json files of all arrays."""
    specs = records.arrays(records.layout_of(manifest), manifest["schema_version"]).values()
    return {spec.metadata_file: records.dumps(spec.metadata()) for spec in specs}


def _attached(attached: Callable[[], Mapping[str, bytes]] | None) -> tuple[Mapping[str, bytes], str]:
    """The attached files, and the reason why others are missing."""
    try:
        return (attached() if attached else {}), "it can be made of what the dataset was made of alone, and nobody gave that"
    except (ValueError, OSError, RuntimeError, KeyError) as error:
        return {}, str(error)


def _write(folder: Folder, files: Mapping[str, bytes], wanted: Mapping[str, str]) -> dict[str, str]:
    """Writes the files that have the wanted sha256; file -> why it was not written (empty: written)."""
    good = {key: files[key] for key in wanted if key in files and records.sha256(files[key]) == wanted[key]}
    folder.write(good)
    other = {key: "this release makes " + ("other bytes" if key in files else "no such file") for key in wanted}
    return other | dict.fromkeys(good, "")


@dataclasses.dataclass(frozen=True)
class _RepairShard:
    """Rebuilds the files of a shard; pickled for the workers."""

    writer: Writer
    make: Make | None
    wanted: dict[int, dict[str, str]]
    """Shard -> file -> sha256."""

    def __call__(self, shard: int) -> dict[str, str]:
        """File -> why it could not be rebuilt; empty: rebuilt."""
        wanted = self.wanted[shard]
        try:
            files = _files(self.writer, self.make, shard)
        except _Lost as error:
            return dict.fromkeys(wanted, str(error))
        return _write(self.writer.folder, files, wanted)


class _Lost(Exception):
    """The reason why something cannot be rebuilt."""


def _files(writer: Writer, make: Make | None, shard: int) -> dict[str, bytes]:
    """The rebuilt files of a shard with its record. Raises _Lost."""
    if make is None:
        raise _Lost(_UNKNOWN)
    try:
        clips, span = make(shard), writer.layout.span(shard)
        if len(clips) != len(span):
            raise _Lost(f"shard {shard} has {len(span)} clips, {len(clips)} were given")
        files, record = writer.encode(shard, clips)
    except (ValueError, OSError, RuntimeError, KeyError) as error:
        raise _Lost(str(error)) from error
    return files | {records.record_file(shard): records.dumps(record, indent=1)}


@dataclasses.dataclass(frozen=True)
class _Manifest:
    """Rebuilds manifest.json from build.json and the records of the shards."""

    folder: Folder
    make: Make | None
    attached: Callable[[], Mapping[str, bytes]] | None

    def restored(self, error: ValueError) -> tuple[dict[str, Any], list[str]]:
        """Writes the manifest; returns it and a line per rebuilt file. Raises _Lost before anything is written."""
        folder, raw = self.folder, self.folder.read(records.MANIFEST)
        if raw is not None and not isinstance(error, records.Damaged | records.NewerSchema):
            raise _Lost("it is whole, and of another release")
        try:
            begun = _begun(folder)
        except ValueError as why:
            raise _Lost(str(why)) from why
        if begun["schema_version"] != records.SCHEMA_VERSION:
            raise _Lost(f"it is of version {begun['schema_version']}, and this release writes version {records.SCHEMA_VERSION}")
        rebuilt_files = {key: data for key, data in _metadata(begun).items() if self._differs(key, records.sha256(data))}
        rebuilt_files |= self._attachments(begun)
        writer = Writer(folder, records.layout_of(begun))
        for shard in range(writer.layout.shards):
            if not self._sound(writer, shard):
                if raw is None and folder.read(records.record_file(shard)) is None:
                    raise _Lost("shards are missing")
                rebuilt_files[records.record_file(shard)] = self._record(writer, shard)
        try:
            sealed = writer.sealed(rebuilt_files)
        except ValueError as why:
            raise _Lost(str(why)) from why
        newer = isinstance(error, records.NewerSchema) and json.loads(sealed)["sha256"].encode() not in (raw or b"")
        if raw is not None and (newer or records.contradicts(raw, sealed)):
            raise _Lost(f"it is none of {records.BUILD} and the records; delete it to go by these alone")
        folder.write(rebuilt_files)
        folder.write({records.MANIFEST: sealed})
        was = "missing, so these alone vouch for it" if raw is None else "damaged"
        lines = [f"{folder.name(records.MANIFEST)}: rebuilt, by {records.BUILD} and the records of the shards (was {was})"]
        return json.loads(sealed), [
            *lines,
            *(f"{folder.name(key)}: rebuilt (was damaged or missing)" for key in sorted(rebuilt_files)),
        ]

    def _differs(self, key: str, sha256: str) -> bool:
        data = self.folder.read(key)
        return data is None or records.sha256(data) != sha256

    def _attachments(self, begun: dict[str, Any]) -> dict[str, bytes]:
        """The damaged attached files, rebuilt. Raises _Lost."""
        lost = [key for key, sha256 in begun["attached"].items() if self._differs(key, sha256)]
        given, why = _attached(self.attached if lost else None)
        for key in lost:
            if key not in given or records.sha256(given[key]) != begun["attached"][key]:
                raise _Lost(
                    f"{self.folder.name(key)}: damaged too ({'this release makes other bytes' if key in given else why})"
                )
        return {key: given[key] for key in lost}

    def _sound(self, writer: Writer, shard: int) -> bool:
        """True if the record of a shard shows no damage."""
        try:
            raw = self.folder.read(records.record_file(shard)) or b""
            record = json.loads(raw)
            layout = writer.layout
            files = {spec.file(shard) for spec in records.arrays(layout).values()} | {records.text_file(shard)}
            files |= {records.bytes_file(layout, shard)} if layout.encoded else set()
            same = (record["shard"], record["clips"]) == (shard, len(layout.span(shard)))
            for key, moments in shards.moments(layout).items():
                moments.merge(record["moments"][key])
            return same and set(record["files"]) == files and records.dumps(record, indent=1) == raw
        except (ValueError, KeyError, TypeError):
            return False

    def _record(self, writer: Writer, shard: int) -> bytes:
        """The rebuilt record of a shard; its own checksum is lost, so the files that it lists must match it. Raises _Lost."""
        key = records.record_file(shard)
        try:
            files = _files(writer, self.make, shard)
        except _Lost as error:
            raise _Lost(f"{self.folder.name(key)}: damaged too ({error})") from error
        record = files.pop(key)
        if other := [name for name, data in files.items() if self._differs(name, records.sha256(data))]:
            raise _Lost(f"{self.folder.name(key)}: damaged too, and {other[0]} is not what this release makes of its clips")
        return record
