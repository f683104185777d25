"""The dynamics against closed forms (free fall, restitution, friction, rolling, momentum), the meshes against the surface."""

import dataclasses

import numpy as np
import pytest
from scipy.spatial import ConvexHull

from data_pipelines.simulation.physics import STEP_HZ, simulate_physics
from data_pipelines.simulation.scene import SLOTS, Scene, draw
from wsm_jax.core import superquadric
from wsm_jax.core.mesh import surface_points
from wsm_jax.core.physics.mjcf import damping_ratio
from wsm_jax.core.rotation import matrix64
from wsm_jax.snapshot import SEMANTIC_CLASSES, quaternion_to_matrix
from wsm_jax.snapshot.waves import empty

G = 9.81


def stage(*objects: dict, **columns) -> Scene:
    """A scene with the given wave fields in slots 2, 3, ...; columns are material constants for all of them."""
    waves = empty(SLOTS)
    waves.presence[0], waves.semantic[0] = 1.0, SEMANTIC_CLASSES.index("floor")
    waves.scale[0], waves.centre[0], waves.exponents[0] = (6, 6, 0.25), (0, 0, -0.25), 0.1
    for slot, fields in enumerate(objects, 2):
        waves.presence[slot], waves.instance[slot] = 1.0, slot + 1
        for name, value in fields.items():
            getattr(waves, name)[slot] = value
    constants = {"mass": 20.0, "friction": 0.3, "rolling": 0.0, "restitution": 0.3} | columns
    arrays = {name: np.where(waves.instance > 0, np.float32(value), np.float32(0)) for name, value in constants.items()}
    return dataclasses.replace(draw(np.random.default_rng(0)), waves=waves, **arrays)


BOX = {"scale": (0.3, 0.3, 0.25), "exponents": (0.15, 0.15), "centre": (0, 0, 0.2505)}


def test_free_fall_is_the_discrete_parabola():
    fall = simulate_physics(stage({"centre": (0.1, 0.2, 1.5), "scale": 0.3}), 0.4)
    n = np.arange(len(fall.time))
    assert np.allclose(fall.centre[:, 2, 2], 1.5 - G * n * (n + 1) / 2 / STEP_HZ**2, atol=1e-6)
    assert np.allclose(fall.velocity[:, 2, 2], -G * fall.time, atol=1e-6)


@pytest.mark.parametrize("restitution", [0.3, 0.5, 0.8])
def test_restitution_is_what_was_asked(restitution):
    fall = simulate_physics(stage({"centre": (0, 0, 1.3), "scale": 0.3}, restitution=restitution), 0.7)
    speed = fall.velocity[:, 2, 2]
    assert speed.max() / -speed.min() == pytest.approx(restitution, rel=0.08)
    assert fall.centre[:, 2, 2].min() > 0.3 - 0.03, "the contact is stiff"


def test_damping_ratio_inverts_its_equation():
    for e in (0.2, 0.5, 0.9):
        zeta = damping_ratio(e)
        assert np.exp(-(np.pi - 2 * np.arcsin(zeta)) * zeta / np.sqrt(1 - zeta**2)) == pytest.approx(e, rel=1e-6)


def test_sliding_distance_is_v_squared_over_2_mu_g():
    slide = simulate_physics(stage(BOX | {"velocity": (1.8, 0, 0)}, friction=0.3), 1.5)
    assert slide.centre[-1, 2, 0] == pytest.approx(1.8**2 / (2 * 0.3 * G), rel=0.05)
    assert np.abs(slide.velocity[-1, 2]).max() < 1e-2
    assert slide.centre[-1, 2, 2] == pytest.approx(0.25, abs=5e-3)


def test_a_ball_rolls_without_slipping_and_loses_speed_to_rolling_friction():
    r, c = 0.3, 0.01
    ball = {"scale": r, "centre": (0, 0, r), "velocity": (1, 0, 0), "angular_velocity": (0, 1 / r, 0)}
    roll = simulate_physics(stage(ball, rolling=c), 1.0)
    assert np.allclose(roll.angular_velocity[50:, 2, 1] * r, roll.velocity[50:, 2, 0], rtol=0.02)
    # torque c N about a ball of inertia 2/5 m r^2 that rolls: a = -5/7 g c / r
    assert 1 - roll.velocity[-1, 2, 0] == pytest.approx(5 / 7 * G * c / r, rel=0.1)
    assert simulate_physics(stage(ball), 0.5).velocity[-1, 2, 0] > 0.98


def test_horizontal_momentum_survives_a_collision_in_the_air():
    left = {"scale": (0.3, 0.25, 0.2), "exponents": (0.2, 0.2), "centre": (-0.5, 0, 1.5), "velocity": (2, 0, 1)}
    right = {"scale": 0.3, "centre": (0.4, 0.1, 1.5), "velocity": (-1, 0, 1), "angular_velocity": (3, 2, 1)}
    clash = simulate_physics(stage(left, right, mass=np.array([0, 0, 10, 25, 0, 0])), 0.4)
    assert clash.touching[:, 2, 3].any() and np.array_equal(clash.touching, clash.touching.transpose(0, 2, 1))
    momentum = 10 * clash.velocity[:, 2, :2] + 25 * clash.velocity[:, 3, :2]
    assert np.allclose(momentum, momentum[0], atol=1e-3)
    assert clash.velocity[-1, 2, 0] < 1.0, "they did collide"


def test_angular_velocity_is_in_the_world_frame():
    """A spinning box in free fall turns by the rotation vector that its angular velocity says."""
    turned = {"rotation": (0.8, 0.0, 0.6, 0.0), "centre": (0, 0, 1.6), "angular_velocity": (0, 0, 3.0)}
    spin = simulate_physics(stage({"scale": 0.3, "exponents": 1.0} | turned), 0.1)
    a, b = (matrix64(spin.rotation[i, 2]) for i in (0, -1))
    angle = 3.0 * spin.time[-1]
    about_z = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    assert np.allclose(b, about_z @ a, atol=1e-3)
    assert np.allclose(spin.angular_velocity[:, 2], [0, 0, 3.0], atol=1e-4)
    assert np.allclose(matrix64(spin.rotation[:2, 2]), quaternion_to_matrix(spin.rotation[:2, 2]), atol=1e-5)


@pytest.mark.parametrize("exponents", [(1.0, 1.0), (0.1, 0.1), (0.25, 0.25), (0.15, 1.0), (0.7, 0.7)])
def test_meshes_lie_on_the_surface_and_fill_the_body(exponents):
    scale = np.array([0.5, 0.3, 0.2], np.float32)
    points = surface_points(scale, np.array(exponents, np.float32))
    assert np.allclose(superquadric.gauge(points.astype(np.float32), scale, np.float32(exponents)), 1.0, atol=1e-4)
    volume = float(superquadric.volume(scale, np.array(exponents, np.float32)))
    assert 0.96 * volume < ConvexHull(points).volume < 1.001 * volume


def test_objects_inside_one_another_are_refused():
    with pytest.raises(ValueError, match="mm inside one another"):
        simulate_physics(stage(BOX, BOX | {"centre": (0.3, 0, 0.2505)}), 0.1)


def test_states_are_read_at_their_times_and_not_beyond():
    fall = simulate_physics(stage({"centre": (0, 0, 1.5), "scale": 0.3}), 0.25)
    assert np.allclose(fall.at(np.array([0.0, 0.125])).centre[:, 2], fall.centre[[0, 60], 2])
    with pytest.raises(ValueError, match="ends at"):
        fall.at(np.array([0.3]))
