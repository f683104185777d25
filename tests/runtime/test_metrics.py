"""Metric files of resumed runs have no gaps and no doubles; a silence leaves stacks behind."""

import json
import math
import time
from contextlib import closing

import jax.numpy as jnp
import pytest

from wsm_jax.runtime.metrics import MetricWriter, ProgressBar, Watchdog, fetch, read_metrics


def test_rows_read_back_also_those_that_are_not_finite(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with closing(MetricWriter(path, 0)) as writer:
        writer.write(1, {"loss": 0.1, "psnr": math.inf})
        writer.write(2, {"loss": math.nan})
        # Readable while the run goes on: a killed process loses no row.
        assert len(read_metrics(path)) == 2
    first, second = read_metrics(path)
    assert (first["step"], first["loss"], first["psnr"]) == (1, 0.1, math.inf)
    assert math.isnan(second["loss"])
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_a_resumed_run_drops_the_rows_past_its_step_and_a_half_row(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with closing(MetricWriter(path, 0)) as writer:
        for step in range(1, 6):
            writer.write(step, {"loss": float(step)})
    with path.open("a") as file:
        file.write('{"step": 2, "time"')
    with closing(MetricWriter(path, 3)) as writer:
        writer.write(4, {"loss": 40.0})
    assert [(row["step"], row["loss"]) for row in read_metrics(path)] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]


def test_fetch_gives_plain_numbers():
    assert fetch({"a": jnp.float32(0.5), "b": jnp.array(True), "c": 2}) == {"a": 0.5, "b": 1.0, "c": 2.0}


def test_the_bar_shows_time_left_and_the_loss(capsys):
    with closing(ProgressBar("flow", 10, 4, show=True)) as bar:
        for _ in range(6):
            bar.update({"loss": 0.123456})
    shown = capsys.readouterr().err
    assert "flow" in shown
    assert "10/10" in shown
    with closing(ProgressBar("flow", 10, 0, show=False)) as bar:
        bar.update({"loss": 1.0})
    assert capsys.readouterr().err == ""


def test_a_silence_is_told_once_with_the_stacks(tmp_path, capsys):
    path = tmp_path / "hang.log"
    with closing(Watchdog(path, 0.3)) as watchdog:
        for _ in range(10):
            time.sleep(0.05)
            watchdog.beat()
        assert not path.exists()
        time.sleep(1.0)
        text = path.read_text()
        assert "test_a_silence_is_told_once" in text
        watchdog.beat()
        time.sleep(0.8)
    assert path.read_text().count("no step finished") == 2
    assert str(path) in capsys.readouterr().err
    with pytest.raises(ValueError, match="positive"):
        Watchdog(path, 0.0)
