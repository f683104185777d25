"""The axis table is total: a parameter is split as it says, or an error names the parameter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import PartitionSpec as P

from wsm_jax.runtime import mesh as meshes


def box(shape, names, dtype=jnp.float32):
    return nn.LogicallyPartitioned(jax.ShapeDtypeStruct(shape, dtype), names=names)


def test_the_rest_of_the_devices_fill_the_free_axis():
    mesh = meshes.make_mesh(-1, 2, 2, 1)
    assert mesh.axis_names == meshes.MESH_AXES == ("data", "fsdp", "tensor", "context")
    assert tuple(mesh.shape.values()) == (2, 2, 2, 1)
    assert meshes.make_mesh(1, 1, 1, 1, jax.devices()[:1]).size == 1


@pytest.mark.parametrize("sizes", [(3, 1, 1, 1), (-1, 3, 1, 1), (-1, -1, 1, 1), (8, 0, 1, 1), (16, 1, 1, 1), (-1, 16, 1, 1)])
def test_sizes_that_do_not_fit_the_devices_are_an_error_with_the_numbers(sizes):
    with pytest.raises(ValueError, match=rf"data={sizes[0]}, fsdp={sizes[1]}") as caught:
        meshes.make_mesh(*sizes)
    assert "8" in str(caught.value) or "-1" in str(caught.value)


def test_every_mesh_axis_in_the_table_exists():
    assert {axis for axes in meshes.AXES.values() for axis in axes} <= set(meshes.MESH_AXES)
    # A batch axis is split first, so that activations may also name `embed`.
    assert next(iter(meshes.AXES)) == "batch"


def test_parameters_lie_where_the_table_says():
    mesh = meshes.make_mesh(1, 4, 2, 1)
    tree = {"mlp": {"kernel": box((8, 6), ("embed", "mlp"))}, "table": box((10, 4), ("vocab", "embed")), "count": jnp.zeros(())}
    placed = meshes.shardings(mesh, tree)
    assert placed["mlp"]["kernel"].spec == P(("fsdp",), ("tensor",))
    assert placed["table"].spec == P(("tensor",), ("fsdp",))
    assert placed["count"].spec == P()
    assert placed["mlp"]["kernel"].shard_shape((8, 6)) == (2, 3)
    assert jax.tree.structure(placed) == jax.tree.structure(meshes.unbox(tree))


@pytest.mark.parametrize(
    ("leaf", "error", "words"),
    [
        (box((8, 6), ("embed", "mpl")), KeyError, ["a/kernel", "'mpl'", "mlp"]),
        (box((8, 6), ("embed", None)), ValueError, ["a/kernel", "no name"]),
        (box((6, 6), ("embed", "mlp")), ValueError, ["a/kernel", "'embed'", "size 6", "fsdp=4"]),
        (box((8, 8), ("embed", "embed")), ValueError, ["a/kernel", "'fsdp'"]),
        (box((8,), ("embed", "mlp")), ValueError, ["a/kernel", "(8,)", "names 2"]),
        (jax.ShapeDtypeStruct((8, 6), jnp.float32), ValueError, ["a/kernel", "(8, 6)", "with_logical_partitioning"]),
    ],
)
def test_what_does_not_fit_is_an_error_that_names_path_size_and_axes(leaf, error, words):
    mesh = meshes.make_mesh(1, 4, 2, 1)
    with pytest.raises(error) as caught:
        meshes.shardings(mesh, {"a": {"kernel": leaf}})
    for word in words:
        assert word in str(caught.value)


def test_bare_arrays_of_an_optimizer_may_be_replicated():
    mesh = meshes.make_mesh(-1, 1, 1, 1)
    assert meshes.shardings(mesh, {"c": jnp.zeros(3)}, replicate_bare=True)["c"].spec == P()


def test_a_batch_is_split_by_rows_and_keeps_its_values():
    mesh = meshes.make_mesh(2, 2, 2, 1)
    local = {"x": np.arange(24, dtype=np.float32).reshape(8, 3), "known": np.ones(8, bool)}
    batch = meshes.global_batch(mesh, local)
    jax.tree.map(np.testing.assert_array_equal, batch, local)
    assert {shard.data.shape for shard in batch["x"].addressable_shards} == {(2, 3)}


def test_rows_that_do_not_divide_are_an_error_with_leaf_and_numbers():
    mesh = meshes.make_mesh(2, 2, 2, 1)
    with pytest.raises(ValueError, match=r"batch\['x'\].*6 rows.*data=2 x fsdp=2.*multiple of 4"):
        meshes.global_batch(mesh, {"x": np.zeros((6, 3))})
    with pytest.raises(ValueError, match=r"multiple of 8"):
        meshes.check_batch(mesh, 4, accumulate=2)
    meshes.check_batch(mesh, 8, accumulate=2)


def test_activation_constraints_follow_the_table_inside_a_model():
    mesh = meshes.make_mesh(2, 2, 2, 1)

    def model(x):
        with meshes.logical_axes(mesh):
            return nn.with_logical_constraint(2.0 * x, ("batch", "tokens", "mlp"))

    batch = jax.device_put(np.ones((8, 4, 6), np.float32), meshes.batch_sharding(mesh))
    assert jax.jit(model)(batch).sharding.shard_shape((8, 4, 6)) == (2, 4, 3)
