"""Freed memory is kept: what is allocated again costs no page faults."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from wsm_jax.runtime.host_memory import reuse_pages

if sys.argv[1] == "keep" and not reuse_pages():
    sys.exit(77)
for turn in range(9):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(16 << 20, np.float32)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("the C library has no mallopt")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_pages_are_used_again():
    assert faults("keep") * 10 < faults("plain")
