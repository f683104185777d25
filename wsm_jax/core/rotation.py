"""Rotations as quaternions (w, x, y, z): JAX functions with finite gradients, and one host function.

`jax.scipy.spatial.transform` does not replace the JAX functions: the gradients of its rotation vectors and of its `Slerp` are
NaN at the identity, where every fit and every body at rest begins, and its product of quaternions is slower. Other rotations
on the host use `scipy.spatial.transform.Rotation` directly.
"""

import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from wsm_jax.typing import Array, Float, NpOrJax


def multiply(a: Float[NpOrJax, "*lead 4"], b: Float[NpOrJax, "*lead 4"]) -> Float[Array, "*lead 4"]:
    """Product of quaternions: the rotation b, then a."""
    a, b = jnp.asarray(a), jnp.asarray(b)
    aw, av, bw, bv = a[..., :1], a[..., 1:], b[..., :1], b[..., 1:]
    real = aw * bw - jnp.sum(av * bv, -1, keepdims=True)
    return jnp.concatenate([real, aw * bv + bw * av + jnp.cross(av, bv)], -1)


def conjugate(rotation: Float[NpOrJax, "*lead 4"]) -> Float[Array, "*lead 4"]:
    """Inverse of a unit quaternion."""
    return jnp.asarray(rotation) * jnp.asarray([1.0, -1.0, -1.0, -1.0])


def from_rotation_vector(vector: Float[NpOrJax, "*lead 3"]) -> Float[Array, "*lead 4"]:
    """Unit quaternion of a rotation vector (rad); differentiable at 0, unlike jax.scipy's."""
    vector = jnp.asarray(vector)
    half = 0.5 * jnp.sqrt(jnp.sum(vector * vector, -1, keepdims=True) + 1e-20)
    return jnp.concatenate([jnp.cos(half), 0.5 * vector * jnp.sinc(half / jnp.pi)], -1)


def turned(rotation: Float[NpOrJax, "*lead 4"], vector: Float[NpOrJax, "*lead 3"]) -> Float[Array, "*lead 4"]:
    """The rotation followed by a rotation vector in the world frame (rad); unit length."""
    after = multiply(from_rotation_vector(vector), rotation)
    return after / jnp.linalg.norm(after, axis=-1, keepdims=True)


def slerp(a: Float[NpOrJax, "*lead 4"], b: Float[NpOrJax, "*lead 4"], u: Float[NpOrJax, "*u 1"]) -> Float[Array, "*lead 4"]:
    """Spherical interpolation along the shorter arc (u in 0..1, broadcast); unlike jax.scipy's differentiable for a = b."""
    dot = jnp.sum(a * b, -1, keepdims=True)
    b = jnp.where(dot < 0, -b, b)
    dot = jnp.clip(jnp.abs(dot), 0.0, 1.0)
    angle = jnp.arccos(jnp.minimum(dot, 1 - 1e-6))
    sine = jnp.sin(angle)
    mixed = (jnp.sin((1 - u) * angle) * a + jnp.sin(u * angle) * b) / sine
    mixed = jnp.where(dot > 1 - 1e-5, (1 - u) * a + u * b, mixed)
    return mixed / jnp.linalg.norm(mixed, axis=-1, keepdims=True)


def from_matrix(m: Float[NpOrJax, "*lead 3 3"]) -> Float[Array, "*lead 4"]:
    """Unit quaternion, w >= 0, by the formula with the largest of four components, which is always well-conditioned.

    Decoding core vectors (vector.py) depends on its exact rounding.
    """
    m = jnp.asarray(m)
    t = [1 + m[..., 0, 0] + m[..., 1, 1] + m[..., 2, 2], 1 + m[..., 0, 0] - m[..., 1, 1] - m[..., 2, 2]]
    t += [1 - m[..., 0, 0] + m[..., 1, 1] - m[..., 2, 2], 1 - m[..., 0, 0] - m[..., 1, 1] + m[..., 2, 2]]
    zy, xz, yx = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, zx, yz = m[..., 0, 1] + m[..., 1, 0], m[..., 0, 2] + m[..., 2, 0], m[..., 1, 2] + m[..., 2, 1]
    rows = jnp.stack(
        [jnp.stack(r, -1) for r in ((t[0], zy, xz, yx), (zy, t[1], xy, zx), (xz, xy, t[2], yz), (yx, zx, yz, t[3]))], -2
    )
    best = jnp.argmax(jnp.stack(t, -1), -1)
    q = jnp.take_along_axis(rows, best[..., None, None], -2)[..., 0, :]
    q = q / jnp.linalg.norm(q, axis=-1, keepdims=True)
    return jnp.where(q[..., :1] < 0, -q, q)


def matrix64(quaternion: Float[NpOrJax, "*lead 4"]) -> Float[np.ndarray, "*lead 3 3"]:
    """Rotation matrices of quaternions of any length but 0, on the host in float64."""
    flat = np.asarray(quaternion, np.float64).reshape(-1, 4)
    return Rotation.from_quat(flat, scalar_first=True).as_matrix().reshape(*np.shape(quaternion)[:-1], 3, 3)
