"""Videos are files that play as they were given, and are written whole or not at all."""

import av
import numpy as np
import pytest

from wsm_jax.visualise.video import write_video


@pytest.mark.parametrize(("height", "width"), [(16, 24), (15, 21)])
def test_a_video_has_its_frames_its_rate_and_an_even_size(tmp_path, height, width):
    frames = np.zeros((5, height, width, 3), np.uint8)
    frames[:, : height // 2] = 200
    write_video(tmp_path / "a.mp4", iter(frames), 12.5)
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.video[0]
        read = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert stream.average_rate == 12.5
    assert len(read) == 5 and read[0].shape == (height + height % 2, width + width % 2, 3)
    assert np.abs(read[2][:height, :width].astype(int) - frames[2]).mean() < 3


def test_a_video_is_written_whole_or_not_at_all(tmp_path):
    good = np.zeros((3, 16, 16, 3), np.uint8)
    write_video(tmp_path / "a.mp4", good, 8)
    before = (tmp_path / "a.mp4").read_bytes()

    def broken():
        for _ in range(40):  # more than the encoder holds back, so the file is begun
            yield from good
        raise RuntimeError("the renderer died")

    with pytest.raises(RuntimeError, match="renderer died"):
        write_video(tmp_path / "a.mp4", broken(), 8)
    for bad in (good[:0], good.astype(np.float32), good[..., :1], [good[0], good[0, :8]]):
        with pytest.raises(ValueError, match=r"a\.mp4"):
            write_video(tmp_path / "a.mp4", bad, 8)
    with pytest.raises(ValueError, match=r"a\.avi: needed a file name that ends in \.mp4"):
        write_video(tmp_path / "a.avi", good, 8)
    assert [file.name for file in tmp_path.iterdir()] == ["a.mp4"]
    assert (tmp_path / "a.mp4").read_bytes() == before
