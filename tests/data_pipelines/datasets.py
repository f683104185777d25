"""Small datasets for tests: a layout, to be changed to what a test needs, and what writes and loads a dataset."""

from collections.abc import Callable, Sequence
from typing import Any

from data_pipelines.loading.clips import Clips
from data_pipelines.loading.loader import Loader
from data_pipelines.loading.source import DatasetSource
from data_pipelines.wsv import Layout, Writer
from data_pipelines.wsv.clip import Clip
from wsm_jax.snapshot import STORED, WSF, WSV

FULL = Layout(
    clips=5,
    frames=7,
    height=6,
    width=8,
    frame_hz=8.0,
    ticks=9,
    waves=3,
    channels=STORED,
    rgb_codec="array",
    clips_per_shard=2,
    frames_per_chunk=3,
    camera=True,
    captions=True,
)
SOURCES = [{"name": "random numbers", "licence": "CC0-1.0"}]


def fill(writer: Writer, clip: Callable[[int], WSV | WSF | Clip]) -> dict[str, Any]:
    """Writes the shards that are missing, of the clips by their numbers; returns the manifest."""
    for shard in writer.missing():
        writer.write(shard, [clip(number) for number in writer.layout.span(shard)])
    return writer.finish()


def open_clips(
    sources: Sequence[DatasetSource],
    *,
    rows: int,
    seed: int,
    host: int = 0,
    hosts: int = 1,
    epochs: int | None = None,
    **fields: Any,
) -> Loader:
    """A loader of clips from datasets with absolute paths."""
    clips = Clips(sources=tuple(sources), **fields)
    return clips.open("/nowhere", rows=rows, seed=seed, host=host, hosts=hosts, epochs=epochs)
