"""Services around a model: device meshes, checkpoints, metrics, randomness. They handle trees of arrays and know no model."""

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
from wsm_jax.runtime.metrics import METRICS_FILE, EncodeVideo, JsonLinesWriter, MetricWriter, fetch, read_metrics
from wsm_jax.runtime.progress import ProgressBar
from wsm_jax.runtime.random import key
from wsm_jax.runtime.watchdog import Watchdog
from wsm_jax.runtime.writers import Dashboard, TensorBoard, Wandb, Writers, open_writers

__all__ = [
    "AXES",
    "MESH_AXES",
    "METRICS_FILE",
    "Checkpoints",
    "Dashboard",
    "EncodeVideo",
    "JsonLinesWriter",
    "MetricWriter",
    "ProgressBar",
    "TensorBoard",
    "Wandb",
    "Watchdog",
    "Writers",
    "batch_sharding",
    "check_batch",
    "code_version",
    "config_differences",
    "fetch",
    "global_batch",
    "key",
    "logical_axes",
    "make_mesh",
    "open_writers",
    "read_config",
    "read_metrics",
    "restore_params",
    "shardings",
    "unbox",
]
