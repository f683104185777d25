"""Interventions: what is not downstream stays bitwise the same; impulses are conserved; bad ones are named."""

import jax
import numpy as np
import pytest

from tests.core.physics.worlds import ball, box, world
from wsm_jax.core.geometry import Geometry, inertia
from wsm_jax.core.physics.change import add, hold, play, push, put, remove
from wsm_jax.core.physics.matter import matter
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
