"""Sources: paths in the workdir, collections as their datasets, clips within limits of measures."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.loading.source import DatasetSource, expand_collections, resolve
from data_pipelines.wsv import collection
from data_pipelines.wsv.folder import Folder
from tests.data_pipelines.datasets import open_clips
from tests.data_pipelines.loading.test_mixture import ASK, VIDEO, rows, write


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "video")


@pytest.mark.parametrize(
    ("path", "workdir", "wanted"),
    [
        ("data/train", "/runs/a", "/runs/a/data/train"),
        ("../b/data/", Path("/runs/a"), "/runs/b/data"),
        ("/data/train", "/runs/a", "/data/train"),
        ("s3://bucket/train/", "/runs/a", "s3://bucket/train"),
        (Path("data/train"), "gs://bucket/runs/", "gs://bucket/runs/data/train"),
    ],
)
def test_relative_paths_lie_in_the_workdir(path, workdir, wanted):
    assert resolve(path, workdir) == wanted


def test_only_clips_within_the_limits_are_loaded(video):
    source = DatasetSource(video, where={"sharpness": (3, 6)})
    clips = [int(b["clip"][r]) for b, r in rows(open_clips([source], **ASK), 4)]
    assert sorted(clips) == sorted([3, 4, 5, 6] * 4)
    with pytest.raises(ValueError, match=r"none of its 12 clips is within .*sharpness"):
        open_clips([DatasetSource(video, where={"sharpness": (50, 60)})], **ASK)
    with pytest.raises(ValueError, match="no measure 'blur'; it has sharpness"):
        open_clips([DatasetSource(video, where={"blur": (0, 1)})], **ASK)
    state = open_clips([source], **ASK).get_state()
    with pytest.raises(ValueError, match="another order"):
        open_clips([DatasetSource(video)], **ASK).set_state(state)


def test_a_collection_is_its_datasets_by_their_clips(tmp_path, video):
    large = write(tmp_path / "both" / "a")
    small = write(tmp_path / "both" / "b", dataclasses.replace(VIDEO, clips=4))
    collection.write(Folder(tmp_path / "both"), "both", {"a": 12, "b": 4})
    sources = expand_collections([DatasetSource(tmp_path / "both", 3.0), DatasetSource(video)])
    assert [(str(s.path), s.weight) for s in sources] == [(str(large), 2.25), (str(small), 0.75), (str(video), 1.0)]
    source = [int(b["source"][r]) for b, r in rows(open_clips([DatasetSource(tmp_path / "both")], **ASK), 8)]
    assert np.bincount(source).tolist() == [24, 8]
