"""What layout serves a training: bytes, requests and processor time a clip, from what a read was measured to cost.

A window of F frames that begins anywhere in chunks of C touches (F - 1)/C + 1 of them on average, so of the frames that are
read F / (F + C - 1) are used; one that begins with a chunk touches ceil(F/C). Chunks of a clip lie side by side: a window is
one request an array, whatever C. The first frame of a chunk is told by no other, so short chunks take more bytes a frame:
1 + first/C times those of long ones. By Little's law r clips a second need r * (latency + bytes/bandwidth) reads in flight.
"""

import dataclasses
import math
from collections.abc import Sequence

_SHORTEST_RUN = 8
"""Frames of a run of h264, whose first picture refers to no other."""


@dataclasses.dataclass(frozen=True)
class Costs:
    """Processor time of a read; `launch.bench loader` measures them, these are of BENCHMARKS.md."""

    clip_ms: float = 0.02
    """Of a clip, whatever its size."""
    chunk_ms: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"none": 0.001, "zstd": 0.015, "jpeg": 0.044, "h264": 0.55}
    )
    """Of a chunk, a picture, or a run of pictures."""
    mib_ms: dict[str, float] = dataclasses.field(default_factory=lambda: {"none": 0.15, "zstd": 0.33, "jpeg": 2.1, "h264": 0.9})
    """Of a MiB of pixels, decoded."""
    ratio: dict[str, float] = dataclasses.field(default_factory=lambda: {"none": 1.0, "zstd": 34.0, "jpeg": 6.0, "h264": 75.0})
    """Raw over stored bytes of rgb in long chunks: zstd of simulated scenes, the others of real video."""
    first: dict[str, float] = dataclasses.field(default_factory=lambda: {"none": 0.0, "zstd": 1.0, "jpeg": 0.0, "h264": 4.0})
    """Frames that the first one of a chunk takes more than the others."""

    def stored(self, codec: str, chunk: int) -> float:
        """Stored bytes over raw ones in chunks of so many frames."""
        return (1.0 + self.first[codec] / chunk) / self.ratio[codec]


@dataclasses.dataclass(frozen=True)
class Use:
    """How a training reads."""

    frames: int
    """Of a window."""
    height: int
    width: int
    channels: int = 3
    """Bytes of a pixel, raw, of all channels."""
    arrays: int = 1
    """Arrays that a clip is read from: channels, and one each for cameras and the core."""
    codec: str = "zstd"
    aligned: bool = False
    """Windows begin with a chunk."""


@dataclasses.dataclass(frozen=True)
class Reading:
    """What one clip costs with chunks of `chunk` frames."""

    chunk: int
    amplification: float
    """Frames read over frames used."""
    chunks: float
    """Chunks touched, of one array."""
    requests: float
    kib: float
    """Stored bytes that are read."""
    cpu_ms: float


def reading(use: Use, chunk: int, costs: Costs) -> Reading:
    """What a clip costs. Raises ValueError for numbers that make no sense, or an unknown codec."""
    if min(use.frames, use.height, use.width, use.channels, use.arrays, chunk) < 1 or use.codec not in costs.ratio:
        raise ValueError(f"advice: {use}, chunks of {chunk}; needed positive numbers and a codec of {', '.join(costs.ratio)}")
    single = use.codec == "jpeg"  # every picture by itself, their places in an array of one chunk a clip
    touched = float(math.ceil(use.frames / chunk)) if use.aligned else (use.frames - 1) / chunk + 1
    touched = float(use.frames) if single else touched
    frames = float(use.frames) if single else touched * chunk
    raw_mib = frames * use.height * use.width * use.channels / 2**20
    cpu = costs.clip_ms + costs.chunk_ms[use.codec] * touched * use.arrays + costs.mib_ms[use.codec] * raw_mib
    requests = use.arrays + (1.0 if use.codec in ("jpeg", "h264") else 0.0)
    kib = raw_mib * 1024 * costs.stored(use.codec, chunk)
    return Reading(chunk, frames / use.frames, touched, requests, kib, cpu)


def candidates(use: Use, stored_frames: int, costs: Costs) -> list[Reading]:
    """The chunks that divide a stored clip evenly, up to twice a window; of h264 none so short that it saves no bytes."""
    sizes = sorted({math.ceil(stored_frames / parts) for parts in range(1, stored_frames + 1)})
    least = min(_SHORTEST_RUN, stored_frames) if use.codec == "h264" else 1
    return [reading(use, size, costs) for size in sizes if least <= size <= max(2 * use.frames, least)]


def best(found: Sequence[Reading], latency_ms: float, bandwidth_mib_s: float, most: float = 1.1) -> Reading:
    """The chunk with the least of processor time and transfer, of those that read at most `most` times what is used.

    Where none does, the one that reads least.
    """
    good = [one for one in found if one.amplification <= most] or [min(found, key=lambda one: one.amplification)]
    return min(good, key=lambda one: one.cpu_ms + one.kib / 1024 / bandwidth_mib_s * 1e3)


def clips_per_shard(use: Use, stored_frames: int, chunk: int, costs: Costs, target_mib: float = 128.0) -> int:
    """Clips whose largest array makes a file of about `target_mib`: large enough to list and copy, small enough to rebuild."""
    raw = stored_frames * use.height * use.width * use.channels / use.arrays / 2**20
    return max(1, min(1024, round(target_mib / (raw * costs.stored(use.codec, chunk)))))


@dataclasses.dataclass(frozen=True)
class Load:
    """What a host does for a training."""

    clips_s: float
    requests_s: float
    mib_s: float
    cores: float
    """Processor time a second."""
    in_flight: float
    """Reads under way at once."""


def load(one: Reading, clips_s: float, latency_ms: float, bandwidth_mib_s: float) -> Load:
    """The load of so many clips a second."""
    seconds = latency_ms / 1e3 + one.kib / 1024 / bandwidth_mib_s
    return Load(clips_s, clips_s * one.requests, clips_s * one.kib / 1024, clips_s * one.cpu_ms / 1e3, clips_s * seconds)
