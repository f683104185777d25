"""Choice of a dataset's layout: bytes, requests and processor time per clip, from measured costs of reads.

A window of F frames that begins anywhere in chunks of C touches (F - 1)/C + 1 of them on average, so of the frames that are
read F / (F + C - 1) are used; one that begins with a chunk touches ceil(F/C). Chunks of a clip lie side by side: a window is
one request an array for any C. The first frame of a chunk is not predicted from others, so short chunks take more bytes
per frame: 1 + first/C times those of long ones. By Little's law r clips a second need r * (latency + bytes/bandwidth) reads
in flight.
"""

import dataclasses
import math
from collections.abc import Sequence

_SHORTEST_RUN = 8
"""Least frames of a run of h264, whose first picture is coded by itself."""


@dataclasses.dataclass(frozen=True)
class Costs:
    """Processor time and bytes of reads, as `launch.bench loader` measured them (BENCHMARKS.md)."""

    clip_ms: float = 0.02
    """Per clip of any size."""
    chunk_ms: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"none": 0.001, "zstd": 0.015, "jpeg": 0.044, "h264": 0.55}
    )
    """Per chunk, picture, or run of pictures."""
    mib_ms: dict[str, float] = dataclasses.field(default_factory=lambda: {"none": 0.15, "zstd": 0.33, "jpeg": 2.1, "h264": 0.9})
    """Per MiB of decoded pixels."""
    ratio: dict[str, float] = dataclasses.field(default_factory=lambda: {"none": 1.0, "zstd": 34.0, "jpeg": 6.0, "h264": 75.0})
    """Raw over stored bytes of rgb in long chunks: zstd of simulated scenes, the others of real video."""
    first: dict[str, float] = dataclasses.field(default_factory=lambda: {"none": 0.0, "zstd": 1.0, "jpeg": 0.0, "h264": 4.0})
    """Extra size of the first frame of a chunk, in frames."""

    def stored(self, codec: str, chunk: int) -> float:
        """Stored over raw bytes in chunks of `chunk` frames."""
        return (1.0 + self.first[codec] / chunk) / self.ratio[codec]


@dataclasses.dataclass(frozen=True)
class Access:
    """The access pattern of a training."""

    frames: int
    """Frames of a window."""
    height: int
    width: int
    channels: int = 3
    """Raw bytes per pixel, all channels together."""
    arrays: int = 1
    """Arrays that are read: channels, and one each for cameras and the core."""
    codec: str = "zstd"
    aligned: bool = False
    """Windows begin with a chunk."""


@dataclasses.dataclass(frozen=True)
class ReadCost:
    """The cost of one clip with chunks of `chunk` frames."""

    chunk: int
    amplification: float
    """Frames read over frames used."""
    chunks: float
    """Chunks read per array."""
    requests: float
    kib: float
    """Stored KiB that are read."""
    cpu_ms: float


def read_cost(access: Access, chunk: int, costs: Costs) -> ReadCost:
    """The cost of reading one clip. Raises ValueError for numbers that make no sense, or an unknown codec."""
    if (
        min(access.frames, access.height, access.width, access.channels, access.arrays, chunk) < 1
        or access.codec not in costs.ratio
    ):
        raise ValueError(
            f"advice: {access}, chunks of {chunk}; needed positive numbers and a codec of {', '.join(costs.ratio)}"
        )
    single = access.codec == "jpeg"  # pictures are read one by one, and their index is one chunk a clip
    touched = float(math.ceil(access.frames / chunk)) if access.aligned else (access.frames - 1) / chunk + 1
    touched = float(access.frames) if single else touched
    frames = float(access.frames) if single else touched * chunk
    raw_mib = frames * access.height * access.width * access.channels / 2**20
    cpu = costs.clip_ms + costs.chunk_ms[access.codec] * touched * access.arrays + costs.mib_ms[access.codec] * raw_mib
    requests = access.arrays + (1.0 if access.codec in ("jpeg", "h264") else 0.0)
    kib = raw_mib * 1024 * costs.stored(access.codec, chunk)
    return ReadCost(chunk, frames / access.frames, touched, requests, kib, cpu)


def candidates(access: Access, stored_frames: int, costs: Costs) -> list[ReadCost]:
    """The chunks that divide a stored clip evenly, up to twice a window; of h264 none so short that it saves no bytes."""
    sizes = sorted({math.ceil(stored_frames / parts) for parts in range(1, stored_frames + 1)})
    least = min(_SHORTEST_RUN, stored_frames) if access.codec == "h264" else 1
    return [read_cost(access, size, costs) for size in sizes if least <= size <= max(2 * access.frames, least)]


def best(costs: Sequence[ReadCost], latency_ms: float, bandwidth_mib_s: float, max_amplification: float = 1.1) -> ReadCost:
    """The chunk with the least processor time plus transfer, among those within `max_amplification`.

    If there is none, the chunk that reads least.
    """
    least = min(costs, key=lambda one: one.amplification)
    good = [one for one in costs if one.amplification <= max_amplification] or [least]
    return min(good, key=lambda one: one.cpu_ms + one.kib / 1024 / bandwidth_mib_s * 1e3)


def clips_per_shard(access: Access, stored_frames: int, chunk: int, costs: Costs, target_mib: float = 128.0) -> int:
    """Clips whose largest array makes a file of about `target_mib`: large enough to list and copy, small enough to rebuild."""
    raw = stored_frames * access.height * access.width * access.channels / access.arrays / 2**20
    return max(1, min(1024, round(target_mib / (raw * costs.stored(access.codec, chunk)))))


@dataclasses.dataclass(frozen=True)
class Load:
    """The load of a host."""

    clips_s: float
    requests_s: float
    mib_s: float
    cores: float
    """Busy processor cores."""
    in_flight: float
    """Reads in flight."""


def load(one: ReadCost, clips_s: float, latency_ms: float, bandwidth_mib_s: float) -> Load:
    """The load of `clips_s` clips a second."""
    seconds = latency_ms / 1e3 + one.kib / 1024 / bandwidth_mib_s
    return Load(clips_s, clips_s * one.requests, clips_s * one.kib / 1024, clips_s * one.cpu_ms / 1e3, clips_s * seconds)
