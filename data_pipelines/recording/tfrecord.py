"""TFRecord files and the `tf.train.Example` messages in them, read without TensorFlow.

A file is a row of records: length (uint64), its checksum (uint32), that many bytes, their checksum, all little endian. A
checksum is CRC-32C, masked: rotated right by 15 bits, plus 0xa282ead8. An Example is a protobuf map from names to lists of
bytes, of float32 or of int64.
"""

import functools
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from wsm_jax.typing import Int, Shaped

LIMIT_BYTES = 2**31
"""Largest record that is read; protobuf has the same limit."""

_BLOCK = 2**20
_POLYNOMIAL = 0x82F63B78  # Castagnoli's, lowest bit first
_DAMAGED = "; get the file again"


def record_index(path: Path) -> Int[np.ndarray, "n 2"]:
    """Offset of the bytes of every record, and their number; reads 12 bytes a record, and checks that all of them are there.

    Raises FileNotFoundError, or ValueError naming the file for what is no TFRecord file, or one that ends early.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; needed a TFRecord file")
    size, offset, rows = path.stat().st_size, 0, []
    with path.open("rb") as file:
        while offset < size:
            file.seek(offset)
            head = file.read(12)
            if len(head) < 12:
                raise ValueError(f"{path}: ends early, in the head of record {len(rows)} at byte {offset}{_DAMAGED}")
            length, check = struct.unpack("<QI", head)
            if masked(crc32c(head[:8])) != check:
                what = "is no TFRecord file" if offset == 0 else f"is damaged in the head of record {len(rows)}"
                raise ValueError(f"{path}: {what}: the checksum of a length at byte {offset} is wrong{_DAMAGED}")
            if length > LIMIT_BYTES:
                raise ValueError(f"{path}: record {len(rows)} has {length} bytes; needed at most {LIMIT_BYTES}")
            if offset + 16 + length > size:
                raise ValueError(f"{path}: ends early: record {len(rows)} needs {offset + 16 + length} bytes, it has {size}")
            rows.append((offset + 12, length))
            offset += 16 + length
    return np.asarray(rows, np.int64).reshape(-1, 2)


def read_record(path: Path, offset: int, length: int) -> bytes:
    """The bytes of one record of `record_index`. Raises ValueError, naming the file, where their checksum is wrong."""
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(length + 4)
    if len(data) != length + 4 or masked(crc32c(data[:-4])) != int.from_bytes(data[-4:], "little"):
        raise ValueError(f"{path}: is damaged: the checksum of the record at byte {offset} is wrong{_DAMAGED}")
    return data[:-4]


def masked(crc: int) -> int:
    """A checksum as it is stored: so that one of data that hold checksums is as good as any."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@functools.cache
def _shifts(level: int) -> Shaped[np.ndarray, "4 256"]:
    """For each byte of a register and each of its values: the register after 4 * 2**level zero bytes. XOR the four."""
    if level:
        half = _shifts(level - 1)
        return _advance(half, half)
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = (table >> np.uint32(1)) ^ (np.uint32(_POLYNOMIAL) * (table & np.uint32(1)))
    rows = [table]
    for _ in range(3):
        rows.append((rows[-1] >> np.uint32(8)) ^ table[rows[-1] & np.uint32(255)])
    return np.stack(rows[::-1])


def _advance(shift: np.ndarray, registers: np.ndarray) -> np.ndarray:
    four = np.ascontiguousarray(registers, "<u4").view(np.uint8).reshape(*registers.shape, 4)
    return shift[0][four[..., 0]] ^ shift[1][four[..., 1]] ^ shift[2][four[..., 2]] ^ shift[3][four[..., 3]]


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli) of `data`, as RFC 3720 defines it."""
    register, whole = 0xFFFFFFFF, len(data) // 4 * 4 if len(data) >= 64 else 0
    for start in range(0, whole, _BLOCK):
        words = np.frombuffer(data, "<u4", (min(start + _BLOCK, whole) - start) // 4, start).copy()
        words[0] ^= np.uint32(register)
        # A CRC is linear: halves of equal length join as (left, moved over the right) XOR right; zeros in front are neutral.
        level = 0
        while len(words) > 1:
            words = np.concatenate([np.zeros(len(words) % 2, np.uint32), words])
            words = _advance(_shifts(level), words[::2]) ^ words[1::2]
            level += 1
        register = int(_advance(_shifts(0), words)[0])
    table = _bytewise()
    for byte in data[whole:]:
        register = register >> 8 ^ table[(register ^ byte) & 255]
    return register ^ 0xFFFFFFFF


@functools.cache
def _bytewise() -> list[int]:
    return _shifts(0)[3].tolist()


def example_features(data: bytes | memoryview) -> dict[str, memoryview]:
    """The features of a serialised `tf.train.Example` by name, each still serialised: see `feature_values`.

    Raises ValueError for what is none.
    """
    found: dict[str, memoryview] = {}
    for features in _messages(memoryview(data), 1):
        for entry in _messages(features, 1):
            parts = {number: value for number, value in _fields(entry) if isinstance(value, memoryview)}
            found[str(parts.get(1, b""), "utf-8", "replace")] = parts.get(2, memoryview(b""))
    return found


def feature_values(feature: memoryview) -> list[bytes] | Shaped[np.ndarray, " n"]:
    """The list of one feature: of bytes, or an array of float32 or int64; an empty list where it has no kind.

    Raises ValueError for what is no feature.
    """
    kind, lists = 0, []
    for number, value in _fields(feature):
        if number in (1, 2, 3) and isinstance(value, memoryview):
            lists = [*lists, value] if number == kind else [value]
            kind = number
    if kind < 2:
        return [bytes(value) for part in lists for value in _messages(part, 1)]
    numbers = [_numbers(value, kind) for part in lists for number, value in _fields(part) if number == 1]
    return np.concatenate([np.zeros(0, np.float32 if kind == 2 else np.int64), *numbers])


def _numbers(value: memoryview | int, kind: int) -> np.ndarray:
    """One number (unpacked), or all of a packed list."""
    if isinstance(value, int):
        if kind == 2:
            raise ValueError("a list of float holds a varint")
        return np.asarray([value], np.uint64).view(np.int64)
    if kind == 3:
        return _varints(value)
    if len(value) % 4:
        raise ValueError(f"a packed list of float has {len(value)} bytes")
    return np.frombuffer(value, "<f4")


def _varints(packed: memoryview) -> Int[np.ndarray, " n"]:
    raw = np.frombuffer(packed, np.uint8)
    ends = np.flatnonzero(raw < 128)
    starts = np.concatenate([[0], ends + 1]).astype(np.int64)
    if starts[-1] != len(raw):
        raise ValueError("a packed list of int64 ends early")
    starts = starts[:-1]
    lengths = ends - starts + 1
    if len(raw) and lengths.max() > 10:
        raise ValueError("a varint is longer than 10 bytes")
    values = np.zeros(len(ends), np.uint64)
    for k in range(int(lengths.max()) if len(raw) else 0):
        longer = lengths > k
        values[longer] |= (raw[starts[longer] + k] & 127).astype(np.uint64) << np.uint64(7 * k)
    return values.view(np.int64)


def _messages(data: memoryview, number: int) -> Iterator[memoryview]:
    for found, value in _fields(data):
        if found == number:
            if isinstance(value, int):
                raise ValueError(f"field {number} is a number; needed bytes")
            yield value


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """Number and value of every field of a protobuf message: of a varint an int, of other kinds their bytes."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"no protobuf message: wire type {kind} at byte {at}")
        if at + length > len(data):
            raise ValueError(f"a protobuf message ends early: a field needs {at + length} of {len(data)} bytes")
        yield tag >> 3, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("a protobuf message ends inside a varint")
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise ValueError("a varint is longer than 10 bytes")
