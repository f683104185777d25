"""Are two waves, or two sets of waves, the same thing? By geometry, and by parameters modulo the symmetries of a superquadric.

A surface has several parameter vectors. Half-turns about the axes change nothing, nor does a quarter-turn about z that
exchanges a1 and a2 (8 readings); for e1 = e2 the norm treats the axes alike and z may be any of them (24 readings). Where
a1 = a2 and e2 = 1 the angle about z says nothing, and likewise about every axis of a round pair. Different exponents can be
*nearly* the same body (a box as a turned diamond): there only the geometry, Chamfer distance and IoU, is to be trusted.
"""

from collections.abc import Callable
from functools import partial
from itertools import permutations, product

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.spatial import KDTree
from scipy.spatial.transform import Rotation

from wsm_jax.core.fitting.observations import float32
from wsm_jax.core.geometry import Geometry, bounds, to_local
from wsm_jax.core.render import surface
from wsm_jax.core.superquadric import log_gauge, log_gauge_gradient, sample_surface, sphere_directions
from wsm_jax.snapshot import Camera, Waves, quaternion_to_matrix
from wsm_jax.typing import Float, NpOrJax

_ALIKE = 0.05
"""Exponents this near, and semi-axes whose ratio is this near to 1, count as equal for a symmetry."""


def _turns() -> np.ndarray:
    """The 24 rotations that permute the axes, [24 3 3]; the first 8 keep z."""
    found = []
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        matrix = np.zeros((3, 3))
        matrix[range(3), order] = signs
        if np.linalg.det(matrix) > 0:
            found.append(matrix)
    return np.stack(sorted(found, key=lambda m: bool(np.abs(np.asarray(m)[2, 2]) < 0.5)))


TURNS = _turns()


def readings(wave: Geometry) -> list[Geometry]:
    """Every parameter vector of one wave with the same surface: 8, or 24 where the exponents are equal. Float64."""
    scale, exponents = np.asarray(wave.scale, np.float64), np.asarray(wave.exponents, np.float64)
    axes = Rotation.from_quat(np.asarray(wave.rotation, np.float64), scalar_first=True).as_matrix()
    turns = TURNS if abs(exponents[0] - exponents[1]) <= _ALIKE else TURNS[:8]
    return [
        Geometry(
            np.asarray(wave.centre, np.float64),
            np.abs(turn).T @ scale,
            Rotation.from_matrix(axes @ turn).as_quat(canonical=True, scalar_first=True),
            exponents,
        )
        for turn in turns
    ]


def canonical(wave: Geometry) -> Geometry:
    """The reading of a wave with a1 >= a2 (a1 >= a2 >= a3 for equal exponents) that is turned least from the world's axes."""
    order = [0, 1, 2] if abs(float(wave.exponents[0]) - float(wave.exponents[1])) <= _ALIKE else [0, 1]

    def disorder(reading: Geometry) -> tuple[float, float]:
        a = reading.scale[order]
        return float(np.sum(np.maximum(np.log(a[1:] / a[:-1]), 0.0)) > 1e-9), -abs(float(reading.rotation[0]))

    return min(readings(wave), key=disorder)


def rotation_error(a: Geometry, b: Geometry) -> float:
    """Least angle (rad) between two waves over the symmetries of the second; an angle that says nothing does not count."""
    frame = Rotation.from_quat(np.asarray(a.rotation, np.float64), scalar_first=True).as_matrix()
    return min(_angle(frame, reading) for reading in readings(b))


def _angle(frame: np.ndarray, reading: Geometry) -> float:
    other = Rotation.from_quat(reading.rotation, scalar_first=True).as_matrix()
    a, e = reading.scale, reading.exponents
    round_xy = abs(a[0] / a[1] - 1) <= _ALIKE and abs(e[1] - 1) <= _ALIKE
    if round_xy and abs(e[0] - 1) <= _ALIKE and abs(a[2] / a[0] - 1) <= _ALIKE:
        return 0.0
    if round_xy:
        return float(np.arccos(np.clip(abs(frame[:, 2] @ other[:, 2]), 0.0, 1.0)))
    return float(Rotation.from_matrix(frame.T @ other).magnitude())


def parameter_error(a: Geometry, b: Geometry) -> dict[str, float]:
    """Centre (m), greatest |log ratio| of semi-axes, angle (rad), greatest exponent difference, at b's reading nearest to a."""
    frame = Rotation.from_quat(np.asarray(a.rotation, np.float64), scalar_first=True).as_matrix()

    def errors(reading: Geometry) -> dict[str, float]:
        return {
            "centre": float(np.linalg.norm(np.asarray(a.centre, np.float64) - reading.centre)),
            "scale": float(np.max(np.abs(np.log(np.asarray(a.scale, np.float64) / reading.scale)))),
            "rotation": _angle(frame, reading),
            "exponents": float(np.max(np.abs(np.asarray(a.exponents, np.float64) - reading.exponents))),
        }

    return min((errors(reading) for reading in readings(b)), key=lambda error: error["scale"] + error["rotation"])


def as_set(waves: Geometry) -> Geometry:
    """A wave or a set of waves as a set [N ...], NumPy."""
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

    A direction sees |s|^2 / (v . n) of the shape with semi-axes 1, where s = v / g and v . n = g / |grad g|; stretching by a
    multiplies that by a1 a2 a3 |n / a|. Runs under jit, vmap and grad.
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
    """The set with its last wave repeated up to a power of two, so that few sizes are compiled."""
    count = len(waves.scale)
    fill = (1 << max(count - 1, 0).bit_length()) - count
    return jax.tree.map(lambda x: float32(np.concatenate([x, np.repeat(x[-1:], fill, 0)])), waves)


def surface_samples(waves: Geometry, count: int = 2048, seed: int = 0) -> Float[np.ndarray, "n 3"]:
    """Points (m) uniform by area on the outside of the union of a set of waves: `count`, less those inside another wave."""
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

    l1 is the mean of the two mean distances to the nearest sample of the other, l2 the sum of the two mean squares. Samples
    have gaps, so that equal surfaces are about half a spacing, 0.5 sqrt(area / count), apart, and not 0.
    """
    first, second = (x if isinstance(x, np.ndarray) else surface_samples(x, count, seed) for seed, x in enumerate((a, b)))
    if not len(first) or not len(second):
        raise ValueError(f"chamfer: {len(first)} and {len(second)} points; needed one or more of both")
    there, back = KDTree(second).query(first)[0], KDTree(first).query(second)[0]
    return {"l1": float(0.5 * (there.mean() + back.mean())), "l2": float((there**2).mean() + (back**2).mean())}


Body = Geometry | Callable[[np.ndarray], np.ndarray]
"""A wave, a set of waves, or a function: points [n 3] (m) -> whether each lies inside [n]."""


def iou(a: Body, b: Body, resolution: int = 48, box: tuple[np.ndarray, np.ndarray] | None = None) -> float:
    """Intersection over union of two bodies, on a grid of resolution^3 over their common box.

    A body that is a function needs `box`, its lowest and highest coordinates (m).
    """
    bodies = [x if callable(x) else as_set(x) for x in (a, b)]
    boxes = [] if box is None else [box]
    boxes += [bounds(padded_set(waves)) for waves in bodies if isinstance(waves, Geometry)]
    low = np.min([np.atleast_2d(corner).min(0) for corner, _ in boxes], 0)
    high = np.max([np.atleast_2d(corner).max(0) for _, corner in boxes], 0)
    steps = (np.arange(resolution) + 0.5) / resolution
    grid = low + (high - low) * np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(-1, 3)
    one, two = (np.any(log_gauges(x, grid) < 0, axis=0) if isinstance(x, Geometry) else x(grid) for x in bodies)
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
    """How far the depth that a camera sees of the waves is from a measured one (m; 0: nothing measured).

    "median" (m) of |difference| and "within", the share of pixels nearer than `within` (m), over the pixels that both have;
    "covered": the share of the measured pixels that the waves cover; "in_front": that render nearer by more than `within`.
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
