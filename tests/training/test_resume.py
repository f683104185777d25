"""A training that is killed and started again is the training that was never killed, bit for bit."""

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np

from wsm_jax.runtime import METRICS_FILE, read_metrics

STEPS = 23
TOY = Path(__file__).with_name("toy.py")


def start(workdir, kill_after=0):
    """A training in its own process, on one CPU device."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {"JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(TOY), str(workdir), str(STEPS), str(kill_after)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process, code):
    output, _ = process.communicate(timeout=400)
    assert process.returncode == code, output
    return output


def losses(workdir):
    return [(row["step"], row["loss"], row["grad_norm"]) for row in read_metrics(workdir / METRICS_FILE)]


def test_killed_at_a_random_step_and_resumed_equals_uninterrupted(tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    kill_after = random.randrange(1, STEPS)
    print(f"killed after {kill_after} updates")
    uninterrupted = start(whole)
    finish(start(broken, kill_after), -9)
    assert not (broken / "final.npz").exists()
    finish(start(broken), 0)
    finish(uninterrupted, 0)
    assert [step for step, *_ in losses(whole)] == list(range(1, STEPS + 1))
    assert losses(broken) == losses(whole)
    with np.load(whole / "final.npz") as one, np.load(broken / "final.npz") as two:
        assert set(one) == set(two)
        assert any("ema" in name for name in one)
        for name in one:
            assert one[name].tobytes() == two[name].tobytes(), name
