"""The layout of a WSV dataset on disk, the arrays and files that follow from it, and its records.

    <root>/manifest.json                   written last: counts, statistics, sha256 of every other file, and of itself
           build.json                      the head of the manifest, written first: name, layout, sources, build arguments
           channels/<channel>/             zarr3 [clip, time, H, W, C], stored integers
           channels/rgb_<codec>/index/     zarr3 [clip, run, (offset, length, crc32)] of encoded rgb
           channels/rgb_<codec>/bytes/<shard>  the bytes that the index points into
           camera/  core/                  zarr3 [clip, time, columns] and [clip, tick, wave, columns]
           frame_time/  core_time/         zarr3 [clip, time] and [clip, tick], seconds
           signals/<name>/  signals/<name>_time/  zarr3 [clip, step, columns] and [clip, step], seconds
           measures/                       zarr3 [clip, 1, columns], numbers by which clips may be chosen
           latents/                        codes of trained models, written later (latents.py)
           <name>                          attached files, such as rejected.jsonl: rejected recordings and reasons
           text/<shard>.jsonl              one line a clip: {"captions": [...], "events": [...], "frames": n, ...}
           shards/<shard>.json             written last of its shard: checksums and moments; without it a shard is missing

docs/wsv.md is the specification. Version 1 had one array per field of cameras and cores; it is read, but not written.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np

from data_pipelines.wsv.folder import Folder
from data_pipelines.wsv.picture import CODECS
from wsm_jax.snapshot import CHANNELS, FIELDS, SEMANTIC_CLASSES, TICK_HZ, channel

SCHEMA_VERSION = 2
"""Version of the format that this release writes, and the newest that it reads."""

MANIFEST, BUILD = "manifest.json", "build.json"
CAMERA_FIELDS = {"position": 3, "rotation": 4, "focal": 0, "offset": 2}
"""Camera field -> components (0: no trailing axis)."""
LENS = {"distortion": 5}
"""The additional camera field of a layout with lenses."""
OVER = ("time", "views")
CORE_TICKS_PER_CHUNK = 64


@dataclasses.dataclass(frozen=True)
class Layout:
    """The shape of every clip of a dataset. Raises ValueError for a layout that cannot be stored."""

    clips: int
    frames: int
    """Frames per clip; 0 for a dataset of cores and text alone."""
    height: int
    width: int
    frame_hz: float | int
    """Nominal rate; exact times are stored for every clip."""
    ticks: int
    """Ticks of the core per clip; 0: no core."""
    waves: int
    channels: tuple[str, ...]
    rgb_codec: str
    """"array" (lossless), or encoded bytes for real video, which does not compress losslessly: "jpeg" (each picture by itself),
    "h264" (runs of `frames_per_chunk`; a tenth of the bytes)."""
    clips_per_shard: int
    frames_per_chunk: int
    """Frames that are read together, about 1 s."""
    camera: bool
    captions: bool
    over: str = "time"
    """"time": frames of a video; "views": of one instant, from cameras at several places (WSF)."""
    lens: bool = False
    """Cameras have the coefficients of their lens."""
    ragged: bool = False
    """Clips may have fewer frames than `frames`; the rest is padding that no reader shows."""
    signals: tuple[tuple[str, int, int], ...] = ()
    """(name, components, steps) of every signal; a clip may have fewer steps."""
    measures: tuple[str, ...] = ()
    """Numbers by which clips may be chosen when they are loaded: "seconds", "sharpness", ..."""
    derived: tuple[str, ...] = ()
    """Channels that were not recorded but computed from others."""
    compression: str = "zstd"
    """"zstd" (level 3), or "none": chunks are read at the speed of memory."""

    def __post_init__(self) -> None:
        def need(ok: bool, what: str) -> None:
            if not ok:
                raise ValueError(f"Layout: {what}; got {self}")

        for name in self.channels:
            need(channel(name).from_camera is None, f"channel {name!r} follows from the camera and is not stored")
        pixels = bool(self.channels)
        need(len(set(self.channels)) == len(self.channels), "a channel is listed twice")
        need(self.clips >= 1 and self.clips_per_shard >= 1, "clips and clips_per_shard must be at least 1")
        need(min(self.frames, self.ticks, self.waves, self.height, self.width) >= 0, "counts must not be negative")
        need(not pixels or min(self.frames, self.height, self.width) >= 1, "channels need frames, height and width")
        need(not self.frames or (self.frames_per_chunk >= 1 and self.frame_hz > 0), "frames need frames_per_chunk and frame_hz")
        need(not self.ticks or self.waves >= 1, "a core needs at least one wave")
        need(not self.camera or self.frames >= 1, "cameras need frames")
        need(self.rgb_codec in ("array", *CODECS), f"rgb_codec must be array, {' or '.join(CODECS)}")
        need(self.compression in ("zstd", "none"), "compression must be zstd or none")
        need(self.over in OVER, f"over must be {' or '.join(OVER)}")
        need(not self.lens or self.camera, "lenses need cameras")
        need(set(self.derived) <= set(self.channels), "a derived channel is none of the channels")
        names = [name for name, _, _ in self.signals]
        stored = [*names, *(f"{name}_time" for name in names)]
        need(len(set(stored)) == len(stored), "a signal is listed twice, or has the name of another's times")
        need(len(set(self.measures)) == len(self.measures), "a measure is listed twice")
        plain = all(name.replace("_", "").replace(".", "").isalnum() for name in (*names, *self.measures))
        need(plain, "names of signals and measures must be letters, digits, _ and .")
        need(all(min(sizes) >= 1 for _, *sizes in self.signals), "signals need components and steps")
        need(bool(self.frames or self.ticks or self.captions), "nothing to store: no frames, no core, no captions")

    @property
    def shards(self) -> int:
        """Number of shards."""
        return -(-self.clips // self.clips_per_shard)

    def span(self, shard: int) -> range:
        """The clips of a shard; the last shard may hold fewer. Raises IndexError."""
        if not 0 <= shard < self.shards:
            raise IndexError(f"shard {shard} is not in 0..{self.shards - 1}")
        return range(shard * self.clips_per_shard, min(self.clips, (shard + 1) * self.clips_per_shard))

    @property
    def encoded(self) -> str:
        """The codec of encoded rgb; empty if rgb is an array."""
        return self.rgb_codec if self.rgb_codec != "array" and "rgb" in self.channels else ""

    @property
    def run(self) -> int:
        """Frames that are encoded together."""
        return 1 if self.rgb_codec == "jpeg" else self.frames_per_chunk

    @property
    def camera_fields(self) -> dict[str, int]:
        """The fields of the cameras, in the order of their columns."""
        return CAMERA_FIELDS | (LENS if self.lens else {})


@dataclasses.dataclass(frozen=True)
class ArraySpec:
    """One zarr3 array: a shard file holds `clips_per_shard` whole clips, an inner chunk some steps of one clip."""

    path: str
    dtype: str
    shape: tuple[int, ...]
    clips_per_shard: int
    steps_per_chunk: int
    compressed: bool = True

    def file(self, shard: int) -> str:
        """The file of a shard (zarr3 chunk key, all in one folder)."""
        return ".".join([f"{self.path}/c", str(shard), *["0"] * (len(self.shape) - 1)])

    @property
    def metadata_file(self) -> str:
        """The file of the array's metadata."""
        return f"{self.path}/zarr.json"

    def metadata(self) -> dict[str, Any]:
        """zarr3 metadata: sharding with inner codecs bytes, zstd 3, crc32c, and a checked index."""
        steps = min(self.steps_per_chunk, self.shape[1])
        padded = -(-self.shape[1] // steps) * steps
        little: dict[str, Any] = {"name": "bytes", "configuration": {"endian": "little"}}
        plain = {"name": "bytes"} if np.dtype(self.dtype).itemsize == 1 else little
        zstd = [{"name": "zstd", "configuration": {"level": 3, "checksum": False}}] if self.compressed else []
        codecs = [plain, *zstd, {"name": "crc32c"}]
        sharding = {"chunk_shape": [1, steps, *self.shape[2:]], "codecs": codecs, "index_codecs": [little, {"name": "crc32c"}]}
        shard = {"chunk_shape": [self.clips_per_shard, padded, *self.shape[2:]]}
        return {
            "zarr_format": 3,
            "node_type": "array",
            "shape": list(self.shape),
            "data_type": self.dtype,
            "chunk_grid": {"name": "regular", "configuration": shard},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
            "fill_value": 0,
            "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        }


def width(fields: dict[str, int]) -> int:
    """Columns of an array that holds fields side by side."""
    return sum(max(size, 1) for size in fields.values())


def arrays(layout: Layout, version: int = SCHEMA_VERSION) -> dict[str, ArraySpec]:
    """Every array of a dataset of a schema version, by path."""

    def add(path: str, dtype: str, steps: int, *shape: int) -> None:
        compressed = layout.compression == "zstd"
        specs[path] = ArraySpec(path, dtype, (layout.clips, *shape), layout.clips_per_shard, steps, compressed)

    specs: dict[str, ArraySpec] = {}
    frames, ticks = layout.frames, layout.ticks
    for name in layout.channels:
        row = channel(name)
        if name == "rgb" and layout.encoded:
            runs = -(-frames // layout.run)
            add(index_path(layout), "uint64", runs, runs, 3)
        else:
            add(f"channels/{name}", row.dtype, layout.frames_per_chunk, frames, layout.height, layout.width, row.components)
    if frames:
        add("frame_time", "float64", frames, frames)
    if ticks:
        add("core_time", "float64", ticks, ticks)
    if version == 1:
        for name, size in CAMERA_FIELDS.items() if layout.camera else ():
            add(f"camera/{name}", "float32", frames, frames, *([size] if size else []))
        for name, size in FIELDS.items() if ticks else ():
            dtype = "int32" if name in ("semantic", "instance") else "float32"
            add(f"core/{name}", dtype, CORE_TICKS_PER_CHUNK, ticks, layout.waves, *([size] if size else []))
        return specs
    if layout.camera:
        add("camera", "float32", frames, frames, width(layout.camera_fields))
    if ticks:
        add("core", "float32", CORE_TICKS_PER_CHUNK, ticks, layout.waves, width(FIELDS))
    for name, components, steps in layout.signals:
        add(f"signals/{name}", "float32", steps, steps, components)
        add(f"signals/{name}_time", "float64", steps, steps)
    if layout.measures:
        add("measures", "float32", 1, 1, len(layout.measures))
    return specs


def index_path(layout: Layout) -> str:
    """The array that indexes the encoded pictures."""
    return f"channels/rgb_{layout.rgb_codec}/index"


def bytes_file(layout: Layout, shard: int) -> str:
    """The file of encoded pictures of a shard."""
    return f"channels/rgb_{layout.rgb_codec}/bytes/{shard:06d}"


def text_file(shard: int) -> str:
    """The file of captions and events of a shard."""
    return f"text/{shard:06d}.jsonl"


def record_file(shard: int) -> str:
    """The record that completes a shard."""
    return f"shards/{shard:06d}.json"


def sha256(data: bytes) -> str:
    """Hex digest."""
    return hashlib.sha256(data).hexdigest()


def dumps(value: Any, indent: int | None = None) -> bytes:
    """JSON with sorted keys, so that equal values are equal bytes. Raises ValueError for what JSON cannot hold."""

    def plain(item: Any) -> Any:
        if isinstance(item, np.generic | np.ndarray):
            return item.tolist()
        raise ValueError(f"{item!r} of {type(item).__name__} cannot be stored as JSON; needed str, number, bool, list or dict")

    return json.dumps(value, sort_keys=True, indent=indent, allow_nan=False, default=plain).encode()


def head(layout: Layout, name: str, sources: Sequence[dict], build: dict, attached: Mapping[str, bytes]) -> dict[str, Any]:
    """The part of the manifest that is known before the first clip.

    Raises ValueError for a source without name or licence.
    """
    for source in sources:
        lacking = [key for key in ("name", "licence") if not source.get(key)]
        if lacking:
            raise ValueError(f"source {source}: {lacking} missing; every source states its name and licence")
    table = {c: {key: getattr(CHANNELS[c], key) for key in ("components", "unit", "dtype", "step")} for c in layout.channels}
    value = {
        "format": "wsm_wsv",
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "layout": dataclasses.asdict(layout),
        "sources": list(sources),
        "build": build,
        "attached": {key: sha256(data) for key, data in attached.items()},
        "channels": table,
        "semantic_classes": list(SEMANTIC_CLASSES),
        "tick_hz": TICK_HZ,
        "software": {package: version(package) for package in ("wsm_jax", "tensorstore")},
    }
    return json.loads(dumps(value))


_SEAL = b'\n "sha256": "'
"""The bytes before the digest of manifest.json; unique, because strings hold no line break and inner keys are indented more."""


def _digest(raw: bytes) -> tuple[bytes, bytes]:
    """The computed digest of a manifest's bytes (with 64 zeros in its place), and the stored one."""
    head, mark, tail = raw.partition(_SEAL)
    return sha256(head + mark + b"0" * 64 + tail[64:]).encode(), tail[:64]


def seal(manifest: dict[str, Any]) -> bytes:
    """The bytes of manifest.json with a checksum of all of them in its line "sha256"."""
    blank = dumps({**manifest, "sha256": "0" * 64}, indent=1)
    head, mark, tail = blank.partition(_SEAL)
    return head + mark + _digest(blank)[0] + tail[64:]


def matches_seal(raw: bytes) -> bool:
    """True if sealed bytes match their checksum."""
    needed, found = _digest(raw)
    return needed == found


def contradicts(raw: bytes, sealed: bytes) -> bool:
    """True if damaged bytes come from other content than `sealed`: they hold another digest, and differ in more than that."""
    digest, (head, mark, tail) = _digest(sealed)[0], raw.partition(_SEAL)
    return len(tail) >= 64 and tail[:64] != digest and head + mark + digest + tail[64:] != sealed


def load(folder: Folder) -> dict[str, Any]:
    """Reads and checks manifest.json.

    Raises FileNotFoundError (no dataset), ValueError (unfinished, Damaged, of a newer schema, or of another channel table).
    """
    raw = folder.read(MANIFEST)
    if raw is None:
        build = folder.read(BUILD)
        if build is None:
            raise FileNotFoundError(f"{folder.path}: no WSV dataset here ({MANIFEST} not found)")
        arguments = _parse(folder, BUILD, build).get("build")
        raise ValueError(
            f"{folder.path}: unfinished build; resume it with the arguments that began it: {json.dumps(arguments)}"
        )
    manifest = _parse(folder, MANIFEST, raw)
    if not matches_seal(raw):
        raise Damaged(f"{folder.name(MANIFEST)}: damaged, its checksum does not match; restore it from its source")
    for name, stored in manifest["channels"].items():
        if name not in CHANNELS:
            raise ValueError(f"{folder.path}: this release has no channel {name!r}; update wsm_jax, or rebuild it")
        row = channel(name)
        if any(getattr(row, key) != stored[key] for key in ("components", "dtype", "step")):
            raise ValueError(f"{folder.path}: channel {name!r} was stored as {stored}, this release has {row}; rebuild it")
    if unknown := sorted(set(manifest["layout"]) - {field.name for field in dataclasses.fields(Layout)}):
        raise ValueError(f"{folder.name(MANIFEST)}: layout keys {unknown} are unknown to this release; update wsm_jax")
    if manifest["semantic_classes"] != list(SEMANTIC_CLASSES[: len(manifest["semantic_classes"])]):
        raise ValueError(f"{folder.path}: its semantic classes {manifest['semantic_classes']} are not {SEMANTIC_CLASSES}")
    return manifest


class Damaged(ValueError):
    """A manifest or record whose bytes were damaged."""


class NewerSchema(ValueError):
    """A dataset of a later version of the format, which this release cannot check."""


def _parse(folder: Folder, key: str, raw: bytes) -> dict[str, Any]:
    """Parses JSON of this format. Raises Damaged for anything else, NewerSchema for a later version."""
    try:
        value = json.loads(raw)
    except ValueError as error:
        raise Damaged(f"{folder.name(key)}: damaged, no JSON ({error}); restore it from its source") from error
    if not isinstance(value, dict) or value.get("format") != "wsm_wsv":
        raise Damaged(f'{folder.name(key)}: no "format": "wsm_wsv" in it; damaged, or not a WSV dataset')
    found = value.get("schema_version")
    if not isinstance(found, int):
        raise Damaged(f"{folder.name(key)}: schema version {found!r} is not a number; damaged")
    if found > SCHEMA_VERSION:
        raise NewerSchema(
            f"{folder.name(key)}: schema version {found}, this release reads up to version {SCHEMA_VERSION}; update wsm_jax"
        )
    return value


def load_build(folder: Folder) -> dict[str, Any] | None:
    """The head of an unfinished build, or None. Raises as `load` does."""
    raw = folder.read(BUILD)
    return None if raw is None else _parse(folder, BUILD, raw)


def load_record(folder: Folder, shard: int) -> dict[str, Any]:
    """The record of a complete shard. Raises ValueError when it cannot be read."""
    key = record_file(shard)
    try:
        return json.loads(folder.read(key) or b"")
    except ValueError as error:
        raise ValueError(f"{folder.name(key)}: damaged ({error}); delete it and write the shard again") from error


def layout_of(manifest: dict[str, Any]) -> Layout:
    """The layout in a manifest."""
    given: dict[str, Any] = dict(manifest["layout"])
    for key in ("channels", "measures", "derived"):
        given[key] = tuple(given.get(key, ()))
    given["signals"] = tuple(tuple(signal) for signal in given.get("signals", ()))
    return Layout(**given)
