"""Dashboards that show the metrics of a training: TensorBoard and Weights & Biases, both optional extras.

`TensorBoard` and `Wandb` are settings: cheap, comparable, free of side effects. `open` starts the writer that they describe.
"""

import dataclasses
import io
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from PIL import Image

from wsm_jax.extras import extra
from wsm_jax.files import write_file
from wsm_jax.runtime.metrics import METRICS_FILE, EncodeVideo, JsonLinesWriter, MetricWriter
from wsm_jax.typing import UInt8

WANDB_ID_FILE = "wandb_id"
"""File of the workdir with the id of its W&B run, so that a resumed training continues that run."""


@runtime_checkable
class Dashboard(Protocol):
    """Settings of a metric writer beside the JSON-lines file."""

    def open(self, workdir: Path, step: int, config: Mapping[str, Any], encode_video: EncodeVideo) -> MetricWriter:
        """Start the writer of a training that has done `step` updates in `workdir` with `config`."""
        ...


@dataclasses.dataclass(frozen=True)
class TensorBoard:
    """Event files in `folder` of the workdir, for `tensorboard --logdir`; needs the extra `tensorboard`."""

    folder: str = "tensorboard"

    def open(self, workdir: Path, step: int, config: Mapping[str, Any], encode_video: EncodeVideo) -> MetricWriter:
        """Start an event file. Raises ModuleNotFoundError without the extra, OSError."""
        return TensorBoardWriter(workdir / self.folder, step)


@dataclasses.dataclass(frozen=True)
class Wandb:
    """Run of Weights & Biases, one for each workdir; needs the extra `wandb`."""

    project: str
    name: str | None = None
    """Name of the run; None lets the service choose one."""
    entity: str | None = None
    """User or team; None is the default of the account."""

    def open(self, workdir: Path, step: int, config: Mapping[str, Any], encode_video: EncodeVideo) -> MetricWriter:
        """Start the run of the workdir, or continue it. Raises ModuleNotFoundError without the extra, errors of the service."""
        return WandbWriter(self, workdir, config, encode_video)


class TensorBoardWriter:
    """Event files of tensorboardX. TensorBoard hides the events past `step` that an interrupted training left behind."""

    def __init__(self, folder: Path, step: int) -> None:
        self._module = extra("tensorboardX", "tensorboard")
        # Files are named by the second and the host; the step keeps two trainings in one second apart.
        self._writer = self._module.SummaryWriter(str(folder), purge_step=step + 1, filename_suffix=f".{step}")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add one scalar for each value."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, step: int, name: str, image: UInt8[np.ndarray, "H W 3"]) -> None:
        """Add an image."""
        self._writer.add_image(name, image, step, dataformats="HWC")

    def video(self, step: int, name: str, frames: UInt8[np.ndarray, "T H W 3"], fps: float) -> None:
        """Add an animated GIF, which TensorBoard plays. Raises ValueError for no frame or a rate that is not positive."""
        if not len(frames) or not fps > 0:
            raise ValueError(
                f"video {name!r}: {len(frames)} frames at {fps} Hz; needed at least one frame, and a positive rate"
            )
        proto = self._module.proto.summary_pb2.Summary
        buffer, (first, *rest) = io.BytesIO(), [Image.fromarray(frame) for frame in frames]
        first.save(buffer, "GIF", save_all=True, append_images=rest, duration=1000 / fps, loop=0)
        gif = proto.Image(height=first.height, width=first.width, colorspace=3, encoded_image_string=buffer.getvalue())
        # The writer's own `add_video` makes the same record, but needs moviepy and an ffmpeg.
        self._writer.file_writer.add_summary(proto(value=[proto.Value(tag=name, image=gif)]), step)

    def close(self) -> None:
        """Write what is buffered and close the file."""
        self._writer.close()


class WandbWriter:
    """Run of W&B. The service ignores steps before its last one, which a resumed training repeats with the same values."""

    def __init__(self, settings: Wandb, workdir: Path, config: Mapping[str, Any], encode_video: EncodeVideo) -> None:
        self._module, self._encode_video = extra("wandb", "wandb"), encode_video
        id_file = workdir / WANDB_ID_FILE
        self._run = self._module.init(
            project=settings.project,
            name=settings.name,
            entity=settings.entity,
            id=id_file.read_text().strip() if id_file.exists() else None,
            resume="allow",
            dir=str(workdir),
            config=dict(config),
        )
        write_file(id_file, f"{self._run.id}\n")
        self._videos = tempfile.TemporaryDirectory()
        """Holds the videos until the run has copied them."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values."""
        self._run.log(dict(values), step=step)

    def image(self, step: int, name: str, image: UInt8[np.ndarray, "H W 3"]) -> None:
        """Log an image."""
        # A Pillow image, because W&B may rescale the values of an array.
        self._run.log({name: self._module.Image(Image.fromarray(image))}, step=step)

    def video(self, step: int, name: str, frames: UInt8[np.ndarray, "T H W 3"], fps: float) -> None:
        """Log a video. Raises what `encode_video` raises."""
        path = Path(self._videos.name) / f"{name.replace('/', '.')}.{step}.mp4"
        self._encode_video(path, frames, fps)
        self._run.log({name: self._module.Video(str(path), format="mp4")}, step=step)

    def close(self) -> None:
        """Wait for the upload and end the run."""
        self._run.finish()
        self._videos.cleanup()


class Writers:
    """Several writers as one: each gets everything, in their order."""

    def __init__(self, writers: Sequence[MetricWriter]) -> None:
        self._writers = tuple(writers)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write the numbers of one step with every writer. Raises what they raise."""
        for writer in self._writers:
            writer.write(step, values)

    def image(self, step: int, name: str, image: UInt8[np.ndarray, "H W 3"]) -> None:
        """Write an image with every writer. Raises what they raise."""
        for writer in self._writers:
            writer.image(step, name, image)

    def video(self, step: int, name: str, frames: UInt8[np.ndarray, "T H W 3"], fps: float) -> None:
        """Write a video with every writer. Raises what they raise."""
        for writer in self._writers:
            writer.video(step, name, frames, fps)

    def close(self) -> None:
        """Close every writer, also after one that fails. Raises what they raise."""
        with ExitStack() as stack:
            for writer in self._writers:
                stack.callback(writer.close)


def open_writers(
    workdir: str | Path, step: int, config: Mapping[str, Any], dashboards: Sequence[Dashboard], encode_video: EncodeVideo
) -> Writers:
    """The JSON-lines file and the dashboards of a training that has done `step` updates; without effect on process 1 and above.

    Raises ModuleNotFoundError, saying how to install it, for a dashboard without its extra, and OSError.
    """
    if jax.process_index() != 0:
        return Writers(())
    workdir = Path(workdir)
    with ExitStack() as stack:
        writers: list[MetricWriter] = [JsonLinesWriter(workdir / METRICS_FILE, step, encode_video)]
        stack.callback(writers[0].close)
        for dashboard in dashboards:
            writers.append(dashboard.open(workdir, step, config, encode_video))
            stack.callback(writers[-1].close)
        stack.pop_all()
    return Writers(writers)
