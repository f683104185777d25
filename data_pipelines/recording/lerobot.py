"""Robot episodes in the format of LeRobot, version 3.

meta/info.json                            version, frames per second, features, templates of paths
meta/tasks.parquet                        sentences and their numbers
meta/episodes/chunk-000/file-000.parquet  one row per episode: its length, and the places of its rows and pictures
data/chunk-000/file-000.parquet           one row per frame: timestamp, numbers, and pictures of dtype "image"
videos/<camera>/chunk-000/file-000.mp4    pictures of dtype "video" of many episodes in sequence
"""

import dataclasses
import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.recording.parquet import ParquetFile
from data_pipelines.recording.recording import Pictures, Recording, Signal
from data_pipelines.recording.segment import Segment, VideoHead, read_video_head
from data_pipelines.recording.stills import load_picture, read_colour_head
from wsm_jax.typing import Float

_TOLERANCE = 0.25
"""Largest error of a frame time, as a fraction of the time between two frames."""

_FLOATS = ("float16", "float32", "float64")
_PLACES = ("episode_index", "length", "dataset_from_index", "data/chunk_index", "data/file_index")


def read_lerobot(folder: str | Path) -> Iterator[Recording]:
    """One recording for every camera of every episode, one episode in memory at a time.

    Times are the dataset's timestamps, from 0; signals are its real-valued vectors by name ("action", "state": without the
    prefix "observation."), in the dataset's units; text is the tasks of the episode. Needs the extra `robot` (pyarrow). Raises
    FileNotFoundError or ValueError, naming the file: at once for the folder, on the way for an episode.
    """
    folder = Path(folder)
    info = _info(folder / "meta" / "info.json")
    files = sorted((folder / "meta" / "episodes").glob("*/*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder / 'meta' / 'episodes'}: no */*.parquet; needed the table of episodes of LeRobot v3.0")
    episodes = _episodes(files, info)
    return _recordings(folder, info, episodes, _tasks(folder / "meta" / "tasks.parquet"))


@dataclasses.dataclass(frozen=True)
class _DatasetInfo:
    path: Path
    fps: float
    total: int | None
    data_path: str
    video_path: str
    videos: tuple[str, ...]
    images: tuple[str, ...]
    signals: dict[str, int]
    """Feature -> number of components."""
    notes: tuple[str, ...]


def _info(path: Path) -> _DatasetInfo:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; needed the folder of a LeRobot dataset, which has it")
    try:
        info = json.loads(path.read_text("utf-8"))
        version = str(info["codebase_version"])
        if not re.fullmatch(r"v?3(\.\d+)*", version):
            raise ValueError(
                f"is of version {version}; needed v3.0: convert_dataset_v21_to_v30 of the lerobot package converts v2.1, "
                "and convert_dataset_v20_to_v21 before it v2.0"
            )
        fps, features = float(info["fps"]), dict(info["features"])
        if not (math.isfinite(fps) and fps > 0):
            raise ValueError(f"fps {fps:g}; needed frames a second")
        cameras = {key: feature for key, feature in features.items() if feature["dtype"] in ("video", "image")}
        depth = [key for key, feature in cameras.items() if _is_depth(feature)]
        signals = {key: feature["shape"] for key, feature in features.items() if feature["dtype"] in _FLOATS}
        vectors = {key: int(shape[0]) for key, shape in signals.items() if len(shape) == 1 and key != "timestamp"}
        left = depth + [key for key, shape in signals.items() if len(shape) != 1]
        if len(cameras) == len(depth):
            raise ValueError(f"no camera among the features {', '.join(features)}; needed one of dtype video or image")
        kinds = {
            kind: tuple(k for k, f in cameras.items() if f["dtype"] == kind and k not in depth) for kind in ("video", "image")
        }
        return _DatasetInfo(
            path,
            fps,
            None if info.get("total_episodes") is None else int(info["total_episodes"]),
            str(info.get("data_path")),
            str(info.get("video_path")),
            kinds["video"],
            kinds["image"],
            vectors,
            (f"left out: {', '.join(left)}",) * bool(left),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, OSError) as error:
        what = f"has no {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: {what}; needed meta/info.json of a LeRobot dataset of version v3.0") from error


def _is_depth(feature: dict[str, Any]) -> bool:
    details = {**(feature.get("info") or {}), **(feature.get("video_info") or {})}
    return bool(details.get("is_depth_map") or details.get("video.is_depth_map"))


def _episodes(files: Sequence[Path], info: _DatasetInfo) -> list[dict[str, Any]]:
    """Checked rows of meta/episodes in the order of the episodes, without their large statistics. Raises ValueError."""
    stretches = [f"videos/{key}/{end}" for key in info.videos for end in ("chunk_index", "file_index", "from_timestamp")]
    optional = ("tasks", *(f"videos/{key}/to_timestamp" for key in info.videos))
    rows: list[dict[str, Any]] = []
    for path in files:
        table = ParquetFile(path)
        for row in table.values([*_PLACES, *stretches, *(name for name in optional if name in table.columns)]):
            for name in (*_PLACES, *stretches):
                number = float if name.endswith("timestamp") else int
                if type(row[name]) is not number or not 0 <= row[name] < 2**40:  # also refuses NaN
                    raise ValueError(f"{path}: {name} of an episode is {row[name]!r}; needed a number of at least 0")
            if not row["length"]:
                raise ValueError(f"{path}: episode {row['episode_index']} has no frames; needed at least one")
            rows.append(row)
    rows.sort(key=lambda row: row["episode_index"])
    numbers = [row["episode_index"] for row in rows]
    if numbers != list(range(len(rows))) or info.total not in (None, len(rows)):
        raise ValueError(
            f"{files[0].parents[1]}: has {len(rows)} episodes, numbered {numbers[:5]}...; needed 0, 1, ... and as many as "
            f"info.json says: {info.total}"
        )
    return rows


def _tasks(path: Path) -> dict[int, str]:
    """Number -> sentence. Sentences are the index of a pandas table, a column with one of two names. Raises ValueError."""
    if not path.is_file():
        return {}
    table = ParquetFile(path)
    names = [name for name in ("task", "__index_level_0__") if name in table.columns]
    if not names:
        raise ValueError(f"{path}: has the columns {', '.join(table.columns)}; needed task and task_index")
    return {int(row["task_index"] or 0): str(row[names[0]] or "") for row in table.values([names[0], "task_index"])}


def _inside(folder: Path, template: str, info: _DatasetInfo, **places: Any) -> Path:
    if re.search(r":[^}]*\d{3}", template):  # a format width that would fill the memory
        raise ValueError(f"{info.path}: the path {template[:80]!r} is none; needed one as in LeRobot v3.0")
    try:
        path = folder / template.format(**places)
    except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
        raise ValueError(
            f"{info.path}: the path {template!r} cannot be filled in with {', '.join(places)} ({error})"
        ) from error
    if ".." in path.relative_to(folder).parts if path.is_relative_to(folder) else True:
        raise ValueError(f"{info.path}: the path {template!r} leaves the folder of the dataset")
    return path


def _recordings(folder: Path, info: _DatasetInfo, episodes: list[dict[str, Any]], tasks: dict[int, str]) -> Iterator[Recording]:
    paths = [
        _inside(folder, info.data_path, info, chunk_index=row["data/chunk_index"], file_index=row["data/file_index"])
        for row in episodes
    ]
    begins: dict[Path, int] = {}
    for row, path in zip(episodes, paths, strict=True):
        begins[path] = min(begins.get(path, row["dataset_from_index"]), row["dataset_from_index"])
    table, films = None, {}
    for row, path in zip(episodes, paths, strict=True):
        table = table if table is not None and table.path == path else ParquetFile(path)
        episode = _Episode(folder, info, row, table, row["dataset_from_index"] - begins[path], films)
        yield from episode.recordings(tasks)


@dataclasses.dataclass(frozen=True)
class _Episode:
    folder: Path
    info: _DatasetInfo
    row: dict[str, Any]
    """Row of meta/episodes."""
    table: ParquetFile
    start: int
    """First row in the table."""
    films: dict[Path, VideoHead]
    """Path -> head of a video file; filled on demand."""

    @property
    def name(self) -> str:
        return f"episode {self.row['episode_index']:04d}"

    def recordings(self, tasks: dict[int, str]) -> Iterator[Recording]:
        """One recording per camera. Raises ValueError that names the file."""
        count, context = self.row["length"], f"{self.table.path}: {self.name}:"
        numbered = [name for name in ("frame_index", "task_index") if name in self.table.columns]
        columns = ["timestamp", "episode_index", *numbered, *self.info.signals]
        numbers = self.table.numbers(self.start, count, columns)
        if (numbers["episode_index"] != self.row["episode_index"]).any():
            raise ValueError(
                f"{context} rows {self.start} to {self.start + count - 1} are of other episodes; meta/episodes is wrong"
            )
        begin, time = self._time(numbers["timestamp"], context)
        signals = {}
        for key, width in self.info.signals.items():
            values = numbers[key].astype(np.float32)
            if values.shape != (count, width) or not np.isfinite(values).all():
                raise ValueError(f"{context} {key} has the shape {values.shape}; needed {(count, width)} finite numbers")
            signals[key.removeprefix("observation.")] = Signal(time, values)
        listed = [tasks.get(int(index), "") for index in numbers["task_index"][:, 0]] if "task_index" in numbers else []
        text = tuple(dict.fromkeys(filter(None, map(str.strip, listed or self.row.get("tasks") or ()))))
        for key in (*self.info.videos, *self.info.images):
            pictures, file, size, aspect, notes = (self._film if key in self.info.videos else self._stored)(key, begin + time)
            yield Recording(
                name=f"{self.name} {key.removeprefix('observation.images.').removeprefix('observation.')}",
                kind="video",
                time=time,
                seconds=float(time[-1] + 1 / self.info.fps),
                size=np.tile(np.asarray(size, np.int64), (count, 1)),
                channels=("rgb",),
                pictures=pictures,
                files=tuple(dict.fromkeys((file, self.table.path))),
                pixel_aspect=aspect,
                text=text,
                signals=signals,
                notes=self.info.notes + notes,
            )

    def _time(self, stamps: np.ndarray, context: str) -> tuple[float, Float[np.ndarray, " T"]]:
        """Time of the first frame, and times relative to it, s; float32 timestamps near the grid of fps are rounded to it.

        Raises ValueError for times that do not increase.
        """
        stamps = stamps[:, 0].astype(np.float64)
        if not np.isfinite(stamps).all() or stamps[0] < 0 or np.any(np.diff(stamps) <= 0):
            raise ValueError(f"{context} timestamps are {stamps[:4]}...; needed seconds that increase from frame to frame")
        time, grid = stamps - stamps[0], np.arange(len(stamps)) / self.info.fps
        return float(stamps[0]), grid if np.abs(time - grid).max() < min(
            1e-4 + 1e-6 * stamps[-1], 0.1 / self.info.fps
        ) else time

    def _film(self, key: str, time: np.ndarray) -> tuple[Pictures, Path, tuple[int, int], float, tuple[str, ...]]:
        row, prefix = self.row, f"videos/{key}/"
        places = {name: row[prefix + name] for name in ("chunk_index", "file_index")}
        path = _inside(self.folder, self.info.video_path, self.info, video_key=key, **places)
        if path not in self.films:
            self.films[path] = read_video_head(path)
        head, begin, tolerance = self.films[path], row[prefix + "from_timestamp"], _TOLERANCE / self.info.fps
        last, end = begin + time[-1], row.get(prefix + "to_timestamp")
        if last + tolerance > head.seconds or (end is not None and not last < end + tolerance):
            raise ValueError(
                f"{path}: {self.name}: its last frame is at {last:.3f} s; the video lasts {head.seconds:.3f} s, and "
                f"meta/episodes ends the episode at {end} s"
            )
        return Segment(path, begin + time, tolerance), path, (head.rows, head.columns), head.pixel_aspect, ()

    def _stored(self, key: str, time: np.ndarray) -> tuple[Pictures, Path, tuple[int, int], float, tuple[str, ...]]:
        context = f"{self.table.path}: {self.name}: {key} at frame"
        first = read_colour_head(_bytes(next(self.table.objects(self.start, 1, key)), f"{context} 0"), f"{context} 0")
        size = first.upright_size
        pictures = _TablePictures(self.table.path, self.start, len(time), key, context, size)
        return pictures, self.table.path, size, 1.0, ("it is transparent in parts, which are black",) * first.alpha


@dataclasses.dataclass(frozen=True)
class _TablePictures:
    """Pictures stored in the rows of a table; a `Pictures`."""

    path: Path
    start: int
    count: int
    key: str
    context: str
    size: tuple[int, int]

    def __call__(self, indices: Sequence[int]) -> Iterator[dict[str, Any]]:
        wanted = [int(index) for index in indices]
        if wanted != sorted(wanted) or any(not 0 <= index < self.count for index in wanted):
            raise ValueError(f"{self.path}: frame indices must not decrease and lie in 0..{self.count - 1}")
        if not wanted:
            return
        times, span = Counter(wanted), wanted[-1] - wanted[0] + 1
        for index, row in enumerate(ParquetFile(self.path).objects(self.start + wanted[0], span, self.key), wanted[0]):
            if times[index]:
                picture = load_picture(_bytes(row, f"{self.context} {index}"), f"{self.context} {index}")
                if picture["rgb"].shape[:2] != self.size:
                    raise ValueError(
                        f"{self.context} {index} is {picture['rgb'].shape[:2]} pixels; needed {self.size}, as frame 0"
                    )
                yield from (picture for _ in range(times[index]))


def _bytes(row: Any, context: str) -> bytes:
    data = row.get("bytes") if isinstance(row, dict) else row
    if not isinstance(data, bytes):
        raise ValueError(
            f"{context} is not in the table, only its name; needed the pictures themselves (embed_images of LeRobot)"
        )
    return data
