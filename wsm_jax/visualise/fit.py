"""Pictures of waves fitted to a recording: the recording, the waves and the depth error side by side."""

import jax
import jax.numpy as jnp
import numpy as np

from wsm_jax.core.render import surface
from wsm_jax.snapshot import Camera, Waves, quaternion_to_matrix
from wsm_jax.typing import Float

NEAR_M = 0.05
"""Points closer to the camera plane than this are not drawn."""


def fit_picture(
    waves: Waves,
    camera: Camera,
    rgb: Float[np.ndarray, "H W 3"],
    depth: Float[np.ndarray, "H W"],
    *,
    full_error: float = 0.2,
) -> Float[np.ndarray, "H 3*W 3"]:
    """Recording | waves, lit from the camera | depth error: nearer in red, farther in green, saturated at `full_error` (m).

    `rgb` and the result are sRGB in 0..1; `depth` is in metres, 0 where it was not measured. Raises ValueError unless
    `full_error` is positive.
    """
    if not full_error > 0:
        raise ValueError(f"fit_picture: full_error={full_error}; needed a distance above 0 m")
    height, width = depth.shape
    here, eye = jax.tree.map(jnp.asarray, (waves, camera))
    seen = surface(here, eye, height, width, channels=("depth", "normal", "base_colour"))
    rendered = np.asarray(seen["depth"])[..., 0]
    axis = np.asarray(quaternion_to_matrix(camera.rotation))[:, 2]
    light = 0.4 + 0.6 * np.clip(-np.asarray(seen["normal"]) @ axis, 0, 1)
    difference = np.where((depth > 0) & (rendered > 0), rendered - depth, 0.0) / full_error
    error = np.stack([np.clip(-difference, 0, 1), np.clip(difference, 0, 1), np.zeros_like(difference)], -1)
    return np.concatenate([rgb, np.asarray(seen["base_colour"]) * light[..., None], error], 1)


def splat_points(
    points: Float[np.ndarray, "n 3"], colours: Float[np.ndarray, "n 3"], camera: Camera, height: int, width: int
) -> tuple[Float[np.ndarray, "H W 3"], Float[np.ndarray, "H W"]]:
    """Colour and depth (m) of the nearest point of every pixel, each point drawn as 2 x 2 pixels; 0 where there is no point."""
    local = (points - np.asarray(camera.position)) @ np.asarray(quaternion_to_matrix(camera.rotation))
    front = local[:, 2] > NEAR_M
    local, colours = local[front].astype(np.float64), colours[front]
    place = float(camera.focal) * local[:, :2] / local[:, 2:] + np.asarray(camera.offset) + [0.5 * width / height, 0.5]
    cell = np.floor(place * height).astype(int)
    order = np.argsort(-local[:, 2], kind="stable")  # the nearest is written last
    rgb, depth = np.zeros((height, width, 3), np.float32), np.zeros((height, width), np.float32)
    for shift in ((1, 1), (1, 0), (0, 1), (0, 0)):
        x, y = (cell[order] + shift).T
        seen = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        rgb[y[seen], x[seen]] = colours[order][seen]
        depth[y[seen], x[seen]] = local[order, 2][seen]
    return rgb, depth
