"""Films for the tests of ingest, made on the spot."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def pattern(count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """A smooth moving pattern, other for every seed, uint8 [T H W 3]."""
    y, x = np.mgrid[: size[0], : size[1]]
    phase = np.random.default_rng(seed).uniform(0, 6, 3)
    pictures = [
        np.stack([np.sin(x / 9 + i / 4 + phase[0]), np.cos(y / 7 + phase[1] + i / 9), np.sin(phase[2] + (x + y) / 11)], -1)
        for i in range(count)
    ]
    return np.rint(127.5 + 100 * np.asarray(pictures)).astype(np.uint8)


def encoded(
    path: Path,
    pictures: np.ndarray,
    fps: float = 24,
    *,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    group: int = 12,
    container: dict[str, str] | None = None,
) -> Path:
    """A video through PyAV alone; of one thread, for with more x264 writes other bytes every time."""
    with av.open(str(path), "w", options=container or {}) as file:
        stream = file.add_stream(codec, rate=Fraction(fps).limit_denominator(1000), options={"g": str(group)})
        stream.codec_context.thread_count = 1
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], pixels
        if pixels.startswith("gray"):
            stream.codec_context.color_range = 2  # full, as grey pictures have
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(picture), format="rgb24" if picture.shape[-1] == 3 else "rgba"
            )
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path
