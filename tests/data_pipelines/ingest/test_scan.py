"""Scans come back from their folder as they were made, until the recording or the options change."""

import hashlib

import numpy as np
import pytest
from PIL import Image

from data_pipelines.ingest.find import Candidate, Rejection, find_candidates
from data_pipelines.ingest.scan import ReaderOptions, ScanTask, digest, strip_directories
from data_pipelines.workers import WorkerCrash
from data_pipelines.wsv.folder import Folder

OPTIONS = ReaderOptions(fps=8)


@pytest.fixture
def task(tmp_path) -> ScanTask:
    """A folder of frames, and a file that is no video."""
    (tmp_path / "in" / "frames").mkdir(parents=True)
    for i in range(3):
        Image.fromarray(np.full((8, 12, 3), 40 * i, np.uint8)).save(tmp_path / "in" / "frames" / f"{i}.png")
    (tmp_path / "in" / "x.mp4").write_bytes(b"no video")
    candidates, _ = find_candidates([tmp_path / "in"])
    return ScanTask(Folder(str(tmp_path / "scan")), tuple(candidates), OPTIONS)


def test_scans_round_trip_and_name_no_directory(task, tmp_path):
    with pytest.raises(ValueError, match="scan 0 is missing"):
        task.results()
    for number in task.missing():
        task(number)
    assert task.missing() == []
    (frames,), damaged = task.results()
    assert (frames.name, frames.size, frames.time) == ("in/frames", ((8, 12),), (0.0, 0.125, 0.25))
    assert isinstance(damaged, Rejection) and damaged.name == "in/x.mp4"
    assert str(tmp_path) not in damaged.reason
    task.clear()
    assert task.missing() == [0, 1] and not (tmp_path / "scan").exists()


def test_a_changed_file_or_option_makes_a_scan_stale(task, tmp_path):
    for number in task.missing():
        task(number)
    assert ScanTask(task.folder, task.candidates, ReaderOptions(fps=4)).missing() == [0, 1]
    (tmp_path / "in" / "x.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nx")
    assert task.missing() == [1] and task.missing([0]) == []


def test_a_crash_is_a_rejection(task):
    task.on_worker_crash(1, WorkerCrash("the process that worked at 1 died"))
    assert task.missing() == [0]
    task(0)
    assert task.results()[1] == Rejection("in/x.mp4", "its decoder crashed (the process that worked at 1 died)")


def test_the_digest_of_several_files_depends_on_names_contents_and_order(tmp_path):
    one, two = tmp_path / "1", tmp_path / "2"
    one.write_bytes(b"a")
    two.write_bytes(b"b")
    assert digest((one,)) == hashlib.sha256(b"a").hexdigest()
    assert len({digest((one,)), digest((one, two)), digest((two, one))}) == 3
    before = digest((one, two))
    two.write_bytes(b"c")
    assert digest((one, two)) != before


def test_messages_lose_directories(tmp_path):
    candidate = Candidate(tmp_path / "a.mp4", "video", "in/a.mp4", tmp_path / "masks" / "a")
    message = f"{tmp_path}/a.mp4: bad; {tmp_path}/masks/a/0.png: bad"
    assert strip_directories(message, candidate) == "in/a.mp4: bad; masks/a/0.png: bad"
