"""The dimension key, the array types, and the `@pytree` decorator.

Dimension key, used in every shape annotation of the project:

    B  batch                    T  frames                 K  ticks of the core
    N  waves (slots)            H  pixel rows             W  pixel columns
    C  channels                 L  tokens                 D  model width
    P  parameters of a wave     heads, head_dim           attention heads and their width

Units are SI (metres, seconds, radians); quaternions are (w, x, y, z); the world frame is right-handed with z up;
cameras look along +z with x right and y down. Time is in seconds, never in frame numbers.
"""

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree, Shaped, UInt8

__all__ = [
    "Array",
    "Bool",
    "Float",
    "Int",
    "Key",
    "NpOrJax",
    "PyTree",
    "Shaped",
    "UInt8",
    "array_namespace",
    "pytree",
    "static",
]

Key = PRNGKeyArray
NpOrJax = np.ndarray | jax.Array

_T = TypeVar("_T")


def array_namespace(*arrays: Any) -> Any:
    """jax.numpy if one of the arrays is a JAX array or traced, else numpy: for functions in which NumPy stays NumPy.

    Outside `jit`, JAX compiles every operation once for every shape, which is slow on the host.
    """
    return jnp if any(isinstance(x, jax.Array) for x in arrays) else np


def static(**kwargs: Any) -> Any:
    """A field of a `@pytree` that is part of the tree's structure, not of its leaves (hashable)."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, static))
def pytree(cls: type[_T]) -> type[_T]:
    """Make `cls` a frozen dataclass that JAX treats as a tree of its fields, with a method `replace`.

    The shape annotations are checked when a caller constructs it. Unflattening allocates without `__init__`, so a tree
    map may put any value into the leaves (None, a PartitionSpec, a ShapeDtypeStruct) without that check.
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    leaves = tuple(f.name for f in fields if not f.metadata.get("static"))
    fixed = tuple(f.name for f in fields if f.metadata.get("static"))

    def flatten_with_keys(obj: Any) -> tuple[list[tuple[Any, Any]], tuple[Any, ...]]:
        children = [(jax.tree_util.GetAttrKey(name), getattr(obj, name)) for name in leaves]
        return children, tuple(getattr(obj, name) for name in fixed)

    def flatten(obj: Any) -> tuple[list[Any], tuple[Any, ...]]:
        return [getattr(obj, name) for name in leaves], tuple(getattr(obj, name) for name in fixed)

    def unflatten(structure: tuple[Any, ...], children: Any) -> Any:
        obj = object.__new__(cls)
        for name, value in zip((*leaves, *fixed), (*children, *structure), strict=True):
            object.__setattr__(obj, name, value)
        return obj

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    cls.replace = lambda self, **changes: dataclasses.replace(self, **changes)  # type: ignore[attr-defined]
    return cls
