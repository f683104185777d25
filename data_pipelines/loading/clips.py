"""Random windows from a weighted mixture of WSV datasets, as an experiment config names them; `Clips.open` loads them."""

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from data_pipelines.loading import order
from data_pipelines.loading.batch import Draws, WindowReader, empty_batch
from data_pipelines.loading.buffers import BufferPool
from data_pipelines.loading.latents import open_latents
from data_pipelines.loading.loader import BATCHES_PER_THREAD, Loader
from data_pipelines.loading.rows import ClipOrder, HostRows
from data_pipelines.loading.source import DatasetSource, expand_collections, resolve, select_clips
from data_pipelines.loading.transforms import Transform
from data_pipelines.loading.window import CROPS, Window
from data_pipelines.wsv import Dataset
from wsm_jax.snapshot import channel

DAMAGED = ("error", "skip")
_TUPLES = ("sources", "channels", "signals", "events", "latents", "transforms")


@dataclasses.dataclass(frozen=True)
class Clips:
    """Batches of windows drawn from `sources` by weight.

    Raises ValueError, naming the field, for wrong values. Sequences become tuples.
    """

    sources: tuple[tuple[str, float | int] | DatasetSource, ...]
    """(path, weight): the path is relative to the workdir, absolute, or a URL; or a source with rates and limits."""
    waves: int
    """Slots of the core."""
    channels: tuple[str, ...] = ()
    frames: int = 0
    """Frames of a window; 0: no pixels and no cameras."""
    frame_hz: float | int | None = None
    """None: the rate of each dataset."""
    height: int = 1
    width: int = 1
    ticks: int = 0
    """Ticks of the core; 0: no core."""
    signals: tuple[tuple[str, int], ...] = ()
    """(name, components) of actions and other numbers, sampled at each frame."""
    events: tuple[str, ...] = ()
    """Kinds of events that a batch lists."""
    first_caption: bool = False
    """The first caption of a clip, the plain one, instead of a random one."""
    crop: str = "middle"
    """Place of the crop of a picture of another aspect: "middle", or "random", the same for all frames of a window."""
    aligned: bool = False
    """Windows begin with a chunk, so that no frame is read that is not used."""
    damaged: str = "error"
    """"error": a clip that cannot be read ends the run; "skip": the log names it and the next clip of its epoch replaces it."""
    shuffle: bool = True
    threads: int = 1
    """Batches that are made at once while one more waits; 0: no threads."""
    latents: tuple[tuple[str, str, tuple[int, ...]], ...] = ()
    """(key in the batch, stage that encoded them, shape per clip) of codes beside the clips; see `latents.py`."""
    transforms: tuple[Transform, ...] = ()
    """Pure functions of a batch, applied in order."""

    def __post_init__(self) -> None:
        for name in _TUPLES:
            object.__setattr__(self, name, _tupled(getattr(self, name), self._need, name))
        object.__setattr__(self, "sources", tuple(map(self._source, self.sources)))
        self._need("sources", bool(self.sources), "at least one dataset")
        for name in ("waves", "height", "width"):
            self._need(name, _whole(getattr(self, name), 1), "a whole number of at least 1")
        for name in ("frames", "ticks", "threads"):
            self._need(name, _whole(getattr(self, name), 0), "a whole number of at least 0")
        self._need("frame_hz", self.frame_hz is None or self.frame_hz > 0, "a rate above 0, or None")
        self._need("crop", self.crop in CROPS, f"one of {CROPS}")
        self._need("damaged", self.damaged in DAMAGED, f"one of {DAMAGED}")
        for name in self.channels:
            try:
                channel(name)
            except KeyError as error:
                raise ValueError(f"Clips.channels: {error.args[0]}") from error
        pairs = all(len(row) == 2 and isinstance(row[0], str) and _whole(row[1], 1) for row in self.signals)
        self._need("signals", pairs, "pairs (name, components)")
        rows = all(len(row) == 3 and isinstance(row[2], tuple) and all(_whole(n, 1) for n in row[2]) for row in self.latents)
        self._need("latents", rows, "rows (key in the batch, stage, shape per clip)")
        self._need("transforms", all(map(callable, self.transforms)), "functions of a batch")
        keys = [row[0] for row in self.latents]
        taken = {"camera", "core", "text", *self.channels, *(row[0] for row in self.signals)}
        self._need("latents", len(set(keys)) == len(keys) and not taken & set(keys), "keys of their own")

    def _need(self, name: str, ok: bool, what: str) -> None:
        if not ok:
            raise ValueError(f"Clips.{name}: got {getattr(self, name)!r}, needed {what}")

    def _source(self, source: Any) -> tuple[str, float] | DatasetSource:
        """A source as (path, weight), or as it is where it is a DatasetSource."""
        if isinstance(source, DatasetSource):
            self._need("sources", source.weight > 0, "positive weights (leave a source out to skip it)")
            return source
        pair = isinstance(source, tuple) and len(source) == 2 and isinstance(source[0], str | os.PathLike)
        self._need("sources", pair, "pairs (path, weight)")
        number = isinstance(source[1], int | float) and not isinstance(source[1], bool)
        self._need("sources", number and source[1] > 0, "positive weights (leave a source out to skip it)")
        return os.fspath(source[0]), float(source[1])

    def datasets(self, workdir: str | Path) -> list[DatasetSource]:
        """The sources with absolute paths, each collection as its datasets. Raises FileNotFoundError for a missing path."""
        sources = []
        for source in self.sources:
            plain = source if isinstance(source, DatasetSource) else DatasetSource(*source)
            path = resolve(plain.path, workdir)
            if "://" not in path and not os.path.exists(path):
                raise FileNotFoundError(f"{path}: no such dataset; build it with python -m launch.data simulate or ingest")
            sources.append(dataclasses.replace(plain, path=path))
        return expand_collections(sources)

    def open(
        self, workdir: str | Path, *, rows: int, seed: int, host: int = 0, hosts: int = 1, epochs: int | None = None
    ) -> Loader:
        """A loader of global batches of `rows` examples, of which `host` of `hosts` delivers its share.

        `epochs` None: endless; else until the first source has been read that often, in whole batches.
        Raises FileNotFoundError for a missing dataset and latents that are not encoded, and ValueError, naming the dataset and
        the numbers, for what cannot be delivered, before any batch is made.
        """
        if rows < 1 or hosts < 1 or rows % hosts or not 0 <= host < hosts:
            raise ValueError(
                f"Clips.open: {rows} rows over host {host} of {hosts}; rows must be positive and divide by hosts, and host be "
                "one of 0 .. hosts - 1"
            )
        sources = self.datasets(workdir)
        opened = [Dataset(source.path) for source in sources]
        window = self._window(any(dataset.layout.lens for dataset in opened))
        for dataset, source in zip(opened, sources, strict=True):
            _check(dataset, source, window)
        chosen = tuple(select_clips(dataset, source) for dataset, source in zip(opened, sources, strict=True))
        counts = tuple(len(d) if kept is None else len(kept) for d, kept in zip(opened, chosen, strict=True))
        block = order.turns(order.mixture(tuple(float(source.weight) for source in sources)))
        readers = [
            [WindowReader(dataset, dataclasses.replace(window, frame_hz=hz)) for hz in source.frame_hz or (self.frame_hz,)]
            for dataset, source in zip(opened, sources, strict=True)
        ]
        examples = sys.maxsize if epochs is None else order.position_of(epochs * counts[0], 0, block)
        if examples < rows:
            raise ValueError(f"Clips.open: {epochs} epochs of the sources give {examples} examples; needed a batch of {rows}")
        skipped: list[str] = []
        make = HostRows(
            seed=seed,
            order=ClipOrder(seed, counts, chosen, block, self.shuffle),
            readers=readers,
            window=window,
            transforms=self.transforms,
            skip=self.damaged == "skip",
            skipped=skipped,
            batch_size=rows,
            first=host * (rows // hosts),
            count=rows // hosts,
            pool=BufferPool(BATCHES_PER_THREAD * len(self.channels) * (self.threads + 1)),
            latents={key: open_latents(workdir, key, stage, shape, opened) for key, stage, shape in self.latents},
        )
        described: dict[str, Any] = {"seed": seed, "batch_size": rows, "shuffle": self.shuffle}
        described["sources"] = [[d.name, n, float(s.weight)] for d, s, n in zip(opened, sources, counts, strict=True)]
        return Loader(make, examples // rows, self.threads, described, skipped)

    def spec(self, rows: int) -> Any:
        """Shapes and dtypes of a batch of `rows` examples after the transforms, without any file.

        Datasets whose cameras have lenses add ["camera"]["distortion"] [B T 5] to what the transforms get.
        """
        batch: Any = empty_batch(self._window(False), 1, BufferPool(0))
        for values in batch["channels"].values():
            values[...] = 0
        for transform in self.transforms:
            batch = transform(batch)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype), batch)

    def _window(self, lens: bool) -> Window:
        return Window(
            channels=self.channels,
            frames=self.frames,
            frame_hz=self.frame_hz,
            height=self.height,
            width=self.width,
            ticks=self.ticks,
            waves=self.waves,
            first_caption=self.first_caption,
            signals=self.signals,
            events=self.events,
            crop=self.crop,
            aligned=self.aligned,
            lens=lens and bool(self.frames),
            latents=tuple((key, shape) for key, _, shape in self.latents),
        )


def _tupled(value: Any, need: Callable[[str, bool, str], None], name: str) -> Any:
    """A sequence, and those in it, as tuples."""
    need(name, isinstance(value, list | tuple), "a sequence")
    return tuple(_tupled(one, need, name) if isinstance(one, list | tuple) else one for one in value)


def _whole(value: Any, least: int) -> bool:
    """True for a whole number of at least `least`."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _check(dataset: Dataset, source: DatasetSource, window: Window) -> None:
    """Raises ValueError, naming the dataset, when a source cannot serve the window."""
    layout, where = dataset.layout, str(source.path)
    given = [name for name in window.channels if name in layout.channels and window.frames]
    if not (given or (layout.ticks and window.ticks) or layout.captions):
        raise ValueError(
            f"{where}: the dataset has channels {list(layout.channels)}, {layout.ticks} ticks and no captions: nothing of what"
            f" the loader asks for (channels {list(window.channels)}, {window.ticks} ticks)"
        )
    for name, width in window.signals:
        found = {key: parts for key, parts, _ in layout.signals}
        if found.get(name, width) != width:
            raise ValueError(f"{where}: signal {name!r} has {found[name]} components; the loader asks for {width}")
    for hz in source.frame_hz or (window.frame_hz,):
        asked = dataclasses.replace(window, channels=(), frame_hz=hz)
        WindowReader(dataset, asked).fill(empty_batch(asked, 1, BufferPool(0)), [0], [0], Draws(*np.full((4, 1), 0.5)))
