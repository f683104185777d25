"""An experiment: the resolved configuration, checked key by key, and the objects that it stands for.

An experiment file is `get_config() -> ml_collections.ConfigDict` and states every key of `SCHEMA`: no default hides in code,
and a key that is not in the schema is an error that names the nearest one.
"""

import difflib
import importlib.util
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from wsm_jax.flow import METHODS, LevelMix
from wsm_jax.models.wave_bridge.objective import BridgeObjective
from wsm_jax.models.world_flow.objective import WorldObjective
from wsm_jax.models.world_flow.tasks import TASKS
from wsm_jax.world import bridge_networks, world_network

Config = Any
"""An `ml_collections.ConfigDict`, whose attributes no static checker can know."""

_OPTIMIZER = {
    "name": str, "peak": float, "warmup": int, "schedule": str, "weight_decay": float, "clip": float, "b2": float,
    "ema_decay": float,
}  # fmt: skip
_LEVELS = {"logit_normal": float, "mean": float, "std": float, "source_end": float, "target_end": float, "power": float}
_RUN = {
    "steps": int, "batch_size": int, "accumulate": int, "checkpoint_every": int, "log_every": int, "keep": int,
    "optimizer": _OPTIMIZER,
}  # fmt: skip
_DATASET = {
    "scenes": int, "seed": int, "height": int, "width": int, "frame_hz": float, "seconds": float, "pixels": bool,
}  # fmt: skip

SCHEMA: dict[str, Any] = {
    "name": str,
    "seed": int,
    "mesh": {"data": int, "fsdp": int, "tensor": int, "context": int},
    "simulate": {"train": _DATASET, "cores": _DATASET, "test": _DATASET},
    "bridge": {
        "sources": tuple,
        "frames": int, "frame_hz": float, "height": int, "width": int,
        "layout": {"channels": tuple, "waves": int, "wave_code": int, "scene_code": int, "patch_code": int},
        "network": {
            "rows": int, "patch": int, "width": int, "depth": int, "heads": int, "pixel_width": int, "frequencies": tuple,
        },
        "style_width": int,
        "objective": {
            "core_noise": float, "pixel_noise": float, "code_noise": float, "mix": tuple, "at_end": float,
            "object_weight": float, "pixel_share": float,
        },
        "levels": _LEVELS,
        "run": _RUN,
    },
    "world": {
        "sources": tuple,
        "words": tuple, "first_caption": bool, "text_length": int, "ticks": int,
        "network": {"text_code": int, "tick_patch": int, "width": int, "depth": int, "heads": int},
        "objective": {"tasks": tuple, "cube": float, "weights": tuple},
        "levels": _LEVELS,
        "run": _RUN,
    },
    "sampling": {"bridge_steps": int, "bridge_method": str, "world_steps": int, "world_method": str},
    "evaluate": {"clips": int, "seed": int, "video_size": int, "video_fps": float},
}  # fmt: skip
"""Every key of an experiment with its type. `sources` are (path relative to the workdir or absolute, weight) pairs."""


def load(path: str | Path, overrides: Mapping[str, Any] | None = None) -> Config:
    """The validated config of an experiment file, with dotted overrides, e.g. {"bridge.run.steps": 10}.

    Raises FileNotFoundError for a missing file, ValueError for a file without get_config, and what `validate` raises.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such experiment file")
    spec = importlib.util.spec_from_file_location(f"experiment_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"{path}: no Python file; needed one that defines get_config(), as experiments/quickstart.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ValueError(f"{path}: it defines no get_config(); needed one that returns an ml_collections.ConfigDict")
    config = module.get_config()
    for key, value in (overrides or {}).items():
        override(config, key, value)
    return validate(config)


def resolved(config: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> Config:
    """The validated config that a checkpoint carries (JSON has no tuples: lists become tuples again)."""

    def tuples(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: tuples(inner) for name, inner in value.items()}
        return tuple(map(tuples, value)) if isinstance(value, list | tuple) else value

    out = ConfigDict(tuples(config))
    for key, value in (overrides or {}).items():
        override(out, key, value)
    return validate(out)


def override(config: Config, key: str, value: Any) -> None:
    """Sets a dotted key that exists. Raises KeyError with the nearest name for one that does not."""
    *sections, last = key.split(".")
    node, schema = config, SCHEMA
    for name in (*sections, last):
        if not isinstance(schema, Mapping) or name not in schema:
            raise KeyError(_unknown(key, name, schema if isinstance(schema, Mapping) else {}))
        schema = schema[name]
    for name in sections:
        node = node[name]
    if isinstance(schema, Mapping):
        raise KeyError(f"config key {key!r} is a section; set one of {sorted(schema)} in it")
    value = float(value) if schema is float and isinstance(value, int) else value
    _check(value, schema, key)
    node[last] = value


def validate(config: Config) -> Config:
    """Returns the config. Raises KeyError for unknown or missing keys, ValueError for what cannot work."""
    _check(config.to_dict(), SCHEMA, "")
    _check_positive(config.to_dict())
    for method in (config.sampling.bridge_method, config.sampling.world_method):
        if method not in METHODS:
            raise ValueError(f"config key sampling: method {method!r}; the methods are {sorted(METHODS)}")
    bridge, world = config.bridge, config.world
    for section, key in ((bridge, "bridge"), (world, "world")):
        for source in section.sources:
            sound = isinstance(source, tuple | list) and len(source) == 2 and isinstance(source[0], str)
            if not sound or not isinstance(source[1], int | float) or not source[1] > 0:
                raise ValueError(f"config key '{key}.sources': got {source!r}, needed pairs of a path and a weight above 0")
    rows = bridge.network.rows
    if bridge.height % rows or bridge.width % (bridge.height // rows):
        raise ValueError(
            f"config: bridge frames of {bridge.height} x {bridge.width} do not divide into square patches,"
            f" bridge.network.rows = {rows} of them high"
        )
    for section in (bridge, world):
        if section.network.width % section.network.heads:
            raise ValueError(f"config: network.width {section.network.width} does not divide by heads {section.network.heads}")
        if not 0 <= section.run.optimizer.warmup < section.run.steps:
            raise ValueError(
                f"config: run.optimizer.warmup {section.run.optimizer.warmup} must lie below run.steps {section.run.steps}"
            )
        if section.run.batch_size % section.run.accumulate:
            raise ValueError(
                f"config: batch_size {section.run.batch_size} does not divide by accumulate {section.run.accumulate}"
            )
    if world.ticks % world.network.tick_patch or world.ticks < 2 * world.network.tick_patch:
        raise ValueError(
            f"config: world.ticks {world.ticks}; needed a multiple of world.network.tick_patch {world.network.tick_patch},"
            " two of them at least"
        )
    unknown = [name for name, _ in world.objective.tasks if name not in TASKS]
    if unknown:
        raise ValueError(f"config: world.objective.tasks {unknown}; the tasks are {sorted(TASKS)}")
    total = sum(share for _, share in world.objective.tasks)
    if abs(total - 1) > 1e-6 or abs(sum(bridge.objective.mix) - 1) > 1e-6:
        raise ValueError(f"config: shares of world.objective.tasks ({total}) and bridge.objective.mix must each sum to 1")
    check_devices(config, 1)
    bridge_networks(config)
    return config


def check_devices(config: Config, devices: int) -> None:
    """Raises ValueError when batches, or the tokens of a network, do not divide over the mesh of `devices` devices."""
    axes = dict(config.mesh)
    fixed = 1
    for name, size in axes.items():
        if size == 0 or size < -1:
            raise ValueError(f"config: mesh.{name} = {size}; needed a positive size, or -1 for the rest")
        fixed *= max(size, 1)
    rest = devices // fixed if -1 in axes.values() and devices >= fixed else 1
    shards = 1
    for name in ("data", "fsdp"):
        shards *= rest if axes[name] == -1 else axes[name]
    for stage in ("bridge", "world"):
        rows = config[stage].run.batch_size // config[stage].run.accumulate
        if rows % shards:
            raise ValueError(
                f"config: {stage}.run.batch_size / accumulate = {rows} rows do not divide over data x fsdp = {shards} shards"
                f" of the mesh; choose a multiple of {shards}"
            )
    bridge, world = config.bridge, config.world
    waves, rows = bridge.layout.waves, bridge.network.rows
    tokens = {
        "bridge": (rows * rows * bridge.width // bridge.height, "bridge.network.rows"),
        "world": (world.text_length + world.ticks // world.network.tick_patch * waves + waves + 1, "world.text_length"),
    }
    context = rest if axes["context"] == -1 else axes["context"]
    for stage, (count, key) in tokens.items():
        if count % context:
            raise ValueError(
                f"config: the {count} tokens of the {stage} flow do not divide over mesh.context = {context}; change {key}"
            )


def bridge_objective(config: Config) -> BridgeObjective:
    """What the stage "bridge" trains."""
    network, encoder, layout = bridge_networks(config)
    terms = {**config.bridge.objective, "mix": tuple(config.bridge.objective.mix)}
    return BridgeObjective(network, encoder, layout, levels=LevelMix(**config.bridge.levels), **terms)


def world_objective(config: Config) -> WorldObjective:
    """What the stage "world" trains."""
    model, tokenizer = world_network(config)
    layout, section = config.bridge.layout, config.world
    return WorldObjective(
        model,
        tasks=tuple((name, share) for name, share in section.objective.tasks),
        levels=LevelMix(**section.levels),
        cube=section.objective.cube,
        text_length=tokenizer.length,
        ticks=section.ticks,
        waves=layout.waves,
        style_code=max(layout.wave_code, layout.scene_code),
        weights=tuple(section.objective.weights),
    )


def _check(value: Any, schema: Any, path: str) -> None:
    if isinstance(schema, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"config key {path!r}: got {type(value).__name__}, needed a section with keys {sorted(schema)}")
        for name in value:
            if name not in schema:
                raise KeyError(_unknown(f"{path}.{name}" if path else name, name, schema))
        for name, inner in schema.items():
            key = f"{path}.{name}" if path else name
            if name not in value:
                raise KeyError(f"config key {key!r} is missing; every key is stated in the experiment file")
            _check(value[name], inner, key)
        return
    wrong = isinstance(value, bool) and schema is not bool
    if wrong or not isinstance(value, (schema, list) if schema is tuple else schema):
        raise ValueError(f"config key {path!r}: got {value!r} ({type(value).__name__}), needed {schema.__name__}")


def _check_positive(config: Mapping[str, Any], path: str = "") -> None:
    """Raises ValueError for a whole number below 1 (but in `mesh`, and where 0 has a meaning), and for what is not finite."""
    for name, value in config.items():
        key = f"{path}.{name}" if path else name
        if isinstance(value, Mapping):
            _check_positive(value, key)
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"config key {key!r}: got {value}, needed a finite number")
        elif isinstance(value, int) and not isinstance(value, bool) and not key.startswith("mesh."):
            least = 0 if name in ("seed", "warmup") else 1
            if value < least:
                raise ValueError(f"config key {key!r}: got {value}, needed at least {least}")


def _unknown(key: str, name: str, schema: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(name, list(schema), n=1) or difflib.get_close_matches(key, _leaves(SCHEMA), n=1)
    hint = f"; the nearest is {near[0]!r}" if near else f"; the keys here are {sorted(schema)}"
    return f"unknown config key {key!r}{hint}"


def _leaves(schema: Mapping[str, Any], path: str = "") -> Sequence[str]:
    out: list[str] = []
    for name, inner in schema.items():
        key = f"{path}.{name}" if path else name
        out += _leaves(inner, key) if isinstance(inner, Mapping) else [key]
    return out
