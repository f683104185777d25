"""Chunks: all of a window is read and no more, and what is damaged is never returned."""

import contextlib
import dataclasses
import itertools
import os
from pathlib import Path
from unittest import mock

import google_crc32c
import numpy as np
import pytest

from data_pipelines.wsv import Dataset
from data_pipelines.wsv import manifest as records
from tests.data_pipelines.wsv.random_clips import PLAIN, build


def test_of_chunks_that_are_not_compressed_only_what_is_asked_for_is_read_once_they_are_checked(tmp_path):
    path = Path(build(tmp_path / "plain", PLAIN))
    ds, key = Dataset(path), records.arrays(PLAIN)["channels/depth"].file(0)
    whole = ds.read(0, ["depth"])["depth"]  # chunks of frames 0..2, 3..5 and 6
    frame = whole[0].nbytes
    for first, last in itertools.combinations(range(PLAIN.frames + 1), 2):
        with read_bytes() as count:
            np.testing.assert_array_equal(ds.read(0, ["depth"], slice(first, last))["depth"], whole[first:last])
        between = (last - 1) // 3 - first // 3  # checksums that stand between chunks
        assert count() == (last - first) * frame + 4 * between
        wider = np.zeros((2, last - first, PLAIN.height, PLAIN.width, 2), whole.dtype)
        ds.read_rows([0], [slice(first, last)], {"depth": wider[..., :1]}, [1])  # a row that is not of one piece
        np.testing.assert_array_equal(wider[1], np.pad(whole[first:last], [(0, 0)] * 3 + [(0, 1)]))
        assert not wider[0].any()
    np.testing.assert_array_equal(ds.read(0, ["depth"], [5, 1, 1])["depth"], whole[[5, 1, 1]])
    with read_bytes() as count:
        Dataset(path).read(0, ["depth"], slice(2, 3))
    assert count() > 3 * frame  # the whole chunk, to check it
    data = bytearray((path / key).read_bytes())
    data[2 * (3 * frame + 4)] ^= 1  # the third chunk
    (path / key).write_bytes(data)
    fresh = Dataset(path)
    np.testing.assert_array_equal(fresh.read(0, ["depth"], slice(0, 6))["depth"], whole[:6])
    with pytest.raises(ValueError, match=key):
        fresh.read(0, ["depth"], slice(5, 7))
    os.truncate(path / key, frame)
    fresh.read(0, ["depth"], slice(0, 1))
    with pytest.raises(ValueError, match=key):
        fresh.read(0, ["depth"], slice(1, 3))


def test_chunks_that_are_not_compressed_may_stand_in_any_order(tmp_path):
    path = Path(build(tmp_path / "plain", PLAIN))
    file = path / records.arrays(PLAIN)["channels/depth"].file(0)
    whole = Dataset(path).read(0, ["depth"])["depth"]
    data, count = file.read_bytes(), PLAIN.clips_per_shard * 3  # chunks of frames 0..2, 3..5 and 6
    table = np.frombuffer(data[-16 * count - 4 : -4], "<u8").reshape(count, 2)
    pieces, places, filled = [], table.copy(), 0
    for row in reversed([row for row in range(count) if table[row, 0] != 2**64 - 1]):
        offset, length = table[row].tolist()
        pieces.append(data[offset : offset + length])
        places[row, 0], filled = filled, filled + length
    index = places.tobytes()
    file.write_bytes(b"".join(pieces) + index + google_crc32c.value(index).to_bytes(4, "little"))
    ds = Dataset(path)
    for _ in range(2):  # checked, and then read in part
        for first, last in itertools.combinations(range(PLAIN.frames + 1), 2):
            np.testing.assert_array_equal(ds.read(0, ["depth"], slice(first, last))["depth"], whole[first:last])


def test_a_window_of_many_chunks_that_are_not_compressed(tmp_path):
    """More than the system reads into at once."""
    layout = dataclasses.replace(PLAIN, clips=1, frames=1500, height=2, width=3, frames_per_chunk=1, channels=("depth",))
    ds = Dataset(build(tmp_path / "many", layout))
    whole = ds.read(0, ["depth"])["depth"]  # checked one by one
    np.testing.assert_array_equal(ds.read(0, ["depth"], slice(7, 1499))["depth"], whole[7:1499])


@contextlib.contextmanager
def read_bytes():
    """How many bytes of files are read in the block."""
    found: list[int] = []

    def counted(function):
        def call(*given):
            result = function(*given)
            found.append(result if isinstance(result, int) else len(result))
            return result

        return call

    with mock.patch.multiple(os, pread=counted(os.pread), preadv=counted(os.preadv)):
        yield lambda: sum(found)
