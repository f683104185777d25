"""Held-out clips hold the truth, or the dataset is named with what it lacks."""

import pytest

from data_pipelines.loading.held_out import HeldOut
from data_pipelines.simulation.dataset import SimulatedDataset


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("held_out")
    for name, pixels in (("whole", True), ("blind", False)):
        SimulatedDataset(2, 1, 16, 16, 4.0, 1.0, pixels).build(folder / name, "wsm", 1)
    return folder


def test_clips_are_the_first_ones_and_hold_the_truth(workdir):
    clips = HeldOut("whole").clips(workdir, 5)
    assert len(clips) == 2 and len(HeldOut(str(workdir / "whole")).clips(workdir, 1)) == 1
    assert all(clip.core is not None and clip.camera is not None and clip.text and "rgb" in clip.channels for clip in clips)


def test_a_dataset_without_pictures_is_named(workdir):
    with pytest.raises(ValueError, match=r"blind: 2 clips without rgb; needed two clips with captions, a core, cameras, rgb"):
        HeldOut("blind").clips(workdir, 2)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        HeldOut("nowhere").clips(workdir, 2)
