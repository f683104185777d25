"""An edit changes what it names, at all ticks, and nothing else; what cannot be is refused by name."""

import numpy as np
import pytest

from wsm_jax.core.edit.text import apply, parse
from wsm_jax.snapshot import FIELDS, SEMANTIC_CLASSES, Waves
from wsm_jax.snapshot.waves import COLOURS, empty, from_json, to_json


@pytest.fixture
def core() -> Waves:
    rng = np.random.default_rng(0)
    noise = {n: rng.uniform(0.2, 1.0, (5, 3, *((c,) if (c := FIELDS[n]) else ()))).astype(np.float32) for n in FIELDS}
    labels = {name: rng.integers(0, 4, (5, 3)).astype(np.int32) for name in ("semantic", "instance")}
    return Waves(**{**vars(empty(3, (5,))), **noise, **labels})


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("2.colour=0.1,0.2,0.9", "colour", (0.1, 0.2, 0.9)),
        ("2.color=0.1,0.2,0.9", "colour", (0.1, 0.2, 0.9)),
        ("2.colour=cyan", "colour", COLOURS["cyan"]),
        ("2.color=cyan", "colour", COLOURS["cyan"]),
        ("2.semantic=box", "semantic", SEMANTIC_CLASSES.index("box")),
        ("2.presence=0", "presence", 0.0),
        ("2.velocity=-1,2e-1,3", "velocity", (-1, 0.2, 3)),
        ("2.exponents=0.1,1.9", "exponents", (0.1, 1.9)),
        ("2.instance=7", "instance", 7),
    ],
)
def test_one_field_of_one_wave_changes_at_all_ticks(core, text, field, value):
    after = apply(core, parse([text]), "core.json")
    for name in FIELDS:
        same = np.asarray(getattr(after, name)) == np.asarray(getattr(core, name))
        assert same[:, :2].all(), name
        assert name == field or same.all(), name
        assert getattr(after, name).dtype == getattr(core, name).dtype
    np.testing.assert_allclose(getattr(after, field)[:, 2], np.broadcast_to(np.float32(value), (5, *np.shape(value))))
    from_json(to_json(after))


@pytest.mark.parametrize(
    ("pose", "value", "speed"), [("centre", "1,2,3", "velocity"), ("rotation", "0,0,0,2", "angular_velocity")]
)
def test_a_pose_that_is_set_stays(core, pose, value, speed):
    after = apply(core, parse([f"1.{pose}={value}"]), "core.json")
    assert (np.asarray(getattr(after, pose))[:, 1] == np.asarray(getattr(after, pose))[0, 1]).all()
    assert (np.asarray(getattr(after, speed))[:, 1] == 0).all()
    assert (np.asarray(getattr(after, speed))[:, 0] != 0).all()
    moving = apply(core, parse([f"1.{speed}=1,1,1", f"1.{pose}={value}"]), "core.json")
    assert (np.asarray(getattr(moving, speed))[:, 1] == 1).all()


@pytest.mark.parametrize(("american", "british"), [("center", "centre"), ("color", "colour")])
def test_american_field_names_make_the_same_edit(american, british):
    (edit,), (same,) = parse([f"1.{american}=0.1,0.2,0.3"]), parse([f"1.{british}=0.1,0.2,0.3"])
    assert edit[:2] == same[:2] == (1, british)
    assert (edit[2] == same[2]).all()


def test_quaternions_come_out_as_units(core):
    np.testing.assert_allclose(
        apply(core, parse(["0.rotation=0,0,3,4"]), "c").rotation[:, 0], [[0, 0, 0.6, 0.8]] * 5, rtol=1e-6
    )


def test_edits_are_made_in_order_and_leave_the_core_alone(core):
    before = np.array(core.colour)
    assert apply(core, parse(["0.colour=red", "0.colour=0,0,0"]), "c").colour[:, 0].max() == 0
    np.testing.assert_array_equal(core.colour, before)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("2.colour", "SLOT.FIELD=VALUE"),
        ("colour=1,1,1", "SLOT.FIELD=VALUE"),
        ("-1.colour=1,1,1", "SLOT.FIELD=VALUE"),
        ("2.hue=1,1,1", "unknown field 'hue'.*colour"),
        ("2.colour=mauve", "needed 3 numbers"),
        ("2.colour=", "needed 3 numbers"),
        ("2.colour=1,1", "needs 3 finite numbers"),
        ("2.centre=1,nan,0", "needs 3 finite numbers"),
        ("2.colour=1,1,1.5", r"0\.\.1"),
        ("2.scale=1,0,1", r"0\.001\.\.1000"),
        ("2.exponents=0.05,1", r"0\.1\.\.1\.9"),
        ("2.semantic=99", r"0\.\.7"),
        ("2.instance=1.5", "is an integer"),
        ("2.rotation=0,0,0,0", "length 0"),
    ],
)
def test_what_cannot_be_is_named(text, said):
    with pytest.raises(ValueError, match=rf"{text.split('=')[0]}.*{said}"):
        parse([text])


def test_a_slot_that_is_not_there_is_named(core):
    with pytest.raises(ValueError, match=r"3\.colour: box\.json has the slots 0\.\.2"):
        apply(core, parse(["3.colour=red"]), "box.json")
