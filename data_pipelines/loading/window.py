"""One example: a random window of one clip of a WSV dataset, as NumPy arrays of static shapes.

What a dataset does not have is never invented: `known` is False, and in its place stand zeros for a channel and a
caption, empty slots (presence 0) for the core, and a unit camera at the origin, which no arithmetic turns into NaN.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from data_pipelines.wsv import Dataset
from wsm_jax.snapshot import FIELDS, TICK_HZ, Camera, Waves, channel, ground, resize, store
from wsm_jax.snapshot.waves import empty
from wsm_jax.typing import Int, NpOrJax, Shaped, UInt8

CAPTION_BYTES = 512
"""Length of the `caption` array: UTF-8, padded with zeros."""

_ALIGNED = 1e-3
"""Times closer than this fraction of a frame period are equal (times on disk are rounded)."""


@dataclasses.dataclass(frozen=True)
class Window:
    """What one example holds."""

    channels: tuple[str, ...]
    frames: int
    frame_hz: float | int | None
    """None: every stored frame."""
    height: int
    width: int
    ticks: int
    waves: int
    first_caption: bool = False
    """The first caption of a clip, the plain one, instead of a random one."""


@dataclasses.dataclass(frozen=True)
class Track:
    """What is small in a clip, whole: many little arrays, whose reading costs as much as the pixels."""

    frame_time: Shaped[np.ndarray, " T"] | None
    camera: Camera | None
    core: tuple[Waves, Shaped[np.ndarray, " K"]] | None


def track(dataset: Dataset, clip: int, window: Window) -> Track:
    """Reads the track of a clip, without what the window does not ask for. Raises ValueError naming a damaged file."""
    shown = bool(dataset.layout.frames and window.frames)
    return Track(
        dataset.frame_time(clip) if shown else None,
        dataset.camera(clip) if shown else None,
        dataset.core(clip) if window.ticks else None,
    )


def pick(
    where: str,
    window: Window,
    frame_time: Shaped[np.ndarray, " T"] | None,
    core_time: Shaped[np.ndarray, " K"] | None,
    stored_hz: float | int,
    rng: np.random.Generator,
) -> tuple[Int[np.ndarray, " F"], int, float]:
    """A random window of a clip: indices of its frames, its first tick, and its start in seconds of the clip.

    With a core the window starts at a tick, and its first frame is the first one at or after that tick; without, at a frame.
    The others are the stored frames nearest to first + i / frame_hz. `None` times: the dataset has no frames, or no core.
    Raises ValueError, naming `where`, for a clip that is too short, or frames asked for faster than they are stored.
    """
    hz = window.frame_hz or stored_hz
    frames = 0 if frame_time is None else window.frames
    ticks = 0 if core_time is None else window.ticks
    asked = f"the loader asks for {window.frames} frames at {hz:g} Hz and {window.ticks} ticks at {TICK_HZ:g} Hz"
    if window.frames and not hz > 0:
        raise ValueError(f"{where}: the dataset has no frame rate, so the loader needs frame_hz above 0; got {window.frame_hz}")
    if frames > 1 and hz > stored_hz * 1.01:
        raise ValueError(f"{where}: frames are stored at {stored_hz:g} Hz; {asked}; lower frame_hz, or leave this dataset out")
    if core_time is not None and ticks > len(core_time):
        raise ValueError(f"{where}: a clip has {len(core_time)} ticks; {asked}; ask for fewer ticks, or build longer clips")
    times = np.zeros(1) if frame_time is None else np.asarray(frame_time, np.float64)
    starts = times
    if core_time is not None and ticks:
        starts = np.asarray(core_time, np.float64)[: len(core_time) - ticks + 1]
    if not frames:
        tick = int(rng.integers(len(starts)))
        return np.zeros(0, np.int64), tick, float(starts[tick])

    first = np.searchsorted(times, starts - _ALIGNED / stored_hz)
    fits = first < len(times)
    fits[fits] = times[first[fits]] + (frames - 1) / hz <= times[-1] + 0.25 / stored_hz
    if not fits.any():
        ticks_note = "" if core_time is None else f" and {len(core_time)} ticks"
        raise ValueError(
            f"{where}: a clip has {len(times)} frames at {stored_hz:g} Hz ({times[-1] - times[0]:.3f} s from first to last)"
            f"{ticks_note}; {asked} ({(frames - 1) / hz:.3f} s); ask for fewer or faster frames, or build longer clips"
        )
    tick = int(rng.choice(np.flatnonzero(fits)))
    between = 0.5 * (times[1:] + times[:-1])
    index = np.searchsorted(between, times[first[tick]] + np.arange(frames) / hz - _ALIGNED / stored_hz)
    if np.any(np.diff(index) < 1):
        raise ValueError(f"{where}: the stored frame times are too uneven: one frame would stand for two; {asked}")
    return index, tick, float(starts[tick])


def fit_waves(waves: Waves, slots: int, where: str) -> Waves:
    """The core [K N] with `slots` slots: filled up with empty ones, or without the last ones, which must be empty.

    Slots keep their numbers, for the instance channel and captions speak of them. Raises ValueError, naming `where`, when a
    wave is present, at any tick, in a slot that there is not.
    """
    last = int(np.max(np.flatnonzero((np.asarray(waves.presence) > 0).any(0)), initial=-1))
    if last >= slots:
        raise ValueError(f"{where}: a wave is present in slot {last}; the loader has the slots 0..{slots - 1}; raise waves")
    waves = Waves(**{name: getattr(waves, name)[:, :slots] for name in FIELDS})
    if waves.count == slots:
        return waves
    pad = empty(slots - waves.count, (waves.presence.shape[0],))
    return Waves(**{name: np.concatenate([getattr(waves, name), getattr(pad, name)], 1) for name in FIELDS})


def encode_caption(text: str, where: str) -> UInt8[np.ndarray, " L"]:
    """UTF-8 bytes padded with zeros to CAPTION_BYTES. Raises ValueError, naming `where`, when they are more."""
    data = np.frombuffer(text.encode(), np.uint8)
    if len(data) > CAPTION_BYTES:
        raise ValueError(f"{where}: a caption has {len(data)} UTF-8 bytes, at most {CAPTION_BYTES} fit: {text[:60]!r}...")
    return np.pad(data, (0, CAPTION_BYTES - len(data)))


def decode_caption(data: Shaped[NpOrJax, " L"]) -> str:
    """Inverse of `encode_caption`."""
    return np.asarray(data, np.uint8).tobytes().rstrip(b"\0").decode()


def example(dataset: Dataset, clip: int, window: Window, rng: np.random.Generator, found: Track) -> dict[str, Any]:
    """A random window of one clip, whose `track` is `found`, as NumPy arrays of static shapes; times from the window's start.

    {"channels": {name: [T H W C] stored}, "known": {name, "camera", "core", "text": bool}, "camera": {field: [T ...]},
    "frame_time": [T], "core": {field: [K N ...]}, "core_time": [K], "caption": uint8 [CAPTION_BYTES]}
    Raises ValueError, naming the dataset, for what does not fit (see `pick`, `fit_waves`) and for damaged files.
    """
    where, layout = f"{dataset.folder.path} clip {clip}", dataset.layout
    core, frame_time, camera = found.core, found.frame_time, found.camera
    index, tick, start = pick(where, window, frame_time, core[1] if core else None, layout.frame_hz, rng)
    channels = read(dataset, clip, window.channels, index, camera, (window.height, window.width))
    captions = dataset.captions(clip) if layout.captions else ()
    text = captions[0 if window.first_caption else int(rng.integers(len(captions)))] if captions else ""

    waves, core_time = empty(window.waves, (window.ticks,)), np.arange(window.ticks) / TICK_HZ
    if core is not None:
        kept = slice(tick, tick + window.ticks)
        waves, core_time = fit_waves(core[0], window.waves, where)[kept], core[1][kept] - start
    hz = window.frame_hz or layout.frame_hz
    shown = np.arange(window.frames) / hz if frame_time is None else np.asarray(frame_time)[index] - start
    known = {name: name in channels for name in window.channels}
    known |= {"camera": camera is not None, "core": core is not None, "text": bool(text)}
    return {
        "channels": {name: channels[name] if name in channels else _zeros(name, window) for name in window.channels},
        "known": {name: np.bool_(value) for name, value in known.items()},
        "camera": _arrays(_no_camera(window.frames) if camera is None else camera[index]),
        "frame_time": shown.astype(np.float32),
        "core": _arrays(waves),
        "core_time": np.asarray(core_time, np.float32),
        "caption": encode_caption(text, where),
    }


_LENS = ("distortion", "orthographic")  # a dataset holds pinholes


def _arrays(tree: Camera | Waves) -> dict[str, np.ndarray]:
    """The fields as arrays of their own, which a transform may change: the tracks are kept."""
    return {name: np.array(value) for name, value in vars(tree).items() if name not in _LENS}


def read(
    dataset: Dataset, clip: int, channels: Sequence[str], index: np.ndarray, camera: Camera | None, size: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Those of the channels that the dataset has, or its cameras tell, of some frames; stored integers [T H W C] of a size."""
    names = [name for name in channels if name in dataset.layout.channels]
    out: dict[str, np.ndarray] = {}
    if names and len(index):
        run = len(index) == index[-1] - index[0] + 1
        found = dataset.read(clip, names, slice(int(index[0]), int(index[-1]) + 1) if run else index)
        out = {name: resize(name, values, *size) for name, values in found.items()}
    if "ground" in channels and camera is not None and len(index):
        out["ground"] = store("ground", ground(camera[index], *size))
    return out


def _zeros(name: str, window: Window) -> np.ndarray:
    row = channel(name)
    return np.zeros((window.frames, window.height, window.width, row.components), row.dtype)


def _no_camera(frames: int) -> Camera:
    rotation = np.tile(np.asarray([1, 0, 0, 0], np.float32), (frames, 1))
    zeros = np.zeros((frames, 3), np.float32)
    return Camera(zeros, rotation, np.ones(frames, np.float32), zeros[:, :2])
