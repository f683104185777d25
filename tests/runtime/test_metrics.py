"""Metric files of resumed runs have no gaps and no doubles."""

import json
import math
from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from wsm_jax.runtime.metrics import JsonLinesWriter, MetricWriter, fetch, read_metrics


def picture(step: int) -> np.ndarray:
    return np.random.default_rng(step).integers(0, 256, (4, 6, 3), np.uint8)


def encode(path, frames, fps):
    path.write_bytes(frames.tobytes() + str(fps).encode())


def test_rows_read_back_also_those_that_are_not_finite(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with closing(JsonLinesWriter(path, 0)) as writer:
        assert isinstance(writer, MetricWriter)
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
    with closing(JsonLinesWriter(path, 0)) as writer:
        for step in range(1, 6):
            writer.write(step, {"loss": float(step)})
    with path.open("a") as file:
        file.write('{"step": 2, "time"')
    with closing(JsonLinesWriter(path, 3)) as writer:
        writer.write(4, {"loss": 40.0})
    assert [(row["step"], row["loss"]) for row in read_metrics(path)] == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 40.0)]


def test_the_media_of_a_resumed_run_are_those_of_the_uninterrupted_one(tmp_path):
    def run(folder, first, last):
        with closing(JsonLinesWriter(folder / "metrics.jsonl", first, encode)) as writer:
            for step in range(first + 1, last + 1):
                writer.image(step, "bridge/front view", picture(step))
                writer.video(step, "clip", np.stack([picture(step)] * 3), 8.0)

    def files(folder):
        return {str(path.relative_to(folder)): path.read_bytes() for path in (folder / "media").rglob("*.*")}

    for name, parts in {"whole": [(0, 3)], "resumed": [(0, 5), (2, 3)]}.items():
        (tmp_path / name).mkdir()
        for part in parts:
            run(tmp_path / name, *part)
    whole, resumed = files(tmp_path / "whole"), files(tmp_path / "resumed")
    assert whole == resumed
    assert sorted(whole) == sorted(
        f"media/{x}/{i}{s}" for x, s in (("bridge/front view", ".png"), ("clip", ".mp4")) for i in (1, 2, 3)
    )
    np.testing.assert_array_equal(Image.open(tmp_path / "whole/media/bridge/front view/2.png"), picture(2))
    assert whole["media/clip/2.mp4"] == np.stack([picture(2)] * 3).tobytes() + b"8.0"


@pytest.mark.parametrize("name", ["", "/clip", "../clip", "a/../b", "a//b", "clip/", ".hidden", "a\\b"])
def test_a_media_name_stays_inside_the_media_folder(tmp_path, name):
    with closing(JsonLinesWriter(tmp_path / "metrics.jsonl", 0)) as writer, pytest.raises(ValueError, match="media name"):
        writer.image(1, name, picture(1))
    assert [path.name for path in tmp_path.rglob("*")] == ["metrics.jsonl"]


def test_a_video_without_encoder_is_an_error_that_says_what_to_pass(tmp_path):
    with closing(JsonLinesWriter(tmp_path / "metrics.jsonl", 0)) as writer, pytest.raises(ValueError, match="encode_video"):
        writer.video(1, "clip", picture(1)[None], 8.0)


def test_only_process_0_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with closing(JsonLinesWriter(tmp_path / "metrics.jsonl", 0, encode)) as writer:
        writer.write(1, {"loss": 1.0})
        writer.image(1, "front", picture(1))
        writer.video(1, "clip", picture(1)[None], 8.0)
    assert list(tmp_path.iterdir()) == []


def test_fetch_gives_plain_numbers():
    assert fetch({"a": jnp.float32(0.5), "b": jnp.array(True), "c": 2}) == {"a": 0.5, "b": 1.0, "c": 2.0}
