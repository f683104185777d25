"""Snapshots of a world and the plain containers around them; no physics, no network, no file format but core JSON."""

from wsm_jax.snapshot.camera import Camera, crop, ground, level_with, look_at, orbit, project, quaternion_to_matrix, rays
from wsm_jax.snapshot.channels import (
    CAMERA_CHANNELS,
    CHANNELS,
    STORED,
    Channel,
    camera_channels,
    channel,
    crop_box,
    decode,
    encode,
    resize,
    restore,
    store,
)
from wsm_jax.snapshot.containers import WSF, WSG, WSV, Signal, check_spans, from_snapshots
from wsm_jax.snapshot.waves import FIELDS, SEMANTIC_CLASSES, TICK_HZ, Waves

__all__ = [
    "CAMERA_CHANNELS",
    "CHANNELS",
    "FIELDS",
    "SEMANTIC_CLASSES",
    "STORED",
    "TICK_HZ",
    "WSF",
    "WSG",
    "WSV",
    "Camera",
    "Channel",
    "Signal",
    "Waves",
    "camera_channels",
    "channel",
    "check_spans",
    "crop",
    "crop_box",
    "decode",
    "encode",
    "from_snapshots",
    "ground",
    "level_with",
    "look_at",
    "orbit",
    "project",
    "quaternion_to_matrix",
    "rays",
    "resize",
    "restore",
    "store",
]
