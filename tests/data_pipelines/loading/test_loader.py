"""The loader's promises: one order for any threads and hosts, exact resumption, true windows, nothing invented."""

import dataclasses
import json
import re
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
import pytest

from data_pipelines.loading.loader import Loader
from data_pipelines.loading.source import DatasetSource
from data_pipelines.wsv import Dataset, Layout, create
from data_pipelines.wsv.manifest import arrays
from tests.data_pipelines.datasets import FULL, SOURCES, fill, open_clips
from wsm_jax.snapshot import TICK_HZ, WSV, Camera, ground, resize, store
from wsm_jax.snapshot.waves import empty
from wsm_jax.text import decode_caption

SIM = dataclasses.replace(
    FULL,
    clips=10,
    frames=24,
    height=8,
    width=8,
    frame_hz=16.0,
    ticks=12,
    channels=("rgb", "depth"),
    clips_per_shard=4,
    frames_per_chunk=16,
)
REAL = dataclasses.replace(
    SIM,
    clips=5,
    frames=40,
    height=12,
    width=16,
    frame_hz=24.0,
    ticks=0,
    waves=0,
    channels=("rgb",),
    camera=False,
    captions=False,
)
CORES = dataclasses.replace(SIM, clips=3, frames=0, height=0, width=0, channels=(), camera=False, ticks=20, waves=5)
ASK: dict[str, Any] = {
    **{"channels": ("rgb", "depth", "normal"), "frames": 3, "frame_hz": 8.0, "height": 8, "width": 8, "ticks": 4, "waves": 4},
    **{"rows": 4, "seed": 7},
}


def clip(layout: Layout, number: int) -> WSV:
    """A clip whose every value tells which clip, frame and tick it is of."""
    channels = {}
    t, y, x = np.meshgrid(np.arange(layout.frames), np.arange(layout.height), np.arange(layout.width), indexing="ij")
    if "rgb" in layout.channels:
        channels["rgb"] = np.stack([np.full_like(t, number), t, 8 * y + x], -1).astype(np.float32) / 255
    if "depth" in layout.channels:
        channels["depth"] = (1 + number + 0.1 * t + 0.001 * x)[..., None].astype(np.float32)
    camera = core = core_time = None
    if layout.camera:
        position = np.stack([np.full(layout.frames, number), np.arange(layout.frames), np.zeros(layout.frames)], -1)
        rotation = np.tile(np.float32([0, 1, 0, 0]), (layout.frames, 1))
        one = np.ones(layout.frames, np.float32)
        camera = Camera(position.astype(np.float32), rotation, 2 * one, np.zeros((layout.frames, 2), np.float32))
    if layout.ticks:
        core, core_time = empty(layout.waves, (layout.ticks,)), np.arange(layout.ticks) / TICK_HZ
        core.presence[:, :2] = 1.0
        core.centre[..., 0] = number
        core.centre[..., 1] = np.arange(layout.ticks)[:, None]
    text = (f"clip {number}", f"number {number}") if layout.captions else ()
    return WSV(channels, np.arange(layout.frames) / layout.frame_hz, camera, core, core_time, text)


def write(path: Path, layout: Layout) -> Path:
    fill(create(path, layout, name=path.name, sources=SOURCES, build={}), lambda number: clip(layout, number))
    return path


@pytest.fixture(scope="module")
def sim(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "sim", SIM)


@pytest.fixture(scope="module")
def real(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "real", REAL)


@pytest.fixture(scope="module")
def cores(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "cores", CORES)


@pytest.fixture(scope="module")
def mixed(sim: Path, real: Path, cores: Path) -> list[DatasetSource]:
    return [DatasetSource(sim, 2.0), DatasetSource(real, 1.0, (24.0, 12.0, 8.0)), DatasetSource(cores, 1.0)]


@pytest.fixture(scope="module")
def whole(mixed: list[DatasetSource]) -> list[dict]:
    """Ten batches of the mixture, uninterrupted, by one host."""
    return take(open_clips(mixed, **ASK), 10)


def take(batches: Loader, count: int) -> list[dict]:
    return [next(batches) for _ in range(count)]


def same(a: Any, b: Any) -> bool:
    pairs = jax.tree.map(lambda x, y: x.dtype == y.dtype and np.array_equal(x, y), a, b)
    return all(jax.tree.leaves(pairs))


def order(batches: list[dict]) -> list[tuple[int, int]]:
    return [pair for batch in batches for pair in zip(batch["source"].tolist(), batch["clip"].tolist(), strict=True)]


def test_every_part_of_an_example_is_of_the_same_clip_and_moment(sim: Path):
    starts = set()
    for batch in take(open_clips([DatasetSource(sim)], **ASK), 6):
        for row in range(4):
            found = jax.tree.map(lambda x, row=row: x[row], batch)
            number, rgb = int(found["clip"]), found["channels"]["rgb"]
            frames = rgb[:, 0, 0, 1].astype(int)
            assert np.array_equal(np.diff(frames), [2, 2])  # stored at 16 Hz, asked at 8 Hz
            assert (rgb[..., 0] == number).all()
            assert np.array_equal(rgb[0, :, :, 2], 8 * np.arange(8)[:, None] + np.arange(8))
            depth = 1000 * (1 + number) + 100 * frames[:, None, None] + np.arange(8) + np.zeros((8, 1))
            assert np.array_equal(found["channels"]["depth"][..., 0], depth)
            assert np.array_equal(found["camera"]["position"], np.stack([frames * 0 + number, frames, frames * 0], -1))
            assert (found["camera"]["focal"] == 2).all()
            ticks = found["core"]["centre"][:, 0, 1]
            assert np.array_equal(np.diff(ticks), [1, 1, 1])
            assert (found["core"]["centre"][:, 0, 0] == number).all()
            start = ticks[0] / TICK_HZ
            starts.add(start)
            np.testing.assert_allclose(found["core_time"], ticks / TICK_HZ - start, atol=1e-6)
            np.testing.assert_allclose(found["frame_time"], frames / 16.0 - start, atol=1e-6)
            assert decode_caption(found["caption"]) in (f"clip {number}", f"number {number}")
    assert len(starts) > 5


def test_shapes_and_dtypes_do_not_depend_on_the_source(mixed: list[DatasetSource], whole: list[dict]):
    one = {**ASK, "rows": 1}
    alone = [jax.tree.map(lambda x: (x.shape[1:], x.dtype.name), next(open_clips([source], **one))) for source in mixed]
    first = whole[0]
    assert all(spec == jax.tree.map(lambda x: (x.shape[1:], x.dtype.name), first) for spec in alone)
    assert first["channels"]["rgb"].shape == (4, 3, 8, 8, 3)
    assert first["channels"]["depth"].dtype == np.uint16
    assert first["core"]["centre"].shape == (4, 4, 4, 3)
    assert first["caption"].shape == (4, 512)
    assert (first["clip"].dtype, first["source"].dtype) == (np.int64, np.int32)
    assert all(value.shape == (4,) and value.dtype == bool for value in first["known"].values())


def test_the_ground_follows_from_the_camera_where_there_is_one(sim: Path, real: Path):
    ask = {**ASK, "channels": ("rgb", "ground"), "rows": 2}
    batch = next(open_clips([DatasetSource(sim)], **ask))
    assert batch["known"]["ground"].all()
    for row in range(2):
        camera = Camera(**{name: values[row] for name, values in batch["camera"].items()})
        assert np.array_equal(batch["channels"]["ground"][row], store("ground", ground(camera, 8, 8)))
    batch = next(open_clips([DatasetSource(real, 1.0, (24.0,))], **{**ask, "ticks": 0}))
    assert not batch["known"]["ground"].any() and not batch["channels"]["ground"].any()


def test_what_a_source_lacks_is_marked_and_not_invented(whole: list[dict]):
    has = [{"rgb", "depth", "camera", "core", "text"}, {"rgb"}, {"core", "text"}]
    captions = set()
    for batch in whole:
        for row, source in enumerate(batch["source"]):
            found = jax.tree.map(lambda x, row=row: x[row], batch)
            assert {name for name, value in found["known"].items() if value} == has[source]
            for name, values in found["channels"].items():
                assert values.any() == (name in has[source])
            assert found["core"]["presence"].sum() == (8 if "core" in has[source] else 0)
            assert found["caption"].any() == ("text" in has[source])
            assert "camera" in has[source] or not found["camera"]["position"].any()
            np.testing.assert_allclose(np.linalg.norm(found["camera"]["rotation"], axis=-1), 1)
            assert (found["core"]["presence"][:, 3] == 0).all()
            captions.add(decode_caption(found["caption"]).split(" ")[0])
    assert captions == {"clip", "number", ""}


SPANS = ((0.0, 0.5), (0.5, 1.0), (0.25, 1.25), (1.0, 1.5), None)
"""Of the captions "0" to "4" of every clip, of 1.5 s."""
SPOKEN = dataclasses.replace(SIM, clips=3)


def spoken(path: Path, layout: Layout, spans: tuple) -> Path:
    """A dataset whose clips have a caption for each span."""

    def of(number: int) -> WSV:
        return dataclasses.replace(clip(layout, number), text=tuple(map(str, range(len(spans)))), spans=spans)

    fill(create(path, layout, name=path.name, sources=SOURCES, build={}), of)
    return path


@pytest.mark.parametrize("source", ["frames", "frames of another rate", "ticks", "text"])
def test_a_window_gets_captions_of_its_own_time_alone(tmp_path, source: str):
    """All of those that share half with it, and none else; without frames its ticks tell its length."""
    no_frames = {"frames": 0, "height": 0, "width": 0, "channels": (), "camera": False}
    changes = {"ticks": no_frames, "text": no_frames | {"ticks": 0, "waves": 0}}.get(source, {})
    path = spoken(tmp_path / "set", dataclasses.replace(SPOKEN, **changes), SPANS)
    ask = {**ASK, "ticks": 3 if source == "ticks" else 0, "frame_hz": 4.0 if source == "frames of another rate" else 8.0}
    seconds = {"frames": 3 / 8, "frames of another rate": 3 / 4, "ticks": 3 / 8, "text": np.inf}[source]
    told: dict[float, set[str]] = {}
    for batch in take(open_clips([DatasetSource(path)], **ask), 150):
        for row in range(4):
            tick = batch["core"]["centre"][row, 0, 0, 1] / TICK_HZ if source == "ticks" else 0.0
            start = float(batch["channels"]["rgb"][row, 0, 0, 0, 1]) / 16 if "frames" in source else float(tick)
            told.setdefault(start, set()).add(decode_caption(batch["caption"][row]))
        assert batch["known"]["text"].all()
    assert len(told) > (0 if source == "text" else 4)
    for start, texts in told.items():
        wanted = {"4"}
        for number, span in enumerate(SPANS[:4]):
            common = min(span[1], start + seconds) - max(span[0], start)
            wanted |= {str(number)} if common >= min(span[1] - span[0], seconds) / 2 - 1e-9 else set()
        assert texts == wanted, start


def test_where_no_caption_is_of_the_window_its_text_is_unknown(tmp_path):
    path = spoken(tmp_path / "set", SPOKEN, ((0.0, 0.25), (0.0, 0.25)))
    ask = {**ASK, "ticks": 0, "first_caption": True}
    known = set()
    for batch in take(open_clips([DatasetSource(path)], **ask), 12):
        for row in range(4):
            start = batch["channels"]["rgb"][row, 0, 0, 0, 1] / 16
            known.add(bool(batch["known"]["text"][row]))
            assert bool(batch["known"]["text"][row]) == (start <= 0.125)
            assert decode_caption(batch["caption"][row]) == ("0" if start <= 0.125 else "")
    assert known == {False, True}


def test_the_first_caption_is_the_first_that_is_of_the_window(tmp_path):
    path = spoken(tmp_path / "set", SPOKEN, ((1.0, 1.5), (0.0, 0.75), None))
    for batch in take(open_clips([DatasetSource(path)], **{**ASK, "ticks": 0, "first_caption": True}), 12):
        for row in range(4):
            start = batch["channels"]["rgb"][row, 0, 0, 0, 1] / 16
            first = "0" if start + 3 / 8 - 1.0 >= 3 / 16 else "1" if 0.75 - start >= 3 / 16 else "2"
            assert decode_caption(batch["caption"][row]) == first


def test_another_resolution_is_resized_by_the_rule_of_the_channel(real: Path):
    batch = next(open_clips([DatasetSource(real)], **ASK))
    stored = Dataset(real)
    for row in range(4):
        rgb = batch["channels"]["rgb"][row]
        number = int(batch["clip"][row])
        frames = rgb[:, 0, 0, 1].astype(int).tolist()
        middle = stored.read(number, ["rgb"], frames)["rgb"][:, :, 2:14]  # 12 x 16 pixels, cut to 12 x 12
        assert np.array_equal(rgb, resize("rgb", middle, 8, 8))


def test_rates_are_chosen_at_random_from_those_of_the_source(real: Path):
    steps = set()
    for batch in take(open_clips([DatasetSource(real, 1.0, (24.0, 12.0, 8.0))], **ASK), 8):
        frames = batch["channels"]["rgb"][:, :, 0, 0, 1].astype(int)
        steps |= {tuple(row) for row in np.diff(frames)}
        np.testing.assert_allclose(batch["frame_time"], (frames - frames[:, :1]) / 24.0, atol=1e-6)
    assert steps == {(1, 1), (2, 2), (3, 3)}


def test_weights_are_kept(whole: list[dict]):
    assert np.bincount([source for source, _ in order(whole)]).tolist() == [20, 10, 10]


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_threads_do_not_change_the_batches(mixed: list[DatasetSource], whole: list[dict], threads: int):
    assert same(take(open_clips(mixed, **ASK, threads=threads), 4), whole[:4])


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_together_deliver_the_batch_of_one(mixed: list[DatasetSource], whole: list[dict], hosts: int):
    parts = [take(open_clips(mixed, **ASK, host=h, hosts=hosts, threads=1), 4) for h in range(hosts)]
    assert all(len(batch["clip"]) == 4 // hosts for part in parts for batch in part)
    joined = [jax.tree.map(lambda *rows: np.concatenate(rows), *batch) for batch in zip(*parts, strict=True)]
    assert same(joined, whole[:4])


def test_the_seed_is_what_orders(sim: Path):
    first = take(open_clips([DatasetSource(sim)], **ASK), 2)
    other = take(open_clips([DatasetSource(sim)], **{**ASK, "seed": 8}), 2)
    assert order(first) != order(other)
    two = [DatasetSource(sim), DatasetSource(sim)]  # two sources of one length do not go through the same order
    pairs = order(take(open_clips(two, **ASK), 5))
    assert [c for s, c in pairs if s == 0] != [c for s, c in pairs if s == 1]


def test_each_epoch_shows_every_clip_once_in_an_order_and_windows_of_its_own(sim: Path):
    batches = open_clips([DatasetSource(sim)], **{**ASK, "rows": 5}, epochs=4)
    epochs, windows = [], []
    for _ in range(4):
        pair = take(batches, 2)
        epochs.append([c for _, c in order(pair)])
        ticks = np.concatenate([batch["core"]["centre"][:, 0, 0, 1] for batch in pair])
        windows.append(ticks[np.argsort(epochs[-1])].tolist())
    with pytest.raises(StopIteration):
        next(batches)
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert len({tuple(window) for window in windows}) == 4
    plain = open_clips([DatasetSource(sim)], **{**ASK, "rows": 5}, epochs=2, shuffle=False)
    assert [c for _, c in order(list(plain))] == [*range(10), *range(10)]


@pytest.mark.parametrize("stop", [1, 5, 8])
def test_resumed_equals_uninterrupted(mixed: list[DatasetSource], whole: list[dict], stop: int):
    before = open_clips(mixed, **ASK)
    take(before, stop)
    state = json.loads(json.dumps(before.get_state()))
    take(before, 1)  # what is read after the state was taken does not belong to it
    after = open_clips(mixed, **ASK, threads=2)
    take(after, 2)  # nor does what another loader has prefetched
    after.set_state(state)
    assert after.get_state() == state
    assert same(take(after, 10 - stop), whole[stop:])


def test_a_state_goes_on_with_another_number_of_hosts(mixed: list[DatasetSource], whole: list[dict]):
    hosts = [open_clips(mixed, **ASK, host=h, hosts=2, threads=1) for h in range(2)]
    take(hosts[0], 3)
    state = hosts[0].get_state()
    for host in hosts:
        host.set_state(state)
    assert same(jax.tree.map(lambda *rows: np.concatenate(rows), *(next(host) for host in hosts)), whole[3])
    one = open_clips(mixed, **ASK)
    one.set_state(state)
    assert same(next(one), whole[3])


def test_the_end_is_a_state_too(sim: Path):
    batches = open_clips([DatasetSource(sim)], **ASK, epochs=1)
    assert len(list(batches)) == 2  # ten clips in fours: the rest is not a batch
    again = open_clips([DatasetSource(sim)], **ASK, epochs=1)
    again.set_state(batches.get_state())
    with pytest.raises(StopIteration):
        next(again)


def test_a_state_of_another_order_is_refused(sim: Path, real: Path):
    state = open_clips([DatasetSource(sim)], **ASK).get_state()
    with pytest.raises(ValueError, match="seed was 7, is 8"):
        open_clips([DatasetSource(sim)], **{**ASK, "seed": 8}).set_state(state)
    with pytest.raises(ValueError, match=r"sources was .*sim.* is .*real"):
        open_clips([DatasetSource(sim), DatasetSource(real)], **ASK).set_state(state)
    with pytest.raises(ValueError, match="version 9"):
        open_clips([DatasetSource(sim)], **ASK).set_state({**state, "version": 9})


def test_transforms_are_applied_to_whole_batches_in_order(sim: Path):
    def shade(batch: dict) -> dict:
        return {"mean": batch["channels"]["rgb"].mean((2, 3, 4)), "clip": batch["clip"]}

    def double(batch: dict) -> dict:
        return {**batch, "mean": 2 * batch["mean"]}

    plain = next(open_clips([DatasetSource(sim)], **ASK))
    batch = next(open_clips([DatasetSource(sim)], **ASK, transforms=(shade, double)))
    np.testing.assert_array_equal(batch["mean"], 2 * plain["channels"]["rgb"].mean((2, 3, 4)))
    assert set(batch) == {"mean", "clip"}


def test_a_transform_may_write_into_its_batch(sim: Path):
    def spoil(batch: dict) -> None:
        for value in jax.tree.leaves([batch["camera"], batch["core"], batch["core_time"], batch["frame_time"]]):
            value[...] = -1

    def look(batch: dict) -> dict:
        was = {"clip": batch["clip"], "core": batch["core"]["centre"].copy(), "camera": batch["camera"]["position"].copy()}
        spoil(batch)
        return was

    ask = {**ASK, "waves": 3, "rows": 5}
    for batch in take(open_clips([DatasetSource(sim)], **ask, threads=0, transforms=(look,)), 4):
        assert (batch["core"][:, :, 0, 0] == batch["clip"][:, None]).all()  # also in the second epoch, of what is kept
        assert (batch["camera"][:, :, 0] == batch["clip"][:, None]).all()


def test_cores_alone_need_no_picture_size(cores: Path):
    ask = {"rows": 4, "seed": 7, "ticks": 4, "waves": 5}
    batch = next(open_clips([DatasetSource(cores)], **ask))
    assert batch["known"].keys() == {"camera", "core", "text"} and batch["signals"] == {}
    assert batch["frame_time"].shape == (4, 0)
    assert batch["core"]["presence"].sum() == 4 * 4 * 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"frames": 14}, ["sim", "24 frames at 16 Hz", "14 frames at 8 Hz", "1.625 s"]),
        ({"frame_hz": 24.0}, ["sim", "stored at 16 Hz", "3 frames at 24 Hz"]),
        ({"ticks": 13}, ["sim", "12 ticks", "13 ticks"]),
        ({"waves": 1}, ["sim", "a wave is present in slot 1", "raise waves"]),
        ({"rows": 6, "hosts": 4}, ["6 rows", "of 4"]),
        ({"host": 2, "hosts": 2}, ["host 2 of 2"]),
        ({"rows": 16, "epochs": 1}, ["10 examples", "batch of 16"]),
        ({"rows": 0}, ["0 rows"]),
        ({"sources": []}, ["Clips.sources", "at least one"]),
        ({"weight": 0.0}, ["Clips.sources", "sim", "weight=0.0"]),
    ],
)
def test_what_cannot_be_delivered_is_said_before_the_first_batch(sim: Path, change: dict, words: list[str]):
    change = dict(change)
    sources = change.pop("sources", [DatasetSource(sim, change.pop("weight", 1.0))])
    with pytest.raises(ValueError, match=r".") as error:
        open_clips(sources, **{**ASK, **change})
    assert all(word in str(error.value) for word in words), error.value


def test_a_source_that_has_nothing_to_give_and_an_unknown_channel_are_refused(real: Path):
    with pytest.raises(ValueError, match=r"real.*\['rgb'\].*nothing.*\['depth'\]"):
        open_clips([DatasetSource(real)], **{**ASK, "channels": ("depth",)})
    with pytest.raises(ValueError, match=r"Clips\.channels: unknown channel 'infrared'"):
        open_clips([DatasetSource(real)], **{**ASK, "channels": ("infrared",)})


def test_a_slow_shard_does_not_stall_the_others(tmp_path: Path):
    """Shard 0 answers after four other batches were read; nothing but their own time is lost."""
    path = write(tmp_path / "sim", SIM)
    read_rows, others, lock, late = Dataset.read_rows, threading.Semaphore(0), threading.Lock(), []

    def slow(dataset: Dataset, clips: list[int], *given: Any) -> None:
        if clips[0] >= SIM.clips_per_shard:
            others.release()
        elif lock.acquire(blocking=False):  # the first one
            late.append(all(others.acquire(timeout=20) for _ in range(4)))
        read_rows(dataset, clips, *given)

    ask = {**ASK, "rows": 1, "ticks": 0}
    wanted = take(open_clips([DatasetSource(path)], **ask, shuffle=False, threads=0), 9)
    with mock.patch.object(Dataset, "read_rows", slow):
        found = take(open_clips([DatasetSource(path)], **ask, shuffle=False, threads=8), 9)
    assert late == [True] and same(found, wanted)


@pytest.mark.parametrize("threads", [0, 3])
def test_a_damaged_file_is_named_and_never_passed_over(tmp_path: Path, threads: int):
    path = write(tmp_path / "sim", SIM)
    file = path / arrays(SIM)["channels/depth"].file(1)
    whole = file.read_bytes()
    file.write_bytes(bytes([whole[0] ^ 255]) + whole[1:100] + bytes(len(whole) - 100))
    batches = open_clips([DatasetSource(path)], **{**ASK, "rows": 2}, shuffle=False, threads=threads)
    assert order(take(batches, 2)) == [(0, c) for c in range(4)]  # shard 0 is sound, clip 4 stands in shard 1
    for _ in range(2):
        with pytest.raises(ValueError, match=re.escape(str(file))):
            next(batches)
        assert batches.get_state()["step"] == 2
    file.write_bytes(whole)
    assert order(take(batches, 1)) == [(0, 4), (0, 5)]


@pytest.mark.parametrize("place", [3, -3])
def test_a_file_that_is_put_back_is_read(tmp_path: Path, place: int):
    """Damaged in a chunk, or in the index; another file comes in its place, as it does from a copy."""
    path = write(tmp_path / "sim", SIM)
    file = path / arrays(SIM)["channels/depth"].file(0)
    whole = file.read_bytes()
    data = bytearray(whole)
    data[place] ^= 1
    file.write_bytes(data)
    dataset = Dataset(path)
    with pytest.raises(ValueError, match="restore it from its source"):
        dataset.read(0, ["depth"])
    (path / "copy").write_bytes(whole)
    (path / "copy").rename(file)
    np.testing.assert_array_equal(dataset.read(0, ["depth"])["depth"], Dataset(path).read(0, ["depth"])["depth"])
