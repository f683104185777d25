"""The evaluator of a world: its verbs on held-out scenes, beside trivial baselines."""

import dataclasses
import functools
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from PIL import Image
from tqdm import tqdm

from wsm_jax.config import require
from wsm_jax.evaluation.evaluate import Measured
from wsm_jax.evaluation.judge import TARGETS, Pairs, Scenes, judge_pixels, judge_revisit, judge_text
from wsm_jax.evaluation.report import Media
from wsm_jax.evaluation.showcase import imagined_frames, overview, perceived_frames, sections
from wsm_jax.runtime.metrics import LoggedVideo
from wsm_jax.snapshot import WSV
from wsm_jax.typing import PyTree
from wsm_jax.world import World


@runtime_checkable
class TruthClips(Protocol):
    """Clips with the truth to measure against."""

    def datasets(self, workdir: Path) -> Sequence[Any]:
        """The dataset. Raises FileNotFoundError, naming the path, where there is none."""
        ...

    def clips(self, workdir: Path, count: int) -> Sequence[WSV]:
        """The first `count` clips. Raises FileNotFoundError or ValueError, naming the path."""
        ...


@runtime_checkable
class Facts(Protocol):
    """Reads texts."""

    def __call__(self, text: str) -> Pairs:
        """(shape, colour) of the objects that a text names."""
        ...


@dataclasses.dataclass(frozen=True)
class WorldReport:
    """Imagine, describe, perceive, render, the honest cycle and revisits, and the pictures of the report.

    Raises ValueError for numbers below their least values.
    """

    data: TruthClips
    facts: Facts
    clips: int
    """Clips that are measured, at most."""
    diagonal_m: float
    """Diagonal of a scene: the unit of errors of place."""
    video_size: int
    """Height and width of the videos in pixels."""
    video_fps: float
    seed: int = 0
    picture_frames: int = 8
    """Frames of a clip in which pictures are compared."""
    shown: int = 3
    """Scenes in each section of the page."""

    def __post_init__(self) -> None:
        require(self, 1, "clips", "video_size", "picture_frames", "shown")
        require(self, 0, "seed")
        if not self.video_fps > 0 or not self.diagonal_m > 0:
            raise ValueError(f"video_fps = {self.video_fps}, diagonal_m = {self.diagonal_m}: needed more than 0")

    def measure(self, sampler: World, workdir: Path, progress: bool) -> Measured:
        """Measures all verbs. Raises ValueError or FileNotFoundError for data without the truth."""
        clips = self.data.clips(workdir, self.clips)
        scenes = Scenes.of(clips, self.facts, self.diagonal_m, self.seed)
        with tqdm(total=2 * len(clips) + 1, desc="evaluate", disable=not progress) as bar:
            metrics, cores, texts = judge_text(sampler, scenes, self.seed)
            bar.update()
            pixels, perceived = judge_pixels(sampler, scenes, self.picture_frames, bar.update)
            metrics |= pixels
            metrics |= judge_revisit(sampler, cores, clips[0].channels["rgb"].shape[1], step=bar.update)
        draw = functools.partial(
            sections, sampler, scenes, cores, texts, perceived, self.shown, self.video_size, self.video_fps
        )

        def pictures() -> Mapping[str, Media]:
            picture = overview(sampler, scenes, cores, perceived, self.shown, self.video_size)
            return {"overview": Media("picture", _png(picture), "Text to core to video, and back")}

        return Measured(metrics | {"n": len(clips)}, TARGETS, draw, pictures)


@dataclasses.dataclass(frozen=True)
class SampleVideos:
    """Videos while a world trains: imagined from held-out captions, or, before there is a world flow, perceived."""

    sampler: World
    data: TruthClips
    every: int
    """Updates between two drawings."""
    scenes: int = 1
    size: int = 96
    """Height and width of a picture in pixels."""
    fps: float = 12.0

    def __post_init__(self) -> None:
        require(self, 1, "every", "scenes", "size")

    def datasets(self, workdir: Path) -> Sequence[Any]:
        """The dataset of its clips. Raises what the data raise."""
        return self.data.datasets(workdir)

    def open(self, context: Any) -> Callable[[int, PyTree], dict[str, LoggedVideo]]:
        """A function of (updates done, averaged weights) that draws. Raises what the data raise."""
        clips = self.data.clips(context.workdir, max(2, self.scenes))[: self.scenes]

        def draw(step: int, params: PyTree) -> dict[str, LoggedVideo]:
            # on the host: the next update reuses the memory of the averaged weights
            world = self.sampler.with_weights({**context.weights, context.stage: jax.tree.map(np.asarray, params)})
            return {f"scene_{i}": self._one(world, clip) for i, clip in enumerate(clips)}

        return draw

    def _one(self, world: World, clip: WSV) -> LoggedVideo:
        if world.flow.params is None:
            core = world.perceive(WSV({"rgb": clip.channels["rgb"]}, clip.frame_time, clip.camera))
            hz = 1.0 / float(clip.frame_time[1] - clip.frame_time[0])
            return LoggedVideo(perceived_frames(world, clip, core, self.size), hz)
        core = world.imagine(clip.text[0])
        return LoggedVideo(imagined_frames(world, core, self.size, self.fps), self.fps)


def _png(picture: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(picture).save(data, format="PNG")
    return data.getvalue()
