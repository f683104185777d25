"""Datasets of a mixture: where they are, how often and at which rates they are sampled, and which of their clips."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data_pipelines.wsv import Dataset
from data_pipelines.wsv.collection import datasets
from data_pipelines.wsv.folder import Folder


@dataclasses.dataclass(frozen=True)
class DatasetSource:
    """One dataset of the mixture, or a collection of datasets whose clips share the weight."""

    path: str | Path
    weight: float | int = 1.0
    """Share of the examples, relative to the other sources (kept to 1 in 10,000)."""
    frame_hz: tuple[float | int, ...] = ()
    """Rates to choose from at random, frames per second; empty: the rate of the clips."""
    where: Mapping[str, tuple[float | int, float | int]] = dataclasses.field(default_factory=dict)
    """Measure of the dataset -> (minimum, maximum): only clips within are loaded."""


def resolve(path: str | Path, workdir: str | Path) -> str:
    """The absolute path, or the URL, of a dataset; relative paths lie in the workdir."""
    text = os.fspath(path)
    if "://" not in text and not os.path.isabs(text):
        text = f"{os.fspath(workdir).rstrip('/')}/{text}"
    return text.rstrip("/") if "://" in text else os.path.abspath(text)


def expand_collections(sources: Sequence[DatasetSource]) -> list[DatasetSource]:
    """The sources with every collection replaced by its datasets, which share its weight by their clips.

    Raises as `collection.datasets` and `Dataset` do.
    """
    expanded = []
    for source in sources:
        paths = datasets(Folder(source.path))
        counts = [len(Dataset(path)) for path in paths] if len(paths) > 1 else [1]
        for path, count in zip(paths, counts, strict=True):
            share = float(source.weight) * count / sum(counts)
            expanded.append(source if len(paths) == 1 else dataclasses.replace(source, path=path, weight=share))
    return expanded


def select_clips(dataset: Dataset, source: DatasetSource) -> np.ndarray | None:
    """The clips within the limits of a source; None: all. Raises ValueError for unknown measures and where none is left."""
    if not source.where:
        return None
    measures = dataset.measures()
    keep = np.ones(len(dataset), bool)
    for name, (minimum, maximum) in source.where.items():
        if name not in measures:
            raise ValueError(f"{source.path}: no measure {name!r}; it has {', '.join(measures) or 'none'}")
        keep &= (measures[name] >= minimum) & (measures[name] <= maximum)
    if not keep.any():
        raise ValueError(f"{source.path}: none of its {len(dataset)} clips is within {dict(source.where)}; widen the limits")
    return np.flatnonzero(keep)
