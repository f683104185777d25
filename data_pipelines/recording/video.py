"""Videos: their metadata, and their frames by presentation time.

A *video* is an mp4, mov or webm file, or a folder of jpg/png frames with a rate. Time counts from its first frame, in seconds.
Frame i is on screen from time[i] until the next frame, so a video of varying rate is sampled as in a player. Pixels are upright
(rotation metadata applied), square, sRGB.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from data_pipelines.recording.decode import WANTED, VideoDecoder, quarter_turns, upright
from data_pipelines.recording.recording import Recording
from data_pipelines.recording.segment import Segment
from data_pipelines.recording.stills import folder_files, load_picture, load_rgb, read_picture_head
from wsm_jax.snapshot import WSV, crop_box, resize, restore
from wsm_jax.typing import Float, Int, UInt8

_SEEK_S = 2.0
"""Time after which frames are reached by a seek, s."""
_ASPECT = 16
"""Largest plausible aspect of a pixel."""


@dataclasses.dataclass(frozen=True)
class Video:
    """Metadata of a video from `scan`, which decodes all of it once."""

    path: Path
    time: Float[np.ndarray, " T"]
    """Presentation time of every frame, s, from 0, strictly increasing."""
    seconds: float
    """End of the last frame, s."""
    height: int
    width: int
    """Pixels of the first frame, upright."""
    lost: str
    """Missing part according to the container; empty for a complete video."""
    files: tuple[Path, ...]
    """Frames of a folder, in order; empty for a video file."""
    pixel_aspect: float = 1.0
    """Width over height of a pixel of the upright picture."""
    notes: tuple[str, ...] = ()
    """Conversions and losses, one line each."""

    @property
    def fps(self) -> float:
        """Mean frame rate, Hz."""
        return len(self.time) / self.seconds


def scan(
    path: str | Path,
    fps: float | int | None = None,
    allow_truncated: bool = False,
    until: float | int | None = None,
    watch: Callable[[av.VideoFrame | np.ndarray], None] | None = None,
) -> Video:
    """Decode a video once, keeping no picture, and return its metadata.

    `fps` is the rate of a folder of frames (required there, refused elsewhere). Reading stops at `until` (s), without a check
    of the rest. A truncated video is an error unless `allow_truncated`. `watch` is called with every frame. Raises
    FileNotFoundError or ValueError, naming the path.
    """
    path = Path(path)
    if path.is_dir():
        return _scan_folder(path, fps, watch)
    if fps is not None:
        raise ValueError(f"{path}: a rate of {fps:g} frames a second was given, but a video file brings its own times")
    time: list[float] = []
    height = width = 0
    aspect = 1.0
    end = 0.0
    with VideoDecoder(path, threads=False) as decoder:
        for seconds, length, frame in decoder:
            level = quarter_turns(frame, path) % 2 == 0
            size = (frame.height, frame.width) if level else (frame.width, frame.height)
            if not time:
                height, width = size
                aspect = decoder.pixel_aspect if level else 1 / decoder.pixel_aspect
            elif size != (height, width):
                raise ValueError(
                    f"{path}: its pictures are {height} x {width} pixels, from {seconds:.3f} s on {size[0]} x {size[1]}; "
                    "needed one size: cut it there"
                )
            if until is not None and seconds >= until:
                end = seconds
                break
            time.append(seconds)
            end = seconds + length
            if watch is not None:
                watch(frame)
        lost, notes = decoder.lost, decoder.notes
    if not 1 / _ASPECT <= aspect <= _ASPECT:
        raise ValueError(f"{path}: has pixels {aspect:g} times as wide as high; needed 1/{_ASPECT} .. {_ASPECT}")
    if len(time) > 1 and end - time[-1] < 0.5 * (gap := float(np.median(np.diff(time)))):
        end = time[-1] + gap  # at a varying rate many files have a last frame of one clock tick
    if lost and not allow_truncated:
        raise ValueError(f"{path}: ends early: {lost}; get the whole file, or keep what is there with allow_truncated")
    if len(time) < 2:
        raise ValueError(f"{path}: has {len(time)} frame{'s' * (len(time) != 1)}; {WANTED} with at least 2 frames")
    return Video(path, np.asarray(time), end, height, width, lost, (), aspect, notes)


def _scan_folder(path: Path, fps: float | int | None, watch: Callable[[av.VideoFrame | np.ndarray], None] | None) -> Video:
    files = folder_files(path)
    if fps is None or not fps > 0:
        raise ValueError(
            f"{path}: a folder of frames has no times of its own; needed a positive rate in frames a second, got {fps}"
        )
    if len(files) < 2:
        raise ValueError(f"{path}: has {len(files)} jpg/png frame{'s' * (len(files) != 1)}; needed at least 2")
    height = width = clear = 0
    for file in files:
        picture = load_rgb(file)
        clear += read_picture_head(file).alpha
        rows, columns = picture.shape[:2]
        height, width = height or rows, width or columns
        if (rows, columns) != (height, width):
            raise ValueError(f"{file}: is {rows} x {columns} pixels, the folder's first frame {height} x {width}; needed one")
        if watch is not None:
            watch(picture)
    notes = (f"{clear} frames are transparent in parts, which are black",) if clear else ()
    return Video(path, np.arange(len(files)) / fps, len(files) / fps, height, width, "", files, notes=notes)


def sample(video: Video, frame_hz: float | int) -> Int[np.ndarray, " T"]:
    """Index of the frame on screen at 0, 1/frame_hz, 2/frame_hz, ... s, to the end of the video.

    Raises ValueError if frame_hz exceeds the mean rate of the video, because frames would be repeated.
    """
    if not frame_hz > 0:
        raise ValueError(f"frame rate {frame_hz:g} Hz; needed a positive one")
    if frame_hz > 1.01 * video.fps:
        raise ValueError(f"{video.path}: has {video.fps:.4g} frames a second; needed at least the {frame_hz:g} asked for")
    count = max(frame_count(video.seconds, frame_hz), 1)
    return on_screen(video.time, np.arange(count) / frame_hz, video.fps)


def frame_count(seconds: float, frame_hz: float | int) -> int:
    """Number of frames in `seconds` at a rate; the last one is on screen for at least 5 % of a step."""
    return max(int(np.ceil(seconds * frame_hz - 0.05)), 0)


def on_screen(time: Float[np.ndarray, " T"], instants: Float[np.ndarray, " N"], fps: float) -> Int[np.ndarray, " N"]:
    """Index of the frame on screen at each of the `instants` (s); frames begin at `time` (s), at `fps` on average.

    i = max {j : time[j] <= t + min(1 ms, 1 / (4 fps))}
    """
    # Containers round times, webm to 1 ms: a frame that starts later by no more than that counts as on time.
    return np.searchsorted(time, instants + min(1e-3, 0.25 / fps), side="right") - 1


def frames(video: Video, indices: Sequence[int] | np.ndarray, height: int, width: int) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Yield the frames at `indices` (not decreasing, repeats allowed), resized by `fit`. Raises as `pictures`."""
    last: tuple[np.ndarray, np.ndarray] | None = None
    for picture in pictures(video, indices):
        if last is None or picture is not last[0]:
            last = picture, fit(picture, height, width, video.pixel_aspect)
        yield last[1]


def pictures(video: Video, indices: Sequence[int] | np.ndarray) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Yield the upright frames at `indices` (not decreasing, repeats allowed), at full size. Raises ValueError or OSError."""
    wanted = [int(i) for i in indices]
    if any(b < a for a, b in itertools.pairwise(wanted)) or (wanted and not 0 <= wanted[0] <= wanted[-1] < len(video.time)):
        raise ValueError(f"{video.path}: frame indices must not decrease and lie in 0..{len(video.time) - 1}")
    if video.files:
        for index, repeats in itertools.groupby(wanted):
            picture = load_rgb(video.files[index])
            yield from (picture for _ in repeats)
        return
    with VideoDecoder(video.path) as decoder:
        source = enumerate(decoder)
        for index, repeats in itertools.groupby(wanted):
            frame = next((frame for i, (_, _, frame) in source if i == index), None)
            if frame is None:
                raise ValueError(
                    f"{video.path}: had {len(video.time)} frames when it was scanned, now fewer; it changed meanwhile"
                )
            picture = upright(frame, video.path)
            yield from (picture for _ in repeats)


def fit(picture: UInt8[np.ndarray, "H W 3"], height: int, width: int, pixel_aspect: float = 1.0) -> UInt8[np.ndarray, "h w 3"]:
    """Crop around the centre to the aspect of height x width, and resize; `pixel_aspect` is width over height of a pixel."""
    top, left, rows, columns = crop_box(picture.shape[:2], height, width, pixel_aspect)
    return resize("rgb", picture[top : top + rows, left : left + columns], height, width)


def video_recording(video: Video, name: str) -> Recording:
    """Recording of a scanned video."""
    size = np.tile(np.array([[video.height, video.width]]), (len(video.time), 1))
    notes = (*video.notes, *([f"it ends early: {video.lost}"] if video.lost else []))
    files = video.files or (video.path,)
    rest = {"pixel_aspect": video.pixel_aspect, "notes": notes}
    return Recording(name, "video", video.time, video.seconds, size, ("rgb",), VideoPictures(video), files, **rest)


@dataclasses.dataclass(frozen=True)
class VideoPictures:
    """Pictures of a video, decoded from the key frame before the first requested one; a `Pictures`."""

    video: Video

    def __call__(self, indices: Sequence[int]) -> Iterator[dict[str, Any]]:
        if self.video.files:
            yield from (load_picture(self.video.files[index]) for index in indices)
            return
        count = 0
        if len(indices) and self.video.time[indices[0]] > _SEEK_S:
            near = 0.25 * float(np.min(np.diff(self.video.time)))
            try:
                with VideoDecoder(self.video.path) as decoder:
                    next(iter(decoder), None)
                for picture in Segment(self.video.path, self.video.time + decoder.late, near)(indices):
                    yield picture
                    count += 1
                return
            except ValueError:
                pass  # damaged index or other start time: decode from the start, as `scan` did
        for picture in itertools.islice(pictures(self.video, indices), count, None):
            yield {"rgb": picture}


def read_video(
    path: str | Path,
    frame_hz: float | int,
    height: int,
    width: int,
    seconds: float | int | None = None,
    *,
    fps: float | int | None = None,
    allow_truncated: bool = False,
) -> WSV:
    """One video as a WSV of rgb alone, sampled at frame_hz from its start, over `seconds` (None: the whole).

    Raises FileNotFoundError or ValueError, naming the path: no video, one frame, truncated, shorter than `seconds`.
    """
    video = scan(path, fps, allow_truncated, until=seconds)
    indices = sample(video, frame_hz)
    if seconds is not None:
        count = round(seconds * frame_hz)
        if count < 1 or len(indices) < count:
            raise ValueError(
                f"{video.path}: lasts {video.seconds:.3f} s, {len(indices)} frames at {frame_hz:g} Hz; needed {seconds:g} s"
            )
        indices = indices[:count]
    rgb = np.stack(list(frames(video, indices, height, width)))
    return WSV({"rgb": np.asarray(restore("rgb", rgb))}, np.arange(len(rgb)) / frame_hz).check()
