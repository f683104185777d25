"""The surface of a wave as points and triangles: closed form, no marching."""

import jax
import numpy as np

from wsm_jax.core import superquadric
from wsm_jax.typing import Float, NpOrJax

_surface_point = jax.jit(superquadric.surface_point)


def surface_points(
    scale: Float[NpOrJax, "3"], exponents: Float[NpOrJax, "2"], rows: int = 9, columns: int = 40
) -> Float[np.ndarray, "V 3"]:
    """Points on the surface of a wave, local, m, whose convex hull is the body within 4 % of its size, denser near its edges.

    Directions (cos u, sin u) at equal angles u are warped to (cos^s u, sin^s u) with s = sqrt(exponent): for a box that puts
    the points where the surface bends. `rows` rings of `columns` points, and the two poles at the end.
    """

    def warped(angle: np.ndarray, exponent: float) -> tuple[np.ndarray, np.ndarray]:
        cos, sin = np.cos(angle), np.sin(angle)
        power = np.sqrt(exponent)
        return np.sign(cos) * np.abs(cos) ** power, np.sign(sin) * np.abs(sin) ** power

    latitude = np.linspace(-np.pi / 2, np.pi / 2, rows + 2)[1:-1]
    longitude = 2 * np.pi * np.arange(columns) / columns
    (ring, z), (x, y) = warped(latitude, float(exponents[0])), warped(longitude, float(exponents[1]))
    # every ring has the aspect of the equator's unit square or circle, so that corners line up from row to row
    length = np.hypot(x, y)
    directions = np.stack([ring[:, None] * x / length, ring[:, None] * y / length, np.repeat(z[:, None], columns, 1)], -1)
    directions = np.concatenate([directions.reshape(-1, 3), [[0, 0, 1], [0, 0, -1]]]) * np.asarray(scale)
    return np.asarray(_surface_point(np.float32(directions), np.float32(scale), np.float32(exponents)), np.float64)
