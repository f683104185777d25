"""Robot episodes in RLDS: a folder that TensorFlow Datasets wrote, read without TensorFlow.

features.json        features of an episode: the nested dataset `steps`, with observation, action, language
dataset_info.json    splits, and the number of episodes in each of their files
*-train.tfrecord-00000-of-00042    one `tf.train.Example` per episode; a feature of the steps is one list over all steps
"""

import dataclasses
import json
import math
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.recording.recording import Recording, Signal
from data_pipelines.recording.rlds_features import Feature, read_features
from data_pipelines.recording.stills import load_picture, load_rgb, read_colour_head
from data_pipelines.recording.tfrecord import example_features, feature_values, read_record, record_index
from wsm_jax.typing import Float

_SHARD = re.compile(r"-(?P<split>\w+)\.tfrecord-(?P<index>\d+)-of-(?P<count>\d+)$")


def read_rlds(path: str | Path, rate_hz: float | int | None = None) -> Iterator[Recording]:
    """One recording for every camera of every episode, one episode in memory at a time.

    `path` is the folder of the dataset, or one of its tfrecord files. `rate_hz` is the rate of its steps, which the format does
    not state: the first picture is at 0 s, the next at 1 / rate_hz. Signals are the real-valued actions and observations of
    every step, by their names below `steps` and `observation`, in the dataset's units; text is its unique instructions.
    A camera of a single constant colour is a placeholder and left out.
    Raises FileNotFoundError or ValueError, naming the file: at once for the folder, on the way for an episode.
    """
    path = Path(path)
    if rate_hz is None or not (math.isfinite(rate_hz) and rate_hz > 0):
        raise ValueError(
            f"{path}: RLDS does not state the rate of its steps; needed rate_hz, in steps a second "
            f"(the paper or card of the dataset has it: 5 of BridgeData, 15 of DROID), got {rate_hz}"
        )
    folder, shards = _shards(path)
    features = read_features(folder / "features.json")
    lengths = _shard_lengths(folder / "dataset_info.json")
    notes = [f"steps at {rate_hz:g} Hz, as given: the dataset does not state their rate", *_missing(shards, lengths)]
    used = [feature for feature in features if feature.is_camera or feature.is_signal or feature.is_instruction]
    left = [
        f"{f.key} ({f.dtype} {list(f.shape)})" for f in features if f not in used and f.key.startswith("steps/observation/")
    ]
    notes += ["left out: " + ", ".join(left)] * bool(left)
    return _recordings(shards, lengths, _EpisodeReader(tuple(used), float(rate_hz), tuple(notes)))


@dataclasses.dataclass(frozen=True)
class _ShardFile:
    path: Path
    split: str
    index: int
    count: int


def _shards(path: Path) -> tuple[Path, list[_ShardFile]]:
    folder = path if path.is_dir() else path.parent
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder; needed an RLDS dataset: features.json and tfrecord files")
    files = [path] if path.is_file() else sorted(x for x in folder.glob("*.tfrecord*") if not x.name.startswith("."))
    shards = []
    for number, file in enumerate(files):
        match = _SHARD.search(file.name)
        shards.append(
            _ShardFile(file, *((match["split"], int(match["index"]), int(match["count"])) if match else ("", number, 0)))
        )
    if not shards:
        raise FileNotFoundError(
            f"{folder}: no tfrecord files (*.tfrecord-00000-of-00001); needed an RLDS dataset in that format"
        )
    return folder, sorted(shards, key=lambda shard: (shard.split, shard.index))


def _shard_lengths(path: Path) -> dict[str, list[int]]:
    """Split -> number of episodes in each of its files; empty without dataset_info.json. Raises ValueError."""
    if not path.is_file():
        return {}
    try:
        splits = json.loads(path.read_text("utf-8")).get("splits", [])
        return {str(split["name"]): [int(n) for n in split.get("shardLengths", [])] for split in splits}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OSError) as error:
        raise ValueError(f"{path}: is no description of a dataset by TFDS ({error}); get it again, or take it away") from error


def _missing(shards: list[_ShardFile], lengths: dict[str, list[int]]) -> list[str]:
    present: dict[str, set[int]] = {}
    for shard in shards:
        present.setdefault(shard.split, set()).add(shard.index)
    counts = {shard.split: shard.count for shard in shards} | {split: len(n) for split, n in lengths.items()}
    return [
        f"split {split!r}: {len(present.get(split, ()))} of {count} files are there"
        for split, count in sorted(counts.items())
        if count > len(present.get(split, ()))
    ]


def _recordings(shards: list[_ShardFile], lengths: dict[str, list[int]], reader: "_EpisodeReader") -> Iterator[Recording]:
    splits, number, last = {shard.split for shard in shards}, 0, None
    for shard in shards:
        if shard.split != last:
            number, last = 0, shard.split
        index, known = record_index(shard.path), lengths.get(shard.split, [])
        if len(known) == shard.count > shard.index:
            number = sum(known[: shard.index])
            if len(index) != known[shard.index]:
                raise ValueError(
                    f"{shard.path}: holds {len(index)} episodes; dataset_info.json promises {known[shard.index]}; get it again"
                )
        if not len(index):
            raise ValueError(f"{shard.path}: holds no episodes ({shard.path.stat().st_size} bytes); needed at least one")
        for offset, length in index.tolist():
            name = f"{shard.split} " * (len(splits) > 1) + f"episode {number:04d}"
            yield from reader.episode(shard.path, offset, length, name)
            number += 1


@dataclasses.dataclass(frozen=True)
class _EpisodeReader:
    features: tuple[Feature, ...]
    """Features that are used."""
    rate_hz: float
    notes: tuple[str, ...]

    def episode(self, path: Path, offset: int, length: int, name: str) -> list[Recording]:
        """One recording per camera. Raises ValueError that names the file."""
        context = f"{path}: {name}:"
        values = _values(path, offset, length, tuple(feature.key for feature in self.features), context)
        missing = [feature.key for feature in self.features if feature.key not in values]
        if missing:
            raise ValueError(f"{context} has no {', '.join(missing)}, of which features.json speaks; is it of this dataset?")
        cameras = {feature: values[feature.key] for feature in self.features if feature.is_camera}
        counts = {feature.key: len(pictures) for feature, pictures in cameras.items()}
        steps = next(iter(counts.values()))
        if not steps or len(set(counts.values())) > 1:
            raise ValueError(f"{context} needed pictures of every camera at every step, got {counts}")
        time = np.arange(steps) / self.rate_hz
        signals: dict[str, Signal] = {}
        for feature in self.features:
            if feature.is_signal:
                unique = feature.key.removeprefix("steps/") if feature.name in signals else feature.name
                signals[unique] = Signal(time, _numbers(feature, values[feature.key], steps, context))
        text = _text([values[feature.key] for feature in self.features if feature.is_instruction])
        blank = [feature for feature, pictures in cameras.items() if _blank(pictures, f"{context} {feature.key} at step 0")]
        notes = self.notes + tuple(f"{feature.name} is of one colour throughout, and left out" for feature in blank)
        recordings = []
        for feature, pictures in cameras.items():
            if feature in blank:
                continue
            size, alpha = _sizes(feature, pictures, context)
            recordings.append(
                Recording(
                    name=f"{name} {feature.name}",
                    kind="video",
                    time=time,
                    seconds=steps / self.rate_hz,
                    size=size,
                    channels=("rgb",),
                    pictures=_EpisodePictures(path, offset, length, feature.key, name, steps),
                    files=(path,),
                    text=text,
                    signals=signals,
                    notes=notes + ("it is transparent in parts, which are black",) * alpha,
                )
            )
        return recordings


@dataclasses.dataclass(frozen=True)
class _EpisodePictures:
    """Pictures of one camera of one episode; each call reads the record again and decodes only these."""

    path: Path
    offset: int
    length: int
    key: str
    name: str
    steps: int

    def __call__(self, indices: Sequence[int]) -> Iterator[dict[str, Any]]:
        context = f"{self.path}: {self.name}:"
        pictures = _values(self.path, self.offset, self.length, (self.key,), context).get(self.key, [])
        if len(pictures) != self.steps:
            raise ValueError(f"{context} had {self.steps} pictures {self.key}, now {len(pictures)}; it changed meanwhile")
        for index in indices:
            if not 0 <= index < self.steps:
                raise ValueError(f"{context} needed frames in 0..{self.steps - 1}, got {index}")
            yield load_picture(pictures[index], f"{context} {self.key} at step {index}")


def _values(path: Path, offset: int, length: int, keys: tuple[str, ...], context: str) -> dict[str, Any]:
    data = read_record(path, offset, length)
    try:
        features = example_features(data)
        return {key: feature_values(features[key]) for key in keys if key in features}
    except ValueError as error:
        raise ValueError(f"{context} is no tf.train.Example ({error}); get the file again") from error


def _numbers(feature: Feature, values: Any, steps: int, context: str) -> Float[np.ndarray, "S d"]:
    """Values of a signal feature, float32. Raises ValueError that names the file."""
    width = math.prod(feature.shape)
    if feature.encoding != "none":
        try:
            unpack = _unpacker(feature, width)
            values = np.concatenate([np.zeros(0, np.float32), *(unpack(value) for value in values)])
        except (ValueError, TypeError, zlib.error) as error:
            raise ValueError(f"{context} {feature.key} is not encoded as {feature.encoding} ({error})") from error
    if isinstance(values, list) or len(values) != steps * width:
        raise ValueError(f"{context} {feature.key} has {len(values)} values; needed {width} at each of {steps} steps")
    numbers = np.asarray(values).astype(np.float32).reshape(steps, width)
    if not np.isfinite(numbers).all():
        step = int(np.argmin(np.isfinite(numbers).all(1)))
        raise ValueError(f"{context} {feature.key} is not finite at step {step}; needed numbers")
    return numbers


def _unpacker(feature: Feature, width: int) -> Callable[[bytes], np.ndarray]:
    if feature.dtype == "bfloat16":
        raise ValueError("bfloat16 as bytes is not read")
    dtype = np.dtype(feature.dtype).newbyteorder("<")
    size = width * dtype.itemsize

    def unpack(value: bytes) -> np.ndarray:
        raw = zlib.decompressobj().decompress(value, size + 1) if feature.encoding == "zlib" else value
        if len(raw) != size:
            raise ValueError(f"a step has {len(raw)} bytes; needed {size}")
        return np.frombuffer(raw, dtype)

    return unpack


def _text(lists: list[Any]) -> tuple[str, ...]:
    """Unique instructions, in order; values that are no text (older datasets store word numbers) are skipped."""
    texts = [
        bytes(value).decode("utf-8", "replace").strip() for values in lists if isinstance(values, list) for value in values
    ]
    return tuple(dict.fromkeys(text for text in texts if text))


def _blank(pictures: list[bytes], context: str) -> bool:
    if any(picture != pictures[0] for picture in pictures[1:]):
        return False
    rgb = load_rgb(pictures[0], context)
    return bool((rgb == rgb[0, 0]).all())


def _sizes(feature: Feature, pictures: list[bytes], context: str) -> tuple[np.ndarray, bool]:
    """Rows and columns [T 2], and True if a picture has alpha. Raises ValueError."""
    heads = [read_colour_head(picture, f"{context} {feature.key} at step {step}") for step, picture in enumerate(pictures)]
    size = np.asarray([head.upright_size for head in heads], np.int64)
    promised = np.asarray((*feature.shape[:2], -1, -1)[:2])
    wrong = (size != promised) & (promised > 0)
    if wrong.any():
        step = int(np.argmax(wrong.any(1)))
        raise ValueError(f"{context} {feature.key} at step {step} is {size[step]} pixels; features.json promises {promised}")
    return size, any(head.alpha for head in heads)
