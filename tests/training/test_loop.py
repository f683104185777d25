"""The loop saves what is good, stops at what is not, and says so."""

import shutil
import signal
from collections import namedtuple

import jax
import numpy as np
import pytest
from flax import linen as nn

from wsm_jax.runtime import METRICS_FILE, checkpoint, make_mesh, read_metrics, restore_params
from wsm_jax.training import Preempted, loop


def saved(workdir):
    return sorted(int(folder.name) for folder in (workdir / "checkpoints").iterdir())


def test_a_training_learns_logs_saves_and_is_done(toy, tmp_path, capsys):
    state = toy.run(tmp_path, 12, log_every=4, progress=True)
    assert int(state.step) == 12
    rows = read_metrics(tmp_path / METRICS_FILE)
    assert [row["step"] for row in rows] == [4, 8, 12]
    assert {"loss", "rmse", "grad_norm", "data_seconds", "time"} <= set(rows[0])
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert saved(tmp_path) == [10, 12]
    assert "12/12" in capsys.readouterr().err
    params, config = restore_params(tmp_path)
    assert config == toy.CONFIG
    jax.tree.map(np.testing.assert_array_equal, params, state.ema)
    # The same command again has nothing to do, and gives the same.
    again = toy.run(tmp_path, 12)
    jax.tree.map(np.testing.assert_array_equal, again, state)
    assert "resumed from step 12" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"steps = 10: .*already at step 12"):
        toy.run(tmp_path, 10)


def test_sigterm_saves_at_once_and_the_same_command_goes_on(toy, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Preempted) as stopped:
        toy.run(tmp_path / "a", 12, hooks=(toy.signal_after(8, signal.SIGTERM),))
    assert stopped.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert saved(tmp_path / "a") == [5, 8]
    resumed, whole = toy.leaves(toy.run(tmp_path / "a", 12)), toy.leaves(toy.run(tmp_path / "b", 12))
    assert {name: leaf.tobytes() for name, leaf in resumed.items()} == {name: leaf.tobytes() for name, leaf in whole.items()}


def test_a_resumed_training_may_change_its_mesh(toy, tmp_path):
    toy.run(tmp_path, 5, mesh=make_mesh(2, 2, 2, 1))
    on_another = toy.run(tmp_path, 8, mesh=make_mesh(1, 4, 1, 2))
    assert on_another.params["second"]["kernel"].sharding.shard_shape((8, 16)) == (2, 16)
    whole = toy.run(tmp_path / "whole", 8)
    for name, leaf in toy.leaves(whole.params).items():
        np.testing.assert_allclose(toy.leaves(on_another.params)[name], leaf, atol=1e-5 * np.abs(leaf).max(), rtol=0)


@pytest.mark.parametrize("bad_at", [6, 9])
def test_a_loss_that_is_not_finite_stops_before_it_is_saved(toy, tmp_path, bad_at):
    # Batch 6 fails between two saves, batch 9 in the very step that would be saved.
    with pytest.raises(FloatingPointError, match=rf"step {bad_at + 1}: loss nan.*newest checkpoint: step 5"):
        toy.run(tmp_path, 20, batches=toy.Batches(bad_at=bad_at))
    assert saved(tmp_path) == [5]
    assert [row["step"] for row in read_metrics(tmp_path / METRICS_FILE)] == list(range(1, bad_at + 1))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(restore_params(tmp_path)[0]))
    # With good batches the same command goes on.
    assert int(toy.run(tmp_path, 12).step) == 12


def test_the_workdir_of_another_experiment_is_refused(toy, tmp_path):
    toy.run(tmp_path, 5)
    with pytest.raises(ValueError, match=r"another experiment:\n  seed: there 3, here 4"):
        toy.run(tmp_path, 10, config={**toy.CONFIG, "seed": 4})
    assert int(toy.run(tmp_path, 6, config={**toy.CONFIG, "seed": 4}, may_differ=("seed",)).step) == 6


def test_a_full_disk_stops_with_the_numbers_and_keeps_the_checkpoint_before_it(toy, tmp_path, monkeypatch):
    usage, calls = namedtuple("usage", "free"), []

    def filling(path):
        calls.append(path)
        return usage(2**40 if len(calls) <= 2 else 10)

    monkeypatch.setattr(checkpoint.shutil, "disk_usage", filling)
    with pytest.raises(OSError, match=r"MiB left.*it goes on from step 5"):
        toy.run(tmp_path, 20)
    monkeypatch.undo()
    assert saved(tmp_path) == [5]
    assert int(toy.run(tmp_path, 11).step) == 11


def test_hooks_see_every_step_and_their_values_are_logged(toy, tmp_path):
    seen = []

    def hook(done, state, writer):
        seen.append((done, int(state.step)))
        return {"answer": 42.0} if done == 3 else None

    toy.run(tmp_path, 6, hooks=(hook,), log_every=5)
    assert seen == [(n, n) for n in range(1, 7)]
    rows = read_metrics(tmp_path / METRICS_FILE)
    assert [(row["step"], row.get("answer")) for row in rows] == [(3, 42.0), (5, None), (6, None)]


def test_what_cannot_work_is_refused_before_anything_is_written(toy, tmp_path):
    workdir = tmp_path / "run"

    class Odd(toy.Regression):
        def init(self, key):
            return {"w": nn.LogicallyPartitioned(jax.numpy.ones((6, 2)), names=("embed", "channels"))}

    with pytest.raises(ValueError, match=r"parameter w: axis 'embed' of size 6.*fsdp=4"):
        toy.run(workdir, 5, objective=Odd(), mesh=make_mesh(2, 4, 1, 1))
    with pytest.raises(ValueError, match="log_every = 0"):
        toy.run(workdir, 5, log_every=0)
    assert not workdir.exists()
    with pytest.raises(ValueError, match=r"batch\['x'\].*12 rows.*multiple of 8"):
        toy.run(workdir, 5, batches=toy.Batches(rows=12), mesh=make_mesh(8, 1, 1, 1))


def test_a_damaged_checkpoint_is_refused_and_the_one_before_it_still_works(toy, tmp_path):
    toy.run(tmp_path, 10)
    newest = tmp_path / "checkpoints" / "10"
    for file in (newest / "train").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(ValueError, match=r"checkpoints/10.*damaged.*from one of \[5\]"):
        toy.run(tmp_path, 12)
    shutil.move(newest, tmp_path / "damaged")
    assert int(toy.run(tmp_path, 12).step) == 12


def test_the_next_batch_is_made_and_sent_before_a_step_is_waited_for(toy, tmp_path, monkeypatch):
    """Devices run while the host reads and sends: what it does is told in order, and only `fetch` waits."""
    told = []

    class Batches(toy.Batches):
        def __next__(self):
            told.append("made")
            return super().__next__()

    def telling(name, function):
        call = getattr(loop, function)
        monkeypatch.setattr(loop, function, lambda *given: told.append(name) or call(*given))

    telling("sent", "global_batch")
    telling("waited", "fetch")
    toy.run(tmp_path, 6, batches=Batches(), checkpoint_every=6)
    assert told == ["made", "sent"] + ["made", "sent", "waited"] * 5 + ["waited"]
