"""TFRecord files: checksums, framing and `tf.train.Example` messages against a writer that follows the formats."""

import struct

import numpy as np
import pytest

from data_pipelines.recording.tfrecord import (
    example_features,
    feature_values,
    masked_crc32c,
    read_record,
    record_index,
)
from tests.core.exchange.test_scene_file import damaged


def varint(value: int) -> bytes:
    """Seven bits a byte, lowest first; a negative int64 is its two's complement."""
    value, out = value & 0xFFFFFFFFFFFFFFFF, bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def feature(values, packed: bool = True) -> bytes:
    """BytesList is field 1, FloatList 2, Int64List 3; their `value` is field 1."""
    if isinstance(values, list):
        return field(1, b"".join(field(1, value) for value in values))
    if values.dtype.kind == "f":
        raw = values.astype("<f4")
        body = field(1, raw.tobytes()) if packed else b"".join(varint(1 << 3 | 5) + x.tobytes() for x in raw)
        return field(2, body)
    items = [varint(int(x)) for x in values]
    return field(3, field(1, b"".join(items)) if packed else b"".join(varint(1 << 3) + item for item in items))


def example(features: dict, packed: bool = True) -> bytes:
    entries = [field(1, field(1, name.encode()) + field(2, feature(values, packed))) for name, values in features.items()]
    return field(1, b"".join(entries))


def framed(record: bytes) -> bytes:
    head = struct.pack("<Q", len(record))
    return head + struct.pack("<I", masked(slow_crc(head))) + record + struct.pack("<I", masked(slow_crc(record)))


def masked(crc: int) -> int:
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def slow_crc(data: bytes) -> int:
    """Bit by bit, as RFC 3720 defines it: polynomial 0x11EDC6F41, reflected, begun and ended with ones."""
    register = 0xFFFFFFFF
    for byte in data:
        register ^= byte
        for _ in range(8):
            register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
    return register ^ 0xFFFFFFFF


VALUES = {
    "words": [b"", b"pick up", bytes(range(256))],
    "floats": np.float32([0.0, -1.5, 3e38, 1e-45]),
    "ints": np.array([0, 1, -1, 127, 128, 2**31, -(2**63), 2**63 - 1]),
    "none": np.zeros(0, np.int64),
}


def test_checksums_are_those_of_the_standard():
    # RFC 3720, appendix B.4
    assert masked_crc32c(bytes(32)) == masked(0x8A9136AA) and masked_crc32c(b"\xff" * 32) == masked(0x62A8AB43)
    assert masked_crc32c(bytes(range(32))) == masked(0x46DD794E) and masked_crc32c(b"123456789") == masked(0xE3069283)
    for size in (0, 1, 79, 5003):
        data = np.random.default_rng(size).bytes(size)
        assert masked_crc32c(data) == masked(slow_crc(data)), size


@pytest.mark.parametrize("packed", [True, False])
def test_examples_round_trip(packed):
    found = example_features(example(VALUES, packed))
    assert set(found) == set(VALUES)
    for name, values in VALUES.items():
        back = feature_values(found[name])
        if isinstance(values, list):
            assert back == values
        else:
            assert len(back) == 0 or back.dtype == values.dtype
            np.testing.assert_array_equal(back, values)


def test_unknown_fields_and_repeated_lists_are_read_as_protobuf_says():
    extra = varint(9 << 3) + varint(7) + varint(10 << 3 | 1) + bytes(8) + varint(11 << 3 | 5) + bytes(4) + field(12, b"x")
    ints = field(3, field(1, varint(5)) + extra) + field(3, varint(1 << 3) + varint(6))
    entry = field(1, extra + field(1, b"a") + field(2, ints))
    assert feature_values(example_features(extra + field(1, entry))["a"]).tolist() == [5, 6]


def test_records_are_found_and_read(tmp_path):
    records = [b"", b"a", np.random.default_rng(0).bytes(5000), example(VALUES)]
    path = tmp_path / "a.tfrecord"
    path.write_bytes(b"".join(map(framed, records)))
    index = record_index(path)
    assert [read_record(path, *row) for row in index.tolist()] == records
    (tmp_path / "empty").write_bytes(b"")
    assert record_index(tmp_path / "empty").shape == (0, 2)


def test_what_is_wrong_is_named(tmp_path):
    path = tmp_path / "a.tfrecord"
    whole = framed(b"one" * 40) + framed(b"two" * 40)
    path.write_bytes(b"once upon a time" * 9)
    with pytest.raises(ValueError, match=r"a\.tfrecord: is no TFRecord file"):
        record_index(path)
    for size, words in ((len(whole) - 1, "ends early: record 1 needs 272 bytes"), (140, "ends early, in the head of record 1")):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=words):
            record_index(path)
    for at in (20, 134):  # a byte of the first record, and of its checksum
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        (offset, length), other = record_index(path).tolist()
        with pytest.raises(ValueError, match=r"a\.tfrecord: is damaged: the checksum of the record at byte 12"):
            read_record(path, offset, length)
        assert read_record(path, *other) == b"two" * 40
    huge = struct.pack("<Q", 2**62)
    path.write_bytes(huge + struct.pack("<I", masked(slow_crc(huge))))
    with pytest.raises(ValueError, match="needed at most"):
        record_index(path)
    with pytest.raises(FileNotFoundError, match=r"none\.tfrecord: no such file"):
        record_index(tmp_path / "none.tfrecord")


def test_damaged_files_are_read_or_refused(tmp_path):
    path, whole, refused = tmp_path / "a.tfrecord", b"".join(framed(example(VALUES)) for _ in range(3)), 0
    for n in range(300):
        path.write_bytes(damaged(np.random.default_rng(n), whole, n % 4))
        message = None
        try:
            for offset, length in record_index(path).tolist():
                assert read_record(path, offset, length) == example(VALUES)
        except ValueError as error:
            message = str(error)
        assert message is None or str(path) in message
        refused += message is not None
    assert refused > 280


def test_damaged_messages_are_read_or_refused():
    whole, refused = example(VALUES), 0
    for n in range(1000):
        try:
            for found in example_features(damaged(np.random.default_rng(n), whole, n % 2)).values():
                feature_values(found)
        except ValueError:
            refused += 1
    assert refused > 200
