"""Held-out clips with everything that an evaluation compares with."""

import dataclasses
from pathlib import Path

from data_pipelines.wsv import Dataset
from wsm_jax.snapshot import WSV


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """A WSV dataset that no training has seen."""

    path: str
    """Relative to the workdir, absolute, or a URL."""

    def datasets(self, workdir: Path) -> list[Dataset]:
        """The dataset. Raises FileNotFoundError where there is none."""
        return [Dataset(self.path if "://" in self.path else workdir / self.path)]

    def clips(self, workdir: Path, count: int) -> list[WSV]:
        """The first `count` clips.

        Raises FileNotFoundError where there is no dataset, ValueError where it lacks captions, cores, cameras or pictures, or
        has one clip only.
        """
        (dataset,) = self.datasets(workdir)
        layout = dataset.layout
        there = {"captions": layout.captions, "a core": layout.ticks, "cameras": layout.camera, "rgb": "rgb" in layout.channels}
        lacking = [name for name, present in there.items() if not present]
        if lacking or len(dataset) < 2:
            raise ValueError(
                f"{dataset.folder.path}: {len(dataset)} clips without {' and '.join(lacking) or 'a second one'}; needed two"
                f" clips with {', '.join(there)}, as python -m launch.data simulate makes them"
            )
        return [dataset.clip(number) for number in range(min(count, len(dataset)))]
