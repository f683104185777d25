"""Rigid-body dynamics of a scene by MuJoCo, on the surfaces of the core.

Every object has the geom of core/physics/mjcf.py: a ball and an ellipsoid exactly, else a convex mesh with its vertices on the
superquadric's surface. The floor is the plane z = 0 and the screen a box. A bounce follows equation (1) of that file.
"""

# pyright: reportAttributeAccessIssue=false
# (MuJoCo's compiled modules carry no types)

import dataclasses

import mujoco
import numpy as np
from mujoco import rollout

from data_pipelines.simulation.scene import SCREEN, Scene
from wsm_jax.core.physics.mjcf import CONTACT_OMEGA, damping_ratio, geom_shape, numbers
from wsm_jax.core.rotation import matrix64
from wsm_jax.snapshot import FIELDS, Waves
from wsm_jax.typing import Bool, Float

STEP_HZ = 480
"""Physics steps per second; a multiple of 8, 24, 30 and 60, so ticks and frames fall on steps."""


@dataclasses.dataclass(frozen=True)
class Trajectory:
    """The states at every physics step; one column for each slot, world frame, SI units."""

    time: Float[np.ndarray, " S"]
    centre: Float[np.ndarray, "S N 3"]
    rotation: Float[np.ndarray, "S N 4"]
    velocity: Float[np.ndarray, "S N 3"]
    angular_velocity: Float[np.ndarray, "S N 3"]
    touching: Bool[np.ndarray, "S N N"]
    """True where two slots touch (symmetric)."""
    waves: Waves
    """The state at time 0; the source of the fields that do not change."""

    def at(self, time: Float[np.ndarray, " K"]) -> Waves:
        """The waves [K N] at the physics steps nearest to `time` (s). Raises ValueError for a time after the last step."""
        if np.max(time) > self.time[-1] + 0.5 / STEP_HZ:
            raise ValueError(f"time {np.max(time):.3f} s asked of a trajectory that ends at {self.time[-1]:.3f} s")
        step = np.rint(np.asarray(time, np.float64) * STEP_HZ).astype(np.int64)
        moving = {name: getattr(self, name)[step].astype(np.float32) for name in ("centre", "rotation", "velocity")}
        moving["angular_velocity"] = self.angular_velocity[step].astype(np.float32)
        fixed = {
            name: np.broadcast_to(getattr(self.waves, name), (len(step), *getattr(self.waves, name).shape)).copy()
            for name in FIELDS
            if name not in moving
        }
        return Waves(**fixed, **moving)


def simulate_physics(scene: Scene, seconds: float) -> Trajectory:
    """Simulate the scene from its state at time 0 for `seconds`; the trajectory includes both ends.

    Raises ValueError when objects start inside one another by more than 5 mm.
    """
    slots, count = scene.objects, scene.waves.count
    pairs = _pairs(scene)
    model = mujoco.MjModel.from_xml_string(_xml(scene, pairs))
    data = mujoco.MjData(model)
    start = scene.waves
    for i, slot in enumerate(slots):
        matrix = matrix64(start.rotation[slot])
        data.qpos[7 * i : 7 * i + 7] = [*start.centre[slot], *start.rotation[slot]]
        data.qvel[6 * i : 6 * i + 6] = [*start.velocity[slot], *(matrix.T @ start.angular_velocity[slot])]
    mujoco.mj_forward(model, data)
    if data.ncon and data.contact.dist.min() < -5e-3:
        raise ValueError(f"the scene starts with objects {-1e3 * data.contact.dist.min():.0f} mm inside one another")
    steps = round(seconds * STEP_HZ)
    initial = np.zeros(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS))
    mujoco.mj_getState(model, data, initial, mujoco.mjtState.mjSTATE_FULLPHYSICS)
    states, sensors = np.zeros((1, steps, len(initial))), np.zeros((1, steps, model.nsensordata))
    rollout.rollout(model, data, initial[None], nstep=steps, state=states, sensordata=sensors)
    states = np.concatenate([initial[None], states[0]])
    found = np.concatenate([sensors[0, :1], sensors[0]]) > 0
    touching = np.zeros((steps + 1, count, count), np.bool_)
    for column, (a, b) in enumerate(pairs):
        touching[:, a, b] = touching[:, b, a] = found[:, column]
    return _trajectory(scene, model, states, touching)


def _trajectory(scene: Scene, model: mujoco.MjModel, states: np.ndarray, touching: np.ndarray) -> Trajectory:
    """MuJoCo's state vectors [S (time, qpos, qvel)] by slot; angular velocities are rotated to the world frame."""
    slots, steps = list(scene.objects), len(states)
    fields = {
        name: np.repeat(np.asarray(getattr(scene.waves, name), np.float64)[None], steps, 0)
        for name in ("centre", "rotation", "velocity", "angular_velocity")
    }
    poses = states[:, 1 : 1 + model.nq].reshape(steps, -1, 7)
    rates = states[:, 1 + model.nq : 1 + model.nq + model.nv].reshape(steps, -1, 6)
    fields["centre"][:, slots] = poses[..., :3]
    fields["rotation"][:, slots] = poses[..., 3:]
    fields["velocity"][:, slots] = rates[..., :3]
    fields["angular_velocity"][:, slots] = np.einsum("snij,snj->sni", matrix64(poses[..., 3:]), rates[..., 3:])
    return Trajectory(np.arange(steps) / STEP_HZ, touching=touching, waves=scene.waves, **fields)


def _pairs(scene: Scene) -> list[tuple[int, int]]:
    """Pairs of slots with a contact sensor, in the order of the sensors."""
    scenery = [0, SCREEN] if scene.has_screen else [0]
    return [(a, b) for b in scene.objects for a in (*scenery, *scene.objects) if a < b]


def _xml(scene: Scene, pairs: list[tuple[int, int]]) -> str:
    """The MJCF model. Contact parameters are those of the objects: solmix of the scenery is near 0, and its friction is 0."""
    waves, assets, bodies = scene.waves, [], []
    for slot in scene.objects:
        asset, shape = geom_shape(f"mesh{slot}", waves.scale[slot], waves.exponents[slot])
        assets.append(asset)
        zeta = damping_ratio(float(scene.restitution[slot]))
        rolling = float(scene.rolling[slot])
        bodies.append(
            f'<body><freejoint/><geom name="slot{slot}" {shape} mass="{scene.mass[slot]:.6g}" condim="{6 if rolling else 4}" '
            f'friction="{scene.friction[slot]:.6g} {max(rolling, 0.005):.6g} {rolling:.6g}" '
            f'solref="{1 / (zeta * CONTACT_OMEGA):.6g} {zeta:.6g}"/></body>'
        )
    scenery = 'solmix="1e-9" friction="0 0 0" condim="1"'
    floor = f'<geom name="slot0" type="plane" size="6 6 1" {scenery}/>'
    if scene.has_screen:
        floor += (
            f'<geom name="slot{SCREEN}" type="box" size="{numbers(waves.scale[SCREEN])}" '
            f'pos="{numbers(waves.centre[SCREEN])}" quat="{numbers(waves.rotation[SCREEN])}" {scenery}/>'
        )
    sensors = "".join(f'<contact geom1="slot{a}" geom2="slot{b}" data="found" num="1"/>' for a, b in pairs)
    return (
        f'<mujoco><option timestep="{1 / STEP_HZ:.10g}" cone="elliptic" integrator="implicitfast"/>'
        f'<default><geom solimp=".95 .99 .001"/></default><asset>{"".join(assets)}</asset>'
        f"<worldbody>{floor}{''.join(bodies)}</worldbody><sensor>{sensors}</sensor></mujoco>"
    )
