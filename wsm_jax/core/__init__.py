"""Superquadric waves: their mathematics, rendering, and interpolation between ticks."""

from wsm_jax.core import superquadric
from wsm_jax.core.interpolate import interpolate
from wsm_jax.core.render import cast, surface, visible

__all__ = ["cast", "interpolate", "superquadric", "surface", "visible"]
