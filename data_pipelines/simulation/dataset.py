"""A simulated dataset as an experiment states it."""

import dataclasses
from pathlib import Path
from typing import Any

from data_pipelines.simulation.simulate import simulate


@dataclasses.dataclass(frozen=True)
class SimulatedDataset:
    """Scenes of falling, sliding, rolling and colliding objects, one clip each. Raises ValueError for sizes below 1."""

    scenes: int
    seed: int
    height: int
    """Pixels."""
    width: int
    frame_hz: float
    seconds: float
    """Length of a clip, s."""
    pixels: bool = True
    """False: cores, cameras and captions alone."""

    def __post_init__(self) -> None:
        for name in ("scenes", "height", "width"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: needed at least 1")

    def build(self, path: str | Path, renderer: str, workers: int) -> dict[str, Any]:
        """Simulates what is not there yet, and returns the manifest. Raises ValueError for a dataset of other fields."""
        return simulate(path, renderer=renderer, workers=workers, **vars(self))
