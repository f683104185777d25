"""Samplers as data: a `Method` is a few pure functions, and one scan runs any of them over a grid of levels.

The flow is dx/dlevel = velocity(x, level) on a tree of arrays. A grid is an array [S+1 ...] of levels, increasing to go from
the source to the target end, decreasing to go back; after its first axis it has the shape of a level (see `path.py`). A
dictionary of grids {group: [S+1 ...]} gives each group of the state its own levels: a path through the cube of levels.
A group whose level does not change keeps its values bit for bit, for any velocity.

With h = level' - level, v(x, s) the velocity, one step is

    EULER       x' = x + h v(x, s)                                                          order 1, 1 evaluation
    HEUN        e  = x + h v(x, s);        x' = x + h/2 (v(x, s) + v(e, s'))                order 2, 2 evaluations
    MIDPOINT    m  = x + h/2 v(x, s);      x' = x + h v(m, (s + s')/2)                      order 2, 2 evaluations
    REVERSIBLE  a' = 2 x - a + h v(a, s);  x' = x + h/2 (v(a, s) + v(a', s'))               order 2, 1 evaluation

The last is the reversible Heun method (Kidger, Foster, Li, Lyons, arXiv 2105.13493, algorithm 1, without noise): with the
auxiliary state a (a = x at the start) and v(a, s) carried along, the same step with s and s' exchanged undoes it up to
rounding. It is stable only where the velocity neither contracts nor expands much within a step; refine the grid there.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from wsm_jax.flow.path import Level, expand
from wsm_jax.typing import PyTree

__all__ = [
    "EULER",
    "HEUN",
    "METHODS",
    "MIDPOINT",
    "REVERSIBLE",
    "Method",
    "Reversible",
    "ReversibleState",
    "Velocity",
    "advance",
    "integrate",
    "invert",
]

Velocity = Callable[[PyTree, Level], PyTree]
"""velocity(x, level) -> dx/dlevel, a tree like x; level has the structure of the grid, without its first axis."""


@dataclasses.dataclass(frozen=True)
class Method:
    """A one-step method. `start` makes its state from x at the first level, and `read` returns x from it."""

    name: str
    order: int
    """The error over a fixed interval falls as h^order."""
    evaluations: int
    """Velocity evaluations in each step."""
    evaluations_to_start: int
    start: Callable[[Velocity, PyTree, Level], Any]
    step: Callable[[Velocity, Any, Level, Level], Any]
    """step(velocity, state, level, next level) -> state at the next level."""
    read: Callable[[Any], PyTree]


@dataclasses.dataclass(frozen=True)
class Reversible(Method):
    """A method whose steps can be undone exactly (up to rounding), given its whole running state."""

    reverse: Callable[[Velocity, Any, Level, Level], Any]
    """reverse(velocity, state at the next level, level, next level) -> state at level."""


class ReversibleState(NamedTuple):
    """Running state of `REVERSIBLE`."""

    x: PyTree
    auxiliary: PyTree
    """Second solution, where the velocity is evaluated; differs from x by O(h^2)."""
    slope: PyTree
    """velocity(auxiliary, level), so that a step costs one evaluation."""


def _move(x: PyTree, v: PyTree, level: Level, next_level: Level, share: float = 1.0, base: PyTree = None) -> PyTree:
    """`base` (x when not given) + share (next_level - level) v, and x itself, bit for bit, where the level does not change."""
    base = x if base is None else base

    def leaf(s, s_next, one, start, slope):
        h = expand(s_next - s, one)
        moved = start + (share * h).astype(start.dtype) * slope
        return jnp.where(h == 0, one, moved.astype(one.dtype))

    def group(s, s_next, *branches):
        return jax.tree.map(lambda *leaves: leaf(s, s_next, *leaves), *branches)

    return jax.tree.map(group, level, next_level, x, base, v)


def _euler(velocity: Velocity, x: PyTree, level: Level, next_level: Level) -> PyTree:
    return _move(x, velocity(x, level), level, next_level)


def _heun(velocity: Velocity, x: PyTree, level: Level, next_level: Level) -> PyTree:
    first = velocity(x, level)
    second = velocity(_move(x, first, level, next_level), next_level)
    return _move(x, jax.tree.map(jnp.add, first, second), level, next_level, 0.5)


def _midpoint(velocity: Velocity, x: PyTree, level: Level, next_level: Level) -> PyTree:
    half = jax.tree.map(lambda s, s_next: 0.5 * (s + s_next), level, next_level)
    middle = _move(x, velocity(x, level), level, next_level, 0.5)
    return _move(x, velocity(middle, half), level, next_level)


def _reversible_start(velocity: Velocity, x: PyTree, level: Level) -> ReversibleState:
    return ReversibleState(x, x, velocity(x, level))


def _reversible(velocity: Velocity, state: ReversibleState, level: Level, next_level: Level) -> ReversibleState:
    mirrored = jax.tree.map(lambda x, a: 2 * x - a, state.x, state.auxiliary)
    auxiliary = _move(state.auxiliary, state.slope, level, next_level, base=mirrored)
    slope = velocity(auxiliary, next_level)
    x = _move(state.x, jax.tree.map(jnp.add, state.slope, slope), level, next_level, 0.5)
    return ReversibleState(x, auxiliary, slope)


def _plain_start(velocity: Velocity, x: PyTree, level: Level) -> PyTree:
    return x


def _plain_read(state: PyTree) -> PyTree:
    return state


EULER = Method("euler", 1, 1, 0, _plain_start, _euler, _plain_read)
HEUN = Method("heun", 2, 2, 0, _plain_start, _heun, _plain_read)
MIDPOINT = Method("midpoint", 2, 2, 0, _plain_start, _midpoint, _plain_read)
REVERSIBLE = Reversible(
    name="reversible",
    order=2,
    evaluations=1,
    evaluations_to_start=1,
    start=_reversible_start,
    step=_reversible,
    read=lambda state: state.x,
    reverse=lambda velocity, state, level, next_level: _reversible(velocity, state, next_level, level),
)

METHODS: dict[str, Method] = {method.name: method for method in (EULER, HEUN, MIDPOINT, REVERSIBLE)}
"""Name -> method, for flags and configs."""


def _scan(
    body: Callable[[Any, Level, Level], tuple[Any, Any]], state: Any, levels: Level, backward: bool = False
) -> tuple[Any, Any]:
    """Scan `body(state, level, next level)` over the steps. Raises ValueError for a grid without a step."""
    levels = jax.tree.map(jnp.asarray, levels)
    counts = {grid.shape[0] if grid.ndim else 0 for grid in jax.tree.leaves(levels)}
    if len(counts) != 1 or min(counts) < 2:
        raise ValueError(f"a grid of levels has {sorted(counts)} entries; needed one number, at least 2, for all groups")
    pairs = jax.tree.map(lambda grid: grid[:-1], levels), jax.tree.map(lambda grid: grid[1:], levels)
    return jax.lax.scan(lambda carry, pair: body(carry, *pair), state, pairs, reverse=backward)


def _first(x: PyTree, levels: Level) -> tuple[PyTree, Level]:
    return jax.tree.map(jnp.asarray, x), jax.tree.map(lambda grid: jnp.asarray(grid)[0], levels)


def advance(velocity: Velocity, state: Any, levels: Level, method: Method) -> Any:
    """The running state of `method` (from `method.start`) after all steps of the grid; the input of `invert`."""
    return _scan(lambda carry, s, s_next: (method.step(velocity, carry, s, s_next), None), state, levels)[0]


def integrate(velocity: Velocity, x: PyTree, levels: Level, method: Method = EULER) -> PyTree:
    """The state at the last level of the grid, from `x` at the first.

    Raises ValueError when the grid has no step, its groups differ in length, or it does not fit the state.
    """
    x, level = _first(x, levels)
    return method.read(advance(velocity, method.start(velocity, x, level), levels, method))


def invert(velocity: Velocity, state: Any, levels: Level, method: Reversible = REVERSIBLE) -> Any:
    """The inverse of `state = advance(velocity, start, levels, method)`, with the same `levels`: `start` up to rounding."""
    return _scan(lambda carry, s, s_next: (method.reverse(velocity, carry, s, s_next), None), state, levels, backward=True)[0]
