"""`World`: the verbs of a trained world model. Text, core and pixels, each from the other."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from wsm_jax.core import vector
from wsm_jax.core.project import project
from wsm_jax.models.wave_bridge import perceive as reading
from wsm_jax.models.wave_bridge import state as bridge_flow
from wsm_jax.models.wave_bridge.network import StyleEncoder, WaveBridge
from wsm_jax.models.wave_bridge.sampler import BridgeSampler
from wsm_jax.models.wave_bridge.style import Style
from wsm_jax.models.world_flow.network import WorldFlow
from wsm_jax.models.world_flow.sampler import task_levels, walk_task
from wsm_jax.runtime.checkpoint import restore_params
from wsm_jax.snapshot import CHANNELS, FIELDS, TICK_HZ, WSV, Camera, Waves, camera_channels, decode, default_camera, resize
from wsm_jax.text import Tokenizer, codebook
from wsm_jax.typing import Bool, Float, NpOrJax, PyTree

Settings = Mapping[str, Any] | ConfigDict
"""A resolved experiment, as its file gives it or as a checkpoint carries it."""


def bridge_networks(config: Settings) -> tuple[WaveBridge, StyleEncoder, bridge_flow.Layout]:
    """Networks and layout of the section `bridge` of an experiment."""
    section: Any = config["bridge"]
    layout = bridge_flow.Layout(**{**section["layout"], "channels": tuple(section["layout"]["channels"])})
    network = {**section["network"], "frequencies": tuple(section["network"]["frequencies"])}
    codes = (layout.wave_code, layout.scene_code, layout.patch_code)
    encoder = StyleEncoder(section["style_width"], *codes, network["frequencies"])
    bridge = WaveBridge(
        **network,
        local_slice=layout.local_slice,
        blocks=tuple(layout.sizes.values()),
        noise=layout.noise(section["objective"]["pixel_noise"]),
    )
    return bridge, encoder, layout


def world_network(config: Settings) -> tuple[WorldFlow, Tokenizer]:
    """Network and tokenizer of the section `world` of an experiment."""
    section: Any = config["world"]
    tokenizer = Tokenizer(tuple(section["words"]), section["text_length"])
    return WorldFlow(vocabulary=tokenizer.size, tick_seconds=1.0 / TICK_HZ, **section["network"]), tokenizer


@dataclasses.dataclass(frozen=True)
class Perception:
    """What `World.observe` saw: the core and its tick times (s), its style, and the estimated channels [T H W C]."""

    core: Waves
    core_time: Float[np.ndarray, " K"]
    style: Style
    channels: dict[str, np.ndarray]
    camera: Camera
    """As given; else one that stands still, of the height and tilt that the perceived ground tells."""


@dataclasses.dataclass(frozen=True)
class World:
    """A trained world model. A core is `Waves` [K N] with ticks at 0, 1/8, 2/8, ... s."""

    bridge: BridgeSampler
    network: WorldFlow
    params: PyTree | None
    """Of the world flow; None where only the bridge is trained."""
    tokenizer: Tokenizer
    ticks: int
    """Ticks of the window in which the world flow works."""
    steps: int
    method: str
    config: Mapping[str, Any] = dataclasses.field(repr=False)

    @classmethod
    def load(cls, workdir: str | Path) -> "World":
        """The averaged weights in a workdir: of the bridge, and of the world flow where one was trained.

        Raises FileNotFoundError or ValueError, naming what is missing or damaged. Without a world flow the verbs of text and
        prediction raise ValueError.
        """
        bridge_params, config = restore_params(Path(workdir) / "bridge")
        if not any((Path(workdir) / "world" / "checkpoints").glob("[0-9]*")):
            return cls.build(config, bridge_params, None)
        world_params, world_config = restore_params(Path(workdir) / "world")
        return cls.build({**world_config, "bridge": config["bridge"]}, bridge_params, world_params)

    @classmethod
    def build(cls, config: Mapping[str, Any], bridge_params: PyTree, world_params: PyTree | None) -> "World":
        """A world from a resolved experiment and its weights."""
        network, _, layout = bridge_networks(config)
        world, tokenizer = world_network(config)
        how = config["sampling"]
        noise = config["bridge"]["objective"]["pixel_noise"]
        bridge = BridgeSampler(network, layout, bridge_params, how["bridge_steps"], how["bridge_method"], noise)
        return cls(
            bridge, world, world_params, tokenizer, config["world"]["ticks"], how["world_steps"], how["world_method"], config
        )

    # --- text <-> core ---------------------------------------------------------------------------------------------------

    def imagine(self, text: str, seconds: float | int | None = None, seed: int = 0) -> Waves:
        """Text -> core of `seconds` (default: one window). Longer worlds are rolled out window by window."""
        state = self._empty_state()
        state["text"] = self._text_codes(text)
        out = self._sample("imagine", state, np.ones((self.ticks, self._waves), bool), seed)
        core = self._to_core(out["core"])
        wanted = self.ticks if seconds is None else _ticks(seconds)
        if wanted > self.ticks:
            return self.continue_(core, (wanted - self.ticks) / TICK_HZ, text=text, seed=seed + 1)
        return core[:wanted]

    def describe(self, core: Waves, seed: int = 0) -> str:
        """Core -> text, of the first window of ticks; a shorter core holds its last state."""
        return self.describe_all([core], seed)[0]

    def describe_all(self, cores: Sequence[Waves], seed: int = 0) -> list[str]:
        """`describe` for several cores at once."""
        state = self._empty_state(len(cores))
        state["core"] = np.concatenate([self._from_core(core) for core in cores])
        out = self._sample("describe", state, np.zeros((self.ticks, self._waves), bool), seed)
        codes = codebook(self.tokenizer.size, self.network.text_code)
        nearest = np.argmin(-2 * out["text"] @ codes.T + np.sum(codes**2, -1), -1)
        return [self.tokenizer.decode(ids) for ids in nearest]

    def imagine_all(self, texts: Sequence[str], seed: int = 0) -> list[Waves]:
        """`imagine` of one window for several texts at once."""
        state = self._empty_state(len(texts))
        state["text"] = np.concatenate([self._text_codes(text) for text in texts])
        out = self._sample("imagine", state, np.ones((self.ticks, self._waves), bool), seed)
        return [self._to_core(one[None]) for one in out["core"]]

    # --- core -> core ----------------------------------------------------------------------------------------------------

    def continue_(self, core: Waves, seconds: float | int, text: str | None = None, seed: int = 0) -> Waves:
        """The core with `seconds` more of future: window by window, the later half sampled given the earlier half."""
        half = max(1, self.ticks // 2 // self.network.tick_patch) * self.network.tick_patch
        wanted = core.presence.shape[0] + _ticks(seconds)
        task = "continue" if text is None else "continue_told"
        while core.presence.shape[0] < wanted:
            past = core[-half:] if core.presence.shape[0] >= half else _hold_first(core, half)
            state = self._empty_state()
            state["core"] = self._from_core(past)
            if text is not None:
                state["text"] = self._text_codes(text)
            sampled = np.broadcast_to(np.arange(self.ticks)[:, None] >= half, (self.ticks, self._waves))
            out = self._sample(task, state, sampled, seed)
            new = self._like(self._to_core(out["core"])[half:], core[-1:])
            core = _concatenate(core, new)
            seed += 1
        return core[:wanted]

    def rewind(self, core: Waves, seconds: float | int, seed: int = 0) -> Waves:
        """The core with `seconds` of past in front: what could have led here."""
        half = max(1, self.ticks // 2 // self.network.tick_patch) * self.network.tick_patch
        wanted = core.presence.shape[0] + _ticks(seconds)
        while core.presence.shape[0] < wanted:
            late = core[: self.ticks - half]
            state = self._empty_state()
            filled = _concatenate(_hold_first(late[:1], half), late)
            state["core"] = self._from_core(filled)
            sampled = np.broadcast_to(np.arange(self.ticks)[:, None] < half, (self.ticks, self._waves))
            out = self._sample("rewind", state, sampled, seed)
            core = _concatenate(self._like(self._to_core(out["core"])[:half], core[:1]), core)
            seed += 1
        return core[-wanted:]

    def edit(self, core: Waves, keep: Sequence[int], text: str, seed: int = 0) -> Waves:
        """One window in which the waves in the slots `keep` stay as they are and the others are sampled anew to fit `text`."""
        bad = [slot for slot in keep if not 0 <= slot < self._waves]
        if bad:
            raise ValueError(f"edit: slots {bad}; this world has slots 0..{self._waves - 1}")
        sampled = np.ones((self.ticks, self._waves), bool)
        sampled[:, list(keep)] = False
        state = self._empty_state()
        state["core"], state["text"] = self._from_core(core), self._text_codes(text)
        out = self._to_core(self._sample("edit", state, sampled, seed)["core"])
        held = core[: self.ticks]
        kept = np.zeros(self._waves, bool)
        kept[list(keep)] = True
        out = out[: held.presence.shape[0]]
        fields = {}
        for name in FIELDS:
            new, old = np.array(getattr(out, name)), np.asarray(getattr(held, name))
            new[:, kept] = old[:, kept]
            fields[name] = new
        return Waves(**fields)

    def dress(self, core: Waves, text: str | None = None, seed: int = 0) -> Style:
        """A style for a core, from the prior."""
        state = self._empty_state()
        state["core"] = self._from_core(core)
        if text is not None:
            state["text"] = self._text_codes(text)
        task = "dress_untold" if text is None else "dress"
        out = self._sample(task, state, np.zeros((self.ticks, self._waves), bool), seed)["style"][0]
        layout = self.bridge.layout
        return Style(out[:-1, : layout.wave_code], out[-1, : layout.scene_code])

    # --- core <-> pixels -------------------------------------------------------------------------------------------------

    def render(
        self,
        core: Waves,
        camera: Camera | None = None,
        fps: float | int = 24.0,
        size: tuple[int, int] = (256, 256),
        style: Style | None = None,
        seed: int = 0,
    ) -> WSV:
        """Core -> video, every surface channel and "rgb". One frame per camera; the default is a still camera for all ticks."""
        seconds = (core.presence.shape[0] - 1) / TICK_HZ
        camera = default_camera(max(1, int(seconds * fps + 1e-6) + 1)) if camera is None else camera
        time = np.arange(camera.position.shape[0]) / fps
        style = self.dress(core, seed=seed) if style is None else style
        core_time = np.arange(core.presence.shape[0]) / TICK_HZ
        channels = self.bridge.surface(core, core_time, camera, time, size)
        rgb = self.bridge.render(channels, style)
        out: dict[str, NpOrJax] = dict(channels)
        out["rgb"] = rgb
        return WSV(out, time, camera, core, core_time)

    def perceive(self, video: WSV, camera: Camera | None = None) -> Waves:
        """Video -> core, in the frame of its camera path: the video's own, else `camera`, else a still one of the height and
        tilt that the perceived ground tells."""
        return self.observe(video, camera).core

    def observe(self, video: WSV, camera: Camera | None = None) -> Perception:
        """Video -> core, style and every surface channel. Ticks lie at 8 Hz from the first frame on."""
        rgb = self._canvas(np.asarray(video.channels["rgb"], np.float32))
        frames = rgb.shape[0]
        camera = video.camera or camera
        given = {} if camera is None else camera_channels(camera, *rgb.shape[1:3])
        blocks = self.bridge.perceive(rgb, given)
        layout = self.bridge.layout
        channels = {name: decode(name, blocks[name]) for name in layout.channels}
        camera = self._still_camera(channels) if camera is None else camera
        channels["base_colour"] = decode("rgb", blocks["rgb"])
        seen = channels | {"semantic_code": blocks["semantic"], "style": blocks["style"]}
        found = [reading.detect({n: x[t] for n, x in seen.items()}, camera[t], layout.wave_code) for t in range(frames)]
        floor = channels["semantic"][..., 0] == reading.FLOOR
        floor = floor if floor.any() else np.ones_like(floor)
        core, ticks, style = reading.to_core(
            reading.follow(found),
            np.asarray(video.frame_time, np.float64),
            np.clip(np.median(channels["base_colour"][floor], axis=0), 0, 1),
            blocks["style"][floor][:, : layout.wave_code].mean(0),
            blocks["style"][..., layout.wave_code :].mean((0, 1, 2)),
            layout.waves,
        )
        return Perception(core, ticks - ticks[0], style, channels, camera)

    def look(self, picture: Float[NpOrJax, "T H W 3"], channels: Mapping[str, NpOrJax]) -> Style:
        """The style of pictures whose surface channels (with "instance") are known."""
        blocks = self.bridge.perceive(picture, channels)
        layout = self.bridge.layout
        masks = bridge_flow.wave_masks(np.asarray(channels["instance"]), layout.waves)
        code = blocks["style"]
        per_wave = np.einsum("thwn,thwc->nc", masks, code[..., : layout.wave_code])
        amount = masks.sum((0, 1, 2))[:, None]
        return Style(per_wave / np.maximum(amount, 1.0), code[..., layout.wave_code :].mean((0, 1, 2)))

    # --- inside ----------------------------------------------------------------------------------------------------------

    @property
    def _waves(self) -> int:
        return self.bridge.layout.waves

    def _still_camera(self, channels: dict[str, np.ndarray]) -> Camera:
        """A camera for every frame of pictures that came without one."""
        frames = channels["depth"].shape[0]
        row = next((CHANNELS[name] for name in channels if CHANNELS[name].to_camera), None)
        if row is None or row.to_camera is None:
            return default_camera(frames)
        one = row.to_camera(np.median(channels[row.name], axis=0), default_camera()[0])
        return jax.tree.map(lambda x: np.repeat(np.asarray(x)[None], frames, 0), one)

    def _canvas(self, rgb: Float[np.ndarray, "T H W 3"]) -> Float[np.ndarray, "T h w 3"]:
        """The pictures at the resolution that the bridge was trained at, whole patches wide."""
        network = self.bridge.network
        columns = max(1, round(network.rows * rgb.shape[2] / rgb.shape[1]))
        return resize("rgb", rgb, network.rows * network.patch, columns * network.patch)

    def _empty_state(self, rows: int = 1) -> dict[str, np.ndarray]:
        layout = self.bridge.layout
        style = max(layout.wave_code, layout.scene_code)
        return {
            "text": np.zeros((rows, self.tokenizer.length, self.network.text_code), np.float32),
            "core": np.zeros((rows, self.ticks, self._waves, vector.SIZE), np.float32),
            "style": np.zeros((rows, self._waves + 1, style), np.float32),
        }

    def _text_codes(self, text: str) -> np.ndarray:
        return codebook(self.tokenizer.size, self.network.text_code)[self.tokenizer.encode(text)][None]

    def _from_core(self, core: Waves) -> np.ndarray:
        """[1 K N P] of the window; a shorter core holds its last state, a longer one is cut."""
        if core.count != self._waves:
            raise ValueError(f"a core with {core.count} slots; this world was trained with {self._waves}")
        index = np.minimum(np.arange(self.ticks), core.presence.shape[0] - 1)
        return np.asarray(_to_vector(jax.tree.map(np.asarray, core)[index]))[None]

    def _to_core(self, value: Float[np.ndarray, "1 K N P"]) -> Waves:
        return project(_from_vector(value[0]))

    def _like(self, new: Waves, reference: Waves) -> Waves:
        """`new` with what cannot change (shape, colour, class, presence) taken from `reference`."""
        fixed = ("presence", "scale", "exponents", "colour", "material", "semantic", "instance")
        ticks = new.presence.shape[0]
        return new.replace(**{n: np.repeat(np.asarray(getattr(reference, n)), ticks, 0) for n in fixed})  # type: ignore[attr-defined]

    def _sample(
        self, task: str, state: dict[str, np.ndarray], sampled: Bool[np.ndarray, "K N"], seed: int
    ) -> dict[str, np.ndarray]:
        """Walks the edge of a task; groups that are given keep their values, all others start as noise."""
        if self.params is None:
            raise ValueError(f"{task}: this workdir has a bridge but no world flow; train it with --stages=world")
        rows = state["text"].shape[0]
        part = np.broadcast_to(sampled, (rows, *sampled.shape))
        start, end = task_levels(task, part, state["text"].shape[1], state["style"].shape[1])
        out = walk_task(self.network, self.method, self.steps, self.params, state, start, end, jax.random.key(seed))
        return jax.tree.map(np.asarray, out)


_to_vector, _from_vector = jax.jit(vector.to_vector), jax.jit(vector.from_vector)


def _ticks(seconds: float | int) -> int:
    if not seconds > 0:
        raise ValueError(f"seconds = {seconds}: needed more than 0")
    return max(1, round(seconds * TICK_HZ))


def _hold_first(core: Waves, ticks: int) -> Waves:
    return core[np.maximum(np.arange(ticks) - (ticks - core.presence.shape[0]), 0)]


def _concatenate(a: Waves, b: Waves) -> Waves:
    return Waves(**{n: np.concatenate([np.asarray(getattr(x, n)) for x in (a, b)]) for n in FIELDS})
