"""Workers: everything is worked at once, whatever dies on the way, and nothing is left behind."""

import ctypes
import functools
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from data_pipelines.workers import WorkerCrash, run


def square(item: int) -> int:
    return item * item


def fragile(deadly: tuple[int, ...], item: int) -> int:
    """Dies at some items: by a signal, or by ending."""
    if item in deadly:
        if item % 2:
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(3)
    return -item


def once(folder: Path, item: int) -> int:
    """Dies at the first try of item 2, as when memory was short for a moment; notes every try."""
    with (folder / str(item)).open("a") as file:
        file.write("x")
    if item == 2 and (folder / "2").read_text() == "x":
        os.kill(os.getpid(), signal.SIGKILL)
    return item


class Odd(Exception):
    """Cannot be sent between processes."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def failing(kind: str, item: int) -> int:
    if item == 3:
        raise ValueError("three is wrong") if kind == "plain" else Odd("this", "that")
    return item


class Heavy:
    """A task that counts how often it is sent."""

    sent = 0

    def __call__(self, item: int) -> int:
        return item

    def __reduce__(self):
        Heavy.sent += 1
        return Heavy, ()


def hanging(item: int) -> int:
    """Hangs at item 2, in compiled code that lets no other thread of Python run."""
    if item == 2:
        ctypes.PyDLL(None).sleep(60)
    return item


@pytest.mark.parametrize(("workers", "limit_s"), [(1, None), (1, 60.0), (2, None)])
def test_every_item_is_worked_at_once(workers, limit_s):
    found = list(run(square, [3, 1, 2, 1], workers, limit_s=limit_s))
    assert sorted(found) == [(1, 1), (1, 1), (2, 4), (3, 9)]
    assert list(run(square, [], workers, limit_s=limit_s)) == []


def test_what_kills_its_process_is_named_and_the_others_finish():
    items, deadly = [0, 5, 1, 2, 8, 3, 4, 6], (5, 8)
    found = dict(run(functools.partial(fragile, deadly), items, 2))
    assert sorted(found) == sorted(items)
    for item, result in found.items():
        if item in deadly:
            assert isinstance(result, WorkerCrash)
            assert f"worked at {item} died" in str(result)
        else:
            assert result == -item


@pytest.mark.parametrize("workers", [1, 2])
def test_what_hangs_is_named_and_the_others_finish(workers):
    found = dict(run(hanging, range(5), workers, limit_s=0.5))
    died = found.pop(2)
    assert isinstance(died, WorkerCrash) and "worked at 2 died, or was ended after 0.5 s" in str(died)
    assert found == {item: item for item in (0, 1, 3, 4)}


def test_a_death_by_chance_costs_one_more_try(tmp_path):
    assert sorted(run(functools.partial(once, tmp_path), range(6), 2)) == [(i, i) for i in range(6)]
    tries = {file.name: len(file.read_text()) for file in tmp_path.iterdir()}
    assert tries["2"] == 2
    assert sum(tries.values()) <= 6 + 2  # besides it, at most the one that the other process was at


@pytest.mark.parametrize(("kind", "error"), [("plain", ValueError), ("odd", RuntimeError)])
def test_errors_come_through(kind, error):
    with pytest.raises(error, match=r"three is wrong|Odd: this and that"):
        list(run(functools.partial(failing, kind), range(6), 2))


def test_an_odd_error_is_odd():
    with pytest.raises(TypeError):
        pickle.loads(pickle.dumps(Odd("this", "that")))


def test_the_task_is_sent_once_a_process():
    Heavy.sent = 0
    assert len(list(run(Heavy(), range(50), 2))) == 50
    assert Heavy.sent <= 2


SLEEPERS = """
import sys
from pathlib import Path
from data_pipelines.workers import run
sys.path.insert(0, sys.argv[1])
from sleepers import sleep
if __name__ == "__main__":
    list(run(sleep, [1, 2], 2))
"""


def test_workers_end_with_the_process_that_started_them(tmp_path):
    """Killed outright, it cannot tell them; else they would go on writing beside the next run."""
    (tmp_path / "sleepers.py").write_text("import time\nprint('in', flush=True)\ndef sleep(item):\n    time.sleep(600)\n")
    (tmp_path / "main.py").write_text(SLEEPERS)
    command = [sys.executable, str(tmp_path / "main.py"), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.getcwd()}) as parent:
        assert parent.stdout is not None
        for _ in range(3):  # itself and two workers
            assert parent.stdout.readline() == b"in\n"
        children = psutil.Process(parent.pid).children(recursive=True)
        assert len(children) >= 2
        parent.kill()
        _, alive = psutil.wait_procs(children, timeout=60)
        assert not alive
