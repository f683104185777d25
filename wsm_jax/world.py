"""`World`: the verbs of a trained world model. Text, core and pixels, each from the other."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from wsm_jax.config import build, from_json
from wsm_jax.core import vector
from wsm_jax.core.project import project
from wsm_jax.models.wave_bridge import perceive as reading
from wsm_jax.models.wave_bridge import state as bridge_flow
from wsm_jax.models.wave_bridge.sampler import BridgeSampler
from wsm_jax.models.wave_bridge.style import Style
from wsm_jax.models.world_flow.sampler import WorldFlowSampler
from wsm_jax.runtime.checkpoint import checkpoint_steps, is_checkpoint, restore_params
from wsm_jax.snapshot import CHANNELS, FIELDS, TICK_HZ, WSV, Camera, Waves, camera_channels, decode, default_camera, resize
from wsm_jax.text import Tokenizer, codebook
from wsm_jax.typing import Float, NpOrJax, PyTree


@dataclasses.dataclass(frozen=True)
class Perception:
    """Result of `World.observe`: the core and its tick times (s), its style, and the estimated channels [T H W C]."""

    core: Waves
    core_time: Float[np.ndarray, " K"]
    style: Style
    channels: dict[str, np.ndarray]
    camera: Camera
    """Camera of the input; without one, a still camera with the height and tilt estimated from the perceived ground."""


@dataclasses.dataclass(frozen=True)
class World:
    """A trained world model. A core is `Waves` [K N] with ticks at 0, 1/8, 2/8, ... s.

    Raises ValueError for a bridge and a world flow that do not fit each other.
    """

    bridge: BridgeSampler
    flow: WorldFlowSampler

    def __post_init__(self) -> None:
        bridge, flow = self.bridge.layout, self.flow.layout
        if flow.waves != bridge.waves or flow.style_code < max(bridge.wave_code, bridge.scene_code):
            raise ValueError(
                f"the world flow has {flow.waves} waves and style codes of {flow.style_code}, the bridge {bridge.waves} waves"
                f" and codes of {bridge.wave_code} and {bridge.scene_code}; needed as many waves, and codes as wide"
            )

    @classmethod
    def load(cls, path: str | Path, trust: Sequence[str] = ()) -> "World":
        """The trained world in a workdir, or in one checkpoint alone; see `load`.

        Without a world flow the verbs of text and prediction raise ValueError. Raises ValueError for a workdir of another
        kind of model, and what `load` raises.
        """
        out = load(path, trust)
        if not isinstance(out, cls):
            raise ValueError(f"{path}: its sampler is a {type(out).__name__}; needed a World")
        if out.bridge.params is None:
            raise FileNotFoundError(f"{path}: no checkpoint of the stage {out.bridge.stage!r}; a world draws with it")
        return out

    def with_weights(self, weights: Mapping[str, PyTree]) -> "World":
        """The world with the weights of its stages, by their names; a stage without weights keeps what it has."""
        parts = {name: getattr(self, name) for name in ("bridge", "flow")}
        bound = {n: dataclasses.replace(p, params=weights[p.stage]) for n, p in parts.items() if p.stage in weights}
        return dataclasses.replace(self, **bound)

    @property
    def ticks(self) -> int:
        """Ticks of the window in which the world flow works."""
        return self.flow.layout.ticks

    @property
    def tokenizer(self) -> Tokenizer:
        """Text <-> tokens."""
        return self.flow.layout.text

    # --- text <-> core ---------------------------------------------------------------------------------------------------

    def imagine(self, text: str, seconds: float | int | None = None, seed: int = 0) -> Waves:
        """Text -> core of `seconds` (default: one window). Longer worlds are rolled out window by window."""
        state = self.flow.layout.zeros(1)
        state["text"] = self._text_codes(text)
        out = self.flow.sample("imagine", state, np.ones((self.ticks, self._waves), bool), seed)
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
        state = self.flow.layout.zeros(len(cores))
        state["core"] = np.concatenate([self._from_core(core) for core in cores])
        out = self.flow.sample("describe", state, np.zeros((self.ticks, self._waves), bool), seed)
        codes = codebook(self.tokenizer.size, self.flow.layout.text_code)
        nearest = np.argmin(-2 * out["text"] @ codes.T + np.sum(codes**2, -1), -1)
        return [self.tokenizer.decode(ids) for ids in nearest]

    def imagine_all(self, texts: Sequence[str], seed: int = 0) -> list[Waves]:
        """`imagine` of one window for several texts at once."""
        state = self.flow.layout.zeros(len(texts))
        state["text"] = np.concatenate([self._text_codes(text) for text in texts])
        out = self.flow.sample("imagine", state, np.ones((self.ticks, self._waves), bool), seed)
        return [self._to_core(one[None]) for one in out["core"]]

    # --- core -> core ----------------------------------------------------------------------------------------------------

    def continue_(self, core: Waves, seconds: float | int, text: str | None = None, seed: int = 0) -> Waves:
        """The core with `seconds` more of future: window by window, the later half sampled given the earlier half."""
        half = max(1, self.ticks // 2 // self.flow.layout.tick_patch) * self.flow.layout.tick_patch
        wanted = core.presence.shape[0] + _ticks(seconds)
        task = "continue" if text is None else "continue_with_text"
        while core.presence.shape[0] < wanted:
            past = core[-half:] if core.presence.shape[0] >= half else _hold_first(core, half)
            state = self.flow.layout.zeros(1)
            state["core"] = self._from_core(past)
            if text is not None:
                state["text"] = self._text_codes(text)
            sampled = np.broadcast_to(np.arange(self.ticks)[:, None] >= half, (self.ticks, self._waves))
            out = self.flow.sample(task, state, sampled, seed)
            new = self._like(self._to_core(out["core"])[half:], core[-1:])
            core = _concatenate(core, new)
            seed += 1
        return core[:wanted]

    def rewind(self, core: Waves, seconds: float | int, seed: int = 0) -> Waves:
        """The core with `seconds` of sampled past in front."""
        half = max(1, self.ticks // 2 // self.flow.layout.tick_patch) * self.flow.layout.tick_patch
        wanted = core.presence.shape[0] + _ticks(seconds)
        while core.presence.shape[0] < wanted:
            late = core[: self.ticks - half]
            state = self.flow.layout.zeros(1)
            filled = _concatenate(_hold_first(late[:1], half), late)
            state["core"] = self._from_core(filled)
            sampled = np.broadcast_to(np.arange(self.ticks)[:, None] < half, (self.ticks, self._waves))
            out = self.flow.sample("rewind", state, sampled, seed)
            core = _concatenate(self._like(self._to_core(out["core"])[:half], core[:1]), core)
            seed += 1
        return core[-wanted:]

    def edit(self, core: Waves, keep: Sequence[int], text: str, seed: int = 0) -> Waves:
        """One window in which the slots `keep` stay unchanged and the other waves are resampled to fit `text`.

        Raises ValueError for a slot that this world does not have.
        """
        bad = [slot for slot in keep if not 0 <= slot < self._waves]
        if bad:
            raise ValueError(f"edit: slots {bad}; this world has slots 0..{self._waves - 1}")
        sampled = np.ones((self.ticks, self._waves), bool)
        sampled[:, list(keep)] = False
        state = self.flow.layout.zeros(1)
        state["core"], state["text"] = self._from_core(core), self._text_codes(text)
        out = self._to_core(self.flow.sample("edit", state, sampled, seed)["core"])
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

    def sample_style(self, core: Waves, text: str | None = None, seed: int = 0) -> Style:
        """A style for a core, from the prior. Raises ValueError without a world flow."""
        state = self.flow.layout.zeros(1)
        state["core"] = self._from_core(core)
        if text is not None:
            state["text"] = self._text_codes(text)
        task = "sample_style_unconditional" if text is None else "sample_style"
        out = self.flow.sample(task, state, np.zeros((self.ticks, self._waves), bool), seed)["style"][0]
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
        """Core -> video, every surface channel and "rgb". One frame per camera; the default is a still camera for all ticks.

        Raises ValueError without a style where there is no world flow to sample one.
        """
        seconds = (core.presence.shape[0] - 1) / TICK_HZ
        camera = default_camera(max(1, int(seconds * fps + 1e-6) + 1)) if camera is None else camera
        time = np.arange(camera.position.shape[0]) / fps
        if style is None and self.flow.params is None:
            raise ValueError("render: there is no trained world flow to sample a style from; needed a style")
        style = self.sample_style(core, seed=seed) if style is None else style
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
        """A camera for every frame of pictures without one."""
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

    def _text_codes(self, text: str) -> np.ndarray:
        return codebook(self.tokenizer.size, self.flow.layout.text_code)[self.tokenizer.encode(text)][None]

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


_to_vector, _from_vector = jax.jit(vector.to_vector), jax.jit(vector.from_vector)


def _ticks(seconds: float | int) -> int:
    if not seconds > 0:
        raise ValueError(f"seconds = {seconds}: needed more than 0")
    return max(1, round(seconds * TICK_HZ))


def _hold_first(core: Waves, ticks: int) -> Waves:
    return core[np.maximum(np.arange(ticks) - (ticks - core.presence.shape[0]), 0)]


def _concatenate(a: Waves, b: Waves) -> Waves:
    return Waves(**{n: np.concatenate([np.asarray(getattr(x, n)) for x in (a, b)]) for n in FIELDS})


def load(path: str | Path, trust: Sequence[str] = ()) -> Any:
    """The sampler that an experiment names, with the averaged weights of every stage that was trained.

    Packages in `trust` may be imported besides our own. Raises what `read` raises, and ValueError, naming the path, for an
    experiment without a sampler.
    """
    config, weights = read(path)
    if config["sampler"] is None:
        raise ValueError(f"{path}: its experiment {config['name']!r} names no sampler")
    return build(from_json(config["sampler"], trust), trust).with_weights(weights)


def read(path: str | Path) -> tuple[dict[str, Any], dict[str, PyTree]]:
    """(config of the experiment as JSON data, averaged weights of every trained stage by its name).

    `path` is a workdir, the folder of one stage, or one checkpoint, copied from anywhere: each carries the whole config.
    Raises FileNotFoundError without any checkpoint, ValueError for a damaged one and for stages of different experiments;
    both name the path.
    """
    folders = _trained(Path(path))
    if not folders:
        raise FileNotFoundError(f"{path}: no checkpoint there or in a folder of a stage; train one with python -m launch.train")
    weights: dict[str, PyTree] = {}
    configs: dict[str, dict[str, Any]] = {}
    for folder in folders:
        params, config = restore_params(folder)
        weights[config["stage"]], configs[config["stage"]] = params, config
    latest = configs[_last(configs)]
    for stage, config in configs.items():
        if config["stages"][stage]["objective"] != latest["stages"].get(stage, {}).get("objective"):
            raise ValueError(f"{path}: the stage {stage!r} was trained with another objective than that of {_last(configs)!r}")
    return {key: value for key, value in latest.items() if key != "stage"}, weights


def _trained(path: Path) -> list[Path]:
    """Folders with whole checkpoints: the path itself, or the stages in it."""
    if is_checkpoint(path) or checkpoint_steps(path):
        return [path]
    return sorted(folder for folder in path.glob("*") if checkpoint_steps(folder)) if path.is_dir() else []


def _last(configs: Mapping[str, Mapping[str, Any]]) -> str:
    """The stage that needs most of the others."""
    return max(sorted(configs), key=lambda name: len(_earlier(configs[name]["stages"][name])))


def _earlier(stage: Mapping[str, Any]) -> set[str]:
    return {*stage["needs"], *stage["frozen"].values()}
