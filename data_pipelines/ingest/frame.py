"""The frames of a recording as a clip of a bucket: cut to its aspect, resized, the camera kept right."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines.ingest.bucket import Bucket
from data_pipelines.ingest.caption import Captions
from data_pipelines.ingest.derive import motion, normals
from data_pipelines.ingest.plan import Cut
from data_pipelines.recording.recording import Recording, Signal
from data_pipelines.wsv.clip import Clip
from data_pipelines.wsv.manifest import Layout
from wsm_jax.snapshot import Camera, crop, crop_box, resize, restore, store

DERIVED = ("normal", "motion")
"""Channels that follow from others: normals from depth, and with cameras and times the motion of what stands still."""


def derived(channels: tuple[str, ...], kind: str, camera: bool, asked: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the channels `asked` that can be worked out for recordings with some channels, of a kind."""
    can = {"normal": "depth" in channels and camera, "motion": "depth" in channels and camera and kind == "video"}
    return tuple(name for name in DERIVED if name in asked and can[name])


def clips(
    recording: Recording, cuts: Sequence[Cut], layout: Layout, captions: Sequence[Captions], source: int
) -> Iterator[Clip]:
    """The clips of some cuts of a recording, in order, with the captions of each; `source` is its number in the manifest.

    Raises what `clip` does.
    """
    # all in one pass: what lies between two key frames is decoded once
    pictures = recording.pictures([index for cut in cuts for index in cut.frames])
    for cut, told in zip(cuts, captions, strict=True):
        made = clip(recording, pictures, cut.frames, cut.start, cut.bucket, layout.derived, layout.encoded == "jpeg")
        rest = {"measures": cut.measures, "origin": {"source": source, "start": cut.start}}
        yield dataclasses.replace(made, text=told.text, spans=told.spans, **rest)


def clip(
    recording: Recording,
    pictures: Iterator[dict[str, Any]],
    frames: tuple[int, ...],
    start: float,
    bucket: Bucket,
    extra: tuple[str, ...],
    keep: bool,
) -> Clip:
    """The clip of some frames, the next that `pictures` gives, from `start` (s) on, with the channels `extra` worked out; times
    count from there.

    Pictures are cut to the bucket's aspect in the middle and resized by the rule of each channel. With `keep`, JPEG pictures
    of the bucket's own size are kept as they are. Raises what the recording's `pictures` do.
    """
    height, width = bucket.height, bucket.width
    columns: dict[str, list[np.ndarray]] = {name: [] for name in recording.channels}
    kept: list[bytes] = []
    cameras: list[Camera] = []
    last: tuple[int, dict[str, Any]] | None = None
    for index in frames:
        found = next(pictures, None)
        size = (int(recording.size[index][0]), int(recording.size[index][1]))
        if found is None or any(found[name].shape[:2] != size for name in recording.channels):
            got = "no picture" if found is None else f"pictures of {[found[name].shape for name in recording.channels]}"
            raise ValueError(
                f"{recording.name}: frame {index} has {got}, needed {size[0]} x {size[1]}; did it change meanwhile?"
            )
        top, left, rows, cols = crop_box(size, height, width, recording.pixel_aspect)
        whole = (rows, cols) == (height, width) == size
        if last is None or last[0] != index:  # a frame that is shown twice is fitted once
            part = {name: found[name][top : top + rows, left : left + cols] for name in recording.channels}
            last = index, {name: resize(name, values, height, width) for name, values in part.items()}
        for name, values in last[1].items():
            columns[name].append(values)
        if keep and whole and "jpeg" in found:
            kept.append(found["jpeg"])
        if recording.camera is not None:
            aspect = recording.pixel_aspect
            square = (size[0], size[1] * aspect)
            cameras.append(crop(recording.camera[index], square, top, left * aspect, rows, cols * aspect))
    channels = {name: np.stack(values) for name, values in columns.items()}
    camera = _joined(cameras) if cameras else None
    even = np.arange(len(frames)) / bucket.frame_hz if recording.kind == "video" else np.arange(float(len(frames)))
    if extra and camera is not None:
        depth = np.asarray(restore("depth", channels["depth"]))[..., 0]
        if "normal" in extra:
            channels["normal"] = store("normal", normals(depth, camera))
        if "motion" in extra:
            time = np.asarray(recording.time, np.float64)[list(frames)]
            channels["motion"] = store("motion", motion(depth, camera, time if np.all(np.diff(time) > 0) else even))
    span = (start, start + len(frames) / bucket.frame_hz)
    signals = {name: within(signal, *span) for name, signal in recording.signals.items()} if recording.kind == "video" else {}
    if len(kept) == len(frames):
        channels.pop("rgb")
    return Clip(channels, even, camera, signals=signals, pictures=kept if len(kept) == len(frames) else None)


def _joined(cameras: list[Camera]) -> Camera:
    """Cameras [T] of single ones."""
    names = ("position", "rotation", "focal", "offset")
    fields = [np.stack([np.asarray(getattr(c, name)) for c in cameras]) for name in names]
    bent = [np.asarray(c.distortion) for c in cameras if c.distortion is not None]
    return Camera(*fields, distortion=np.stack(bent) if bent else None)


def within(signal: Signal, start: float, end: float) -> Signal:
    """What is given from `start` to `end` (s), and the last before that, which still holds; times from `start`."""
    time = np.asarray(signal.time)
    first = max(int(np.searchsorted(time, start + 1e-6, side="right")) - 1, 0)
    last = int(np.searchsorted(time, end - 1e-6, side="left"))
    return dataclasses.replace(signal, time=time[first:last] - start, values=np.asarray(signal.values)[first:last])
