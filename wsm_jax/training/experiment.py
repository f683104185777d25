"""An experiment: stages that train one after the other in one workdir, and what is done with them.

workdir/<stage>/    checkpoints, metrics and config of a stage; the config is that of the whole experiment
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.core import meta
from jax.sharding import Mesh

from wsm_jax.config import Config, build, packages, to_json
from wsm_jax.runtime import mesh as meshes
from wsm_jax.runtime.checkpoint import check_owner, restore_params
from wsm_jax.runtime.metrics import EncodeVideo, LoggedVideo, MetricWriter
from wsm_jax.runtime.writers import Dashboard
from wsm_jax.training.loop import Hook, train
from wsm_jax.training.stage import Batches, Context, Stage, select
from wsm_jax.training.step import TrainState, state_shardings
from wsm_jax.typing import PyTree


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Complete description of a run. Raises ValueError for unknown mesh axes and for stages that need one that is not there."""

    name: str
    seed: int
    mesh: Mapping[str, int]
    """Size of each mesh axis; -1 for one of them is the rest of the devices, an axis that is not named has size 1."""
    stages: Mapping[str, Stage]
    sampler: Any = None
    """Inference with the trained stages, such as `wsm_jax.World`; loading a workdir binds its weights."""
    dashboards: Mapping[str, Dashboard] = dataclasses.field(default_factory=dict)
    """Metric writers besides metrics.jsonl: TensorBoard, Wandb."""
    evaluators: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Evaluators of the trained model that launch.evaluate runs (see `evaluation.evaluate.ReportEvaluator`)."""
    datasets: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """Simulated datasets that launch.quickstart makes first: name of the folder below workdir/data -> how."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.mesh) - set(meshes.MESH_AXES))
        if unknown:
            raise ValueError(f"mesh axes {unknown}; the axes are {', '.join(meshes.MESH_AXES)}")
        for axis, size in self.mesh.items():
            if size == 0 or size < -1:
                raise ValueError(f"mesh.{axis} = {size}; needed a positive size, or -1 for the rest")
        if self.seed < 0:
            raise ValueError(f"seed = {self.seed}: needed 0 or more")
        for name, stage in self.stages.items():
            lacking = [one for one in stage.earlier if one not in self.stages or one == name]
            if lacking:
                raise ValueError(f"stage {name!r} needs {lacking}; the stages are {sorted(self.stages)}")

    @property
    def order(self) -> tuple[str, ...]:
        """Names of the stages, each after those that it needs. Raises ValueError for a circle."""
        out: list[str] = []
        while len(out) < len(self.stages):
            ready = sorted(name for name, s in self.stages.items() if name not in out and set(s.earlier) <= set(out))
            if not ready:
                raise ValueError(f"stages {sorted(set(self.stages) - set(out))} need each other")
            out.append(ready[0])
        return tuple(out)

    def make_mesh(self) -> Mesh:
        """The mesh of all devices. Raises ValueError where the sizes do not fit them."""
        sizes: dict[str, Any] = {axis: self.mesh.get(axis, 1) for axis in meshes.MESH_AXES}
        return meshes.make_mesh(**sizes)


def open_experiment(config: Config) -> Experiment:
    """The experiment of a config that the user's own file made: all packages that it names are trusted.

    Raises ValueError for another kind of config, and what the classes raise, with the key in front.
    """
    out = build(config, packages(config))
    if not isinstance(out, Experiment):
        raise ValueError(f"the config makes a {type(out).__name__}; needed node(Experiment, ...)")
    return out


def check(experiment: Experiment, config: Config, names: Sequence[str], workdir: Path) -> None:
    """`check_stages`, and that all datasets are there: raises FileNotFoundError or ValueError, naming the path."""
    check_stages(experiment, config, names, workdir)
    for name in names:
        stage = experiment.stages[name]
        for reader in (stage.data, *stage.evaluators.values()):
            reader.datasets(workdir)
        for path in stage.encode:
            if "://" not in path and not (workdir / path).exists():
                raise FileNotFoundError(
                    f"{workdir / path}: no such dataset, which stages.{name}.encode names; build it, or leave it out there"
                )


def check_stages(experiment: Experiment, config: Config, names: Sequence[str], workdir: Path) -> None:
    """Raises, before any work is done, for what cannot be trained on the devices that there are.

    That is: rows, tokens or weights that do not divide over the mesh, batches that lack what an objective reads, and a folder
    that belongs to another experiment.
    """
    mesh = experiment.make_mesh()
    for name in names:
        stage = experiment.stages[name]
        check_stage(name, stage, mesh)
        check_owner(workdir / name, stored(config, name), free_keys(experiment, config, name))
        for earlier in stage.earlier:
            if earlier not in names:
                check_owner(workdir / earlier, stored(config, earlier), free_keys(experiment, config, earlier, "objective"))


def check_stage(name: str, stage: Stage, mesh: Mesh) -> None:
    """Raises ValueError or KeyError when a stage does not fit a mesh, or its data do not fit its objective."""
    meshes.check_batch(mesh, stage.batch_size, stage.accumulate, f"stages.{name}.batch_size")
    context = mesh.shape["context"]
    if stage.objective.tokens % context:
        raise ValueError(
            f"stages.{name}: the {stage.objective.tokens} tokens of its network do not divide over mesh.context = {context};"
            " change the sizes of the network, or the mesh"
        )
    check_batch(name, stage)
    state_shardings(stage.objective, stage.optimizer.transformation(stage.steps), mesh)


def check_batch(name: str, stage: Stage) -> None:
    """Raises ValueError, naming the array, when the data of a stage lack one that its objective reads."""
    spec = dict(_leaves(stage.data.spec(stage.batch_size)))
    for path, leaf in _leaves(stage.objective.batch(stage.batch_size)):
        got = spec.get(path)
        if got is None or (got.shape, got.dtype) != (leaf.shape, leaf.dtype):
            there = "none" if got is None else f"{got.dtype} {got.shape}"
            raise ValueError(
                f"stages.{name}: the objective reads {path}, {leaf.dtype} {leaf.shape}; the data give {there};"
                f" change stages.{name}.data or stages.{name}.objective"
            )


def _leaves(tree: PyTree) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(p, simple=True, separator="/"), x) for p, x in jax.tree_util.tree_leaves_with_path(tree)]


def stored(config: Config, stage: str) -> dict[str, Any]:
    """The JSON data that the checkpoints of a stage carry: the whole config, and the name of the stage."""
    return {"stage": stage, **to_json(config)}


def free_keys(experiment: Experiment, config: Config, name: str, part: str | None = None) -> list[str]:
    """Dotted keys that may differ between runs in one folder of a stage: all but what its weights depend on.

    With a `part`, as "objective", only that part of the stage must be the same.
    """
    own = ("objective", "data", "optimizer", "frozen", "steps", "batch_size", "accumulate", "ema_decay", "checkpoint_every",
           "log_every", "keep") if part is None else (part,)  # fmt: skip
    earlier = experiment.stages[name].earlier if part is None else ()
    free = [key for key in config if key not in ("stages", *(("seed", "mesh", "name") if part is None else ()))]
    for stage, node in config.stages.items():
        kept = own if stage == name else ("objective",) if stage in earlier else ()
        free += [f"stages.{stage}.{key}" for key in node if key not in kept] if kept else [f"stages.{stage}"]
    return free


def run_stage(
    experiment: Experiment, config: Config, name: str, workdir: Path, encode_video: EncodeVideo, progress: bool = True
) -> TrainState:
    """Trains a stage in workdir/<stage>, from scratch or from its newest checkpoint, with its evaluators as hooks.

    `encode_video` writes the videos of evaluators. Raises what `train` and the data of the stage raise.
    """
    stage, mesh = experiment.stages[name], experiment.make_mesh()
    weights = {earlier: restore_params(workdir / earlier)[0] for earlier in stage.earlier}
    frozen = {key: place(weights[earlier], experiment.stages[earlier], mesh) for key, earlier in stage.frozen.items()}
    hosts, host = jax.process_count(), jax.process_index()
    batches = stage.data.open(workdir, rows=stage.batch_size, seed=experiment.seed, host=host, hosts=hosts)
    context = Context(name, stage.objective, workdir, experiment.seed, mesh, frozen, weights)
    return train(
        stage,
        Selected(batches, stage.objective.batch(stage.batch_size)),
        workdir=workdir / name,
        config=stored(config, name),
        mesh=mesh,
        seed=experiment.seed,
        frozen=frozen,
        hooks=evaluation_hooks(stage, context),
        dashboards=list(experiment.dashboards.values()),
        encode_video=encode_video,
        may_differ=free_keys(experiment, config, name),
        step_flops=stage.objective.flops(stage.batch_size),
        label=name,
        progress=progress,
    )


def place(params: PyTree, stage: Stage, mesh: Mesh) -> PyTree:
    """Weights of a trained stage on their shards of a mesh. Raises ValueError where they are not those of its objective."""
    boxed = jax.eval_shape(lambda: stage.objective.init(jax.random.key(0)))
    abstract = meta.unbox(boxed)
    if jax.tree.map(lambda x: x.shape, params) != jax.tree.map(lambda x: x.shape, abstract):
        raise ValueError("frozen weights have other shapes than the objective of their stage makes; train that stage again")
    return jax.tree.map(jax.device_put, params, meshes.shardings(mesh, boxed))


class Selected:
    """Batches cut to the arrays that an objective reads."""

    def __init__(self, batches: Batches, spec: PyTree) -> None:
        self._batches, self._spec = batches, spec
        self.get_state, self.set_state = batches.get_state, batches.set_state

    def __next__(self) -> PyTree:
        """The next batch, cut to the tree of the spec."""
        return select(next(self._batches), self._spec)


def evaluation_hooks(stage: Stage, context: Context) -> list[Hook]:
    """A hook for each evaluator; its results are logged as "<evaluator>/<name>"."""

    def hook(name: str, every: int, measure: Any) -> Hook:
        def run(step: int, state: TrainState, writer: MetricWriter) -> dict[str, float]:
            if step % every and step != stage.steps:
                return {}
            numbers = {}
            for key, value in measure(step, state.ema).items():
                if isinstance(value, LoggedVideo):
                    writer.video(step, f"{name}/{key}", value.frames, value.fps)
                elif isinstance(value, np.ndarray) and value.ndim == 3:
                    writer.image(step, f"{name}/{key}", value)
                else:
                    numbers[f"{name}/{key}"] = float(value)
            return numbers

        return run

    return [hook(name, one.every, one.open(context)) for name, one in sorted(stage.evaluators.items())]
