"""LeRobot v3.0 datasets: episodes that share an mp4, or a table of pictures, come back each with its own frames."""

import io
import json
import pickle
import sys

import numpy as np
import pytest
from PIL import Image

from data_pipelines.recording.lerobot import read_lerobot
from tests.core.exchange.test_scene_file import damaged
from tests.data_pipelines.recording.painted import numbers_in, painted
from wsm_jax.visualise.video import write_video

pa = pytest.importorskip("pyarrow")
import pyarrow.parquet as pq  # noqa: E402

FPS = 10
LENGTHS = (7, 30, 12)
TASKS = ("stack the blocks", "open the drawer")
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
FIRST = np.cumsum([0, *LENGTHS])


def png(rgb) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "png")
    return buffer.getvalue()


def wrist(frame: int) -> np.ndarray:
    return np.random.default_rng(frame).integers(0, 256, (6, 8, 3), np.uint8)


def numbers(frame: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1000 + frame)
    return {"action": rng.normal(size=3).astype(np.float32), "observation.state": rng.normal(size=2).astype(np.float32)}


INFO = {
    "codebase_version": "v3.0",
    "robot_type": "toy",
    "total_episodes": 3,
    "total_frames": int(FIRST[-1]),
    "fps": FPS,
    "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
    "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    "features": {
        "action": {"dtype": "float32", "shape": [3], "names": ["x", "y", "z"]},
        "observation.state": {"dtype": "float32", "shape": [2], "names": None},
        FRONT: {"dtype": "video", "shape": [32, 56, 3], "names": ["height", "width", "channels"], "info": {"video.fps": FPS}},
        WRIST: {"dtype": "image", "shape": [6, 8, 3], "names": ["height", "width", "channels"]},
        "observation.images.depth": {"dtype": "video", "shape": [32, 56, 1], "info": {"video.is_depth_map": True}},
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        "frame_index": {"dtype": "int64", "shape": [1], "names": None},
        "episode_index": {"dtype": "int64", "shape": [1], "names": None},
        "index": {"dtype": "int64", "shape": [1], "names": None},
        "task_index": {"dtype": "int64", "shape": [1], "names": None},
    },
}


def frame_row(episode: int, k: int) -> dict:
    frame = int(FIRST[episode]) + k
    row = {"timestamp": np.float32(k / FPS), "frame_index": k, "episode_index": episode, "index": frame}
    return row | {"task_index": episode % 2, WRIST: {"bytes": png(wrist(frame)), "path": f"{k}.png"}} | numbers(frame)


def data_table(rows: list[dict]):
    kinds = {
        "timestamp": pa.float32(), "frame_index": pa.int64(), "episode_index": pa.int64(), "index": pa.int64(),
        "task_index": pa.int64(), WRIST: pa.struct({"bytes": pa.binary(), "path": pa.string()}),
        "action": pa.list_(pa.float32(), 3), "observation.state": pa.list_(pa.float32()),
    }  # fmt: skip
    return pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()})


def episode_row(episode: int, **changes) -> dict:
    """The first two episodes lie in one mp4, the third in a second; all in one table."""
    begin = float(FIRST[episode]) / FPS if episode < 2 else 0.0
    row = {
        "episode_index": episode,
        "tasks": [TASKS[episode % 2]],
        "length": LENGTHS[episode],
        "dataset_from_index": int(FIRST[episode]),
        "dataset_to_index": int(FIRST[episode + 1]),
        "data/chunk_index": 0,
        "data/file_index": 0,
        f"videos/{FRONT}/chunk_index": 0,
        f"videos/{FRONT}/file_index": int(episode == 2),
        f"videos/{FRONT}/from_timestamp": begin,
        f"videos/{FRONT}/to_timestamp": begin + LENGTHS[episode] / FPS,
        "stats/action/mean": [0.0, 0.0, 0.0],
    }
    return row | changes


def write_table(path, table, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **options)


def write_meta(folder, info=INFO, episodes=None) -> None:
    (folder / "meta").mkdir(parents=True, exist_ok=True)
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    write_table(folder / "meta" / "tasks.parquet", pa.table({"task_index": [0, 1], "__index_level_0__": list(TASKS)}))
    rows = [episode_row(k) for k in range(3)] if episodes is None else episodes
    write_table(folder / "meta" / "episodes" / "chunk-000" / "file-000.parquet", pa.Table.from_pylist(rows))


def write_dataset(folder) -> None:
    write_meta(folder)
    rows = [frame_row(episode, k) for episode, length in enumerate(LENGTHS) for k in range(length)]
    # groups of rows that do not end where episodes end
    write_table(folder / "data" / "chunk-000" / "file-000.parquet", data_table(rows), row_group_size=11)
    for file, episodes in enumerate(((0, 1), (2,))):
        path = folder / "videos" / FRONT / "chunk-000" / f"file-{file:03d}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_video(path, [painted(frame) for e in episodes for frame in range(FIRST[e], FIRST[e + 1])], FPS)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lerobot")
    write_dataset(folder)
    return folder


@pytest.fixture
def toy(written, tmp_path):
    """A copy that may be changed: of the table and of meta; the films are links."""
    write_meta(tmp_path)
    (tmp_path / "videos").symlink_to(written / "videos")
    (tmp_path / "data" / "chunk-000").mkdir(parents=True)
    data = (written / "data" / "chunk-000" / "file-000.parquet").read_bytes()
    (tmp_path / "data" / "chunk-000" / "file-000.parquet").write_bytes(data)
    return tmp_path


def test_episodes_round_trip(written):
    recordings = list(read_lerobot(written))
    assert [r.name for r in recordings] == [f"episode {k:04d} {camera}" for k in range(3) for camera in ("front", "wrist")]
    for recording in recordings:
        episode = int(recording.name.split()[1])
        count, first = LENGTHS[episode], FIRST[episode]
        np.testing.assert_array_equal(recording.time, np.arange(count) / FPS)
        assert recording.seconds == pytest.approx(count / FPS) and recording.text == (TASKS[episode % 2],)
        assert "left out: observation.images.depth" in recording.notes
        assert set(recording.signals) == {"action", "state"}
        for name, key in (("action", "action"), ("state", "observation.state")):
            wanted = [numbers(first + k)[key] for k in range(count)]
            np.testing.assert_array_equal(recording.signals[name].values, wanted)
            np.testing.assert_array_equal(recording.signals[name].time, recording.time)
        pictures = list(pickle.loads(pickle.dumps(recording)).pictures(range(count)))
        assert recording.size.tolist() == [list(pictures[0]["rgb"].shape[:2])] * count
        if recording.name.endswith("front"):
            assert numbers_in(pictures) == list(range(first, first + count))
        else:
            np.testing.assert_array_equal([p["rgb"] for p in pictures], [wrist(first + k) for k in range(count)])


def test_any_frames_in_order_are_those_of_their_episode(written):
    rng = np.random.default_rng(0)
    recordings = list(read_lerobot(written))
    for n in range(40):
        recording = recordings[n % 6]
        episode = n % 6 // 2
        indices = sorted(rng.integers(0, LENGTHS[episode], rng.integers(0, 6)).tolist())
        pictures = list(recording.pictures(indices))
        if n % 2 == 0:
            assert numbers_in(pictures) == [FIRST[episode] + k for k in indices]
        else:
            wanted = [wrist(FIRST[episode] + k) for k in indices]
            assert len(pictures) == len(wanted) and all((p["rgb"] == w).all() for p, w in zip(pictures, wanted, strict=True))
    for recording in recordings[:2]:
        for bad in ([1, 0], [-1], [7]):
            with pytest.raises(ValueError, match=r"must not decrease and lie in 0\.\.6"):
                list(recording.pictures(bad))


def test_a_missing_task_table_leaves_the_tasks_of_the_episodes(toy):
    (toy / "meta" / "tasks.parquet").unlink()
    rows = [frame_row(episode, k) for episode, length in enumerate(LENGTHS) for k in range(length)]
    write_table(toy / "data" / "chunk-000" / "file-000.parquet", data_table(rows).drop_columns("task_index"))
    assert [r.text for r in read_lerobot(toy)][::2] == [(TASKS[k % 2],) for k in range(3)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"codebase_version": "v2.1"}, "is of version v2.1; needed v3.0: convert_dataset_v21_to_v30"),
        ({"codebase_version": None}, "is of version None; needed v3.0"),
        ({"fps": 0}, "fps 0; needed frames a second"),
        ({"fps": "fast"}, "could not convert"),
        ({"features": {"action": {"dtype": "float32", "shape": [3]}}}, "no camera among the features action"),
        ({"features": 3}, "needed meta/info.json"),
        ({"total_episodes": 4}, "has 3 episodes, numbered .* info.json says: 4"),
        ({"data_path": "../{chunk_index}{file_index}"}, "leaves the folder of the dataset"),
        ({"data_path": "/etc/passwd"}, "leaves the folder of the dataset"),
        ({"data_path": "data/{episode_chunk:03d}"}, "cannot be filled in with chunk_index, file_index"),
        ({"data_path": "data/{chunk_index:0999999999d}"}, "needed one as in LeRobot"),
        ({"video_path": "videos/none.mp4"}, "none.mp4: no such file"),
    ],
)
def test_wrong_descriptions_are_refused(toy, change, words):
    write_meta(toy, INFO | change)
    with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
        list(read_lerobot(toy))
    assert str(toy) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"length": 0}, "episode 1 has no frames"),
        ({"length": 1000}, "has 49 rows; needed rows 7 to 1006"),
        ({"dataset_from_index": 8}, "rows 8 to 37 are of other episodes"),
        ({"dataset_from_index": -1}, "dataset_from_index of an episode is -1"),
        ({"episode_index": 5}, r"has 3 episodes, numbered \[0, 2, 5\]"),
        ({f"videos/{FRONT}/from_timestamp": float("nan")}, "from_timestamp of an episode is nan"),
        ({f"videos/{FRONT}/from_timestamp": 1.5}, r"its last frame is at 4\.400 s; the video lasts 3\.700 s"),
        ({f"videos/{FRONT}/to_timestamp": 2.0}, r"meta/episodes ends the episode at 2\.0 s"),
        ({f"videos/{FRONT}/file_index": 7}, r"file-007\.mp4: no such file"),
        ({"data/file_index": 7}, r"file-007\.parquet: no such file"),
    ],
)
def test_wrong_episodes_are_refused(toy, change, words):
    write_meta(toy, episodes=[episode_row(0), episode_row(1, **change), episode_row(2)])
    with pytest.raises((ValueError, FileNotFoundError), match=words) as caught:
        list(read_lerobot(toy))
    assert str(toy) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"timestamp": np.float32(0.1)}, "timestamps are .* increase from frame to frame"),
        ({"timestamp": np.float32("nan")}, "timestamps are"),
        ({"action": np.float32([0, np.nan, 0])}, "action has the shape .* finite numbers"),
        ({"observation.state": np.zeros(3, np.float32)}, "column observation.state has lists of several lengths"),
        ({"observation.state": None}, "column observation.state has empty rows"),
        ({"episode_index": 4}, "rows 7 to 36 are of other episodes"),
        ({WRIST: {"bytes": None, "path": "a.png"}}, "wrist at frame 0 is not in the table, only its name"),
        ({WRIST: {"bytes": b"no picture", "path": "a.png"}}, "wrist at frame 0: is no jpg, png or webp picture"),
    ],
)
def test_wrong_rows_are_refused(toy, change, words):
    rows = [frame_row(episode, k) for episode, length in enumerate(LENGTHS) for k in range(length)]
    rows[7] |= change if "timestamp" not in change else {}
    rows[9] |= change if "timestamp" in change else {}
    write_table(toy / "data" / "chunk-000" / "file-000.parquet", data_table(rows))
    with pytest.raises(ValueError, match=words) as caught:
        list(read_lerobot(toy))
    assert str(toy) in str(caught.value)


def test_pictures_of_another_size_are_refused(toy):
    rows = [frame_row(episode, k) for episode, length in enumerate(LENGTHS) for k in range(length)]
    rows[3][WRIST] = {"bytes": png(np.zeros((5, 8, 3), np.uint8)), "path": ""}
    write_table(toy / "data" / "chunk-000" / "file-000.parquet", data_table(rows))
    recording = list(read_lerobot(toy))[1]
    with pytest.raises(ValueError, match=r"wrist at frame 3 is \(5, 8\) pixels; needed \(6, 8\)"):
        list(recording.pictures(range(5)))


def test_folders_that_are_none_are_named(toy, tmp_path_factory, monkeypatch):
    empty = tmp_path_factory.mktemp("empty")
    with pytest.raises(FileNotFoundError, match=r"info\.json: no such file; needed the folder of a LeRobot dataset"):
        read_lerobot(empty)
    (toy / "meta" / "episodes" / "chunk-000" / "file-000.parquet").unlink()
    with pytest.raises(FileNotFoundError, match="episodes: no "):
        read_lerobot(toy)
    write_table(toy / "meta" / "episodes" / "chunk-000" / "file-000.parquet", pa.table({"length": [3]}))
    with pytest.raises(ValueError, match=r"file-000\.parquet: has no column .*episode_index"):
        read_lerobot(toy)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'wsm_jax\[robot\]'"):
        read_lerobot(toy)


def test_damaged_datasets_are_read_or_refused(written, tmp_path):
    names = (
        "meta/info.json",
        "meta/tasks.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "data/chunk-000/file-000.parquet",
    )
    names += (f"videos/{FRONT}/chunk-000/file-000.mp4", f"videos/{FRONT}/chunk-000/file-001.mp4")
    whole, refused = {name: (written / name).read_bytes() for name in names}, 0
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(whole[name])
    for n in range(300):
        name = names[n % len(names)]
        (tmp_path / name).write_bytes(damaged(np.random.default_rng(n), whole[name], n // len(names) % 4))
        message = None
        try:
            for recording in read_lerobot(tmp_path):
                assert len(list(recording.pictures(range(0, len(recording.time), 3)))) == (len(recording.time) + 2) // 3
        except (ValueError, FileNotFoundError) as error:
            message = str(error)
        assert message is None or str(tmp_path) in message
        refused += message is not None
        (tmp_path / name).write_bytes(whole[name])
    assert refused > 100
