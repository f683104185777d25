"""Video files: time rules what is shown, pictures come out upright and whole, and what is damaged is named."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from data_pipelines.recording.decode import promised_bytes
from data_pipelines.recording.video import Video, fit, frames, read_video, sample, scan
from wsm_jax.visualise.video import write_video

CODECS = {".mp4": "libx264", ".mov": "libx264", ".webm": "libvpx"}


def grey_level(index: int) -> int:
    """Frame `index` of a test video is flat grey of this level, so a frame tells its own number."""
    return 20 + 4 * index


def number_of(picture: np.ndarray) -> np.ndarray:
    return np.rint((picture.astype(float).mean((-3, -2, -1)) - 20) / 4).astype(int)


def encode(path: Path, pictures, times_ms, *, options=None, aspect: Fraction | None = None) -> Path:
    """A video whose frames are shown at the given milliseconds, through PyAV alone."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(CODECS[path.suffix], rate=1000, options={"crf": "4", "g": "12"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 4_000_000
        stream.codec_context.time_base = Fraction(1, 1000)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for picture, milliseconds in zip(pictures, times_ms, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            frame.pts, frame.time_base = int(milliseconds), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def grey_video(path: Path, times_ms, **keys) -> Path:
    return encode(path, [np.full((32, 48, 3), grey_level(i), np.uint8) for i in range(len(times_ms))], times_ms, **keys)


def noise_video(path: Path, count: int = 24, **keys) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (count, 32, 48, 3), dtype=np.uint8)
    return encode(path, list(noise), np.arange(count) * 50, **keys)


def cut(path: Path, size: int) -> Path:
    short = path.with_name(f"cut{size}{path.suffix}")
    short.write_bytes(path.read_bytes()[:size])
    return short


@pytest.mark.parametrize("suffix", CODECS)
def test_variable_rate_is_sampled_by_time(tmp_path, suffix):
    times = np.cumsum([0, 10, 10, 200, 40, 40, 40, 300, 20, 20, 100, 100, 60, 60, 90, 15, 15, 70])
    video = scan(grey_video(tmp_path / f"vfr{suffix}", times))
    np.testing.assert_allclose(video.time, times / 1000, atol=1.5e-3)
    picture = read_video(video.path, 12, 32, 48)
    instants = np.asarray(picture.frame_time)
    shown = [np.flatnonzero(times / 1000 <= t + 1e-3)[-1] for t in instants]
    assert number_of(255 * np.asarray(picture.channels["rgb"])).tolist() == shown
    assert 0 <= video.seconds - instants[-1] <= 1 / 12 + 1e-6


@pytest.mark.parametrize("suffix", CODECS)
def test_constant_rate_hits_every_nth_frame(tmp_path, suffix):
    video = scan(grey_video(tmp_path / f"a{suffix}", np.rint(np.arange(48) * 1000 / 24)))
    assert video.fps == pytest.approx(24, rel=2e-3)
    assert sample(video, 8).tolist() == list(range(0, 48, 3))
    assert sample(video, 24).tolist() == list(range(48))
    with pytest.raises(ValueError, match=r"24.* frames a second; needed at least the 30"):
        sample(video, 30)


def test_time_counts_from_the_first_frame(tmp_path):
    late = scan(grey_video(tmp_path / "late.webm", 500 + np.arange(20) * 50))
    assert late.time[0] == 0
    assert late.seconds == pytest.approx(1.0, abs=2e-3)


def test_written_video_reads_back(tmp_path):
    y, x = np.mgrid[:33, :47]
    waves = [np.stack([np.sin(x / 9 + i / 5), np.cos(y / 7), np.sin((x + y) / 11 - i / 3)], -1) for i in range(24)]
    film = np.rint(127.5 + 100 * np.asarray(waves)).astype(np.uint8)
    write_video(tmp_path / "odd.mp4", film, 24)
    video = scan(tmp_path / "odd.mp4")
    assert (video.height, video.width, len(video.time), video.fps) == (34, 48, 24, pytest.approx(24))
    back = np.stack(list(frames(video, np.arange(24), 34, 48)))
    error = back[:, :33, :47].astype(float) - film
    # 4:2:0 alone leaves 39.1 dB here, crf 17 36.0 and crf 20 34.6; x264 decides by CPU and threads, worth some 0.04 dB.
    # A wrong matrix (28.5 dB) or range (25.6 dB) also moves the mean of a colour by 2.6 of 255.
    assert 10 * np.log10(255**2 / np.mean(error**2)) > 35.5
    assert np.abs(error.mean((0, 1, 2))).max() < 0.8
    np.testing.assert_allclose(back[:, 33].astype(float), back[:, 32], atol=16)  # the doubled row
    assert [file.name for file in tmp_path.iterdir()] == ["odd.mp4"]


@pytest.mark.parametrize(("turn", "matrix"), [(1, (0, -1, 1, 0)), (2, (-1, 0, 0, -1)), (3, (0, 1, -1, 0))])
def test_rotation_metadata_is_applied(tmp_path, turn, matrix):
    """ISO/IEC 14496-12: (x, y) is shown at (a x + c y, b x + d y), so (0, 1, -1, 0) sends right to down: clockwise."""
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:16, :24] = 220  # the top left quarter
    picture[16:, 40:] = 120
    path = encode(tmp_path / "a.mp4", [picture] * 4, np.arange(4) * 50)
    plain = next(frames(scan(path), [0], 32, 48))
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 40  # version 0: 40 bytes before the matrix
    a, b, c, d = (65536 * value for value in matrix)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    video = scan(path)
    turned = np.rot90(plain, turn)
    assert (video.height, video.width) == turned.shape[:2]
    np.testing.assert_array_equal(next(frames(video, [0], video.height, video.width)), turned)


def test_wide_pixels_are_squared(tmp_path):
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:, 8:24] = 200  # shown as 64 x 32, so the middle square is source columns 8..24
    path = encode(tmp_path / "a.mp4", [picture] * 3, [0, 50, 100], aspect=Fraction(2, 1))
    shown = next(frames(scan(path), [0], 16, 16))
    assert np.abs(shown.astype(int) - 200).max() < 12


@pytest.mark.parametrize("rows", [64, 720])
def test_untagged_colours_follow_the_size_of_the_picture(tmp_path, rows):
    colours = np.uint8([[200, 40, 40], [40, 200, 40], [40, 40, 200]])
    picture = np.tile(np.repeat(colours, 32, 0)[None], (rows, 1, 1))
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "4"})
        stream.height, stream.width, stream.pix_fmt = rows, 96, "yuv420p"
        for _ in range(2):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = frame.reformat(format="yuv420p", dst_colorspace="itu709" if rows >= 720 else "itu601")
            frame.colorspace = 2  # unspecified
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    shown = next(frames(scan(path), [0], rows, 96))
    np.testing.assert_allclose(shown[rows // 2, 16::32].astype(int), colours, atol=5)


def test_fit_crops_the_centre_to_the_aspect():
    ramp = np.broadcast_to(np.arange(120, dtype=np.uint8)[None, :, None], (40, 120, 3))
    np.testing.assert_array_equal(fit(ramp, 40, 40), ramp[:, 40:80])
    np.testing.assert_array_equal(fit(ramp, 20, 60)[0, :, 0], np.rint(np.arange(60) * 2 + 0.5))
    flat = np.full((7, 13, 3), 91, np.uint8)
    for size in ((3, 3), (16, 4), (5, 32)):
        assert (fit(flat, *size) == 91).all()
    with pytest.raises(ValueError, match="needed at least 1 x 1"):
        fit(flat, 0, 4)


def test_folder_of_frames_in_order_of_their_numbers(tmp_path):
    for i in range(12):
        Image.fromarray(np.full((8, 10, 3), grey_level(i), np.uint8)).save(tmp_path / f"frame{i}.png")
    (tmp_path / "notes.txt").write_text("left alone")
    video = scan(tmp_path, fps=6)
    assert (len(video.time), video.seconds, video.height, video.width) == (12, 2.0, 8, 10)
    assert number_of(np.stack(list(frames(video, sample(video, 3), 8, 10)))).tolist() == [0, 2, 4, 6, 8, 10]
    with pytest.raises(ValueError, match="has no times of its own"):
        scan(tmp_path)
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(tmp_path / "frame3.png")
    with pytest.raises(ValueError, match=r"frame3\.png: is 8 x 12 pixels, the folder's first frame 8 x 10"):
        scan(tmp_path, fps=6)
    (tmp_path / "frame3.png").write_bytes((tmp_path / "frame2.png").read_bytes()[:50])
    with pytest.raises(ValueError, match=r"frame3\.png"):
        scan(tmp_path, fps=6)


def test_photo_orientation_is_applied(tmp_path):
    picture = np.zeros((8, 12, 3), np.uint8)
    picture[:4, :6] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    for i in range(2):
        Image.fromarray(picture).save(tmp_path / f"{i}.png", exif=exif)
    video = scan(tmp_path, fps=2)
    np.testing.assert_array_equal(next(frames(video, [0], 12, 8)), np.rot90(picture, 3))


@pytest.mark.parametrize(
    ("name", "options"), [("fast.mp4", {"movflags": "faststart"}), ("a.mov", {}), ("a.mp4", {}), ("a.webm", {})]
)
def test_every_truncation_is_an_error_and_what_is_kept_is_true(tmp_path, name, options):
    path = noise_video(tmp_path / name, options=options)
    whole = list(frames(scan(path), range(24), 32, 48))
    size = path.stat().st_size
    kept = []
    for short in (size - 1, size // 2):
        part = cut(path, short)
        with pytest.raises(ValueError, match=rf"cut{short}.*ends early"):
            scan(part)
        if name in ("fast.mp4", "a.webm"):  # the others lose the index at their end
            video = scan(part, allow_truncated=True)
            kept.append(len(video.time))
            assert "promises" in video.lost
            assert f"{kept[-1]} frames" in video.lost
            for picture, true in zip(frames(video, range(kept[-1]), 32, 48), whole, strict=False):
                np.testing.assert_array_equal(picture, true)
    assert kept == sorted(kept, reverse=True)
    assert not kept or 8 <= kept[-1] < kept[0] <= 24


def test_reading_the_beginning_asks_nothing_of_the_end(tmp_path):
    path = noise_video(tmp_path / "a.webm")
    short = cut(path, int(path.stat().st_size * 0.7))
    assert read_video(short, 10, 16, 16, seconds=0.5).channels["rgb"].shape == (5, 16, 16, 3)
    with pytest.raises(ValueError, match="ends early"):
        read_video(short, 10, 16, 16)
    with pytest.raises(ValueError, match=r"lasts 1\.2.* s, 12 frames at 10 Hz; needed 3 s"):
        read_video(path, 10, 16, 16, seconds=3)


def test_what_is_no_video_is_named(tmp_path):
    noise = np.random.default_rng(1).bytes(4000)
    files = {"noise.mp4": noise, "empty.webm": b"", "story.txt": b"once upon a time\n" * 50, "story.mp4": b"once upon\n" * 50}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ValueError, match=rf"{name}: is .*needed a video \(mp4, mov, webm, mkv\)"):
            scan(tmp_path / name)
    Image.new("RGB", (16, 16)).save(tmp_path / "picture.png")
    with pytest.raises(ValueError, match=r"picture\.png: is of format 'png_pipe'"):
        scan(tmp_path / "picture.png")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux([*stream.encode(sound), *stream.encode()])
    with pytest.raises(ValueError, match=r"sound\.mp4: has no video stream"):
        scan(tmp_path / "sound.mp4")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.mp4: no such file"):
        scan(tmp_path / "nowhere.mp4")
    with pytest.raises(ValueError, match=r"one\.mp4: has 1 frame; needed"):
        scan(grey_video(tmp_path / "one.mp4", [0]))


def test_an_unreadable_file_is_named(tmp_path, monkeypatch):
    path = grey_video(tmp_path / "secret.mp4", [0, 50, 100])

    def refuse(*_args, **_keys):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ValueError, match=r"secret\.mp4: cannot be read \(Permission denied\)"):
        scan(path)


@pytest.mark.parametrize("suffix", CODECS)
def test_a_whole_file_holds_the_bytes_it_promises(tmp_path, suffix):
    path = noise_video(tmp_path / f"a{suffix}", 10)
    size, promised = promised_bytes(path)
    assert size == promised == path.stat().st_size
    assert promised_bytes(cut(path, size - 10)) == (size - 10, size)


def test_frames_refuse_wrong_indices(tmp_path):
    video = scan(grey_video(tmp_path / "a.mp4", [0, 50, 100]))
    assert isinstance(video, Video)
    assert number_of(np.stack(list(frames(video, [0, 0, 2, 2], 32, 48)))).tolist() == [0, 0, 2, 2]
    for bad in ([1, 0], [-1], [3]):
        with pytest.raises(ValueError, match=r"lie in 0\.\.2"):
            list(frames(video, bad, 32, 48))
