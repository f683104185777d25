"""What a training or a server needs around a model: devices, checkpoints, metrics, randomness. It knows trees, no models."""

from wsm_jax.runtime.checkpoint import Checkpoints, code_version, config_differences, read_config, restore_params
from wsm_jax.runtime.mesh import (
    AXES,
    MESH_AXES,
    batch_sharding,
    check_batch,
    global_batch,
    logical_axes,
    make_mesh,
    shardings,
    unbox,
)
from wsm_jax.runtime.metrics import METRICS_FILE, MetricWriter, ProgressBar, Watchdog, fetch, read_metrics
from wsm_jax.runtime.random import key

__all__ = [
    "AXES",
    "MESH_AXES",
    "METRICS_FILE",
    "Checkpoints",
    "MetricWriter",
    "ProgressBar",
    "Watchdog",
    "batch_sharding",
    "check_batch",
    "code_version",
    "config_differences",
    "fetch",
    "global_batch",
    "key",
    "logical_axes",
    "make_mesh",
    "read_config",
    "read_metrics",
    "restore_params",
    "shardings",
    "unbox",
]
