"""One clip as a shard stores it: integers and bytes, with cameras, core, text and signals."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from data_pipelines.wsv import manifest as records
from data_pipelines.wsv import picture
from data_pipelines.wsv.manifest import Layout
from wsm_jax.snapshot import FIELDS, TICK_HZ, WSF, WSV, Camera, Signal, Waves, channel, check_spans, store
from wsm_jax.typing import NpOrJax, Shaped

LINE = ("captions", "events", "frames", "signals", "spans")
"""Keys of the format in a clip's line of text; every other key belongs to the clip's origin."""
_WHOLE = 2**24


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip of T frames over time or views; `Clip.of` makes one of a WSV or WSF."""

    channels: dict[str, np.ndarray]
    """Stored integers [T H W C]."""
    frame_time: NpOrJax
    """[T], s."""
    camera: Camera | None = None
    core: Waves | None = None
    core_time: NpOrJax | None = None
    text: tuple[str, ...] = ()
    events: tuple[dict, ...] = ()
    signals: Mapping[str, Signal] = dataclasses.field(default_factory=dict)
    pictures: Sequence[bytes] | None = None
    """The JPEG files of rgb, stored unchanged; rgb is then not among the channels."""
    measures: Mapping[str, float | int] = dataclasses.field(default_factory=dict)
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Origin, as JSON: {"source": number in the manifest, "start": s, ...}."""
    spans: tuple[tuple[float | int, float | int] | None, ...] = ()
    """(start, end) of each text, s of the clip; None: the whole clip. Empty: no text has times."""

    @classmethod
    def of(cls, given: "WSV | WSF | Clip") -> "Clip":
        """The clip of a snapshot video or field, which is checked. Raises ValueError for values that are not finite."""
        if isinstance(given, Clip):
            return given
        for name, values in given.check().channels.items():
            if not np.isfinite(np.asarray(values)).all():
                raise ValueError(f"channels/{name} holds a value that is not finite")
        channels = {name: store(name, values) for name, values in given.channels.items()}
        if isinstance(given, WSF):
            core = None if given.core is None else Waves(**{k: np.asarray(getattr(given.core, k))[None] for k in FIELDS})
            views = np.arange(len(given.camera.position), dtype=np.float64)
            return cls(channels, views, given.camera, core, None if core is None else np.zeros(1))
        rest = {key: getattr(given, key) for key in ("camera", "core", "core_time", "text", "events", "signals", "spans")}
        return cls(channels, given.frame_time, **rest)

    @property
    def frames(self) -> int:
        """Number of frames T."""
        return len(self.frame_time)


def check(clip: Clip, layout: Layout, where: str) -> None:
    """Raises ValueError, beginning with `where`, unless the clip fits the layout and every number in it is finite."""

    def need(ok: bool, what: str) -> None:
        if not ok:
            raise ValueError(f"{where}: {what}")

    held = {*clip.channels, *(["rgb"] if clip.pictures is not None else [])}
    need(held == set(layout.channels), f"channels {sorted(held)}, the layout has {layout.channels}")
    need((clip.camera is not None) == layout.camera, f"camera {'missing' if layout.camera else 'given, the layout has none'}")
    need((clip.core is not None) == bool(layout.ticks), f"core {'missing' if layout.ticks else 'given, the layout has none'}")
    need(layout.captions or not clip.text, "captions given, the layout has none")
    need(all(isinstance(text, str) for text in clip.text), f"captions must be strings, got {clip.text}")
    check_spans(where, clip.spans, len(clip.text))
    need(layout.over == "time" or not any(clip.spans), f"captions with times {clip.spans}; the views of an instant have none")
    fits = clip.frames <= layout.frames if layout.ragged else clip.frames == layout.frames
    need(fits and (clip.frames > 0 or not layout.frames), f"{clip.frames} frames, the layout has {layout.frames}")
    names = {name for name, _, _ in layout.signals}
    need(set(clip.signals) <= names, f"signals {sorted(clip.signals)}, the layout has {sorted(names)}")
    need(set(clip.measures) == set(layout.measures), f"measures {sorted(clip.measures)}, the layout has {layout.measures}")
    if clip.pictures is not None:
        need(layout.encoded == "jpeg" and len(clip.pictures) == clip.frames, f"{len(clip.pictures)} JPEG pictures given")
    need(not set(clip.origin) & set(LINE), f"origin {dict(clip.origin)}; the keys {', '.join(LINE)} are taken")
    try:
        records.dumps([*clip.events, dict(clip.origin)])
        sizes = {picture.jpeg_size(data) for data in clip.pictures or ()}
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from error
    need(
        sizes <= {(layout.height, layout.width)}, f"JPEG pictures of {sorted(sizes)} pixels (H, W), the layout has another size"
    )
    for name, values in clip.channels.items():
        size, dtype = tuple(values.shape[1:3]), channel(name).dtype
        need(len(values) == clip.frames, f"channel {name!r} has {len(values)} frames, the clip {clip.frames} times")
        need(size == (layout.height, layout.width), f"channel {name!r} has {size} pixels (H, W), the layout another size")
        need(values.dtype == dtype, f"channel {name!r} is {values.dtype}, stored it is {dtype}")
    try:
        table = rows(clip, layout)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from error
    for name, values in table.items():
        need(bool(np.isfinite(values).all()), f"{name} holds a value that is not finite")
    times = {"frame_time": clip.frame_time, "core_time": clip.core_time if clip.core is not None else ()}
    for name, time in (times | {f"signal {name}": signal.time for name, signal in clip.signals.items()}).items():
        need(bool(np.all(np.diff(np.asarray(time)) > 0)), f"the times of {name} must increase strictly")


def rows(clip: Clip, layout: Layout) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Every array of a clip except encoded pictures, by its path in the dataset, padded to the shape of the layout.

    Raises ValueError for an array of another shape.
    """
    arrays = {name: values for name, values in clip.channels.items() if not (name == "rgb" and layout.encoded)}
    table = {f"channels/{name}": _padded(name, values, layout.frames) for name, values in arrays.items()}
    if layout.frames:
        table["frame_time"] = _times(np.asarray(clip.frame_time, np.float64), layout.frames, 1.0 / layout.frame_hz)
    if clip.camera is not None:
        table["camera"] = _padded("camera", columns(lensed(clip.camera, layout), layout.camera_fields), layout.frames)
    if clip.core is not None:
        table["core"] = columns(clip.core, FIELDS)
        table["core_time"] = np.asarray(clip.core_time, np.float64)
    for name, components, steps in layout.signals:
        signal = clip.signals.get(name) or Signal(np.zeros(0), np.zeros((0, components), np.float32))
        table[f"signals/{name}"] = _padded(f"signal {name}", np.asarray(signal.values, np.float32), steps)
        table[f"signals/{name}_time"] = _times(np.asarray(signal.time, np.float64), steps, 1.0)
    if layout.measures:
        table["measures"] = np.asarray([[clip.measures[name] for name in layout.measures]], np.float32)
    specs = records.arrays(layout)
    for path, values in table.items():
        if tuple(values.shape) != specs[path].shape[1:]:
            raise ValueError(f"{path} has shape {tuple(values.shape)}, the layout needs {specs[path].shape[1:]}")
    return table


def even(clip: Clip, layout: Layout) -> bool:
    """True if frame i is at i / frame_hz, or is view i, and tick k at k / TICK_HZ: then no reader needs the times."""
    frames = np.arange(clip.frames) / (layout.frame_hz if layout.over == "time" else 1.0)
    ticks = np.arange(layout.ticks) / TICK_HZ
    pairs = [(clip.frame_time, frames), *([(clip.core_time, ticks)] if clip.core is not None else [])]
    return all(np.allclose(np.asarray(given), wanted, rtol=0, atol=1e-9) for given, wanted in pairs)


def line(clip: Clip, layout: Layout) -> dict[str, Any]:
    """A clip's line of the shard's text."""
    found: dict[str, Any] = {"captions": list(clip.text), "events": list(clip.events), **clip.origin}
    if any(clip.spans):
        found["spans"] = [span and [float(span[0]), float(span[1])] for span in clip.spans]
    if layout.ragged:
        found["frames"] = clip.frames
    if layout.signals:
        found["signals"] = {name: len(signal.time) for name, signal in clip.signals.items()}
    return found


def lensed(camera: Camera, layout: Layout) -> Camera:
    """The camera with the lens coefficients of the layout; 0 for a pinhole. Raises ValueError if it does not fit."""
    if camera.orthographic or (camera.distortion is not None and not layout.lens):
        raise ValueError("camera: got an orthographic or a distorting one; the layout holds pinholes (lens=True: lenses too)")
    if layout.lens and camera.distortion is None:
        return dataclasses.replace(camera, distortion=np.zeros((len(camera.position), 5), np.float32))
    return camera


def columns(tree: Camera | Waves, fields: dict[str, int]) -> np.ndarray:
    """Fields side by side as float32, which holds classes and instances exactly: up to 2^24, else it raises ValueError."""
    for name in fields:
        values = np.asarray(getattr(tree, name))
        if np.issubdtype(values.dtype, np.integer) and values.size and max(abs(int(values.min())), int(values.max())) > _WHOLE:
            raise ValueError(f"field {name} holds {values.min()}..{values.max()}; needed whole numbers up to {_WHOLE}")
    parts = [np.asarray(getattr(tree, name), np.float32) for name in fields]
    parts = [x if size else x[..., None] for x, size in zip(parts, fields.values(), strict=True)]
    for (name, size), part in zip(fields.items(), parts, strict=True):
        if part.shape[:-1] != parts[0].shape[:-1] or part.shape[-1] != max(size, 1):
            raise ValueError(f"field {name} of shape {part.shape}, needed {parts[0].shape[:-1]} and {max(size, 1)} components")
    return np.concatenate(parts, -1)


def fields_of(values: np.ndarray, fields: dict[str, int], integers: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """Inverse of `columns`."""
    found, place = {}, 0
    for name, size in fields.items():
        part = values[..., place : place + size] if size else values[..., place]
        found[name] = part.astype(np.int32) if name in integers else np.ascontiguousarray(part)
        place += max(size, 1)
    return found


def _padded(name: str, values: np.ndarray, count: int) -> np.ndarray:
    if len(values) > count:
        raise ValueError(f"{name} has {len(values)} rows, the layout {count}")
    return np.concatenate([values, np.zeros((count - len(values), *values.shape[1:]), values.dtype)])


def _times(time: np.ndarray, count: int, period: float) -> np.ndarray:
    """Times padded with later ones."""
    if len(time) > count:
        raise ValueError(f"{len(time)} times, the layout has {count}")
    last = time[-1] if len(time) else 0.0
    return np.concatenate([time, last + period * np.arange(1, count - len(time) + 1)])
