"""The same episodes in the formats of all contenders of `python -m launch.bench loader`: one folder for each kind and size.

    rgb/  core/         WSV of simulated video, lossless: rgb alone, and with cameras, core and captions
    train/              WSV of simulated video with all channels, cameras, core and captions, as the quickstart trains on
    jpeg/  h264/        WSV of real video
    rgb-2/  h264-16/    the same in chunks of 2, or runs of 16 frames
    clips.array_record  a record per episode: the pickle of {"raw_video": bytes, "sequence_length": T}, Jasmine's format
    clips.tar           an .mp4 per episode, WebDataset's format
    npy/00000.npy ...   an array per episode
    frames.raw          the bytes of all frames, one after another
    windows_16.npy      [W 2]: (episode, first frame) of the clips of 16 frames, in the order in which our loader asks for them

Both kinds are made once, at the largest size; smaller sizes are means over its pixels. Episodes are repeated up to 64 MiB of
pixels, more than a processor's caches.
"""

import dataclasses
import io
import itertools
import json
import pickle
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from unittest import mock

import av
import numpy as np

from data_pipelines import wsv
from data_pipelines.ingest.bucket import Bucket
from data_pipelines.ingest.build import IngestOptions, ingest
from data_pipelines.ingest.scheduler import Scheduler
from data_pipelines.loading.clips import Clips
from data_pipelines.loading.loader import Loader
from data_pipelines.loading.transforms import Keep, Tokenise
from data_pipelines.simulation.captions import VOCABULARY
from data_pipelines.simulation.mention import MentionOrder
from data_pipelines.simulation.simulate import simulate
from data_pipelines.wsv.clip import Clip
from wsm_jax.snapshot import TICK_HZ, resize
from wsm_jax.text import Tokenizer

EPISODE = 160
"""Frames of an episode, as in Jasmine's records."""
REPEATED_BYTES = 2**26
BRIDGE_CHANNELS = (
    "rgb",
    "base_colour",
    "instance",
    "semantic",
    "depth",
    "normal",
    "coverage",
    "local",
    "centre",
    "extent",
    "ground",
)
"""Channels of the bridge in experiments/quickstart.py."""
_TEXT_LENGTH = 44
"""Tokens of a text there."""
_SIMULATED_HZ, _REAL_HZ = 8.0, 24.0
_MP4 = {"crf": "18", "preset": "medium"}


def simulated(path: Path, episodes: int, size: int) -> wsv.Dataset:
    """The dataset of simulated scenes at `path`, created if missing."""
    simulate(
        path,
        scenes=episodes,
        seed=0,
        height=size,
        width=size,
        frame_hz=_SIMULATED_HZ,
        seconds=EPISODE / _SIMULATED_HZ,
        workers=2,
        clips_per_shard=1,
        progress=False,
    )
    return wsv.Dataset(path)


def real(path: Path, videos: Sequence[Path], size: int) -> wsv.Dataset:
    """The lossless dataset of real videos at `path`, created if missing."""
    bucket = Bucket(size, size, _REAL_HZ, EPISODE / _REAL_HZ)
    # The files are not distributed: they are deleted, or stay in the user's folder.
    options = IngestOptions(name="real", licence="as the videos", buckets=[bucket], codec="array")
    ingest([str(video) for video in videos], path, options, Scheduler(progress=False))
    return wsv.Dataset(path)


def write(root: Path, source: wsv.Dataset, size: int, codecs: Sequence[str]) -> Path:
    """The folder of all contenders' files of the episodes of a lossless dataset; a finished one is not changed."""
    done = root / "done.json"
    wanted = {"source": source.name, "clips": len(source), "codecs": list(codecs), "repeated": REPEATED_BYTES}
    if done.exists() and json.loads(done.read_text()) == wanted:
        return root
    (root / "npy").mkdir(parents=True, exist_ok=True)
    frames = [resize("rgb", source.read(clip, ["rgb"])["rgb"], size, size) for clip in range(len(source))]
    copies = -(-REPEATED_BYTES // sum(episode.nbytes for episode in frames))
    order = list(range(len(source))) * copies
    _write_datasets(root, source, frames, order, codecs)
    films = [encode_mp4(episode, source.layout.frame_hz) for episode in frames]
    _write_array_record(root / "clips.array_record", (frames[clip] for clip in order))
    with tarfile.open(root / "clips.tar", "w") as tar:
        for number, clip in enumerate(order):
            member = tarfile.TarInfo(f"{number:05d}.mp4")
            member.size = len(films[clip])
            tar.addfile(member, io.BytesIO(films[clip]))
    with (root / "frames.raw").open("wb") as raw:
        for number, clip in enumerate(order):
            raw.write(frames[clip].tobytes())
            np.save(root / "npy" / f"{number:05d}.npy", frames[clip])
    done.write_text(json.dumps(wanted))
    return root


def _write_datasets(
    root: Path, source: wsv.Dataset, frames: Sequence[np.ndarray], order: Sequence[int], codecs: Sequence[str]
) -> None:
    held = source.layout
    changes = {"clips": len(order), "height": frames[0].shape[1], "width": frames[0].shape[2], "channels": ("rgb",)}
    changes |= {"clips_per_shard": 16, "measures": (), "derived": (), "captions": False, "camera": False, "ticks": 0}
    for name in codecs:
        kind, _, chunk = name.partition("-")
        plain = kind in ("rgb", "core", "raw", "train")
        layout = dataclasses.replace(held, **changes, rgb_codec="array" if plain else kind)
        layout = dataclasses.replace(layout, compression="none" if kind == "raw" else "zstd")
        layout = dataclasses.replace(layout, frames_per_chunk=int(chunk)) if chunk else layout
        if kind in ("core", "train"):
            layout = dataclasses.replace(layout, captions=held.captions, camera=held.camera, ticks=held.ticks)
        if kind == "train":
            layout = dataclasses.replace(layout, channels=held.channels)
        if (root / name / "manifest.json").exists():
            continue
        writer = wsv.create(root / name, layout, name="bench", sources=source.manifest["sources"], build={"of": source.name})
        for shard in writer.missing():
            writer.write(shard, [_clip(source, order[i], frames[order[i]], kind) for i in layout.span(shard)])
        writer.finish()


def _clip(source: wsv.Dataset, clip: int, frames: np.ndarray, kind: str) -> Clip:
    if kind not in ("core", "train"):
        return Clip({"rgb": frames}, source.frame_time(clip))
    channels, size = {"rgb": frames}, frames.shape[1:3]
    if kind == "train":
        others = source.read(clip, [name for name in source.layout.channels if name != "rgb"])
        channels |= {name: resize(name, values, *size) for name, values in others.items()}
    core, core_time = source.core(clip) or (None, None)
    text = {"text": source.captions(clip), "spans": source.spans(clip), "events": source.events(clip)}
    return Clip(channels, source.frame_time(clip), source.camera(clip), core, core_time, **text)


def _write_array_record(path: Path, episodes: Iterable[np.ndarray]) -> None:
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(path), "group_size:1")
    for episode in episodes:
        writer.write(pickle.dumps({"raw_video": episode.tobytes(), "sequence_length": len(episode)}))
    writer.close()


def encode_mp4(frames: np.ndarray, frame_hz: float) -> bytes:
    """An .mp4 file of H.264 with the encoder's default key frames: every 250 frames, and at cuts."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=round(frame_hz), options=_MP4)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def our_loader(path: Path | str, frames: int, batch: int, threads: int, hosts: int = 1, aligned: bool = False) -> Loader:
    """Our loader of `batch` clips of `frames` frames for the first of `hosts`, with the core of the same duration if there is
    one."""
    layout = wsv.Dataset(path).layout
    clips = Clips(
        sources=((str(path), 1.0),),
        channels=("rgb",),
        frames=frames,
        height=layout.height,
        width=layout.width,
        ticks=round(frames * TICK_HZ / layout.frame_hz) if layout.ticks else 0,
        waves=max(layout.waves, 1),
        threads=threads,
        aligned=aligned,
    )
    return clips.open(Path(), rows=batch * hosts, seed=0, hosts=hosts)


def stage_loader(path: Path, stage: str, frames: int, batch: int, threads: int, hosts: int = 1) -> Loader:
    """Our loader of the batches of a stage of the quickstart: the channels of its "bridge", or the core and tokens of its
    "world" for the duration of `frames`."""
    layout = wsv.Dataset(path).layout
    clips = Clips(
        sources=((str(path), 1.0),),
        channels=BRIDGE_CHANNELS,
        frames=frames,
        height=layout.height,
        width=layout.width,
        waves=max(layout.waves, 1),
        threads=threads,
        transforms=(Keep(("channels", "known")),),
    )
    if stage == "world":
        clips = Clips(
            sources=clips.sources,
            ticks=round(frames * TICK_HZ / layout.frame_hz),
            waves=clips.waves,
            first_caption=True,
            threads=threads,
            transforms=(
                MentionOrder(latents=()),
                Tokenise(Tokenizer(VOCABULARY, _TEXT_LENGTH)),
                Keep(("tokens", "core", "known")),
            ),
        )
    return clips.open(Path(), rows=batch * hosts, seed=0, hosts=hosts)


def windows(root: Path, codecs: Sequence[str], frames: int, count: int) -> np.ndarray:
    """(episode, first frame) of the first `count` clips that our loader reads; the same for all of our datasets."""
    path = root / f"windows_{frames}.npy"
    if path.exists() and len(found := np.load(path)) == count:
        return found
    asked: list[tuple[int, int]] = []

    def read_rows(dataset: wsv.Dataset, clips: Sequence[int], steps: Sequence[slice], *given: object) -> None:
        asked.extend((clip, some.start) for clip, some in zip(clips, steps, strict=True))

    with mock.patch.object(wsv.Dataset, "read_rows", read_rows):
        for _ in itertools.islice(our_loader(root / codecs[0], frames, 1, 0), count):
            pass
    np.save(path, np.array(asked))
    return np.array(asked)
