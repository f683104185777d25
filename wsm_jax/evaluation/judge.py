"""The measures of `report.json`, each from ground truth and beside a trivial baseline."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from wsm_jax.evaluation.metrics import attribute_hits, attributes, psnr, recover
from wsm_jax.models.wave_bridge import style
from wsm_jax.snapshot import FIELDS, TICK_HZ, WSV, Camera, Waves, default_orbit, waves
from wsm_jax.world import World

Pairs = list[tuple[str, str]]

TARGETS: dict[str, tuple[str, float, str]] = {
    "imagine_attribute_accuracy": (">=", 0.80, "named objects found in the generated core with shape and colour right"),
    "describe_attribute_accuracy": (">=", 0.80, "objects of the true core named with shape and colour right"),
    "perceive_centre_error": ("<=", 0.08, "matched wave centres from video, median, over the scene's diagonal"),
    "perceive_presence_f1": (">=", 0.85, "waves found in the video"),
    "render_psnr_db": (">=", 22.0, "true core and the style of one reference frame, against the other frames"),
    "honest_cycle_psnr_db": (">=", 22.0, "video -> (serialised core, style) -> video"),
    "revisit_psnr_db": (">=", 30.0, "same camera pose before and after the camera left and came back"),
}
"""Key -> (comparison, value to reach, what it is)."""


@dataclasses.dataclass(frozen=True)
class Scenes:
    """Held-out clips with ground truth, and what their captions name."""

    clips: Sequence[WSV]
    named: Sequence[Pairs]
    """(shape, colour) of the objects that the first caption of each clip names."""
    parse: Callable[[str], Pairs]
    """Text -> (shape, colour) pairs."""
    diagonal_m: float
    others: Sequence[int]
    """For each clip, a random other one: the trivial baseline."""

    @classmethod
    def of(cls, clips: Sequence[WSV], parse: Callable[[str], Pairs], diagonal_m: float, seed: int) -> "Scenes":
        """Draws the baselines: a random cyclic shift, so that no clip is its own baseline.

        Raises ValueError for fewer than two clips.
        """
        if len(clips) < 2:
            raise ValueError(f"evaluation: {len(clips)} clips; needed at least 2, one being the baseline of the other")
        shift = int(np.random.default_rng(seed).integers(1, len(clips)))
        others = [(i + shift) % len(clips) for i in range(len(clips))]
        return cls(clips, [parse(clip.text[0]) for clip in clips], parse, diagonal_m, others)


def judge_text(world: World, scenes: Scenes, seed: int) -> tuple[dict[str, float], list[Waves], list[str]]:
    """Imagine and describe: metrics, the generated cores and the generated texts."""
    cores: list[Waves] = []
    texts: list[str] = []
    for first in range(0, len(scenes.clips), 16):
        part = scenes.clips[first : first + 16]
        cores += world.imagine_all([clip.text[0] for clip in part], seed + first)
        texts += world.describe_all([_core(clip) for clip in part], seed + first)
    truth = [attributes(_core(clip)) for clip in scenes.clips]
    imagined = [attribute_hits(n, attributes(c)) for n, c in zip(scenes.named, cores, strict=True)]
    described = [attribute_hits(t, scenes.parse(text)) for t, text in zip(truth, texts, strict=True)]
    other = [attribute_hits(n, truth[j]) for n, j in zip(scenes.named, scenes.others, strict=True)]
    other_text = [attribute_hits(t, scenes.named[j]) for t, j in zip(truth, scenes.others, strict=True)]
    return (
        {
            "imagine_attribute_accuracy": float(np.mean(imagined)),
            "imagine_attribute_accuracy_baseline": float(np.mean(other)),
            "describe_attribute_accuracy": float(np.mean(described)),
            "describe_attribute_accuracy_baseline": float(np.mean(other_text)),
        },
        cores,
        texts,
    )


def judge_pixels(world: World, scenes: Scenes, frames: int, step: Callable[[], object]) -> tuple[dict[str, float], list[Waves]]:
    """Perceive, render and the honest cycle: metrics and the perceived cores. `step` is called after every clip.

    Pictures are compared in `frames` frames spread over the clip, the first being the reference frame of the style.
    """
    rows: dict[str, list[float]] = {name: [] for name in ("render", "render_0", "cycle", "cycle_0")}
    errors: list[float] = []
    errors_0: list[float] = []
    counts = np.zeros((2, 3))
    perceived: list[Waves] = []
    for clip, j in zip(scenes.clips, scenes.others, strict=True):
        other = scenes.clips[j]
        pick = np.linspace(0, len(clip.frame_time) - 1, frames).astype(int)
        rgb = np.asarray(clip.channels["rgb"])[pick]
        seen = world.observe(WSV({"rgb": clip.channels["rgb"]}, clip.frame_time, clip.camera))
        perceived.append(seen.core)
        for i, (core, out) in enumerate(((seen.core, errors), (_core(other), errors_0))):
            match = recover(_core(clip), core, gate_m=0.25 * scenes.diagonal_m)
            out.extend(match.centre_error_m)
            counts[i] += (match.matched, match.found, match.true)
        rows["render"].append(psnr(_render_true(world, clip, pick)[1:], rgb[1:]))
        core, _ = waves.from_json(waves.to_json(seen.core))
        code = style.from_json(style.to_json(seen.style))
        rows["cycle"].append(psnr(picture_of(world, core, code, clip, pick), rgb))
        strange = np.asarray(other.channels["rgb"])[pick]
        rows["render_0"].append(psnr(strange[1:], rgb[1:]))
        rows["cycle_0"].append(psnr(strange, rgb))
        step()
    f1 = 2 * counts[:, 0] / np.maximum(counts[:, 1] + counts[:, 2], 1)
    return (
        {
            "perceive_centre_error": _median(errors) / scenes.diagonal_m,
            "perceive_centre_error_baseline": _median(errors_0) / scenes.diagonal_m,
            "perceive_presence_f1": float(f1[0]),
            "perceive_presence_f1_baseline": float(f1[1]),
            "render_psnr_db": float(np.mean(rows["render"])),
            "render_psnr_db_baseline": float(np.mean(rows["render_0"])),
            "honest_cycle_psnr_db": float(np.mean(rows["cycle"])),
            "honest_cycle_psnr_db_baseline": float(np.mean(rows["cycle_0"])),
        },
        perceived,
    )


def judge_revisit(
    world: World, cores: Sequence[Waves], size: int, step: Callable[[], object], frames: int = 7
) -> dict[str, float]:
    """Generated cores at rest, seen by a camera that leaves and returns: first frame against last, and farthest."""
    there = default_orbit((frames + 1) // 2, sweep=np.deg2rad(70))
    index = np.concatenate([np.arange((frames + 1) // 2), np.arange((frames + 1) // 2 - 1)[::-1]])
    path = there[index]
    back, away = [], []
    for i, core in enumerate(cores):
        rgb = np.asarray(world.render(at_rest(core, frames), path, fps=TICK_HZ, size=(size, size), seed=i).channels["rgb"])
        back.append(psnr(rgb[0], rgb[-1]))
        away.append(psnr(rgb[0], rgb[frames // 2]))
        step()
    return {"revisit_psnr_db": float(np.mean(back)), "revisit_psnr_db_baseline": float(np.mean(away))}


def at_rest(core: Waves, ticks: int) -> Waves:
    """The last state of a core, held for `ticks` ticks."""
    last = {name: np.repeat(np.asarray(getattr(core, name))[-1:], ticks, 0) for name in FIELDS}
    last["velocity"], last["angular_velocity"] = np.zeros_like(last["velocity"]), np.zeros_like(last["angular_velocity"])
    return Waves(**last)


def picture_of(world: World, core: Waves, code: style.Style, clip: WSV, pick: np.ndarray) -> np.ndarray:
    """Pictures of a core in a style, at the picked frames of a clip, its cameras and its size."""
    assert clip.camera is not None
    camera: Camera = clip.camera[pick]
    core_time = np.arange(core.presence.shape[0]) / TICK_HZ
    time = np.asarray(clip.frame_time)[pick] - clip.frame_time[0]
    height, width = clip.channels["rgb"].shape[1:3]
    return world.bridge.render(world.bridge.surface(core, core_time, camera, time, (height, width)), code)


def _render_true(world: World, clip: WSV, pick: np.ndarray) -> np.ndarray:
    """The picked frames from the true core, in the style perceived in the first of them."""
    assert clip.camera is not None and clip.core_time is not None
    time, (height, width) = np.asarray(clip.frame_time)[pick], clip.channels["rgb"].shape[1:3]
    channels = world.bridge.surface(_core(clip), clip.core_time, clip.camera[pick], time, (height, width))
    first = {name: x[:1] for name, x in channels.items()}
    code = world.look(np.asarray(clip.channels["rgb"])[pick[:1]], first)
    return world.bridge.render(channels, code)


def _core(clip: WSV) -> Waves:
    assert clip.core is not None
    return clip.core


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else float("inf")
