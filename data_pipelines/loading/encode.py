"""Writes latents of a trained stage into datasets: codes of every clip, made once and read by a later stage."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from tqdm import tqdm

from data_pipelines.loading.batch import read
from data_pipelines.loading.latents import WRITTEN, LatentPointer, write_pointer
from data_pipelines.loading.source import DatasetSource, expand_collections, resolve
from data_pipelines.wsv import Dataset
from data_pipelines.wsv.latents import write_latents
from wsm_jax.snapshot import CAMERA_CHANNELS
from wsm_jax.typing import Float, PyTree

ROWS = 8
"""Clips that are encoded together."""


@runtime_checkable
class Encoder(Protocol):
    """A trained model that makes one array of each clip."""

    key: str
    """Name of the latents in batches."""
    frames: int
    """Frames of a clip that it reads, evenly spaced."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Channels that a dataset must have."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the latents of a clip."""
        ...

    def __call__(self, params: PyTree, channels: dict[str, np.ndarray]) -> Float[np.ndarray, "B ..."]:
        """Latents of clips, from stored channels [B T H W C]."""
        ...


def encode_datasets(
    workdir: Path, stage: str, paths: Sequence[str], encoder: Encoder, params: PyTree, version: str, progress: bool
) -> dict[str, str]:
    """Writes the latents of datasets, or collections, and the pointer file of the stage; returns path -> outcome.

    Latents are named KEY.VERSION; `version` stands for the weights, so that a dataset holds those of several trainings, and
    what is there already is not made again. A dataset without the channels gets none, and the outcome names them. Raises
    FileNotFoundError for a dataset that is not there, OSError where it cannot be written.
    """
    name, outcome = f"{encoder.key}.{version}", {}
    sources = expand_collections([DatasetSource(resolve(path, workdir)) for path in paths])
    for source in sources:
        path = str(source.path)
        dataset = Dataset(path)
        camera = CAMERA_CHANNELS if dataset.layout.camera else ()
        lacking = [channel for channel in encoder.channels if channel not in (*dataset.layout.channels, *camera)]
        outcome[path] = f"no {', '.join(lacking)}" if lacking else WRITTEN
        if not lacking and dataset.latents(name) is None:
            provenance = {"stage": stage, "weights": version}
            write_latents(path, name, encode_clips(dataset, encoder, params, progress), provenance)
    (workdir / stage).mkdir(parents=True, exist_ok=True)
    write_pointer(workdir / stage, {encoder.key: LatentPointer(name, outcome)})
    return outcome


def encode_clips(dataset: Dataset, encoder: Encoder, params: PyTree, progress: bool) -> Float[np.ndarray, "clips ..."]:
    """Latents of every clip of a dataset, at the size in which its pictures are stored."""
    count, layout = len(dataset), dataset.layout
    frames = np.linspace(0, layout.frames - 1, min(encoder.frames, layout.frames)).astype(int)
    size, rows = (layout.height, layout.width), []
    for first in tqdm(range(0, count, ROWS), desc=f"encode {dataset.name}", disable=not progress, unit="batch"):
        # the last batch is filled up with the last clip: one shape, one program
        clips = [min(first + i, count - 1) for i in range(ROWS)]
        parts: list[dict[str, Any]] = [read(dataset, clip, encoder.channels, frames, size)[0] for clip in clips]
        rows.append(encoder(params, {name: np.stack([part[name] for part in parts]) for name in encoder.channels}))
    return np.concatenate(rows)[:count]
