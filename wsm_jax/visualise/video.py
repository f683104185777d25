"""Videos as mp4 files."""

import itertools
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Colorspace

from wsm_jax.files import atomic
from wsm_jax.typing import UInt8


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float | int) -> None:
    """Writes uint8 [T H W 3] (an array, or any iterable of [H W 3]) as mp4 (H.264, yuv420p, BT.709), atomically.

    4:2:0 needs even sizes, so an odd last row or column is repeated. Raises ValueError for a name that does not end in .mp4, a
    frame rate that is not positive, no frame, or a wrong dtype or shape.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise ValueError(f"{path}: needed a file name that ends in .mp4")
    if not fps > 0:
        raise ValueError(f"{path}: frame rate {fps:g} Hz; needed a positive number")
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{path}: no frames to write; needed at least one")
    with atomic(path) as part, av.open(str(part), "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream: Any = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(65535), options={"crf": "17"})
        stream.height, stream.width, stream.pix_fmt = *_even(path, first, first).shape[:2], "yuv420p"
        context = stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1  # BT.709, limited range
        for frame in itertools.chain([first], frames):
            picture = av.VideoFrame.from_ndarray(_even(path, frame, first), format="rgb24")
            container.mux(stream.encode(picture.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709)))
        container.mux(stream.encode())


def _even(path: Path, frame: np.ndarray, first: np.ndarray) -> UInt8[np.ndarray, "H W 3"]:
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[-1] != 3 or frame.shape != first.shape or frame.size == 0:
        raise ValueError(f"{path}: a frame is {frame.dtype} {frame.shape}; needed uint8 (H, W, 3), as the first: {first.shape}")
    return np.ascontiguousarray(np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge"))
