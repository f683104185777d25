"""A stretch of a film is found by its time, whatever the order of decoding, and whatever else the file holds."""

import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from data_pipelines.recording.segment import Segment, VideoHead, read_video_head
from tests.data_pipelines.ingest.films import encoded
from tests.data_pipelines.recording.painted import numbers_in, painted
from wsm_jax.visualise.video import write_video


def test_a_stretch_deep_in_a_film_is_found_by_its_time(tmp_path):
    """Key frames of x264 lie up to 250 frames apart, so that seeking must go back, never forward."""
    write_video(tmp_path / "a.mp4", [painted(k % 128) for k in range(600)], 30)
    for begin in (0, 1, 249, 250, 251, 420, 590):
        time = np.arange(begin, begin + 10) / 30
        assert numbers_in(Segment(tmp_path / "a.mp4", time, 0.25 / 30)(range(10))) == [
            k % 128 for k in range(begin, begin + 10)
        ]
    with pytest.raises(ValueError, match=r"a\.mp4: has no frame at 20\.0000 s .*the nearest is one at 19\.9667 s"):
        list(Segment(tmp_path / "a.mp4", np.array([19.0, 20.0]), 0.25 / 30)([0, 1]))
    with pytest.raises(ValueError, match=r"a\.mp4: has no frame at 1\.0167 s"):
        list(Segment(tmp_path / "a.mp4", np.array([1 + 0.5 / 30]), 0.25 / 30)([0]))


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1"])
def test_every_frame_is_found_alone_whatever_the_order_of_decoding(tmp_path, codec):
    """Key frames every 12 frames; of HEVC some frames are shown before the key frame that is decoded before them."""
    options = {"g": "12", "bf": "3"} | ({"x265-params": "keyint=12:bframes=4:log-level=none"} if codec == "libx265" else {})
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 56, 32, "yuv420p"
        for k in range(60):
            frame = av.VideoFrame.from_ndarray(painted(k), format="rgb24")
            frame.pts, frame.time_base = k + 15, Fraction(1, 30)  # a file may begin at a time other than 0
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for k in range(60):
        assert numbers_in(Segment(path, np.array([k / 30]), 0.25 / 30)([0])) == [k]


def box(kind: bytes, *parts: bytes) -> bytes:
    """ISO/IEC 14496-12 section 4.2."""
    return struct.pack(">I4s", 8 + sum(map(len, parts)), kind) + b"".join(parts)


def test_a_cover_picture_is_not_the_film(tmp_path):
    path = encoded(tmp_path / "a.mp4", np.stack([painted(k) for k in range(40)]), 10)
    buffer = io.BytesIO()
    Image.new("RGB", (20, 30)).save(buffer, "png")
    cover = box(b"covr", box(b"data", struct.pack(">II", 14, 0), buffer.getvalue()))  # 14: PNG
    handler = box(b"hdlr", bytes(8), b"mdir", bytes(12))
    told = box(b"udta", box(b"meta", bytes(4), handler, box(b"ilst", cover)))
    # `moov` is the last box, so nothing of the film moves; before its track the cover becomes the first stream
    data = path.read_bytes()
    at = data.index(b"moov") + 4
    (size, head) = (struct.unpack_from(">I", data, place)[0] for place in (at - 8, at))
    assert at - 8 + size == len(data)
    path.write_bytes(b"".join([data[: at - 8], box(b"moov", data[at : at + head], told, data[at + head :])]))
    with av.open(str(path)) as container:
        assert [bool(s.disposition & Disposition.attached_pic) for s in container.streams.video] == [True, False]
    assert read_video_head(path) == VideoHead(32, 56, 1.0, 4.0)
    assert numbers_in(Segment(path, np.arange(15, 30) / 10, 0.025)(range(15))) == list(range(15, 30))
