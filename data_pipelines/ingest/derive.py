"""Channels that follow from depth, camera and time: normals, and the motion of the picture by the motion of the camera alone.

Depth is along the optical axis, m, [T H W], 0 where it was not measured, of pictures with square pixels; cameras are [T].
Every function takes frame after frame, so that memory is that of what it returns.
"""

import math

import numpy as np
from scipy.spatial.transform import Rotation

from wsm_jax.snapshot import Camera, lens
from wsm_jax.snapshot.camera import pixel_plane
from wsm_jax.typing import Float

JUMP = 0.05
"""Bend of inverse depth over three neighbouring pixels, as a share of the inverse depth itself, beyond which it jumps."""


def normals(depth: Float[np.ndarray, "T H W"], camera: Camera) -> Float[np.ndarray, "T H W 3"]:
    """Unit normals of what is seen, in the frame of the camera, towards it; from the points of the neighbouring pixels.

    That is the channel "normal": exact on planes at any slant, of second order in the size of a pixel elsewhere, of first
    order in the rows and columns at the border. 0 where a pixel or one beside it, above or below has no depth, and where depth
    jumps: where inverse depth, which is linear over the picture of a plane, bends by more than JUMP of itself. An edge lower
    than that counts as a slope. Noise of the depth is not smoothed away.

    Raises ValueError for fewer than 3 x 3 pixels, and cameras of another number.
    """
    frames, height, width = depth.shape
    camera = _checked(depth, camera)
    if min(height, width) < 3:
        raise ValueError(f"normals: depth of {height} x {width} pixels; needed 3 x 3 or more")
    found = np.zeros((frames, height, width, 3), np.float32)
    for t in range(frames):
        z, seen = _measured(depth[t])
        point = _points(z, camera[t])
        linear = z if camera.orthographic else 1 / z
        smooth = seen & _smooth(seen, linear, 0) & _smooth(seen, linear, 1)
        normal = np.cross(np.gradient(point, axis=0), np.gradient(point, axis=1))  # down x right is towards the camera
        length = np.linalg.norm(normal, axis=-1)
        smooth &= length > 0
        found[t][smooth] = normal[smooth] / length[smooth][:, None]
    return found


def motion(
    depth: Float[np.ndarray, "T H W"], camera: Camera, frame_time: Float[np.ndarray, " T"]
) -> Float[np.ndarray, "T H W 2"]:
    """Motion over the canvas, image heights per second (right, down), of the points of a world at rest as the camera moves.

    Things that move by themselves are not seen: there it is what the place would do if it stood still. Like the channel
    "motion", the forward difference: where the point is seen at the next frame, less where it is seen now, over the time in
    between. The last frame has the backward difference. 0 where there is no depth, and where the camera passes the point.

    Raises ValueError for one frame, times that do not increase, and cameras of another number.
    """
    frames, height, width = depth.shape
    camera = _checked(depth, camera)
    if frames < 2 or not (np.diff(frame_time) > 0).all() or not np.isfinite(frame_time).all():
        raise ValueError(f"motion: {frames} frames at times {frame_time}; needed 2 or more at finite times that increase")
    found = np.zeros((frames, height, width, 2), np.float32)
    for t in range(frames):
        other = t + 1 if t + 1 < frames else t - 1
        z, seen = _measured(depth[t])
        here, there = camera[t], camera[other]
        point = _points(z, here)
        world = point @ _turn(here).T + here.position
        beyond = (world - there.position) @ _turn(there)
        seen = seen & (beyond[..., 2] > (-math.inf if camera.orthographic else 1e-6))
        beyond[..., 2] = np.where(seen, beyond[..., 2], 1.0)
        shift = (_canvas(beyond, there) - _canvas(point, here)) / (frame_time[other] - frame_time[t])
        found[t] = np.where(seen[..., None], shift, 0.0)
    return found


def _checked(depth: np.ndarray, camera: Camera) -> Camera:
    """The cameras in float64: differences of places in float32 would be noise at short intervals."""
    if np.shape(camera.focal) != (len(depth),):
        raise ValueError(f"derive: cameras of shape {np.shape(camera.focal)} for {len(depth)} depth maps; needed one each")
    position, rotation = np.asarray(camera.position, np.float64), np.asarray(camera.rotation, np.float64)
    focal, offset = np.asarray(camera.focal, np.float64), np.asarray(camera.offset, np.float64)
    bent = None if camera.distortion is None else np.asarray(camera.distortion, np.float64)
    return Camera(position, rotation, focal, offset, bent, camera.orthographic)


def _measured(depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth in float64, 1 where there is none, and where there is some."""
    seen = (depth > 0) & (depth < math.inf)
    return np.where(seen, depth, 1.0).astype(np.float64), seen


def _points(z: np.ndarray, camera: Camera) -> np.ndarray:
    """What is seen, in the frame of the camera, [H W 3]."""
    x, y = pixel_plane(camera, *z.shape)
    return np.stack([x, y, z] if camera.orthographic else [x * z, y * z, z], -1)


def _canvas(point: np.ndarray, camera: Camera) -> np.ndarray:
    """Canvas coordinates of points of the camera frame, from the middle of the picture; `snapshot.project` in float64."""
    plane = point[..., :2] if camera.orthographic else point[..., :2] / point[..., 2:]
    if camera.distortion is not None:
        plane = np.stack(lens.distort(plane[..., 0], plane[..., 1], camera.distortion), -1)
    return np.asarray(camera.offset + camera.focal * plane)


def _turn(camera: Camera) -> np.ndarray:
    return Rotation.from_quat(camera.rotation, scalar_first=True).as_matrix()


def _smooth(seen: np.ndarray, linear: np.ndarray, axis: int) -> np.ndarray:
    """Where a pixel and its neighbours along an axis have depth of one surface; at the border, those of the pixel inside."""
    seen, linear = np.moveaxis(seen, axis, 0), np.moveaxis(linear, axis, 0)
    bend = np.abs(linear[:-2] - 2 * linear[1:-1] + linear[2:])
    inside = seen[:-2] & seen[1:-1] & seen[2:] & (bend <= JUMP * linear[1:-1])
    whole = np.pad(inside, ((1, 1), (0, 0)), mode="edge")
    # a pixel halfway up an edge lies on a straight line with its neighbours, which both see the jump
    whole[1:-1] &= whole[:-2] | whole[2:]
    return np.moveaxis(whole, 0, axis)
