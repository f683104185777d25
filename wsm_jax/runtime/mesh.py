"""The device mesh, and the table that maps each logical axis to mesh axes.

A model names the axes of its parameters and activations by their meaning (`nn.with_logical_partitioning`,
`nn.with_logical_constraint`); only `AXES` maps them to devices. Moving from FSDP to tensor parallelism is an edit here or
another mesh shape, never an edit of a model. The table is total: an unknown axis is an error, not a replicated array.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax.core import meta
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from wsm_jax.typing import PyTree

MESH_AXES = ("data", "fsdp", "tensor", "context")
"""Mesh axis names: replicas of the model, shards of its parameters, shards inside a layer, shards of the tokens."""

AXES: dict[str, tuple[str, ...]] = {
    # Batch comes first: in an activation that is split over fsdp by batch, `embed` is then not split.
    "batch": ("data", "fsdp"),
    "tokens": ("context",),
    "heads": ("tensor",),
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "embed": ("fsdp",),
    "frames": (),
    "rows": (),
    "columns": (),
    "channels": (),
    "head_dim": (),
    "level": (),
    "layers": (),
    "norm": (),
    "modulation": (),
}
"""Logical axis -> mesh axes that split it; () is replicated."""


def make_mesh(data: int, fsdp: int, tensor: int, context: int, devices: Sequence[Any] | None = None) -> Mesh:
    """Mesh of all devices (or of `devices`) with axes MESH_AXES; one size may be -1, the remaining devices.

    Raises ValueError, naming sizes and the number of devices, when the product of the sizes is not that number.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes: dict[str, int] = dict(zip(MESH_AXES, (data, fsdp, tensor, context), strict=True))
    asked = ", ".join(f"{name}={size}" for name, size in sizes.items())
    free = [name for name, size in sizes.items() if size == -1]
    if len(free) > 1 or any(size < 1 and size != -1 for size in sizes.values()):
        raise ValueError(f"mesh ({asked}): every size is 1 or more, and at most one is -1 (the rest)")
    known = math.prod(size for size in sizes.values() if size != -1)
    if free:
        sizes[free[0]] = len(devices) // known
    if math.prod(sizes.values()) != len(devices):
        raise ValueError(
            f"mesh ({asked}): the sizes must multiply to the {len(devices)} devices there are; "
            f"set one of them to -1, or to a size so that the product is {len(devices)}"
        )
    return jax.make_mesh(tuple(sizes.values()), MESH_AXES, (AxisType.Auto,) * len(MESH_AXES), devices=devices)


def _spec(mesh: Mesh, path: str, names: Sequence[str | None], shape: tuple[int, ...]) -> PartitionSpec:
    """Partition of one parameter. Raises KeyError or ValueError for an axis that is unknown, used twice or does not divide."""
    if len(names) != len(shape):
        raise ValueError(f"{path}: shape {shape} has {len(shape)} axes, its metadata {tuple(names)} names {len(names)}")
    taken: dict[str, str] = {}
    entries: list[tuple[str, ...] | None] = []
    for name, size in zip(names, shape, strict=True):
        if name is None:
            raise ValueError(f"{path}: an axis of {tuple(names)} has no name; needed one of {sorted(AXES)} for every axis")
        if name not in AXES:
            raise KeyError(f"{path}: logical axis {name!r} is not in wsm_jax.runtime.mesh.AXES; known: {sorted(AXES)}")
        axes = AXES[name]
        parts = math.prod(mesh.shape[axis] for axis in axes)
        for axis in axes:
            if axis in taken:
                raise ValueError(
                    f"{path}: axes {taken[axis]!r} and {name!r} of {tuple(names)} both lie on mesh axis {axis!r}; "
                    "name one of them after an axis that lies elsewhere"
                )
            taken[axis] = name
        if size % parts:
            raise ValueError(
                f"{path}: axis {name!r} of size {size} (shape {shape}) does not divide over mesh axes "
                f"{', '.join(f'{a}={mesh.shape[a]}' for a in axes)}; change the size or the mesh"
            )
        entries.append(axes or None)
    return PartitionSpec(*entries)


def _is_box(node: Any) -> bool:
    return isinstance(node, meta.AxisMetadata)


def shardings(mesh: Mesh, boxed: PyTree, *, replicate_bare: bool = False) -> PyTree:
    """NamedShardings, without boxes, for a tree of arrays or ShapeDtypeStructs in Linen's boxes of logical axis names.

    Scalars are replicated; other leaves without a box too if `replicate_bare` (optimizer constants), else they are a
    ValueError. Raises KeyError for an unknown logical axis, ValueError for a size that does not divide; both name the path.
    """

    def one(path: Any, node: Any) -> NamedSharding:
        where = "parameter " + jax.tree_util.keystr(path, simple=True, separator="/")
        if isinstance(node, meta.Partitioned):
            return NamedSharding(mesh, _spec(mesh, where, node.names, np.shape(node.value)))
        if np.ndim(node) and not replicate_bare:
            raise ValueError(
                f"{where}: shape {np.shape(node)} has no logical axis names; "
                "wrap its initializer in nn.with_logical_partitioning(init, names)"
            )
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(one, boxed, is_leaf=_is_box)


def unbox(boxed: PyTree) -> PyTree:
    """The tree without Linen's boxes."""
    return jax.tree.map(lambda node: node.value if isinstance(node, meta.Partitioned) else node, boxed, is_leaf=_is_box)


@contextlib.contextmanager
def logical_axes(mesh: Mesh) -> Iterator[None]:
    """Context in which `nn.with_logical_constraint` uses this mesh and AXES; enter it where the model is traced."""
    if mesh.size == 1:
        yield
        return
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh), nn.logical_axis_rules(list(AXES.items())):
        yield


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Sharding of every leaf of a batch: the first axis over AXES["batch"]."""
    return NamedSharding(mesh, PartitionSpec(AXES["batch"]))


def check_batch(mesh: Mesh, rows: int, accumulate: int = 1, name: str = "batch") -> None:
    """Check that `rows` rows divide over the mesh in `accumulate` microbatches. Raises ValueError with the numbers."""
    parts = math.prod(mesh.shape[axis] for axis in AXES["batch"])
    if rows < 1 or rows % (parts * accumulate):
        raise ValueError(
            f"{name}: {rows} rows do not divide over "
            + " x ".join(
                [f"{axis}={mesh.shape[axis]}" for axis in AXES["batch"]] + [f"accumulate={accumulate}"] * (accumulate > 1)
            )
            + f"; needed a multiple of {parts * accumulate}"
        )


def global_batch(mesh: Mesh, local: PyTree) -> PyTree:
    """Global array of each leaf, from the rows of each process; leaves are NumPy arrays [rows, ...].

    The loader must not write to these arrays again: on CPU the device array may share their memory.
    Raises ValueError, naming the leaf, when the rows of all hosts do not divide over the mesh axes of the batch.
    """
    sharding = batch_sharding(mesh)
    for path, leaf in jax.tree_util.tree_leaves_with_path(local):
        rows = np.shape(leaf)[0] * jax.process_count() if np.ndim(leaf) else 0
        check_batch(mesh, rows, name=f"batch{jax.tree_util.keystr(path)} of shape {np.shape(leaf)}")
    if jax.process_count() == 1:
        return jax.device_put(local, sharding)
    return jax.tree.map(lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf)), local)
