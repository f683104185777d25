"""Projection makes rigid objects above the floor and changes nothing that is valid already."""

import numpy as np

from wsm_jax.core import superquadric
from wsm_jax.core.project import canonical, motion_from_poses, project
from wsm_jax.snapshot import FIELDS, SEMANTIC_CLASSES, Waves, quaternion_to_matrix
from wsm_jax.snapshot.waves import empty

BALL, BOX = (SEMANTIC_CLASSES.index(name) for name in ("ball", "box"))


def falling(ticks: int = 8) -> Waves:
    core = empty(4, (ticks,))
    fields = {name: np.array(getattr(core, name)) for name in FIELDS}
    time = np.arange(ticks) / 8
    for slot, kind in ((2, BOX), (1, BALL)):
        fields["presence"][:, slot], fields["semantic"][:, slot], fields["instance"][:, slot] = 1, kind, slot + 1
        fields["scale"][:, slot] = (0.3, 0.2, 0.4)
        fields["centre"][:, slot, 2] = 3 - 0.5 * 9.81 * time**2 * (0.2 * slot)
    turn = 0.5 * 1.5 * time
    fields["rotation"][:, 2] = np.stack([np.cos(turn), np.sin(turn), 0 * turn, 0 * turn], -1)
    return Waves(**fields)


def test_a_valid_core_is_not_changed():
    core = falling()
    out = project(core)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(out, name), getattr(core, name), err_msg=name)


def test_nothing_reaches_below_the_floor_and_shapes_are_rigid():
    core = falling()
    rng = np.random.default_rng(0)
    noisy = core.replace(
        centre=core.centre - np.asarray([0, 0, 3], np.float32),
        scale=np.asarray(core.scale * rng.uniform(0.8, 1.25, core.scale.shape), np.float32),
        colour=rng.uniform(0, 1, core.colour.shape).astype(np.float32),
    )
    out = project(noisy)
    assert np.ptp(out.scale, axis=0).max() == 0 and np.ptp(out.colour, axis=0).max() == 0
    points = np.asarray(superquadric.sphere_directions(400))
    for tick in range(8):
        for slot in (1, 2):
            local = np.asarray(superquadric.surface_point(points, out.scale[tick, slot], out.exponents[tick, slot]))
            height = local @ np.asarray(quaternion_to_matrix(out.rotation[tick, slot])).T[:, 2] + out.centre[tick, slot, 2]
            assert height.min() > -1e-4
            assert height.min() < 0.02 or noisy.centre[tick, slot, 2] == out.centre[tick, slot, 2]


def test_flickering_presence_and_class_are_decided_by_vote():
    core = falling()
    presence, semantic = np.array(core.presence), np.array(core.semantic)
    presence[2, 2], semantic[4, 2], presence[5, 3] = 0.0, BALL, 1.0
    out = project(core.replace(presence=presence, semantic=semantic))
    np.testing.assert_array_equal(out.presence, core.presence)
    np.testing.assert_array_equal(out.semantic[:, 2], core.semantic[:, 2])


def test_canonical_order_is_by_class_then_key_and_idempotent():
    core = falling()
    shuffled = Waves(**{name: np.asarray(getattr(core, name))[:, [2, 1, 0, 3]] for name in FIELDS})
    ordered, order = canonical(shuffled, np.zeros(4))
    assert list(ordered.semantic[0]) == [0, 0, BALL, BOX]
    np.testing.assert_array_equal(np.asarray(shuffled.centre)[:, order], ordered.centre)
    again, _ = canonical(ordered, np.zeros(4))
    np.testing.assert_array_equal(again.semantic, ordered.semantic)
    np.testing.assert_array_equal(again.centre[:, 2:], ordered.centre[:, 2:])


def test_velocities_of_poses():
    """Exact for constant acceleration inside the clip, and for a constant turn."""
    core = motion_from_poses(falling())
    time = np.arange(8) / 8
    np.testing.assert_allclose(core.velocity[1:-1, 2, 2], -9.81 * 0.4 * time[1:-1], rtol=1e-4)
    np.testing.assert_allclose(core.angular_velocity[:, 2], np.tile([1.5, 0, 0], (8, 1)), atol=1e-4)
