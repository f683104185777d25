"""Latents are those of the encoder for every clip, are made once, and a dataset that cannot have them says why."""

import dataclasses
import json

import numpy as np
import pytest

from data_pipelines.loading.clips import Clips
from data_pipelines.loading.encode import encode_datasets
from data_pipelines.simulation.dataset import SimulatedDataset
from data_pipelines.wsv import Dataset, verify


@dataclasses.dataclass
class MeanColour:
    """Encodes a clip as the mean of its pictures, times a weight."""

    key: str = "style"
    frames: int = 3
    channels: tuple[str, ...] = ("rgb",)
    shape: tuple[int, ...] = (3,)
    calls: int = 0

    def __call__(self, params, channels):
        self.calls += 1
        return params * channels["rgb"].astype(np.float32).mean((1, 2, 3))


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encode")
    for name, scenes, pixels in (("train", 10, True), ("cores", 2, False)):
        SimulatedDataset(scenes, 1, 16, 16, 4.0, 1.0, pixels).build(folder / name, "wsm", 1)
    return folder


def test_every_clip_gets_its_latents_once(workdir):
    encoder = MeanColour()
    outcome = encode_datasets(workdir, "bridge", ("train", "cores"), encoder, np.float32(2.0), "00c0ffee", progress=False)
    assert sorted(outcome.values()) == ["no rgb", "written"] and encoder.calls == 2, "10 clips in batches of 8"
    dataset = Dataset(workdir / "train")
    latents = dataset.latents("style.00c0ffee")
    assert latents is not None and latents.shape == (10, 3)
    frames = np.linspace(0, dataset.layout.frames - 1, 3).astype(int)
    for clip in (0, 9):
        expected = 2 * dataset.read(clip, ["rgb"], frames)["rgb"].astype(np.float32).mean((0, 1, 2))
        np.testing.assert_allclose(latents[clip], expected, rtol=1e-6)
    assert verify(workdir / "train", False) == []
    again = encode_datasets(workdir, "bridge", ("train", "cores"), encoder, np.float32(2.0), "00c0ffee", progress=False)
    assert again == outcome and encoder.calls == 2
    encode_datasets(workdir, "other", ("train",), encoder, np.float32(3.0), "0badf00d", progress=False)
    assert Dataset(workdir / "train").latents("style.00c0ffee") is not None, "latents of two trainings stand side by side"


def test_a_later_stage_reads_them(workdir):
    encode_datasets(workdir, "bridge", ("train", "cores"), MeanColour(), np.float32(2.0), "00c0ffee", progress=False)
    pointer = json.loads((workdir / "bridge" / "latents.json").read_text())
    assert pointer["style"]["name"] == "style.00c0ffee"
    clips = Clips(sources=(("train", 1.0), ("cores", 1.0)), waves=6, ticks=8, latents=(("style", "bridge", (3,)),))
    batch = next(clips.open(workdir, rows=8, seed=0))
    codes = Dataset(workdir / "train").latents("style.00c0ffee")
    for row in range(8):
        assert batch["known"]["style"][row] == (batch["source"][row] == 0)
        expected = codes[batch["clip"][row]] if batch["source"][row] == 0 else np.zeros(3)
        np.testing.assert_array_equal(batch["latents"]["style"][row], np.float32(expected))
