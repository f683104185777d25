"""The contents of a dataset as a table, a picture and a page."""

import numpy as np
import pytest
from PIL import Image

from data_pipelines import wsv
from launch.data.contact_sheet import captions
from wsm_jax.snapshot import STORED


@pytest.mark.parametrize("flag", ["", "--data="])
def test_the_table(run, captioned, flag):
    code, out, err = run("inspect", f"{flag}{captioned}")
    assert (code, err) == (0, "")
    for text in ("3 of 0.5 s", "4 per clip at 8 Hz, 16 x 24 pixels", "rgb", "jpeg", "CC0-1.0", "a.mp4", "3 captions"):
        assert text in out


def test_inspect_shows_all_channels(tmp_path, run, everything):
    code, out, err = run("inspect", everything, f"--out={tmp_path}/page.png", "--clips=2", "--frames=3")
    assert (code, err) == (0, "")
    for name in STORED:
        assert f"\n{name} " in out
    assert "\npresence " in out
    raw = 2 * 4 * 12 * 16 * 3
    row = next(line.split() for line in out.splitlines() if line.startswith("rgb "))
    stored = (everything / "channels" / "rgb").rglob("*")
    assert f"{raw / sum(file.stat().st_size for file in stored if file.is_file()):.1f}" in row
    page = np.asarray(Image.open(tmp_path / "page.png"))
    tile_rows, tile_columns = 2 * len(STORED), 3
    assert page.shape[0] > tile_rows * 96
    assert page.shape[1] > tile_columns * 128
    expected = wsv.Dataset(everything).read(1, ["rgb"], [0])["rgb"][0]
    at = next(
        i for i in range(page.shape[0] // 2, page.shape[0]) if (page[i : i + 96 : 8, 110 : 110 + 128 : 8] == expected).all()
    )
    assert at > page.shape[0] // 2
    assert not list(tmp_path.glob("*.part"))


def test_inspect_shows_the_times_of_captions(tmp_path, run, spoken):
    code, _, err = run("inspect", spoken, f"--html={tmp_path}/page.html", f"--out={tmp_path}/page.png", "--clips=6")
    assert (code, err) == (0, "")
    page = (tmp_path / "page.html").read_text()
    for line in ("<br>film a<br>0.25..0.50 s: late in a", "<br>0.00..0.12 s: early in b"):
        assert line in page
    dataset = wsv.Dataset(spoken)
    assert captions(dataset, 0) == ["film a"] and captions(dataset, 2) == ["film a", "0.00..0.25 s: late in a"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect"], "got 0 datasets"),
        (["inspect", "a", "b"], "got 2 datasets"),
        (["inspect", "nowhere"], "no WSV dataset here"),
        (["inspect", "nowhere", "--out=page.gif"], "--out=page.gif; needed a name that ends in .png"),
        (["inspect", "nowhere", "--clips=0"], "clips"),
        (["inspect", "newer"], "schema version 3"),
        (["inspect", "a", "--data=b"], "got 2 datasets ['b', 'a']"),
    ],
)
def test_bad_command_lines(assert_usage_error, arguments, message):
    assert_usage_error(arguments, message)
