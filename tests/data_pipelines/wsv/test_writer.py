"""Building a dataset: whatever stops it, it goes on to the same bytes; what does not fit is refused before it is written."""

import dataclasses
import errno
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorstore as ts

from data_pipelines.wsv import SCHEMA_VERSION, Dataset, create, finished, verify
from data_pipelines.wsv import manifest as records
from data_pipelines.wsv.folder import Folder
from tests.data_pipelines.datasets import FULL, SOURCES, fill
from tests.data_pipelines.wsv.random_clips import BUILD, JPEG, RGB, SPLIT, TEXT, begin, build, changed, contents, make_clip
from wsm_jax.snapshot import CHANNELS, FIELDS

ROOT = Path(__file__).resolve().parents[3]

# The manifest.


def test_statistics_are_those_of_all_the_values(tmp_path):
    manifest = Dataset(build(tmp_path / "ds", FULL)).manifest
    clips = [make_clip(FULL, index) for index in range(FULL.clips)]
    values = {("channels", key): np.stack([c.channels[key] for c in clips]) for key in FULL.channels}
    exists = np.stack([c.core.presence for c in clips]) > 0
    assert 0 < exists.sum() < exists.size
    for key, size in FIELDS.items():
        field = np.stack([getattr(c.core, key) for c in clips])
        values["core", key] = (field if key == "presence" else field[exists]).reshape(-1, max(size, 1))
    assert set(manifest["statistics"]["core"]) == set(FIELDS)
    for (group, key), x in values.items():
        flat = np.asarray(x, np.float64).reshape(-1, x.shape[-1])
        found = manifest["statistics"][group][key]
        assert found["count"] == len(flat)
        for word, wanted in {"mean": flat.mean(0), "std": flat.std(0), "min": flat.min(0), "max": flat.max(0)}.items():
            np.testing.assert_allclose(found[word], wanted, rtol=1e-9, atol=1e-12 * np.abs(flat).max(), err_msg=f"{key} {word}")


def test_manifest_counts_and_names_every_file(tmp_path):
    path = build(tmp_path / "ds", JPEG)
    manifest, files = Dataset(path).manifest, contents(path)
    counts = manifest["counts"]
    assert {k: counts[k] for k in ("clips", "shards", "frames", "ticks")} == {
        "clips": 5,
        "shards": 3,
        "frames": 35,
        "ticks": 45,
    }
    assert (counts["captions"], counts["events"]) == (0 + 1 + 2 + 0 + 1, 2)
    assert set(manifest["files"]) == set(files) - {"manifest.json"}
    assert counts["bytes"] == sum(len(files[key]) for key in manifest["files"])
    assert manifest["sources"] == SOURCES
    assert manifest["build"] == BUILD
    assert manifest["schema_version"] == SCHEMA_VERSION


# A build that stops goes on; two processes share one.

WORKER = """
import os, signal, sys
sys.path.insert(0, {root!r})
from tests.data_pipelines.wsv import random_clips as t
from data_pipelines.wsv.folder import Folder
path, kill_at, shards = sys.argv[1], int(sys.argv[2]), [int(s) for s in sys.argv[3].split(",")]
plain, written = Folder.write, 0

def write(self, files):
    global written
    for key, data in files.items():
        written += 1
        if written == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        plain(self, {{key: data}})

writer = t.begin(path, t.SPLIT)
if kill_at:
    Folder.write = write
for shard in shards:
    print("shard", shard, flush=True)
    writer.write(shard, [t.make_clip(t.SPLIT, shard)])
"""


def worker(path: Path, shards: str, kill_at: int = 0) -> subprocess.Popen:
    """A process that builds some shards of a dataset, and kills itself before its file number `kill_at`, if that is not 0."""
    code = WORKER.format(root=str(ROOT))
    arguments = [sys.executable, "-c", code, str(path), str(kill_at), shards]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})


def test_two_processes_that_are_killed_and_resumed_give_the_same_bytes(tmp_path):
    path, per_shard = tmp_path / "ds", len(records.arrays(SPLIT)) + 2
    # One kills itself in the middle of shard 1, the other is killed from outside, somewhere in shard 4 (or just after it).
    one, two = worker(path, "0,1", kill_at=per_shard + per_shard // 2), worker(path, "2,3,4")
    assert two.stdout is not None
    assert [two.stdout.readline() for _ in range(3)] == ["shard 2\n", "shard 3\n", "shard 4\n"]
    time.sleep(0.01)
    two.kill()
    two.communicate(timeout=60)
    one.communicate(timeout=60)
    assert one.returncode == -signal.SIGKILL
    assert any(".1." in key for key in contents(path)), "it was to be killed when a part of shard 1 was written"
    with pytest.raises(ValueError, match=r'unfinished build.*"seed": 3.*'):
        Dataset(path)
    assert "unfinished" in verify(path, progress=False)[0]
    assert {1} <= set(begin(path, SPLIT).missing()) <= {1, 4}
    build(path, SPLIT)
    assert verify(path, progress=False) == []
    # A write that was cut off may leave the file that it wrote to under another name, which no reader sees.
    assert [key for key in changed(contents(build(tmp_path / "whole", SPLIT)), path) if not key.endswith(".__lock")] == []


def test_finish_names_the_missing_shards_and_happens_once(tmp_path):
    writer = begin(tmp_path / "ds", TEXT)
    writer.write(1, [make_clip(TEXT, index) for index in TEXT.span(1)])
    with pytest.raises(ValueError, match=r"2 of 3 shards are missing: \[0, 2\]"):
        writer.finish()
    with pytest.raises(ValueError, match="shard 1 is complete"):
        writer.write(1, [make_clip(TEXT, index) for index in TEXT.span(1)])
    for shard in (0, 2):
        writer.write(shard, [make_clip(TEXT, index) for index in TEXT.span(shard)])
    path = tmp_path / "ds" / records.text_file(2)
    text = path.read_bytes()
    path.unlink()
    with pytest.raises(ValueError, match=r"text/000002\.jsonl: gone"):
        writer.finish()
    path.write_bytes(text)
    assert writer.finish() == Dataset(tmp_path / "ds").manifest
    with pytest.raises(ValueError, match="finished already"):
        writer.finish()
    with pytest.raises(ValueError, match="finished dataset is here"):
        begin(tmp_path / "ds", TEXT)


def test_what_another_release_began_is_refused(tmp_path):
    begin(tmp_path / "ds", FULL)
    file = tmp_path / "ds" / records.BUILD
    begun = json.loads(file.read_text())
    for key, other in {"schema_version": 1, "tick_hz": 9.0, "semantic_classes": ["void"], "channels": {}}.items():
        file.write_text(json.dumps({**begun, key: other}))
        before = contents(tmp_path / "ds")
        with pytest.raises(ValueError, match=rf"another release began what is unfinished here: its {key} is .*wsm_jax"):
            begin(tmp_path / "ds", FULL)
        assert not changed(before, tmp_path / "ds")
    file.write_text(json.dumps(begun))
    begin(tmp_path / "ds", FULL)


def test_what_another_release_or_other_arguments_finished_is_not_taken_for_ours(tmp_path):
    """Numbers of the same arguments mean something else there; it stays as it is, and nothing is begun over it."""
    given = {"name": "test", "sources": SOURCES, "build": BUILD}
    assert finished(tmp_path / "ds", TEXT, **given) is None
    writer = begin(tmp_path / "ds", TEXT)
    assert finished(tmp_path / "ds", TEXT, **given) is None, "it is begun"
    manifest = fill(writer, functools.partial(make_clip, TEXT))
    assert finished(tmp_path / "ds", TEXT, **given) == manifest
    for key, other in {"name": "other", "sources": [*SOURCES, *SOURCES], "build": {}, "attached": {"a.txt": b"a"}}.items():
        assert finished(tmp_path / "ds", TEXT, **{**given, key: other}) is None, key
    assert finished(tmp_path / "ds", dataclasses.replace(TEXT, clips=6), **given) is None
    file = tmp_path / "ds" / records.MANIFEST
    classes, row = manifest["semantic_classes"][:-1], CHANNELS["rgb"]
    table = {"rgb": {"components": row.components, "dtype": row.dtype, "step": row.step, "unit": "lx"}}
    for key, other in {"schema_version": 1, "tick_hz": 9.0, "semantic_classes": classes, "channels": table}.items():
        file.write_bytes(records.seal({**{k: v for k, v in manifest.items() if k != "sha256"}, key: other}))
        before = contents(tmp_path / "ds")
        assert finished(tmp_path / "ds", TEXT, **given) is None, key
        with pytest.raises(ValueError, match="a finished dataset is here"):
            begin(tmp_path / "ds", TEXT)
        assert changed(before, tmp_path / "ds") == []


def test_another_build_is_refused(tmp_path):
    begin(tmp_path / "ds", FULL)
    before = contents(tmp_path / "ds")
    same = {"layout": FULL, "name": "test", "sources": SOURCES, "build": BUILD}
    others = {
        "layout": JPEG,
        "name": "other",
        "sources": [{"name": "x", "licence": "MIT"}],
        "build": {"seed": 4},
    }
    for key, other in others.items():
        arguments = {**same, key: other}
        with pytest.raises(ValueError, match=f"another build is unfinished here: its {key}"):
            create(tmp_path / "ds", arguments.pop("layout"), **arguments)
    begin(tmp_path / "ds", FULL)
    assert changed(before, tmp_path / "ds") == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("precious")
    with pytest.raises(ValueError, match=r"holds other files \(thesis.tex"):
        begin(tmp_path / "mine", FULL)
    assert list(contents(tmp_path / "mine")) == ["thesis.tex"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.replace(channels={k: v for k, v in c.channels.items() if k != "depth"}), "channels"),
        (lambda c: c.replace(channels={k: v[:, :5] for k, v in c.channels.items()}), "pixels"),
        (lambda c: c.replace(channels={**c.channels, "depth": c.channels["depth"][:, :5]}), "aligned|pixels"),
        (lambda c: c.replace(channels={**c.channels, "depth": np.full_like(c.channels["depth"], np.nan)}), "not finite"),
        (lambda c: c.replace(camera=None), "camera missing"),
        (lambda c: c.replace(core=None), "core missing"),
        (lambda c: c.replace(core=c.core[:4], core_time=c.core_time[:4]), "core"),
        (lambda c: c.replace(frame_time=c.frame_time[::-1]), "increase"),
        (lambda c: c.replace(frame_time=c.frame_time[:4]), "channel|frames"),
        (lambda c: c.replace(events=({"time": float("nan")},)), "JSON|JSON compliant"),
        (lambda c: c.replace(events=({"time": object()},)), "cannot be stored as JSON"),
    ],
)
def test_a_clip_that_does_not_fit_is_refused_before_anything_is_written(tmp_path, change, message):
    writer = begin(tmp_path / "ds", FULL)
    before = contents(tmp_path / "ds")
    clips = [make_clip(FULL, 2), change(make_clip(FULL, 3))]
    with pytest.raises(ValueError, match=f"(?s)clip 3: .*({message})"):
        writer.write(1, clips)
    assert changed(before, tmp_path / "ds") == []


def test_other_misuse_is_refused(tmp_path):
    writer = begin(tmp_path / "ds", RGB)
    with pytest.raises(ValueError, match=r"shard 0 is clips 0\.\.1; got 1"):
        writer.write(0, [make_clip(RGB, 0)])
    with pytest.raises(IndexError, match="shard 3"):
        writer.write(3, [])
    clip = make_clip(RGB, 0)
    for extra in (
        {"text": ("a",)},
        {"camera": make_clip(FULL, 0).camera},
        {"core": make_clip(FULL, 0).core, "core_time": np.arange(9) / 8},
    ):
        with pytest.raises(ValueError, match="layout has none"):
            writer.write(0, [clip, clip.replace(**extra)])
    with pytest.raises(ValueError, match=r"\['licence'\] missing"):
        create(tmp_path / "no", RGB, name="x", sources=[{"name": "y"}], build={})
    with pytest.raises(ValueError, match="cannot be stored as JSON"):
        create(tmp_path / "no", RGB, name="x", sources=[], build={"f": print})
    assert not (tmp_path / "no").exists()
    changes = {"clips": 0, "channels": ("rgb", "rgb"), "rgb_codec": "png", "frames": 0, "waves": 0, "frames_per_chunk": 0}
    for key, value in changes.items():
        with pytest.raises(ValueError, match="Layout"):
            dataclasses.replace(FULL, **{key: value})
    with pytest.raises(KeyError, match="unknown channel 'heat'"):
        dataclasses.replace(FULL, channels=("heat",))


# A full disk.


def test_a_disk_that_fills_up_at_any_file_leaves_the_shard_missing(tmp_path, monkeypatch):
    writer = begin(tmp_path / "ds", JPEG)
    clips = [make_clip(JPEG, index) for index in range(2)]
    real = Folder.store.fget
    room = 0

    class Full:
        """A store on which only `room` more files fit."""

        def __init__(self, plain):
            self.plain = plain

        def __getattr__(self, name):
            return getattr(self.plain, name)

        def write(self, key, value, **kwargs):
            nonlocal room
            if value is None or (room := room - 1) >= 0:
                return self.plain.write(key, value, **kwargs)
            promise, future = ts.Promise.new()
            message = f"RESOURCE_EXHAUSTED: Failed writing: {key}: No space left on device [os_error_code='28']"
            promise.set_exception(ValueError(message))
            return future

    monkeypatch.setattr(Folder, "store", property(lambda self: Full(real(self))))
    before = contents(tmp_path / "ds")
    for fits in (0, 1, len(records.arrays(JPEG)) + 1, len(records.arrays(JPEG)) + 2):
        room = fits
        with pytest.raises(OSError, match=r"disk full: shard 0 needs \d+\.\d+ MiB, \d+") as caught:
            writer.write(0, clips)
        assert caught.value.errno == errno.ENOSPC
        assert str(tmp_path / "ds") in str(caught.value)
        assert changed(before, tmp_path / "ds") == []
        assert writer.missing() == [0, 1, 2]
    room = 10**6
    assert build(tmp_path / "ds", JPEG)
    assert verify(tmp_path / "ds", progress=False) == []


TINY = """
import errno, os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from data_pipelines.wsv import verify
from data_pipelines.wsv.folder import Folder
from tests.data_pipelines.wsv import random_clips as t
path, plain = sys.argv[1], Folder.free
writer = t.begin(path + "/ds", t.JPEG)
before = t.contents(Path(path))
filler = open(path + "/filler", "wb")
filler.write(bytes(plain(Folder(path)) - 20000))
filler.close()
for free in (plain, lambda self: None):  # With the check in advance, and without it.
    Folder.free = free
    try:
        writer.write(0, [t.make_clip(t.JPEG, 0), t.make_clip(t.JPEG, 1)])
    except OSError as error:
        print(error)
        assert error.errno == errno.ENOSPC
    else:
        raise AssertionError("it fitted")
    assert t.changed(before, Path(path)) == ["filler"]
os.unlink(path + "/filler")
t.build(Path(path) / "ds", t.JPEG)
assert verify(path + "/ds", progress=False) == []
"""


def test_a_disk_that_is_really_full(tmp_path):
    mount = f"mount -t tmpfs -o size=2m none {tmp_path}"
    if not shutil.which("unshare") or subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("mounting a tiny disk in a namespace of its own is not permitted here")
    code = TINY.format(root=str(ROOT))
    command = ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$0" -c "$1" "$2"', sys.executable, code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("disk full: shard 0 needs") == 2
