"""The advice names one best layout and the load of each host."""

import re

import pytest


def test_one_layout_is_the_best_and_its_chunks_are_advised(run):
    code, out, err = run("advise", "--frames=16", "--latency_ms=20")
    assert (code, err) == (0, "")
    (best,) = [line for line in out.splitlines() if line.endswith("<- best")]
    assert f"--frames_per_chunk={best.split()[0]};" in out


def test_hosts_share_the_clips(run):
    """Each of n hosts reads 1/n of the clips, by either name of the flag."""

    def rate(*arguments: str) -> float:
        (found,) = re.findall(r"each host: ([\d.]+) clips/s", run("advise", "--batch=64", "--step_s=0.5", *arguments)[1])
        return float(found)

    assert rate() == 128
    assert rate("--hosts=8") == rate("--num_processes=8") == rate("--num-processes=8") == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["advise", "dataset"], "got ['dataset']; needed only flags"),
        (["advise", "--size=64"], "--size=64; needed HEIGHTxWIDTH"),
        (["advise", "--codec=gif"], "value should be one of <none|zstd|jpeg|h264>"),
    ],
)
def test_bad_command_lines(assert_usage_error, arguments, message):
    assert_usage_error(arguments, message)
