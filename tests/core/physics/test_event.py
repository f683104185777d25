"""Breaking and merging: mass, volume, momentum and angular momentum to float precision; presence is continuous in pictures."""

import numpy as np
import pytest

from tests.core.physics.worlds import ball, box, thing, world
from wsm_jax.core import superquadric as sq
from wsm_jax.core.geometry import Geometry, inertia
from wsm_jax.core.interpolate import interpolate
from wsm_jax.core.physics.change import play
from wsm_jax.core.physics.event import break_apart, come_apart, merge
from wsm_jax.core.physics.matter import matter
from wsm_jax.core.render import surface
from wsm_jax.snapshot import look_at

PIECES = Geometry(
    np.float32([[0.1, 0, 0.1], [-0.1, 0.1, 0], [0, -0.1, -0.05]]),
    np.float32([[0.1, 0.12, 0.09], [0.15, 0.1, 0.1], [0.05, 0.2, 0.1]]),
    np.float32([[1, 0, 0, 0], [0.8, 0.6, 0, 0], [0.6, 0, 0.8, 0]]),
    np.float32([[0.3, 0.5], [1, 1], [0.1, 1.2]]),
)


def totals(waves, properties):
    """Mass, volume, centre, momentum, angular momentum about the origin, of the free waves, float64."""
    there = (waves.presence > 0.5) & ~np.asarray(properties.held)
    m = np.asarray(properties.mass, np.float64)[there]
    x, v, w = (np.asarray(a, np.float64)[there] for a in (waves.centre, waves.velocity, waves.angular_velocity))
    own = np.einsum("nij,nj->ni", np.asarray(inertia(Geometry.of(waves), properties.mass), np.float64)[there], w)
    volume = np.asarray(sq.volume(waves.scale, waves.exponents), np.float64)[there].sum()
    return m.sum(), volume, m @ x / m.sum(), m @ v, (m[:, None] * np.cross(x, v) + own).sum(0)


def cup():
    return world(
        box((0.3, -0.2, 1.0), (0.2, 0.25, 0.15), velocity=(1, 0.5, -2), angular_velocity=(2, -1, 3), rotation=(0.8, 0, 0.6, 0))
    )


def test_breaking_conserves_everything_but_energy():
    waves = world(*([cup_fields()]), floor=False)
    waves = enlarged(waves, 6)
    properties = matter(waves)
    apart = np.float32([[1, 0, 0.5], [-2, 1, 0], [0, 0, 3]])
    after, columns = break_apart(1, (2, 3, 4), PIECES, apart=apart).apply(waves, properties)
    assert list(after.presence) == [0, 0, 1, 1, 1, 0] and len(set(after.instance[2:5])) == 3
    for before, now in zip(totals(waves, properties), totals(after, columns), strict=True):
        np.testing.assert_allclose(now, before, rtol=2e-6, atol=2e-6 * np.abs(before).max())
    kick = (0.5, -1.0, 2.0)
    pushed, columns = break_apart(1, (2, 3, 4), PIECES, apart=apart, impulse=kick).apply(waves, properties)
    np.testing.assert_allclose(totals(pushed, columns)[3] - totals(waves, properties)[3], kick, rtol=1e-5)


def test_a_set_that_comes_apart_keeps_everything_but_its_energy():
    """The waves stay where they are; what was one rigid body, spinning, is two that fly apart."""
    waves = enlarged(world(cup_fields(), ball((0.5, -0.2, 1.0), 0.1), floor=False), 5)
    waves.instance[1:3] = 1
    waves.angular_velocity[2] = waves.angular_velocity[1]
    waves.velocity[2] = waves.velocity[1] + np.cross(waves.angular_velocity[1], waves.centre[2] - waves.centre[1])
    properties = matter(waves)
    assert properties.part[1] == properties.part[2]
    after, columns = come_apart((1, 2)).apply(waves, properties)
    for name in ("centre", "rotation", "scale", "velocity", "angular_velocity"):
        np.testing.assert_allclose(getattr(after, name), getattr(waves, name), rtol=1e-5, atol=1e-6)
    after, columns = come_apart((1, 2), apart=np.float32([[1, 0, 2], [0, -1, 1]]), impulse=(0, 0, 1)).apply(waves, properties)
    before, now = totals(waves, properties), totals(after, columns)
    before[3][2] += 1.0
    for a, b in zip(before[:4], now[:4], strict=True):
        np.testing.assert_allclose(b, a, rtol=2e-6, atol=2e-6 * np.abs(a).max())
    turn = before[4] + np.cross(before[2], [0, 0, 1.0])
    np.testing.assert_allclose(now[4], turn, atol=2e-6 * np.abs(turn).max())
    assert columns.part[1] != columns.part[2] and len(set(after.instance[1:3])) == 2
    for wrong, words in (((1,), "two or more"), ((1, 3), "no wave in slot 3"), ((), "two or more")):
        with pytest.raises(ValueError, match=words):
            come_apart(wrong).apply(waves, properties)


def cup_fields():
    return thing(
        centre=(0.3, -0.2, 1.0), scale=(0.2, 0.25, 0.15), exponents=0.1, velocity=(1, 0.5, -2), angular_velocity=(2, -1, 3),
        rotation=(0.8, 0, 0.6, 0),
    )  # fmt: skip


def enlarged(waves, count):
    """The same world with more empty slots."""
    from wsm_jax.snapshot import FIELDS
    from wsm_jax.snapshot.waves import empty

    more = empty(count)
    for name in FIELDS:
        getattr(more, name)[: waves.count] = getattr(waves, name)
    return more


def test_merging_conserves_everything_but_energy():
    waves = world(
        ball((0, 0, 1), 0.2, velocity=(1, 0, 0), angular_velocity=(0, 3, 0), colour=(1, 0, 0)),
        ball((0.3, 0.1, 1), 0.1, velocity=(-1, 2, 0), colour=(0, 0, 1)),
        floor=False,
    )
    properties = matter(waves)
    for shape in (None, Geometry(np.zeros(3), np.float32([2, 1, 1]), np.float32([0.6, 0, 0.8, 0]), np.float32([0.5, 1.5]))):
        after, columns = merge((1, 2), 3, shape).apply(waves, properties)
        assert list(after.presence) == [0, 0, 0, 1]
        for before, now in zip(totals(waves, properties), totals(after, columns), strict=True):
            np.testing.assert_allclose(now, before, rtol=2e-6, atol=2e-6 * max(np.abs(before).max(), 1e-3))
    np.testing.assert_allclose(after.colour[3], [8 / 9, 0, 1 / 9], rtol=1e-5)


def test_drops_that_merge_and_a_cup_that_breaks_play_on():
    waves = enlarged(world(cup_fields(), ball((-1, 0, 0.5), velocity=(0.5, 0, 1))), 6)
    changes = {2: [break_apart(1, (3, 4, 5), PIECES, apart=np.float32([[1, 0, 1], [-1, 0, 1], [0, 1, 1]]))]}
    core, events, last = play(waves, matter(waves), ticks=6, changes=changes)
    assert [(e["kind"], e["time"], e["instances"]) for e in events] == [("breaks", 0.25, [2])]
    assert np.isfinite(core.centre).all() and core.centre[-1, 3:6, 2].min() > 0
    assert list(last.part) == list(range(6)) and list(core.presence[3]) == [1, 0, 1, 1, 1, 1]
    camera = look_at(np.float32([0.3, -3, 1.2]), np.float32([0.3, -0.2, 0.8]))
    cover = []
    for t in np.linspace(0.125, 0.25, 9):
        now = interpolate(core, np.arange(7) / 8, np.asarray(t))
        now = now.replace(presence=np.asarray(now.presence) * (np.arange(6) > 0))  # without the floor
        cover.append(np.asarray(surface(now, camera, 24, 24)["coverage"]).sum())
    steps = np.abs(np.diff(cover))
    assert steps.max() < 0.35 * np.abs(cover[0]), "presence goes over continuously"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (break_apart(1, (2, 3), PIECES), "3 pieces for slots"),
        (break_apart(1, (2, 3, 0), PIECES), "slot 0 is taken"),
        (break_apart(3, (1, 2), PIECES), "no wave in slot 3"),
        (merge((1,), 2), "two or more"),
        (merge((1, 3), 2), "no wave in slot 3"),
    ],
)
def test_events_that_cannot_be_are_named(change, words):
    waves = cup()
    with pytest.raises(ValueError, match=words):
        change.apply(waves, matter(waves))


def test_a_wave_of_a_larger_part_does_not_break_alone():
    waves = cup()
    waves.presence[2], waves.instance[2] = 1, waves.instance[1]
    with pytest.raises(ValueError, match="one of several of part 1"):
        break_apart(1, (3,), Geometry(*(x[:1] for x in vars(PIECES).values()))).apply(waves, matter(waves))
