"""Masks as png pictures: values are instances at any depth of bits, and what is damaged or holds none is named."""

import contextlib
import io
import re
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from data_pipelines.recording.mask_picture import read_mask_picture

ROWS = np.array([[0, 1, 2, 3, 0], [3, 2, 1, 0, 1]])


def png(values: np.ndarray, depth: int, palette: bool) -> bytes:
    """By the specification of PNG: rows of packed bits, each after its filter."""
    bits = (values[..., None] >> np.arange(depth)[::-1]) & 1
    raw = b"".join(b"\0" + np.packbits(row.ravel()).tobytes() for row in bits)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, 3 if palette else 0, 0, 0, 0)
    colours = chunk(b"PLTE", bytes(3 * 2**depth)) if palette else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + colours + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("depth", "palette"), [(d, p) for d in (1, 2, 4, 8) for p in (False, True)] + [(16, False)])
def test_values_are_instances(tmp_path, depth, palette):
    values = (ROWS * {1: 1, 2: 1, 4: 5, 8: 80, 16: 20000}[depth]) % 2**depth
    (tmp_path / "0.png").write_bytes(png(values, depth, palette))
    found = read_mask_picture(tmp_path / "0.png")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found[..., 0], values)


@pytest.mark.parametrize("mode", ["RGB", "LA", "RGBA"])
def test_pictures_that_hold_no_instances_are_named(tmp_path, mode):
    Image.new(mode, (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=rf"a\.png: .*of mode {mode}; needed a png, indexed or grey"):
        read_mask_picture(tmp_path / "a.png")


def test_damaged_masks_are_refused_or_equal(tmp_path):
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 5, (20, 20), dtype=np.uint8)).save(buffer, "PNG")
    raw, path = buffer.getvalue(), tmp_path / "a.png"
    path.write_bytes(raw)
    whole, refused = read_mask_picture(path), 0
    for _ in range(300):
        data = bytearray(raw[: rng.integers(len(raw))] if rng.random() < 0.3 else raw)
        if len(data) == len(raw):
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        path.write_bytes(data)
        with contextlib.suppress(ValueError):
            np.testing.assert_array_equal(read_mask_picture(path), whole)
            continue
        with pytest.raises(ValueError, match=re.escape(str(path))):
            read_mask_picture(path)
        refused += 1
    assert refused > 250
