"""Every piece is made once by one host; a crash goes to the task; a host makes what the others left."""

import dataclasses

import pytest

from data_pipelines.ingest.scheduler import ResumableTask, Scheduler
from data_pipelines.workers import WorkerCrash


@dataclasses.dataclass
class Pieces:
    """Task that records the pieces made and crashed."""

    missing_pieces: set[int]
    made: list[int] = dataclasses.field(default_factory=list)
    crashed: list[int] = dataclasses.field(default_factory=list)

    def __call__(self, number):
        self.made.append(number)
        self.missing_pieces.discard(number)

    def missing(self, among=None):
        return sorted(self.missing_pieces if among is None else self.missing_pieces & set(among))

    def on_worker_crash(self, number, error):
        self.crashed.append(number)
        self.missing_pieces.discard(number)


def scheduler(host: int = 0, hosts: int = 1, **fields) -> Scheduler:
    return Scheduler(host=host, hosts=hosts, progress=False, **fields).check()


def test_one_host_makes_every_missing_piece_once():
    task = Pieces({1, 4, 7})
    assert isinstance(task, ResumableTask)
    assert scheduler().single_host
    scheduler().work(task, "x")
    assert task.made == [1, 4, 7] and task.missing() == []


def test_hosts_share_the_pieces_and_wait_for_each_other(monkeypatch):
    """The second host makes its share while the first one waits."""
    task = Pieces(set(range(7)))
    monkeypatch.setattr("data_pipelines.ingest.scheduler.time.sleep", lambda _: scheduler(1, 2).work(task, "x"))
    scheduler(0, 2).work(task, "x")
    assert task.made == [0, 2, 4, 6, 1, 3, 5]


def test_once_the_build_is_finished_a_host_makes_what_is_missing():
    task = Pieces(set(range(5)))
    scheduler(1, 2).work(task, "x", finished=lambda: True)
    assert task.made == [1, 3, 0, 2, 4]


def test_a_crash_goes_to_the_task():
    def executor(task, numbers, workers):
        for number in numbers:
            yield number, WorkerCrash("x") if number == 2 else task(number)

    task = Pieces({1, 2, 3})
    scheduler(runner=executor).work(task, "x")
    assert (task.made, task.crashed) == ([1, 3], [2])


@pytest.mark.parametrize(("host", "hosts"), [(1, 1), (-1, 2), (0, 0)])
def test_a_host_out_of_range_is_refused(host, hosts):
    with pytest.raises(ValueError, match=rf"host {host} of {hosts}; needed one of 0 \.\. hosts - 1"):
        Scheduler(host=host, hosts=hosts).check()
