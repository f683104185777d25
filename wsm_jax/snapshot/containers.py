"""WSG, WSV and WSF: one snapshot, snapshots over time, snapshots over viewpoints."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np

from wsm_jax.snapshot.camera import Camera
from wsm_jax.snapshot.channels import CHANNELS, channel
from wsm_jax.snapshot.waves import Waves
from wsm_jax.typing import NpOrJax, Shaped, pytree, static


def _check(channels: dict[str, Shaped[NpOrJax, "..."]], lead: tuple[int, ...], kind: str) -> None:
    """Raises ValueError unless every channel is [*lead H W C] with one common H, W and the C of its row."""
    size: tuple[int, ...] | None = None
    for name, values in channels.items():
        row = channel(name)
        shape = tuple(values.shape)
        if len(shape) != len(lead) + 3 or shape[: len(lead)] != lead or shape[-1] != row.components:
            raise ValueError(f"{kind}: channel {name!r} has shape {shape}, needed {lead} + (H, W, {row.components})")
        size = size or shape[-3:-1]
        if shape[-3:-1] != size:
            raise ValueError(f"{kind}: channel {name!r} is {shape[-3:-1]} pixels, the others {size}; channels are aligned")


def _grows(time: Shaped[NpOrJax, "..."]) -> bool:
    """True for finite times that increase strictly."""
    time = np.asarray(time)
    return bool(np.isfinite(time).all() and np.all(np.diff(time) > 0))


def check_spans(where: str, spans: Sequence[tuple[float | int, float | int] | None], count: int) -> None:
    """Raises ValueError, with the prefix `where`, unless `spans` is empty or has `count` entries, None or start < end (s)."""
    if spans and len(spans) != count:
        raise ValueError(f"{where}: {len(spans)} spans for {count} texts; needed one a text (or None), or none at all")
    for span in spans:
        if span is not None and not -math.inf < span[0] < span[1] < math.inf:
            raise ValueError(f"{where}: a text from {span[0]} to {span[1]} s; needed numbers, start < end")


@pytree
class WSG:
    """One instant from one camera: aligned channels in physical units, [H W C] each."""

    channels: dict[str, Shaped[NpOrJax, "..."]]
    camera: Camera | None = None
    time: float | Shaped[NpOrJax, ""] = 0.0
    """Seconds."""
    core: Waves | None = None
    text: str | None = static(default=None)

    def check(self) -> "WSG":
        """Returns itself; raises ValueError when a channel is unknown or not aligned with the others."""
        _check(self.channels, (), "WSG")
        return self


@pytree
class Signal:
    """A time series recorded with the pictures, with its own timestamps: an action, the pose of a gripper."""

    time: Shaped[NpOrJax, "..."]
    """[S], s, on the clock of the frames, strictly increasing."""
    values: Shaped[NpOrJax, "..."]
    """[S d], float32, in the unit of the recording."""

    def at(self, time: Shaped[NpOrJax, " F"]) -> Shaped[np.ndarray, "F d"]:
        """The values at other times (s): those of the last timestamp until then; before the first, the first ones."""
        index = np.searchsorted(np.asarray(self.time), np.asarray(time, np.float64) + 1e-6, side="right") - 1
        return np.asarray(self.values)[np.maximum(index, 0)]


@pytree
class WSV:
    """Snapshots over time: channels [T H W C] in physical units at `frame_time`, the core [K N ...] at `core_time` (s)."""

    channels: dict[str, Shaped[NpOrJax, "..."]]
    frame_time: Shaped[NpOrJax, " T"]
    camera: Camera | None = None
    core: Waves | None = None
    core_time: Shaped[NpOrJax, " K"] | None = None
    text: tuple[str, ...] = static(default=())
    events: tuple[dict, ...] = static(default=())
    """Events, each {"kind", "time", "instances"}, times in seconds."""
    signals: dict[str, Signal] = dataclasses.field(default_factory=dict)
    """Actions, states of a robot, ..., by name."""
    spans: tuple[tuple[float | int, float | int] | None, ...] = static(default=())
    """(start, end) of each text, s; None: the text describes the whole clip. Empty: no text has times."""

    def check(self) -> "WSV":
        """Returns itself; raises ValueError when channels, camera, core, signals or spans do not fit."""
        frames = len(self.frame_time)
        _check(self.channels, (frames,), "WSV")
        if not _grows(self.frame_time):
            raise ValueError("WSV: frame_time must increase strictly")
        if self.camera is not None and tuple(self.camera.position.shape[:-1]) != (frames,):
            raise ValueError(f"WSV: cameras {tuple(self.camera.position.shape[:-1])} for {frames} frames; needed one a frame")
        if self.core is not None:
            ticks = tuple(self.core.presence.shape[:-1])
            if self.core_time is None or ticks != (len(self.core_time),):
                raise ValueError(f"WSV: the core has ticks {ticks}; needed one core_time a tick")
            if not _grows(self.core_time):
                raise ValueError("WSV: core_time must increase strictly")
        for name, signal in self.signals.items():
            shape = tuple(np.shape(signal.values))
            if len(shape) != 2 or shape[:1] != tuple(np.shape(signal.time)) or not _grows(signal.time):
                raise ValueError(
                    f"WSV: signal {name!r} of shape {shape} at times {np.shape(signal.time)}; needed (S, d) at S growing times"
                )
        check_spans("WSV", self.spans, len(self.text))
        return self

    def frame(self, index: int) -> WSG:
        """The snapshot at frame `index`, without the core (interpolate it with `wsm_jax.core.interpolate`).

        Its text is the first one whose span includes the frame.
        """
        channels = {name: values[index] for name, values in self.channels.items()}
        camera = None if self.camera is None else self.camera[index]
        time, spans = float(np.asarray(self.frame_time)[index]), self.spans or (None,) * len(self.text)
        texts = (t for t, span in zip(self.text, spans, strict=True) if span is None or span[0] <= time < span[1])
        return WSG(channels, camera, time, text=next(texts, None))


@pytree
class WSF:
    """Snapshots of one instant over viewpoints: channels [V H W C] in physical units, one camera each."""

    channels: dict[str, Shaped[NpOrJax, "..."]]
    camera: Camera
    core: Waves | None = None

    def check(self) -> "WSF":
        """Returns itself; raises ValueError when the channels do not fit the cameras."""
        lead = tuple(self.camera.position.shape[:-1])
        if len(lead) != 1:
            raise ValueError(f"WSF: cameras of leading shape {lead}; needed (views,)")
        _check(self.channels, lead, "WSF")
        return self

    def view(self, index: int) -> WSG:
        """The snapshot from camera `index`."""
        return WSG({name: values[index] for name, values in self.channels.items()}, self.camera[index], core=self.core)


def from_snapshots(snapshots: list[WSG]) -> WSV:
    """Joins snapshots of one world, in order of time, to a WSV; a channel is kept if every snapshot has it.

    Raises ValueError for no snapshots, cameras of different kinds, or a WSV that `WSV.check` rejects.
    """
    if not snapshots:
        raise ValueError("from_snapshots: no snapshots; needed at least one")
    names = [name for name in CHANNELS if all(name in s.channels for s in snapshots)]
    channels: dict[str, Shaped[NpOrJax, ...]] = {n: np.stack([np.asarray(s.channels[n]) for s in snapshots]) for n in names}
    cameras = [s.camera for s in snapshots]
    camera = None
    if all(c is not None for c in cameras):
        if len({jax.tree.structure(c) for c in cameras}) > 1:
            raise ValueError("from_snapshots: cameras of different kinds (orthographic, distortion); needed one kind")
        camera = jax.tree.map(lambda *parts: np.stack([np.asarray(x) for x in parts]), *cameras)
    text = tuple(s.text for s in snapshots[:1] if s.text)
    return WSV(channels, np.asarray([float(s.time) for s in snapshots]), camera, text=text).check()
