"""The core as data: its JSON reads back, and whatever is no core is refused by name."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from wsm_jax.snapshot import FIELDS, SEMANTIC_CLASSES, Waves
from wsm_jax.snapshot.waves import empty, from_json, load, save, stack, to_json


def random_waves(lead=(3,), count=4, seed=0):
    rng = np.random.default_rng(seed)
    base = empty(count, lead)
    changes = {}
    for name in FIELDS:
        shape = getattr(base, name).shape
        changes[name] = rng.uniform(0.1, 1.0, shape).astype(np.float32)
    changes["semantic"] = rng.integers(0, len(SEMANTIC_CLASSES), (*lead, count)).astype(np.int32)
    changes["instance"] = rng.integers(0, 3, (*lead, count)).astype(np.int32)
    return Waves(**changes)


def same(a, b):
    for name in FIELDS:
        x, y = np.asarray(getattr(a, name)), np.asarray(getattr(b, name))
        assert x.dtype == y.dtype, name
        np.testing.assert_array_equal(x, y, err_msg=name)


def test_fields_and_class_agree():
    assert [f.name for f in dataclasses.fields(Waves)] == list(FIELDS)
    waves = empty(5, (2,))
    for name, components in FIELDS.items():
        assert getattr(waves, name).shape == (2, 5, *([components] if components else []))
    assert waves.count == 5
    np.testing.assert_allclose(np.linalg.norm(waves.rotation, axis=-1), 1.0)
    assert not waves.presence.any()


@pytest.mark.parametrize(("lead", "count"), [((), 1), ((), 3), ((4,), 2), ((2, 3), 2), ((), 0), ((3,), 0)], ids=str)
def test_json_round_trip_is_exact(lead, count):
    waves = random_waves(lead, count)
    back, time = from_json(to_json(waves))
    assert time is None
    same(waves, back)


def test_json_keeps_times_and_reads_device_arrays():
    waves = random_waves((3,))
    time = np.float32([0.0, 0.125, 0.25])
    back, when = from_json(to_json(jax.tree.map(jax.numpy.asarray, waves), time))
    same(waves, back)
    assert when is not None
    np.testing.assert_array_equal(when, time)
    _, now = from_json(to_json(waves[0], 1.5))
    assert now is not None
    assert now == 1.5


def test_indexing_and_stack_are_inverses():
    waves = random_waves((3,))
    same(stack([waves[k] for k in range(3)]), waves)


def test_save_then_load(tmp_path):
    waves = random_waves()
    save(waves, tmp_path / "core.json", np.arange(3) / 8)
    back, time = load(str(tmp_path / "core.json"))
    same(waves, back)
    assert time is not None
    np.testing.assert_array_equal(time, np.float32([0, 0.125, 0.25]))
    assert [p.name for p in tmp_path.iterdir()] == ["core.json"]


def edited(change):
    """The JSON of a good core with its data changed by `change(data)`."""
    data = json.loads(to_json(random_waves((2,), 3), np.arange(2) / 8))
    change(data)
    return json.dumps(data)


def put(name, value):
    return lambda data: data["waves"].__setitem__(name, value)


def put_one(name, value):
    """Sets the first number of a field."""

    def change(data):
        row = data["waves"][name]
        while isinstance(row[0], list):
            row = row[0]
        row[0] = value

    return change


BAD = {
    "not JSON": ("{oops", "not JSON"),
    "empty": ("", "not JSON"),
    "a list": ("[1, 2]", '"format": "wsm_core"'),
    "another format": ('{"format": "gltf"}', '"format": "wsm_core"'),
    "a newer version": (edited(lambda d: d.update(version=2)), "core version 2; this release reads version 1"),
    "no version": (edited(lambda d: d.pop("version")), "core version None"),
    "other classes": (edited(lambda d: d.update(classes=["cat"])), "classes.*cat.*ball"),
    "no waves": (edited(lambda d: d.pop("waves")), '"waves" is NoneType'),
    "waves is a list": (edited(lambda d: d.update(waves=[])), '"waves" is list'),
    "a missing field": (edited(lambda d: d["waves"].pop("scale")), r"\['scale'\] are missing"),
    "ragged": (edited(put("presence", [[1.0, 1.0, 1.0], [1.0]])), "'presence' is not a rectangular array"),
    "text for numbers": (edited(put("colour", "red")), "'colour' is not a rectangular array"),
    "an object for numbers": (edited(put("centre", {"x": 1})), "'centre' is not a rectangular array"),
    "too few slots": (edited(put("presence", [[1.0], [1.0]])), r"'centre' has shape \(2, 3, 3\), needed \(2, 1, 3\)"),
    "too few components": (
        edited(put("scale", np.ones((2, 3, 2)).tolist())),
        r"'scale' has shape \(2, 3, 2\), needed \(2, 3, 3\)",
    ),
    "no slot axis": (edited(put("presence", 1.0)), r"'presence' has shape \(\)"),
    "null": (edited(put_one("velocity", None)), "'velocity' holds a value that is not finite"),
    "NaN": (edited(put_one("centre", float("nan"))), "'centre' holds a value that is not finite"),
    "infinite": (edited(put_one("presence", float("inf"))), "'presence' holds a value that is not finite"),
    "a fraction of a class": (edited(put_one("semantic", 1.5)), "'semantic' holds a value that is not a label"),
    "a negative object": (edited(put_one("instance", -1)), "'instance' holds a value that is not a label"),
    "a huge object": (edited(put_one("instance", 2**40)), "'instance' holds a value that is not a label"),
    "an unknown class": (edited(put_one("semantic", 99)), "'semantic' holds 99.*ball"),
    "a flat wave": (edited(put_one("scale", 0.0)), "'scale' holds 0.0; needed values above 0"),
    "no exponent": (edited(put_one("exponents", -1.0)), "'exponents' holds -1.0"),
    "a colour of bytes": (edited(put_one("colour", 255.0)), "'colour' holds .*255; needed values from 0 to 1"),
    "less than absent": (edited(put_one("presence", -0.5)), "'presence' holds -0.5..*; needed values from 0 to 1"),
    "no rotation": (edited(put("rotation", np.zeros((2, 3, 4)).tolist())), "'rotation' holds a quaternion of length 0"),
    "times of other ticks": (edited(lambda d: d.update(time=[0.0])), r"times of shape \(1,\) for ticks \(2,\)"),
    "times that are none": (edited(lambda d: d.update(time=["now", "then"])), '"time" is not'),
    "an endless time": (edited(lambda d: d.update(time=[0.0, float("inf")])), "one \\(s\\) a tick"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_core_is_refused_by_name(case, tmp_path):
    text, message = BAD[case]
    with pytest.raises(ValueError, match=f"(?s)here: .*{message}"):
        from_json(text, "here")
    path = tmp_path / "core.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"core\.json"):
        load(path)


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.json: no such core file"):
        load(tmp_path / "nowhere.json")
    (tmp_path / "picture.json").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(ValueError, match=r"picture\.json: not text"):
        load(tmp_path / "picture.json")


def test_a_core_that_could_not_be_read_back_is_not_written(tmp_path):
    waves = random_waves()
    bad = dataclasses.replace(waves, centre=np.full_like(waves.centre, np.nan))
    save(waves, tmp_path / "core.json")
    with pytest.raises(ValueError, match="'centre' holds a value that is not finite"):
        save(bad, tmp_path / "core.json")
    same(load(tmp_path / "core.json")[0], waves)
    assert [p.name for p in tmp_path.iterdir()] == ["core.json"]
