"""Masks beside a recording: of every kind one a frame, and what does not fit is named."""

import pickle

import numpy as np
import pytest
from PIL import Image

from data_pipelines.recording.mask import with_masks
from data_pipelines.recording.recording import Recording
from data_pipelines.recording.video import scan, video_recording
from tests.data_pipelines.recording.label_film import label_film


@pytest.fixture
def frames(tmp_path) -> Recording:
    folder = tmp_path / "bear"
    folder.mkdir()
    for i in range(12):
        Image.fromarray(np.full((6, 8, 3), 20 * i, np.uint8)).save(folder / f"{i}.png")
    return video_recording(scan(folder, fps=6), "bear")


KINDS = ("", ".npy", ".npz", ".mkv", ".mov")


def masks(path, count: int, size=(6, 8)):
    """Masks of some frames, as a folder or as a file by the suffix."""
    values = np.zeros((count, *size), np.uint8)
    for i in range(count):
        values[i, i % size[0], :3] = i + 1
    if path.suffix == ".npy":
        np.save(path, values)
    elif path.suffix == ".npz":
        np.savez_compressed(path, values)
    elif path.suffix:
        label_film(path, values, "png" if path.suffix == ".mov" else "ffv1", "gray")
    else:
        path.mkdir(exist_ok=True)
        for i, picture in enumerate(values):
            Image.fromarray(picture).save(path / f"{i}.png")
    return path


@pytest.mark.parametrize("suffix", KINDS)
def test_every_frame_has_its_mask(tmp_path, frames, suffix):
    both = with_masks(frames, masks(tmp_path / f"masks{suffix}", 12))
    assert both.channels == ("rgb", "instance")
    assert both.files[:12] == frames.files
    assert set(both.files[12:]) == (set((tmp_path / "masks").iterdir()) if not suffix else {tmp_path / f"masks{suffix}"})
    for again in (both, pickle.loads(pickle.dumps(both))):
        found = list(again.pictures([1, 1, 10]))
        assert [int(one["instance"].max()) for one in found] == [2, 2, 11], "10.png comes after 9.png"
        assert [int(one["rgb"][0, 0, 0]) for one in found] == [20, 20, 200]
        for one, index in zip(found, (1, 1, 10), strict=True):
            wanted = np.zeros((6, 8, 1), np.uint16)
            wanted[index % 6, :3] = index + 1
            assert one["instance"].dtype == np.uint16
            np.testing.assert_array_equal(one["instance"], wanted)
    assert list(both.pictures([])) == []


@pytest.mark.parametrize("suffix", KINDS)
def test_masks_that_do_not_fit_are_named(tmp_path, frames, suffix):
    with pytest.raises(FileNotFoundError, match=r"gone.*: no such folder or file"):
        with_masks(frames, tmp_path / f"gone{suffix}")
    kind = suffix[1:] or "png"
    with pytest.raises(ValueError, match=rf"short.*: has 11 masks \({kind}\); needed 12, one for every frame of bear"):
        with_masks(frames, masks(tmp_path / f"short{suffix}", 11))
    with pytest.raises(ValueError, match=rf"{suffix or '0.png'}: is 6 x 9 pixels; its frame is 6 x 8"):
        with_masks(frames, masks(tmp_path / f"wide{suffix}", 12, (6, 9)))
    both = with_masks(frames, masks(tmp_path / f"twice{suffix}", 12))
    with pytest.raises(ValueError, match="has instances of its own"):
        with_masks(both, tmp_path / f"twice{suffix}")
