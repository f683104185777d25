"""The page stands alone, every medium in it plays, and the verdicts come from the values."""

import base64
import io
import math
from html.parser import HTMLParser

import av
import numpy as np
import pytest
from PIL import Image

from wsm_jax.evaluation.report import Media, Section, reached, table, write_report
from wsm_jax.visualise.pictures import loss_curves

RUN = {"n": 64, "wall_seconds": 1100.4, "peak_rss_gib": 3.456, "commit": "0.1.0+abc123"}
TARGETS = {
    "psnr_db": (">=", 22.0, "how <close> it is"),
    "error": ("<=", 0.08, "how far it is"),
    "absent": (">=", 1.0, "what nobody measured"),
}
METRICS = {"psnr_db": 21.99, "psnr_db_baseline": 12.0, "error": 0.05, "error_baseline": 0.2, "extra": 3.25, **RUN}


def mp4(frames: int) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.height, stream.width, stream.pix_fmt = 16, 32, "yuv420p"
        for index in range(frames):
            picture = np.full((16, 32, 3), 20 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return out.getvalue()


def png(colour: tuple[int, int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (5, 3), colour).save(out, "png")
    return out.getvalue()


class Page(HTMLParser):
    """Tags with their attributes, and the text of the table's cells, row by row; unclosed tags are an error."""

    VOID = ("meta", "img", "br", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.open: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data

    def all(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture
def page(tmp_path) -> Page:
    sections = [
        Section("Imagine", "Text & core.", [Media("video", mp4(3), 'a "red" ball <b>'), Media("video", mp4(5), "two")]),
        Section("Look", "One picture.", [Media("picture", png((9, 200, 30)), "green")]),
    ]
    curves = {"bridge": loss_curves([{"step": i, "loss": 1.0 / i} for i in range(1, 5)])}
    write_report(tmp_path / "report.html", "a <world>", METRICS, TARGETS, sections, curves)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    return Page((tmp_path / "report.html").read_text("utf-8"))


def payload(uri: str, kind: str) -> bytes:
    head, data = uri.split(",", 1)
    assert head == f"data:{kind};base64"
    return base64.b64decode(data, validate=True)


def test_nothing_is_fetched(page):
    links = [
        attrs[name]
        for _, attrs in page.tags
        for name in ("src", "href", "xlink:href", "poster", "srcset", "data")
        if name in attrs
    ]
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert {link for link in links if link.startswith("#")} <= {f"#{attrs['id']}" for _, attrs in page.tags if "id" in attrs}
    assert not page.all("script")
    assert not page.all("link")
    style = page.text[: page.text.index("Measures")]
    assert "url(" not in style
    assert "@import" not in style


def test_every_video_is_whole_and_plays_by_itself(page):
    lengths = []
    for video in page.all("video"):
        assert {"controls", "loop", "muted", "autoplay", "playsinline"} <= set(video)
        with av.open(io.BytesIO(payload(video["src"], "video/mp4"))) as container:
            lengths.append(len(list(container.decode(video=0))))
    assert lengths == [3, 5]


def test_pictures_are_whole(page):
    (picture,) = page.all("img")
    assert Image.open(io.BytesIO(payload(picture["src"], "image/png"))).getpixel((0, 0)) == (9, 200, 30)


def test_curves_stand_in_the_page_and_refer_to_themselves(page):
    assert len(page.all("svg")) == 1
    assert "loss" in page.text
    uses = {attrs["xlink:href"] for _, attrs in page.tags if "xlink:href" in attrs}
    assert uses <= {f"#{attrs['id']}" for _, attrs in page.tags if "id" in attrs}
    assert not page.all("metadata")


def test_captions_are_text_not_markup(page):
    assert 'a "red" ball <b>' in page.text
    assert "how <close> it is" in page.text
    assert not page.all("b")


def test_table_says_what_the_values_say(page):
    cells = {row[0].replace("how", " ").replace("what", " ").split()[0]: row[1:] for row in page.rows[1:]}
    assert cells["psnr_db"] == ["21.99", "12.00", "≥ 22.00", "missed"]
    assert cells["error"] == ["0.050", "0.200", "≤ 0.080", "reached"]
    assert cells["absent"] == ["–", "–", "≥ 1.000", "missed"]
    assert cells["extra"] == ["3.250", "–", "", ""]
    assert len(cells) == 4
    assert "1 of 3 targets reached" in " ".join(page.text.split())
    for text in ("64", "18 min 20 s", "3.46 GiB", "0.1.0+abc123"):
        assert text in page.text


@pytest.mark.parametrize("value", [22.0, 21.999, math.nan, math.inf, -math.inf])
def test_verdict_follows_the_value(value):
    (row,) = table({"psnr_db": value}, {"psnr_db": TARGETS["psnr_db"]})
    assert row.verdict == ("reached" if value >= 22.0 else "missed")
    assert reached(value, "<=", 22.0) == (value <= 22.0)


def test_bad_input_is_named_and_nothing_is_written(tmp_path):
    path = tmp_path / "report.html"
    with pytest.raises(ValueError, match=r"comparison '=='"):
        write_report(path, "t", METRICS, {"psnr_db": ("==", 1.0, "x")}, [], {})
    with pytest.raises(KeyError, match="commit"):
        write_report(path, "t", {"n": 1, "wall_seconds": 1.0, "peak_rss_gib": 1.0}, {}, [], {})
    with pytest.raises(ValueError, match="'sound'"):
        Media("sound", b"", "x")
    with pytest.raises(ValueError, match="needed an mp4 file"):
        Media("video", png((0, 0, 0)), "x")
    with pytest.raises(ValueError, match="needed a PNG file"):
        Media("picture", b"", "x")
    with pytest.raises(ValueError, match="curves 'bridge'"):
        write_report(path, "t", METRICS, TARGETS, [], {"bridge": "no drawing"})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_page(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="No space"):
        write_report(path, "t", METRICS, TARGETS, [], {})
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
