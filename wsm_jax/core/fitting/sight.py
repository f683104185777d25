"""Lines of sight: light came along the ray to each point that was seen, so that no wave stands in its way.

Points in empty space (observations.known_space) would tell that of thick waves only: a thin one, as a plate over the gaps
between the slats of a chair, holds next to none of them, and yet hides what was seen through the gaps.
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


class Sight(NamedTuple):
    """m rays from one place to points that were seen from there."""

    origin: Float[np.ndarray, "3"]
    way: Float[np.ndarray, "m 3"]
    """Unit vectors."""
    end: Float[np.ndarray, " m"]
    """How far each is known to be free, m."""
    aside: Float[np.ndarray, " m"]
    """How far each passes the nearest point of the object that lies before its end, m: by so much the outline of a wave errs
    that is in the way."""


def lines_of_sight(
    points: Float[np.ndarray, "n 3"], viewpoint: Float[np.ndarray, "3"], own: Float[np.ndarray, "k 3"], margin: float, most: int
) -> Sight:
    """At most `most` of the rays to `points` (m) that pass near the object of the points `own` (two or more, some of them);
    each ends `margin` before its point. Filled up to a power of two with rays that end at once."""
    ray_to, own_to = points - viewpoint, own - viewpoint
    length, depth = (np.linalg.norm(x, axis=1) for x in (ray_to, own_to))
    ray_to, own_to = ray_to / np.maximum(length, 1e-9)[:, None], own_to / np.maximum(depth, 1e-9)[:, None]
    middle = own_to.mean(0) / max(float(np.linalg.norm(own_to.mean(0))), 1e-9)
    reach = 2.0 * np.arccos(np.clip((own_to @ middle).min(), -1.0, 1.0))
    near = np.flatnonzero((ray_to @ middle > np.cos(min(reach, np.pi))) & (length > margin))
    near = near[np.linspace(0, len(near) - 1, min(most, len(near))).round().astype(int)]
    end = length[near] - margin
    found = KDTree(own_to).query(ray_to[near], min(_NEIGHBOURS, len(own)))
    chord, index = np.asarray(found[0]), np.asarray(found[1])
    before = depth[index] < end[:, None]
    # where none of the neighbours lies before its end, it is at least as far aside as they
    place = np.where(before.any(1), before.argmax(1), -1)[:, None]
    chord, before_it = (np.take_along_axis(x, place % x.shape[1], 1)[:, 0] for x in (chord, depth[index]))
    aside = chord * np.minimum(before_it, end)
    fill = max(64, 1 << max(len(near) - 1, 0).bit_length()) - len(near)  # few sizes to compile
    end, aside = (np.pad(float32(x), (0, fill)) for x in (end, aside))
    return Sight(float32(viewpoint), np.pad(float32(ray_to[near]), ((0, fill), (0, 0)), constant_values=1.0), end, aside)


@jax.jit
def _met(waves: Geometry, origin: NpOrJax, way: NpOrJax, end: Array) -> Array:
    start, toward = (jnp.moveaxis(jnp.asarray(x), -1, 0)[:, None] for x in (origin[None], way))
    return ray.before(ray.local_rays(waves, start, toward), ray.NEAR_M, end)


def in_the_way(waves: Geometry, sight: Sight) -> Float[np.ndarray, "N m"]:
    """By how much (m) each wave that stands in the way of a ray errs: 0 where it does not.

    That is how far before the end of the ray it is met, or how far its outline reaches beyond the object, if that is less.
    """
    met = np.asarray(_met(waves, sight.origin, sight.way, sight.end))
    return np.where(met < ray.MISS, np.minimum(sight.end - met, sight.aside), 0.0)
