"""Simulated datasets: scene -> MuJoCo dynamics -> core, camera, captions -> pictures from the core -> WSV on disk.

Scene i depends on (seed, i) and on the arguments of `draw` alone: not on workers, shards, resolution or
earlier scenes. A scene whose objects leave the arena, start inside one another or are mostly hidden is drawn again.
"""

import dataclasses
import functools
import math
import os
from os import PathLike
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from data_pipelines.simulation import captions, events, mujoco_renderer, story
from data_pipelines.simulation.camera_path import CAMERA_KINDS
from data_pipelines.simulation.physics import Trajectory, simulate_physics
from data_pipelines.simulation.scene import ARENA_M, SLOTS, STORIES, Scene, draw
from data_pipelines.simulation.style import SceneStyle
from data_pipelines.workers import Executor, WorkerCrash, run
from data_pipelines.wsv import Layout, Writer, create, finished
from data_pipelines.wsv import manifest as records
from wsm_jax.core.render import surface
from wsm_jax.snapshot import STORED, TICK_HZ, WSV, Camera, Waves
from wsm_jax.typing import Array, Float

RENDERERS = ("wsm", "mujoco")
LICENCE = "CC0-1.0"
_MOTION_DT = 1e-2
_FRAMES_PER_CALL = 12
"""Frames for each call: clips of every length and rate share one compiled program."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Parameters of the scenes and their length; see `scene.draw`."""

    seed: int
    seconds: float = 3.0
    frame_hz: float = 8.0
    objects: tuple[int, int] = (1, 3)
    screen: float = 0.4
    stories: tuple[str, ...] = STORIES
    cameras: tuple[str, ...] = CAMERA_KINDS

    @property
    def core_time(self) -> Float[np.ndarray, " K"]:
        """Times of the ticks, s: `seconds` of them at 8 Hz, the first at 0."""
        return np.arange(round(self.seconds * TICK_HZ)) / TICK_HZ

    @property
    def frame_time(self) -> Float[np.ndarray, " T"]:
        """Times of the frames, s: from 0 to the last tick, so that no frame lies outside the core."""
        return np.arange(int(self.core_time[-1] * self.frame_hz + 1e-6) + 1) / self.frame_hz

    def check(self) -> "Recipe":
        """Returns itself; raises ValueError for a clip without two ticks and two frames, or names `draw` does not know."""
        sound = math.isfinite(self.seconds) and math.isfinite(self.frame_hz) and self.frame_hz > 0
        if not sound or round(self.seconds * TICK_HZ) < 2 or len(self.frame_time) < 2:
            raise ValueError(
                f"seconds {self.seconds} at frame_hz {self.frame_hz}: needed two ticks of 1/{TICK_HZ:g} s and two frames"
            )
        if not 0.0 <= self.screen <= 1.0 or (self.stories == ("behind",) and self.screen < 1.0):
            raise ValueError(f"screen {self.screen}: needed a number in 0..1, and 1 if every object goes behind it")
        if self.moving_stories or not self.event_stories:
            draw(np.random.default_rng(0), **self.draws)
        return self

    @property
    def event_stories(self) -> tuple[str, ...]:
        """Stories in which waves appear or disappear; see story.py."""
        return tuple(name for name in self.stories if name in story.STORIES)

    @property
    def moving_stories(self) -> tuple[str, ...]:
        """Stories with a constant number of waves."""
        return tuple(name for name in self.stories if name not in story.STORIES)

    @property
    def slots(self) -> int:
        """Slots of every core: the most that one of the stories needs."""
        return max(SLOTS, story.slots_of(self.event_stories))

    @property
    def draws(self) -> dict[str, Any]:
        """The arguments of `scene.draw`."""
        given = {name: getattr(self, name) for name in ("objects", "screen", "cameras", "slots")}
        return given | {"stories": self.moving_stories}


def make_scene(recipe: Recipe, index: int) -> tuple[Scene, Trajectory, np.random.Generator]:
    """Scene `index` of a recipe, its trajectory, and the random generator of its captions.

    The screen and the kind of camera path are drawn before any scene is rejected, so that their shares are as requested.
    Raises RuntimeError if a hundred draws give no acceptable scene.
    """
    rng = np.random.default_rng([recipe.seed, index])
    settled = {
        "screen": float(rng.random() < recipe.screen),
        "cameras": (recipe.cameras[rng.integers(len(recipe.cameras))],),
    }
    for _ in range(100):
        scene = draw(rng, **(recipe.draws | settled))
        try:
            trajectory = simulate_physics(scene, float(recipe.core_time[-1]))
        except ValueError:  # starts with objects inside one another
            continue
        if rejection(scene, trajectory, recipe) is None:
            return scene, trajectory, rng
    raise RuntimeError(f"scene {index} of seed {recipe.seed}: none of 100 draws is acceptable; relax {recipe.draws}")


def rejection(scene: Scene, trajectory: Trajectory, recipe: Recipe) -> str | None:
    """Reason for which a scene is rejected, or None.

    Every centre stays in the arena; every object is in the first picture, and in view and not behind the screen in half of
    the frames (three tenths where the camera leaves).
    """
    camera = scene.camera.cameras(recipe.frame_time, float(recipe.frame_time[-1]))
    least = 0.3 if scene.camera.kind.endswith("return") else 0.5
    for slot in scene.objects:
        path = trajectory.centre[:, slot]
        if np.any(np.abs(path[:, :2]) > 0.5 * np.array(ARENA_M[:2])) or np.any(path[:, 2] > ARENA_M[2]):
            return f"slot {slot} leaves the arena"
        if np.any(path[:, 2] < 0.0):
            return f"slot {slot} sinks into the floor"
        seen = events.in_view(trajectory.at(recipe.frame_time).centre[:, slot], camera, margin=0.03)
        if not seen[0]:
            return f"slot {slot} is outside the first picture"
        if scene.has_screen:
            seen = seen & (events.hidden_share(trajectory, slot, camera, recipe.frame_time) < events.HIDDEN)
        if np.mean(seen) < least:
            return f"slot {slot} is in sight in {np.mean(seen):.0%} of the frames"
    return None


def record(recipe: Recipe, index: int) -> tuple[Scene, Trajectory | story.PlayedStory, WSV]:
    """Scene `index` with its clip: core, camera, captions and events, without pictures.

    In a recipe with stories of both kinds, each story has the same share.
    """
    told = recipe.event_stories
    if told and np.random.default_rng([recipe.seed, index, 1]).random() < len(told) / len(recipe.stories):
        times = recipe.core_time, recipe.frame_time
        return story.record_story(told, recipe.seed, index, *times, recipe.cameras, recipe.slots)
    scene, trajectory, rng = make_scene(recipe, index)
    frame_time, core_time = recipe.frame_time, recipe.core_time
    camera = scene.camera.cameras(frame_time, float(frame_time[-1]))
    core = trajectory.at(core_time)
    happened = events.measure(trajectory, camera, frame_time)
    text = captions.describe(captions.facts(core, happened, camera), rng)
    return scene, trajectory, WSV({}, frame_time, camera, core, core_time, text, happened)


@functools.partial(jax.jit, static_argnums=(4, 5))
def _pictures(waves: Waves, camera: Camera, later: Camera, style: SceneStyle, height: int, width: int) -> dict[str, Array]:
    """All channels [T H W C] of frames: one compiled call, frame after frame (small arrays stay in the cache)."""

    def frame(inputs: tuple[Waves, Camera, Camera]) -> dict[str, Array]:
        state, here, there = inputs
        channels = surface(state, here, height, width, later=there, dt=_MOTION_DT)
        return {"rgb": style.shade(channels, state, here), **channels}

    return jax.lax.map(frame, (waves, camera, later))


def render(
    scene: Scene, trajectory: Trajectory | story.PlayedStory, frame_time: Float[np.ndarray, " T"], height: int, width: int
) -> dict[str, np.ndarray]:
    """Every channel [T H W C] of a scene by our ray caster, physical units."""
    duration = float(frame_time[-1])
    camera, later = (scene.camera.cameras(frame_time + dt, duration) for dt in (0.0, _MOTION_DT))
    cast = _cast_slots(np.asarray(trajectory.waves.presence))
    waves = jax.tree.map(lambda x: x[:, cast], trajectory.at(frame_time))
    style = scene.style
    style = dataclasses.replace(style, frequency=style.frequency[cast], phase=style.phase[cast], tint=style.tint[cast])
    parts = []
    for first in range(0, len(frame_time), _FRAMES_PER_CALL):
        pick = np.minimum(np.arange(first, first + _FRAMES_PER_CALL), len(frame_time) - 1)
        parts.append(_pictures(waves[pick], camera[pick], later[pick], style, height, width))
    channels = jax.tree.map(lambda *x: np.concatenate(x)[: len(frame_time)], *parts)
    # the renderer numbers the waves of its input; the channel numbers slots
    channels["instance"] = np.array([0, *(cast + 1)], np.float32)[np.rint(channels["instance"]).astype(np.int64)]
    return {name: channels[name] for name in STORED if name in channels}


def _cast_slots(presence: Float[np.ndarray, " N"]) -> np.ndarray:
    """The present slots, in order, padded with empty ones to one of few counts (each is compiled once)."""
    present = np.flatnonzero(presence > 0.5)
    count = next(n for n in (3, 5, SLOTS, len(presence)) if n >= len(present))
    return np.sort(np.concatenate([present, np.flatnonzero(presence <= 0.5)[: count - len(present)]]))


def make_clip(recipe: Recipe, index: int, height: int, width: int, renderer: str | None) -> WSV:
    """Scene `index` with its pictures by `renderer` ("wsm", "mujoco", or None for no pictures)."""
    scene, trajectory, clip = record(recipe, index)
    if renderer is None:
        return clip
    draw_clip = {"wsm": render, "mujoco": mujoco_renderer.render}[renderer]
    return dataclasses.replace(clip, channels=draw_clip(scene, trajectory, recipe.frame_time, height, width)).check()


def simulate(
    out: str | PathLike,
    *,
    scenes: int,
    seed: int,
    height: int = 64,
    width: int = 64,
    frame_hz: float = 8.0,
    seconds: float = 3.0,
    pixels: bool = True,
    renderer: str = "wsm",
    workers: int = 2,
    first_scene: int = 0,
    objects: tuple[int, int] = (1, 3),
    screen: float = 0.4,
    stories: tuple[str, ...] = STORIES,
    cameras: tuple[str, ...] = CAMERA_KINDS,
    clips_per_shard: int = 16,
    frames_per_chunk: int | None = None,
    runner: Executor = run,
    progress: bool = True,
) -> dict[str, Any]:
    """Builds the dataset of scenes first_scene .. first_scene + scenes - 1 of `seed` at `out`; returns its manifest.

    `pixels` False writes cores, cameras and captions alone; `frames_per_chunk` None: one second. A build that was
    stopped is resumed when it is called again with the same arguments (`workers` may differ); a finished one is not changed.
    Workers are spawned processes with one shard at a time; 1 runs in this process. `runner` is `workers.run` or the result of
    `beam.runner`. Raises ValueError before anything is written for invalid arguments or a renderer that cannot run here, and
    the errors of `wsv.create`.
    """
    recipe = Recipe(seed, seconds, frame_hz, objects, screen, stories, cameras).check()
    if renderer not in RENDERERS:
        raise ValueError(f"renderer {renderer!r}: needed one of {', '.join(RENDERERS)}")
    if scenes < 1 or workers < 1 or first_scene < 0 or seed < 0:
        raise ValueError(
            f"scenes {scenes}, workers {workers}: needed >= 1; first_scene {first_scene}, seed {seed}: needed >= 0"
        )
    if pixels and height != width:
        raise ValueError(f"pictures of {height}x{width}: scenes are framed for square pictures")
    if renderer == "mujoco" and recipe.event_stories:
        raise ValueError(f"stories {', '.join(recipe.event_stories)}: waves come and go in them; needed renderer 'wsm'")
    variables = _variables(renderer if pixels else None)
    channels = () if not pixels else STORED if renderer == "wsm" else mujoco_renderer.CHANNELS_DRAWN
    layout = Layout(
        clips=scenes,
        frames=len(recipe.frame_time),
        height=height if pixels else 0,
        width=width if pixels else 0,
        frame_hz=frame_hz,
        ticks=len(recipe.core_time),
        waves=recipe.slots,
        channels=channels,
        rgb_codec="array",
        clips_per_shard=clips_per_shard,
        frames_per_chunk=max(1, round(frame_hz)) if frames_per_chunk is None else frames_per_chunk,
        camera=True,
        captions=True,
    )
    build = {"command": "simulate", "first_scene": first_scene, "renderer": renderer if pixels else "none"}
    build |= {name: list(v) if isinstance(v, tuple) else v for name, v in dataclasses.asdict(recipe).items()}
    name = os.path.basename(os.fspath(out).rstrip("/"))
    source = {"name": "simulated scenes", "licence": LICENCE, "generator": "data_pipelines.simulation.simulate"}
    if manifest := finished(out, layout, name=name, sources=[source], build=build):
        return manifest
    writer = create(out, layout, name=name, sources=[source], build=build)
    task = _Task(writer, Maker(recipe, layout, first_scene, renderer if pixels else None))
    missing = writer.missing()
    done = scenes - sum(len(layout.span(shard)) for shard in missing)
    with tqdm(total=scenes, initial=done, unit="scene", desc=f"simulate {name}", disable=not progress) as bar:
        for shard, done in runner(task, missing, workers, variables):
            if isinstance(done, WorkerCrash):
                raise done
            bar.update(len(layout.span(shard)))
    return writer.finish()


def _variables(renderer: str | None) -> dict[str, str]:
    """Environment variables of the processes of a renderer. Raises ValueError if it cannot run.

    MuJoCo reads them when it is first imported, so its renderer always runs in workers.
    """
    return {"MUJOCO_GL": mujoco_renderer.gl_library()} if renderer == "mujoco" else {}


@dataclasses.dataclass(frozen=True)
class Maker:
    """Makes the clips of the shards of one dataset; sent to the workers."""

    recipe: Recipe
    layout: Layout
    first_scene: int
    renderer: str | None

    def __call__(self, shard: int) -> list[WSV]:
        """The clips of a shard, in order."""
        size = self.layout.height, self.layout.width
        return [make_clip(self.recipe, self.first_scene + i, *size, self.renderer) for i in self.layout.span(shard)]

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables of the processes that call it."""
        return _variables(self.renderer)


def maker(manifest: dict[str, Any]) -> Maker:
    """The maker that regenerates the clips of a simulated dataset, from its manifest (the head is enough).

    Raises ValueError for a manifest whose arguments this release does not know.
    """
    build: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in manifest["build"].items()}
    try:
        if build.pop("command") != "simulate":
            raise ValueError("it was not simulated")
        first, renderer = int(build.pop("first_scene")), str(build.pop("renderer"))
        recipe = Recipe(**build).check()
        if renderer not in (*RENDERERS, "none"):
            raise ValueError(f"renderer {renderer!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{manifest['name']}: its scenes cannot be made again: build {manifest['build']} ({error})") from error
    return Maker(recipe, records.layout_of(manifest), first, None if renderer == "none" else renderer)


@dataclasses.dataclass(frozen=True)
class _Task:
    """Makes and writes one shard; sent to the workers."""

    writer: Writer
    make: Maker

    def __call__(self, shard: int) -> int:
        self.writer.write(shard, self.make(shard))
        return shard
