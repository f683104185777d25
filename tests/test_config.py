"""A config states every field of its classes, is checked where it is written, and runs no other code than ours."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from flax import linen as nn

from wsm_jax import config as configs
from wsm_jax.config import BOUND_LATER, CLASS, as_config, build, from_json, node, override, packages, to_json
from wsm_jax.flow import LevelMix
from wsm_jax.layers.transformer import Transformer
from wsm_jax.training.experiment import open_experiment

GOLDEN = sorted((Path(__file__).parent / "golden").glob("config_*.json"))
TRUST = (__name__.partition(".")[0],)


@dataclasses.dataclass(frozen=True)
class Part:
    size: int
    rates: tuple[float, ...] = (1.0,)
    mix: LevelMix = dataclasses.field(default_factory=LevelMix)
    weights: object = dataclasses.field(default=None, metadata=BOUND_LATER)


@dataclasses.dataclass(frozen=True)
class Whole:
    parts: Mapping[str, Part]
    first: Part
    name: str | None = None

    def __post_init__(self):
        if self.name == "bad":
            raise ValueError("name is bad")


@pytest.fixture
def whole():
    part = node(Part, size=2)
    return node(Whole, parts={"a": part, "b": node(Part, size=3)}, first=part)


def test_a_node_states_every_field_and_builds_its_object(whole):
    assert set(whole.first) == {CLASS, "size", "rates", "mix"}
    made = build(whole, TRUST)
    assert made == Whole({"a": Part(2), "b": Part(3)}, Part(2))
    assert made.first is made.parts["a"], "a node that is used twice is one object"
    assert as_config(made).to_dict() == whole.to_dict()


def test_linen_modules_are_built_and_equal():
    config = node(Transformer, width=8, depth=1, heads=2)
    assert build(config) == Transformer(8, 1, 2) and hash(build(config)) == hash(Transformer(8, 1, 2))
    assert isinstance(build(config), nn.Module)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({"siez": 1}, KeyError, "nearest is 'size'"),
        ({}, KeyError, "field 'size' is missing"),
        ({"size": "2"}, ValueError, "needed int"),
        ({"size": True}, ValueError, "needed int"),
        ({"size": 2.0}, ValueError, "needed int"),
        ({"size": 2, "rates": 1.0}, ValueError, "rates"),
        ({"size": 2, "rates": ("x",)}, ValueError, "rates"),
        ({"size": 2, "rates": (float("nan"),)}, ValueError, "rates"),
        ({"size": 2, "mix": 3}, ValueError, "needed LevelMix"),
        ({"size": 2, "weights": 1}, KeyError, "unknown config key"),
    ],
)
def test_a_wrong_field_is_an_error_where_it_is_written(fields, error, words):
    with pytest.raises(error) as caught:
        node(Part, **fields)
    assert words in str(caught.value)


def test_a_node_of_another_class_is_refused():
    with pytest.raises(ValueError, match="needed LevelMix"):
        node(Part, size=1, mix=node(Transformer, width=8, depth=1, heads=2))


def test_whole_numbers_become_floats_where_floats_are_declared():
    config = node(Part, size=1, rates=[1, 2])
    assert config.rates == (1.0, 2.0) and all(type(x) is float for x in config.rates)
    override(config, "mix.power", 4)
    assert type(config.mix.power) is float


def test_an_override_reaches_every_use_of_a_node(whole):
    override(whole, "first.size", 7)
    assert whole.parts.a.size == 7 and whole.parts.b.size == 3
    override(whole, "parts.b.rates", [3, 4])
    assert whole.parts.b.rates == (3.0, 4.0)
    override(whole, "name", "x")
    override(whole, "name", None)
    override(whole, "parts", {})
    assert build(whole, TRUST) == Whole({}, Part(7))


@pytest.mark.parametrize(
    ("key", "value", "error", "words"),
    [
        ("frist.size", 1, KeyError, "nearest is 'first'"),
        ("first.size", "x", ValueError, "needed int"),
        ("first", 1, KeyError, "is a section"),
        ("first", None, KeyError, "is a section"),
        ("first.size.x", 1, KeyError, "unknown config key"),
        ("parts.c.size", 1, KeyError, "keys here are ['a', 'b']"),
        ("parts", {"a": 1}, KeyError, "is a section"),
        ("first.class", "os:system", KeyError, "unknown config key"),
    ],
)
def test_a_wrong_override_is_named(whole, key, value, error, words):
    before = to_json(whole)
    with pytest.raises(error) as caught:
        override(whole, key, value)
    assert words in str(caught.value)
    assert to_json(whole) == before


def test_elements_of_tuples_have_keys_too():
    config = configs.ConfigDict({"rows": (node(Part, size=1), node(Part, size=2))})
    override(config, "rows.1.size", 5)
    assert [row.size for row in config.rows] == [1, 5]
    with pytest.raises(KeyError, match=r"rows\.2\.size"):
        override(config, "rows.2.size", 5)


def test_json_round_trip(whole):
    data = json.loads(json.dumps(to_json(whole)))
    assert build(from_json(data, TRUST), TRUST) == build(whole, TRUST)
    assert packages(whole) == tuple(sorted({TRUST[0], "wsm_jax"}))


def test_a_field_that_a_class_gained_takes_its_default_and_one_that_it_lost_is_an_error(whole):
    data = to_json(whole)
    del data["first"]["rates"]
    assert build(from_json(data, TRUST), TRUST).first == Part(2)
    data["first"]["old"] = 1
    with pytest.raises(KeyError, match="old"):
        from_json(data, TRUST)


@pytest.mark.parametrize(
    "path",
    [
        "os:system", "subprocess:run", "builtins:eval", "wsm_jax.runtime.checkpoint:subprocess.run", "wsm_jax.config:importlib",
        "wsm_jax.config:build", "wsm_jax.config:dataclasses.dataclass", "wsm_jax.training.optimizer:optax.adamw",
        "wsm_jax:World", "wsm_jaxx.evil:Thing", "wsm_jax.flow.path:Nothing", "wsm_jax.nothing:Thing", "", ":", "wsm_jax",
    ],
)  # fmt: skip
def test_a_stored_config_runs_no_other_code(path):
    with pytest.raises(ValueError, match="config names"):
        build({CLASS: path})
    with pytest.raises(ValueError, match="config names"):
        from_json({CLASS: path})


def test_classes_of_others_need_trust(whole):
    with pytest.raises(ValueError, match="--trust"):
        build(whole)
    with pytest.raises(ValueError, match="--trust"):
        from_json(to_json(whole))


def test_what_a_class_refuses_names_the_key(whole):
    override(whole, "name", "bad")
    with pytest.raises(ValueError, match="config outer: name is bad"):
        build(configs.ConfigDict({"outer": whole}), TRUST)


def test_a_renamed_class_is_found_in_its_table(monkeypatch):
    monkeypatch.setitem(configs.MOVED, "wsm_jax.flow.old:Mix", "wsm_jax.flow.path:LevelMix")
    stored = to_json(node(LevelMix)) | {CLASS: "wsm_jax.flow.old:Mix"}
    assert build(from_json(stored)) == LevelMix()


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_the_stored_config_of_every_release_builds(path):
    """Made by `to_json(load("experiments/quickstart.py"))`; a file is added with each release and never changed."""
    experiment = open_experiment(from_json(json.loads(path.read_text())))
    assert experiment.order == ("bridge", "world")


def test_there_is_a_golden_config_of_this_release():
    from importlib.metadata import version

    assert f"config_{version('wsm_jax')}" in [path.stem for path in GOLDEN]
