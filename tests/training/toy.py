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
from wsm_jax.training import AdamW, Cosine, Stage, train


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

    def loss(self, params, batch, key, frozen):
        x = batch["x"] + self.noise * jax.random.normal(key, batch["x"].shape)
        error = jnp.mean((MLP().apply({"params": params}, x) - batch["y"]) ** 2)
        return error, {"rmse": jnp.sqrt(error)}

    tokens = 1

    def batch(self, rows):
        return {"x": jax.ShapeDtypeStruct((rows, 4), np.float32), "y": jax.ShapeDtypeStruct((rows, 2), np.float32)}

    def flops(self, rows):
        return 3 * 2 * rows * (4 * 8 + 8 * 16 + 16 * 2)


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


class Data:
    """Opens `Batches`."""

    def datasets(self, workdir):
        return []

    def spec(self, rows):
        return Regression().batch(rows)

    def open(self, workdir, *, rows, seed, host, hosts):
        return Batches(rows)


CONFIG = {"name": "toy", "seed": 3}


class Fixed:
    """An optimizer whose schedule is that of 40 steps, whatever the steps of the training."""

    def transformation(self, steps):
        return AdamW(peak=1e-2, warmup=4, schedule=Cosine(), weight_decay=0.1, clip=1.0, b2=0.99).transformation(max(steps, 40))


def optimizer(steps=40):
    return Fixed().transformation(steps)


def stage(steps, objective=None, **changes):
    """A stage with the settings of these tests, and `changes`."""
    settings = {"ema_decay": 0.9, "accumulate": 1, "checkpoint_every": 5, "keep": 2, "log_every": 1, "batch_size": 16}
    return Stage(objective or Regression(), Data(), Fixed(), steps=steps, **{**settings, **changes})


def run(
    workdir,
    steps,
    objective=None,
    batches=None,
    mesh=None,
    config=CONFIG,
    seed=3,
    hooks=(),
    frozen=None,
    may_differ=(),
    progress=False,
    **changes,
):
    """A training with the settings of these tests, and `changes` of its stage."""
    return train(
        stage(steps, objective, **changes),
        batches or Batches(),
        workdir=workdir,
        mesh=mesh or make_mesh(1, 1, 1, 1, jax.devices()[:1]),
        config=config,
        seed=seed,
        frozen=frozen or {},
        hooks=hooks,
        may_differ=may_differ,
        progress=progress,
    )


def signal_after(updates, number):
    """A hook that sends the signal to its own process."""

    def hook(done, state, writer):
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
