"""All contenders of the loader's bench give the same clips, and count the bytes that they read."""

import itertools
import json
import os
import shutil
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from absl import flags

from data_pipelines import wsv
from data_pipelines.simulation.captions import VOCABULARY
from data_pipelines.wsv.clip import Clip
from launch.bench import files as bench_loader_files
from launch.bench import loader as bench_loader
from launch.bench.contender import drop, files, turn
from launch.bench.object_store import serving
from launch.bench.process import open_contender
from wsm_jax.snapshot import Camera
from wsm_jax.snapshot.waves import empty
from wsm_jax.text import Tokenizer

SIZE, FRAMES, BATCH, BATCHES = 16, 16, 3, 5
CODECS = ("rgb", "rgb-2", "raw", "core", "train", "jpeg", "h264")
EXACT = ("loader rgb", "loader rgb-2", "loader core", "read rgb", "array_record", "npy", "memmap")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> wsv.Dataset:
    """Three episodes of moving colours, twice as large as what is made of them, with core, cameras and captions."""
    path, side, time = tmp_path_factory.mktemp("bench") / "source", 2 * SIZE, np.arange(40) / 8.0
    layout = wsv.Layout(
        clips=3, frames=40, height=side, width=side, frame_hz=8.0, ticks=40, waves=2, channels=("rgb",), rgb_codec="array",
        clips_per_shard=2, frames_per_chunk=8, camera=True, captions=True,
    )  # fmt: skip
    writer = wsv.create(path, layout, name="source", sources=[{"name": "test", "licence": "CC0-1.0"}], build={})
    zeros, level = np.zeros((40, 3), np.float32), np.tile(np.float32([1, 0, 0, 0]), (40, 1))
    camera = Camera(zeros, level, np.ones(40, np.float32), zeros[:, :2])
    row, column = np.mgrid[:side, :side] / side

    def clip(number: int) -> Clip:
        phase = time[:, None, None] + number
        rgb = np.stack([np.sin(phase + 3 * row), np.cos(phase + 2 * column), np.sin(2 * phase + row * column)], -1)
        return Clip({"rgb": np.uint8(127 + 120 * rgb)}, time, camera, empty(2, (40,)), time, (f"clip {number}",))

    for shard in writer.missing():
        writer.write(shard, [clip(number) for number in layout.span(shard)])
    writer.finish()
    return wsv.Dataset(path)


@pytest.fixture(scope="module")
def root(source, tmp_path_factory) -> Path:
    """The files of all contenders, of both kinds of video, with every episode twice."""
    path = tmp_path_factory.mktemp("bench") / "files"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_loader_files, "REPEATED_BYTES", 2 * 3 * 40 * SIZE * SIZE * 3)
        bench_loader_files.write(path, source, SIZE, CODECS)
    for frames in (FRAMES, 40):
        bench_loader_files.windows(path, ("rgb",), frames, 50)
    return path


def clips(root: Path, name: str, threads: int = 0) -> np.ndarray:
    """The first clips that a contender gives."""
    return np.concatenate(list(itertools.islice(open_contender(name, root, FRAMES, BATCH, threads).batches, BATCHES)))


@pytest.fixture(scope="module")
def expected(root, source) -> np.ndarray:
    """The same, cut out of the source by hand."""
    found = []
    for episode, first in np.load(root / f"windows_{FRAMES}.npy")[: BATCH * BATCHES]:
        large = source.read(int(episode) % 3, ["rgb"], slice(first, first + FRAMES))["rgb"].astype(np.float32)
        found.append(np.rint(large.reshape(FRAMES, SIZE, 2, SIZE, 2, 3).mean((2, 4))).astype(np.uint8))
    return np.stack(found)


@pytest.mark.parametrize("name", EXACT)
def test_lossless_contenders_give_the_same_clips(root, expected, name):
    np.testing.assert_array_equal(clips(root, name), expected)


def test_the_batches_that_train_are_of_the_same_clips(root, expected):
    """The bridge reads pictures of the same windows; the world reads ticks instead, and tokens of the captions."""
    np.testing.assert_array_equal(clips(root, "bridge train"), expected)
    tokens = clips(root, "world train")
    assert tokens.shape == (BATCH * BATCHES, 44) and tokens.dtype == np.int32
    texts = {Tokenizer(VOCABULARY, 44).decode(row) for row in tokens}
    assert texts == {"clip 0", "clip 1", "clip 2"}
    assert bench_loader.stored(root, "world train") < bench_loader.stored(root, "bridge train")


@pytest.mark.parametrize("name", ["loader rgb", "array_record"])
def test_threads_change_no_clip(root, expected, name):
    np.testing.assert_array_equal(clips(root, name, threads=2), expected)


@pytest.mark.parametrize("name", ["loader jpeg", "loader h264", "read jpeg", "read h264", "tar"])
def test_lossy_contenders_give_nearly_the_same_clips(root, expected, name):
    found = clips(root, name)
    assert found.shape == expected.shape and found.dtype == np.uint8
    off = np.abs(found.astype(int)[:, None] - expected).mean((2, 3, 4, 5))  # of each from each
    assert off.diagonal().max() < 12
    np.testing.assert_array_equal(off.diagonal(), off.min(1))


def test_bare_zstd_decodes_the_chunks_of_the_clips(root, expected):
    pytest.importorskip("zstandard")
    windows = np.load(root / f"windows_{FRAMES}.npy")
    batch = next(open_contender("zstd rgb", root, FRAMES, BATCH).batches)
    for chunks, (_, first), clip in zip(batch, windows, expected, strict=False):
        np.testing.assert_array_equal(np.concatenate(chunks)[first % 8 : first % 8 + FRAMES], clip)
        assert len(chunks) == -(-(first % 8 + FRAMES) // 8)


@pytest.mark.parametrize("threads", [0, 2])
def test_sequential_decoding_goes_through_every_episode(root, threads):
    found = open_contender("sequential mp4", root, 40, 1, threads).batches
    stacks = np.array([next(found)[0] for _ in range(6)], int)
    for number, episode in enumerate(stacks):
        exact = np.load(root / "npy" / f"{number:05d}.npy").astype(int)
        assert np.abs(episode - exact).mean() < 12


@pytest.mark.parametrize(("name", "share"), [("array_record", 40 / 16), ("npy", 40 / 16), ("memmap", 1.0)])
def test_what_is_read_is_counted(root, name, share):
    contender = open_contender(name, root, FRAMES, BATCH)
    before = contender.read()
    next(contender.batches)
    own = bench_loader.stored(root, name) * FRAMES / (6 * 40)
    assert (contender.read() - before) / BATCH == pytest.approx(share * own, rel=0.01)


def test_the_system_counts_at_least_the_chunks_of_the_clips(root):
    contender = open_contender("read rgb", root, FRAMES, BATCH)
    next(contender.batches)  # opens the array
    before = contender.read()
    next(contender.batches)
    assert contender.read() - before > 0.5 * BATCH * bench_loader.stored(root, "read rgb") * FRAMES / (6 * 40)


def test_finished_files_stay(root, source):
    before = {path: path.stat().st_mtime_ns for path in files(root)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_loader_files, "REPEATED_BYTES", 2 * 3 * 40 * SIZE * SIZE * 3)
        bench_loader_files.write(root, source, SIZE, CODECS)
    assert {path: path.stat().st_mtime_ns for path in files(root)} == before


def test_dropped_files_are_whole(root):
    os.sync()
    path = root / "frames.raw"
    before = path.read_bytes()
    assert drop(path) in (True, False)
    assert path.read_bytes() == before


@pytest.mark.parametrize("threads", [0, 2])
def test_the_table_has_a_row_a_contender(root, threads):
    with bench_loader.children(["memmap", "npy", "aligned rgb"], root, BATCH, threads, hosts=2) as team:
        found, _ = bench_loader.measure(team, FRAMES, 1, 0.0)
    for name, measured in found.items():
        cells = bench_loader.row(name, measured, FRAMES, SIZE, found["memmap"]["cpu_ms"], 1.0)
        assert len(cells) == len(bench_loader.HEAD) and cells[0] == str(FRAMES)
        ahead = bool(threads) and name == "aligned rgb"
        assert (cells[6] == "-") == ahead, "a batch that was made ahead says nothing of cold files"


def test_the_table_of_chunks_tells_what_each_length_costs(root, capsys):
    values = flags.FlagValues()
    flags.DEFINE_multi_integer("frames", [FRAMES], "", flag_values=values)
    for name, number in {"batch": BATCH, "threads": 0, "hosts": 1, "rounds": 1, "clips": 50, "seconds": 0}.items():
        flags.DEFINE_integer(name, number, "", flag_values=values)
    values.mark_as_parsed()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench_loader_files, "EPISODE", 40)
        shutil.copytree(root / "rgb", root / "rgb-8", dirs_exist_ok=True)
        bench_loader.chunk_table("simulated", root, SIZE, [2, 8], values)
    short, long = ([float(cell) for cell in line.strip("| ").split("|")] for line in capsys.readouterr().out.splitlines()[-2:])
    assert (short[:2], long[:2]) == ([FRAMES, 2], [FRAMES, 8])
    assert short[5] < long[5], "of short chunks less is read that is not used"


@pytest.fixture(scope="module")
def bucket(root):
    """The URL of a store that serves the files at once, to which s3:// leads."""
    with serving(root, 0.0) as url, pytest.MonkeyPatch.context() as patch:
        for name, value in bench_loader.there(url, 4).items():
            patch.setenv(name, value)
        yield url


@pytest.mark.parametrize("name", ["rgb", "core", "array_record", "zstd", "npy"])
def test_a_bucket_gives_the_same_clips(root, expected, bucket, name):
    np.testing.assert_array_equal(clips(root, f"bucket {name}"), expected)


@pytest.mark.parametrize(("name", "share"), [("array_record", 40 / 16), ("npy", 40 / 16)])
def test_requests_to_a_bucket_are_counted(root, bucket, name, share):
    contender = open_contender(f"bucket {name}", root, FRAMES, BATCH)
    found = turn(contender, 0.5, cold=False)
    own = bench_loader.stored(root, name) * FRAMES / (6 * 40)
    assert 0.5 < found["requests"] < 2.0  # some run at either end of the turn
    assert found["read"] == pytest.approx(share * own * found["requests"], rel=0.3)


def test_the_store_answers_as_s3_does(root, bucket):
    def ask(target: str, **headers: str) -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(urllib.request.Request(bucket + target, headers=headers)) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    whole = (root / "clips.array_record").read_bytes()
    assert ask("/one/clips.array_record") == (200, whole)
    assert ask("/one/clips.array_record", Range="bytes=5-14") == (206, whole[5:15])
    assert ask("/one/clips.array_record", Range="bytes=5-") == (206, whole[5:])
    assert ask("/one/clips.array_record", Range="bytes=-7") == (206, whole[-7:])
    assert ask("/one/clips.array_record", Range=f"bytes={len(whole)}-")[0] == 416
    assert ask("/one/none")[0] == ask("/one/../done.json/..")[0] == ask("/one/%2e%2e/%2e%2e/etc/passwd")[0] == 404
    status, listing = ask("/one?list-type=2&prefix=npy/")
    assert status == 200 and listing.count(b"<Key>npy/") == listing.count(b"<Key>") == 6
    sent = 2 * len(whole) + 10 - 5 + 7
    counted = json.loads(ask("/one?counts")[1])
    assert counted["requests"] == 9 and counted["bytes"] >= sent


def test_requests_wait_side_by_side(root):
    with serving(root, 200.0) as url, ThreadPoolExecutor(8) as pool:
        begin = time.perf_counter()
        list(pool.map(lambda _: urllib.request.urlopen(f"{url}/one/windows_40.npy").read(), range(8)))
        assert 0.2 <= time.perf_counter() - begin < 8 * 0.2


def test_the_table_of_a_bucket_compares_with_array_record(root, bucket):
    with bench_loader.children(["bucket rgb", "bucket array_record"], root, BATCH, 0) as team:
        found = {child.name: child.ask(frames=FRAMES, seconds=0.0, cold=False) for child in team}
    ours, theirs = bench_loader.bucket_rows(found, FRAMES)
    assert len(ours) == len(theirs) == len(bench_loader.BUCKET_HEAD) and theirs[3] == "1.0"


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--nolocal"], ["--sizes=15"], ["--sizes=a"], ["--frames=0"], ["--frames=161"], ["--videos=nowhere"]),
        *(["--chunks=0"], ["--chunks=2,161"], ["--kinds=drawn"]),
        ["--latency_ms=20", "--sizes=64,16384"],
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_made(arguments, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError)):
        bench_loader.main([*arguments, f"--data={tmp_path}"])
    assert not list(tmp_path.iterdir())
