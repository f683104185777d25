"""A model family in one file: a flow from noise to points on a ring, and one that corrects it with the first one frozen."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax.core import meta

from wsm_jax.config import BOUND_LATER
from wsm_jax.evaluation.evaluate import Measured
from wsm_jax.flow import EULER, integrate, interpolate
from wsm_jax.layers.flops import training_flops
from wsm_jax.layers.transformer import SwiGLU, dense
from wsm_jax.training import Context


# --8<-- [start:network]
class PointFlow(nn.Module):
    """Velocity of points [B 2] at a level [B]."""

    width: int

    @nn.compact
    def __call__(self, x, level):
        h = dense(self.width, ("channels", "embed"), name="in")(jnp.concatenate([x, level[:, None]], -1))
        h = h + SwiGLU(2 * self.width, self.width, name="hidden")(h)
        return dense(2, ("embed", "channels"), name="out")(h)


# --8<-- [end:network]


# --8<-- [start:objective]
@dataclasses.dataclass(frozen=True)
class PointObjective:
    """Flow matching; with a frozen base the network learns what the base leaves over."""

    network: PointFlow
    base: PointFlow | None = None

    tokens = 1

    def init(self, key):
        return self.network.init(key, jnp.zeros((1, 2)), jnp.zeros(1))["params"]

    def batch(self, rows):
        return {"x": jax.ShapeDtypeStruct((rows, 2), np.float32)}

    def loss(self, params, batch, key, frozen):
        keys = jax.random.split(key)
        noise, level = jax.random.normal(keys[0], batch["x"].shape), jax.random.uniform(keys[1], batch["x"].shape[:1])
        x = interpolate(noise, batch["x"], level)
        velocity = self.network.apply({"params": params}, x, level)
        if self.base is not None:
            velocity = velocity + self.base.apply({"params": frozen["base"]}, x, level)
        error = jnp.mean((velocity - (batch["x"] - noise)) ** 2)
        return error, {"error": error}

    def flops(self, rows):
        params = jax.eval_shape(lambda: meta.unbox(self.init(jax.random.key(0))))
        base = PointObjective(self.base) if self.base else self
        frozen = {"base": jax.eval_shape(lambda: meta.unbox(base.init(jax.random.key(0))))}
        return training_flops(lambda *a: self.loss(*a)[0], params, self.batch(rows), jax.random.key(0), frozen)


# --8<-- [end:objective]


# --8<-- [start:data]
@dataclasses.dataclass(frozen=True)
class Ring:
    """Points at a distance from the origin; batch i is a function of i."""

    radius: float

    def datasets(self, workdir):
        return []

    def spec(self, rows):
        return {"x": jax.ShapeDtypeStruct((rows, 2), np.float32), "unread": jax.ShapeDtypeStruct((rows,), np.int32)}

    def open(self, workdir, *, rows, seed, host, hosts):
        return RingBatches(self.radius, rows, seed)


class RingBatches:
    """Batches of `Ring`."""

    def __init__(self, radius, rows, seed):
        self.radius, self.rows, self.seed, self.position = radius, rows, seed, 0

    def __next__(self):
        angle = np.random.default_rng([self.seed, self.position]).uniform(0, 2 * np.pi, self.rows)
        self.position += 1
        x = self.radius * np.stack([np.cos(angle), np.sin(angle)], -1)
        return {"x": x.astype(np.float32), "unread": np.zeros(self.rows, np.int32)}

    def get_state(self):
        return self.position

    def set_state(self, state):
        self.position = state


# --8<-- [end:data]


# --8<-- [start:sampler]
@dataclasses.dataclass(frozen=True)
class PointSampler:
    """Points from noise, with the sum of the velocities of both stages."""

    first: PointFlow
    second: PointFlow
    steps: int
    weights: object = dataclasses.field(default=None, metadata=BOUND_LATER)

    def with_weights(self, weights):
        return dataclasses.replace(self, weights=weights)

    def sample(self, count, seed):
        networks = {"first": self.first, "second": self.second}

        def velocity(x, level):
            each = jnp.broadcast_to(level, (count,))
            return sum(networks[name].apply({"params": params}, x, each) for name, params in self.weights.items())

        noise = jax.random.normal(jax.random.key(seed), (count, 2))
        return np.asarray(integrate(velocity, noise, jnp.linspace(0.0, 1.0, self.steps + 1), EULER))


# --8<-- [end:sampler]


# --8<-- [start:report]
@dataclasses.dataclass(frozen=True)
class RadiusReport:
    """Mean distance of samples from the ring."""

    radius: float
    count: int

    def measure(self, sampler, workdir: Path, progress: bool) -> Measured:
        def error(points):
            return float(np.abs(np.linalg.norm(points, axis=-1) - self.radius).mean())

        noise = np.random.default_rng(0).standard_normal((self.count, 2))
        metrics = {"radius_error": error(sampler.sample(self.count, 0)), "radius_error_baseline": error(noise)}
        return Measured(metrics | {"n": self.count}, {"radius_error": ("<=", 0.5, "distance of points from the ring")})


# --8<-- [end:report]


# --8<-- [start:scatter]
@dataclasses.dataclass(frozen=True)
class Scatter:
    """Draws samples while a stage trains."""

    sampler: PointSampler
    every: int

    def datasets(self, workdir):
        return []

    def open(self, context: Context):
        def draw(step, params):
            weights = {**context.weights, context.stage: jax.tree.map(np.asarray, params)}
            points = self.sampler.with_weights(weights).sample(64, 0)
            picture = np.zeros((32, 32, 3), np.uint8)
            place = np.clip(np.rint(16 + 5 * points), 0, 31).astype(int)
            picture[place[:, 1], place[:, 0]] = 255
            return {"points": picture, "spread": float(points.std())}

        return draw


# --8<-- [end:scatter]


__all__ = ["PointFlow", "PointObjective", "PointSampler", "RadiusReport", "Ring", "Scatter"]
