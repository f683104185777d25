"""Interventions: what is not downstream stays bitwise the same; impulses are conserved; bad ones are named."""

import jax
import numpy as np
import pytest

from tests.core.physics.worlds import G, ball, box, world
from wsm_jax.core.geometry import Geometry, inertia
from wsm_jax.core.physics.change import add, hold, play, push, put, remove
from wsm_jax.core.physics.dynamics import rollout, step
from wsm_jax.core.physics.matter import join, joint, matter
from wsm_jax.snapshot import FIELDS, Waves


def two_apart():
    """A ball that rolls, and far from it a tumbling box; slot 3 is empty."""
    return world(
        ball((-2, 0, 0.2), velocity=(0.5, 0, 0)),
        box((2, 0, 0.8), (0.2, 0.25, 0.3), angular_velocity=(1, 2, 0.5), exponents=0.4),
    )


@pytest.fixture(scope="module")
def untouched():
    waves = two_apart()
    return play(waves, matter(waves), ticks=8)[0]


@pytest.mark.parametrize(
    "change",
    [
        push(1, (0.0, 20.0, 5.0), (-2, 0, 0.3)),
        put(1, centre=(-2.5, 1, 0.6), velocity=(0, 0, 0)),
        remove(1),
        hold(1),
        add(
            3, jax.tree.map(lambda x: x[1:2], two_apart().replace(centre=np.float32([[0, 0, 0]] * 4) + 3)), matter(two_apart())
        ),
    ],
    ids=["push", "put", "remove", "hold", "add"],
)
def test_what_is_not_downstream_of_a_change_keeps_its_bits(untouched, change):
    waves = two_apart()
    core, events, _ = play(waves, matter(waves), ticks=8, changes={3: [change]})
    for name in FIELDS:
        here, there = getattr(core, name), getattr(untouched, name)
        np.testing.assert_array_equal(here[:, [0, 2]], there[:, [0, 2]], err_msg=name)
        np.testing.assert_array_equal(here[:3], there[:3], err_msg=name)
    if change.kind != "appears":
        assert any(np.any(getattr(core, name)[4:, 1] != getattr(untouched, name)[4:, 1]) for name in FIELDS)
    else:
        assert core.presence[3, 3] == 1
    assert [(e["kind"], e["time"]) for e in events] == [(change.kind, 0.375)]


def group(x, floor):
    """Beside x = `x` a ball that is to hang from the floor's joint, and an object of two waves that it swings into."""
    bob = ball((x + 0.6, 0, 1.2), 0.15, instance=1 + floor)
    object_ = [{**box((x - 0.4, 0, z), (0.1, 0.2, 0.2)), "instance": 3 + floor} for z in (0.2, 0.6)]
    return world(bob, *object_, floor=floor)


def test_neither_joints_nor_contacts_nor_parts_carry_a_change_to_what_is_not_downstream():
    """Two pendulums on one held floor, which each knock over an object of two waves: one of them is pushed."""
    waves = Waves(**{name: np.concatenate([getattr(w, name) for w in (group(-3, 6.0), group(3, 0.0))]) for name in FIELDS})
    joints = join(joint(waves, "hinge", 0, 1, (-3, 0, 1.2), (0, 1, 0)), joint(waves, "hinge", 0, 5, (3, 0, 1.2), (0, 1, 0)))
    properties = matter(waves, joints)
    assert list(properties.part) == [0, 1, 2, 2, 4, 5, 6, 6]
    changed, free = (
        play(waves, properties, joints, ticks=8, changes=changes)[0] for changes in ({2: [push(1, (3.0, 0.5, 1.0))]}, {})
    )
    fallen = np.abs(free.centre[8, [3, 7], 0] - waves.centre[[3, 7], 0])
    assert fallen.min() > 0.05, "the pendulums reach the objects"
    assert np.abs(changed.centre[8] - free.centre[8]).max(-1)[[1, 2, 3]].min() > 1e-3
    for name in FIELDS:
        np.testing.assert_array_equal(
            getattr(changed, name)[:, [0, 4, 5, 6, 7]], getattr(free, name)[:, [0, 4, 5, 6, 7]], err_msg=name
        )


def test_a_push_gives_its_impulse_and_moment():
    waves = world(box((0, 0, 5), (0.1, 0.2, 0.3)), floor=False)
    properties = matter(waves)
    after, same = push(1, (1.0, -2.0, 3.0), (0.1, 0.2, 5.3)).apply(waves, properties)
    np.testing.assert_allclose(after.velocity[1] * properties.mass[1], [1, -2, 3], rtol=1e-5)
    spin = np.asarray(inertia(Geometry.of(waves), properties.mass))[1] @ after.angular_velocity[1]
    np.testing.assert_allclose(spin, np.cross([0.1, 0.2, 0.3], [1, -2, 3]), rtol=1e-4, atol=1e-6)
    assert same is properties


def test_what_is_held_stays_and_what_is_let_go_falls():
    waves = world(ball((0, 0, 3)), floor=False)
    core, _, last = play(waves, matter(waves), ticks=8, changes={0: [hold(1)], 4: [hold(1, False)]})
    assert np.all(core.centre[:5, 1] == core.centre[0, 1]) and core.centre[8, 1, 2] < 2 and not last.held[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({9: [remove(1)]}, "ticks \\[9\\]; needed 0 to 8"),
        ({2: [remove(3)]}, "no wave in slot 3"),
        ({2: [remove(7)]}, "slot 7; the core has slots 0 to 3"),
        ({2: [put(1, centre=(0, np.nan, 0))]}, "finite numbers of shape \\(3,\\)"),
        ({2: [put(1, rotation=(0, 0, 0, 0))]}, "quaternion"),
        ({2: [put(1, scale=(-1, 0.2, 0.2))]}, "needed 1e-06 to"),
        ({2: [put(1, exponents=(3.0, 1.0))]}, "needed 0.1 to 1.9"),
        ({2: [add(1, two_apart(), matter(two_apart()))]}, "slot 1 is taken"),
    ],
)
def test_a_change_that_cannot_be_made_is_named(changes, words):
    waves = two_apart()
    with pytest.raises(ValueError, match=words):
        play(waves, matter(waves), ticks=8, changes=changes)


def test_fields_and_impulses_are_checked_at_once():
    with pytest.raises(ValueError, match="colr"):
        put(1, colr=(0, 0, 0))
    with pytest.raises(ValueError, match="three finite numbers"):
        push(1, (0.0, np.inf, 0.0))


def test_changes_leave_their_input_alone():
    waves = two_apart()
    before = Waves(**{name: np.array(getattr(waves, name)) for name in FIELDS})
    put(1, centre=(0, 0, 9)).apply(waves, matter(waves))
    jax.tree.map(np.testing.assert_array_equal, waves, before)


def among_three(one):
    """A joint, and two that hold nothing: the pendulum and the door share the program of the chain."""
    free = one.replace(holds=np.zeros((1, 6), np.float32))
    return join(one, free, free)


def pendulum():
    """A ball that hangs at the height of its pivot (slot 2, held)."""
    waves = world(ball((0.6, 0, 2), 0.1), ball((0, 0, 2), 0.02), floor=False)
    waves.instance[2] = 0
    return waves, among_three(joint(waves, "hinge", 2, 1, (0, 0, 2), (0, 1, 0)))


def test_the_rest_of_an_object_falls_on_when_one_of_its_waves_is_removed():
    waves = world(ball((-0.3, 0, 9), 0.1), ball((0.3, 0, 9), 0.15), floor=False)
    waves.instance[1:3] = 2
    core, *_ = play(waves, matter(waves), ticks=8, changes={1: [remove(1)]})
    np.testing.assert_allclose(core.velocity[:, 2, 2], -G * 0.125 * np.arange(9), rtol=1e-5)


@pytest.mark.parametrize("slot", [1, 2], ids=["the ball", "the pivot"])
def test_a_joint_ends_with_its_wave(slot):
    waves, hinge = pendulum()
    core, *_ = play(waves, matter(waves), hinge, ticks=8, changes={4: [remove(slot)]})
    other = 3 - slot
    fall = np.diff(core.velocity[4:, other, 2]) / 0.125
    np.testing.assert_allclose(fall, -G if other == 1 else 0.0, rtol=1e-4)


def test_an_object_has_a_part_for_each_wave_that_its_joints_name():
    """A door of two waves: frame and panel, with a handle that goes with the panel."""
    waves = world(ball((0, 0, 2), 0.02), ball((0.6, 0, 2), 0.1), ball((0.75, 0, 2), 0.05), floor=False)
    waves.instance[1:4] = 5
    hinge = among_three(joint(waves, "hinge", 1, 2, (0, 0, 2), (0, 1, 0)))
    with pytest.raises(ValueError, match=r"of one rigid part.*matter\(waves, joints\)"):
        play(waves, matter(waves), hinge, ticks=1)
    properties = matter(waves, hinge)
    assert properties.part.tolist() == [0, 1, 2, 2]
    core, *_ = play(waves, properties, hinge, ticks=4, changes={0: [hold(1)]})
    np.testing.assert_allclose(np.linalg.norm(core.centre[:, 2] - waves.centre[1], axis=1), 0.6, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(core.centre[:, 3] - core.centre[:, 2], axis=1), 0.15, rtol=1e-4)
    assert core.centre[4, 2, 2] < 1.5, "it swings"


def test_a_joint_that_the_substeps_do_not_follow_is_named():
    """A load of 1000 times the mass of the links that carry it."""
    waves = world(ball((0.2, 0, 5), 0.05), ball((0.4, 0, 5), 0.05), ball((0.6, 0, 5), 0.5), floor=False)
    waves.presence[0], waves.scale[0], waves.centre[0], waves.instance[0] = 1, 0.05, (0, 0, 5), 0
    chain = join(*(joint(waves, "ball", k, k + 1, (0.2 * k + 0.1, 0, 5)) for k in range(3)))
    with pytest.raises(ValueError, match=r"at tick .*needed more, say 160"):
        play(waves, matter(waves), chain, ticks=8)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda w, m: play(w, m, ticks=-1), "ticks=-1"),
        (lambda w, m: step(w, m, substeps=0), "substeps=0"),
        (lambda w, m: step(jax.tree.map(lambda x: x[None], w), m), "one instant"),
        (lambda w, m: step(w, jax.tree.map(lambda x: x[:2], m)), r"matter.mass of shape \(2,\) for 4 waves"),
        (lambda w, m: rollout(w, m, ticks=-1), "ticks=-1"),
        (lambda w, m: joint(w, "ball", 1, 2, (0, 0)), "anchor"),
        (lambda w, m: joint(w, "ball", 1, 2, (0, 0, 0), (1.0,)), "axis"),
    ],
)
def test_worlds_that_do_not_fit_are_named(call, words):
    waves = two_apart()
    with pytest.raises(ValueError, match=words):
        call(waves, matter(waves))
