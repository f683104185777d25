"""Advice counts what windows touch as it is, and tells the load by Little's law."""

import numpy as np
import pytest

from data_pipelines.loading.advice import Access, Costs, best, candidates, load, read_cost


@pytest.mark.parametrize("chunk", [1, 2, 5, 8, 16, 24])
@pytest.mark.parametrize("frames", [1, 7, 16])
def test_the_chunks_that_windows_touch_are_counted(frames, chunk):
    starts = np.arange(chunk)  # every place within a chunk
    touched = (starts + frames - 1) // chunk - starts // chunk + 1
    found = read_cost(Access(frames, 8, 8), chunk, Costs())
    np.testing.assert_allclose(found.chunks, touched.mean())
    np.testing.assert_allclose(found.amplification, touched.mean() * chunk / frames)
    aligned = read_cost(Access(frames, 8, 8, aligned=True), chunk, Costs())
    assert aligned.chunks == touched[0]


def test_the_best_chunk_reads_little_and_costs_least():
    found = candidates(Access(16, 64, 64), 64, Costs())
    chosen = best(found, 20.0, 1000.0)
    assert chosen.amplification <= 1.1
    assert all(one.cpu_ms >= chosen.cpu_ms for one in found if one.amplification <= 1.1)
    aligned = best(candidates(Access(16, 64, 64, aligned=True), 64, Costs()), 20.0, 1000.0)
    assert aligned.chunk == 16 and aligned.amplification == 1.0, "a window is a chunk"


@pytest.mark.parametrize("codec", ["none", "zstd", "jpeg", "h264"])
def test_a_chunk_is_its_frames_and_what_its_first_one_takes_more(codec):
    costs = Costs()
    taken = [chunk * costs.stored(codec, chunk) for chunk in range(1, 40)]  # raw frames' worth of bytes of a chunk
    np.testing.assert_allclose(np.diff(taken), 1 / costs.ratio[codec], rtol=1e-9)
    np.testing.assert_allclose(taken[0], (1 + costs.first[codec]) / costs.ratio[codec])


def test_the_load_is_littles_law():
    one = read_cost(Access(16, 256, 256, codec="jpeg", arrays=2), 8, Costs())
    found = load(one, 100.0, 20.0, 500.0)
    np.testing.assert_allclose(found.mib_s, 100 * 16 * 256 * 256 * 3 * Costs().stored("jpeg", 8) / 2**20)
    np.testing.assert_allclose(found.in_flight, 100 * (0.02 + one.kib / 1024 / 500))
    np.testing.assert_allclose(found.cores, 0.1 * one.cpu_ms)
    assert found.requests_s == 300


@pytest.mark.parametrize("use", [Access(0, 8, 8), Access(4, 8, 8, codec="png"), Access(4, 8, 8, arrays=0)])
def test_what_makes_no_sense_is_refused(use):
    with pytest.raises(ValueError, match="needed positive numbers and a codec"):
        read_cost(use, 4, Costs())
