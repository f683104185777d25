"""Codecs of pictures: JPEG one by one, or H.264 in independent runs.

A run is a closed group of pictures (it begins with a key frame and refers to nothing outside), so runs can be read in random
order at the rate of a sequential decoder. Colours are BT.709, limited range, 4:2:0.
"""

import io
import threading
import zlib
from fractions import Fraction
from typing import Any

import av
import numpy as np
import simplejpeg
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from PIL import Image

from wsm_jax.typing import UInt8

CODECS = ("jpeg", "h264")

JPEG = {"quality": 92, "subsampling": 0, "optimize": True}
"""Options for single pictures: no chroma subsampling, so colours stay on their pixels; optimized Huffman tables."""
H264 = {"crf": "18", "preset": "medium", "tune": "fastdecode", "bf": "0", "threads": "1"}
"""Options for runs, which are encoded once and decoded in every epoch. One thread: the same bytes on any machine."""

_EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""Conversion of colours to chroma at encoding; decoding uses the fastest conversion, which is a little coarser."""


def encode(codec: str, frames: UInt8[np.ndarray, "T H W 3"]) -> bytes:
    """The bytes of one picture (jpeg), or of a run (h264)."""
    return _encode_jpeg(frames) if codec == "jpeg" else _encode_h264(frames)


def decode(codec: str, data: bytes, crc32: int, out: UInt8[np.ndarray, "T H W 3"], first: int, count: int) -> None:
    """Decodes pictures of a run of `count`, from picture `first` on, into `out`.

    Raises ValueError for damaged bytes.
    """
    if zlib.crc32(data) != crc32:
        raise ValueError("the checksum of a picture does not match")
    if codec == "jpeg":
        _decode_jpeg(data, out[0])
    else:
        _decode_h264(data, out, first, count)


def jpeg_size(data: bytes) -> tuple[int, int]:
    """(H, W) in the header of a JPEG picture of three colours. Raises ValueError for anything else."""
    try:
        found = Image.open(io.BytesIO(data), formats=["JPEG"])
    except (OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"a picture is no JPEG ({error})") from error
    if found.mode != "RGB":
        raise ValueError(f"a JPEG picture is {found.mode}; needed RGB")
    return found.height, found.width


def _encode_jpeg(frames: np.ndarray) -> bytes:
    (picture,) = frames
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", **JPEG)
    return buffer.getvalue()


def _decode_jpeg(data: bytes, out: np.ndarray) -> None:
    """Decodes into `out` the same pixels as Pillow, without its copies."""
    size = simplejpeg.decode_jpeg_header(data)[:2]
    if size != out.shape[:2]:
        raise ValueError(f"a picture of {size} pixels (H, W); needed {out.shape[:2]}")
    if out.flags.c_contiguous:
        simplejpeg.decode_jpeg(data, "RGB", buffer=out)
    else:
        out[...] = simplejpeg.decode_jpeg(data, "RGB")


def _encode_h264(frames: np.ndarray) -> bytes:
    count, height, width = frames.shape[:3]
    context: Any = av.CodecContext.create("libx264", "w")
    # 4:2:0 needs even sizes: an odd last row or column is doubled, and dropped at decoding.
    context.height, context.width = height + height % 2, width + width % 2
    context.pix_fmt, context.framerate, context.time_base = "yuv420p", Fraction(25), Fraction(1, 25)
    context.gop_size = count
    context.options = dict(H264)
    context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1  # BT.709, limited range
    parts = []
    for index, picture in enumerate(frames):
        even = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(even), format="rgb24")
        frame = frame.reformat(format="yuv420p", dst_colorspace=Colorspace.ITU709, interpolation=_EXACT)
        frame.pts = index
        parts += [bytes(packet) for packet in context.encode(frame)]
    parts += [bytes(packet) for packet in context.encode(None)]
    return b"".join(parts)


class _Decoder(threading.local):
    """The decoder of a thread, used for all its runs, because opening one takes time."""

    def __init__(self) -> None:
        self.context: Any = av.CodecContext.create("h264", "r")
        self.context.thread_count = 1  # the loader's threads each decode a run
        self.convert = VideoReformatter()  # a new one per frame would plan the conversion again


_decoder = _Decoder()


def _decode_h264(data: bytes, out: np.ndarray, first: int, count: int) -> None:
    context, frames, end = _decoder.context, [], first + len(out)
    try:
        packets = [*context.parse(data), *context.parse(None)]
        for packet in packets[:end]:  # pictures refer to those before them alone
            frames += context.decode(packet)
        frames += context.decode(None)
    finally:
        context.flush_buffers()
    rows, columns = out.shape[1:3]
    even = (rows + rows % 2, columns + columns % 2)
    if len(packets) != count or len(frames) != end or any((frame.height, frame.width) != even for frame in frames):
        sizes = sorted({(frame.height, frame.width) for frame in frames})
        found = f"{len(frames)} of {len(packets)} pictures, of {sizes} pixels (H, W)"
        raise ValueError(f"{found}; needed {end} of {count}, of {even}")
    for picture_out, frame in zip(out, frames[first:], strict=True):
        picture: Any = _decoder.convert.reformat(
            frame,
            format="rgb24",
            src_colorspace=Colorspace.ITU709,
            src_color_range=ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            interpolation=Interpolation.BILINEAR,
        )
        (plane,) = picture.planes
        picture_out[...] = np.ndarray(picture_out.shape, np.uint8, plane, strides=(plane.line_size, 3, 1))
