"""docs/wsv.md says what the code does: its tables are the code's, and a reader made of it alone reads what we write."""

import dataclasses
import functools
import importlib.util
import json
import re
import sys
import zipfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.wsv import SCHEMA_VERSION, Dataset, Layout, collection, create, verify, write_latents
from data_pipelines.wsv import manifest as records
from data_pipelines.wsv.clip import LINE, Clip
from data_pipelines.wsv.folder import Folder
from tests.data_pipelines import datasets
from wsm_jax.snapshot import CHANNELS, FIELDS, SEMANTIC_CLASSES, Camera, Signal, Waves

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "wsv.md").read_text(encoding="utf-8")

PLAIN = dataclasses.replace(datasets.FULL, ticks=70)
FULL = dataclasses.replace(
    PLAIN,
    lens=True,
    ragged=True,
    signals=(("action", 7, 12), ("state", 1, 40)),
    measures=("seconds", "sharpness"),
    derived=("normal",),
)
LAYOUTS = {
    "full": FULL,
    "jpeg": dataclasses.replace(FULL, rgb_codec="jpeg"),
    "plain": PLAIN,
    "cores": dataclasses.replace(PLAIN, frames=0, height=0, width=0, channels=(), camera=False),
    "text": dataclasses.replace(PLAIN, frames=0, channels=(), camera=False, ticks=0, waves=0),
    "views": dataclasses.replace(FULL, ticks=1, signals=(), over="views", rgb_codec="jpeg", clips_per_shard=9),
    "h264": dataclasses.replace(FULL, rgb_codec="h264"),
}


def clip_of(layout: Layout, index: int) -> Clip:
    """A clip of random values, the same for the same index."""
    rng = np.random.default_rng(index)
    frames = [layout.frames, 1, layout.frames - 2][index % 3] if layout.ragged else layout.frames

    def some(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(np.float32)

    channels, camera, core, signals = {}, None, None, {}
    for name in layout.channels:
        limits, size = np.iinfo(CHANNELS[name].dtype), (frames, layout.height, layout.width, CHANNELS[name].components)
        channels[name] = rng.integers(limits.min, limits.max, size, CHANNELS[name].dtype, endpoint=True)
    if layout.camera:
        lens = {"distortion": some(frames, 5)} if layout.lens else {}
        camera = Camera(some(frames, 3), some(frames, 4), some(frames), some(frames, 2), **lens)
    if layout.ticks:
        fields = {name: some(layout.ticks, layout.waves, *([size] if size else [])) for name, size in FIELDS.items()}
        labels = {name: rng.integers(0, 8, fields[name].shape, np.int32) for name in ("semantic", "instance")}
        core = Waves(**(fields | labels))
    for name, size, steps in layout.signals:
        if index % 2 == 0 or name == "action":
            signals[name] = Signal(np.cumsum(rng.random(steps - index)), some(steps - index, size))
    return Clip(
        channels,
        (index + np.arange(frames)) / 8.0,
        camera,
        core,
        None if core is None else np.arange(layout.ticks) / 8.0,
        (f"ein großer Ball {index}",) * (index % 3),
        ({"kind": "hits", "time": 0.25, "instances": [1, 2]},) * (index % 2),
        signals,
        measures={name: float(index) for name in layout.measures},
        origin={"source": 0, "start": 0.5 * index},
        spans=(None, (0.5, 0.75)) if index == 2 and layout.over == "time" else (),
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    """A dataset of every layout; tests must not change them."""
    root = tmp_path_factory.mktemp("wsv")
    for name, layout in LAYOUTS.items():
        given = {"sources": datasets.SOURCES, "build": {"seed": 0}, "attached": {"rejected.jsonl": b"\n"}}
        datasets.fill(create(root / name, layout, name=name, **given), functools.partial(clip_of, layout))
        codes = np.arange(layout.clips * 6, dtype=np.float32).reshape(layout.clips, 2, 3)
        write_latents(root / name, "style_1", codes, {"checkpoint": "runs/bridge", "step": 10})
        assert verify(root / name, progress=False) == []
    return {name: root / name for name in LAYOUTS}


@pytest.fixture(scope="module")
def reader():
    """docs/read_wsv.py."""
    spec = importlib.util.spec_from_file_location("read_wsv", DOCS / "read_wsv.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The reader.


def equal(found, wanted) -> None:
    np.testing.assert_array_equal(found, wanted)
    assert np.asarray(found).dtype == np.asarray(wanted).dtype or np.asarray(wanted).dtype == np.int32


@pytest.mark.parametrize("name", [name for name in LAYOUTS if name != "h264"])
def test_the_reader_reads_what_ours_reads(built, reader, name, monkeypatch):
    dataset, layout = Dataset(built[name]), LAYOUTS[name]
    monkeypatch.chdir(built[name].parent)
    for index in range(len(dataset)):
        found, wanted = reader.read_clip(Path(name), index), dataset.clip(index)
        assert set(found["channels"]) == set(wanted.channels) == set(layout.channels)
        for key, values in wanted.channels.items():
            equal(found["channels"][key], values)
        assert ("frame_time" in found, "camera" in found, "core" in found) == (
            layout.frames > 0,
            layout.camera,
            layout.ticks > 0,
        )
        if layout.frames:
            equal(found["frame_time"], wanted.frame_time)
        if layout.camera:
            assert set(found["camera"]) == set(layout.camera_fields)
            for key, values in found["camera"].items():
                equal(values, getattr(wanted.camera, key))
        if layout.ticks:
            equal(found["core_time"], wanted.core_time)
            assert set(found["core"]) == set(FIELDS)
            for key, values in found["core"].items():
                equal(values, getattr(wanted.core, key))
        assert set(found["signals"]) == set(wanted.signals)
        for key, (time, values) in found["signals"].items():
            equal(time, wanted.signals[key].time)
            equal(values, wanted.signals[key].values)
        assert (tuple(found["captions"]), tuple(found["events"])) == (wanted.text, wanted.events)
        assert tuple(span and tuple(span) for span in found.get("spans", [])) == wanted.spans
        assert {key: found[key] for key in ("source", "start")} == dataset.origin(index)


def test_the_reader_needs_none_of_our_code_and_50_lines():
    code = (DOCS / "read_wsv.py").read_text(encoding="utf-8")
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 50
    modules = set(re.findall(r"^\s*(?:import|from) (\w+)", code, re.M))
    assert modules - sys.stdlib_module_names <= {"numpy", "tensorstore", "PIL"}


def test_the_reader_refuses_other_versions_codecs_and_damage(built, reader, tmp_path):
    def refused(words: str, raw: bytes) -> None:
        (tmp_path / "manifest.json").write_bytes(raw)
        with pytest.raises(ValueError, match=words):
            reader.read_clip(tmp_path, 0)

    raw = (built["plain"] / "manifest.json").read_bytes()
    manifest = json.loads(raw)
    refused("'wsm_wsv', 3", records.seal(manifest | {"schema_version": 3}))
    refused("'wsm_wsv', 1", records.seal(manifest | {"schema_version": 1}))
    refused("'zip', 2", records.seal(manifest | {"format": "zip"}))
    refused("sound", records.seal(manifest | {"layout": manifest["layout"] | {"sound": True}}))
    refused("damaged", raw.replace(b'"frames": 7', b'"frames": 6'))
    with pytest.raises(ValueError, match="h264"):
        reader.read_clip(built["h264"], 0)
    for key in (
        "channels/depth/c.1.0.0.0.0",
        "core/c.1.0.0.0",
        "text/000001.jsonl",
        "channels/rgb_jpeg/bytes/000001",
        "camera/zarr.json",
    ):
        for file in [path for path in built["jpeg"].rglob("*") if path.is_file()]:
            copy = tmp_path / "copy" / file.relative_to(built["jpeg"])
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(file.read_bytes())
        data = bytearray((tmp_path / "copy" / key).read_bytes())
        data[len(data) // 3] ^= 4
        (tmp_path / "copy" / key).write_bytes(data)
        with pytest.raises(ValueError, match=f"{re.escape(key)}|rgb of clip 2"):
            reader.read_clip(tmp_path / "copy", 2)


# The tables.


def table(place: str) -> list[list[str]]:
    """The rows of the first table after some text."""
    assert TEXT.count(place) == 1, place
    found = re.search(r"(?:^\|.*\|\n)+", TEXT[TEXT.index(place) :], re.M)
    assert found is not None, place
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found.group().splitlines()]
    assert len({len(row) for row in rows}) == 1, f"rows of different lengths after {place}"
    return rows[2:]


def keys(place: str) -> dict[str, str]:
    """Key -> type, of the first table after some text."""
    return {row[0].strip("`"): row[1] for row in table(place)}


TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}


def matches(place: str, value: dict, optional: tuple[str, ...] = ()) -> None:
    """Whether the table after some text has the keys of an object, and the types of their values."""
    said = keys(place)
    assert set(said) - set(optional) == set(value) - set(optional)
    for key, kind in said.items():
        assert key in optional or isinstance(value[key], TYPES[kind]), (place, key, kind)


def test_every_key_of_a_manifest_is_named_with_its_type(built):
    for name, layout in LAYOUTS.items():
        manifest = json.loads((built[name] / "manifest.json").read_bytes())
        matches("## manifest.json", manifest)
        assert manifest["schema_version"] == SCHEMA_VERSION and f"schema **version {SCHEMA_VERSION}**" in TEXT
        matches("**Counts.**", manifest["counts"])
        for group in manifest["statistics"].values():
            for moments in group.values():
                matches("**Statistics.**", moments)
        for row in manifest["channels"].values():
            matches("The manifest repeats the rows", row)
        matches("## Layout", manifest["layout"])
        build = json.loads((built[name] / "build.json").read_bytes())
        assert set(manifest) - set(build) == {"counts", "statistics", "files", "sha256", "latents"}
        assert {key: manifest[key] for key in build} == build
        row = manifest["latents"]["style_1"]
        matches("## Latents", row)
        assert row == json.loads((built[name] / "latents" / "style_1.json").read_bytes())
        record = json.loads((built[name] / "shards" / "000000.json").read_bytes())
        matches("## Shard records", record)
        for value in (*manifest["files"].values(), *record["files"].values()):
            assert set(value) == {"bytes", "sha256"}
        for value in record["moments"].values():
            assert set(value) in ({"count"}, {"count", "mean", "m2", "low", "high"})
        lines = [line for file in sorted((built[name] / "text").iterdir()) for line in file.read_text().splitlines()]
        for number, line in enumerate(lines):
            timed = number == 2 and layout.over == "time"
            here = [*["frames"] * layout.ragged, *["signals"] * bool(layout.signals), *["spans"] * timed]
            assert set(json.loads(line)) == {"captions", "events", "source", "start", *here}
    assert set(keys("## Text")) == {*LINE, "any other"}


def test_the_seal_is_made_as_it_is_told(built):
    raw = (built["full"] / "manifest.json").read_bytes()
    mark = re.search(r"contains the bytes `(.*?)` \(", TEXT)
    assert mark is not None
    assert mark.group(1).encode().decode("unicode_escape").encode() == records._SEAL and raw.count(records._SEAL) == 1


def test_what_holds_for_keys_that_version_1_lacks_is_their_default(tmp_path):
    said = {row[0].strip("`"): row[2].strip("`") for row in table("## Layout")}
    fields = {field.name: field.default for field in dataclasses.fields(Layout)}
    assert list(said) == list(fields)
    for name, default in fields.items():
        wanted = "" if default is dataclasses.MISSING else json.dumps(default)
        assert said[name] == wanted, name
    with zipfile.ZipFile(Path(__file__).parents[1] / "data_pipelines" / "wsv" / "version1.zip") as archive:
        manifest = json.loads(archive.read("manifest.json"))
    assert set(manifest["layout"]) == {name for name, default in said.items() if not default}
    assert set(keys("## manifest.json")) - set(manifest) == {"attached", "latents"}


def number(said: str, sizes: dict[str, int]) -> int:
    """A size in a table, by its name."""
    return int(said) if said.isdigit() else sizes[said]


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_array_is_named_with_its_type_shape_and_chunks(name):
    layout, found = LAYOUTS[name], set()
    sizes = {field.name: value for field in dataclasses.fields(Layout) if isinstance(value := getattr(layout, field.name), int)}
    sizes |= {"runs": -(-layout.frames // layout.run), "measures": len(layout.measures), "core columns": records.width(FIELDS)}
    sizes |= {"camera columns": records.width(layout.camera_fields)}
    # the times of signals before signals, whose names would match them
    for array, _, kind, shape, steps in sorted(table("## Arrays"), key=lambda row: -len(row[0])):
        pattern = re.escape(array.strip("`")).replace("<name>", r"([\w.]+?)").replace("<codec>", layout.rgb_codec)
        for path, spec in records.arrays(layout).items():
            match = re.fullmatch(pattern, path)
            if match is None or path in found:
                continue
            found.add(path)
            here, dtype = dict(sizes), kind
            if path.startswith("signals/"):
                signal = path.removeprefix("signals/").removesuffix("_time" if array.endswith("_time`") else "")
                ((_, here["components"], here["steps of the signal"]),) = [s for s in layout.signals if s[0] == signal]
            elif kind == "of the channel":
                here["components"], dtype = CHANNELS[match.group(1)].components, CHANNELS[match.group(1)].dtype
            assert spec.shape == tuple(number(size, here) for size in shape.split(", ")), path
            assert (spec.dtype, spec.steps_per_chunk) == (dtype, number(steps, here)), path
    assert found == set(records.arrays(layout))


def test_the_metadata_of_an_array_are_those_shown():
    shown = json.loads(TEXT[TEXT.index("```json") + 7 :].split("```")[0])
    assert shown == records.ArraySpec("channels/depth", "uint16", (100, 20, 48, 64, 1), 16, 8).metadata()
    byte = records.ArraySpec("channels/rgb", "uint8", (100, 20, 48, 64, 3), 16, 8).metadata()
    assert byte["codecs"][0]["configuration"]["codecs"][0] == {"name": "bytes"}


def test_the_channels_are_those_of_the_table():
    rows = table("## Channels")
    assert [row[0].strip("`") for row in rows] == list(CHANNELS)
    for (name, components, dtype, step, unit, what), row in zip(rows, CHANNELS.values(), strict=True):
        said = (int(components), dtype, float(Fraction(step)), unit, what.startswith("never stored"))
        assert said == (row.components, row.dtype, row.step, row.unit, row.from_camera is not None), name
    classes = re.search(r"semantic classes are, from index 0: (.*?)\. ", TEXT)
    assert classes is not None and tuple(classes.group(1).split(", ")) == SEMANTIC_CLASSES


@pytest.mark.parametrize(("place", "fields"), [("## Cameras", FULL.camera_fields), ("## The core", FIELDS)])
def test_the_columns_are_in_their_order(place, fields, reader):
    first, wanted = 0, []
    for name, size in fields.items():
        last = first + max(size, 1) - 1
        wanted.append([str(first) if last == first else f"{first}..{last}", f"`{name}`"])
        first = last + 1
    assert [row[:2] for row in table(place)] == wanted
    known = reader.FIELDS["camera" if place == "## Cameras" else "core"]
    assert list(known.items()) == [(name, max(size, 1)) for name, size in fields.items()]
    assert set(reader.LAYOUT.split()) == {field.name for field in dataclasses.fields(Layout)}


def test_the_keys_of_a_collection(tmp_path):
    collection.write(Folder(tmp_path), "both", {"a": 1, "b": 2})
    value = json.loads((tmp_path / "collection.json").read_bytes())
    matches("## Collections", value)
    assert all(set(part) == {"path", "clips"} for part in value["datasets"])


def test_every_file_of_a_dataset_is_named(built):
    names = [row[0].strip("`") for row in table("## Files")]
    patterns = [re.escape(name).replace("<array>", ".+").replace("<codec>", r"\w+") for name in names if name != "any other"]
    patterns = [
        p.replace("/c\\.<shard>\\.0\\.0\\.\\.\\.", r"/c\.\d+(\.0)+")
        .replace("<shard>", r"\d{6}")
        .replace("<name>", r"\w+")
        .replace("<digest>", r"[0-9a-f]{16}")
        for p in patterns
    ]
    for name, folder in built.items():
        files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"rejected.jsonl"}
        for file in files:
            assert sum(bool(re.fullmatch(p, file)) for p in patterns) == 1, (name, file)
        for p in patterns:
            encoded = "bytes" not in p or LAYOUTS[name].encoded
            assert not encoded or "zarr" in p or r"c\." in p or any(re.fullmatch(p, file) for file in files), (name, p)


def test_links_lead_somewhere():
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", TEXT):
        assert (DOCS / link).exists(), link
