"""The flags choose the executor: processes with their time limit, or a pipeline."""

import pytest
from absl import flags

from data_pipelines import workers
from launch.command import Usage
from launch.data.runner import define_flags, runner


def values(*arguments: str) -> flags.FlagValues:
    given = flags.FlagValues()
    define_flags(given)
    flags.DEFINE_float("limit_s", 3600, "limit", flag_values=given)
    given(["do", *arguments])
    return given


@pytest.mark.parametrize(("arguments", "limit"), [((), 3600.0), (("--limit_s=7",), 7.0), (("--limit_s=0",), None)])
def test_processes_get_the_time_limit(monkeypatch, arguments, limit):
    monkeypatch.setattr(workers, "run", lambda *_items, limit_s: limit_s)
    assert runner(values(*arguments))() == limit


def test_options_of_beam_need_beam():
    with pytest.raises(Usage, match="needed together with --beam"):
        runner(values("--beam_options=--runner=DirectRunner"))
