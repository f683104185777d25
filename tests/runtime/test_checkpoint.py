"""A checkpoint comes back bit for bit on any mesh, or an error says which file is wrong and what to do."""

import json
import resource
import shutil
from collections import namedtuple
from contextlib import closing, contextmanager

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from wsm_jax.runtime import checkpoint
from wsm_jax.runtime.checkpoint import Checkpoints, config_differences, restore_params
from wsm_jax.runtime.mesh import make_mesh

CONFIG = {"name": "toy", "model": {"width": 8, "depth": 2}, "steps": 100}
Moments = namedtuple("Moments", "count mu")


def single():
    return make_mesh(1, 1, 1, 1, jax.devices()[:1])


def placed(tree, mesh, *axes):
    """Matrices over `axes`, the rest whole."""
    return jax.tree.map(lambda leaf: NamedSharding(mesh, PartitionSpec(*axes) if leaf.ndim == 2 else PartitionSpec()), tree)


def trees(seed=0, size=8):
    rng = np.random.default_rng(seed)
    kernel = rng.standard_normal((size, 8)).astype(np.float32)
    train = {"step": np.int32(seed), "w": {"kernel": kernel}, "opt": (Moments(np.int32(3), {"kernel": kernel**2}), ())}
    half = np.asarray(jnp.asarray(rng.standard_normal(5), jnp.bfloat16))
    return {"train": train, "ema": {"w": {"kernel": 2 * kernel, "bias": half}}}


def put(tree, mesh, *axes):
    return jax.device_put(tree, placed(jax.tree.map(np.asarray, tree), mesh, *axes))


def abstract(tree):
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), np.asarray(leaf).dtype), tree)


def opened(path, config=CONFIG, keep=2, **kwargs):
    return closing(Checkpoints(path, config, keep=keep, **kwargs))


def restored(checkpoints, like, mesh, *axes, step=None):
    shape = abstract(like)
    return checkpoints.restore(shape, placed(shape, mesh, *axes), step)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b)):
        assert np.asarray(x).dtype == np.asarray(y).dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.mark.parametrize("data_state", [{"position": 7, "seed": [1, 2]}, b"\x00grain\xff", None])
def test_everything_comes_back_bit_for_bit(tmp_path, data_state):
    with opened(tmp_path) as checkpoints:
        assert checkpoints.latest() is None
        checkpoints.save(5, put(trees(), single()), data_state)
        checkpoints.wait()
    with opened(tmp_path) as checkpoints:
        back, state, step = restored(checkpoints, trees(), single())
    assert step == 5
    assert state == data_state
    assert_same(back, trees())


def test_a_checkpoint_of_one_mesh_restores_on_every_other(tmp_path):
    with opened(tmp_path) as checkpoints:
        checkpoints.save(1, put(trees(), make_mesh(2, 4, 1, 1), "fsdp", "data"), None)
        checkpoints.wait()
        for mesh, axes in [(single(), ()), (make_mesh(1, 2, 4, 1), ("tensor", "fsdp")), (make_mesh(8, 1, 1, 1), ("data",))]:
            back, _, _ = restored(checkpoints, trees(), mesh, *axes)
            assert back["train"]["w"]["kernel"].sharding == NamedSharding(mesh, PartitionSpec(*axes))
            assert_same(back, trees())


def test_arrays_may_be_overwritten_as_soon_as_save_returns(tmp_path):
    mesh = single()
    advance = jax.jit(lambda tree: jax.tree.map(lambda x: x * 3 + 1, tree), donate_argnums=0)
    before = trees(size=4096)
    live = put(before, mesh)
    with opened(tmp_path) as checkpoints:
        checkpoints.save(1, live, None)
        for _ in range(20):
            live = advance(live)
        jax.block_until_ready(live)
        checkpoints.wait()
        back, _, _ = restored(checkpoints, before, mesh)
    assert_same(back, before)


def test_only_the_newest_are_kept_and_each_can_be_asked_for(tmp_path):
    with opened(tmp_path, keep=2) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, put(trees(step), single()), step)
        checkpoints.wait()
        assert checkpoints.latest() == 3
        assert restored(checkpoints, trees(), single(), step=2)[1] == 2
        with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 1; there are \[2, 3\]"):
            restored(checkpoints, trees(), single(), step=1)


def test_inference_reads_the_average_alone(tmp_path):
    with opened(tmp_path) as checkpoints:
        checkpoints.save(1, put(trees(), make_mesh(2, 4, 1, 1), "fsdp"), None)
        checkpoints.wait()
    shutil.rmtree(tmp_path / "checkpoints" / "1" / "train")
    params, config = restore_params(tmp_path)
    assert config == CONFIG
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(params))
    assert_same(params, trees()["ema"])


def test_what_is_not_there_is_an_error_with_the_path(tmp_path):
    with pytest.raises(FileNotFoundError, match="checkpoints: no checkpoint"):
        restore_params(tmp_path)
    with opened(tmp_path) as checkpoints, pytest.raises(FileNotFoundError, match="checkpoints: no checkpoint"):
        restored(checkpoints, trees(), single())
    with pytest.raises(FileNotFoundError, match="checkpoints: no checkpoint"):
        restore_params(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: not JSON"):
        Checkpoints(tmp_path, CONFIG, keep=1)
    with pytest.raises(ValueError, match="gs://bucket/run"):
        Checkpoints("gs://bucket/run", CONFIG, keep=1)


def test_a_checkpoint_copied_alone_carries_its_config(tmp_path):
    with opened(tmp_path / "run") as checkpoints:
        checkpoints.save(3, trees(), None)
    shutil.copytree(tmp_path / "run" / "checkpoints" / "3", tmp_path / "alone")
    shutil.rmtree(tmp_path / "run")
    params, config = restore_params(tmp_path / "alone")
    assert config == CONFIG
    assert_same(params, trees()["ema"])


def test_the_workdir_of_another_experiment_is_an_error_that_lists_the_keys(tmp_path):
    with opened(tmp_path):
        pass
    other = {"name": "toy", "model": {"width": 16, "depth": 2, "heads": 1}, "steps": 200}
    before = (tmp_path / "config.json").read_bytes()
    with pytest.raises(ValueError, match="another experiment") as caught:
        Checkpoints(tmp_path, other, keep=1)
    message = str(caught.value)
    assert "model.width: there 8, here 16" in message
    assert "model.heads: there absent, here 1" in message
    assert "steps: there 100, here 200" in message
    assert "depth" not in message
    assert (tmp_path / "config.json").read_bytes() == before
    with opened(tmp_path, config={**CONFIG, "steps": 200}, may_differ=("steps",)):
        assert json.loads((tmp_path / "config.json").read_text())["steps"] == 200
    assert config_differences(CONFIG, {**CONFIG, "model": {}}, may_differ=("model",)) == []
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"has checkpoints but no config\.json"):
        Checkpoints(tmp_path, CONFIG, keep=1)


def test_arrays_of_another_model_are_an_error(tmp_path):
    with opened(tmp_path) as checkpoints:
        checkpoints.save(1, put(trees(), single()), None)
        checkpoints.wait()
        with pytest.raises(ValueError, match=r"checkpoints/1.*other code.*shape"):
            restored(checkpoints, trees(size=16), single())
        more = trees()
        more["ema"]["w"]["scale"] = np.zeros(3, np.float32)
        with pytest.raises(ValueError, match=r"checkpoints/1.*scale"):
            restored(checkpoints, more, single())


def test_a_flipped_byte_never_comes_back_as_an_array(tmp_path):
    with opened(tmp_path) as checkpoints:
        checkpoints.save(1, put(trees(), single()), {"position": 123456})
        checkpoints.wait()
    expected = trees()["ema"]
    folder = tmp_path / "checkpoints" / "1"
    found = 0
    # The largest file of the average holds its arrays; `meta` holds the position of the data.
    for file in (max((folder / "ema").rglob("d/*"), key=lambda f: f.stat().st_size), folder / "meta" / "metadata"):
        whole = file.read_bytes()
        for place in range(0, len(whole), max(1, len(whole) // 12)):
            file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            try:
                assert_same(restore_params(tmp_path)[0], expected)
            except ValueError as error:
                assert str(folder) in str(error)  # noqa: PT017
                found += 1
        file.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(ValueError, match="damaged"):
            restore_params(tmp_path)
        file.write_bytes(whole)
    assert found >= 12


def test_a_half_written_checkpoint_is_not_seen(tmp_path):
    with opened(tmp_path) as checkpoints:
        checkpoints.save(1, put(trees(), single()), None)
        checkpoints.wait()
    # Orbax writes under this name, and renames what is whole.
    half = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "checkpoints" / "1", half)
    shutil.rmtree(half / "train")
    assert_same(restore_params(tmp_path)[0], trees()["ema"])
    with opened(tmp_path) as checkpoints:
        assert checkpoints.latest() == 1


@contextmanager
def file_size_limit(size):
    """Writes past `size` bytes of a file fail, as on a full disk; the process is not killed for it (Python ignores SIGXFSZ)."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_a_write_that_fails_leaves_the_checkpoint_before_it(tmp_path):
    with opened(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, put(trees(1, size=8192), single()), 1)
        checkpoints.wait()

        def save_second():
            checkpoints.save(2, put(trees(2, size=8192), single()), 2)
            checkpoints.wait()

        with file_size_limit(60_000), pytest.raises(OSError, match=r"checkpoints: .*could not be written.*disk has room"):
            save_second()
    with opened(tmp_path, keep=1) as checkpoints:
        back, state, step = restored(checkpoints, trees(size=8192), single())
        assert (state, step) == (1, 1)
        assert_same(back, trees(1, size=8192))
        # And once there is room again, the same command goes on.
        checkpoints.save(2, put(trees(2, size=8192), single()), 2)
        checkpoints.wait()
        assert checkpoints.latest() == 2


def test_no_room_is_an_error_with_the_numbers_before_anything_is_written(tmp_path, monkeypatch):
    with opened(tmp_path) as checkpoints:
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda path: usage._replace(free=2**20))
        with pytest.raises(OSError, match=r"has 1\.0 MiB left, a checkpoint needs 1\.5 MiB"):
            checkpoints.save(1, put(trees(size=2**14), single()), None)
        assert list((tmp_path / "checkpoints").iterdir()) == []


def test_the_version_names_the_code():
    assert checkpoint.code_version().startswith(checkpoint.metadata.version("wsm_jax"))
