"""Masks as one array in a file: every kind of integer, in any order, is read a frame at a time; nothing is unpickled."""

import contextlib
import pickle
import re
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from data_pipelines.recording.mask_array import read_array_masks

LABELS = np.random.default_rng(0).integers(0, 9, (7, 5, 6))


def save(path: Path, values: np.ndarray, packed: bool = True) -> Path:
    if path.suffix == ".npy":
        np.save(path, values)
    else:
        (np.savez_compressed if packed else np.savez)(path, masks=values)
    return path


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["bool", "u1", "i1", ">u2", "<u2", "i4", ">i8", "u8"])
def test_values_are_instances(tmp_path, suffix, packed, order, dtype):
    values = np.asarray(LABELS * (9000 if np.dtype(dtype).itemsize > 2 else 1)).clip(0, 65535).astype(dtype, order=order)
    masks = read_array_masks(save(tmp_path / f"a{suffix}", values, packed))
    assert (len(masks), masks.head(0)[1], masks.files) == (7, (5, 6), (tmp_path / f"a{suffix}",))
    for indices in (range(7), [0], [6], [1, 4, 5], []):
        for again in (masks, pickle.loads(pickle.dumps(masks))):
            found = list(again(indices))
            assert all(one.dtype == np.uint16 and one.shape == (5, 6, 1) for one in found)
            np.testing.assert_array_equal(np.reshape(found, (-1, 5, 6)), values[list(indices)])


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_frame_is_read_without_the_others(tmp_path, suffix):
    """Of 196 MB no more than a frame and what is unpacked at a time, 16 MiB and a copy, is in memory."""
    masks = read_array_masks(save(tmp_path / f"a{suffix}", np.ones((1500, 512, 256), np.uint8)))
    tracemalloc.start()
    assert [int(one.sum()) for one in masks([10, 500, 1499])] == [131072] * 3
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (1e6 if suffix == ".npy" else 4e7)


class Trap:
    """An object that makes a file where it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((7, 5, 6), np.float32), r"holds float32 \[7, 5, 6\]; needed one array \[T H W\] of integers or bool"),
        (np.zeros((7, 5, 6, 1), np.uint8), r"holds uint8 \[7, 5, 6, 1\]; needed"),
        (np.zeros((5, 6), np.uint8), r"holds uint8 \[5, 6\]; needed"),
        (np.zeros((2, 2, 2), "U3"), "holds <U3"),
        (np.zeros((2, 2, 2), [("a", "i4")]), "holds"),
        (np.zeros((2, 2, 2), [("ä", "i4")]), "holds"),
    ],
)
def test_arrays_of_no_masks_are_named(tmp_path, suffix, values, message):
    path = save(tmp_path / f"a{suffix}", values)
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: {message}"):
        read_array_masks(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_nothing_is_unpickled(tmp_path, suffix):
    path = save(tmp_path / f"a{suffix}", np.array([[[Trap(tmp_path / "sprung")]]], object))
    with pytest.raises(ValueError, match=r"holds object \[1, 1, 1\]"):
        read_array_masks(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize(("value", "dtype"), [(-1, "i4"), (65536, "i4"), (2**63, "u8")])
def test_labels_that_do_not_fit_are_named(tmp_path, suffix, value, dtype):
    values = LABELS.astype(dtype)
    values[3, 2, 1] = np.array(value, dtype)
    masks = read_array_masks(save(tmp_path / f"a{suffix}", values))
    assert len(list(masks([0, 1, 2]))) == 3
    with pytest.raises(ValueError, match=rf"a\{suffix}: mask 3 has labels .*{value}.*; needed 0 \.\. 65535, 0 for none"):
        list(masks([3]))


def test_archives_of_other_than_one_array_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", x=LABELS, y=LABELS)
    with pytest.raises(ValueError, match=r"a\.npz: holds 2 arrays \(x\.npy, y\.npy\); needed one"):
        read_array_masks(tmp_path / "a.npz")
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as archive:
        archive.writestr("a.txt", "no array")
    (tmp_path / "c.npz").write_bytes(b"no archive")
    (tmp_path / "d.npy").write_bytes(b"")
    for name in ("b.npz", "c.npz", "d.npy"):
        with pytest.raises(ValueError, match=re.escape(str(tmp_path / name))):
            read_array_masks(tmp_path / name)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_values_that_are_more_than_the_head_says_are_named(tmp_path, suffix):
    np.save(tmp_path / "long.npy", LABELS.astype(np.uint8))
    raw = (tmp_path / "long.npy").read_bytes() + b"more"
    if suffix == ".npy":
        (tmp_path / "a.npy").write_bytes(raw)
    else:
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("masks.npy", raw)
    with pytest.raises(ValueError, match=rf"a\{suffix}: has 214 bytes of values, its head says 210"):
        read_array_masks(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_damaged_files_are_named(tmp_path, suffix):
    """A shorter file never gives masks; of an archive nor does one whose bits flipped, if all of it is read."""
    path, rng = save(tmp_path / f"a{suffix}", LABELS.astype(np.uint8)), np.random.default_rng(1)
    raw = path.read_bytes()
    for _ in range(200):
        data = bytearray(raw)
        if cut := suffix == ".npy" or rng.random() < 0.5:
            data = data[: rng.integers(len(raw))]
        else:
            data[rng.integers(len(raw))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        with contextlib.suppress(ValueError):
            found = list(read_array_masks(path)(range(7)))
            assert not cut
            np.testing.assert_array_equal(np.stack(found)[..., 0], LABELS)
            continue
        with pytest.raises(ValueError, match=re.escape(str(path))):
            list(read_array_masks(path)(range(7)))
