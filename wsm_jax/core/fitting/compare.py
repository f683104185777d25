"""Comparison of waves and sets of waves by geometry: Chamfer distance, IoU, matching, and depth error.

Parameters are not compared: one surface has several parameter vectors (half-turns about the axes, a quarter-turn about z that
swaps a1 and a2), and different exponents can be nearly the same body (a box as a rotated diamond).
"""

from collections.abc import Callable
from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree

from wsm_jax.core.fitting.observations import float32
from wsm_jax.core.geometry import Geometry, bounds, to_local
from wsm_jax.core.render import surface
from wsm_jax.core.superquadric import log_gauge, log_gauge_gradient, sample_surface, sphere_directions
from wsm_jax.snapshot import Camera, Waves, quaternion_to_matrix
from wsm_jax.typing import Float, NpOrJax


def as_set(waves: Geometry) -> Geometry:
    """Convert a wave or a set of waves to a set [N ...], NumPy."""
    fields = [np.asarray(x) for x in jax.tree.leaves(waves)]
    return Geometry(*([x[None] for x in fields] if fields[0].ndim == 1 else fields))


def log_gauge_of_each(waves: Geometry, points: Float[NpOrJax, "n 3"]) -> Float[jax.Array, "N n"]:
    """log g of world points (m) in every wave of a set."""
    return jax.vmap(lambda wave: log_gauge(to_local(wave, points), wave.scale, wave.exponents))(waves)


_gauges = jax.jit(log_gauge_of_each)


@partial(jax.jit, static_argnames="count")
def _samples(key: jax.Array, waves: Geometry, count: int) -> tuple[jax.Array, jax.Array]:
    """Points [N count 3] (world, m) uniform by area on each wave, and the areas [N] (m^2)."""

    def one(key: jax.Array, wave: Geometry) -> tuple[jax.Array, jax.Array]:
        local = sample_surface(key, count, wave.scale, wave.exponents)
        turned = jnp.einsum("ij,nj->ni", quaternion_to_matrix(wave.rotation), local, precision="highest")
        return jnp.asarray(wave.centre) + turned, surface_area(wave.scale, wave.exponents)

    return jax.vmap(one)(jax.random.split(key, len(waves.scale)), waves)


def surface_area(
    scale: Float[NpOrJax, "*waves 3"], exponents: Float[NpOrJax, "*waves 2"], count: int = 4096
) -> Float[jax.Array, "*waves"]:
    """Area of each wave (m^2), a mean over `count` directions v: 4 pi a1 a2 a3 < |grad g / a| / g^3 >, g that of semi-axes 1.

    The area per solid angle is |s|^2 / (v . n) for the shape with semi-axes 1, where s = v / g and v . n = g / |grad g|;
    stretching by a multiplies that by a1 a2 a3 |n / a|. Runs under jit, vmap and grad.
    """
    scale, exponents = jnp.asarray(scale), jnp.asarray(exponents)
    if scale.ndim > 1:
        return jax.vmap(lambda a, e: surface_area(a, e, count))(scale, exponents)
    directions = sphere_directions(count).T
    log_g, gradient = log_gauge_gradient(directions, jnp.ones((3, 1)), (2.0 / exponents)[:, None])
    slope = jnp.stack(gradient) / scale[:, None]
    element = jnp.sqrt(jnp.sum(jnp.square(slope), 0) + 1e-30) * jnp.exp(-2.0 * log_g)
    return 4 * jnp.pi * jnp.prod(scale) * jnp.mean(element)


def padded_set(waves: Geometry) -> Geometry:
    """Pad a set to a power of two by repeating its last wave, to limit the number of compilations."""
    count = len(waves.scale)
    fill = (1 << max(count - 1, 0).bit_length()) - count
    return jax.tree.map(lambda x: float32(np.concatenate([x, np.repeat(x[-1:], fill, 0)])), waves)


def surface_samples(waves: Geometry, count: int = 2048, seed: int = 0) -> Float[np.ndarray, "n 3"]:
    """Points (m) uniform by area on the union of a set of waves: `count`, minus those inside another wave."""
    waves = as_set(waves)
    number = len(waves.scale)
    points, area = (np.asarray(x)[:number] for x in _samples(jax.random.key(seed), padded_set(waves), count))
    share = np.maximum((area / area.sum() * count).round().astype(int), 1)
    parts = [part[np.linspace(0, count - 1, n).round().astype(int)] for part, n in zip(points, share, strict=True)]
    owner = np.repeat(np.arange(number), share)
    flat = np.concatenate(parts)
    inside = log_gauges(waves, flat) < -1e-3
    inside[owner, np.arange(len(flat))] = False
    return flat[~inside.any(0)]


def log_gauges(waves: Geometry, points: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "N n"]:
    """log g of world points (m) in every wave of a set, on the host; points and waves are padded to powers of two."""
    waves = as_set(waves)
    fill = (1 << max(len(points) - 1, 0).bit_length()) - len(points)
    values = _gauges(padded_set(waves), np.pad(float32(points), ((0, fill), (0, 0))))
    return np.asarray(values)[: len(waves.scale), : len(points)]


def chamfer(a: Geometry | np.ndarray, b: Geometry | np.ndarray, count: int = 4096) -> dict[str, float]:
    """Chamfer distance of two surfaces, each a wave, a set of waves, or points [n 3]: "l1" (m) and "l2" (m^2).

    l1 is the mean of the two mean distances to the nearest sample of the other, l2 the sum of the two mean squares. Because of
    the gaps between samples, equal surfaces have l1 of about half a spacing, 0.5 sqrt(area / count). Raises ValueError for an
    empty surface.
    """
    first, second = (x if isinstance(x, np.ndarray) else surface_samples(x, count, seed) for seed, x in enumerate((a, b)))
    if not len(first) or not len(second):
        raise ValueError(f"chamfer: {len(first)} and {len(second)} points; needed one or more of both")
    forward, backward = KDTree(second).query(first)[0], KDTree(first).query(second)[0]
    return {"l1": float(0.5 * (forward.mean() + backward.mean())), "l2": float((forward**2).mean() + (backward**2).mean())}


Solid = Geometry | Callable[[np.ndarray], np.ndarray]
"""A wave, a set of waves, or a function from points [n 3] (m) to a mask of those inside [n]."""


def iou(a: Solid, b: Solid, resolution: int = 48, box: tuple[np.ndarray, np.ndarray] | None = None) -> float:
    """Intersection over union of two solids, on a grid of resolution^3 over their common box.

    A solid that is a function needs `box`, its lowest and highest coordinates (m).
    """
    solids = [x if callable(x) else as_set(x) for x in (a, b)]
    boxes = [] if box is None else [box]
    boxes += [bounds(padded_set(waves)) for waves in solids if isinstance(waves, Geometry)]
    low = np.min([np.atleast_2d(corner).min(0) for corner, _ in boxes], 0)
    high = np.max([np.atleast_2d(corner).max(0) for _, corner in boxes], 0)
    steps = (np.arange(resolution) + 0.5) / resolution
    grid = low + (high - low) * np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    one, two = (np.any(log_gauges(x, grid) < 0, axis=0) if isinstance(x, Geometry) else x(grid) for x in solids)
    return float(np.sum(one & two) / max(np.sum(one | two), 1))


def match(a: Geometry, b: Geometry, resolution: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairing of two sets of waves with the greatest sum of IoU (Hungarian): indices into a, into b, and the IoUs."""
    first, second = as_set(a), as_set(b)
    table = np.zeros((len(first.scale), len(second.scale)))
    for i, j in product(*(range(n) for n in table.shape)):
        one, two = (jax.tree.map(lambda x, k=k: x[k], w) for w, k in ((first, i), (second, j)))
        table[i, j] = iou(one, two, resolution)
    rows, columns = linear_sum_assignment(-table)
    return rows, columns, table[rows, columns]


def depth_error(waves: Waves, camera: Camera, depth: Float[np.ndarray, "H W"], within: float = 0.05) -> dict[str, float]:
    """Error of the rendered depth of waves against a measured depth map (m; 0: unmeasured).

    "median" of |difference| (m) and "within", the fraction of pixels with an error of at most `within` (m), over the pixels
    with both depths; "covered": the fraction of measured pixels that the waves cover; "in_front": the fraction of pixels that
    render nearer by more than `within`.
    """
    height, width = depth.shape
    rendered = np.asarray(_depth_seen(jax.tree.map(jnp.asarray, waves), jax.tree.map(jnp.asarray, camera), height, width))
    measured, both = depth > 0, (depth > 0) & (rendered > 0)
    difference = (rendered - depth)[both]
    return {
        "median": float(np.median(np.abs(difference))) if both.any() else float("nan"),
        "within": float(np.mean(np.abs(difference) <= within)) if both.any() else 0.0,
        "covered": float(both.sum() / max(measured.sum(), 1)),
        "in_front": float(np.mean(difference < -within)) if both.any() else 0.0,
    }


@partial(jax.jit, static_argnames=("height", "width"))
def _depth_seen(waves: Waves, camera: Camera, height: int, width: int) -> jax.Array:
    return surface(waves, camera, height, width, rays_per_chunk=16384)["depth"][..., 0]
