"""The verbs of the data command and its help."""

import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "got nothing; needed one of the verbs simulate, ingest, inspect, verify, advise, repair"),
        (["paint"], "got 'paint'; needed one of the verbs"),
    ],
)
def test_bad_command_lines(assert_usage_error, arguments, message):
    assert_usage_error(arguments, message)


def test_help_names_the_flags(run):
    assert run("--help")[:1] == (0,)
    code, out, _ = run("ingest", "--help")
    assert code == 0
    assert "--clip_seconds" in out
    assert "--out: the new dataset's directory or URL (needed)" in out
