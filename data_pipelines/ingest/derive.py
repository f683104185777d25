"""Channels derived from depth, camera and time: normals, and the optical flow caused by camera motion alone.

Depth [T H W] is along the optical axis, m, 0 where not measured; pixels are square; cameras are [T]. Functions work frame by
frame, so their peak memory is about that of the result.
"""

import math

import numpy as np
from scipy.spatial.transform import Rotation

from wsm_jax.snapshot import Camera, lens
from wsm_jax.snapshot.camera import pixel_plane
from wsm_jax.typing import Bool, Float

JUMP = 0.05
"""Second difference of inverse depth over three neighbouring pixels, relative to it, above which depth jumps."""


def normals(depth: Float[np.ndarray, "T H W"], camera: Camera) -> Float[np.ndarray, "T H W 3"]:
    """Unit normals of visible surfaces in the camera frame, towards the camera, from the points of neighbouring pixels.

    This is the channel "normal": exact on planes at any slant, second order in the pixel size elsewhere, first order in the
    rows and columns at the border. 0 where a pixel or a direct neighbour has no depth, and where depth jumps: the second
    difference of inverse depth, which is linear over the picture of a plane, exceeds JUMP. A lower edge counts as a slope.
    Noise is not smoothed.

    Raises ValueError for fewer than 3 x 3 pixels, and for another number of cameras than of frames.
    """
    frames, height, width = depth.shape
    camera = _checked(depth, camera)
    if min(height, width) < 3:
        raise ValueError(f"normals: depth of {height} x {width} pixels; needed 3 x 3 or more")
    result = np.zeros((frames, height, width, 3), np.float32)
    for t in range(frames):
        z, seen = _measured(depth[t])
        point = _points(z, camera[t])
        linear = z if camera.orthographic else 1 / z
        smooth = seen & _smooth(seen, linear, 0) & _smooth(seen, linear, 1)
        normal = np.cross(np.gradient(point, axis=0), np.gradient(point, axis=1))  # down x right is towards the camera
        length = np.linalg.norm(normal, axis=-1)
        smooth &= length > 0
        result[t][smooth] = normal[smooth] / length[smooth][:, None]
    return result


def motion(
    depth: Float[np.ndarray, "T H W"], camera: Camera, frame_time: Float[np.ndarray, " T"]
) -> Float[np.ndarray, "T H W 2"]:
    """Optical flow of a static world under the camera's motion, image heights per second (right, down).

    Objects that move by themselves are treated as static. Like the channel "motion", a forward difference: the position of the
    point in the next frame minus that in this frame, over the time between; the last frame has the backward difference. 0
    without depth, and where the camera passes the point.

    Raises ValueError for one frame, times that do not increase, and another number of cameras than of frames.
    """
    frames, height, width = depth.shape
    camera = _checked(depth, camera)
    if frames < 2 or not (np.diff(frame_time) > 0).all() or not np.isfinite(frame_time).all():
        raise ValueError(f"motion: {frames} frames at times {frame_time}; needed 2 or more at finite times that increase")
    result = np.zeros((frames, height, width, 2), np.float32)
    for t in range(frames):
        other = t + 1 if t + 1 < frames else t - 1
        z, seen = _measured(depth[t])
        here, there = camera[t], camera[other]
        point = _points(z, here)
        world = point @ _rotation_matrix(here).T + here.position
        beyond = (world - there.position) @ _rotation_matrix(there)
        seen = seen & (beyond[..., 2] > (-math.inf if camera.orthographic else 1e-6))
        beyond[..., 2] = np.where(seen, beyond[..., 2], 1.0)
        shift = (_canvas(beyond, there) - _canvas(point, here)) / (frame_time[other] - frame_time[t])
        result[t] = np.where(seen[..., None], shift, 0.0)
    return result


def _checked(depth: Float[np.ndarray, "T H W"], camera: Camera) -> Camera:
    """Cameras in float64; in float32 differences of positions would be noise at short intervals. Raises ValueError."""
    if np.shape(camera.focal) != (len(depth),):
        raise ValueError(f"derive: cameras of shape {np.shape(camera.focal)} for {len(depth)} depth maps; needed one each")
    position, rotation = np.asarray(camera.position, np.float64), np.asarray(camera.rotation, np.float64)
    focal, offset = np.asarray(camera.focal, np.float64), np.asarray(camera.offset, np.float64)
    bent = None if camera.distortion is None else np.asarray(camera.distortion, np.float64)
    return Camera(position, rotation, focal, offset, bent, camera.orthographic)


def _measured(depth: Float[np.ndarray, "H W"]) -> tuple[Float[np.ndarray, "H W"], Bool[np.ndarray, "H W"]]:
    """Depth in float64, with 1 where there is none, and the mask of measured pixels."""
    seen = (depth > 0) & (depth < math.inf)
    return np.where(seen, depth, 1.0).astype(np.float64), seen


def _points(z: Float[np.ndarray, "H W"], camera: Camera) -> Float[np.ndarray, "H W 3"]:
    """Points of the pixels in the camera frame."""
    x, y = pixel_plane(camera, *z.shape)
    return np.stack([x, y, z] if camera.orthographic else [x * z, y * z, z], -1)


def _canvas(point: Float[np.ndarray, "H W 3"], camera: Camera) -> Float[np.ndarray, "H W 2"]:
    """Canvas coordinates, from the centre of the picture, of points in the camera frame; `snapshot.project` in float64."""
    plane = point[..., :2] if camera.orthographic else point[..., :2] / point[..., 2:]
    if camera.distortion is not None:
        plane = np.stack(lens.distort(plane[..., 0], plane[..., 1], camera.distortion), -1)
    return np.asarray(camera.offset + camera.focal * plane)


def _rotation_matrix(camera: Camera) -> Float[np.ndarray, "3 3"]:
    return Rotation.from_quat(camera.rotation, scalar_first=True).as_matrix()


def _smooth(seen: Bool[np.ndarray, "H W"], linear: Float[np.ndarray, "H W"], axis: int) -> Bool[np.ndarray, "H W"]:
    """True where a pixel and its neighbours along an axis have depth of one surface; the border copies the pixel inside."""
    seen, linear = np.moveaxis(seen, axis, 0), np.moveaxis(linear, axis, 0)
    bend = np.abs(linear[:-2] - 2 * linear[1:-1] + linear[2:])
    inside = seen[:-2] & seen[1:-1] & seen[2:] & (bend <= JUMP * linear[1:-1])
    whole = np.pad(inside, ((1, 1), (0, 0)), mode="edge")
    # a pixel halfway up an edge lies on a straight line with its neighbours, which both see the jump
    whole[1:-1] &= whole[:-2] | whole[2:]
    return np.moveaxis(whole, 0, axis)
