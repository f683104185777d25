"""A change of one wave changes that wave alone, at one tick or at all of them, and is there when the file is read again."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from wsm_jax.core.edit.session import EditedCore
from wsm_jax.snapshot import FIELDS, Waves
from wsm_jax.snapshot import waves as core_json
from wsm_jax.snapshot.waves import empty

TICKS, SLOT = 4, 1


@pytest.fixture
def waves() -> Waves:
    rng = np.random.default_rng(0)
    shape = {name: (TICKS, 3, *((count,) if count else ())) for name, count in FIELDS.items()}
    fields = {name: rng.uniform(0.2, 1.0, shape[name]).astype(np.float32) for name in FIELDS}
    turn = fields["rotation"] / np.linalg.norm(fields["rotation"], axis=-1, keepdims=True)
    labels = {name: rng.integers(0, 4, (TICKS, 3)).astype(np.int32) for name in ("semantic", "instance")}
    return Waves(**{**fields, "rotation": turn, **labels})


def differing(before: Waves, after: Waves) -> set[tuple[str, int, int]]:
    """(field, tick, slot) of all that is not the same."""
    found = set()
    for name in FIELDS:
        unlike = np.asarray(getattr(before, name)) != np.asarray(getattr(after, name))
        found |= {(name, *map(int, place[:2])) for place in np.argwhere(unlike)}
    return found


VALUES = {
    "centre": np.array([1.5, -2.0, 0.3]),
    "rotation": np.array([0.8, 0.0, 0.6, 0.0]),
    "scale": np.array([0.3, 2.0, 0.01]),
    "exponents": np.array([0.1, 1.7]),
    "colour": np.array([0.0, 0.5, 0.9]),
    "presence": 0.125,
}


@pytest.mark.parametrize("field", VALUES)
def test_a_change_at_one_tick_stays_there(waves, field):
    core = EditedCore(waves, None, "core")
    assert core.change(SLOT, field, VALUES[field], 0.26, 2)
    assert differing(waves, core.waves) == {(field, 2, SLOT)}
    np.testing.assert_allclose(getattr(core.waves, field)[2, SLOT], VALUES[field], rtol=1e-6)
    assert not core.change(SLOT, field, VALUES[field], 0.26, 2)


@pytest.mark.parametrize("field", VALUES)
def test_a_change_at_all_ticks_is_what_was_asked_at_its_time_and_of_that_wave_alone(waves, field):
    core = EditedCore(waves, None, "core")
    time = 0.3  # between the ticks
    assert core.change(SLOT, field, VALUES[field], time, None)
    np.testing.assert_allclose(getattr(core.at(time), field)[SLOT], VALUES[field], rtol=1e-5, atol=1e-6)
    fields = {field, "angular_velocity"} if field == "rotation" else {field}
    assert differing(waves, core.waves) <= {(name, tick, SLOT) for name in fields for tick in range(TICKS)}


def test_the_path_of_a_wave_is_shifted_turned_and_stretched_as_a_whole(waves):
    core = EditedCore(waves, None, "core")
    for field in ("centre", "scale", "rotation"):
        core.change(SLOT, field, VALUES[field], 0.0, None)
    after = core.waves
    shift = (after.centre - waves.centre)[:, SLOT]
    np.testing.assert_allclose(shift, np.broadcast_to(shift[0], shift.shape), atol=1e-6)
    stretch = (after.scale / waves.scale)[:, SLOT]
    np.testing.assert_allclose(stretch, np.broadcast_to(stretch[0], stretch.shape), rtol=1e-5)
    new, old = (Rotation.from_quat(w.rotation[:, SLOT], scalar_first=True) for w in (after, waves))
    turn = (new * old.inv()).as_matrix()
    np.testing.assert_allclose(turn, np.broadcast_to(turn[0], turn.shape), atol=1e-5)
    spin = np.einsum("ij,kj->ki", turn[0], waves.angular_velocity[:, SLOT])
    np.testing.assert_allclose(after.angular_velocity[:, SLOT], spin, atol=1e-5)


def test_what_a_browser_sends_back_changes_nothing(waves):
    core = EditedCore(waves, None, "core")
    now = core.at(0.3)
    for field in ("centre", "rotation", "scale"):
        assert not core.change(SLOT, field, np.array(getattr(now, field)[SLOT]), 0.3, None)
    assert differing(waves, core.waves) == set()


def test_values_are_held_to_their_ranges(waves):
    core = EditedCore(waves, None, "core")
    core.change(SLOT, "scale", np.array([-1.0, 0.0, 1e9]), 0.0, None)
    core.change(SLOT, "exponents", np.array([0.0, 3.0]), 0.0, None)
    now = core.at(0.0)
    np.testing.assert_allclose(now.scale[SLOT], [1e-3, 1e-3, 1e3], rtol=1e-4)
    np.testing.assert_allclose(now.exponents[SLOT], [0.1, 1.9], rtol=1e-6)


def test_save_reads_back_over_time_and_at_an_instant(waves, tmp_path):
    time = np.float32([1.0, 1.125, 1.25, 1.5])
    core = EditedCore(waves, time, "core")
    core.change(SLOT, "colour", VALUES["colour"], 1.0, None)
    core.save(tmp_path / "a.json")
    again, ticks = core_json.load(tmp_path / "a.json")
    assert differing(core.waves, again) == set() and core.nearest(1.4) == 3
    np.testing.assert_array_equal(ticks, time)
    core = EditedCore(waves[0], None, "core")
    core.change(SLOT, "centre", VALUES["centre"], 0.0, None)
    core.save(tmp_path / "b.json")
    again, ticks = core_json.load(tmp_path / "b.json")
    assert ticks is None and again.centre.shape == (3, 3)
    np.testing.assert_allclose(again.centre[SLOT], VALUES["centre"], rtol=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "b.json"]


def test_what_is_no_core_is_refused_by_name(waves):
    with pytest.raises(ValueError, match=r"a\.json: presence of shape \(2, 2, 3\)"):
        EditedCore(empty(3, (2, 2)), None, "a.json")
    with pytest.raises(ValueError, match=r"a\.json: presence of shape \(0,\)"):
        EditedCore(empty(0), None, "a.json")
    with pytest.raises(ValueError, match=r"a\.json: its tick times do not increase"):
        EditedCore(waves, np.float32([0, 1, 1, 2]), "a.json")
