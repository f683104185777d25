"""A silence leaves the stacks of all threads behind, once, also while one thread holds the interpreter."""

import ctypes
import subprocess
import sys
import time
from contextlib import closing

import jax
import pytest

from wsm_jax.runtime.watchdog import Watchdog


def test_each_silence_is_recorded_once_with_the_stacks(tmp_path, capsys):
    path = tmp_path / "hang.log"
    with closing(Watchdog(path, 0.3)) as watchdog:
        for _ in range(10):
            time.sleep(0.02)
            watchdog.beat()
        assert "test_each_silence" not in path.read_text()
        time.sleep(0.7)
        (header, *stacks) = path.read_text().splitlines()
        assert "10 steps finished" in header
        assert "test_each_silence_is_recorded_once" in "".join(stacks)
        watchdog.beat()
        assert str(path) in capsys.readouterr().err
        time.sleep(0.5)
    text = path.read_text()
    assert text.count("steps finished") == text.count("Timeout (") == 2
    assert text.index("10 steps finished") < text.index("11 steps finished")
    with closing(Watchdog(path, 60.0)) as watchdog:
        watchdog.beat()
    assert path.read_text() == text, "a run that does not hang leaves the file as it was"


@pytest.mark.skipif(sys.platform == "win32", reason="needs the C library of the process")
def test_it_fires_while_a_thread_holds_the_interpreter(tmp_path):
    path = tmp_path / "hang.log"
    with closing(Watchdog(path, 0.1)):
        ctypes.PyDLL(None).usleep(400_000)
    assert "test_it_fires_while" in path.read_text()


def test_a_job_that_is_killed_while_it_hangs_leaves_the_stacks(tmp_path):
    path = tmp_path / "hang.log"
    code = f"""
import time
from wsm_jax.runtime.watchdog import Watchdog
def a_decoder_that_hangs(): time.sleep(60)
watchdog = Watchdog({str(path)!r}, 0.2)
watchdog.beat()
a_decoder_that_hangs()
"""
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 60
        while not (path.exists() and "a_decoder_that_hangs" in path.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    assert "1 steps finished" in path.read_text()


def test_a_run_that_does_not_hang_leaves_no_file(tmp_path):
    with closing(Watchdog(tmp_path / "hang.log", 60.0)) as watchdog:
        watchdog.beat()
    assert list(tmp_path.iterdir()) == []


def test_each_process_of_a_job_has_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: 3)
    with closing(Watchdog(tmp_path / "hang.log", 60.0)):
        assert [path.name for path in tmp_path.iterdir()] == ["hang.3.log"]


def test_the_time_must_be_positive(tmp_path):
    with pytest.raises(ValueError, match="positive"):
        Watchdog(tmp_path / "hang.log", 0.0)
