"""Trained worlds at work: the verbs, without anything that only training needs."""

from wsm_jax.sampling.bridge import BridgeSampler
from wsm_jax.sampling.style import Style
from wsm_jax.sampling.world import Perception, World, bridge_networks, default_camera, world_network

__all__ = ["BridgeSampler", "Perception", "Style", "World", "bridge_networks", "default_camera", "world_network"]
