"""`@pytree`: a checked frozen dataclass whose leaves a tree map may still replace by anything."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from jaxtyping import TypeCheckError

from wsm_jax.snapshot import WSG, WSV, Camera, orbit
from wsm_jax.snapshot.waves import Waves, empty
from wsm_jax.typing import pytree, static


@pytest.fixture
def waves():
    return empty(4, (2,))


@pytest.mark.parametrize(
    "replacement",
    [None, PartitionSpec("data"), jax.ShapeDtypeStruct((1,), jnp.float32), "text", 3],
    ids=lambda r: type(r).__name__,
)
def test_leaves_may_be_mapped_to_anything(waves, replacement):
    mapped = jax.tree.map(lambda _: replacement, waves)
    assert type(mapped) is Waves
    assert all(getattr(mapped, f.name) is replacement for f in dataclasses.fields(Waves))


def test_flattening_round_trips_and_names_its_paths(waves):
    leaves, structure = jax.tree.flatten(waves)
    back = jax.tree.unflatten(structure, leaves)
    assert all(a is b for a, b in zip(leaves, jax.tree.leaves(back), strict=True))
    paths = [
        jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(WSG({"rgb": np.zeros(1)}, core=waves))
    ]
    assert paths[0] == ".channels['rgb']"
    assert ".core.angular_velocity" in paths


def test_it_passes_through_the_transformations(waves):
    shapes = jax.eval_shape(lambda w: w[0], waves)
    assert shapes.centre.shape == (4, 3)
    assert type(shapes) is Waves

    def double(w):
        return jax.tree.map(lambda x: 2 * x, w)

    for run in (jax.jit(double), jax.vmap(double), lambda w: jax.lax.scan(lambda c, _: (double(c), None), w, None, 1)[0]):
        np.testing.assert_allclose(run(waves).scale, 2 * waves.scale)
    floats = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), orbit(3))
    gradient = jax.grad(lambda c: jnp.sum(c.position**2) + jnp.sum(c.focal))(floats)
    assert type(gradient) is Camera
    np.testing.assert_allclose(gradient.position, 2 * floats.position, rtol=1e-6)


def test_replace_changes_a_copy_and_checks_it(waves):
    other = waves.replace(presence=np.ones((2, 4), np.float32))
    assert other.presence.all()
    assert not waves.presence.any()
    assert other.centre is waves.centre
    with pytest.raises(TypeCheckError):
        waves.replace(presence=np.ones((2, 5), np.float32))


def test_it_is_frozen(waves):
    with pytest.raises(dataclasses.FrozenInstanceError):
        waves.presence = None


@pytest.mark.parametrize(
    "change",
    [
        {"centre": np.zeros((2, 4, 2), np.float32)},
        {"centre": np.zeros((3, 4, 3), np.float32)},
        {"semantic": np.zeros((2, 4), np.float32)},
        {"presence": [0.0]},
    ],
    ids=["components", "lead", "dtype", "no array"],
)
def test_a_wrong_shape_is_rejected_at_construction(waves, change):
    fields = {f.name: getattr(waves, f.name) for f in dataclasses.fields(Waves)}
    with pytest.raises(TypeCheckError):
        Waves(**{**fields, **change})


def test_static_fields_are_structure():
    video = WSV({}, np.arange(2.0), text=("a",))
    assert len(jax.tree.leaves(video)) == 1
    assert jax.tree.structure(video) != jax.tree.structure(dataclasses.replace(video, text=("b",)))
    traces = []

    @jax.jit
    def count(v):
        traces.append(v.text)
        return v.frame_time

    for text in (("a",), ("a",), ("b",)):
        count(dataclasses.replace(video, text=text))
    assert traces == [("a",), ("b",)]


def test_a_class_of_ones_own():
    @pytree
    class Pair:
        x: jax.Array
        y: jax.Array
        name: str = static(default="p")

    pair = Pair(jnp.ones(2), jnp.zeros(2), "q")
    swapped = jax.jit(lambda p: p.replace(x=p.y, y=p.x))(pair)
    assert swapped.name == "q"
    np.testing.assert_array_equal(swapped.x, pair.y)
