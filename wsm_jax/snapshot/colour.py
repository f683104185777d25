"""The transfer curve of sRGB (IEC 61966-2-1). JAX stays JAX in its own precision; NumPy is evaluated in float64."""

from typing import Any

import numpy as np

from wsm_jax.typing import Float, NpOrJax, array_namespace


def to_linear(colour: Float[NpOrJax, "*lead"]) -> Float[Any, "*lead"]:
    """sRGB value 0..1 -> linear light."""
    xp, c = _array(colour)
    return xp.where(c <= 0.04045, c / 12.92, ((xp.maximum(c, 0.04045) + 0.055) / 1.055) ** 2.4)


def to_srgb(light: Float[NpOrJax, "*lead"]) -> Float[Any, "*lead"]:
    """Linear light, clipped to 0..1 -> sRGB value; the inverse of `to_linear`."""
    xp, x = _array(light)
    x = xp.clip(x, 0.0, 1.0)
    return xp.where(x <= 0.0031308, 12.92 * x, 1.055 * xp.maximum(x, 0.0031308) ** (1 / 2.4) - 0.055)


def _array(values: Float[NpOrJax, "..."]) -> tuple[Any, Any]:
    xp = array_namespace(values)
    return xp, np.asarray(values, np.float64) if xp is np else values
