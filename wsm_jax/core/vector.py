"""Encoding of waves as vectors of order one, for flows, and decoding to valid waves."""

import jax
import jax.numpy as jnp

from wsm_jax.core.rotation import from_matrix
from wsm_jax.core.superquadric import EXPONENT_RANGE
from wsm_jax.snapshot import SEMANTIC_CLASSES, Waves, quaternion_to_matrix
from wsm_jax.typing import Array, Float, NpOrJax

_CLASSES = len(SEMANTIC_CLASSES)
_CENTRE_M, _HEIGHT_M = 1.5, 0.5
_LOG_SCALE = (-1.0, 0.5)
_SPEED, _SPIN = 1.0, 4.0
_LIMIT = 4.0

LAYOUT = {
    "presence": 1, "centre": 3, "scale": 3, "rotation": 6, "exponents": 2, "colour": 3, "material": 2,
    "velocity": 3, "angular_velocity": 3, "semantic": _CLASSES,
}  # fmt: skip
"""Field -> number of components, in order. Instance ids are not encoded: a slot is an instance."""

SIZE = sum(LAYOUT.values())
"""P, the number of components per wave."""


def to_vector(waves: Waves) -> Float[Array, "*lead N P"]:
    """Encode every wave as P numbers of order one; an empty slot is presence -1, class "nothing", and zeros.

    Centre in units of 1.5 m (height from 0.5 m in 0.5 m), log of the scale, the first two columns of the rotation (Zhou et
    al. 2019), exponents and colours in [-1, 1], velocity in m/s, spin in 4 rad/s, clipped at 4, class one-hot.
    """
    centre = jnp.asarray(waves.centre)
    low, high = EXPONENT_RANGE
    parts = {
        "presence": 2.0 * jnp.asarray(waves.presence)[..., None] - 1.0,
        "centre": jnp.concatenate([centre[..., :2] / _CENTRE_M, (centre[..., 2:] - _HEIGHT_M) / _HEIGHT_M], -1),
        "scale": (jnp.log(jnp.asarray(waves.scale)) - _LOG_SCALE[0]) / _LOG_SCALE[1],
        "rotation": _first_columns(quaternion_to_matrix(waves.rotation)),
        "exponents": 2.0 * (jnp.asarray(waves.exponents) - low) / (high - low) - 1.0,
        "colour": 2.0 * jnp.asarray(waves.colour) - 1.0,
        "material": 2.0 * jnp.asarray(waves.material) - 1.0,
        "velocity": jnp.asarray(waves.velocity) / _SPEED,
        "angular_velocity": jnp.asarray(waves.angular_velocity) / _SPIN,
        "semantic": 2.0 * jax.nn.one_hot(jnp.asarray(waves.semantic), _CLASSES) - 1.0,
    }
    present = jnp.asarray(waves.presence)[..., None] > 0.5
    nothing = 2.0 * jax.nn.one_hot(0, _CLASSES) - 1.0
    empty = {"presence": -1.0, "semantic": nothing}
    parts = {name: jnp.where(present, x, empty.get(name, 0.0)) for name, x in parts.items()}
    return jnp.clip(jnp.concatenate([parts[name] for name in LAYOUT], -1), -_LIMIT, _LIMIT)


def from_vector(vector: Float[NpOrJax, "*lead N P"]) -> Waves:
    """Decode a vector to valid waves: presence and class discrete, rotation orthonormal, scale and exponents in range.

    Presence becomes 0 or 1; instance is slot + 1 for objects and 0 for floor, screen and empty slots.
    """
    cuts = [sum(list(LAYOUT.values())[: i + 1]) for i in range(len(LAYOUT) - 1)]
    part = dict(zip(LAYOUT, jnp.split(jnp.asarray(vector), cuts, -1), strict=True))
    low, high = EXPONENT_RANGE
    semantic = jnp.argmax(part["semantic"], -1).astype(jnp.int32)
    presence = ((part["presence"][..., 0] > 0) & (semantic > 0)).astype(jnp.float32)
    slots = jnp.arange(1, vector.shape[-2] + 1, dtype=jnp.int32)
    centre = part["centre"]
    return Waves(
        presence=presence,
        centre=jnp.concatenate([centre[..., :2] * _CENTRE_M, centre[..., 2:] * _HEIGHT_M + _HEIGHT_M], -1),
        scale=jnp.exp(jnp.clip(part["scale"] * _LOG_SCALE[1] + _LOG_SCALE[0], -4.0, 2.5)),
        rotation=from_matrix(_from_columns(part["rotation"])),
        exponents=jnp.clip(low + 0.5 * (part["exponents"] + 1.0) * (high - low), low, high),
        colour=jnp.clip(0.5 * (part["colour"] + 1.0), 0.0, 1.0),
        material=jnp.clip(0.5 * (part["material"] + 1.0), 0.0, 1.0),
        velocity=part["velocity"] * _SPEED,
        angular_velocity=part["angular_velocity"] * _SPIN,
        semantic=semantic,
        instance=jnp.where((semantic > 2) & (presence > 0), slots, 0),
    )


def _first_columns(matrix: Array) -> Array:
    return jnp.concatenate([matrix[..., :, 0], matrix[..., :, 1]], -1)


def _from_columns(six: Array) -> Array:
    """Gram-Schmidt of two columns, with axes in place of zero columns."""
    a, b = six[..., :3], six[..., 3:]
    a = jnp.where(jnp.sum(a * a, -1, keepdims=True) > 1e-6, a, jnp.asarray([1.0, 0.0, 0.0]))
    a = a / jnp.linalg.norm(a, axis=-1, keepdims=True)
    b = b - jnp.sum(a * b, -1, keepdims=True) * a
    spare = jnp.where(jnp.abs(a[..., :1]) < 0.9, jnp.asarray([1.0, 0.0, 0.0]), jnp.asarray([0.0, 1.0, 0.0]))
    spare = spare - jnp.sum(a * spare, -1, keepdims=True) * a
    b = jnp.where(jnp.sum(b * b, -1, keepdims=True) > 1e-6, b, spare)
    b = b / jnp.linalg.norm(b, axis=-1, keepdims=True)
    return jnp.stack([a, b, jnp.cross(a, b)], -1)
