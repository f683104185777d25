"""Input of the viewer: a core in a file, a clip of a WSV dataset, or any scene that can be converted to waves."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from launch.command import Usage
from wsm_jax.snapshot import Camera, Waves
from wsm_jax.snapshot import waves as core_json


@dataclasses.dataclass(frozen=True)
class ViewerInput:
    """A core, and the frames and cameras of its clip if it comes from a dataset."""

    name: str
    waves: Waves
    """[K N ...], or [N ...] of one instant."""
    time: np.ndarray | None
    """Times of the ticks [K], s."""
    default_out: Path
    """Default file of the edited core."""
    caption: str = ""
    camera: Camera | None = None
    """Cameras [T]."""
    frame_time: np.ndarray | None = None
    """Times of the frames [T], s."""
    rgb: np.ndarray | None = None
    """Frames, uint8 [T H W 3]."""
    size: tuple[int, int] | None = None
    """(height, width) of the frames, pixels."""


def read_input(path: str, clip: int | None, max_waves: int) -> ViewerInput:
    """The core of a file, or of clip `clip` (default 0) of a dataset; another scene becomes at most `max_waves` waves.

    Raises Usage, ValueError, KeyError or FileNotFoundError that names the path.
    """
    if "://" in path or Path(path).is_dir():
        return _dataset(path, clip or 0)
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file or dataset; needed a core (.json) or the folder of a WSV dataset")
    if clip is not None:
        raise Usage(f"--clip={clip}: {path} is a file; needed the folder of a WSV dataset")
    source = Path(path)
    out = source.with_name(f"{source.stem}.edited.json")
    if source.suffix.lower() == ".json":
        waves, time = core_json.load(source)
        if np.any(waves.presence > 0.5):
            from wsm_jax.core.exchange.conversion import checked

            lead = np.ndim(waves.presence)
            checked(jax.tree.map(lambda x: x.reshape(-1, *x.shape[lead:]), waves), str(source))
        return ViewerInput(source.name, waves, time, out)
    return ViewerInput(source.name, _converted(source, max_waves), None, out)


def _dataset(path: str, clip: int) -> ViewerInput:
    from data_pipelines.wsv import Dataset

    dataset = Dataset(path)
    if not 0 <= clip < len(dataset):
        raise Usage(f"--clip={clip}: {path} has the clips 0..{len(dataset) - 1}")
    core = dataset.core(clip)
    if core is None:
        raise ValueError(f"{path}: has no core, only {', '.join(dataset.layout.channels) or 'text'}; needed cores")
    layout, name = dataset.layout, f"{dataset.name}.clip{clip}"
    recorded: dict[str, Any] = {}
    if layout.frames and layout.camera:
        recorded |= {"camera": dataset.camera(clip), "frame_time": dataset.frame_time(clip)}
        recorded |= {"size": (layout.height, layout.width)} if layout.channels else {}
        recorded |= {"rgb": dataset.read(clip, ["rgb"])["rgb"]} if "rgb" in layout.channels else {}
    folder = Path() if "://" in path else Path(path).resolve().parent
    waves, time = core
    return ViewerInput(name, waves, time, folder / f"{name}.edited.json", next(iter(dataset.captions(clip)), ""), **recorded)


def _converted(source: Path, max_waves: int) -> Waves:
    """The waves that approximate a mesh, a cloud or another scene."""
    from wsm_jax.core.exchange import conversion, scene_file

    thing = scene_file.read(source)
    options = conversion.Options(samples=20_000, resolution=64, detail=16, max_waves=max_waves, splats="moments", seed=0)
    try:
        waves = conversion.convert(thing, "waves", options)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error
    assert isinstance(waves, Waves)
    return waves
