"""Simulated scenes become a dataset."""

import pytest

from data_pipelines import wsv


def test_simulate(tmp_path, run):
    arguments = ["simulate", f"--out={tmp_path}/set", "--scenes=2", "--seed=3", "--seconds=0.5", "--nopixels", "--noprogress"]
    code, out, err = run(*arguments, "--workers=1", "--objects=2", "--stories=rest", "--cameras=still", "--clips-per-shard=1")
    assert (code, err) == (0, "")
    assert "2 clips" in out
    dataset = wsv.Dataset(tmp_path / "set")
    assert dataset.layout.channels == ()
    assert (len(dataset), dataset.layout.shards, dataset.layout.ticks) == (2, 2, 4)
    build = dataset.manifest["build"]
    assert (build["seed"], build["objects"], build["stories"], build["cameras"]) == (3, [2, 2], ["rest"], ["still"])
    code, out, err = run("inspect", tmp_path / "set", f"--out={tmp_path}/page.png")
    assert code == 2
    assert "has no channels" in err
    assert not (tmp_path / "page.png").exists()
    code, out, err = run(*arguments)
    assert code == 2
    assert "a finished dataset is here" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["simulate"], "needed --out (the new dataset's directory or URL) and --scenes"),
        (["simulate", "--scenes=3", "--out=set", "--objects=few"], "--objects=few; needed MIN-MAX"),
        (["simulate", "--scenes=3", "--out=set", "--cameras=drone"], "drone"),
        (["simulate", "--scenes=3", "--out=set", "now"], "got ['now']; needed only flags"),
        (["simulate", "--scenes=3", "--out=set", "--seconds=inf"], "seconds inf"),
        (["simulate", "--scenes=3", "--out=set", "--fps=inf"], "frame_hz inf"),
        (["simulate", "--scenes=3", "--out=set", "--fps=nan"], "frame_hz nan"),
        (["simulate", "--scens=3", "--out=set"], "Unknown command line flag 'scens'"),
    ],
)
def test_bad_command_lines(assert_usage_error, arguments, message):
    assert_usage_error(arguments, message)
