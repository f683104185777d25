"""The pictures and videos of the report: the four verbs side by side on held-out scenes."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsm_jax.evaluation.judge import Scenes
from wsm_jax.evaluation.report import Media, Section
from wsm_jax.snapshot import TICK_HZ, WSV, Camera, Waves, default_orbit
from wsm_jax.visualise.pictures import channel_grid, side_by_side
from wsm_jax.visualise.video import write_video
from wsm_jax.world import World

SHOWN = 3
"""Scenes a section shows."""


def sections(
    world: World,
    scenes: Scenes,
    cores: Sequence[Waves],
    texts: Sequence[str],
    perceived: Sequence[Waves],
    size: int,
    fps: float,
) -> list[Section]:
    """One section a verb: text -> core -> video, video -> core -> text, commanded against perceived core, an edited core."""
    shown = range(min(SHOWN, len(scenes.clips)))
    told = [_imagined(world, scenes.clips[i].text[0], cores[i], size, fps) for i in shown]
    seen = [_perceived(world, scenes.clips[i], perceived[i], texts[i], size) for i in shown]
    closed = [_commanded(world, scenes.clips[i], size) for i in shown]
    edited = [_edited(world, scenes.clips[i], size, fps) for i in shown]
    return [
        Section(
            "Imagine", "A held-out caption becomes a core, and the core a video: its surface and the finished picture.", told
        ),
        Section(
            "Perceive and describe",
            "A held-out video becomes a core, whose surface is drawn beside it, and the core a text.",
            seen,
        ),
        Section(
            "Commanded and perceived",
            "A true core is rendered, and the rendering perceived again: both cores side by side.",
            closed,
        ),
        Section(
            "Edit",
            "One number of a core is changed, the colour of an object, and one object taken out. Nothing else moves.",
            edited,
        ),
    ]


def overview(world: World, scenes: Scenes, cores: Sequence[Waves], perceived: Sequence[Waves], size: int) -> np.ndarray:
    """One picture [H W 3] of the chain: imagined from text at three times, and a video, its perceived core, its true core."""
    rows = []
    for i in range(min(SHOWN, len(scenes.clips))):
        clip, core = scenes.clips[i], cores[i]
        assert clip.core is not None
        last = core.presence.shape[0] - 1
        shown = [0, last // 3, last]
        imagined = _rgb(world.render(core[shown], None, TICK_HZ, (size, size), world.dress(core)))
        middle = [len(clip.frame_time) // 2]
        pictures = [(f"imagined, {t / TICK_HZ:.1f} s", picture) for t, picture in zip(shown, imagined, strict=True)]
        pictures.append(("held-out video", _rgb(clip)[middle[0]]))
        pictures += [
            (title, _surface_picture(world, one, clip, size, middle)[0])
            for title, one in (("perceived core", perceived[i]), ("true core", clip.core))
        ]
        rows.append(side_by_side([(title, picture[None]) for title, picture in pictures])[0])
    return np.concatenate(rows)


def mp4(frames: np.ndarray, fps: float) -> bytes:
    """An H.264 file of uint8 frames [T H W 3]."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        write_video(path, frames, fps)
        return path.read_bytes()


def _rgb(video: WSV | np.ndarray) -> np.ndarray:
    values = video.channels["rgb"] if isinstance(video, WSV) else video
    return np.rint(255 * np.clip(np.asarray(values), 0, 1)).astype(np.uint8)


def _imagined(world: World, text: str, core: Waves, size: int, fps: float) -> Media:
    seconds = (core.presence.shape[0] - 1) / TICK_HZ
    camera = default_orbit(int(seconds * fps) + 1, start=-np.pi / 2 - 0.3, sweep=0.6)
    video = world.render(core, camera, fps, (size, size))
    return Media("video", mp4(channel_grid(video), fps), text)


def _perceived(world: World, clip: WSV, core: Waves, text: str, size: int) -> Media:
    surface = _surface_picture(world, core, clip, size)
    frames = side_by_side([("video", _rgb(clip)), ("surface of the perceived core", surface)])
    hz = 1.0 / float(clip.frame_time[1] - clip.frame_time[0])
    return Media(
        "video",
        mp4(frames, hz),
        f"said of the true core: {text}; true: {clip.text[0]}; said of the perceived one: {world.describe(core)}",
    )


def _commanded(world: World, clip: WSV, size: int) -> Media:
    assert clip.core is not None
    video = world.render(clip.core, clip.camera, _hz(clip), (size, size))
    again = world.perceive(WSV({"rgb": video.channels["rgb"]}, video.frame_time, video.camera))
    frames = side_by_side(
        [
            ("rendered", _rgb(video)),
            ("commanded core", _surface_picture(world, clip.core, clip, size)),
            ("perceived core", _surface_picture(world, again, clip, size)),
        ]
    )
    return Media("video", mp4(frames, _hz(clip)), clip.text[0])


def _edited(world: World, clip: WSV, size: int, fps: float) -> Media:
    assert clip.core is not None
    before = clip.core
    objects = np.flatnonzero(np.asarray(before.instance)[0] > 0)
    colour, presence = np.array(before.colour), np.array(before.presence)
    colour[:, objects[0]] = (0.14, 0.28, 0.86) if colour[0, objects[0], 2] < 0.5 else (0.93, 0.83, 0.14)
    after = before.replace(colour=colour)  # type: ignore[attr-defined]
    rows = [("as it was", before), ("recoloured", after)]
    if len(objects) > 1:
        presence[:, objects[-1]] = 0.0
        rows.append(("one taken out", after.replace(presence=presence)))
    frames = int((before.presence.shape[0] - 1) / TICK_HZ * fps) + 1
    camera = default_orbit(frames, sweep=0.3)
    style = world.dress(before)
    videos = [(title, _rgb(world.render(core, camera, fps, (size, size), style))) for title, core in rows]
    return Media("video", mp4(side_by_side(videos), fps), clip.text[0])


def _hz(clip: WSV) -> float:
    return 1.0 / float(clip.frame_time[1] - clip.frame_time[0])


def _surface_picture(world: World, core: Waves, clip: WSV, size: int, frames: Sequence[int] | None = None) -> np.ndarray:
    """Base colour, shaded by the normal towards the camera: the bare core, without the bridge, in `frames` of the clip."""
    assert clip.camera is not None
    time = np.asarray(clip.frame_time) - clip.frame_time[0]
    pick = np.arange(len(time)) if frames is None else np.asarray(frames)
    camera: Camera = clip.camera[pick]
    channels = world.bridge.surface(core, np.arange(core.presence.shape[0]) / TICK_HZ, camera, time[pick], (size, size))
    facing = np.clip(-channels["normal"][..., 2:], 0, 1)
    return _rgb(channels["base_colour"] * (0.35 + 0.65 * facing))
