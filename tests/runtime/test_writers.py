"""Dashboards get what the JSON-lines file gets, in the records and calls that their own documentation names."""

import io
import struct
import sys
from contextlib import closing
from types import ModuleType, SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from wsm_jax.runtime.metrics import JsonLinesWriter, MetricWriter, read_metrics
from wsm_jax.runtime.writers import Dashboard, TensorBoard, Wandb, Writers, open_writers

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), np.uint8)


def encode(path, frames, fps):
    path.write_bytes(frames.tobytes() + str(fps).encode())


def use(writer: MetricWriter, step: int) -> None:
    writer.write(step, {"loss": 0.5 * step})
    writer.image(step, "front", FRAMES[0])
    writer.video(step, "bridge/clip", FRAMES, 10.0)


def events(folder):
    """Events of all files of a folder: TFRecords, which are length (8 bytes), checksum (4), data, checksum (4)."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]


def test_tensorboard_has_numbers_images_and_videos(tmp_path):
    with closing(open_writers(tmp_path, 0, {}, [TensorBoard()], encode)) as writer:
        use(writer, 1)
        use(writer, 2)
    values = [(event.step, value) for event in events(tmp_path / "tensorboard") for value in event.summary.value]
    assert [(step, value.simple_value) for step, value in values if value.tag == "loss"] == [(1, 0.5), (2, 1.0)]
    images = [(step, value.image.encoded_image_string) for step, value in values if value.tag == "front"]
    assert [step for step, _ in images] == [1, 2]
    np.testing.assert_array_equal(Image.open(io.BytesIO(images[0][1])), FRAMES[0])
    step, video = next((step, value.image) for step, value in values if value.tag == "bridge/clip")
    gif = Image.open(io.BytesIO(video.encoded_image_string))
    assert (step, video.height, video.width, gif.n_frames, gif.info["duration"]) == (1, 4, 6, 3, 100)
    np.testing.assert_array_equal(gif.convert("RGB"), FRAMES[0])
    # The JSON-lines file is there, too.
    assert [row["loss"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [0.5, 1.0]
    assert (tmp_path / "media/bridge/clip/2.mp4").read_bytes() == FRAMES.tobytes() + b"10.0"


def test_tensorboard_hides_what_lies_past_the_step_of_a_resumed_run(tmp_path):
    for first, last in ((0, 5), (2, 3)):
        with closing(TensorBoard("events").open(tmp_path, first, {}, encode)) as writer:
            for step in range(first + 1, last + 1):
                writer.write(step, {"loss": float(step)})
    seen: list[int] = []
    for event in events(tmp_path / "events"):
        if event.HasField("session_log"):  # TensorBoard forgets the events of this step and those after it
            seen = [step for step in seen if step < event.step]
        seen.extend([event.step] * len(event.summary.value))
    assert seen == [1, 2, 3]


@pytest.mark.parametrize(("frames", "fps"), [(FRAMES[:0], 10.0), (FRAMES, 0.0)])
def test_tensorboard_refuses_a_video_without_frames_or_rate(tmp_path, frames, fps):
    with closing(TensorBoard().open(tmp_path, 0, {}, encode)) as writer, pytest.raises(ValueError, match="clip"):
        writer.video(1, "clip", frames, fps)


@pytest.fixture
def wandb(monkeypatch):
    """A module with the part of W&B's documented interface that is used; it keeps the calls."""
    module, calls = ModuleType("wandb"), []

    class Video:
        def __init__(self, data_or_path: str, caption=None, fps=None, format=None):
            assert fps is None, "W&B warns that a rate has no effect on a file"
            with open(data_or_path, "rb") as file:
                self.data, self.format, self.path = file.read(), format, data_or_path

    class Run:
        def __init__(self, given):
            self.id = given["id"] or "new"

        def log(self, data: dict, step: int | None = None, commit: bool | None = None):
            calls.append(("log", data, step))

        def finish(self, exit_code: int | None = None):
            calls.append(("finish",))

    names = {"entity", "project", "dir", "id", "name", "config", "resume"}

    def init(**given):
        assert given.keys() <= names
        calls.append(("init", given))
        return Run(given)

    module.init, module.Image, module.Video = init, lambda image: ("image", np.asarray(image)), Video
    monkeypatch.setitem(sys.modules, "wandb", module)
    return SimpleNamespace(calls=calls)


def test_wandb_gets_the_documented_calls(wandb, tmp_path):
    dashboard = Wandb("worlds", name="first")
    with closing(open_writers(tmp_path, 0, {"seed": 3}, [dashboard], encode)) as writer:
        use(writer, 7)
    (_, init), (_, numbers, _), (_, images, _), (_, videos, _), end = wandb.calls
    assert init == {
        "entity": None, "project": "worlds", "dir": str(tmp_path), "id": None, "name": "first", "config": {"seed": 3},
        "resume": "allow",
    }  # fmt: skip
    assert [step for name, _, step in wandb.calls[1:4]] == [7, 7, 7]
    assert numbers == {"loss": 3.5}
    np.testing.assert_array_equal(images["front"][1], FRAMES[0])
    video = videos["bridge/clip"]
    assert (video.data, video.format, video.path[-4:]) == (FRAMES.tobytes() + b"10.0", "mp4", ".mp4")
    assert end == ("finish",)


def test_a_resumed_training_continues_its_wandb_run(wandb, tmp_path):
    for step in (0, 4):
        with closing(Wandb("worlds").open(tmp_path, step, {}, encode)):
            pass
    assert [call[1]["id"] for call in wandb.calls if call[0] == "init"] == [None, "new"]


def test_a_missing_package_is_an_error_that_names_the_extra(tmp_path, monkeypatch):
    for name, dashboard in {"wandb": Wandb("worlds"), "tensorboardX": TensorBoard()}.items():
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(ModuleNotFoundError, match=rf"wsm_jax\[{name.lower().rstrip('x')}\]"):
            open_writers(tmp_path, 0, {}, [dashboard], encode)


def test_settings_are_dashboards_without_side_effects(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert isinstance(TensorBoard(), Dashboard)
    assert Wandb("worlds") == Wandb("worlds")
    assert isinstance(Wandb("worlds"), Dashboard)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with closing(open_writers(tmp_path, 0, {}, [TensorBoard(), Wandb("worlds")], encode)) as writer:
        use(writer, 1)
    assert list(tmp_path.iterdir()) == []


def test_every_writer_is_closed_also_after_one_that_fails():
    closed = []

    class Broken(JsonLinesWriter):
        def __init__(self, name):
            self.name = name

        def close(self):
            closed.append(self.name)
            raise OSError(self.name)

    with pytest.raises(OSError, match="a"):
        Writers([Broken("a"), Broken("b")]).close()
    assert sorted(closed) == ["a", "b"]
