"""A camera with resolution-free intrinsics, perspective or orthographic, and camera paths.

Intrinsics are in units of the image height, so that a camera means the same at any resolution: a pixel at row i, column j
of an H x W image has canvas coordinates v = (i + 1/2)/H in 0..1 and u = (j + 1/2)/H in 0..W/H, and sees the direction

    d = ((u - cx) / f, (v - cy) / f, 1)      in the camera frame (x right, y down, z forward),   cx = W/(2H) + ox, cy = 1/2 + oy

so a point origin + z R d lies at depth z (distance along the optical axis, m). A distorting lens changes (x, y) of d (see
`lens`). An orthographic camera sees along (0, 0, 1) everywhere, from ((u - cx) / f, (v - cy) / f, 0) in its frame.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from wsm_jax.snapshot import lens
from wsm_jax.typing import Array, Float, NpOrJax, array_namespace, pytree, static

DEFAULT_FOV = float(np.deg2rad(50.0))
"""Vertical field of view, radians."""
_DEFAULT_DISTANCE_M, _DEFAULT_HEIGHT_M = 5.0, 2.1
_DEFAULT_TARGET_M = (0.0, 0.0, 0.35)


@pytree
class Camera:
    """One camera, or a path of cameras along the leading axes."""

    position: Float[NpOrJax, "*lead 3"]
    """World position, m."""
    rotation: Float[NpOrJax, "*lead 4"]
    """Unit quaternion (w, x, y, z), camera frame to world frame."""
    focal: Float[NpOrJax, "*lead"]
    """Focal length in image heights; the vertical field of view is 2 atan(1 / (2 focal)).

    For an orthographic camera, image heights per metre: the picture is 1 / focal metres high.
    """
    offset: Float[NpOrJax, "*lead 2"]
    """(ox, oy): offset of the principal point from the image centre, in image heights."""
    distortion: Float[NpOrJax, "*lead 5"] | None = None
    """Coefficients (k1, k2, p1, p2, k3) of a perspective lens, OpenCV's order; None: no distortion."""
    orthographic: bool = static(default=False)

    def __getitem__(self, index) -> "Camera":
        """Indexes the leading axes."""
        focal = self.focal[index]
        focal = np.asarray(focal) if isinstance(focal, np.generic) else focal  # NumPy gives a scalar, not an array of shape ()
        distortion = None if self.distortion is None else self.distortion[index]
        return Camera(self.position[index], self.rotation[index], focal, self.offset[index], distortion, self.orthographic)

    @property
    def pinhole(self) -> bool:
        """True for a perspective camera without distortion."""
        return self.distortion is None and not self.orthographic


_CROSS = np.cross(np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)[:, None])
"""Entries [3 3] of the matrix that takes the cross product with a vector, as weights [3] of its components."""


def quaternion_to_matrix(q: Float[NpOrJax, "*lead 4"]) -> Float[Array, "*lead 3 3"]:
    """Rotation matrix of a quaternion (w, x, y, z), normalised first."""
    q = jnp.asarray(q)
    q = q / jnp.linalg.norm(q, axis=-1, keepdims=True)
    # K is the matrix of the cross product with v; R = 1 + 2 w K + 2 K K, in few operations: physics calls this often
    cross = jnp.sum(q[..., None, None, 1:] * _CROSS, -1)
    square = jnp.sum(cross[..., :, :, None] * cross[..., None, :, :], -2)
    return jnp.eye(3, dtype=q.dtype) + 2.0 * (q[..., :1, None] * cross + square)


def matrix_to_quaternion(matrix: Float[NpOrJax, "*lead 3 3"]) -> Float[np.ndarray, "*lead 4"]:
    """Unit quaternion (w, x, y, z), w >= 0, of rotation matrices (NumPy, float32)."""
    from scipy.spatial.transform import Rotation

    m = np.asarray(matrix, np.float64)
    q = Rotation.from_matrix(m.reshape(-1, 3, 3)).as_quat(canonical=True, scalar_first=True)
    return q.reshape(*m.shape[:-2], 4).astype(np.float32)


def look_at(position: Float[NpOrJax, "*lead 3"], target: Float[NpOrJax, "*#lead 3"], fov: float = DEFAULT_FOV) -> Camera:
    """Cameras at `position` that look at `target` with z up; `fov` is vertical, radians.

    Raises ValueError when a camera is at its target, or looks straight up or down.
    """
    position = np.asarray(position, np.float32)
    forward = np.asarray(target, np.float32) - position
    distance = np.linalg.norm(forward, axis=-1, keepdims=True)
    if not np.all(distance > 1e-6):
        raise ValueError("look_at: a camera is at its target (or a coordinate is not finite); move one of them")
    forward = forward / distance
    right = np.cross(forward, np.asarray([0.0, 0.0, 1.0], np.float32))
    norm = np.linalg.norm(right, axis=-1, keepdims=True)
    if np.any(norm < 1e-4):
        raise ValueError("look_at: the view is vertical, so z-up leaves the roll undefined; move the camera to the side")
    right = right / norm
    down = np.cross(forward, right)
    rotation = matrix_to_quaternion(np.stack([right, down, forward], -1))
    lead = position.shape[:-1]
    focal = np.full(lead, 0.5 / np.tan(0.5 * fov), np.float32)
    return Camera(position, rotation, focal, np.zeros((*lead, 2), np.float32))


def orbit(
    frames: int,
    radius: float = 6.0,
    height: float = 2.6,
    start: float = -np.pi / 2,
    sweep: float = 2 * np.pi,
    target: tuple[float, float, float] = (0.0, 0.0, 0.5),
    fov: float = DEFAULT_FOV,
) -> Camera:
    """`frames` cameras on a horizontal arc: azimuth from `start`, over `sweep` radians; radius and height in m."""
    azimuth = start + sweep * np.linspace(0.0, 1.0, frames, endpoint=abs(sweep) < 2 * np.pi - 1e-6)
    position = np.stack([radius * np.cos(azimuth), radius * np.sin(azimuth), np.full(frames, height)], -1)
    return look_at(position, np.broadcast_to(np.asarray(target, np.float32), position.shape), fov)


def default_camera(frames: int = 1) -> Camera:
    """The camera [frames] assumed where none is given: 5 m in front of the scene, 2.1 m high, still."""
    position = np.tile(np.asarray([[0.0, -_DEFAULT_DISTANCE_M, _DEFAULT_HEIGHT_M]], np.float32), (frames, 1))
    return look_at(position, np.tile(np.asarray([_DEFAULT_TARGET_M], np.float32), (frames, 1)))


def default_orbit(frames: int, start: float = -np.pi / 2, sweep: float = 2 * np.pi) -> Camera:
    """`orbit` at the distance and height of `default_camera`."""
    return orbit(frames, _DEFAULT_DISTANCE_M, _DEFAULT_HEIGHT_M, start, sweep)


def crop(
    camera: Camera,
    size: tuple[float | int, float | int],
    top: float | int,
    left: float | int,
    rows: float | int,
    columns: float | int,
) -> Camera:
    """The camera [*lead] of a crop of its pictures of `size` (H, W): `rows` x `columns` pixels from (`top`, `left`).

    Every kept pixel keeps its ray: f' = f H/rows, o' = (W/2 + ox H - left - columns/2)/rows, likewise for oy.
    """
    height, width = size
    scale = height / rows
    shift = np.asarray([width / 2 - left - columns / 2, height / 2 - top - rows / 2], np.float32) / rows
    focal, offset = np.asarray(camera.focal), np.asarray(camera.offset)
    return dataclasses.replace(
        camera, focal=np.asarray(focal * scale, np.float32), offset=np.asarray(offset * scale + shift, np.float32)
    )


def pixel_plane(camera: Camera, height: int, width: int) -> tuple[Float[NpOrJax, "*lead H W"], Float[NpOrJax, "*lead H W"]]:
    """(x, y) of every pixel in the camera frame: direction (x, y, 1), or origin (x, y, 0), m, if orthographic.

    NumPy stays NumPy. Raises ValueError for an orthographic camera with a distorting lens.
    """
    xp = _namespace(camera)
    focal, offset = xp.asarray(camera.focal), xp.asarray(camera.offset)
    x = ((xp.arange(width) + 0.5) / height - width / (2 * height) - offset[..., 0, None]) / focal[..., None]
    y = ((xp.arange(height) + 0.5) / height - 0.5 - offset[..., 1, None]) / focal[..., None]
    x, y = xp.broadcast_arrays(x[..., None, :], y[..., :, None])
    return (x, y) if _undistorted(camera) else lens.undistort(x, y, xp.asarray(camera.distortion))


def _namespace(camera: Camera):
    return array_namespace(camera.position, camera.rotation, camera.focal, camera.offset, camera.distortion)


def _undistorted(camera: Camera) -> bool:
    if camera.orthographic and camera.distortion is not None:
        raise ValueError("Camera: distortion with an orthographic camera; needed distortion None, or a perspective camera")
    return camera.distortion is None


def rays(camera: Camera, height: int, width: int) -> tuple[Float[Array, "*origins 3"], Float[Array, "*lead H W 3"]]:
    """World origin and world directions of the pixel rays; directions have unit depth, so `origin + depth * d` is the point.

    The origin is [*lead 3]; for an orthographic camera, one for each pixel, [*lead H W 3].
    """
    x, y = (jnp.asarray(values) for values in pixel_plane(camera, height, width))
    matrix = quaternion_to_matrix(camera.rotation)
    local = jnp.stack([x, y, (jnp.zeros_like if camera.orthographic else jnp.ones_like)(x)], -1)
    directed = jnp.einsum("...ij,...hwj->...hwi", matrix, local, precision="highest")
    position = jnp.asarray(camera.position)
    if camera.orthographic:
        return position[..., None, None, :] + directed, jnp.broadcast_to(matrix[..., None, None, :, 2], directed.shape)
    return position, directed


def ground(camera: Camera, height: int, width: int) -> Float[NpOrJax, "*lead H W 2"]:
    """Inverse depth of the plane z = 0 and elevation of the ray, for every pixel of a camera.

    With d the ray of unit depth, u the world's up and h the height of its origin above z = 0 (m), the components are

        -(u . d) / h      inverse depth of the plane along the optical axis, 1/m; negative where the ray misses it
        (u . d) / |d|     sine of the elevation of the ray

    Together they give gravity and height for any lens. An origin within 1 mm of the plane is moved to 1 mm from it.
    NumPy stays NumPy.
    """
    xp = _namespace(camera)
    rotation = xp.asarray(camera.rotation)
    w, i, j, k = (rotation[..., n, None, None] for n in range(4))
    norm = w * w + i * i + j * j + k * k
    up = [2 * (i * k - w * j) / norm, 2 * (j * k + w * i) / norm, 1 - 2 * (i * i + j * j) / norm]
    x, y = pixel_plane(camera, height, width)
    across = up[0] * x + up[1] * y
    above, rise, length = xp.asarray(camera.position)[..., 2, None, None], across + up[2], xp.sqrt(x * x + y * y + 1.0)
    if camera.orthographic:
        above, rise, length = above + across, xp.broadcast_to(up[2], across.shape), 1.0
    above = xp.where(above < 0, xp.minimum(above, -1e-3), xp.maximum(above, 1e-3))
    return xp.stack([-rise / above, rise / length], -1).astype(xp.float32)


def level_with(observed: Float[NpOrJax, "H W 2"], like: Camera) -> Camera:
    """The camera whose `ground` is nearest to `observed`: height and tilt are fitted, the rest is that of `like`.

    The inverse depth of the plane is linear over the picture, -(u . d)/h, so least squares gives -u/h in the camera frame.
    Values near +-1/m, where the channel is clipped, are left out. The height is clipped to 0.2 .. 20 m. Raises ValueError for
    an orthographic camera, whose depth of the plane is another function.
    """
    if like.orthographic:
        raise ValueError("level_with: got an orthographic camera; needed a perspective one")
    height, width = observed.shape[:2]
    x, y = (np.asarray(values, np.float64) for values in pixel_plane(like, height, width))
    near = np.asarray(observed, np.float64)[..., 0]
    valid = np.abs(near) < 0.98
    plane = np.linalg.lstsq(np.stack([x, y, np.ones_like(x)], -1)[valid], near[valid], rcond=None)[0]
    size = max(float(np.linalg.norm(plane)), 1e-9)
    up = -plane / size
    heading = np.asarray(quaternion_to_matrix(like.rotation), np.float64)[:2, 2]
    along = np.array([0.0, 0.0, 1.0]) - up[2] * up  # where the optical axis points on the ground, camera frame
    along = along / max(float(np.linalg.norm(along)), 1e-9)
    cos, sin = heading / max(float(np.linalg.norm(heading)), 1e-9)
    side = np.cross(along, up)  # to the right of it
    rotation = matrix_to_quaternion(np.stack([cos * along + sin * side, sin * along - cos * side, up]))
    position = np.array([*np.asarray(like.position)[:2], np.clip(1.0 / size, 0.2, 20.0)], np.float32)
    return dataclasses.replace(like, position=position, rotation=rotation)


def project(
    camera: Camera, points: Float[NpOrJax, "*lead n 3"], aspect: float = 1.0
) -> tuple[Float[Array, "*lead n 2"], Float[Array, "*lead n"]]:
    """Canvas coordinates (u, v) in image heights and depth (m) of world points; `aspect` is W/H."""
    matrix = quaternion_to_matrix(camera.rotation)
    offset = jnp.asarray(points) - jnp.asarray(camera.position)[..., None, :]
    local = jnp.einsum("...ji,...nj->...ni", matrix, offset, precision="highest")
    depth, centre = local[..., 2], jnp.asarray(camera.offset) + jnp.asarray([0.5 * aspect, 0.5])
    plane = local[..., :2]
    if not camera.orthographic:
        plane = plane / jnp.where(jnp.abs(depth) < 1e-6, 1e-6, depth)[..., None]
    if not _undistorted(camera):
        plane = jnp.stack(lens.distort(plane[..., 0], plane[..., 1], jnp.asarray(camera.distortion)), -1)
    return centre[..., None, :] + jnp.asarray(camera.focal)[..., None, None] * plane, depth
