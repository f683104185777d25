"""Real video -> a WSV dataset: one channel, rgb, in clips of equal length; no camera, no core, captions where given."""

import difflib
import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data_pipelines import wsv
from data_pipelines.recording.video import Video, frames, sample, scan
from data_pipelines.wsv import manifest
from data_pipelines.wsv.folder import Folder
from wsm_jax.snapshot import WSV, restore

CAPTION_BYTES = 512
"""Longest caption, in bytes of UTF-8."""

SHARD_BYTES = 64 * 2**20
"""Pixels of a shard, at most (or one clip): what a build holds in memory, fourfold, and loses when it is killed."""


def ingest(
    inputs: Sequence[str | Path],
    out: str | Path,
    *,
    name: str,
    height: int,
    width: int,
    frame_hz: float | int,
    clip_seconds: float | int,
    licence: str,
    codec: str = "jpeg",
    captions: Mapping[str, Sequence[str]] | None = None,
    fps: float | int | None = None,
    allow_truncated: bool = False,
    progress: bool = True,
) -> dict[str, Any]:
    """Builds the dataset `out` from video files and folders of frames, and returns its manifest.

    Every input is decoded twice: once to know that it is whole, before anything is written, and once to cut the clips. They
    are sampled at frame_hz by presentation time from the first frame on, centre-cropped and area-resized to height x width,
    and cut into windows of clip_seconds that follow one another; what is left at the end is dropped, and the manifest says
    how much. `fps` is the rate of inputs that are folders; `captions` maps the file name of an input to its texts.
    A killed build goes on when called again with the same arguments.

    Raises FileNotFoundError or ValueError, naming the input, before anything is written: no video, one frame, ends early
    (unless `allow_truncated`), shorter than a clip, pictures of different sizes, the same video twice; OSError for a full disk.
    """
    length = _clip_frames(inputs, name, licence, frame_hz, clip_seconds)
    texts = _captions([Path(path).name for path in inputs], captions or {})
    if fps is not None and not any(Path(path).is_dir() for path in inputs):
        raise ValueError(
            f"ingest: fps={fps:g} is the rate of folders of frames, and no input is one; video files bring their own"
        )
    if Folder(out).read(manifest.MANIFEST) is not None:
        raise ValueError(f"{out}: a finished dataset is here; write elsewhere, or delete it first")
    videos: list[Video] = []
    sources: list[dict[str, Any]] = []
    with tqdm(inputs, "reading", unit="video", disable=not progress) as bar:
        for path in bar:
            video = scan(path, fps if Path(path).is_dir() else None, allow_truncated)
            source = _source(video, licence, frame_hz, length, sum(source["clips"] for source in sources))
            twin = next((old["name"] for old in sources if old["sha256"] == source["sha256"]), None)
            if twin is not None:
                raise ValueError(f"{video.path}: is the same video as {twin}, given before; needed every input once")
            videos.append(video)
            sources.append(source)
    clips = sum(source["clips"] for source in sources)
    layout = _layout(clips, length, height, width, frame_hz, codec, bool(captions))
    build = {
        "verb": "ingest",
        "frame_hz": frame_hz,
        "clip_seconds": clip_seconds,
        "fps": fps,
        "allow_truncated": allow_truncated,
    }
    build["captions"] = {key: list(value) for key, value in (captions or {}).items()}
    writer = wsv.create(out, layout, name=name, sources=sources, build=build)
    wanted = {clip for shard in writer.missing() for clip in layout.span(shard)}
    shard: list[WSV] = []
    made = _clips(videos, sources, texts, layout, wanted)
    with tqdm(made, "writing", len(wanted), unit="clip", disable=not progress) as bar:
        for clip, pixels, text in bar:
            shard.append(WSV({"rgb": np.asarray(restore("rgb", pixels))}, np.arange(length) / frame_hz, text=text))
            if clip + 1 == layout.span(clip // layout.clips_per_shard).stop:
                writer.write(clip // layout.clips_per_shard, shard)
                shard = []
    return writer.finish()


def _layout(clips: int, length: int, height: int, width: int, frame_hz: float | int, codec: str, captions: bool) -> wsv.Layout:
    return wsv.Layout(
        clips=clips,
        frames=length,
        height=height,
        width=width,
        frame_hz=frame_hz,
        ticks=0,
        waves=0,
        channels=("rgb",),
        rgb_codec=codec,
        clips_per_shard=int(np.clip(SHARD_BYTES // (length * height * width * 3), 1, 64)),
        frames_per_chunk=max(1, min(length, round(frame_hz))),
        camera=False,
        captions=captions,
    )


def _clip_frames(
    inputs: Sequence[str | Path], name: str, licence: str, frame_hz: float | int, clip_seconds: float | int
) -> int:
    """Frames of a clip, once the arguments make sense."""
    if not inputs:
        raise ValueError("ingest: no inputs; needed at least one video (mp4, mov, webm, mkv) or folder of jpg/png frames")
    for key, value in (("name", name), ("licence", licence)):
        if not value.strip():
            raise ValueError(f"ingest: {key} is empty; every dataset states its {key}")
    if not (0 < frame_hz < math.inf and 0 < clip_seconds < math.inf):
        raise ValueError(f"ingest: {frame_hz:g} frames a second, clips of {clip_seconds:g} s; needed positive numbers")
    length = round(clip_seconds * frame_hz)
    if length < 2 or abs(length - clip_seconds * frame_hz) > 1e-3:
        raise ValueError(
            f"ingest: clips of {clip_seconds:g} s at {frame_hz:g} Hz are {clip_seconds * frame_hz:g} frames; needed a whole "
            f"number, at least 2, as with {max(length, 2) / frame_hz:.6g} s"
        )
    return length


def _captions(names: list[str], captions: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    """The texts of every input. Raises KeyError for a name that is no input, ValueError for a text that cannot be a caption."""
    for key, texts in captions.items():
        if names.count(key) != 1:
            near = difflib.get_close_matches(key, names, 1)
            raise KeyError(
                f"captions: {key!r} names {names.count(key)} of the inputs, needed 1"
                + (f"; is it {near[0]!r}?" if near else "")
            )
        if isinstance(texts, str) or not all(isinstance(text, str) for text in texts):
            raise ValueError(f"captions: {key!r} has {texts!r}; needed a list of texts")
        for text in texts:
            size = len(text.encode())
            if not text.strip() or size > CAPTION_BYTES:
                raise ValueError(f"captions: a text of {key!r} has {size} bytes ({text[:40]!r}); needed 1 to {CAPTION_BYTES}")
    return [tuple(captions[name]) if name in captions else () for name in names]


def _source(video: Video, licence: str, frame_hz: float | int, length: int, first_clip: int) -> dict[str, Any]:
    """Where the clips of a video come from, for the manifest; names no directory."""
    count = len(sample(video, frame_hz))
    if count < length:
        raise ValueError(
            f"{video.path}: lasts {video.seconds:.3f} s, {count} frames at {frame_hz:g} Hz; needed {length} frames "
            f"({length / frame_hz:g} s) for one clip"
        )
    return {
        "name": video.path.name,
        "licence": licence,
        "sha256": _sha256(video),
        "fps": video.fps,
        "height": video.height,
        "width": video.width,
        "seconds": video.seconds,
        "frames": len(video.time),
        "lost": video.lost,
        "first_clip": first_clip,
        "clips": count // length,
        "seconds_used": count // length * length / frame_hz,
    }


def _sha256(video: Video) -> str:
    """Digest of a video file, or of a folder's frames in order, each by name and content."""
    if not video.files:
        with video.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for path in video.files:
        digest.update(os.fsencode(path.name) + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _clips(
    videos: list[Video], sources: list[dict[str, Any]], texts: list[tuple[str, ...]], layout: wsv.Layout, wanted: set[int]
) -> Iterator[tuple[int, np.ndarray, tuple[str, ...]]]:
    """(clip, uint8 [T H W 3], captions) of the wanted clips, in order; a video that is not wanted is not decoded."""
    for video, source, text in zip(videos, sources, texts, strict=True):
        clips = [clip for clip in range(source["first_clip"], source["first_clip"] + source["clips"]) if clip in wanted]
        if not clips:
            continue
        windows = sample(video, layout.frame_hz)[: source["clips"] * layout.frames].reshape(-1, layout.frames)
        pictures = frames(video, windows[[clip - source["first_clip"] for clip in clips]].ravel(), layout.height, layout.width)
        for clip in clips:
            yield clip, np.stack([next(pictures) for _ in range(layout.frames)]), text
