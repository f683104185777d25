"""Where data meets model: the batches of each stage, and the call of the one loop."""

import io
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.loading.batch import read
from data_pipelines.loading.clips import Clips
from data_pipelines.loading.source import DatasetSource
from data_pipelines.loading.transforms import Tokenise, Transform
from data_pipelines.simulation.mention import MentionOrder
from data_pipelines.wsv import Dataset
from wsm_jax import experiment
from wsm_jax.experiment import Config
from wsm_jax.files import write_file
from wsm_jax.runtime.checkpoint import check_owner, restore_params
from wsm_jax.runtime.fingerprint import fingerprint
from wsm_jax.runtime.mesh import make_mesh
from wsm_jax.snapshot import CAMERA_CHANNELS
from wsm_jax.training import make_optimizer, state_shardings, train
from wsm_jax.world import bridge_networks, world_network

STAGES = ("bridge", "world")
MAY_DIFFER = ("sampling", "evaluate", "simulate")


def sources(config: Config, stage: str, workdir: Path) -> list[DatasetSource]:
    """The datasets of a stage; relative paths lie in the workdir. Raises FileNotFoundError for one that is not there."""
    return Clips(sources=config[stage].sources, waves=config.bridge.layout.waves).datasets(workdir)


def bridge_batches(config: Config, workdir: Path) -> Any:
    """Batches {"channels", "known"} for the bridge."""
    section = config.bridge
    channels = tuple(dict.fromkeys(("rgb", "base_colour", "instance", "semantic", *section.layout.channels)))

    def keep(batch: dict[str, Any]) -> dict[str, Any]:
        return {"channels": batch["channels"], "known": {name: batch["known"][name] for name in channels}}

    window = {
        "frames": section.frames,
        "frame_hz": section.frame_hz,
        "height": section.height,
        "width": section.width,
        "ticks": 0,
    }
    return _loader(config, "bridge", workdir, channels, window, (keep,))


def world_batches(config: Config, workdir: Path) -> Any:
    """Batches {"tokens", "core", "style", "known"} for the world flow; style codes come from the trained bridge.

    Objects come in the order in which the caption mentions them.
    """
    _, tokenizer = world_network(config)
    codes = style_codes(config, workdir)
    layout = config.bridge.layout
    width = max(layout.wave_code, layout.scene_code)

    def add_style(batch: dict[str, Any]) -> dict[str, Any]:
        look = np.zeros((len(batch["clip"]), layout.waves + 1, width), np.float32)
        known = np.zeros(len(look), bool)
        for row, (source, clip) in enumerate(zip(batch["source"], batch["clip"], strict=True)):
            if (style := codes[int(source)]) is not None:
                look[row], known[row] = style[int(clip)], True
        return {**batch, "latents": {"style": look}, "known": {**batch["known"], "style": known}}

    def keep(batch: dict[str, Any]) -> dict[str, Any]:
        known = {name: batch["known"][name] for name in ("text", "core", "style")}
        return {"tokens": batch["tokens"], "core": batch["core"], "style": batch["latents"]["style"], "known": known}

    window = {"ticks": config.world.ticks, "first_caption": config.world.first_caption}
    transforms = (add_style, MentionOrder(), Tokenise(tokenizer), keep)
    return _loader(config, "world", workdir, (), window, transforms)


def _loader(
    config: Config,
    stage: str,
    workdir: Path,
    channels: tuple[str, ...],
    window: Mapping[str, Any],
    transforms: tuple[Transform, ...],
) -> Any:
    clips = Clips(
        sources=config[stage].sources,
        channels=channels,
        waves=config.bridge.layout.waves,
        transforms=transforms,
        **window,
    )
    rows, hosts = config[stage].run.batch_size, jax.process_count()
    return clips.open(workdir, rows=rows, seed=config.seed, host=jax.process_index(), hosts=hosts)


def style_codes(config: Config, workdir: Path) -> list[np.ndarray | None]:
    """Style codes [clips N + 1 c] of each source of the world flow, by the encoder of the trained bridge; None without pixels.

    Kept beside the bridge (`styles_<dataset>_<of what>.npy`), so that a resumed training reads the same codes; a bridge that
    was trained on, or another dataset of the name, gets codes of its own.
    """
    params, _ = restore_params(workdir / "bridge")
    objective = experiment.bridge_objective(config)
    layout = bridge_networks(config)[2]
    width = max(layout.wave_code, layout.scene_code)
    needed = tuple(dict.fromkeys(("rgb", "base_colour", "instance", *layout.channels)))

    @jax.jit
    def encode(channels: dict[str, Any]) -> jax.Array:
        known = {name: jnp.ones(x.shape[0], bool) for name, x in channels.items()}
        frames = jnp.ones(channels["rgb"].shape[:2])
        waves, scene, _ = objective.codes(params, {"channels": channels, "known": known}, frames)
        waves = jnp.pad(waves, ((0, 0), (0, 0), (0, width - layout.wave_code)))
        scene = jnp.pad(scene, ((0, 0), (0, width - layout.scene_code)))
        return jnp.concatenate([waves, scene[:, None]], 1)

    out: list[np.ndarray | None] = []
    for source in sources(config, "world", workdir):
        dataset = Dataset(source.path)
        camera = CAMERA_CHANNELS if dataset.layout.camera else ()
        if not set(needed) <= {*dataset.layout.channels, *camera}:
            out.append(None)
            continue
        of_what = zlib.crc32(json.dumps([fingerprint(params), dataset.manifest["files"]], sort_keys=True).encode())
        kept = workdir / "bridge" / f"styles_{dataset.name}_{of_what:08x}.npy"
        if not kept.exists():
            frames = np.linspace(0, dataset.layout.frames - 1, min(4, dataset.layout.frames)).astype(int)
            size, rows = (dataset.layout.height, dataset.layout.width), []
            for first in range(0, len(dataset), 8):
                clips = [min(first + i, len(dataset) - 1) for i in range(8)]
                parts = [read(dataset, clip, needed, frames, size)[0] for clip in clips]
                rows.append(np.asarray(encode({name: np.stack([p[name] for p in parts]) for name in needed})))
            codes = np.concatenate(rows)[: len(dataset)]
            data = io.BytesIO()
            np.save(data, codes)
            write_file(kept, data.getvalue())
        out.append(np.load(kept))
    return out


def keep_compilations(workdir: Path) -> None:
    """Compiled programs are kept in the workdir, so that a run that goes on starts at once; a cache set before stays."""
    settings: Any = jax.config
    if settings.jax_compilation_cache_dir is None:
        settings.update("jax_compilation_cache_dir", str(workdir / "jax_cache"))


def check(config: Config, stages: Sequence[str], workdir: Path) -> None:
    """Raises ValueError, before any work is done, when batches, tokens or weights do not divide over the mesh of the devices,
    or a stage's folder in the workdir belongs to another experiment."""
    mesh = make_mesh(**config.mesh)
    experiment.check_devices(config, mesh.size)
    for stage in stages:
        check_owner(workdir / stage, config.to_dict(), MAY_DIFFER)
        state_shardings(_objective(config, stage), _optimizer(config, stage), mesh)
    if "bridge" not in stages:
        check_owner(workdir / "bridge", config.to_dict(), (*MAY_DIFFER, "seed", "world", "mesh", "bridge.run"))


def run_stage(config: Config, stage: str, workdir: Path, progress: bool = True) -> None:
    """Trains one stage in workdir/<stage>, from scratch or from its newest checkpoint."""
    run, mesh = config[stage].run, make_mesh(**config.mesh)
    batches = {"bridge": bridge_batches, "world": world_batches}[stage](config, workdir)
    train(
        _objective(config, stage),
        batches,
        steps=run.steps,
        workdir=workdir / stage,
        config=config.to_dict(),
        optimizer=_optimizer(config, stage),
        ema_decay=run.optimizer.ema_decay,
        mesh=mesh,
        seed=config.seed,
        accumulate=run.accumulate,
        checkpoint_every=run.checkpoint_every,
        keep=run.keep,
        log_every=run.log_every,
        may_differ=MAY_DIFFER,
        label=stage,
        progress=progress,
    )


def _objective(config: Config, stage: str) -> Any:
    return {"bridge": experiment.bridge_objective, "world": experiment.world_objective}[stage](config)


def _optimizer(config: Config, stage: str) -> Any:
    run = config[stage].run
    return make_optimizer(steps=run.steps, **{name: run.optimizer[name] for name in run.optimizer if name != "ema_decay"})
