"""A tiny regression, for tests of the training; as a program it is a training that can be killed.

python toy.py WORKDIR STEPS ACTION AT      ACTION: run, or after AT updates kill | term (signals to itself)
"""

import os
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from wsm_jax.runtime import make_mesh
from wsm_jax.training import make_optimizer, train


def dense(width, names, name):
    zeros = nn.with_logical_partitioning(nn.initializers.zeros_init(), names[1:])
    kernel = nn.with_logical_partitioning(nn.initializers.lecun_normal(), names)
    return nn.Dense(width, kernel_init=kernel, bias_init=zeros, name=name)


class MLP(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(dense(8, ("channels", "embed"), "first")(x))
        x = nn.with_logical_constraint(x, ("batch", "embed"))
        x = nn.relu(dense(16, ("embed", "mlp"), "second")(x))
        x = nn.with_logical_constraint(x, ("batch", "mlp"))
        return dense(2, ("mlp", "channels"), "last")(x)


class Regression:
    """Mean squared error of sines, with noise on the input unless `noise` is 0."""

    def __init__(self, noise=0.05):
        self.noise = noise

    def init(self, key):
        return MLP().init(key, jnp.zeros((1, 4)))["params"]

    def loss(self, params, batch, key):
        x = batch["x"] + self.noise * jax.random.normal(key, batch["x"].shape)
        error = jnp.mean((MLP().apply({"params": params}, x) - batch["y"]) ** 2)
        return error, {"rmse": jnp.sqrt(error)}


class Batches:
    """Batch i is a function of i."""

    def __init__(self, rows=16, bad_at=None):
        self.rows, self.bad_at, self.position = rows, bad_at, 0

    def __next__(self):
        x = np.random.default_rng(self.position).standard_normal((self.rows, 4)).astype(np.float32)
        y = np.sin(3 * x[:, :2])
        if self.position == self.bad_at:
            y[0, 0] = np.nan
        self.position += 1
        return {"x": x, "y": y}

    def get_state(self):
        return {"position": self.position}

    def set_state(self, state):
        self.position = state["position"]


CONFIG = {"name": "toy", "seed": 3}


def optimizer(steps=40):
    return make_optimizer(
        "adamw", peak=1e-2, warmup=4, steps=max(steps, 40), schedule="cosine", weight_decay=0.1, clip=1.0, b2=0.99
    )


def run(workdir, steps, objective=None, batches=None, mesh=None, **changes):
    """A training with the settings of these tests, and `changes`."""
    settings = {
        "ema_decay": 0.9,
        "seed": 3,
        "accumulate": 1,
        "checkpoint_every": 5,
        "keep": 2,
        "log_every": 1,
        "progress": False,
    }
    return train(
        objective or Regression(),
        batches or Batches(),
        steps=steps,
        workdir=workdir,
        mesh=mesh or make_mesh(1, 1, 1, 1, jax.devices()[:1]),
        **{"config": CONFIG, "optimizer": optimizer(), **settings, **changes},
    )


def signal_after(updates, number):
    """A hook that sends the signal to its own process."""

    def hook(done, state):
        if done == updates:
            os.kill(os.getpid(), number)

    return hook


def leaves(state):
    """Path -> array of a state."""
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(state)}


if __name__ == "__main__":
    workdir, steps, kill_after = sys.argv[1:]
    final = run(workdir, int(steps), hooks=(signal_after(int(kill_after), signal.SIGKILL),))
    np.savez(f"{workdir}/final.npz", **leaves(final))
