"""Level 0 is the source end, level 1 the target end, x = (1 - level) x0 + level x1, velocity = x1 - x0: the path of every flow.

    (1)  x  = (1 - level) x0 + level x1          interpolate
    (2)  v  = x1 - x0 = dx/dlevel                velocity
    (3)  dx/ds = (dlevel/ds) (x1 - x) / max(1 - level, floor)             velocity_from_target
    (4)  loss = sum over blocks b of  sum(mask_b error_b) / sum(mask_b)   block_loss
    (5)  level ~ a logit-normal + b (level = u^p) + c (level = 1 - u^p)   LevelMix

The source end is noise in the world flow and the core in the wave bridge; the target end is data, or the picture. States
are trees of arrays. A level stands for the leading axes of what it multiplies: shape [] for all, [B] one a sample, [B T]
one a frame, and so on (it is broadcast from the left). Where groups of the state have levels of their own, the level is a
dictionary {group: level} (any prefix of the state's tree).
"""

import dataclasses

import jax
import jax.numpy as jnp

from wsm_jax.typing import Array, Float, Key, NpOrJax, PyTree, Shaped

__all__ = [
    "Level",
    "LevelMix",
    "block_loss",
    "expand",
    "interpolate",
    "velocity",
    "velocity_from_target",
]

Level = PyTree[Float[NpOrJax, "..."] | float]
"""One level for all of the state, or a tree of them that is a prefix of the state's tree."""


def expand(level: Shaped[NpOrJax, "..."] | float, like: Shaped[NpOrJax, "..."]) -> Shaped[Array, "..."]:
    """`level` with trailing axes of size one, to broadcast from the left against `like`.

    Raises ValueError when its shape is not the leading shape of `like` (an axis of size one stands for any size).
    """
    level = jnp.asarray(level)
    lead = like.shape[: level.ndim]
    if level.ndim > like.ndim or any(a not in (1, b) for a, b in zip(level.shape, lead)):
        raise ValueError(f"a level of shape {level.shape} does not fit the leading axes of a state of shape {like.shape}")
    return level.reshape(level.shape + (1,) * (like.ndim - level.ndim))


def _map(function, level: Level, *trees: PyTree) -> PyTree:
    """`function(level, *leaves)` over the leaves of `trees`, each with its group's level, expanded; types of the first tree."""

    def group(one, *branches):
        return jax.tree.map(lambda *leaves: function(expand(one, leaves[0]), *leaves).astype(leaves[0].dtype), *branches)

    return jax.tree.map(group, level, *trees)


def interpolate(x0: PyTree, x1: PyTree, level: Level) -> PyTree:
    """The state at `level` on the straight path from source `x0` to target `x1`: equation (1), exact at both ends."""
    return _map(lambda s, a, b: (1 - s) * a + s * b, level, x0, x1)


def velocity(x0: PyTree, x1: PyTree) -> PyTree:
    """dx/dlevel of the straight path: equation (2). With predictions of both ends it is the predicted velocity."""
    return jax.tree.map(lambda a, b: b - a, x0, x1)


def velocity_from_target(x: PyTree, level: Level, x1: PyTree, rate: Level, floor: float) -> PyTree:
    """dx/ds at `x` towards a predicted target end, where the level grows at `rate` = dlevel/ds: equation (3).

    The divisor is not below `floor`: near its own end a prediction says little about the velocity. Where the rate is 0, the
    velocity is 0 for any prediction.
    """

    def group(s, r, *branches):
        return jax.tree.map(lambda a, b: leaf(expand(s, a), expand(r, a), a, b), *branches)

    def leaf(s, r, a, b):
        return jnp.where(r == 0, 0.0, r / jnp.maximum(1 - s, floor) * (b - a)).astype(a.dtype)

    return jax.tree.map(group, level, rate, x, x1)


def block_loss(
    error: dict[str, Float[Array, "..."]], mask: dict[str, Shaped[NpOrJax, "..."]] | None = None
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """The sum of the blocks' masked means, equation (4), and the means themselves (blocks without a valid entry: 0).

    In one common mean small blocks would have little weight. A mask holds 0..1 and is broadcast from the left ([B], [B T], ...
    or full); None counts everything. Raises ValueError when the blocks of `mask` and `error` differ.
    """
    if mask is not None and set(mask) != set(error):
        raise ValueError(f"block_loss: masks for {sorted(mask)}, errors for {sorted(error)}; needed one mask a block")
    means = {}
    for name, values in error.items():
        values = values.astype(jnp.float32)
        weight = jnp.ones(()) if mask is None else jnp.asarray(mask[name]).astype(jnp.float32)
        weight = jnp.broadcast_to(expand(weight, values), values.shape)
        count = jnp.sum(weight)
        means[name] = jnp.sum(weight * values) / jnp.where(count > 0, count, 1.0)
    return jnp.asarray(sum(means.values()), jnp.float32), means


@dataclasses.dataclass(frozen=True)
class LevelMix:
    """Density of training levels: a mixture of a logit-normal and two parts near the ends, equation (5).

    Only levels near 1 train the inference of the core, and only levels near 0 train the synthesis of the picture, so each
    end has a part of its own. Raises ValueError when the fractions do not sum to 1, or a fraction, `std` or `power` is
    out of range.
    """

    logit_normal: float = 0.5
    """Fraction with logit(level) ~ N(mean, std^2)."""
    mean: float = 0.0
    std: float = 1.0
    source_end: float = 0.25
    """Fraction with level = u^power, u uniform."""
    target_end: float = 0.25
    """Fraction with level = 1 - u^power."""
    power: float = 3.0

    def __post_init__(self) -> None:
        parts = (self.logit_normal, self.source_end, self.target_end)
        if min(parts) < 0 or abs(sum(parts) - 1) > 1e-6:
            raise ValueError(f"LevelMix: fractions {parts}; needed three that are not negative and sum to 1")
        if self.std <= 0 or self.power <= 0:
            raise ValueError(f"LevelMix: std {self.std} and power {self.power}; needed both above 0")

    def sample(self, key: Key, shape: tuple[int, ...]) -> Float[Array, "..."]:
        """Independent float32 levels in [0, 1] of the given shape."""
        part_key, normal_key, end_key = jax.random.split(key, 3)
        part = jax.random.uniform(part_key, shape, jnp.float32)
        middle = jax.nn.sigmoid(self.mean + self.std * jax.random.normal(normal_key, shape, jnp.float32))
        near = jax.random.uniform(end_key, shape, jnp.float32) ** self.power
        end = jnp.where(part < self.logit_normal + self.source_end, near, 1 - near)
        return jnp.where(part < self.logit_normal, middle, end)
