"""A build that is killed at any time, or done by several processes or hosts, ends with the bytes of one that was left alone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_pipelines import wsv
from data_pipelines.ingest import build
from data_pipelines.ingest.bucket import Bucket
from data_pipelines.ingest.plan import Filters
from data_pipelines.ingest.scan import ReaderOptions, ScanTask
from data_pipelines.wsv.folder import Folder
from tests.data_pipelines.ingest.films import encoded, pattern
from tests.data_pipelines.ingest.run_ingest import run_ingest

BUCKETS = [Bucket(16, 24, 8, 0.5), Bucket(16, 16, 8, 0.25)]
MAIN = '''
import json, os, random, signal, sys
from pathlib import Path
from data_pipelines.ingest import build
from data_pipelines.ingest.bucket import Bucket
from data_pipelines.ingest.plan import Filters
from data_pipelines.ingest.scan import ReaderOptions
from data_pipelines.ingest.scheduler import Scheduler
from data_pipelines.wsv.folder import Folder

build.SHARD_BYTES = 2 * 4 * 16 * 24 * 3  # two clips a shard


def ingest(root, out, **changes):
    buckets = [Bucket(16, 24, 8, 0.5), Bucket(16, 16, 8, 0.25)]
    filters = Filters(shots=False)
    options = build.IngestOptions(name="t", licence="x", buckets=buckets, reader=ReaderOptions(8), filters=filters)
    return build.ingest([root], out, options, Scheduler(**{"progress": False, **changes}))


class Deadly:
    """A store that kills its process at one of its writes: before it, in the midst of it, or after it."""

    def __init__(self, store, left, when):
        self.__dict__.update(store=store, left=left, when=when)

    def __getattr__(self, name):
        return getattr(self.store, name)

    def write(self, *args, **keys):
        self.left[0] -= 1
        if self.left[0] or self.when == "before":
            if not self.left[0]:
                os.kill(os.getpid(), signal.SIGKILL)
            return self.store.write(*args, **keys)
        future = self.store.write(*args, **keys)
        if self.when == "after":
            future.result()
        os.kill(os.getpid(), signal.SIGKILL)


def deadly(writes, when):
    """From now on, this process dies at one of its writes."""
    left, store = [writes], Folder.store.fget
    Folder.store = property(lambda self: Deadly(store(self), left, when))


if __name__ == "__main__":
    root, out, mode = sys.argv[1:4]
    if mode == "plain":
        ingest(root, out, **json.loads(sys.argv[4]))
    else:  # killed at a random write and started again, until a run comes to its end; once for each seed
        deaths = 0
        for seed in range(int(sys.argv[4])):
            draw, status = random.Random(seed), None
            while status != 0:
                writes, when = draw.randint(1, 12), draw.choice(["before", "midst", "after"])
                if (child := os.fork()) == 0:
                    deadly(writes, when)
                    ingest(root, f"{out}{seed}")
                    os._exit(0)
                status = os.waitpid(child, 0)[1]
                assert status in (0, signal.SIGKILL), status
                deaths += status != 0
        print(deaths)
'''


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Recordings of two shapes, one of them damaged, and frames."""
    root = tmp_path_factory.mktemp("given") / "in"
    root.mkdir()
    for i in range(3):
        encoded(root / f"wide{i}.mp4", pattern(30, (32, 48), i))
    encoded(root / "square.webm", pattern(30, (32, 32), 7), codec="libvpx")
    (root / "cut.mp4").write_bytes((root / "wide0.mp4").read_bytes()[:-300])
    (root / "stills").mkdir()
    for i, picture in enumerate(pattern(8, (20, 30), 9)):
        Image.fromarray(picture).save(root / "stills" / f"{i}.png")
    (root / "wide1.txt").write_text("ein Film 🎬\n", encoding="utf-8")
    (root / "wide2.srt").write_text("1\n00:00:00,400 --> 00:00:00,625\nein Wort\n")
    return root


def ingest(root: Path, out: Path, **changes) -> build.Report:
    given = {"reader": ReaderOptions(8), "filters": Filters(shots=False), "progress": False, "name": "t", "licence": "x"}
    return run_ingest([root], out, buckets=BUCKETS, codec="jpeg", **{**given, **changes})


@pytest.fixture(scope="module")
def whole(root, tmp_path_factory) -> dict[str, bytes]:
    """Every file of a build that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "SHARD_BYTES", 2 * 4 * 16 * 24 * 3)
        report = ingest(root, out)
    assert sorted(report.manifests) == ["16x16_8hz_0.25s", "16x24_8hz_0.5s"]
    assert [one.name for one in report.rejected if one.start is None] == ["in/cut.mp4"]
    assert [m["counts"]["clips"] for _, m in sorted(report.manifests.items())] == [5, 8]
    for folder in report.manifests:
        assert wsv.verify(out / folder, progress=False) == []
    dataset = wsv.Dataset(out / "16x24_8hz_0.5s")
    spans = {dataset.origin(i)["start"]: dataset.spans(i) for i in range(8) if "ein Wort" in dataset.captions(i)}
    assert spans == {0.0: ((0.4, 0.5),), 0.5: ((0.0, 0.125),)}
    return files(out)


def files(out: Path) -> dict[str, bytes]:
    return {str(file.relative_to(out)): file.read_bytes() for file in sorted(out.rglob("*")) if file.is_file()}


@pytest.fixture(scope="module")
def main(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("main") / "main.py"
    path.write_text(MAIN)
    return path


def started(main: Path, *arguments: object, told: int | None = None) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, str(main), *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=told, start_new_session=True)


def finish(process: subprocess.Popen) -> bytes:
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0
    return output


def test_killed_at_any_write_it_ends_with_the_same_bytes(tmp_path, root, whole, main):
    seeds = 6
    deaths = int(finish(started(main, root, tmp_path / "out", "deadly", seeds)))
    assert deaths > 4 * seeds
    for seed in range(seeds):
        assert files(tmp_path / f"out{seed}") == whole
        assert not (tmp_path / f"out{seed}.scan").exists()


def test_two_processes_that_are_killed_with_all_theirs_end_with_the_same_bytes(tmp_path, root, whole, main):
    out = tmp_path / "out"
    for pattern_ in ("out.scan/*.json", "out/*/shards/*"):  # while it scans, and while it writes
        process = started(main, root, out, "plain", '{"workers": 2}')
        while process.poll() is None and not list(tmp_path.glob(pattern_)):
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    finish(started(main, root, out, "plain", '{"workers": 2}'))
    assert files(out) == whole


def test_two_hosts_end_with_the_same_bytes(tmp_path, root, whole, main):
    out = tmp_path / "out"
    both = [started(main, root, out, "plain", f'{{"host": {host}, "hosts": 2}}') for host in range(2)]
    for process in both:
        finish(process)
    assert files(out) == whole
    assert not (tmp_path / "out.scan").exists(), "the last host that ends takes the scans away"
    finish(started(main, root, out, "plain", '{"host": 1, "hosts": 2}'))
    both = [started(main, root, out, "plain", f'{{"host": {host}, "hosts": 2}}') for host in range(2)]
    for process in both:
        finish(process)
    assert files(out) == whole, "what is finished stays, whichever hosts are started again"
    assert not (tmp_path / "out.scan").exists()


def test_a_host_that_comes_late_ends_too(tmp_path, root, main):
    """It waits for scans when another host, which alone has a share, makes the dataset and takes them away."""
    recording, out = root / "stills", tmp_path / "out"
    late = started(main, recording, out, "plain", '{"host": 1, "hosts": 2, "progress": true}', told=subprocess.PIPE)
    assert late.stderr is not None
    said = b""
    while b"reading: waiting for other hosts" not in said:
        said += os.read(late.stderr.fileno(), 1000)
        assert late.poll() is None, said
    os.killpg(late.pid, signal.SIGSTOP)
    finish(started(main, recording, out, "plain", '{"host": 0, "hosts": 2}'))
    made = files(out)
    assert "manifest.json" in made and not (tmp_path / "out.scan").exists()
    os.killpg(late.pid, signal.SIGCONT)
    finish(late)
    assert files(out) == made
    assert not (tmp_path / "out.scan").exists()


def test_scans_that_another_host_takes_away_are_made_again(tmp_path, root, monkeypatch):
    """Between the last of them and their use, and in the midst of a write; once the dataset is finished, not before."""
    monkeypatch.setattr(build, "SHARD_BYTES", 2 * 4 * 16 * 24 * 3)
    ingest(root, tmp_path / "out")
    made, results, write, taken, failed = files(tmp_path / "out"), ScanTask.results, Folder.write, [], []

    def late(scans: ScanTask):
        if len(taken) < 3:
            taken.append(1)
            scans.clear()
        return results(scans)

    def removed(folder: Folder, given: dict[str, bytes]):
        if folder.path.endswith(".scan") and len(failed) % 2 == 0:
            failed.append(1)
            raise OSError("NOT_FOUND")
        failed.append(0)
        return write(folder, given)

    monkeypatch.setattr(ScanTask, "results", late)
    monkeypatch.setattr(Folder, "write", removed)
    ingest(root, tmp_path / "out", host=1, hosts=2)
    assert len(taken) == 3 and sum(failed) == 4 * 6
    assert files(tmp_path / "out") == made
    assert not (tmp_path / "out.scan").exists()


def test_a_host_whose_neighbour_found_nothing_ends_too(tmp_path, main):
    """Both find that nothing can be used; neither takes the scans away from under the other."""
    (tmp_path / "in").mkdir()
    for i in range(4):
        (tmp_path / "in" / f"{i}.mp4").write_bytes(b"no video" * 99)
    for _ in range(2):
        for host in range(2):
            with pytest.MonkeyPatch.context() as patch:
                if host == 0:  # alone, it would wait: the other's scans are made on the way
                    wait = time.sleep

                    def helped(seconds, wait=wait):
                        with pytest.raises(ValueError, match=r"in/1\.mp4: is no video"):
                            ingest(tmp_path / "in", tmp_path / "out", reader=ReaderOptions(), host=1, hosts=2)
                        wait(0)

                    patch.setattr(time, "sleep", helped)
                with pytest.raises(ValueError, match=r"in/0\.mp4: is no video"):
                    ingest(tmp_path / "in", tmp_path / "out", reader=ReaderOptions(), host=host, hosts=2)
    assert not (tmp_path / "out").exists()


def test_changed_recordings_are_scanned_again(tmp_path, root, monkeypatch):
    """Between a kill and a new start: a file, a frame, a text or subtitles beside, or the program itself."""
    monkeypatch.setattr(build, "SHARD_BYTES", 2 * 4 * 16 * 24 * 3)

    def killed(*_args, **_keys):
        raise KeyboardInterrupt

    copy = tmp_path / "in"
    copy.mkdir()
    (copy / "a.mp4").write_bytes((root / "wide0.mp4").read_bytes())
    (copy / "b.mp4").write_bytes((root / "wide2.mp4").read_bytes())
    (copy / "stills").mkdir()
    for file in (root / "stills").iterdir():
        (copy / "stills" / file.name).write_bytes(file.read_bytes())
    with monkeypatch.context() as patch:
        patch.setattr(build, "plan_clips", killed)
        with pytest.raises(KeyboardInterrupt):
            ingest(copy, tmp_path / "out")
    assert len(list((tmp_path / "out.scan").iterdir())) == 3
    (copy / "a.mp4").write_bytes((root / "wide1.mp4").read_bytes())
    (copy / "a.txt").write_text("new")
    (copy / "b.vtt").write_text("WEBVTT\n\n00:00.100 --> 00:00.200\nnew")
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(copy / "stills" / "3.png")
    for scan in (tmp_path / "out.scan").iterdir():
        if b"in/a.mp4" in scan.read_bytes():
            scan.write_text('{"of": []}')
    ingest(copy, tmp_path / "out")
    ingest(copy, tmp_path / "fresh")
    assert files(tmp_path / "out") == files(tmp_path / "fresh")
    text = b"".join(data for name, data in files(tmp_path / "out").items() if "text/" in name)
    assert text.count(b'"spans": [[0.1, 0.2]]') == 1 and b'"captions": ["new"]' in text
