"""Parts of a scene -> waves: one wave a cloud of points, the best of several starts of fit_wave."""

import dataclasses
import itertools

import jax
import numpy as np
from scipy.spatial.transform import Rotation

from wsm_jax.core.exchange.points import PointCloud
from wsm_jax.core.fitting.fit import fit_wave
from wsm_jax.core.geometry import Geometry
from wsm_jax.snapshot import Waves
from wsm_jax.snapshot.waves import empty
from wsm_jax.typing import Float

FIT_POINTS = 512
"""Points that a fit looks at: of more, evenly picked ones."""

_THING = 7
_many = jax.jit(
    jax.vmap(lambda points, weights, start: fit_wave(points, weights, start, iterations=40), in_axes=(None, None, 0))
)


def starts(points: Float[np.ndarray, "n 3"]) -> Geometry:
    """Initial waves for a fit: the bounding box in the world's axes and in the principal axes, each of its axes once as the
    wave's own z, once as an ellipsoid and once nearly as a box, [12 ...]."""
    _, _, axes = np.linalg.svd(points - points.mean(0), full_matrices=True)
    axes = axes.T * np.sign(np.linalg.det(axes))
    found = []
    for frame, turn, exponent in itertools.product((np.eye(3), axes), range(3), (1.0, 0.3)):
        matrix = np.roll(frame, turn, axis=1)
        local = points @ matrix
        low, high = local.min(0), local.max(0)
        half = 0.5 * (high - low)
        half = np.maximum(half, 0.02 * half.max())
        rotation = Rotation.from_matrix(matrix).as_quat(scalar_first=True)
        found.append((matrix @ (0.5 * (low + high)), half, rotation, (exponent, exponent)))
    return Geometry(*(np.asarray(part, np.float32) for part in zip(*found)))


def fit_part(points: Float[np.ndarray, "n 3"]) -> tuple[Geometry, float]:
    """The wave through the points, and its RMS radial distance (m).

    Raises ValueError for fewer than 10 points, for points that all lie in one place, or that are not finite.
    """
    points = np.asarray(points, np.float64)
    if len(points) < 10:
        raise ValueError(f"fit_part: {len(points)} points; needed 10 or more for a wave of 11 parameters")
    if not np.isfinite(points).all():
        raise ValueError("fit_part: points that are not finite")
    middle = points.mean(0)
    size = float(np.abs(points - middle).max())
    if not size > 1e-9 * max(1.0, float(np.abs(middle).max())):
        raise ValueError(f"fit_part: {len(points)} points within {size:g} m of one place; needed an extent")
    picked = points[np.linspace(0, len(points) - 1, min(len(points), FIT_POINTS)).astype(int)]
    # in units of the cloud, about its middle: float32 carries far places and any size
    near = ((picked - middle) / size).astype(np.float32)
    padded = np.pad(near, ((0, FIT_POINTS - len(near)), (0, 0)))
    weights = np.float32(np.arange(FIT_POINTS) < len(near))
    fitted, errors = _many(padded, weights, starts(near.astype(np.float64)))
    best = int(np.nanargmin(np.asarray(errors)))
    shape = jax.tree.map(lambda x: np.asarray(x, np.float64)[best], fitted)
    placed = dataclasses.replace(shape, centre=middle + size * shape.centre, scale=np.maximum(size * shape.scale, 1e-6))
    return jax.tree.map(np.float32, placed), size * float(errors[best])


def waves_of_parts(parts: list[PointCloud]) -> Waves:
    """One wave a part, an instance each, in the mean colour of the part. Raises ValueError for none, and as `fit_part` does."""
    if not parts:
        raise ValueError("waves_of_parts: got no part; needed one or more")
    fits = [fit_part(np.asarray(part.points))[0] for part in parts]
    fields = {name: np.stack([np.asarray(getattr(fit, name), np.float32) for fit in fits]) for name in Geometry.__annotations__}
    rotation = fields.pop("rotation")
    return dataclasses.replace(
        empty(len(parts)),
        presence=np.ones(len(parts), np.float32),
        rotation=rotation / np.linalg.norm(rotation, axis=-1, keepdims=True),
        colour=np.stack([np.clip(np.asarray(part.colours).mean(0), 0.0, 1.0) for part in parts]).astype(np.float32),
        semantic=np.full(len(parts), _THING, np.int32),
        instance=np.arange(1, len(parts) + 1, dtype=np.int32),
        **fields,
    )
