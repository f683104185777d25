"""Clips from the frames of a recording: cropped to the bucket's aspect and resized, with the camera adjusted."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from data_pipelines.ingest.bucket import Bucket
from data_pipelines.ingest.caption import Captions
from data_pipelines.ingest.derive import motion, normals
from data_pipelines.ingest.plan import PlannedClip
from data_pipelines.recording.recording import Recording, Signal
from data_pipelines.wsv.clip import Clip
from data_pipelines.wsv.manifest import Layout
from wsm_jax.snapshot import Camera, crop, crop_box, resize, restore, store

DERIVED = ("normal", "motion")
"""Channels computed from others: normals from depth and cameras, and, over time, the optical flow of a static world."""


def derivable(channels: tuple[str, ...], kind: str, camera: bool, requested: tuple[str, ...]) -> tuple[str, ...]:
    """Channels in `requested` that can be computed for recordings of a kind with some channels."""
    possible = {"normal": "depth" in channels and camera, "motion": "depth" in channels and camera and kind == "video"}
    return tuple(name for name in DERIVED if name in requested and possible[name])


def cut_clips(
    recording: Recording, planned: Sequence[PlannedClip], layout: Layout, captions: Sequence[Captions], source: int
) -> Iterator[Clip]:
    """Yield the planned clips of a recording, in order, with their captions; `source` is its number in the manifest.

    Raises what `cut_clip` raises.
    """
    # one pass over all clips, so that frames between two key frames are decoded once
    pictures = recording.pictures([index for one in planned for index in one.frames])
    for one, own in zip(planned, captions, strict=True):
        clip = cut_clip(recording, pictures, one.frames, one.start, one.bucket, layout.derived, layout.encoded == "jpeg")
        rest = {"measures": one.measures, "origin": {"source": source, "start": one.start}}
        yield dataclasses.replace(clip, text=own.text, spans=own.spans, **rest)


def cut_clip(
    recording: Recording,
    pictures: Iterator[dict[str, Any]],
    frames: tuple[int, ...],
    start: float,
    bucket: Bucket,
    derived: tuple[str, ...],
    keep_jpeg: bool,
) -> Clip:
    """Clip of the next frames of `pictures`, with the channels `derived` computed; times count from `start` (s).

    Pictures are cropped to the bucket's aspect around the centre and resized by the rule of each channel. With `keep_jpeg`,
    JPEG pictures of the bucket's size are stored unchanged. Raises ValueError for a missing picture or one of another size,
    and what the recording's `pictures` raise.
    """
    height, width = bucket.height, bucket.width
    columns: dict[str, list[np.ndarray]] = {name: [] for name in recording.channels}
    kept: list[bytes] = []
    cameras: list[Camera] = []
    last: tuple[int, dict[str, Any]] | None = None
    for index in frames:
        picture = next(pictures, None)
        size = (int(recording.size[index][0]), int(recording.size[index][1]))
        if picture is None or any(picture[name].shape[:2] != size for name in recording.channels):
            got = "no picture" if picture is None else f"pictures of {[picture[name].shape for name in recording.channels]}"
            raise ValueError(
                f"{recording.name}: frame {index} has {got}, needed {size[0]} x {size[1]}; did it change meanwhile?"
            )
        top, left, rows, cols = crop_box(size, height, width, recording.pixel_aspect)
        whole = (rows, cols) == (height, width) == size
        if last is None or last[0] != index:  # a repeated frame is resized once
            part = {name: picture[name][top : top + rows, left : left + cols] for name in recording.channels}
            last = index, {name: resize(name, values, height, width) for name, values in part.items()}
        for name, values in last[1].items():
            columns[name].append(values)
        if keep_jpeg and whole and "jpeg" in picture:
            kept.append(picture["jpeg"])
        if recording.camera is not None:
            aspect = recording.pixel_aspect
            square = (size[0], size[1] * aspect)
            cameras.append(crop(recording.camera[index], square, top, left * aspect, rows, cols * aspect))
    channels = {name: np.stack(values) for name, values in columns.items()}
    camera = _stacked(cameras) if cameras else None
    even = np.arange(len(frames)) / bucket.frame_hz if recording.kind == "video" else np.arange(float(len(frames)))
    if derived and camera is not None:
        depth = np.asarray(restore("depth", channels["depth"]))[..., 0]
        if "normal" in derived:
            channels["normal"] = store("normal", normals(depth, camera))
        if "motion" in derived:
            time = np.asarray(recording.time, np.float64)[list(frames)]
            channels["motion"] = store("motion", motion(depth, camera, time if np.all(np.diff(time) > 0) else even))
    span = (start, start + len(frames) / bucket.frame_hz)
    signals = (
        {name: crop_signal(signal, *span) for name, signal in recording.signals.items()} if recording.kind == "video" else {}
    )
    if len(kept) == len(frames):
        channels.pop("rgb")
    return Clip(channels, even, camera, signals=signals, pictures=kept if len(kept) == len(frames) else None)


def _stacked(cameras: list[Camera]) -> Camera:
    """Cameras [T] from single cameras."""
    names = ("position", "rotation", "focal", "offset")
    fields = [np.stack([np.asarray(getattr(c, name)) for c in cameras]) for name in names]
    bent = [np.asarray(c.distortion) for c in cameras if c.distortion is not None]
    return Camera(*fields, distortion=np.stack(bent) if bent else None)


def crop_signal(signal: Signal, start: float, end: float) -> Signal:
    """Steps of a signal from `start` to `end` (s), and the last one before, which is still valid; times count from `start`."""
    time = np.asarray(signal.time)
    first = max(int(np.searchsorted(time, start + 1e-6, side="right")) - 1, 0)
    last = int(np.searchsorted(time, end - 1e-6, side="left"))
    return dataclasses.replace(signal, time=time[first:last] - start, values=np.asarray(signal.values)[first:last])
