"""Pictures by MuJoCo's OpenGL renderer, if EGL or OSMesa is installed: an independent check of our renderer.

It renders rgb, depth and segmentation; not normals, motion and local coordinates. MuJoCo reads MUJOCO_GL when it is first
imported, so `simulate` calls this in separate processes.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo's compiled modules carry no types)

import ctypes
import os

import mujoco
import numpy as np

from data_pipelines.simulation.physics import Trajectory
from data_pipelines.simulation.scene import FIRST_OBJECT, FLOOR, SCREEN, Scene
from wsm_jax.core.physics.mjcf import geom_shape, numbers
from wsm_jax.snapshot import CHANNELS
from wsm_jax.snapshot.camera import DEFAULT_FOV
from wsm_jax.typing import Float

CHANNELS_DRAWN = ("rgb", "depth", "instance", "semantic", "coverage", "base_colour")
PACKAGES = "libegl1 libegl-mesa0 libgl1 (EGL), or libosmesa6 (OSMesa)"
_LIBRARIES = {"egl": ("libEGL.so.1", "libEGL.so"), "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")}


def gl_library() -> str:
    """The value of MUJOCO_GL to render with: the environment's, or the first of egl and osmesa whose library loads.

    Raises ValueError that names the Debian packages if no library loads.
    """
    wanted = os.environ["MUJOCO_GL"].lower() if "MUJOCO_GL" in os.environ else ""
    if wanted and wanted not in _LIBRARIES:
        raise ValueError(f"MUJOCO_GL={wanted!r}: renderer mujoco needs egl or osmesa; unset it to choose automatically")
    for name in [wanted] if wanted else _LIBRARIES:
        for library in _LIBRARIES[name]:
            try:
                ctypes.CDLL(library)
            except OSError:
                continue
            return name
    raise ValueError(
        f"renderer mujoco: no {wanted or 'EGL or OSMesa'} library loads here; install the system packages {PACKAGES}, "
        "as root: apt-get install ..., or use renderer wsm, which needs none"
    )


def render(
    scene: Scene, trajectory: Trajectory, frame_time: Float[np.ndarray, " T"], height: int, width: int
) -> dict[str, np.ndarray]:
    """The channels CHANNELS_DRAWN [T H W C] of a scene, physical units. Raises ValueError if OpenGL does not start."""
    model = mujoco.MjModel.from_xml_string(_xml(scene, height, width))
    data = mujoco.MjData(model)
    try:
        renderer = mujoco.Renderer(model, height, width)
    except Exception as error:  # PyOpenGL and MuJoCo raise different exceptions for each missing driver
        raise ValueError(f"renderer mujoco: OpenGL does not start ({error}); install the system packages {PACKAGES}") from error
    states = trajectory.at(frame_time)
    camera = scene.camera.cameras(frame_time, float(frame_time[-1]))
    rgb, depth, slots = [], [], []
    with renderer:
        for t in range(len(frame_time)):
            for i, slot in enumerate(scene.objects):
                data.mocap_pos[i], data.mocap_quat[i] = states.centre[t, slot], states.rotation[t, slot]
            data.mocap_pos[-1] = camera.position[t]
            # OpenGL cameras look along -z with y up: half a turn about x
            mujoco.mju_mulQuat(data.mocap_quat[-1], np.asarray(camera.rotation[t], np.float64), np.array([0.0, 1.0, 0.0, 0.0]))
            mujoco.mj_forward(model, data)
            renderer.update_scene(data, camera="camera")
            rgb.append(renderer.render())
            renderer.enable_depth_rendering()
            depth.append(renderer.render())
            renderer.disable_depth_rendering()
            renderer.enable_segmentation_rendering()
            slots.append(_slots(model, renderer.render()))
            renderer.disable_segmentation_rendering()
    return _channels(scene, np.stack(rgb), np.stack(depth), np.stack(slots))


def _slots(model: mujoco.MjModel, segmentation: np.ndarray) -> np.ndarray:
    """Slot + 1 of every pixel [H W], 0 for none, from (geom id, object type)."""
    table = np.array([int(model.geom(i).name.removeprefix("slot")) + 1 for i in range(model.ngeom)])
    geom = segmentation[..., 0]
    hit = (segmentation[..., 1] == mujoco.mjtObj.mjOBJ_GEOM) & (geom >= 0)
    return np.where(hit, table[np.maximum(geom, 0)], 0)


def _channels(scene: Scene, rgb: np.ndarray, depth: np.ndarray, slots: np.ndarray) -> dict[str, np.ndarray]:
    """Physical channels from [T H W 3] bytes, [T H W] metres and [T H W] slots + 1."""
    seen = slots > 0
    colour = np.concatenate([np.zeros((1, 3), np.float32), np.asarray(scene.waves.colour)])
    semantic = np.concatenate([[0], np.asarray(scene.waves.semantic)])
    found = {
        "rgb": rgb.astype(np.float32) / 255.0,
        "depth": np.where(seen, depth, 0.0)[..., None].astype(np.float32),
        "instance": slots[..., None].astype(np.float32),
        "semantic": semantic[slots][..., None].astype(np.float32),
        "coverage": seen[..., None].astype(np.float32),
        "base_colour": colour[slots].astype(np.float32),
    }
    return {name: found[name] for name in CHANNELS if name in found}


def _xml(scene: Scene, height: int, width: int) -> str:
    """A model without dynamics: the objects and the camera are mocap bodies."""
    waves, style = scene.waves, scene.style
    assets, bodies = [], []
    for slot in scene.objects:
        asset, shape = geom_shape(f"mesh{slot}", waves.scale[slot], waves.exponents[slot])
        assets.append(asset)
        look = f'rgba="{numbers(waves.colour[slot])} 1"'
        bodies.append(f'<body mocap="true"><geom name="slot{slot}" {shape} {look} contype="0" conaffinity="0"/></body>')
    scenery = [
        f'<geom name="slot{slot}" type="box" size="{numbers(waves.scale[slot])}" pos="{numbers(waves.centre[slot])}" '
        f'quat="{numbers(waves.rotation[slot])}" rgba="{numbers(waves.colour[slot])} 1" contype="0" conaffinity="0"/>'
        for slot in (FLOOR, SCREEN)
        if waves.presence[slot] > 0.5 and slot < FIRST_OBJECT
    ]
    sky = f'rgb1="{numbers(style.sky[0])}" rgb2="{numbers(style.sky[1])}"'
    ambient = float(style.ambient)
    light = numbers((1 - ambient) * np.clip(style.light_colour, 0, 1))
    visual = (
        f'<global offwidth="{width}" offheight="{height}"/><quality shadowsize="2048"/><map znear="0.02" zfar="8"/>'
        f'<headlight active="1" ambient="{ambient} {ambient} {ambient}" diffuse="0 0 0" specular="0 0 0"/>'
    )
    skybox = f'<texture type="skybox" builtin="gradient" width="64" height="64" {sky}/>'
    lamp = (
        f'<light type="directional" castshadow="true" diffuse="{light}" specular="0 0 0" '
        f'pos="{numbers(4 * np.asarray(style.light))}" dir="{numbers(-np.asarray(style.light))}"/>'
    )
    eye = f'<body mocap="true"><camera name="camera" fovy="{np.rad2deg(DEFAULT_FOV):.6g}"/></body>'
    return (
        f'<mujoco><visual>{visual}</visual><statistic extent="3.6" center="0 0 0.4"/>'
        f"<asset>{skybox}{''.join(assets)}</asset>"
        f"<worldbody>{lamp}{''.join(scenery)}{''.join(bodies)}{eye}</worldbody></mujoco>"
    )
