"""WSV in a bucket: the same bytes and batches as on disk, whatever the network does, or an error that names what was asked."""

import dataclasses
import os
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import tensorstore as ts

from data_pipelines.loading.source import DatasetSource
from data_pipelines.wsv import Dataset, create, folder, verify
from data_pipelines.wsv import manifest as records
from data_pipelines.wsv.clip import Clip
from data_pipelines.wsv.folder import Folder
from tests.data_pipelines.datasets import SOURCES, fill, open_clips
from tests.data_pipelines.loading import test_loader as loading
from tests.data_pipelines.loading import test_mixture as mixture
from tests.data_pipelines.wsv import random_clips as disk
from tests.object_store import ObjectStore
from wsm_jax.snapshot.waves import empty

# Read once, before the first request of this process: how long a silent server is waited for.
os.environ["TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS"] = "2"

URL = "s3://bucket/deep/ds"
FULL = dataclasses.replace(disk.JPEG, clips=3, channels=("rgb", "depth"))
SIM = dataclasses.replace(loading.SIM, clips=6, clips_per_shard=3, frames=20, rgb_codec="jpeg", frames_per_chunk=4)
ASK: dict[str, Any] = {**loading.ASK, "rows": 3}


@pytest.fixture
def store(monkeypatch):
    """A store with an empty bucket, to which s3:// leads; what fails is tried again soon."""
    for key in [key for key in os.environ if key.startswith("AWS_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("HOME", "/nowhere")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setitem(folder.RETRIES, "initial_delay", "5ms")
    monkeypatch.setitem(folder.RETRIES, "max_delay", "20ms")
    with ObjectStore("bucket") as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL", store.url)
        yield store


@pytest.fixture(scope="module")
def sim(tmp_path_factory) -> Path:
    """The dataset of the loader, on disk."""
    path = tmp_path_factory.mktemp("bucket") / "sim"
    fill(create(path, SIM, name="sim", sources=SOURCES, build={}), lambda number: loading.clip(SIM, number))
    return path


@pytest.fixture(scope="module")
def batches(sim: Path) -> list[dict]:
    """What the loader makes of it there."""
    return loading.take(open_clips([DatasetSource(sim)], **ASK), 4)


def put(store: ObjectStore, path: Path) -> None:
    """A finished dataset, copied into the bucket."""
    store.objects |= {f"bucket/deep/ds/{key}": data for key, data in disk.contents(path).items()}


def differing(store: ObjectStore, prefix: str, path: Path) -> list[str]:
    """Files that are not the same in the bucket and on disk."""
    there = {key.removeprefix(prefix): data for key, data in store.objects.items()}
    return disk.changed(there, path)


# Written and read.


@pytest.mark.parametrize("url", [URL, "s3://bucket"])
def test_a_dataset_in_a_bucket_is_the_one_on_disk(store, tmp_path, url):
    store.page = 7  # listings come in many pages
    disk.build(url, FULL)
    disk.build(tmp_path / "ds", FULL)
    assert differing(store, f"{url.removeprefix('s3://')}/", tmp_path / "ds") == []
    there = Dataset(url)
    here = disk.read_all(Dataset(tmp_path / "ds"))
    assert disk.equal(disk.read_all(there), here)
    assert disk.equal(disk.read_all(pickle.loads(pickle.dumps(there))), here)
    assert verify(url, progress=False) == []
    with pytest.raises(ValueError, match=f"{url}: a finished dataset is here"):
        disk.begin(url, FULL)


def test_verify_names_what_is_wrong_in_a_bucket(store, sim):
    put(store, sim)
    specs = records.arrays(SIM)
    depth, index = specs["channels/depth"].file(0), specs[records.index_path(SIM)].file(1)
    objects, root = store.objects, "bucket/deep/ds/"
    objects[root + depth] = objects[root + depth][:-1]
    objects[root + index] = bytes([objects[root + index][0] ^ 1]) + objects[root + index][1:]
    objects[root + "notes"] = b"mine"
    found = sorted(verify(URL, progress=False))
    wanted = sorted([(depth, "truncated"), (index, "changed"), ("notes", "extra")])
    assert len(found) == 3
    assert all(line.startswith(f"{URL}/{key}: {word}") for line, (key, word) in zip(found, wanted, strict=True)), found
    del objects[root + depth]
    with pytest.raises(FileNotFoundError, match=f"{URL}/{depth}: missing"):
        Dataset(URL)


def test_of_several_writers_one_wins(store):
    store.latency_ms = 20  # so all of them have seen that nothing is there before the first one writes
    for key in ("a", "b/c"):
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(lambda i, key=key: Folder(URL).write_new(key, b"%d" % i), range(8)))
        assert sum(won) == 1
        assert store.objects[f"bucket/deep/ds/{key}"] == b"%d" % won.index(True)
    assert not Folder(URL).write_new("a", b"late")
    store.reset()
    assert Folder(URL).write_new("new", b"")
    assert [method for method, _, _ in store.log] == ["GET", "PUT"]  # the condition stands in the PUT, not in a look before it


def test_two_builders_at_once_give_the_same_bytes(store, tmp_path):
    store.latency_ms = 5
    layout = dataclasses.replace(FULL, clips=6, clips_per_shard=1, channels=("depth",), rgb_codec="array")
    lost = []

    def work(order: int) -> None:
        writer = disk.begin(URL, layout)
        for shard in range(layout.shards)[::order]:
            try:
                writer.write(shard, [disk.make_clip(layout, shard)])
            except ValueError as error:
                lost.append(str(error))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, (1, -1)))
    assert len(lost) == layout.shards
    assert all(re.search("complete already|another process wrote shard", text) for text in lost)
    disk.begin(URL, layout).finish()
    disk.build(tmp_path / "ds", layout)
    assert differing(store, "bucket/deep/ds/", tmp_path / "ds") == []


def test_a_build_goes_on_through_refusals(store, sim):
    store.faults = {"slow_down": 0.3}
    fill(create(URL, SIM, name="sim", sources=SOURCES, build={}), lambda number: loading.clip(SIM, number))
    assert store.struck["slow_down"] > 20
    assert differing(store, "bucket/deep/ds/", sim) == []


def test_a_write_whose_answer_is_lost_is_done(store):
    store.faults, store.faulty, store.most_faults = {"drop": 1.0}, "PUT", 1
    there = Folder(URL)
    there.write({"a": b"1"})
    store.reset()
    assert not there.write_new("b", b"2")  # sent again, it finds itself
    assert store.objects == {"bucket/deep/ds/a": b"1", "bucket/deep/ds/b": b"2"}


def test_a_build_that_the_store_ends_leaves_the_shard_missing(store):
    writer = disk.begin(URL, FULL)
    clips = [disk.make_clip(FULL, index) for index in range(2)]
    store.faults, store.faulty = {"slow_down": 1.0}, records.bytes_file(SIM, 0)  # which can then not be deleted either
    with pytest.raises(OSError, match=f"{URL}/{records.bytes_file(SIM, 0)}: cannot be written at {store.url}.*503"):
        writer.write(0, clips)
    assert not [key for key in store.objects if key.startswith("bucket/deep/ds/text/")]
    assert 0 in writer.missing()
    store.faults = {}
    writer.write(0, clips)
    assert 0 not in writer.missing()


# The loader.


@pytest.mark.parametrize("threads", [0, 3])
@pytest.mark.parametrize(
    ("latency_ms", "faults"),
    [(0, {}), (20, {}), (0, {"slow_down": 0.3}), (0, {"drop": 0.3}), (2, {"slow_down": 0.15, "drop": 0.15})],
    ids=str,
)
def test_the_batches_are_those_from_disk(store, sim, batches, latency_ms, faults, threads):
    put(store, sim)
    store.latency_ms, store.faults = latency_ms, faults
    found = open_clips([DatasetSource(URL)], **ASK, threads=threads)
    assert loading.same(loading.take(found, 4), batches)
    found.close()
    assert set(store.struck) == set(faults)


def test_all_of_a_batch_is_asked_for_before_anything_is_waited_for(store, sim):
    put(store, sim)
    batches = open_clips([DatasetSource(URL)], **ASK, threads=0)
    loading.take(batches, 4)  # indices and texts have come
    store.reset()
    store.latency_ms = 300
    batch = next(batches)
    assert len(set(store.log)) == len(store.log), "nothing is read twice"
    arrays = {path.rpartition("/")[0].removeprefix("bucket/deep/ds/") for _, path, _ in store.log}
    assert {"channels/depth", "camera", "core", "channels/rgb_jpeg/index"} <= arrays
    assert "core_time" not in arrays, "ticks are at equal intervals"
    pieces = len({(path, span) for _, path, span in store.log if "rgb_jpeg/bytes" in path})
    assert store.most_at_once == store.requests - pieces  # for where the pictures stand is known last
    assert len(set(batch["clip"])) == 3 and pieces == 3  # every second picture, in one request


def test_clips_of_any_length_and_times_with_signals_and_events_are_those_from_disk(store, tmp_path):
    path, layout = tmp_path / "uneven", dataclasses.replace(mixture.VIDEO, captions=True, ticks=20, waves=2)
    rng = np.random.default_rng(0)

    def one(number: int) -> Clip:
        clip = mixture.make(layout, number)
        time = np.asarray(clip.frame_time) + rng.uniform(-0.02, 0.02, clip.frames)
        core = dataclasses.replace(empty(2, (20,)), presence=np.full((20, 2), np.float32(number / 12)))
        events = ({"kind": "impact", "time": 0.3, "instances": [1, 2]},)
        more = {"core": core, "core_time": np.arange(20) / 8 + 0.01 * number, "text": (f"clip {number}",), "events": events}
        return dataclasses.replace(clip, frame_time=time, **more)

    fill(create(path, layout, name="uneven", sources=SOURCES, build={}), one)
    assert not Dataset(path).even
    put(store, path)
    asked = {**mixture.ASK, "ticks": 3, "waves": 3, "signals": (("action", 2),), "events": ("impact",)}
    wanted = loading.take(open_clips([DatasetSource(path)], **asked), 6)
    assert any((batch["events"]["kind"] == 0).any() for batch in wanted)
    store.reset()
    found = open_clips([DatasetSource(URL)], **asked, threads=0)
    assert loading.same(loading.take(found, 6), wanted)
    texts = [path for _, path, _ in store.log if "text" in path or path.endswith(".jsonl")]
    assert len(texts) == len(set(texts)), "each shard's text is read once"
    store.reset()
    store.latency_ms = 300
    with mock.patch.object(Dataset, "ask", autospec=True, side_effect=Dataset.ask) as asked:
        next(found)
    assert [call.kwargs.get("times", False) for call in asked.call_args_list] == [True, False]
    times = [one for one in store.log if one[1].split("/")[-2] in ("frame_time", "core_time")]
    assert times and store.most_at_once >= store.requests - len(times) > 12  # first the times, then all the rest


@pytest.mark.parametrize("fault", ["cut", "cut_unsized"])
def test_a_shortened_body_is_an_error_or_nothing(store, sim, batches, fault):
    put(store, sim)
    found = open_clips([DatasetSource(URL)], **ASK, threads=2)
    store.faults = {fault: 0.05}
    refused: list[str] = []
    for wanted in batches:
        for _ in range(50):
            try:
                batch = next(found)
                break
            except (ValueError, OSError) as error:
                refused.append(str(error))
        assert loading.same(batch, wanted)
    found.close()
    assert refused
    assert all(f"{URL}/" in text for text in refused)


@pytest.mark.parametrize("fault", ["cut", "cut_unsized", "drop", "slow_down"])
def test_every_kind_of_file_that_does_not_come_whole_is_named(store, sim, fault):
    put(store, sim)
    specs = records.arrays(SIM)
    reads = {
        specs["channels/depth"].file(0): lambda ds: ds.read(0, ["depth"]),
        specs["channels/depth"].metadata_file: lambda ds: ds.read(0, ["depth"]),
        specs[records.index_path(SIM)].file(0): lambda ds: ds.read(0, ["rgb"]),
        records.bytes_file(SIM, 0): lambda ds: ds.read(0, ["rgb"]),
        specs["camera"].file(0): lambda ds: ds.camera(0),
        specs["core"].file(0): lambda ds: ds.core(0),
        specs["core_time"].file(0): lambda ds: ds.core_time(0),
        records.text_file(0): lambda ds: ds.captions(0),
    }
    reached = fault.startswith("cut")
    for key, read in reads.items():
        ds = Dataset(URL)
        store.faults, store.faulty = {fault: 1.0}, key
        words = "damaged or cut short" if reached else f"cannot be read at {store.url}"
        with pytest.raises(ValueError if reached else OSError, match=re.escape(f"{URL}/{key}: {words}")):
            read(ds)
        store.faults = {}
        read(ds)
    store.faults, store.faulty = {fault: 1.0}, records.MANIFEST
    with pytest.raises(ValueError if reached else OSError, match=f"{URL}/{records.MANIFEST}: "):
        Dataset(URL)


@pytest.mark.parametrize("threads", [0, 3])
@pytest.mark.parametrize("fault", ["slow_down", "drop"])
def test_a_store_that_fails_ends_the_loader_with_its_name_and_may_come_back(store, sim, fault, threads):
    put(store, sim)
    wanted = loading.take(open_clips([DatasetSource(sim)], **ASK), 16)
    found = open_clips([DatasetSource(URL)], **ASK, threads=threads)
    assert loading.same(next(found), wanted[0])
    store.faults = {fault: 1.0}
    with pytest.raises(OSError, match=rf"{URL}/\S+: cannot be read at {store.url}.* 8 retry attempts failed"):
        loading.take(found, 14)  # those of all threads, and of their buffer, may have been read ahead
    step = found.get_state()["step"]
    store.faults = {}
    assert loading.same(loading.take(found, 16 - step), wanted[step:])
    found.close()


def test_a_silent_server_is_not_waited_for(store, sim):
    put(store, sim)
    store.faults, store.most_faults = {"stall": 1.0}, 1
    assert verify(URL, progress=False) == []
    assert store.struck["stall"] == 1


# Where s3:// leads.


def test_what_is_not_there_is_said(store, monkeypatch):
    with pytest.raises(FileNotFoundError, match="s3://nobody/x: no WSV dataset here"):
        Dataset("s3://nobody/x")
    with pytest.raises(OSError, match=rf"s3://nobody/x/: cannot be listed at {store.url} .*NoSuchBucket"):
        disk.begin("s3://nobody/x", FULL)
    with pytest.raises(OSError, match=r"s3://bucket/x/.*NoSuchBucket|s3://Bad_!/x.*Invalid S3 bucket name"):
        Dataset("s3://Bad_!/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "localhost:9000")
    with pytest.raises(OSError, match=r"s3://bucket/x/manifest.json: cannot be read at localhost:9000 .*scheme.*http"):
        Dataset("s3://bucket/x")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    for verb in (Dataset, verify, lambda url: disk.begin(url, FULL), lambda url: open_clips([DatasetSource(url)], **ASK)):
        with pytest.raises(
            OSError, match=r"s3://bucket/x/(manifest|collection).json: cannot be read at http://127.0.0.1:9 .*connect"
        ):
            verb("s3://bucket/x")
    there = Folder("s3://bucket/x")
    for use in (there.list, lambda: there.remove("a"), lambda: there.write_new("a", b""), lambda: there.write({"a": b""})):
        with pytest.raises(OSError, match=r"s3://bucket/x/.*at http://127.0.0.1:9 .*connect"):
            use()


def test_a_request_is_sent_nine_times(store):
    store.faults = {"slow_down": 1.0}
    with pytest.raises(OSError, match="503"):
        Folder(URL).read("a")
    assert store.requests == 1 + folder.RETRIES["max_retries"] == 9


def test_credentials_and_region_are_those_of_the_environment(store, monkeypatch):
    Folder(URL).read("a")
    assert store.signatures == {""}
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    for region in ("us-east-1", "eu-north-1"):
        store.reset()
        Folder(URL).read("a")
        assert len(store.signatures) == 1
        assert re.search(rf"Credential=someone/\d+/{region}/s3/aws4_request", store.signatures.pop())
        monkeypatch.setenv("AWS_REGION", "eu-north-1")


def test_the_arrays_are_opened_like_the_files(store, sim, monkeypatch):
    put(store, sim)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    ds = Dataset(URL)
    ds.clip(0)
    assert store.requests > 15
    assert all("someone" in signature for signature in store.signatures)


def test_google_is_as_patient(store):
    spec = folder._bucket("gs://bucket/deep/ds/")
    assert spec == {"driver": "gcs", "bucket": "bucket", "path": "deep/ds/", "gcs_request_retries": folder.RETRIES}
    ts.KvStore.Spec(spec)
