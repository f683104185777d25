"""Lines of sight: no wave may block the ray from the camera to an observed point.

Points in empty space (observations.known_space) detect this for thick waves only: a thin wave, such as a plate over the gaps
between the slats of a chair, contains almost none of them, and yet hides what was observed through the gaps.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import KDTree

from wsm_jax.core import ray
from wsm_jax.core.fitting.observations import float32
from wsm_jax.core.geometry import Geometry
from wsm_jax.typing import Array, Float, NpOrJax

_NEIGHBOURS = 16


class SightRays(NamedTuple):
    """m rays from one viewpoint to observed points."""

    origin: Float[np.ndarray, "3"]
    direction: Float[np.ndarray, "m 3"]
    """Unit vectors."""
    end: Float[np.ndarray, " m"]
    """Length along which each ray is known to be free, m."""
    clearance: Float[np.ndarray, " m"]
    """Distance of each ray to the nearest point of the object in front of its end, m: the error of the outline of a wave that
    blocks it."""


def lines_of_sight(
    points: Float[np.ndarray, "n 3"],
    viewpoint: Float[np.ndarray, "3"],
    own: Float[np.ndarray, "k 3"],
    margin: float,
    limit: int,
) -> SightRays:
    """Rays to `points` (m) that pass near the object with the points `own` (a subset, two or more), at most `limit`.

    Each ends `margin` before its point. Padded to a power of two with rays of length 0.
    """
    ray_to, own_to = points - viewpoint, own - viewpoint
    length, depth = (np.linalg.norm(x, axis=1) for x in (ray_to, own_to))
    ray_to, own_to = ray_to / np.maximum(length, 1e-9)[:, None], own_to / np.maximum(depth, 1e-9)[:, None]
    middle = own_to.mean(0) / max(float(np.linalg.norm(own_to.mean(0))), 1e-9)
    reach = 2.0 * np.arccos(np.clip((own_to @ middle).min(), -1.0, 1.0))
    near = np.flatnonzero((ray_to @ middle > np.cos(min(reach, np.pi))) & (length > margin))
    near = near[np.linspace(0, len(near) - 1, min(limit, len(near))).round().astype(int)]
    end = length[near] - margin
    chord, index = map(np.asarray, KDTree(own_to).query(ray_to[near], min(_NEIGHBOURS, len(own))))
    before = depth[index] < end[:, None]
    # if no neighbour lies in front of the end, the nearest neighbour is a lower bound of the clearance
    place = np.where(before.any(1), before.argmax(1), -1)[:, None]
    chord, before_it = (np.take_along_axis(x, place % x.shape[1], 1)[:, 0] for x in (chord, depth[index]))
    clearance = chord * np.minimum(before_it, end)
    fill = max(64, 1 << max(len(near) - 1, 0).bit_length()) - len(near)  # limits the number of compilations
    end, clearance = (np.pad(float32(x), (0, fill)) for x in (end, clearance))
    return SightRays(
        float32(viewpoint), np.pad(float32(ray_to[near]), ((0, fill), (0, 0)), constant_values=1.0), end, clearance
    )


@jax.jit
def _entry(waves: Geometry, origin: NpOrJax, direction: NpOrJax, end: Array) -> Array:
    start, along = (jnp.moveaxis(jnp.asarray(x), -1, 0)[:, None] for x in (origin[None], direction))
    return ray.before(ray.local_rays(waves, start, along), ray.NEAR_M, end)


def blocked_length(waves: Geometry, sight: SightRays) -> Float[np.ndarray, "N m"]:
    """Error (m) of each wave on each ray that it blocks; 0 for rays that it does not block.

    The smaller of the blocked length of the ray and the distance of the outline of the wave beyond the object.
    """
    met = np.asarray(_entry(waves, sight.origin, sight.direction, sight.end))
    return np.where(met < ray.MISS, np.minimum(sight.end - met, sight.clearance), 0.0)
