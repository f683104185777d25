"""Decoder of one video file, from the first frame or from a later time, with a check that the file is complete."""

import itertools
import math
import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition
from av.video.reformatter import ColorPrimaries, Colorspace, ColorTrc, Interpolation

from wsm_jax.typing import UInt8

FORMATS = ("mp4", "mov", "webm", "matroska")
"""Supported containers, by their names in libav."""

WANTED = "needed a video (mp4, mov, webm, mkv) or a folder of jpg/png frames"

_HDR = (int(ColorTrc.SMPTE2084), int(ColorTrc.ARIB_STD_B67))
_EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
"""Flags of swscale; its defaults darken by 1/255 and lose 9 dB on a round trip of smooth colours (35.4 against 44.4 dB,
measured)."""

_UNTAGGED = 2  # AVCOL_SPC_UNSPECIFIED


class VideoDecoder:
    """Iterator over (time s, duration s, frame); time counts from the first frame and increases strictly.

    After the iteration `lost` states which bytes, packets or seconds of the container are missing, or where a damaged picture
    ended the video; it is empty for a complete file. `notes` lists conversions and losses. Without `threads` the detected
    damage depends on the file alone; with threads on their number, and with eight of them once on chance (measured). Not all
    damage is detected: 40 bytes of zeros in an H.264 file were in 19 of 60 places.

    Raises FileNotFoundError or ValueError, naming the path, for a file that is no video in one of `formats`; `wanted` ends the
    message.
    """

    def __init__(self, path: Path, threads: bool = True, formats: Sequence[str] = FORMATS, wanted: str = WANTED):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; {wanted}")
        self.path, self._formats, self._wanted = path, formats, wanted
        self._threads = threads
        self.lost = ""
        self.late = 0.0
        """Time of the first frame, s from the start of the stream; above 0 if the frames before it depend on a part cut off."""
        self.size = self.promised = 0
        """Bytes of the file, and bytes according to its container; 0 if unknown."""
        self._dropped = 0
        self._first: av.VideoFrame | None = None
        try:
            self.size, self.promised = promised_bytes(path)
            self._container: Any = av.open(str(path))
        except PermissionError as error:
            raise ValueError(f"{path}: cannot be read ({error.strerror}); needed read permission") from error
        except (FFmpegError, OSError) as error:
            raise ValueError(f"{path}: {self._why_not(f'is no video ({error.strerror})')}; {wanted}") from error
        except UnicodeDecodeError as error:  # in its metadata
            raise ValueError(f"{path}: {self._why_not('is damaged: its text is none')}; {wanted}") from error
        try:
            self._stream = self._video_stream()
        except ValueError:
            self._container.close()
            raise
        self.pixel_aspect = float(self._stream.sample_aspect_ratio or 1)
        """Width over height of a pixel as stored, before rotation."""
        self.height, self.width = int(self._stream.height), int(self._stream.width)
        """Pixels as stored, by the container."""

    def __enter__(self) -> "VideoDecoder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._container.close()

    def _why_not(self, otherwise: str) -> str:
        if self.promised > self.size:
            return (
                f"ends early: it holds {self.size} of the {self.promised} bytes its container promises, and its index is lost"
            )
        return otherwise

    def _video_stream(self) -> Any:
        # libav also opens text files, images and playlists, so the format is checked too.
        kind = self._container.format.name
        if not set(kind.split(",")) & set(self._formats):
            raise ValueError(f"{self.path}: is of format {kind!r}; {self._wanted}")
        for stream in self._container.streams.video:
            if not stream.disposition & Disposition.attached_pic and stream.codec_context is not None:
                if self._threads:
                    stream.thread_type = "AUTO"
                else:
                    stream.codec_context.thread_count = 1
                return stream
        raise ValueError(f"{self.path}: {self._why_not('has no video stream')}; {self._wanted}")

    def __iter__(self) -> Iterator[tuple[float, float, av.VideoFrame]]:
        stream, container = self._stream, self._container
        # Only mp4 and mov index every packet on opening. The duration is that of all streams; audio may last longer.
        promised = len(stream.index_entries) if "mp4" in container.format.name else 0
        period = float(1 / stream.average_rate) if stream.average_rate else 0.0
        start, last, count, hidden, end, damage = None, -1.0, 0, 0, 0.0, ""

        def decoded(packet: Any) -> Iterator[tuple[float, float, av.VideoFrame]]:
            nonlocal start, last, count, damage
            for frame in packet.decode() if packet is not None else _flush(stream):
                if frame.pts is None:
                    raise ValueError(f"{self.path}: frame {count} has no presentation time; re-encode the video")
                if start is None:
                    start, self._first = frame.pts, frame
                    self.late = float((start - (stream.start_time or 0)) * stream.time_base)
                seconds = float((frame.pts - start) * stream.time_base)
                if frame.is_corrupt:  # the decoder concealed an error, and later frames depend on it
                    damage = f"the picture at {seconds:.3f} s is damaged"
                    return
                count += 1
                if seconds > last:
                    last = seconds
                    yield seconds, float(frame.duration * stream.time_base) if frame.duration else period, frame
                else:
                    self._dropped += 1

        try:
            for packet in container.demux():
                if packet.pts is not None and packet.time_base:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
                if packet.stream.index != stream.index:
                    continue
                if packet.is_corrupt:  # libav marks a truncated packet
                    damage = "its last packet is cut short"
                    break
                hidden += packet.is_discard
                yield from decoded(packet)
                if damage:
                    break
        except FFmpegError as error:
            damage = f"decoding stops with {error.strerror!r}"
        if damage and "picture" not in damage:
            yield from decoded(None)
        self.lost = self._incompleteness(promised, count, hidden, end, period, damage)

    def seek(self, begin: float) -> Iterator[tuple[float, av.VideoFrame]]:
        """Yield (time s from the start of the stream, frame), from a key frame at or before `begin` (s) on.

        Earlier frames are not decoded, and completeness is not checked. Raises ValueError, naming the path.
        """
        stream, container = self._stream, self._container
        start, tick = stream.start_time or 0, Fraction(stream.time_base)
        try:
            first, back = None, 0.0
            # The seek may land on a key frame that is decoded before `begin` but shown after it (HEVC): then seek further back.
            while first is None or first.pts is None or (first.pts - start) * tick > begin:
                if back > 4 * begin + 4:
                    return
                container.seek(start + math.floor(max(begin - back, 0.0) / tick), stream=stream)
                frames = container.decode(stream)
                first, back = next(frames, None), 4 * back + 1
            for frame in itertools.chain([first], frames):
                if frame is not None and frame.pts is not None:
                    yield float((frame.pts - start) * tick), frame
        except (FFmpegError, OSError, UnicodeError) as error:
            raise ValueError(f"{self.path}: cannot be decoded ({error}); get the file again") from error

    def packets(self) -> Iterator[tuple[float, Any]]:
        """Yield (time s from the start of the stream, packet) without decoding. Raises as `seek`."""
        stream = self._stream
        start, tick = stream.start_time or 0, Fraction(stream.time_base)
        try:
            for packet in self._container.demux(stream):
                if packet.size and (instant := packet.dts if packet.pts is None else packet.pts) is not None:
                    yield float((instant - start) * tick), packet
        except (FFmpegError, OSError, UnicodeError) as error:
            raise ValueError(f"{self.path}: cannot be read ({error}); get the file again") from error

    @property
    def codec(self) -> Any:
        """Codec of the pictures, as libav describes it."""
        return self._stream.codec_context.codec

    @property
    def seconds(self) -> float:
        """Later of the ends of the pictures and of the file, according to the container, s; inf if unknown."""
        stream = self._stream
        ends = [stream.duration and float(stream.duration * stream.time_base), self._length]
        return max((end for end in ends if end), default=math.inf)

    @property
    def _length(self) -> float:
        """Length of the file, s; 0 if unknown."""
        return float(self._container.duration or 0) / av.time_base

    @property
    def notes(self) -> tuple[str, ...]:
        """Conversions and losses in the frames, one line each."""
        notes = [f"{self._dropped} frames that are shown no later than the one before are left out"] * (self._dropped > 0)
        if self._first is not None:
            clear = any(part.is_alpha for part in self._first.format.components)
            if clear or self._stream.metadata.get("alpha_mode") == "1":
                notes.append("its transparency is left out")
            if self._first.color_trc in _HDR:
                notes.append("its colours of high dynamic range are converted to sRGB")
        return tuple(notes)

    def _incompleteness(self, promised: int, count: int, hidden: int, end: float, period: float, damage: str) -> str:
        length = self._length
        short = end < length - max(2 * period, 0.1)
        if not (damage or short or self.size < self.promised or count + hidden < promised):
            return ""
        promises = [f"{promised} frames"] * (promised > 0) + [f"{length:.3f} s"] * (length > 0)
        promises += [f"{self.promised} bytes"] * (self.promised > 0)
        held = f"{count + hidden} frames could be decoded, to {min(end, (count + hidden) * period):.3f} s, of {self.size} bytes"
        return f"the container promises {', '.join(promises)}; {held}" + (f" ({damage})" if damage else "")


def _flush(stream: Any) -> list[av.VideoFrame]:
    """Frames that the decoder still holds after the last good packet."""
    try:
        return stream.codec_context.decode(None)
    except FFmpegError:
        return []


def upright(frame: av.VideoFrame, path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """Upright sRGB picture: colour matrix, HDR transfer and rotation of the frame's metadata applied. Raises ValueError."""
    hdr = frame.color_trc in _HDR
    picture = frame.reformat(
        format="rgb24",
        interpolation=_EXACT,
        # Players assume BT.709 for untagged pictures of 720 rows or more, else BT.601; swscale alone always assumes BT.601.
        src_colorspace=Colorspace.ITU709 if frame.colorspace == _UNTAGGED and frame.height >= 720 else None,
        dst_color_trc=ColorTrc.IEC61966_2_1 if hdr else None,
        dst_color_primaries=ColorPrimaries.BT709 if hdr else None,
    )
    return np.rot90(picture.to_ndarray(), quarter_turns(frame, path))


def quarter_turns(frame: av.VideoFrame, path: Path) -> int:
    """Counter-clockwise quarter turns to the upright frame. Raises ValueError for another angle."""
    if frame.rotation % 90:
        raise ValueError(f"{path}: is rotated by {frame.rotation} degrees; needed a multiple of 90")
    return frame.rotation // 90 % 4


def promised_bytes(path: Path) -> tuple[int, int]:
    """(size of the file, sum of the sizes of its outermost mp4/mov or webm elements; 0 if unknown).

    Layouts: ISO/IEC 14496-12 section 4.2 (boxes), RFC 8794 sections 4 and 6 (EBML).
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        return size, _promised_ebml(file) if head == b"\x1a\x45\xdf\xa3" else _promised_boxes(file, size)


def _promised_boxes(file: Any, size: int) -> int:
    offset = promised = 0
    while offset + 8 <= size:
        file.seek(offset)
        length, kind = struct.unpack(">I4s", file.read(8))
        if length == 1:
            length = int.from_bytes(file.read(8), "big")
        if length < 8 or not (kind.isascii() and kind.decode("latin1").isprintable()):
            break
        offset += length
        if kind in (b"mdat", b"moov", b"moof"):
            promised = offset
    return promised


def _promised_ebml(file: Any) -> int:
    end = 0
    for kind in (b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"):  # EBML header, Segment
        if file.read(4) != kind:
            return 0
        first = file.read(1)
        extra = 8 - first[0].bit_length() if first and first[0] else -1
        if extra < 0:
            return 0
        digits = bytes([first[0] & (0x7F >> extra)]) + file.read(extra)
        length = int.from_bytes(digits, "big")
        if length == 2 ** (7 * (extra + 1)) - 1:  # all ones: written as a stream, size unknown
            return 0
        end = file.tell() + length
        if end > 2**62:
            return end
        file.seek(end)
    return end
