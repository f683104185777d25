"""The contents of one example, and the candidate windows of a clip."""

import dataclasses
import functools

import numpy as np

from data_pipelines.loading.order import permuted
from wsm_jax.snapshot import TICK_HZ
from wsm_jax.typing import Float, Int, Shaped

CROPS = ("middle", "random")

_TIME_TOLERANCE = 1e-3
"""Times closer than this fraction of a frame period are equal (times on disk are rounded)."""


@dataclasses.dataclass(frozen=True)
class Window:
    """The contents of one example."""

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
    signals: tuple[tuple[str, int], ...] = ()
    """(name, components) of actions and other numbers, sampled at each frame."""
    events: tuple[str, ...] = ()
    """Kinds of events that an example lists."""
    max_events: int = 8
    """Events that an example lists at most: the first ones."""
    crop: str = "middle"
    """Place of the crop of a picture of another aspect: "middle", or "random", the same for all frames of an example."""
    aligned: bool = False
    """Windows begin with a chunk, so that no frame is read that is not used."""
    lens: bool = False
    """Cameras have lens coefficients, 0 for pinholes."""
    latents: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """(key, shape per clip) of the codes beside the clips."""


@dataclasses.dataclass(frozen=True)
class Choices:
    """All windows of a clip."""

    frames: Int[np.ndarray, "S F"]
    """Stored frame indices of each window."""
    tick: Int[np.ndarray, " S"]
    """First tick of each window."""
    start: Float[np.ndarray, " S"]
    """Start time of each window, s of the clip."""

    @functools.cached_property
    def steps(self) -> list[slice | np.ndarray]:
        """The frames of each window as a slice, or as indices where they do not follow one another."""
        return as_slices(self.frames)


def as_slices(frames: Int[np.ndarray, "n F"]) -> list[slice | np.ndarray]:
    """Windows of frames, each as a slice where its frames follow one another."""
    count = frames.shape[1]
    contiguous = (np.diff(frames, axis=1) == 1).all(1).tolist() if count else []
    first = frames[:, 0].tolist() if count else []
    return [slice(n, n + count) if one else index for one, n, index in zip(contiguous, first, frames, strict=bool(count))]


def choices(
    where: str,
    window: Window,
    frame_time: Shaped[np.ndarray, " T"] | None,
    core_time: Shaped[np.ndarray, " K"] | None,
    stored_hz: float | int,
) -> Choices:
    """The windows of a clip with frames and ticks at some times (s); None: the dataset has no frames, or no core.

    With a core a window starts at a tick, and its first frame is the first one at or after that tick; without, at a frame.
    Its other frames are the stored ones nearest to first + i / frame_hz. Raises ValueError, naming `where`, for a clip that is
    too short, or a frame rate above the stored one.
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
        return Choices(np.zeros((len(starts), 0), np.int64), np.arange(len(starts)), starts)
    first = np.searchsorted(times, starts - _TIME_TOLERANCE / stored_hz)
    fits = first < len(times)
    fits[fits] = times[first[fits]] + (frames - 1) / hz <= times[-1] + 0.25 / stored_hz
    if not fits.any():
        ticks_note = "" if core_time is None else f" and {len(core_time)} ticks"
        raise ValueError(
            f"{where}: a clip has {len(times)} frames at {stored_hz:g} Hz ({times[-1] - times[0]:.3f} s from first to last)"
            f"{ticks_note}; {asked} ({(frames - 1) / hz:.3f} s); ask for fewer or faster frames, or build longer clips"
        )
    tick = np.flatnonzero(fits)
    between = 0.5 * (times[1:] + times[:-1])
    wanted = times[first[tick]][:, None] + np.arange(frames) / hz - _TIME_TOLERANCE / stored_hz
    index = np.searchsorted(between, wanted)
    if np.any(np.diff(index, axis=1) < 1):
        raise ValueError(f"{where}: the stored frame times are too uneven: one frame would stand for two; {asked}")
    return Choices(index, tick, starts[tick])


def overlaps(span: tuple[float, float], start: float, end: float) -> bool:
    """True if a span (s) and the window from `start` to `end` (s) have half of either in common."""
    return min(span[1], end) - max(span[0], start) >= 0.5 * min(span[1] - span[0], end - start) - 1e-9


def sample_views(where: str, window: Window, count: int, seed: int) -> Int[np.ndarray, " F"]:
    """Random views of an instant, without repeats. Raises ValueError for fewer than are asked for."""
    if count < window.frames:
        raise ValueError(f"{where}: has {count} views; the loader asks for {window.frames}; ask for fewer, or leave it out")
    seeds = np.full(window.frames, seed, np.uint64)
    return permuted(np.arange(window.frames), count, seeds)
