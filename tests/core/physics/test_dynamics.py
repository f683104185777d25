"""Rigid dynamics against closed forms and conservation laws, and MuJoCo on the same worlds."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp

from launch.bench.physics import bounce, cases
from tests.core.physics.worlds import G, ball, box, thing, world
from wsm_jax.core.geometry import Geometry, inertia
from wsm_jax.core.physics import mjcf
from wsm_jax.core.physics.dynamics import rollout, step
from wsm_jax.core.physics.matter import Joints, join, joint, matter, side_by_side
from wsm_jax.snapshot.waves import stack

TICK = 0.125


def run(waves, properties, joints=None, ticks=8, gravity=(0.0, 0.0, -G), tick_s=TICK):
    """The waves at every tick, by one program: always 4 slots and 3 joints, those of the last slot with itself for none."""
    given = 0 if joints is None else len(joints.a)
    idle = Joints(
        *(np.full(3 - given, 3, np.int32) for _ in range(2)),
        np.zeros((3 - given, 6), np.float32),
        *(np.zeros((3 - given, 3), np.float32) for _ in range(2)),
        *(np.tile(np.float32([1, 0, 0, 0]), (3 - given, 1)) for _ in range(2)),
    )
    joints = idle if joints is None else join(joints, idle)
    core = [waves]
    for _ in range(ticks):
        core.append(step(core[-1], properties, joints, gravity=gravity, tick_s=tick_s))
    return stack(core)


def momenta(core, properties):
    """Momentum, angular momentum about the origin, and kinetic energy of the free waves at every tick, float64."""
    free = (core.presence[0] > 0.5) & ~properties.held
    m = np.asarray(properties.mass, np.float64)[free]
    x, v, w = (np.asarray(a, np.float64)[:, free] for a in (core.centre, core.velocity, core.angular_velocity))
    tensors = np.stack([np.asarray(inertia(Geometry.of(core[k]), properties.mass), np.float64)[free] for k in range(len(x))])
    spin = np.einsum("knij,knj->kni", tensors, w)
    linear = m[:, None] * v
    energy = 0.5 * np.sum(linear * v, (1, 2)) + 0.5 * np.sum(spin * w, (1, 2))
    return linear.sum(1), (np.cross(x, linear) + spin).sum(1), energy


def test_flight_is_a_parabola_and_keeps_angular_momentum_and_energy():
    waves = world(thing(centre=(0, 0, 20), scale=(0.1, 0.2, 0.35), velocity=(1, 0, 3), angular_velocity=(3, 5, 0.2)))
    properties = matter(waves)
    core = run(waves, properties)
    t = np.arange(9) * TICK
    wanted = np.stack([t, 0 * t, 20 + 3 * t - 0.5 * G * t * t], -1)
    np.testing.assert_allclose(core.centre[:, 1], wanted, atol=1e-4)
    linear, angular, _ = momenta(core, properties)
    own = angular - np.cross(core.centre[:, 1], linear)
    np.testing.assert_allclose(own, np.broadcast_to(own[0], own.shape), atol=2e-4 * np.linalg.norm(own[0]))
    spin = core.angular_velocity[:, 1]
    tensors = np.stack([np.asarray(inertia(Geometry.of(core[k]), properties.mass))[1] for k in range(9)])
    energy = np.einsum("ki,kij,kj->k", spin, tensors, spin)
    np.testing.assert_allclose(energy, energy[0], rtol=2e-3)
    assert np.abs(spin - spin[0]).max() > 1, "an asymmetric body's angular velocity is not constant"


def test_a_ball_bounces_as_restitution_says():
    waves = world(ball((0, 0, 1.2)))
    core = run(waves, matter(waves, restitution=0.7), ticks=16)

    wanted = [0.2 + bounce(k * TICK) for k in range(17)]
    np.testing.assert_allclose(core.centre[:, 1, 2], wanted, atol=5e-5)
    np.testing.assert_allclose(core.centre[:, 1, :2], 0.0, atol=2e-4)


def test_a_box_slides_to_rest_by_coulomb_s_law():
    waves = world(box((0, 0, 0.1), (0.2, 0.2, 0.1), velocity=(2, 0, 0)))
    core = run(waves, matter(waves, friction=0.4, restitution=0.0))
    np.testing.assert_allclose(core.centre[-1, 1], [4 / (2 * 0.4 * G), 0, 0.1], atol=1e-3)
    assert np.abs(core.velocity[-1, 1]).max() < 1e-6
    t = np.arange(5) * TICK
    np.testing.assert_allclose(core.velocity[:5, 1, 0], np.maximum(2 - 0.4 * G * t, 0), atol=0.01)


def test_a_sliding_ball_ends_rolling_at_five_sevenths_of_its_speed():
    waves = world(ball((0, 0, 0.2), velocity=(1, 0, 0)))
    core = run(waves, matter(waves, friction=0.4, restitution=0.0), ticks=16)
    np.testing.assert_allclose(core.velocity[-1, 1], [5 / 7, 0, 0], atol=3e-3)
    np.testing.assert_allclose(core.angular_velocity[-1, 1], [0, 5 / 7 / 0.2, 0], atol=0.02)
    slow = run(waves, matter(waves, friction=0.4, restitution=0.0, rolling=0.01), ticks=16)
    # rolling friction of arm d takes (5/7) g d/r off the speed every second
    pace = (slow.velocity[8, 1, 0] - slow.velocity[16, 1, 0]) / 1.0
    np.testing.assert_allclose(pace, 5 / 7 * G * 0.01 / 0.2, rtol=0.03)


def test_three_boxes_stay_stacked():
    waves = world(*(box((0.05 * (k == 1), 0.04 * (k == 2), 0.2 + 0.4 * k), (0.2, 0.2, 0.2)) for k in range(3)))
    core = run(waves, matter(waves, restitution=0.2), ticks=32)
    np.testing.assert_allclose(core.centre[-1, 1:], waves.centre[1:], atol=2e-3)


def test_a_box_tips_over_the_edge_only_when_its_centre_is_past_it():
    for offset, falls in ((0.1, False), (0.25, True)):
        stand = box((0, 0, 0.2), (0.2, 0.2, 0.2), velocity=(0, 0, 0))
        waves = world(stand, box((offset, 0, 0.5), (0.2, 0.2, 0.1)))
        core = run(waves, matter(waves, restitution=0.0))
        assert (core.centre[-1, 2, 2] < 0.45) == falls, offset


def test_a_pendulum_keeps_time_and_its_length():
    waves = world(ball((0.6, 0, 2), 0.1), thing(centre=(0, 0, 2), scale=0.02), floor=False)
    waves.instance[2] = 0
    properties = matter(waves)
    core = run(waves, properties, joint(waves, "hinge", 2, 1, (0, 0, 2), (0, 1, 0)), ticks=16)
    about = 0.4 * 0.1**2 + 0.6**2
    exact = solve_ivp(
        lambda t, y: [y[1], -G * 0.6 / about * np.sin(y[0])], (0, 2), [np.pi / 2, 0], "DOP853", np.arange(17) * TICK, rtol=1e-10
    ).y[0]
    wanted = np.stack([0.6 * np.sin(exact), 0 * exact, 2 - 0.6 * np.cos(exact)], -1)
    np.testing.assert_allclose(core.centre[:, 1], wanted, atol=5e-4)
    np.testing.assert_allclose(np.linalg.norm(core.centre[:, 1] - waves.centre[2], axis=1), 0.6, atol=1e-5)


def test_a_collision_conserves_momentum_and_energy_and_restitution_takes_its_share():
    waves = world(ball((-0.5, 0, 0), velocity=(2, 0, 0)), ball((0.3, 0.1, 0), 0.25), floor=False)
    for restitution in (1.0, 0.5):
        properties = matter(waves, restitution=restitution, friction=0.0)
        core = run(waves, properties, gravity=(0.0, 0.0, 0.0))
        linear, angular, energy = momenta(core, properties)
        np.testing.assert_allclose(linear, np.broadcast_to(linear[0], linear.shape), atol=2e-6 * np.abs(linear).max())
        np.testing.assert_allclose(angular, np.broadcast_to(angular[0], angular.shape), atol=1e-5 * np.abs(linear).max())
        assert np.abs(core.velocity[-1, 2]).max() > 0.5, "they met"
        n = np.array([np.sqrt(0.45**2 - 0.1**2), 0.1, 0]) / 0.45
        reduced = 1 / (1 / properties.mass[1] + 1 / properties.mass[2])
        lost = 0.5 * reduced * (1 - restitution**2) * (2 * n[0]) ** 2
        np.testing.assert_allclose(energy[0] - energy[-1], lost, atol=1e-4 * energy[0])


def test_several_waves_of_one_part_move_as_one_and_a_fixed_joint_does_the_same():
    """A dumb-bell thrown: two balls of one instance, and two held together by a joint."""
    one = world(ball((-0.3, 0, 9), 0.1), ball((0.3, 0, 9), 0.15), floor=False)
    one.angular_velocity[1:3] = (0, 0, 4)
    one.velocity[1:3] = np.cross([0, 0, 4], one.centre[1:3] * [1, 1, 0])
    tied = one.replace(instance=np.array(one.instance))
    one.instance[1:3] = 2
    rigid, jointed = run(one, matter(one)), run(tied, matter(tied), joint(tied, "fixed", 1, 2, (0, 0, 9)))
    np.testing.assert_allclose(np.linalg.norm(rigid.centre[:, 2] - rigid.centre[:, 1], axis=1), 0.6, rtol=1e-5)
    np.testing.assert_allclose(jointed.centre[:, 1:3], rigid.centre[:, 1:3], atol=2e-3)


def test_a_slide_keeps_to_its_axis():
    waves = world(ball((0, 0, 1), 0.1, velocity=(0, 1, 0)), thing(centre=(0, 0, 2), scale=0.02), floor=False)
    waves.instance[2] = 0
    core = run(waves, matter(waves), joint(waves, "slide", 2, 1, (0, 0, 1), (0, 1, 1)))
    t = np.arange(9) * TICK
    along = 1 / np.sqrt(2) * t - 0.5 * G / np.sqrt(2) * t**2
    np.testing.assert_allclose(core.centre[:, 1], np.stack([0 * t, along / np.sqrt(2), 1 + along / np.sqrt(2)], -1), atol=2e-3)


def test_light_links_carry_a_heavy_load():
    """A chain lets its load, 27 times a link, swing: energy and lengths stay."""
    waves = world(ball((0.2, 0, 5), 0.05), ball((0.4, 0, 5), 0.05), ball((0.6, 0, 5), 0.15), floor=False)
    waves.presence[0], waves.scale[0], waves.centre[0], waves.instance[0] = 1, 0.05, (0, 0, 5), 0
    properties = matter(waves)
    core = run(waves, properties, join(*(joint(waves, "ball", k, k + 1, (0.2 * k + 0.1, 0, 5)) for k in range(3))), ticks=12)
    _, _, kinetic = momenta(core, properties)
    height = core.centre[:, 1:, 2].astype(np.float64) @ np.asarray(properties.mass, np.float64)[1:]
    assert np.ptp(core.centre[:, 3, 2]) > 0.4, "it swings"
    np.testing.assert_allclose(kinetic + G * height, G * height[0], atol=7e-3 * np.ptp(G * height))
    links = np.linalg.norm(np.diff(core.centre, axis=1), axis=-1)
    assert links.max() < 0.2 + 1e-4


def test_half_the_substep_is_the_same_motion():
    """Second order: the error of a swinging chain falls about fourfold."""
    waves = world(*(box((0.2 + 0.4 * k, 0, 2), (0.19, 0.05, 0.05)) for k in range(3)), floor=False)
    waves.presence[0], waves.scale[0], waves.centre[0] = 1, 0.02, (0, 0, 2)
    chain = join(*(joint(waves, "ball", k, k + 1, (0.4 * k, 0, 2)) for k in range(3)))
    # 40 substeps a tick: ticks of other lengths, one program
    last = {n: run(waves, matter(waves), chain, ticks=n // 10, tick_s=5.0 / n).centre[-1] for n in (10, 20, 80)}
    errors = [np.abs(last[n] - last[80]).max() for n in (10, 20)]
    assert errors[1] < 0.4 * errors[0] and errors[1] < 2e-3, errors


def test_a_rollout_is_step_after_step():
    waves = world(ball((0, 0, 0.5), velocity=(1.0, 0, -1.0)))
    core = rollout(waves, matter(waves), ticks=3)
    np.testing.assert_allclose(core.centre, run(waves, matter(waves), ticks=3).centre, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "apart_m"),
    [("bounce", 0.05), ("slide", 0.01), ("roll", 0.005), ("stack of three", 0.03), ("pendulum", 1e-3), ("collision", 0.05)],
)
def test_mujoco_makes_the_motions_of_the_bench_alike(name, apart_m):
    """Within what MuJoCo's soft contacts leave open, see BENCHMARKS."""
    case = cases()[name]
    joints = () if case.joints is None else (case.joints,)
    ours = run(case.waves, case.matter, *joints, ticks=8, gravity=case.gravity)
    theirs = mjcf.simulate(case.waves, case.matter, *joints, ticks=8, substeps=1000, gravity=case.gravity)
    assert np.abs(ours.centre - case.waves.centre).max() > 0.05 or name == "stack of three"
    np.testing.assert_allclose(ours.centre, theirs.centre, atol=apart_m)


def test_worlds_that_mujoco_cannot_have_are_named():
    waves = world(ball((0.2, 0, 5), 0.05), ball((0.4, 0, 5), 0.05), ball((0.6, 0, 5), 0.05), floor=False)
    ends = [(1, 2), (2, 3), (3, 1)]
    loop = join(*(joint(waves, "ball", a, b, (0.2 * b - 0.1, 0, 5)) for a, b in ends))
    moving = matter(waves).replace(held=np.array([True, True, True, True]))
    fast = waves.replace(velocity=np.ones_like(waves.velocity))
    for call, words in [
        (lambda: mjcf.to_mjcf(waves, matter(waves), loop), "close a loop"),
        (lambda: mjcf.to_mjcf(waves, matter(waves), joint(waves, "fixed", 1, 2, (0.3, 0, 5))), "needed a hinge, ball or slide"),
        (lambda: mjcf.to_mjcf(fast, moving), "held and moves"),
    ]:
        with pytest.raises(ValueError, match=words):
            call()


@pytest.mark.parametrize("name", ["flight", "tumble"])
def test_mujoco_moves_the_same_world_alike(name):
    if name == "flight":
        waves = world(thing(centre=(0, 0, 20), scale=(0.1, 0.2, 0.35), velocity=(1, 0, 3), angular_velocity=(3, 5, 0.2)))
    else:
        waves = world(ball((0, 0, 0.9), velocity=(1, 0.3, 0)), box((0.8, 0, 0.2), (0.2, 0.2, 0.2)))
    properties = matter(waves, restitution=0.3)
    ours, theirs = run(waves, properties, ticks=4), mjcf.simulate(waves, properties, ticks=4, substeps=1000)
    np.testing.assert_allclose(ours.centre, theirs.centre, atol=2e-3 if name == "flight" else 0.02)


@pytest.mark.parametrize("seed", range(6))
def test_nothing_leaves_its_bounds_or_turns_nan(seed):
    """Random piles, some starting inside one another: nothing is thrown out, no energy appears. More: launch.bench physics."""
    rng = np.random.default_rng(seed)
    turn = rng.normal(size=(3, 4))
    shapes = [
        thing(
            centre=(*rng.uniform(-0.3, 0.3, 2), rng.uniform(0.3, 1.2)),
            scale=rng.uniform(0.05, 0.3, 3),
            exponents=rng.uniform(0.1, 1.9, 2),
            rotation=turn[k] / np.linalg.norm(turn[k]),
            velocity=rng.normal(size=3),
            angular_velocity=3 * rng.normal(size=3),
        )
        for k in range(3)
    ]
    pile = world(*shapes)
    core = run(pile, matter(pile, friction=0.5, restitution=0.3), ticks=16)
    for name in ("centre", "velocity", "angular_velocity", "rotation"):
        assert np.isfinite(np.asarray(getattr(core, name))).all(), name
    assert np.abs(core.centre).max() < 5.9 and core.centre[:, 1:, 2].min() > 0.0
    assert np.abs(core.velocity).max() < 8.0


def test_worlds_side_by_side_know_nothing_of_each_other():
    """What stands beside a world leaves its bits alone, and it moves as it does alone."""
    here, there, other = world(ball((0, 0, 0.3))), world(box((0.1, 0, 0.4), 0.2), ball((0, 0, 1))), world(ball((1, 0, 2)))
    one, two = (side_by_side([(w, matter(w, rolling=0.01)) for w in (here, beside)]) for beside in (there, other))
    for _ in range(3):
        one, two, here = (step(*one, worlds=2), one[1]), (step(*two, worlds=2), two[1]), step(here, matter(here, rolling=0.01))
        for name in ("centre", "rotation", "velocity", "angular_velocity"):
            first, second = (np.asarray(getattr(x[0], name))[:4] for x in (one, two))
            np.testing.assert_array_equal(first, second, err_msg=name)
            np.testing.assert_allclose(first, getattr(here, name), atol=1e-5, err_msg=name)
    with pytest.raises(ValueError, match="4 waves in worlds=3"):
        step(here, matter(here), worlds=3)
    with pytest.raises(ValueError, match="needed equally many"):
        side_by_side([(here, matter(here)), (one[0], one[1])])
